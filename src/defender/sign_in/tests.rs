//! Signing in over real HTTP on loopback, by each method, at a simulation that verifies what it gets.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::*;
use crate::config::{Environment, Proxy, load};
use crate::credentials::{RENEWED, VALID, der, federated_token, key_pem, trust};
use crate::defender::{HttpWire, Request, http};
use crate::domain::shown::ShownPath;
use crate::simulator::{Fault, FaultKind, Options, Simulator, Target, TenantOptions, Trust};

/// A clock that the test moves by hand, on a machine whose wall clock may be wrong.
#[derive(Default)]
struct Hand {
    boot: Arc<AtomicI64>,
    wrong_by: AtomicI64,
}

impl Clock for Hand {
    fn wall(&self) -> Wall {
        Wall(1_791_798_400_000 + self.boot().0 + self.wrong_by.load(Ordering::SeqCst))
    }

    fn boot(&self) -> Boot {
        Boot(self.boot.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _at: Boot) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct World {
    simulator: Simulator,
    tenant: TenantOptions,
    clock: Arc<Hand>,
    folder: TempDir,
    ids: Arc<AtomicU64>,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(Hand::default());
        let mut tenant = TenantOptions::new(Vec::new());
        tenant.trust = trust(&tenant.client_id);
        let options = Options { tenants: vec![tenant.clone()], ..Options::default() };
        // The server has the right time, whatever the machine believes.
        let right = Hand { boot: Arc::clone(&clock.boot), ..Hand::default() };
        let simulator = Simulator::start(options, Arc::new(right)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("secret", tenant.client_secret.clone()), ("pair.pem", format!("{VALID}{}", key_pem()))]
        {
            fs::write(folder.path().join(name), content).unwrap();
        }
        Self { simulator, tenant, clock, folder, ids: Arc::default() }
    }

    /// The sign-in with this section `auth`, read as the daemon reads it.
    fn sign_in(&self, auth: &str) -> SignIn {
        let wire = HttpWire::new(&options(None)).unwrap();
        self.sign_in_over(Arc::new(wire), auth)
    }

    fn sign_in_over(&self, wire: Arc<dyn Wire>, auth: &str) -> SignIn {
        let url = self.simulator.url();
        let text = format!(
            "[tenants.contoso]\ntenant_id = '{}'\nauthority_url = '{url}'\nauth = {{ {} }}\n",
            self.tenant.tenant_id,
            auth.replace("ID", &format!("client_id = '{}'", self.tenant.client_id))
        );
        let file = self.folder.path().join("sweepd.toml");
        fs::write(&file, text).unwrap();
        let config = load(Some(&file), &Environment::new(BTreeMap::new(), "/"), &[]).unwrap();
        let tenant = config.tenants.values().next().unwrap();
        let authority = Authority { url: &tenant.authority_url, tenant_id: tenant.tenant_id, scope: &tenant.scope };
        let credential = Credential::new(&tenant.auth, authority);
        let ids = Arc::clone(&self.ids);
        let guids: Guids = Arc::new(move || Uuid::from_u64_pair(ids.fetch_add(1, Ordering::SeqCst), 4 << 60));
        let clock: Arc<dyn Clock> = Arc::<Hand>::clone(&self.clock);
        SignIn::new(wire, clock, guids, credential)
    }

    fn put(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    fn pass(&self, time: Duration) {
        self.clock.boot.fetch_add(crate::domain::time::millis(time), Ordering::SeqCst);
    }

    fn strike(&self, code: u16, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let kind = FaultKind::Status { code, body: String::new(), effect: false, headers };
        self.simulator.add_fault(0, Fault::once(Target::SignIn, kind));
    }

    /// How many tokens were issued, and how many sign-ins refused.
    fn counted(&self) -> (u64, u64) {
        let tenant = self.simulator.report().tenants.remove(0);
        (tenant.sign_ins, tenant.sign_ins_refused)
    }
}

fn options(proxy: Option<&Proxy>) -> http::Options<'_> {
    http::Options {
        proxy,
        ca_file: None,
        connect_timeout: Duration::from_millis(300),
        call_timeout: Duration::from_secs(20),
        unknown_grace: Duration::from_secs(20),
    }
}

const SECRET: &str = "ID, secret_file = 'secret'";
const CERTIFICATE: &str = "method = 'client_certificate', ID, certificate_file = 'pair.pem'";
const MANAGED: &str = "method = 'managed_identity'";
const WORKLOAD: &str = "method = 'workload_identity', ID, token_file = 'token'";

#[tokio::test]
async fn each_method_gets_a_token_that_opens_defender() {
    let world = World::new().await;
    world.put("token", &format!("{}\n", federated_token(1_791_800_000)));
    let methods = [SECRET, CERTIFICATE, MANAGED, "method = 'managed_identity', ID", WORKLOAD];
    for (n, method) in (1..).zip(methods) {
        let sign_in = world.sign_in(method);
        let signed_in = sign_in.token().await.unwrap();
        assert_eq!(signed_in.fresh_for, Some(Duration::from_secs(3599)), "{method}");
        assert_eq!(signed_in.server_time.is_none(), method.contains("managed"), "{method}");
        assert_eq!(world.counted(), (n, 0), "{method}");
        // The next asks nobody, until the token is nearly over.
        assert_eq!(sign_in.token().await.unwrap().fresh_for, None);
        assert_eq!(world.counted().0, n);
        let url = format!("{}/api/machineactions", world.simulator.url());
        let request = Request {
            post: false,
            url,
            bearer: Some(signed_in.token.secret),
            body: Body::None,
            metadata: false,
            at_most: 1024,
        };
        let wire = HttpWire::new(&options(None)).unwrap();
        assert_eq!(wire.send(request).await.unwrap().status, 200, "{method}");
    }
}

#[tokio::test]
async fn one_sign_in_is_in_flight_however_many_wait_for_it() {
    let world = World::new().await;
    let sign_in = world.sign_in(SECRET);
    let tokens = futures_util::future::join_all((0..20).map(|_| sign_in.token())).await;
    assert_eq!(tokens.iter().filter(|token| token.as_ref().unwrap().fresh_for.is_some()).count(), 1);
    assert_eq!(world.counted(), (1, 0));
    // Ahead of its end a new one is asked for; while that fails, the old one serves.
    world.pass(Duration::from_mins(56));
    world.strike(503, &[]);
    assert!(sign_in.token().await.unwrap().fresh_for.is_none());
    world.pass(Duration::from_secs(5));
    assert!(sign_in.token().await.unwrap().fresh_for.is_some());
    // Of a refusal by Defender only the one counts that is about the token in use.
    let (old, new) = (tokens[0].as_ref().unwrap().token.clone(), sign_in.token().await.unwrap().token);
    assert!(!sign_in.refused(&old).await && sign_in.refused(&new).await);
    assert!(sign_in.token().await.unwrap().fresh_for.is_some());
    assert_eq!(world.counted(), (3, 0), "the 503 came from before the authority");
}

#[tokio::test]
async fn each_assertion_is_a_new_one() {
    let world = World::new().await;
    let sign_in = world.sign_in(CERTIFICATE);
    for n in 1..=3 {
        sign_in.token().await.unwrap();
        assert_eq!(world.counted(), (n, 0), "none is refused for an id that was seen before");
        world.pass(Duration::from_mins(56));
    }
}

#[tokio::test]
async fn a_wrong_clock_costs_one_attempt_and_then_the_servers_time_holds() {
    for wrong_by in [20 * 60_000, -20 * 60_000, 400 * 86_400_000] {
        let world = World::new().await;
        world.clock.wrong_by.store(wrong_by, Ordering::SeqCst);
        let sign_in = world.sign_in(CERTIFICATE);
        let error = sign_in.token().await.unwrap_err();
        assert!(error.message.starts_with("AADSTS700024: ") && error.message.contains("clock"), "{error}");
        assert_eq!(error.until, Boot(5_000), "the next attempt comes as after any failure");
        world.pass(Duration::from_secs(5));
        let server_time = sign_in.token().await.unwrap().server_time;
        assert_eq!(world.counted(), (1, 1));
        // After a reload the new lane's sign-in knows it from the start.
        let next = world.sign_in(CERTIFICATE).knowing(server_time);
        assert!(next.token().await.is_ok());
        assert_eq!(world.counted(), (2, 1));
        // Somebody sets the clock right: that is no trouble either.
        world.clock.wrong_by.store(0, Ordering::SeqCst);
        world.pass(Duration::from_hours(1));
        assert!(sign_in.token().await.unwrap().fresh_for.is_some());
        assert_eq!(world.counted(), (3, 1));
    }
}

#[tokio::test]
async fn the_clock_of_a_proxy_is_not_believed() {
    let world = World::new().await;
    world.strike(502, &[("Date", "Thu, 01 Jan 1970 00:00:00 GMT")]);
    let sign_in = world.sign_in(CERTIFICATE);
    let error = sign_in.token().await.unwrap_err();
    assert!(error.unreachable && error.message.contains("answered 502"), "{error}");
    world.pass(Duration::from_secs(5));
    assert!(sign_in.token().await.is_ok());
}

#[tokio::test]
async fn a_certificate_that_is_not_registered_is_told_with_what_to_do() {
    let world = World::new().await;
    world.put("pair.pem", &format!("{RENEWED}{}", key_pem()));
    let sign_in = world.sign_in(CERTIFICATE);
    let error = sign_in.token().await.unwrap_err();
    assert!(error.message.starts_with("AADSTS700027: ") && error.message.contains("upload it"), "{error}");
    let mut trust = world.tenant.trust.clone();
    trust.certificates.push(der(RENEWED));
    world.simulator.with_tenant(0, |tenant| tenant.set_trust(trust));
    sign_in.try_again().await;
    assert!(sign_in.token().await.is_ok());
}

#[tokio::test]
async fn the_federated_token_is_read_each_time_and_its_absence_is_told() {
    let world = World::new().await;
    let sign_in = world.sign_in(WORKLOAD);
    let error = sign_in.token().await.unwrap_err();
    let file = world.folder.path().join("token");
    assert!(error.message.contains(&format!("{} cannot be read: No such file", ShownPath::new(&file))), "{error}");
    assert!(error.message.contains("check token_file") && !error.unreachable, "{error}");
    assert_eq!(error.until, Boot(5_000));
    assert_eq!(world.counted(), (0, 0), "nothing was asked");
    assert!(!sign_in.token().await.unwrap_err().fresh, "it is told once");

    for content in ["s3cret", "", "s3cret.s3cret.s3cr\u{e9}t", &"s3cret.".repeat(20_000)] {
        world.put("token", content);
        sign_in.try_again().await;
        let error = sign_in.token().await.unwrap_err();
        assert!(error.message.contains("is not a token") && !error.message.contains("s3cret"), "{error}");
    }
    world.put("token", &federated_token(1_791_700_000));
    sign_in.try_again().await;
    assert!(sign_in.token().await.unwrap_err().message.starts_with("AADSTS700024"));
    world.put("token", &format!("\u{feff}{}\r\n", federated_token(1_791_800_000)));
    sign_in.try_again().await;
    assert!(sign_in.token().await.is_ok(), "a byte order mark and a newline are no part of it");
    assert_eq!(world.counted(), (1, 1));
}

#[tokio::test]
async fn the_metadata_service_is_tried_again_after_what_passes() {
    let world = World::new().await;
    let sign_in = world.sign_in(MANAGED);
    let mut pause = Duration::from_secs(5);
    for code in [404, 410, 429, 500, 503] {
        world.strike(code, &[]);
        let error = sign_in.token().await.unwrap_err();
        assert!(error.message.contains(&format!("answered {code}: the metadata service")), "{error}");
        assert!(error.unreachable && error.fresh);
        assert_eq!(error.until, world.clock.boot() + pause);
        world.pass(pause);
        pause *= 2;
    }
    assert!(sign_in.token().await.is_ok());
    world.simulator.with_tenant(0, |tenant| tenant.set_trust(Trust::default()));
    let error = world.sign_in("method = 'managed_identity', client_id = 'x'").token().await.unwrap_err();
    assert!(error.message.contains("400 invalid_request: no such identity is assigned to this machine"), "{error}");
    assert!(!error.unreachable);
}

#[tokio::test]
async fn the_metadata_service_is_asked_past_any_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let named = format!("http://{address}").parse().unwrap();
    let wire = HttpWire::new(&options(Some(&named))).unwrap();
    // Of a network that is for documentation: nobody answers there.
    let request = |scheme: &str, metadata| Request {
        post: false,
        url: format!("{scheme}://192.0.2.1/metadata/identity/oauth2/token"),
        bearer: None,
        body: Body::None,
        metadata,
        at_most: 1024,
    };
    assert!(wire.send(request("http", true)).await.is_err());
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "nobody came to the proxy");

    proxy.set_nonblocking(false).unwrap();
    let proxied = std::thread::spawn(move || {
        let mut start = [0; 4];
        proxy.accept().unwrap().0.read_exact(&mut start).unwrap();
        start
    });
    assert!(wire.send(request("https", false)).await.is_err());
    assert_eq!(&proxied.join().unwrap(), b"CONN", "others do come");
}

