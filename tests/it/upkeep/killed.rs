//! kill -9 at any moment, again and again.
//!
//! Owns the promises that what was written before it was sent is looked up before it is sent again,
//! that no machine is scanned twice and none is lost, and that the budget holds at the server over
//! restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{
    Configured, Daemon, Dice, Site, assert_adds_up, assert_scanned_once, assert_within_limits, eventually,
    first_state_of, limits, list, number, pause, quick_tenant, scan_arrivals, seen, simulate, text,
};
use serde_json::Value;
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, TenantOptions, TenantReport, fleet};

const SCAN: sweepd::simulator::Target = sweepd::simulator::Target::Call(CallKind::Scan);
const MACHINES: usize = 45;
const KILLS: u64 = 5;

async fn killed_while_sending(seed: u64) {
    let machines = fleet(seed, MACHINES, "killed");
    let tenant = TenantOptions { limits: limits(60, 300), ..quick_tenant(machines.clone()) };
    let simulator = simulate(seed, vec![tenant.clone()]).await;
    // The first call is on the wire until it is given up after seconds: a first kill that comes late meets it too.
    simulator.add_fault(0, Fault::once(SCAN, FaultKind::Hang { effect: false }));
    // The effect is there at once, the answer is not: a kill in between loses it.
    simulator.add_fault(0, Fault::always(SCAN, FaultKind::Delay { millis: 300 }));
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("devices.txt", list(&machines));

    let mut dice = Dice(seed);
    let mut hits = 0;
    for _ in 0..KILLS {
        let target = scan_arrivals(&simulator, 0) + 1 + usize::try_from(dice.below(7)).unwrap();
        eventually("next call", || (scan_arrivals(&simulator, 0) >= target.min(MACHINES)).then_some(())).await;
        pause(Duration::from_millis(dice.below(350))).await;
        daemon.kill();
        daemon.start().await;
        hits += u32::from(daemon.has_logged("ended with calls on the wire"));
    }
    assert!(hits > 0, "not one kill met a call on the wire: this scenario shows nothing");

    let jobs = daemon.all_final(MACHINES).await;
    assert!(jobs.iter().all(|job| job["state"] == "succeeded"), "{jobs:?}");
    let report = seen(&simulator);
    assert_scanned_once(&report, &machines);
    assert_within_limits(&report);
    assert_eq!(report.calls["scan"].limit_per_minute, 60);

    let sweeps = daemon.lines(&["sweep", "list"]);
    assert_eq!(sweeps.len(), 1, "one file, one sweep: {sweeps:?}");
    let receipt = daemon.receipt("processed/devices.txt").await;
    assert_adds_up(&receipt);
    assert_eq!(number(&receipt, "queued"), MACHINES as u64);
    assert_eq!(daemon.site.names_in("processed"), ["devices.txt", "devices.txt.receipt.json"]);
    let results = daemon.results("", text(&receipt, "sweep_id")).await;
    assert_eq!(number(&results["states"], "succeeded"), MACHINES as u64, "{results}");
    assert_attempts(&daemon, &jobs, &report);
    assert!(daemon.terminate().await.success());
}

