//! Owns: what an operator does with sweeps and actions while the daemon runs.

use std::time::Duration;

use crate::support::{
    Configured, Daemon, Site, eventually, limits, list, number, quick_tenant, scan_arrivals, seen, simulate, text,
};
use serde_json::Value;
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, SimulatedMachine, Simulator, Target, TenantOptions, fleet};

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

fn accepted(daemon: &Daemon) -> Vec<Value> {
    daemon.jobs().into_iter().filter(|job| job["state"] == "accepted").collect()
}

fn cancelling_calls(simulator: &Simulator) -> usize {
    seen(simulator).calls.get("cancel_action").map_or(0, |calls| calls.arrivals)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_cancelled_once_whatever_becomes_of_the_answer() {
    let machines = fleet(63, 5, "action");
    let options = TenantOptions { action_duration: LONG, ..quick_tenant(machines.clone()) };
    let (simulator, mut daemon) = scene(63, options).await;
    swept(&daemon, "all.txt", &machines).await;
    eventually("accepted scans", || (accepted(&daemon).len() == 5).then_some(())).await;
    let ids: Vec<_> = accepted(&daemon).iter().map(|job| text(job, "action_id").to_owned()).collect();

    assert_eq!(daemon.command(&["action", "cancel", &ids[0]]).code, 2, "nobody could be asked");
    assert_eq!(cancelling_calls(&simulator), 0);
    let told = daemon.lines(&["action", "cancel", &ids[0][..13], "--yes", "--wait", "--comment", "wrong fleet"]);
    assert_eq!(told[0]["outcome"], "cancelled", "{told:?}");
    let shown = daemon.lines(&["action", "show", &ids[0]]);
    assert_eq!(shown[0]["raw"]["cancellationComment"], "wrong fleet", "{shown:?}");
    assert_eq!(daemon.command(&["action", "cancel", &ids[0], "--yes"]).code, 1, "it has ended");

    // The answer is lost, the effect is there: the action is read, and not asked for again.
    simulator.add_fault(0, Fault::once(Target::Call(CallKind::CancelAction), FaultKind::ResetAfterEffect));
    let told = daemon.lines(&["action", "cancel", &ids[1], "--yes", "--wait"]);
    assert_eq!((&told[0]["outcome"], cancelling_calls(&simulator)), (&"cancelled".into(), 2), "{told:?}");
    // The answer is lost, and so is the call: it is made again.
    simulator.add_fault(0, Fault::once(Target::Call(CallKind::CancelAction), FaultKind::ResetBeforeEffect));
    let told = daemon.lines(&["action", "cancel", &ids[2], "--yes", "--wait"]);
    assert_eq!((&told[0]["outcome"], cancelling_calls(&simulator)), (&"cancelled".into(), 4), "{told:?}");
    // The daemon is killed with the call on the wire.
    simulator.add_fault(0, Fault::once(Target::Call(CallKind::CancelAction), FaultKind::Hang { effect: true }));
    let config = daemon.site.config();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sweepd"));
    command.arg("--config").arg(config).args(["action", "cancel", &ids[3], "--yes", "--wait"]);
    let waits = std::thread::spawn(move || command.output().unwrap());
    eventually("a call on the wire", || (cancelling_calls(&simulator) == 5).then_some(())).await;
    daemon.kill();
    eventually("nobody who waits for a daemon that is gone", || waits.is_finished().then_some(())).await;
    let told = waits.join().unwrap();
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stderr).contains("the daemon has stopped"), "{told:?}");
    daemon.start().await;
    eventually("the end of it", || (with_state(&daemon.jobs(), "cancelled").len() == 4).then_some(())).await;
    assert_eq!(cancelling_calls(&simulator), 5, "it was read, not made again");
    // Defender refuses.
    let refuse = FaultKind::Status { code: 403, body: "{}".to_owned(), effect: false, headers: Vec::new() };
    simulator.add_fault(0, Fault::once(Target::Call(CallKind::CancelAction), refuse));
    assert_eq!(daemon.command(&["action", "cancel", &ids[4], "--yes", "--wait"]).code, 77);

    let budget = &daemon.status()["tenants"]["contoso"]["budget"]["cancel_action"];
    assert_eq!(number(&budget["hour"], "used"), 6, "each call took a slot of its own budget: {budget}");
    assert_eq!(events(&daemon, "cancel_written").len(), 6, "each call was written down");
    assert_eq!(events(&daemon, "cancel_ended").len(), 5);
    assert_eq!(seen(&simulator).cancelled_by_call, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_cancelled_with_its_actions_and_nobody_elses() {
    let machines = fleet(64, 4, "actions");
    let options = TenantOptions { action_duration: LONG, ..quick_tenant(machines.clone()) };
    let (simulator, daemon) = scene(64, options).await;
    let sweep = swept(&daemon, "all.txt", &machines).await;
    eventually("accepted scans", || (accepted(&daemon).len() == 4).then_some(())).await;
    swept(&daemon, "others.txt", &machines[..1]).await;
    let told = daemon.lines(&["sweep", "cancel", &sweep, "--actions", "--yes"]);
    assert_eq!((number(&told[0], "withdrawn"), number(&told[0], "asked")), (0, 3), "{told:?}");
    let again = daemon.lines(&["sweep", "cancel", &sweep, "--actions", "--yes"]);
    assert_eq!(number(&again[0], "withdrawn"), 0);
    eventually("their end", || (with_state(&daemon.jobs(), "cancelled").len() == 3).then_some(())).await;
    let left = accepted(&daemon);
    assert_eq!((left.len(), text(&left[0], "machine_id")), (1, machines[0].id.to_string().as_str()));
    assert_eq!(cancelling_calls(&simulator), 3, "each was asked for once");
    let exported = daemon.told(&["action", "export", "--status", "Cancelled"]);
    assert_eq!(exported.lines().count(), 1 + 3, "{exported}");
    assert_eq!(daemon.lines(&["action", "export"]).len(), 4);
}
