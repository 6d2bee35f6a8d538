//! The same over real HTTP, with a real client.
#![allow(clippy::disallowed_methods, reason = "the client of these tests is not the daemon's")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{Fault, FaultKind, MachineKind, Options, Simulator, Target, TenantOptions, fleet};
use crate::clock::Clock;
use crate::domain::ledger::CallKind;
use crate::domain::time::{Boot, Wall};

const SCAN: Target = Target::Call(CallKind::Scan);
/// What does not come is waited for so long.
const MOMENT: Duration = Duration::from_millis(200);

/// A clock that the test moves by hand.
#[derive(Default)]
struct Hand {
    boot: AtomicI64,
    stepped: AtomicI64,
}

impl Clock for Hand {
    fn wall(&self) -> Wall {
        Wall(1_791_798_400_000 + self.boot().0 + self.stepped.load(Ordering::SeqCst))
    }

    fn boot(&self) -> Boot {
        Boot(self.boot.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Boot) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while self.boot() < at {
                tokio::task::yield_now().await;
            }
        })
    }
}

struct World {
    simulator: Simulator,
    clock: Arc<Hand>,
    client: reqwest::Client,
    tenants: Vec<TenantOptions>,
}

impl World {
    async fn new(tenants: Vec<TenantOptions>) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let clock = Arc::new(Hand::default());
        let options = Options { tenants: tenants.clone(), seed: 1, ..Options::default() };
        let simulator = Simulator::start(options, Arc::<Hand>::clone(&clock)).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().retry(reqwest::retry::never()).build().unwrap();
        Self { simulator, clock, client, tenants }
    }

    async fn token(&self, tenant: usize, secret: &str) -> (u16, Value) {
        let tenant = &self.tenants[tenant];
        let form = [
            ("client_id", tenant.client_id.as_str()),
            ("client_secret", secret),
            ("grant_type", "client_credentials"),
            ("scope", "https://api.securitycenter.microsoft.com/.default"),
        ];
        let url = format!("{}/{}/oauth2/v2.0/token", self.simulator.url(), tenant.tenant_id);
        let response = self.client.post(url).form(&form).send().await.unwrap();
        (response.status().as_u16(), json_of(response).await)
    }

    async fn sign_in(&self, tenant: usize) -> String {
        let (status, body) = self.token(tenant, &self.tenants[tenant].client_secret).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn scan(&self, token: &str, machine: usize) -> reqwest::Result<reqwest::Response> {
        let id = self.tenants[0].machines[machine].id;
        let url = format!("{}/api/machines/{id}/runAntiVirusScan", self.simulator.url());
        let body = json!({"Comment": "weekly", "ScanType": "Full"}).to_string();
        let request = self.client.post(url).bearer_auth(token).header("content-type", "application/json");
        request.body(body).send().await
    }

    /// A call that is struck and never answered.
    async fn unanswered<T>(&self, call: impl Future<Output = T>) {
        let struck = || self.simulator.report().tenants[0].faults_struck;
        let before = struck();
        let mut call = std::pin::pin!(call);
        tokio::select! {
            _ = &mut call => panic!("it was answered"),
            () = async { while struck() == before { tokio::task::yield_now().await } } => {}
        }
        assert!(tokio::time::timeout(MOMENT, call).await.is_err());
    }

    async fn get(&self, token: &str, path: &str, query: &[(&str, &str)]) -> reqwest::Response {
        let url = format!("{}{path}", self.simulator.url());
        self.client.get(url).bearer_auth(token).query(query).send().await.unwrap()
    }
}

