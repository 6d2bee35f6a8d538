//! A database that was restored from an older copy, or made anew: sweepd finds its own marks in
//! Defender's list, and sends nothing until an operator has spoken.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{
    Configured, Daemon, Site, assert_scanned_once, eventually, list, number, quick_tenant, scan_arrivals, seen,
    simulate, text,
};
use sweepd::simulator::{SimulatedMachine, Simulator, TenantOptions, fleet};

const MACHINES: usize = 4;

fn scene() -> (TenantOptions, Vec<SimulatedMachine>) {
    let machines = fleet(31, MACHINES, "restored");
    (quick_tenant(machines.clone()), machines)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (source, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if source.is_dir() {
            copy(&source, &to.join(name));
        } else {
            fs::copy(&source, to.join(name)).map(drop).unwrap();
        }
    }
}

/// Waits for word that the lane is held; nothing more was sent.
async fn held(daemon: &Daemon, simulator: &Simulator) {
    eventually("word of the unknown marks", || {
        let status = daemon.status();
        text(&status["tenants"]["contoso"], "waiting_for").contains("`sweepd reconcile`").then_some(())
    })
    .await;
    // The lane may stand a moment before the one who reads the list says why, and before the list shows all of them.
    let told = format!("Defender lists {MACHINES} scans that sweepd asked for");
    eventually("word in the log", || daemon.has_logged(&told).then_some(())).await;
    assert!(daemon.has_logged("restored from an older copy"), "{}", daemon.log_text());
    assert_eq!(scan_arrivals(simulator, 0), MACHINES, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_sends_nothing_twice_and_knows_what_was_spent() {
    let (tenant, machines) = scene();
    let simulator = simulate(31, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.told(&["pause"]);
    daemon.site.put("devices.txt", list(&machines));
    daemon.receipt("processed/devices.txt").await;
    assert!(daemon.terminate().await.success());
    let older = daemon.site.path().join("older");
    copy(&daemon.site.state(), &older);

    daemon.start().await;
    daemon.told(&["resume"]);
    daemon.all_final(MACHINES).await;
    assert!(daemon.terminate().await.success());
    assert_eq!(scan_arrivals(&simulator, 0), MACHINES);

    fs::remove_dir_all(daemon.site.state()).unwrap();
    fs::rename(older, daemon.site.state()).unwrap();
    daemon.start().await;
    daemon.told(&["resume"]);
    held(&daemon, &simulator).await;
    let status = daemon.status();
    assert_eq!(number(&status["tenants"]["contoso"]["jobs"], "queued"), MACHINES as u64, "{status}");
    assert_eq!(text(&status["tenants"]["contoso"], "eta_unknown"), "held until `sweepd reconcile`", "{status}");
    let budget = &status["tenants"]["contoso"]["budget"]["scan"]["hour"];
    assert_eq!(number(budget, "used"), MACHINES as u64, "what the lost history spent is spent: {status}");

    let told = daemon.lines(&["reconcile", "--yes"]);
    assert_eq!((number(&told[0], "actions"), number(&told[0], "jobs")), (4, 4), "{told:?}");
    for job in daemon.all_final(MACHINES).await {
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    assert_scanned_once(&seen(&simulator), &machines);
    assert_eq!(scan_arrivals(&simulator, 0), MACHINES);
    daemon.told(&["audit", "verify"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_file_put_in_place_waits_for_a_list_that_lags() {
    let (mut tenant, machines) = scene();
    // What is sent is not listed before its scan has ended: nothing but the note beside the database tells.
    tenant.list_lag = Duration::from_secs(4);
    tenant.action_duration = (Duration::from_millis(1), Duration::from_millis(500));
    let simulator = simulate(31, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let config = fs::read_to_string(site.config()).unwrap();
    site.write_config(&config.replace("lookup_horizon = \"4s\"", "lookup_horizon = \"20s\""));
    let mut daemon = Daemon::started(site).await;
    daemon.told(&["pause"]);
    daemon.site.put("devices.txt", list(&machines));
    daemon.receipt("processed/devices.txt").await;
    let older = daemon.site.path().join("older.db");
    daemon.told(&["backup", older.to_str().unwrap()]);
    daemon.told(&["resume"]);
    eventually("every call", || (scan_arrivals(&simulator, 0) == MACHINES).then_some(())).await;
    daemon.kill();

    let database = daemon.site.state().join("sweepd.db");
    for ending in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{ending}", database.to_str().unwrap())).unwrap();
    }
    fs::copy(&older, &database).map(drop).unwrap();
    // The copy was made in a pause, which is over: what keeps it from sending is the note.
    daemon.told(&["resume"]);
    daemon.start().await;
    assert!(daemon.has_logged("the database is older than what ran here last"));
    held(&daemon, &simulator).await;
    let told = daemon.lines(&["reconcile", "--yes"]);
    assert_eq!((number(&told[0], "actions"), number(&told[0], "jobs")), (4, 4), "{told:?}");
    daemon.all_final(MACHINES).await;
    assert_scanned_once(&seen(&simulator), &machines);
    assert_eq!(scan_arrivals(&simulator, 0), MACHINES);
    // What it holds now is what ran here last.
    daemon.told(&["resume"]);
    assert!(daemon.terminate().await.success());
    daemon.start().await;
    assert_eq!(daemon.status()["tenants"]["contoso"]["paused"], false, "{}", daemon.status());
    daemon.told(&["audit", "verify"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_does_not_go_on_where_another_one_was() {
    let (tenant, machines) = scene();
    let simulator = simulate(31, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("devices.txt", list(&machines));
    daemon.all_final(MACHINES).await;
    assert!(daemon.terminate().await.success());
    fs::remove_dir_all(daemon.site.state()).unwrap();
    daemon.start().await;
    daemon.site.put("again.txt", list(&machines));
    held(&daemon, &simulator).await;
    let mut asked = Terminal::run(&daemon.site, &["reconcile"], (100, 30), &[]);
    let question = eventually("a question", || Some(asked.shown()).filter(|shown| shown.contains("[y/N]"))).await;
    assert!(question.contains(&format!("taking over {MACHINES} scans of contoso")), "{question}");
    asked.types("n\n");
    assert_eq!(asked.end().await.code(), Some(1), "{}", asked.shown());
    held(&daemon, &simulator).await;
    let unasked = daemon.command(&["reconcile"]);
    assert_eq!(unasked.code, 2, "nobody could be asked: {unasked:?}");
    held(&daemon, &simulator).await;
    daemon.told(&["reconcile", "--yes"]);
    // Asked for within the five minutes that the clocks may be apart: the scans that were made are theirs.
    for job in daemon.all_final(MACHINES).await {
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    assert_eq!(scan_arrivals(&simulator, 0), MACHINES, "and nothing was sent for them");
    assert_scanned_once(&seen(&simulator), &machines);
}
