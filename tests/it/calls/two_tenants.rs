//! Tenants are lanes: one tenant's wrong secret takes nothing from another, and files find their
//! tenant or are told why not.

use crate::support::{
    Configured, Daemon, Site, assert_scanned_once, assert_within_limits, eventually, is_final, list, number,
    quick_tenant, scan_arrivals, simulate, text,
};
use serde_json::{Value, json};
use sweepd::simulator::{Fault, FaultKind, SimulatedMachine, Simulator, Target, fleet};

const MACHINES: usize = 6;

struct Scene {
    simulator: Simulator,
    daemon: Daemon,
    contoso: Vec<SimulatedMachine>,
    fabrikam: Vec<SimulatedMachine>,
    right_secret: String,
}

/// Two tenants; fabrikam's secret is wrong if `wrong`.
async fn scene(wrong: bool) -> Scene {
    let (contoso, fabrikam) = (fleet(1, MACHINES, "contoso"), fleet(1, MACHINES, "fabrikam"));
    let tenants = [quick_tenant(contoso.clone()), quick_tenant(fabrikam.clone())];
    let simulator = simulate(2, tenants.to_vec()).await;
    let mut configured = [Configured::of("contoso", &tenants[0]), Configured::of("fabrikam", &tenants[1])];
    let right_secret = configured[1].secret.clone();
    if wrong {
        "not-the-secret".clone_into(&mut configured[1].secret);
    }
    let daemon = Daemon::started(Site::new(&simulator, &configured, "")).await;
    Scene { simulator, daemon, contoso, fabrikam, right_secret }
}

fn of<'a>(jobs: &'a [Value], tenant: &str) -> Vec<&'a Value> {
    jobs.iter().filter(|job| job["tenant"] == tenant).collect()
}