async fn json_of(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn tenant(tag: &str) -> TenantOptions {
    TenantOptions { all_succeed: true, ..TenantOptions::new(fleet(1, 20, tag)) }
}

#[tokio::test]
async fn a_scan_goes_its_way_over_real_http() {
    let world = World::new(vec![tenant("contoso")]).await;
    assert_eq!(world.token(0, "wrong").await.0, 401);
    let token = world.sign_in(0).await;
    let response = world.scan(&token, 0).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["date"], "Mon, 12 Oct 2026 09:46:40 GMT");
    let action = json_of(response).await;
    // The server's clock does not follow steps of the machine's wall clock.
    world.clock.stepped.store(-86_400_000, Ordering::SeqCst);
    world.clock.boot.store(60_000, Ordering::SeqCst);
    let filter = format!("machineId eq '{}' and type eq 'RunAntiVirusScan'", world.tenants[0].machines[0].id);
    let query = [("$filter", filter.as_str()), ("$orderby", "creationDateTimeUtc desc"), ("$top", "10")];
    let response = world.get(&token, "/api/machineactions", &query).await;
    assert_eq!(response.headers()["date"], "Mon, 12 Oct 2026 09:47:40 GMT");
    let listed = json_of(response).await;
    assert_eq!(listed["value"][0]["id"], action["id"]);
    assert_eq!(listed["value"][0]["status"], "Succeeded");
    let report = json_of(world.get("", "/_simulator/report", &[]).await).await;
    assert_eq!(report["tenants"][0]["calls"]["scan"]["worst_minute"], 1);
    assert_eq!(report, serde_json::to_value(world.simulator.report()).unwrap());
    let url = world.simulator.url();
    world.simulator.stop().await;
    assert!(world.client.get(url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn connections_break_as_ordered() {
    let world = World::new(vec![tenant("contoso")]).await;
    let token = world.sign_in(0).await;
    for (machine, kind) in [FaultKind::ResetBeforeEffect, FaultKind::ResetAfterEffect].into_iter().enumerate() {
        world.simulator.add_fault(0, Fault::once(SCAN, kind));
        let error = world.scan(&token, machine).await.unwrap_err();
        assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    }
    assert_eq!(world.simulator.report().tenants[0].scans_created, 1);

    world.simulator.add_fault(0, Fault::once(SCAN, FaultKind::Truncated));
    let response = world.scan(&token, 2).await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(response.bytes().await.is_err());

    world.simulator.add_fault(0, Fault::once(SCAN, FaultKind::Hang { effect: true }));
    world.unanswered(world.scan(&token, 3)).await;

    world.simulator.add_fault(0, Fault::once(SCAN, FaultKind::Delay { millis: 30_000 }));
    let (late, ()) = tokio::join!(world.scan(&token, 4), async {
        while world.simulator.report().tenants[0].scans_created < 4 {
            tokio::task::yield_now().await;
        }
        world.clock.boot.store(30_000, Ordering::SeqCst);
    });
    assert_eq!(late.unwrap().status(), 201);

    let report = world.simulator.report().tenants.remove(0);
    assert_eq!((report.scans_created, report.faults_struck), (4, 5));
    assert_eq!(report.calls["scan"].arrivals, 5);
    world.simulator.stop().await;
}

#[tokio::test]
async fn what_no_proper_server_sends_is_sent_by_hand() {
    let world = World::new(vec![tenant("contoso")]).await;
    let token = world.sign_in(0).await;
    let struck = async |machine: usize, kind: FaultKind| {
        world.simulator.add_fault(0, Fault::once(SCAN, kind).about(&world.tenants[0].machines[machine].id));
        world.scan(&token, machine).await
    };
    let mut half = struck(0, FaultKind::HangInBody).await.unwrap();
    assert_eq!((half.status().as_u16(), half.chunk().await.unwrap().unwrap()[0]), (201, b'{'));
    assert!(tokio::time::timeout(MOMENT, half.chunk()).await.is_err());

    world.unanswered(struck(1, FaultKind::TrickleHead)).await;
    let mut slow = struck(2, FaultKind::TrickleBody).await.unwrap();
    assert_eq!(slow.chunk().await.unwrap().unwrap(), "{");
    assert!(tokio::time::timeout(MOMENT, slow.chunk()).await.is_err());
    world.clock.boot.store(1_000, Ordering::SeqCst);
    assert_eq!(slow.chunk().await.unwrap().unwrap(), "\"", "a byte a second");

    assert_eq!(struck(3, FaultKind::Gigabyte).await.unwrap().content_length(), Some(1 << 30));
    let (mut bomb, mut unpacked) = (struck(4, FaultKind::GzipBomb).await.unwrap(), 0);
    while unpacked < 1 << 20 {
        unpacked += bomb.chunk().await.unwrap().unwrap().len();
    }
    let noise = struck(5, FaultKind::Noise).await.unwrap().bytes().await.unwrap();
    assert!(std::str::from_utf8(&noise).is_err());
    let restated = struck(6, FaultKind::Restated { code: 500 }).await.unwrap();
    assert_eq!(restated.status(), 500);
    assert!(json_of(restated).await["id"].is_string());
    let fruitless = struck(7, FaultKind::Restated { code: 200 }.without_effect()).await.unwrap();
    assert_eq!(fruitless.status(), 200);
    assert!(json_of(fruitless).await["id"].is_null());

    let before = world.simulator.report().requests_on_used_connections;
    assert!(json_of(struck(8, FaultKind::Stale).await.unwrap()).await["id"].is_string());
    assert!(world.scan(&token, 9).await.is_err(), "the pool has kept that connection");
    let report = world.simulator.report();
    assert!(report.requests_on_used_connections > before);
    assert_eq!((report.tenants[0].scans_created, report.tenants[0].faults_struck), (8, 9));
    assert_eq!(report.tenants[0].scan_calls_per_machine.values().sum::<u32>(), 9);
    world.simulator.stop().await;
}

#[tokio::test]
async fn faults_are_ordered_from_outside() {
    let world = World::new(vec![tenant("contoso")]).await;
    let token = world.sign_in(0).await;
    let order = r#"{"tenant":0,"on":"scan","times":1,"kind":{"status":{"code":503,"headers":[["Retry-After","7"],["Date","Thu, 01 Jan 1970 00:00:00 GMT"]]}}}"#;
    let url = format!("{}/_simulator/faults", world.simulator.url());
    assert_eq!(world.client.post(&url).body(order).send().await.unwrap().status(), 204);
    assert_eq!(world.client.post(&url).body("{}").send().await.unwrap().status(), 400);
    let struck = world.scan(&token, 0).await.unwrap();
    assert_eq!((struck.status().as_u16(), struck.headers()["retry-after"].to_str().unwrap()), (503, "7"));
    assert_eq!(struck.headers()["date"], "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(world.scan(&token, 0).await.unwrap().status(), 201);
}

#[tokio::test]
async fn tenants_share_an_address_and_nothing_else() {
    let mut quiet = tenant("fabrikam");
    quiet.machines[0].kind = MachineKind::Inactive;
    let world = World::new(vec![tenant("contoso"), quiet]).await;
    let (first, second) = (world.sign_in(0).await, world.sign_in(1).await);
    assert_eq!(world.scan(&first, 0).await.unwrap().status(), 201);
    // The machine is the first tenant's: the second knows nothing of it.
    assert_eq!(world.scan(&second, 0).await.unwrap().status(), 404);
    assert_eq!(world.scan("stolen", 0).await.unwrap().status(), 401);
    let inactive = [("$filter", "healthStatus eq 'Inactive'")];
    let machines = json_of(world.get(&second, "/api/machines", &inactive).await).await;
    assert_eq!(machines["value"].as_array().unwrap().len(), 1);
    world.simulator.start_foreign_scan(1, world.tenants[1].machines[1].id);
    let report = world.simulator.report();
    assert_eq!((report.tenants[0].scans_created, report.tenants[1].scans_created), (1, 0));
    assert_eq!((report.tenants[1].foreign_scans, report.stray_requests), (1, 1));
    let twice = Options { tenants: vec![tenant("a"), tenant("a")], ..Options::default() };
    assert!(Simulator::start(twice, Arc::<Hand>::clone(&world.clock)).await.is_err());
}
