//! The whole way of a file: dropped, taken, sent, followed, and its results written.
//!
//! Owns the promise that nothing vanishes and that counts add up: lines to receipt, receipt to
//! jobs, jobs to results, attempts to what the server counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::support::{
    Configured, Daemon, Site, assert_adds_up, assert_within_limits, eventually, list, number, quick_tenant, seen, text,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sweepd::simulator::{MachineKind, SimulatedMachine, Simulator, TenantOptions, fleet};
use uuid::Uuid;

/// On the portal's export: 36 that take scans, 3 with somebody's scan pending, and one each that
/// is unsupported, too old and unknown.
const EXPORTED: usize = 42;
const ON_THE_LIST: usize = 3;
const IN_THE_DOCUMENT: usize = 2;
const FORMULA: &str = "=HYPERLINK(1)";

/// The whole fleet, and the tenant that knows all of it but the last exported machine.
fn house() -> (Vec<SimulatedMachine>, TenantOptions) {
    let mut machines = fleet(11, EXPORTED + ON_THE_LIST + IN_THE_DOCUMENT, "whole-way");
    for busy in [4, 17, 30] {
        machines[busy].kind = MachineKind::ForeignScanPending;
    }
    machines[8].kind = MachineKind::UnsupportedPlatform;
    machines[9].kind = MachineKind::OldClient;
    let unknown = machines[EXPORTED - 1].id;
    let known = machines.iter().filter(|machine| machine.id != unknown).cloned().collect();
    let tenant = TenantOptions { all_succeed: false, ..quick_tenant(known) };
    (machines, tenant)
}

/// The portal's device export: BOM, 23 columns, quoted fields, CRLF. One machine stands twice, one
/// is not onboarded, one line has no id.
fn portal_export(machines: &[SimulatedMachine]) -> String {
    let mut text = String::from(
        "\u{feff}Device ID,Device Name,Domain,First Seen,Last device update,OS Platform,OS Distribution,OS Version,\
         OS Build,Windows 10 Version,Tags,Group,Is AAD Joined,Device IPs,Risk Level,Exposure Level,Health Status,\
         Onboarding Status,Device Role,Cloud Platforms,Managed By,Antivirus status,Is Internet Facing\r\n",
    );
    let mut line = |id: &str, name: &str, onboarding: &str| {
        write!(
            text,
            "{id},{name},example.test,2026-01-01T00:00:00.000Z,2026-10-01T08:00:00.000Z,Windows11,,10.0,22631,23H2,\
             \"ring1,finance\",Workstations,true,\"10.0.0.5,fe80::1\",Low,Low,Active,{onboarding},,,Intune,\
             Not-Supported,false\r\n"
        )
        .unwrap();
    };
    for (at, machine) in machines.iter().enumerate() {
        let id = machine.id.to_string();
        match at {
            0 => line(&id, FORMULA, "Onboarded"),
            1 => line(&id.to_uppercase(), "\"fin, \"\"lab\"\"\"", "onboarded"),
            _ => line(&id, &machine.name, "Onboarded"),
        }
    }
    line(&machines[5].id.to_string(), "again", "Onboarded");
    line(&fleet(12, 1, "printers")[0].id.to_string(), "printer-3", "Can be onboarded");
    line("not-a-device-id", "broken", "Onboarded");
    text
}