/// A document that names its tenant.
fn document(tenant: &str, machines: &[SimulatedMachine]) -> String {
    let machines: Vec<_> = machines.iter().map(|machine| machine.id.to_string()).collect();
    json!({ "tenant": tenant, "machines": machines }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_stops_one_tenant_until_it_is_corrected() {
    let scene = scene(true).await;
    let daemon = &scene.daemon;
    daemon.site.put("contoso/devices.txt", list(&scene.contoso));
    daemon.site.put("fabrikam/devices.txt", list(&scene.fabrikam));
    let receipts =
        [daemon.receipt("processed/contoso/devices.txt").await, daemon.receipt("processed/fabrikam/devices.txt").await];
    for (receipt, tenant) in receipts.iter().zip(["contoso", "fabrikam"]) {
        assert_eq!((text(receipt, "tenant"), number(receipt, "queued")), (tenant, MACHINES as u64));
    }
    let results = daemon.results("contoso", text(&receipts[0], "sweep_id")).await;
    assert_eq!(number(&results["states"], "succeeded"), MACHINES as u64, "{results}");

    let status = eventually("word of the wrong secret", || {
        let status = daemon.status();
        let waiting_for = |tenant: &str| text(&status["tenants"][tenant], "waiting_for").to_owned();
        let told = waiting_for("fabrikam").contains("AADSTS7000215") && waiting_for("contoso") == "nothing";
        told.then_some(status)
    })
    .await;
    assert_eq!(number(&status["tenants"]["fabrikam"]["jobs"], "queued"), MACHINES as u64, "nothing is lost");
    assert_eq!(scan_arrivals(&scene.simulator, 1), 0, "nothing can have been sent");
    assert!(!daemon.log_text().contains("not-the-secret"), "no secret in the log");

    daemon.site.write_secret("fabrikam", &scene.right_secret);
    daemon.hang_up();
    let results = daemon.results("fabrikam", text(&receipts[1], "sweep_id")).await;
    assert_eq!(number(&results["states"], "succeeded"), MACHINES as u64, "{results}");
    let report = scene.simulator.report();
    assert_scanned_once(&report.tenants[0], &scene.contoso);
    assert_scanned_once(&report.tenants[1], &scene.fabrikam);
    report.tenants.iter().for_each(assert_within_limits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_to_its_folders_tenant_or_to_the_one_it_names() {
    let scene = scene(false).await;
    let daemon = &scene.daemon;
    daemon.site.put("contoso/plain.txt", list(&scene.contoso[..2]));
    daemon.site.put("contoso/agrees.json", document("contoso", &scene.contoso[2..4]));
    daemon.site.put("named.json", document("fabrikam", &scene.fabrikam[..3]));
    daemon.site.put("contoso/contradicts.json", document("fabrikam", &scene.fabrikam[3..]));
    daemon.site.put("nobodys.txt", list(&scene.fabrikam[3..]));
    daemon.site.put("strange.json", document("northwind", &scene.fabrikam[3..]));

    for (file, tenant, queued) in [
        ("processed/contoso/plain.txt", "contoso", 2),
        ("processed/contoso/agrees.json", "contoso", 2),
        ("processed/named.json", "fabrikam", 3),
    ] {
        let receipt = daemon.receipt(file).await;
        assert_eq!((text(&receipt, "tenant"), number(&receipt, "queued")), (tenant, queued), "{receipt}");
        assert_eq!(receipt["status"], "taken");
    }
    for (file, reason) in [
        ("rejected/contoso/contradicts.json", "fabrikam"),
        ("rejected/nobodys.txt", "names no tenant"),
        ("rejected/strange.json", "northwind"),
    ] {
        let receipt = daemon.receipt(file).await;
        assert_eq!(receipt["status"], "rejected", "{receipt}");
        assert!(text(&receipt, "reason").contains(reason), "{receipt}");
        assert_eq!((number(&receipt, "queued"), &receipt["sweep_id"]), (0, &Value::Null), "{receipt}");
        assert!(daemon.site.spool(file).is_file(), "{file} is kept");
    }
    assert_eq!(daemon.site.waiting_files(), Vec::<std::path::PathBuf>::new());
    let jobs = eventually("end of all jobs", || Some(daemon.jobs()).filter(|jobs| jobs.iter().all(is_final))).await;
    assert_eq!((of(&jobs, "contoso").len(), of(&jobs, "fabrikam").len()), (4, 3), "{jobs:?}");
    let report = scene.simulator.report();
    assert_scanned_once(&report.tenants[0], &scene.contoso[..4]);
    assert_scanned_once(&report.tenants[1], &scene.fabrikam[..3]);
    assert_eq!(report.stray_requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_throttled_or_hangs_slows_nobody_else() {
    let throttled = FaultKind::Status {
        code: 429,
        body: String::new(),
        effect: false,
        headers: vec![("Retry-After".to_owned(), "3000".to_owned())],
    };
    // Its scans, its lists, or the sign-in before all of them.
    for (target, kind) in [
        (Target::Any, throttled),
        (Target::Any, FaultKind::Hang { effect: false }),
        (Target::SignIn, FaultKind::Hang { effect: false }),
    ] {
        let scene = scene(false).await;
        scene.simulator.add_fault(1, Fault::always(target, kind.clone()));
        // It may have signed in already.
        scene.simulator.with_tenant(1, sweepd::simulator::Tenant::revoke_tokens);
        // Its machines first, and its calls on the wire before anybody else has asked.
        scene.daemon.site.put("fabrikam/devices.txt", list(&scene.fabrikam));
        scene.daemon.receipt("processed/fabrikam/devices.txt").await;
        scene.daemon.site.put("contoso/devices.txt", list(&scene.contoso));
        let receipt = scene.daemon.receipt("processed/contoso/devices.txt").await;
        let results = scene.daemon.results("contoso", text(&receipt, "sweep_id")).await;
        assert_eq!(number(&results["states"], "succeeded"), MACHINES as u64, "{kind:?}: {results}");
        let jobs = scene.daemon.jobs();
        assert!(of(&jobs, "fabrikam").iter().all(|job| !is_final(job)), "{kind:?} is over already: {jobs:?}");
        let report = scene.simulator.report();
        assert_scanned_once(&report.tenants[0], &scene.contoso);
        assert_within_limits(&report.tenants[0]);
    }
}
