//! The record, recomputed by whoever does not trust sweepd: from `audit export` and the recipe of `docs/AUDIT.md`
//! alone, with none of the project's code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Configured, Daemon, Site, list, quick_tenant, simulate, text};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, Connection};
use sweepd::simulator::fleet;

const MACHINES: usize = 5;

/// What was kept outside: numbers and hashes of events.
type Heads = Vec<(u64, String)>;

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
    let differ = |(seq, hash): &&(u64, String)| heads.iter().any(|(other, kept)| other == seq && kept != hash);
    if let Some((seq, _)) = heads.iter().find(differ) {
        return Some(format!("there are two heads of event {seq}"));
    }
    let heads: BTreeMap<u64, String> = heads.iter().cloned().collect();
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

/// The same by the script that the document gives to auditors; an error where there is no Python. What it prints where
/// nothing is wrong is left beside it.
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
    fs::write(folder.join("printed"), &done.stdout).unwrap();
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

/// A daemon that has run and was stopped, and its record.
async fn lived() -> (Daemon, Vec<Value>) {
    let tenant = quick_tenant(fleet(1, 1, "audited"));
    let simulator = simulate(1, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    assert!(daemon.terminate().await.success());
    let export = daemon.lines(&["audit", "export"]);
    (daemon, export)
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
    assert_eq!(
        told.last().map(|(seq, _)| *seq),
        Some(export.len() as u64),
        "the last head is that of the whole record"
    );

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
    let (first, _) = told.first().unwrap();
    assert_eq!(verdict(&forged, &told), Some(format!("event {first} is not the one whose head was kept")));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_heads_of_one_event_are_the_finding_for_script_and_command() {
    let (daemon, export) = lived().await;
    let folder = tempfile::tempdir().unwrap();
    let last = export.len() as u64;
    let head = |seq: u64| (seq, text(&export[usize::try_from(seq).unwrap() - 1], "hash").to_owned());
    let forged = rewritten(&export, |event| event["at"] = (event["at"].as_u64().unwrap() + 1).into());
    let other = (1, text(&forged[0], "hash").to_owned());
    for (heads, is_wrong, shown) in [
        (vec![head(1), head(last)], false, true),
        (vec![head(last), head(last), head(1)], false, true),
        (vec![head(1)], false, false),
        (vec![], false, false),
        (vec![head(1), other.clone(), head(last)], true, true),
        (vec![other], true, true),
        (vec![(last + 1, "ab".repeat(32))], true, true),
    ] {
        assert_eq!(wrong(&export, &heads).is_some(), is_wrong, "{heads:?}");
        if let Ok(by_script) = wrong_by_script(folder.path(), &export, &heads) {
            assert_eq!(by_script.is_some(), is_wrong, "{heads:?}: {by_script:?}");
            let printed = fs::read_to_string(folder.path().join("printed")).unwrap();
            assert!(is_wrong || printed.contains("not shown") != shown, "{heads:?}: {printed}");
        } else {
            let lines: Vec<String> = heads.iter().map(|(seq, hash)| format!("{seq} {hash}")).collect();
            fs::write(folder.path().join("heads.txt"), lines.join("\n")).unwrap();
        }
        let file = folder.path().join("heads.txt");
        // A file without a head is refused.
        let mut command = vec!["--json", "audit", "verify"];
        if !heads.is_empty() {
            command.extend(["--heads", file.to_str().unwrap()]);
        }
        let verified = daemon.command(&command);
        assert_eq!(verified.code, i32::from(is_wrong), "{heads:?}: {verified:?}");
        if !is_wrong {
            let line: Value = serde_json::from_str(&verified.stdout).unwrap();
            assert_eq!(line["not_shown"].as_array().unwrap().is_empty(), shown, "{line}");
        }
    }
    assert!(daemon.told(&["audit", "verify"]).contains("not shown: that nothing was cut off the end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_heads_is_read_line_by_line_and_within_bounds() {
    let (daemon, export) = lived().await;
    let file = daemon.site.path().join("heads.txt");
    let verify = |content: &str| {
        fs::write(&file, content).unwrap();
        daemon.command(&["audit", "verify", "--heads", file.to_str().unwrap()])
    };
    let hash = text(&export[0], "hash");
    // As the state folder's own note has it, in capitals, and without the number.
    let fits = verify(&format!("\n00000000000000000001 {hash}\n1 {}\r\n{hash}\n", hash.to_uppercase()));
    assert_eq!(fits.code, 0, "{fits:?}");
    for (content, code, told) in [
        (format!("1 {hash}\nmarker\n"), 65, "heads.txt line 2: marker: a head has 64 hexadecimal digits"),
        (format!("1 {hash}\n\n1 2 3\n"), 65, "heads.txt line 3: it has 3 words"),
        (format!("one {hash}\n"), 65, "heads.txt line 1: the first word is no number of an event"),
        ("\n".repeat(17 << 20), 65, "larger than 16 MiB"),
        (" \n\n".to_owned(), 65, "heads.txt: it holds no head"),
        ("ab".repeat(32), 1, "the record does not hold the head abab"),
    ] {
        let refused = verify(&content);
        assert!(refused.code == code && refused.stderr.contains(told), "{told}: {refused:?}");
    }
    let missing = daemon.command(&["audit", "verify", "--heads", "/nowhere/heads.txt"]);
    assert!(missing.code == 1 && missing.stderr.contains("/nowhere/heads.txt"), "{missing:?}");
}

/// Without a head from outside: what the daemon has noted beside the database is longer than what is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_shorter_than_the_note_beside_it_is_found() {
    let (daemon, export) = lived().await;
    daemon.told(&["audit", "verify"]);
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(daemon.site.state().join("sweepd.db"));
    let mut connection = file.connect().await.unwrap();
    let trigger: String = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = 'events_are_not_deleted'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let cut = format!(
        "DROP TRIGGER events_are_not_deleted; DELETE FROM events WHERE seq = (SELECT max(seq) FROM events); {trigger}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(cut)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let found = daemon.command(&["audit", "verify"]);
    let told = format!("the record ends with event {}, and event {}", export.len() - 1, export.len());
    assert!(found.code == 1 && found.stderr.contains(&told) && found.stderr.contains("sweepd.head"), "{found:?}");
    // Whoever takes the note away too is not found, and that is said.
    fs::remove_file(daemon.site.state().join("sweepd.head")).unwrap();
    let verified = daemon.lines(&["audit", "verify"]);
    assert!(verified[0]["not_shown"].to_string().contains("there is no sweepd.head"), "{verified:?}");
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
