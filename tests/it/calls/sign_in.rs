//! Each way to sign in, from the configuration to the last machine; and what operators meet when a
//! certificate ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::credentials::{OTHER, RENEWED, VALID, federated_token, key_pem, trust};
use crate::support::{Configured, Daemon, Site, assert_scanned_once, eventually, list, quick_tenant, seen, simulate};
use sweepd::simulator::{SimulatedMachine, Simulator, fleet};

const MACHINES: usize = 4;
/// 2126-10-29T04:25:33Z.
const ENDS: i64 = 4_948_921_533;

struct Scene {
    simulator: Simulator,
    daemon: Daemon,
    machines: Vec<SimulatedMachine>,
}

/// A daemon that does not run yet, with this section `auth`, where `ID` stands for the client id.
async fn scene(auth: &str) -> Scene {
    let machines = fleet(3, MACHINES, "sign-in");
    let mut tenant = quick_tenant(machines.clone());
    tenant.trust = trust(&tenant.client_id);
    // Nobody may come by it.
    "not-known-to-the-daemon".clone_into(&mut tenant.client_secret);
    let simulator = simulate(3, vec![tenant.clone()]).await;
    let mut configured = Configured::of("contoso", &tenant);
    "no secret".clone_into(&mut configured.secret);
    configured.auth = Some(auth.replace("ID", &format!("client_id = \"{}\"", tenant.client_id)));
    let daemon = Daemon::new(Site::new(&simulator, &[configured], ""));
    let scene = Scene { simulator, daemon, machines };
    scene.put("pair.pem", &format!("{VALID}{}", key_pem()));
    scene.put("certificate.pem", VALID);
    scene.put("key.pem", &key_pem());
    scene.put("token", &federated_token(ENDS));
    scene
}

impl Scene {
    fn put(&self, name: &str, content: &str) {
        let path = self.daemon.site.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Waits until this text stands in the log.
    async fn told(&self, text: &str) {
        eventually(text, || self.daemon.has_logged(text).then_some(())).await;
    }
}

const CERTIFICATE: &str =
    "method = \"client_certificate\"\nID\ncertificate_file = \"certificate.pem\"\nkey_file = \"key.pem\"";

#[tokio::test(flavor = "multi_thread")]
async fn every_method_gets_a_list_scanned() {
    for auth in [
        CERTIFICATE,
        "method = \"client_certificate\"\nID\ncertificate_file = \"pair.pem\"",
        "method = \"managed_identity\"",
        "method = \"managed_identity\"\nID",
        "method = \"workload_identity\"\nID\ntoken_file = \"token\"",
    ] {
        let mut scene = scene(auth).await;
        scene.daemon.start().await;
        scene.daemon.site.put("devices.txt", list(&scene.machines));
        scene.daemon.all_final(MACHINES).await;
        let report = seen(&scene.simulator);
        assert_scanned_once(&report, &scene.machines);
        assert!(report.sign_ins > 0 && report.sign_ins_refused == 0, "{auth}: {report:?}");
        let log = scene.daemon.log_text();
        assert!(!log.contains("eyJ") && !log.contains("PRIVATE"), "nothing secret in the log: {log}");
        let (_, metrics) = scene.daemon.get("/metrics");
        let end = format!("sweepd_credential_expires_seconds{{tenant=\"contoso\"}} {ENDS}\n");
        assert_eq!(metrics.contains(&end), auth.contains("certificate"), "{auth}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_defender_refuses_is_replaced_once_and_costs_no_attempt() {
    let mut scene = scene(CERTIFICATE).await;
    scene.daemon.start().await;
    scene.told("signed in").await;
    scene.simulator.with_tenant(0, sweepd::simulator::Tenant::revoke_tokens);
    scene.daemon.site.put("devices.txt", list(&scene.machines));
    let jobs = scene.daemon.all_final(MACHINES).await;
    assert!(jobs.iter().all(|job| job["attempts"] == 1), "{jobs:?}");
    let report = seen(&scene.simulator);
    assert_scanned_once(&report, &scene.machines);
    assert_eq!((report.sign_ins, report.sign_ins_refused), (2, 0), "one more, and no storm: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_at_sighup_and_a_wrong_one_changes_nothing() {
    let mut scene = scene(CERTIFICATE).await;
    scene.put("certificate.pem", RENEWED);
    scene.daemon.start().await;
    scene.told("AADSTS700027").await;
    // Of another key: the file in force stays in force.
    scene.put("certificate.pem", OTHER);
    scene.daemon.hang_up();
    scene.told("certificate_file: the private key does not belong to the certificate").await;
    scene.put("certificate.pem", VALID);
    scene.daemon.hang_up();
    scene.told("signed in").await;
    scene.daemon.site.put("devices.txt", list(&scene.machines));
    scene.daemon.all_final(MACHINES).await;
    assert_scanned_once(&seen(&scene.simulator), &scene.machines);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_how_each_tenant_signs_in_and_until_when() {
    let scene = scene(CERTIFICATE).await;
    let told = scene.daemon.told(&["check"]);
    assert!(told.contains("signs in with client_certificate, until 2126-10-29T04:25:33.000Z at http://127"), "{told}");
    let line = scene.daemon.lines(&["check"]).remove(0);
    assert_eq!(line["sign_in"]["contoso"]["method"], "client_certificate");
    assert_eq!(line["sign_in"]["contoso"]["expires"], "2126-10-29T04:25:33.000Z");
    assert_eq!(seen(&scene.simulator).requests_on_wire, 0);

    scene.put("key.pem", &crate::support::credentials::pem("ENCRYPTED PRIVATE KEY", b"s3cret"));
    for command in ["check", "run"] {
        let output = scene.daemon.command(&[command]);
        assert_eq!(output.code, 78, "{output:?}");
        assert!(output.stderr.contains("auth.key_file: the private key is encrypted; take the password off"));
    }
}