const WRITTEN: &str = "sweep finished; its results are written";

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_every_file_ends_in_one_named_state() {
    let (machines, tenant) = house();
    let (exported, rest) = machines.split_at(EXPORTED);
    let (listed, documented) = rest.split_at(ON_THE_LIST);
    let simulator = crate::support::simulate(3, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let export = portal_export(exported);
    daemon.site.put("devices.csv", &export);
    daemon.site.put("laptops.txt", format!("# laptops\n\n{}", list(listed)));
    daemon.site.put("floor.json", document(documented));

    let receipt = daemon.receipt("processed/devices.csv").await;
    assert_receipt(&receipt, &export);
    assert_eq!(fs::read_to_string(daemon.site.spool("processed/devices.csv")).unwrap(), export, "kept as it was");
    let short = daemon.receipt("processed/laptops.txt").await;
    assert_eq!((number(&short, "lines"), number(&short, "queued")), (3, 3));
    let full = daemon.receipt("processed/floor.json").await;
    assert_eq!((number(&full, "lines"), number(&full, "queued")), (2, 2));
    assert_eq!(daemon.site.waiting_files(), Vec::<std::path::PathBuf>::new());

    let jobs = daemon.all_final(machines.len()).await;
    let jobs: BTreeMap<_, _> = jobs.into_iter().map(|job| (text(&job, "machine_id").to_owned(), job)).collect();
    assert_eq!(jobs.len(), machines.len(), "a job for each machine");
    assert_decided(&jobs, exported);
    assert_followed(&daemon, &jobs, &simulator);
    assert_document(&daemon, &jobs, documented, &full);
    let results = daemon.results("", text(&receipt, "sweep_id")).await;
    assert_results(&daemon, &results, &receipt, &jobs);
    for receipt in [&short, &full] {
        let results = daemon.results("", text(receipt, "sweep_id")).await;
        assert_eq!(number(&results, "machines"), number(receipt, "queued"));
    }
    let told = || daemon.log().iter().filter(|line| line["message"] == WRITTEN).count();
    crate::support::eventually("word of all results", || (told() >= 3).then_some(())).await;
    assert_eq!(told(), 3, "they are written once");
    let idle = |status: &Value| status["tenants"]["contoso"]["waiting_for"] == "nothing";
    assert_status(&eventually("idle lane", || Some(daemon.status()).filter(idle)).await, &jobs);
    let sweeps = daemon.lines(&["sweep", "list"]);
    assert_eq!(sweeps.len(), 3, "{sweeps:?}");
    assert!(sweeps.iter().any(|sweep| sweep["name"] == "Third floor"), "{sweeps:?}");
}

fn document(machines: &[SimulatedMachine]) -> String {
    json!({
        "name": "Third floor", "scan_type": "Full", "comment": "after the incident", "priority": "high",
        "machines": [machines[0].id.to_string(), {"machine_id": machines[1].id.to_string(), "priority": "urgent"}],
    })
    .to_string()
}

fn assert_receipt(receipt: &Value, export: &str) {
    assert_adds_up(receipt);
    let counts = ["lines", "queued", "joined", "duplicates", "not_eligible", "refused"];
    assert_eq!(counts.map(|count| number(receipt, count)), [45, 42, 0, 1, 1, 1], "{receipt}");
    assert_eq!(receipt["status"], "taken");
    assert_eq!(receipt["file"], "devices.csv");
    assert_eq!(receipt["tenant"], "contoso");
    assert_eq!(receipt["sha256"], format!("{:x}", Sha256::digest(export)));
    let refusals = receipt["refusals"].as_array().unwrap();
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0]["line"], 46);
    assert!(text(&refusals[0], "text").contains("not-a-device-id"), "{receipt}");
    assert!(text(&refusals[0], "reason").contains("machine id"), "{receipt}");
}

/// What needs no scan to be decided: busy, not known, not supported.
fn assert_decided(jobs: &BTreeMap<String, Value>, exported: &[SimulatedMachine]) {
    for (at, machine) in exported.iter().enumerate() {
        let job = &jobs[&machine.id.to_string()];
        let expected = match (machine.kind, at) {
            (MachineKind::ForeignScanPending, _) => Some(("skipped", "pending_action", 0)),
            (MachineKind::UnsupportedPlatform, _) => Some(("rejected", "unsupported_platform", 1)),
            (MachineKind::OldClient, _) => Some(("rejected", "unsupported_client", 1)),
            (_, at) if at == EXPORTED - 1 => Some(("rejected", "unknown_machine", 1)),
            _ => None,
        };
        if let Some((state, reason, attempts)) = expected {
            assert_eq!((text(job, "state"), text(job, "reason")), (state, reason), "{job}");
            assert_eq!(number(job, "attempts"), attempts, "a busy machine costs no call: {job}");
            assert_eq!(job["action_id"], Value::Null, "{job}");
        }
        if machine.kind == MachineKind::ForeignScanPending {
            assert_eq!(job["blocked_by"]["type"], "RunAntiVirusScan", "{job}");
            assert_eq!(job["blocked_by"]["scope"], "Full", "{job}");
        }
    }
}

/// Every action of ours is followed to its end, is kept as it was received, and is the one that
/// the job speaks of; and the server saw one call for each attempt.
fn assert_followed(daemon: &Daemon, jobs: &BTreeMap<String, Value>, simulator: &Simulator) {
    let ends = [("Succeeded", "succeeded"), ("Failed", "failed"), ("TimeOut", "timed_out"), ("Cancelled", "cancelled")];
    let ends = BTreeMap::from(ends);
    let mut ours = BTreeMap::<String, usize>::new();
    let mut foreign = 0;
    for action in daemon.lines(&["action", "list"]) {
        let raw = &action["raw"];
        assert!(raw.is_object(), "{action}");
        assert_eq!((&raw["id"], &raw["status"]), (&action["action_id"], &action["status"]), "{action}");
        let job = &jobs[text(&action, "machine_id")];
        if action["origin"] == "foreign" {
            foreign += 1;
            assert_eq!(job["blocked_by"]["action_id"], action["action_id"], "{job}");
            continue;
        }
        assert_eq!(action["origin"], "ours");
        assert_eq!(job["action_id"], action["action_id"], "{job}");
        assert_eq!(text(job, "state"), ends[text(&action, "status")], "{job} {action}");
        *ours.entry(text(&action, "status").to_owned()).or_default() += 1;
    }
    let mut report = seen(simulator);
    assert_eq!(report.actions.remove("Pending"), Some(foreign), "somebody else's are still pending");
    assert_eq!(report.actions, ours, "what Defender says, and what is kept");
    assert!(ours.len() > 1, "the seed has no scan that does anything but succeed: {ours:?}");
    assert_eq!(foreign, 3);

    let attempts: u64 = jobs.values().map(|job| number(job, "attempts")).sum();
    assert_eq!(report.calls["scan"].arrivals as u64, attempts, "one request for each attempt");
    assert_eq!(report.scans_created, jobs.values().filter(|job| job["action_id"].is_string()).count());
    assert!(report.scans_per_machine.values().all(|scans| *scans == 1), "{report:?}");
    let calls: u64 = report.calls.values().map(|calls| calls.arrivals as u64).sum();
    assert_eq!(report.requests_on_wire, calls + report.sign_ins, "no request beside the calls");
    assert_within_limits(&report);
}

