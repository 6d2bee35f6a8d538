//! Owns: what an operator does with sweeps and actions while the daemon runs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a scenario fails loudly, in its helpers too"
)]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{
    Configured, Daemon, Site, eventually, limits, list, number, quick_tenant, scan_arrivals, seen, simulate, text,
};
use sweepd::simulator::{SimulatedMachine, Simulator, TenantOptions, fleet};

/// Scans that stay pending for as long as a test may last.
const LONG: (Duration, Duration) = (Duration::from_hours(2), Duration::from_hours(2));

async fn scene(seed: u64, options: TenantOptions) -> (Simulator, Daemon) {
    let simulator = simulate(seed, vec![options.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &options)], "")).await;
    (simulator, daemon)
}

/// Drops a list; returns its sweep's id.
async fn swept(daemon: &Daemon, name: &str, machines: &[SimulatedMachine]) -> String {
    daemon.site.put(name, list(machines));
    text(&daemon.receipt(&format!("processed/{name}")).await, "sweep_id").to_owned()
}

fn with_state<'a>(jobs: &'a [Value], state: &str) -> Vec<&'a Value> {
    jobs.iter().filter(|job| job["state"] == state).collect()
}

/// Every event of this kind on the machine-less part of the record.
fn events(daemon: &Daemon, kind: &str) -> Vec<Value> {
    daemon.lines(&["audit", "export"]).into_iter().filter(|event| event["kind"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_sweep_sends_no_more_and_keeps_what_others_want() {
    let machines = fleet(61, 9, "cancel");
    let options = TenantOptions { limits: limits(3, 3), action_duration: LONG, ..quick_tenant(machines.clone()) };
    let (simulator, daemon) = scene(61, options).await;
    let sweep = swept(&daemon, "all.txt", &machines).await;
    eventually("three accepted scans", || (with_state(&daemon.jobs(), "accepted").len() == 3).then_some(())).await;
    let wanted: Vec<_> = machines.iter().rev().take(2).cloned().collect();
    let other = swept(&daemon, "others.txt", &wanted).await;

    let refused = daemon.command(&["sweep", "cancel", &sweep]);
    assert_eq!(refused.code, 2, "nobody could be asked: {refused:?}");
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    assert!(refused.stderr.contains("4 queued machines are withdrawn; 2 queued ones go on"), "{}", refused.stderr);
    assert!(refused.stderr.contains("3 scans that Defender has accepted go on"), "{}", refused.stderr);
    assert_eq!(with_state(&daemon.jobs(), "queued").len(), 6, "nothing was done");

    // Shortened by what ids of the same minute have in common, it would name both.
    let told = daemon.lines(&["sweep", "cancel", &sweep.to_uppercase(), "--yes"]);
    assert_eq!((number(&told[0], "withdrawn"), number(&told[0], "open")), (4, 5), "{told:?}");
    let jobs = daemon.jobs();
    let cancelled = with_state(&jobs, "cancelled");
    assert_eq!(cancelled.len(), 4);
    assert!(cancelled.iter().all(|job| job["reason"] == "withdrawn"), "{cancelled:?}");
    let queued = with_state(&jobs, "queued");
    assert_eq!(queued.len(), 2);
    assert!(queued.iter().all(|job| job["sweep_ids"].as_array().unwrap().contains(&other.as_str().into())));
    assert_eq!(events(&daemon, "sweep_cancelled").len(), 1);

    daemon.told(&["sweep", "cancel", &other, "--yes"]);
    let again = daemon.command(&["sweep", "cancel", &other, "--yes"]);
    assert_eq!(again.code, 1, "it is done: {again:?}");
    assert_eq!(scan_arrivals(&simulator, 0), 3);
    let shown = daemon.lines(&["sweep", "show", &sweep]);
    assert_eq!((&shown[0]["state"], number(&shown[0], "open")), (&"open".into(), 3), "{shown:?}");
    assert_eq!(seen(&simulator).cancelled_by_call, 0, "Defender was not asked for anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_scans_what_did_not_succeed_and_nothing_twice() {
    let machines = fleet(62, 6, "retry");
    let (simulator, daemon) = scene(62, quick_tenant(machines.clone())).await;
    let done = &machines[..2];
    let first = swept(&daemon, "first.txt", done).await;
    daemon.results("", &first).await;
    let nothing = daemon.command(&["sweep", "retry", &first]);
    assert_eq!(nothing.code, 1, "everything succeeded: {nothing:?}");

    daemon.told(&["pause"]);
    let all = swept(&daemon, "all.txt", &machines).await;
    daemon.told(&["sweep", "cancel", &all, "--yes"]);
    let results = daemon.results("", &all).await;
    assert_eq!(number(&results["states"], "cancelled"), 6, "{results}");
    // One of them is scanned for another sweep in the meantime.
    daemon.told(&["resume"]);
    let meantime = swept(&daemon, "meantime.txt", &machines[..1]).await;
    daemon.results("", &meantime).await;

    let told = daemon.lines(&["sweep", "retry", &all]);
    assert_eq!((number(&told[0], "queued"), number(&told[0], "joined")), (5, 0), "{told:?}");
    assert_eq!((&told[0]["retry_of"], &told[0]["source"]), (&all.as_str().into(), &"retry".into()), "{told:?}");
    let retry = text(&told[0], "id");
    let results = daemon.results("", retry).await;
    assert_eq!(number(&results["states"], "succeeded"), 5, "{results}");
    let arrivals = scan_arrivals(&simulator, 0);
    assert_eq!(arrivals, 2 + 1 + 5, "two, one again in the meantime, and five");
    assert_eq!(daemon.command(&["sweep", "retry", &all]).code, 1, "all of it has succeeded since");
    assert_eq!(daemon.command(&["sweep", "retry", &all, "--state", "succeeded"]).code, 2);
    assert_eq!(events(&daemon, "sweep_retried").len(), 1);

    let rows = daemon.told(&["sweep", "export", &all]);
    assert_eq!(rows.lines().count(), 1 + 6, "{rows}");
    assert!(rows.starts_with("machine_id,name,state,reason"), "{rows}");
    let lines = daemon.lines(&["sweep", "export", retry]);
    let mut exported: Vec<_> = lines.iter().map(|line| text(line, "machine_id").to_owned()).collect();
    let mut expected: Vec<_> = machines[1..].iter().map(|machine| machine.id.to_string()).collect();
    exported.sort();
    expected.sort();
    assert_eq!(exported, expected);
    assert!(lines.iter().all(|line| line["state"] == "succeeded"), "{lines:?}");
}