/// An authority that repeats what it was sent.
struct Echo;

impl Wire for Echo {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, Failure>> {
        let Body::Form(fields) = request.body else { panic!("no form") };
        let told: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", value.expose_secret())).collect();
        let body = serde_json::json!({ "error": "invalid_client", "error_description": told.join(" ") });
        Box::pin(async move { Ok(Reply { status: 400, text: body.to_string(), ..Reply::default() }) })
    }
}

#[tokio::test]
async fn what_proves_who_we_are_is_never_shown() {
    let world = World::new().await;
    let federated = federated_token(1);
    world.put("token", &federated);
    for (method, field) in
        [(SECRET, "client_secret"), (CERTIFICATE, "client_assertion"), (WORKLOAD, "client_assertion")]
    {
        let sign_in = world.sign_in_over(Arc::new(Echo), method);
        let error = sign_in.token().await.unwrap_err();
        assert!(error.message.contains(&format!(" {field}=[redacted]")), "{error}");
        assert!(error.message.contains("grant_type=client_credentials"), "{error}");
        let shown = format!("{error:?} {sign_in:?}");
        for secret in [world.tenant.client_secret.as_str(), federated.as_str(), "eyJ", "PRIVATE"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

/// An authority that issues this token, whoever asks.
struct Issuer(String);

impl Wire for Issuer {
    fn send(&self, _: Request) -> BoxFuture<'_, Result<Reply, Failure>> {
        let body = serde_json::json!({ "access_token": self.0, "expires_in": 3599 });
        Box::pin(async move { Ok(Reply { status: 200, text: body.to_string(), ..Reply::default() }) })
    }
}

fn jwt(claims: &serde_json::Value) -> String {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("eyJ0eXAiOiJKV1QifQ.{claims}.c2ln")
}

#[tokio::test]
async fn token_of_another_directory_is_refused_whatever_the_method() {
    let world = World::new().await;
    world.put("token", &federated_token(1_791_800_000));
    let (ours, theirs) = (world.tenant.tenant_id, Uuid::from_u128(0xa110_7e57));
    let foreign = jwt(&serde_json::json!({ "tid": theirs.to_string(), "roles": ["Machine.Scan"] }));
    for method in [SECRET, CERTIFICATE, MANAGED, WORKLOAD] {
        let sign_in = world.sign_in_over(Arc::new(Issuer(foreign.clone())), method);
        let error = sign_in.token().await.unwrap_err();
        let expected = format!("the token is for the directory {theirs}, not for tenant_id {ours}: it is not used");
        assert!(error.message.starts_with(&expected), "{method}: {error}");
        assert!(error.message.contains("correct tenant_id") && !error.unreachable, "{method}: {error}");
        assert_eq!(error.message.contains("identity of this machine"), method == MANAGED, "{method}: {error}");
        assert_eq!(error.until, Boot(5_000), "it is tried again as after any refusal");
        assert!(!error.message.contains("eyJ"), "{error}");
    }
}

#[tokio::test]
async fn token_that_names_no_directory_is_used() {
    let world = World::new().await;
    let ours = world.tenant.tenant_id.to_string();
    for token in [
        jwt(&serde_json::json!({ "tid": ours })),
        jwt(&serde_json::json!({ "tid": ours.to_uppercase() })),
        jwt(&serde_json::json!({ "roles": [] })),
        jwt(&serde_json::json!({ "tid": null })),
        "opaque".to_owned(),
        "a.b.c".to_owned(),
    ] {
        for method in [SECRET, MANAGED] {
            let sign_in = world.sign_in_over(Arc::new(Issuer(token.clone())), method);
            assert_eq!(sign_in.token().await.unwrap().token.secret.expose_secret(), token, "{method}");
        }
    }
}

#[tokio::test]
async fn an_authority_that_is_not_there_is_told_with_what_to_check() {
    let world = World::new().await;
    let (secret, managed) = (world.sign_in(SECRET), world.sign_in(MANAGED));
    world.simulator.stop().await;
    let error = secret.token().await.unwrap_err();
    assert!(error.unreachable && error.message.contains("check network, proxy and firewall"), "{error}");
    let error = managed.token().await.unwrap_err();
    assert!(error.unreachable && error.message.contains("is this a machine in Azure"), "{error}");
}