/// Every call that arrived was written down before, is settled now, and is the one that made the
/// action that bears its mark.
fn assert_attempts(daemon: &Daemon, jobs: &[Value], report: &TenantReport) {
    let mut written = 0;
    for job in jobs {
        let history = daemon.history(text(job, "machine_id")).swap_remove(0);
        let attempts = history["attempts"].as_array().unwrap();
        written += attempts.len();
        for attempt in attempts {
            assert!(attempt["settled_at"].is_string(), "{attempt}");
            assert_ne!(attempt["looked_up"], "being looked up", "{attempt}");
        }
        let action = daemon.lines(&["action", "list", "--machine", text(job, "machine_id")]).swap_remove(0);
        let comment = text(&action["raw"], "requestorComment");
        let found = attempts.iter().filter(|attempt| comment.contains(text(attempt, "attempt_id"))).count();
        assert_eq!(found, 1, "the action is that of one attempt: {comment} {history}");
    }
    let arrivals = report.calls["scan"].arrivals;
    assert!(written >= arrivals, "{arrivals} calls arrived, {written} were written down before");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_makes_a_second_scan_or_loses_one() {
    killed_while_sending(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_other_kills() {
    killed_while_sending(21).await;
}

const LINES: usize = 12_000;

/// Puts a file into the drop folder and kills the daemon as soon as a part of it is in the database.
/// Returns whether that came out.
async fn kill_while_taking(daemon: &mut Daemon, name: &str, content: &str) -> bool {
    let hit = kill_and_stay_down(daemon, name, content).await;
    daemon.start().await;
    hit
}

async fn kill_and_stay_down(daemon: &mut Daemon, name: &str, content: &str) -> bool {
    daemon.site.put(name, content);
    let state = first_state_of(&daemon.site, name).await;
    daemon.kill();
    state == "taking" && daemon.site.spool("incoming").join(name).exists()
}

/// Another file under the same name is another file: it is taken as itself, and what was queued of the
/// one that is gone is withdrawn.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_replaced_a_half_taken_one_is_taken_as_itself() {
    let tenant = quick_tenant(fleet(2, 1, "nobody"));
    let simulator = simulate(2, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "hold_above = 0");
    let mut daemon = Daemon::started(site).await;
    daemon.told(&["pause"]);
    let new = fleet(61, 7, "new");
    let mut round = 0;
    // As often as it takes to meet a file half taken, each time another.
    while !kill_and_stay_down(&mut daemon, &format!("fleet-{round}.txt"), &list(&fleet(70 + round, LINES, "old"))).await
    {
        daemon.start().await;
        daemon.receipt(&format!("processed/fleet-{round}.txt")).await;
        round += 1;
        assert!(round < 10, "not one kill met a file half taken: this scenario shows nothing");
    }
    let name = format!("fleet-{round}.txt");
    daemon.site.put(&name, list(&new));
    daemon.start().await;
    let receipt = daemon.receipt(&format!("processed/{name}")).await;
    assert_adds_up(&receipt);
    assert_eq!((number(&receipt, "lines"), number(&receipt, "queued")), (7, 7), "{receipt}");
    let mine: BTreeSet<_> = new.iter().map(|machine| machine.id.to_string()).collect();
    let queued: BTreeSet<_> = daemon
        .jobs()
        .iter()
        .filter(|job| job["state"] == "queued" && job["sweep_ids"][0] == receipt["sweep_id"])
        .map(|job| text(job, "machine_id").to_owned())
        .collect();
    assert_eq!(queued, mine);
    let half_taken = daemon.lines(&["sweep", "list"]).iter().filter(|sweep| sweep["state"] == "taking").count();
    assert_eq!(half_taken, 0, "nothing stays half taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_is_taken_whole_whenever_it_is_killed() {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(1, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "hold_above = 0");
    let mut daemon = Daemon::started(site).await;
    daemon.told(&["pause", "--reason", "nothing is to be sent"]);

    let mut expected = BTreeSet::new();
    let mut hits = 0;
    let mut rounds = 0;
    // At least three, and as often as it takes to meet a file half taken.
    while rounds < 3 || hits == 0 && rounds < 10 {
        let round = rounds as u64;
        rounds += 1;
        let machines = fleet(30 + round, LINES, "long");
        let name = format!("long-{round}.txt");
        hits += u32::from(kill_while_taking(&mut daemon, &name, &list(&machines)).await);
        let receipt = daemon.receipt(&format!("processed/{name}")).await;
        assert_adds_up(&receipt);
        assert_eq!(number(&receipt, "queued"), LINES as u64, "each line once, however often it was read: {receipt}");
        expected.extend(machines.iter().map(|machine| machine.id.to_string()));
    }
    assert!(hits > 0, "not one kill met a file half taken: this scenario shows nothing");

    let jobs = daemon.jobs();
    assert_eq!(jobs.len(), expected.len(), "a job for each line, and no other");
    assert!(jobs.iter().all(|job| job["state"] == "queued"), "nothing is lost, nothing is sent");
    let queued: BTreeSet<_> = jobs.iter().map(|job| text(job, "machine_id").to_owned()).collect();
    assert!(queued == expected, "the machines of the files, and no other");
    assert_eq!(number(&daemon.status()["tenants"]["contoso"]["jobs"], "queued"), expected.len() as u64);
    assert_eq!(daemon.lines(&["sweep", "list"]).len(), rounds, "a sweep for each file, and no other");
    assert_eq!(scan_arrivals(&simulator, 0), 0);
}
