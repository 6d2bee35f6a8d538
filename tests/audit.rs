//! The record, recomputed by whoever does not trust sweepd: from `audit export` and the recipe of `docs/AUDIT.md`
//! alone, with none of the project's code.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a scenario fails loudly, in its helpers too"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};
use support::{Configured, Daemon, Site, list, quick_tenant, simulate, text};
use sweepd::simulator::fleet;

const MACHINES: usize = 5;

/// What was kept outside, by the number of its event.
type Heads = BTreeMap<u64, String>;

/// The hash of an event, as `docs/AUDIT.md` says it is made.
fn hash(before: &str, event: &Value) -> String {
    let part = |name: &str| match &event[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let parts = ["seq", "at", "kind", "tenant_id", "job_id", "machine_id", "body"].map(part);
    let hash = Sha256::digest(format!("{before}\n{}", parts.join("\n")));
    hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Recomputes the chain; what is wrong with it, if anything is.
fn wrong(export: &[Value], heads: &Heads) -> Option<String> {
    let mut before = "0".repeat(64);
    for (expected, event) in (1..).zip(export) {
        if event["seq"] != expected {
            return Some(format!("event {expected} is missing"));
        }
        before = hash(&before, event);
        if event["hash"] != before.as_str() {
            return Some(format!("event {expected} is not what was written"));
        }
        if heads.get(&expected).is_some_and(|kept| *kept != before) {
            return Some(format!("event {expected} is not the one whose head was kept"));
        }
    }
    heads.keys().any(|seq| *seq > export.len() as u64).then(|| "its end is missing".to_owned())
}

/// The same by the script that the document gives to auditors; an error where there is no Python.
fn wrong_by_script(folder: &Path, export: &[Value], heads: &Heads) -> std::io::Result<Option<String>> {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/AUDIT.md")).unwrap();
    let (_, script) = document.split_once("```python\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let lines = |lines: Vec<String>| lines.join("\n") + "\n";
    fs::write(folder.join("chain.py"), script).unwrap();
    fs::write(folder.join("record.jsonl"), lines(export.iter().map(Value::to_string).collect())).unwrap();
    fs::write(folder.join("heads.txt"), lines(heads.iter().map(|(seq, hash)| format!("{seq} {hash}")).collect()))
        .unwrap();
    let arguments = ["chain.py", "record.jsonl", "heads.txt"];
    let done = Command::new("python3").args(arguments).current_dir(folder).output()?;
    Ok((!done.status.success()).then(|| String::from_utf8(done.stderr).unwrap()))
}

/// Chains the events anew, as somebody who owns the machine can.
fn rewritten(export: &[Value], change: impl Fn(&mut Value)) -> Vec<Value> {
    let mut before = "0".repeat(64);
    let rewrite = |event: &Value| {
        let mut event = event.clone();
        change(&mut event);
        before = hash(&before, &event);
        event["hash"] = before.clone().into();
        event
    };
    export.iter().map(rewrite).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_recomputes_the_record_and_finds_what_was_done_to_it() {
    let machines = fleet(1, MACHINES, "audited");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(1, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    // What a careless recipe would trip over: quotes, letters beyond ASCII, several lines.
    daemon.told(&["pause", "--reason", "\"Änderung\"\n\\ 42 €"]);
    daemon.told(&["resume"]);
    daemon.site.put("list.txt", list(&machines));
    let receipt = daemon.receipt("processed/list.txt").await;
    daemon.results("", text(&receipt, "sweep_id")).await;
    assert!(daemon.terminate().await.success());

    let export = daemon.lines(&["audit", "export"]);
    let told: Heads = daemon
        .log()
        .iter()
        .filter_map(|line| Some((line["seq"].as_u64()?, line["head"].as_str()?.to_owned())))
        .collect();
    assert!(told.len() >= 2, "a head at the start and one at the stop: {told:?}");
    assert_eq!(told.keys().last(), Some(&(export.len() as u64)), "the last head is that of the whole record");

    let folder = tempfile::tempdir().unwrap();
    let verdict = |export: &[Value], heads: &Heads| {
        let wrong = wrong(export, heads);
        if let Ok(by_script) = wrong_by_script(folder.path(), export, heads) {
            assert_eq!(wrong.is_some(), by_script.is_some(), "{wrong:?}; by the script: {by_script:?}");
        }
        wrong
    };
    assert_eq!(verdict(&export, &told), None);

    let none = Heads::new();
    let middle = export.len() / 2;
    let mut changed = export.clone();
    changed[middle]["body"] = text(&changed[middle], "body").replacen('{', "{ ", 1).into();
    assert_eq!(verdict(&changed, &none), Some(format!("event {} is not what was written", middle + 1)));
    let mut removed = export.clone();
    removed.remove(middle);
    assert_eq!(verdict(&removed, &none), Some(format!("event {} is missing", middle + 1)));
    for event in &mut removed[middle..] {
        event["seq"] = (event["seq"].as_u64().unwrap() - 1).into();
    }
    assert_eq!(verdict(&removed, &none), Some(format!("event {} is not what was written", middle + 1)));
    let mut swapped = export.clone();
    swapped.swap(middle, middle + 1);
    assert!(verdict(&swapped, &none).is_some());
    for n in [middle, middle + 1] {
        swapped[n]["seq"] = (n as u64 + 1).into();
    }
    assert_eq!(verdict(&swapped, &none), Some(format!("event {} is not what was written", middle + 1)));

    // Archives may hold the same events twice: a kill before one is on record, or the restore of a backup, leaves it.
    let overlapping: Vec<_> = export[..middle].iter().chain(&export).cloned().collect();
    if let Ok(wrong) = wrong_by_script(folder.path(), &overlapping, &told) {
        assert_eq!(wrong, None);
        let forged = rewritten(&export[..middle], |event| event["at"] = (event["at"].as_u64().unwrap() + 1).into());
        let overlapping: Vec<_> = export.iter().chain(&forged).cloned().collect();
        assert!(wrong_by_script(folder.path(), &overlapping, &none).unwrap().is_some(), "they differ");
    }

    // What the chain alone does not show, the heads do.
    let cut = &export[..export.len() - 1];
    assert_eq!(verdict(cut, &none), None);
    assert_eq!(verdict(cut, &told), Some("its end is missing".to_owned()));
    let forged = rewritten(&export, |event| event["at"] = (event["at"].as_u64().unwrap() + 1).into());
    assert_eq!(verdict(&forged, &none), None);
    let (first, _) = told.first_key_value().unwrap();
    assert_eq!(verdict(&forged, &told), Some(format!("event {first} is not the one whose head was kept")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_the_log_is_known_again_and_another_is_not() {
    let tenant = quick_tenant(fleet(1, 1, "audited"));
    let simulator = simulate(1, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    assert!(daemon.terminate().await.success());
    let log = daemon.log();
    let told = log.iter().find(|line| line["head"].is_string()).expect("a head at the start");
    let verified = daemon.lines(&["audit", "verify", "--head", text(told, "head")]);
    assert_eq!(verified[0]["held"], told["seq"], "{verified:?}");
    let unknown = daemon.command(&["audit", "verify", "--head", &"ab".repeat(32)]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("does not hold the head"), "{unknown:?}");
}
