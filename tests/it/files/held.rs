//! Large sweeps are held until an operator lets them go.

use crate::support::{
    Configured, Daemon, Site, assert_adds_up, assert_scanned_once, list, number, quick_tenant, seen, simulate, text,
};
use serde_json::json;
use sweepd::simulator::{SimulatedMachine, Simulator, fleet};

const MACHINES: usize = 8;

async fn scene(intake: &str) -> (Simulator, Daemon, Vec<SimulatedMachine>) {
    let machines = fleet(23, MACHINES, "held");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(23, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], intake)).await;
    (simulator, daemon, machines)
}

/// Machines that nobody holds, dropped afterwards: once they are done, the held ones had their
/// chance.
async fn others_go_on(daemon: &Daemon, machines: &[SimulatedMachine]) {
    daemon.site.put("others.txt", list(machines));
    let receipt = daemon.receipt("processed/others.txt").await;
    assert_eq!(receipt["status"], "taken", "{receipt}");
    daemon.results("", text(&receipt, "sweep_id")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_sweep_is_held_over_restarts_until_it_is_released() {
    let (simulator, mut daemon, machines) = scene("hold_above = 4").await;
    let (held, others) = machines.split_at(5);
    daemon.site.put("large.txt", list(held));
    let receipt = daemon.receipt("processed/large.txt").await;
    assert_adds_up(&receipt);
    assert_eq!((text(&receipt, "status"), number(&receipt, "queued")), ("held", 5), "{receipt}");
    others_go_on(&daemon, others).await;
    daemon.kill();
    daemon.start().await;
    let status = daemon.status();
    assert_eq!(number(&status["tenants"]["contoso"]["jobs"], "queued"), 5, "{status}");
    assert_eq!(status["sweeps"][0]["state"], "held", "{status}");
    assert_scanned_once(&seen(&simulator), others);

    let id = text(&receipt, "sweep_id");
    daemon.told(&["sweep", "release", id]);
    let results = daemon.results("", id).await;
    assert_eq!(number(&results["states"], "succeeded"), 5, "{results}");
    assert_scanned_once(&seen(&simulator), &machines);
    assert_eq!(daemon.command(&["sweep", "release", id]).code, 1, "it is not held any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_pieces_is_held_like_a_whole_one() {
    let (simulator, mut daemon, machines) = scene("hold_above = 4").await;
    daemon.site.put("first.txt", list(&machines[..3]));
    assert_eq!(text(&daemon.receipt("processed/first.txt").await, "status"), "taken");
    // The hour outlives the daemon.
    daemon.kill();
    daemon.start().await;
    daemon.site.put("second.txt", list(&machines[3..5]));
    let receipt = daemon.receipt("processed/second.txt").await;
    assert_eq!((text(&receipt, "status"), number(&receipt, "queued")), ("held", 2), "{receipt}");
    assert!(text(&receipt, "reason").contains("5 machines within an hour"), "{receipt}");
    let id = text(&receipt, "sweep_id");
    let shown = daemon.told(&["status"]);
    assert!(shown.contains("held") && shown.contains(&format!("sweepd sweep release {id}")), "{shown}");
    assert!(daemon.lines(&["sweep", "list"]).iter().any(|sweep| sweep["id"] == id && sweep["state"] == "held"));
    // One more is within what nobody has to be asked about: what is held does not count.
    daemon.site.put("third.txt", list(&machines[5..6]));
    assert_eq!(text(&daemon.receipt("processed/third.txt").await, "status"), "taken");
    daemon.told(&["sweep", "release", id]);
    daemon.all_final(6).await;
    assert_scanned_once(&seen(&simulator), &machines[..6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_retry_is_held_like_a_file() {
    let (simulator, daemon, machines) = scene("hold_above = 4").await;
    daemon.told(&["pause"]);
    daemon.site.put("large.txt", list(&machines[..5]));
    let receipt = daemon.receipt("processed/large.txt").await;
    let large = text(&receipt, "sweep_id");
    daemon.told(&["sweep", "cancel", large, "--yes"]);
    daemon.results("", large).await;
    daemon.told(&["resume"]);
    let told = daemon.lines(&["sweep", "retry", large]);
    assert_eq!((text(&told[0], "state"), number(&told[0], "queued")), ("held", 5), "{told:?}");
    assert!(text(&told[0], "reason").contains("more than hold_above = 4"), "{told:?}");
    others_go_on(&daemon, &machines[5..]).await;
    assert_scanned_once(&seen(&simulator), &machines[5..]);
    let retry = text(&told[0], "id");
    daemon.told(&["sweep", "release", retry]);
    let results = daemon.results("", retry).await;
    assert_eq!(number(&results["states"], "succeeded"), 5, "{results}");
    assert_scanned_once(&seen(&simulator), &machines);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_scans_are_held_at_a_lower_number() {
    let (simulator, daemon, machines) = scene("hold_above = 100\nhold_full_above = 4").await;
    let (held, others) = machines.split_at(5);
    let ids: Vec<_> = held.iter().map(|machine| machine.id.to_string()).collect();
    daemon.site.put("full.json", json!({ "scan_type": "Full", "machines": ids }).to_string());
    let receipt = daemon.receipt("processed/full.json").await;
    assert_eq!((text(&receipt, "status"), number(&receipt, "queued")), ("held", 5), "{receipt}");
    others_go_on(&daemon, others).await;
    assert_scanned_once(&seen(&simulator), others);
    daemon.told(&["sweep", "release", text(&receipt, "sweep_id")]);
    daemon.all_final(MACHINES).await;
    assert_scanned_once(&seen(&simulator), &machines);
}