/// What a document says holds for its scans, and Defender is told so, with our mark.
fn assert_document(daemon: &Daemon, jobs: &BTreeMap<String, Value>, machines: &[SimulatedMachine], receipt: &Value) {
    for (machine, priority) in machines.iter().zip(["high", "urgent"]) {
        let id = machine.id.to_string();
        let job = &jobs[&id];
        assert_eq!((text(job, "scan_type"), text(job, "priority")), ("Full", priority), "{job}");
        assert_eq!(job["sweep_ids"], json!([receipt["sweep_id"]]), "{job}");
        assert_eq!(job["proof"], "none");
        let action = daemon.lines(&["action", "list", "--machine", &id]).swap_remove(0);
        assert_eq!(action["raw"]["scope"], "Full", "{action}");
        assert_eq!(job["name"], machine.name, "a document of bare ids names nobody, Defender's action does: {job}");
        assert_eq!(job["requestor"], action["raw"]["requestor"], "{job}");
        let comment = text(&action["raw"], "requestorComment");
        let mark = comment.strip_prefix("after the incident [sweepd ").and_then(|rest| rest.strip_suffix(']'));
        let attempt: Uuid = mark.unwrap_or_else(|| panic!("no mark: {comment}")).parse().unwrap();
        let history = daemon.history(&id).swap_remove(0);
        let attempts = history["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{history}");
        assert_eq!(attempts[0]["attempt_id"], attempt.to_string(), "the mark is the attempt's id");
    }
}

fn assert_results(daemon: &Daemon, results: &Value, receipt: &Value, jobs: &BTreeMap<String, Value>) {
    let rows = results["results"].as_array().unwrap();
    let machines = number(receipt, "queued") + number(receipt, "joined") + number(receipt, "not_eligible");
    assert_eq!(rows.len() as u64, machines, "a row for each machine");
    let states = results["states"].as_object().unwrap();
    assert_eq!(states.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), machines);
    assert_eq!(states["rejected"], 3);
    assert_eq!(states["skipped"], 4, "three are busy, one is not onboarded");
    for row in rows {
        if let Some(job) = jobs.get(text(row, "machine_id")) {
            assert_eq!((&row["state"], &row["reason"]), (&job["state"], &job["reason"]), "{row}");
            assert_eq!(row["detail"], job["error"], "{row}");
            if let Some(id) = row["action_id"].as_str().or(row["blocking_action_id"].as_str()) {
                let actions = daemon.lines(&["action", "list", "--machine", text(row, "machine_id")]);
                let action = actions.iter().find(|action| action["action_id"] == id).unwrap();
                assert!(row["requestor"].is_string(), "{row}");
                assert_eq!(row["requestor"], action["raw"]["requestor"], "{row}");
            }
        } else {
            assert!(text(row, "reason").starts_with("not_eligible"), "{row}");
        }
    }
    let path = daemon.site.spool(&format!("results/{}.csv", text(receipt, "sweep_id")));
    let mut table = csv::Reader::from_path(path).unwrap();
    let records: Vec<_> = table.records().map(|record| record.unwrap()).collect();
    assert_eq!(records.len(), rows.len(), "as CSV and as JSON");
    let names: Vec<_> = records.iter().map(|record| &record[1]).collect();
    assert!(names.contains(&format!("'{FORMULA}").as_str()), "no spreadsheet runs it: {names:?}");
    assert!(names.contains(&"fin, \"lab\""), "{names:?}");
}

fn assert_status(status: &Value, jobs: &BTreeMap<String, Value>) {
    let tenant = &status["tenants"]["contoso"];
    assert_eq!(tenant["paused"], false, "{status}");
    assert_eq!(tenant["eta"], Value::Null, "{status}");
    let words = [
        "queued",
        "sending",
        "accepted",
        "succeeded",
        "failed",
        "timed_out",
        "cancelled",
        "skipped",
        "rejected",
        "needs_review",
    ];
    for state in words {
        let count = jobs.values().filter(|job| job["state"] == state).count();
        assert_eq!(number(&tenant["jobs"], state), count as u64, "{state}: {status}");
    }
    let arrivals: u64 = jobs.values().map(|job| number(job, "attempts")).sum();
    for (window, limit) in [("minute", 100), ("hour", 1500)] {
        let gauge = &tenant["budget"]["scan"][window];
        assert_eq!(number(gauge, "limit"), limit, "{status}");
        assert!(number(gauge, "used") <= arrivals, "{status}");
    }
    assert_eq!(number(&tenant["budget"]["scan"]["hour"], "used"), arrivals, "{status}");
    assert_eq!(status["sweeps"], json!([]), "{status}");
}
