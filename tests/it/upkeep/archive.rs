//! Retention: what is old is archived, checked, and then removed; kill -9 at any step loses nothing; and whoever touches an
//! archive is found out.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Behind, Configured, Daemon, Site, eventually, list, quick_tenant, simulate_under, text};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sweepd::clock::{Clock, SystemClock};
use sweepd::simulator::{Simulator, fleet};

const MACHINES: usize = 4;

struct Scene {
    _simulator: Simulator,
    daemon: Daemon,
}

impl Scene {
    async fn new() -> Self {
        Self::under(Arc::new(SystemClock)).await
    }

    /// With a tenant that has this time.
    async fn under(clock: Arc<dyn Clock>) -> Self {
        let tenant = quick_tenant(fleet(1, MACHINES, "archived"));
        let simulator = simulate_under(clock, 1, vec![tenant.clone()]).await;
        // What is removed so soon is still in Defender's list.
        let mut configured = Configured::of("contoso", &tenant);
        "unknown_marks = \"ignore\"".clone_into(&mut configured.keys);
        let site = Site::new(&simulator, &[configured], "");
        let folder = site.path().join("archive");
        let config = fs::read_to_string(site.config()).unwrap();
        site.write_config(&format!(
            "{config}\n[retention]\nkeep = \"2s\"\nspool = \"2s\"\narchive_dir = \"{}\"\n",
            folder.to_str().unwrap()
        ));
        Self { _simulator: simulator, daemon: Daemon::new(site) }
    }

    fn put(&self) {
        self.daemon.site.put("list.txt", list(&fleet(1, MACHINES, "archived")));
    }

    /// The archives of a kind, oldest first.
    fn files(&self, kind: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.daemon.site.path().join("archive")).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(&format!(".{kind}.jsonl")));
        files.sort();
        files
    }

    fn archived(&self, kind: &str) -> Vec<Value> {
        let texts = self.files(kind).into_iter().map(|path| fs::read_to_string(path).unwrap());
        texts
            .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
            .collect()
    }

    /// Until the sweep has left the database.
    async fn is_removed(&self) {
        eventually("the sweep's end", || {
            let is_over = !self.archived("rows").is_empty();
            (is_over && self.daemon.lines(&["sweep", "list"]).is_empty()).then_some(())
        })
        .await;
    }
}

/// The events of archives and export are one chain, recomputed as `docs/AUDIT.md` says.
fn assert_chained(events: &[Value]) {
    let mut before = "0".repeat(64);
    for (expected, event) in (1..).zip(events) {
        assert_eq!(event["seq"], expected);
        let part = |name: &str| match &event[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let parts = ["seq", "at", "kind", "tenant_id", "job_id", "machine_id", "body"].map(part);
        let hash = Sha256::digest(format!("{before}\n{}", parts.join("\n")));
        before = hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(event["hash"], before.as_str(), "event {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_archiving_loses_nothing() {
    for kill in ["archive_written", "archive_recorded", "archive_removed", "archive_removed:2", "archive_removed:4"] {
        let mut scene = Scene::new().await;
        scene.daemon.launch_with(&[("SWEEPD_KILLED_AT", kill)]);
        eventually("the drop folder", || scene.daemon.site.spool("incoming").exists().then_some(())).await;
        scene.put();
        let status = scene.daemon.ended().await;
        assert_eq!(status.signal(), Some(9), "{kill}: {}", scene.daemon.log_text());
        scene.daemon.start().await;
        scene.is_removed().await;
        assert!(scene.daemon.terminate().await.success());
        let mut rows = scene.archived("rows");
        if kill == "archive_written" {
            // What was written and not put on record is written again, under another name if more has become old.
            rows.sort_by_key(Value::to_string);
            rows.dedup();
        }
        let of = |table: &str| rows.iter().filter(|row| row["table"] == table).count();
        assert_eq!((of("sweeps"), of("jobs"), of("attempts")), (1, MACHINES, MACHINES), "{kill}");
        let mut events = scene.archived("events");
        events.extend(scene.daemon.lines(&["audit", "export"]));
        // What was written before a kill, and not put on record, may have been written again with more in it.
        events.sort_by_key(|event| event["seq"].as_u64());
        events.dedup_by_key(|event| event["seq"].as_u64());
        assert_chained(&events);
        let verified = scene.daemon.lines(&["audit", "verify"]);
        assert_eq!(verified[0]["events"], events.len(), "{kill}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_changed_or_missing_is_told() {
    let mut scene = Scene::new().await;
    scene.daemon.start().await;
    scene.put();
    scene.is_removed().await;
    assert!(scene.daemon.terminate().await.success());
    let old = scene.archived("events")[0].clone();
    let held = scene.daemon.lines(&["audit", "verify", "--head", text(&old, "hash")]);
    assert_eq!(held[0]["held"], 1, "a head that was archived is known again");
    for kind in ["events", "rows"] {
        let with_content = |path: &PathBuf| fs::metadata(path).unwrap().len() > 0;
        let path = scene.files(kind).into_iter().find(with_content).unwrap();
        let content = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let damages: [&dyn Fn(); 3] =
            [&|| fs::write(&path, content.replacen(':', ": ", 1)).unwrap(), &|| fs::write(&path, "").unwrap(), &|| {
                fs::remove_file(&path).unwrap();
            }];
        for damage in damages {
            damage();
            let told = scene.daemon.command(&["audit", "verify"]);
            assert_eq!(told.code, 1, "{told:?}");
            assert!(told.stderr.contains(&name), "{told:?}");
        }
        fs::write(&path, &content).unwrap();
        assert_eq!(scene.daemon.command(&["audit", "verify"]).code, 0);
    }
}

/// Whoever may change an archive may change the table that the database finds it by; the chain they do not reach.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_and_its_row_that_are_changed_together_are_found_by_the_chain() {
    let mut scene = Scene::new().await;
    scene.daemon.start().await;
    scene.put();
    scene.is_removed().await;
    assert!(scene.daemon.terminate().await.success());
    let folder = scene.daemon.site.path().join("archive");
    let script = |scene: &Scene| {
        let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/AUDIT.md")).unwrap();
        let (_, script) = document.split_once("```python\n").unwrap();
        let record = scene.files("events").iter().map(|file| fs::read_to_string(file).unwrap()).collect::<String>();
        let record = record + &scene.daemon.told(&["audit", "export"]);
        let here = scene.daemon.site.path();
        fs::write(here.join("chain.py"), script.split_once("```").unwrap().0).unwrap();
        fs::write(here.join("record.jsonl"), record).unwrap();
        fs::write(here.join("heads.txt"), "").unwrap();
        let mut command = std::process::Command::new("python3");
        command.args(["chain.py", "record.jsonl", "heads.txt", "archive"]).current_dir(here);
        command.output().ok().map(|done| done.status.success())
    };
    assert_eq!(scene.daemon.command(&["audit", "verify"]).code, 0);
    assert_ne!(script(&scene), Some(false));

    let rows = scene.files("rows").into_iter().find(|path| fs::metadata(path).unwrap().len() > 0).unwrap();
    let name = rows.file_name().unwrap().to_string_lossy().into_owned();
    let content = fs::read_to_string(&rows).unwrap();
    let forged = content.replacen("\"succeeded\"", "\"cancelled\"", 1);
    assert_ne!(forged, content);
    let sha256 = Sha256::digest(&forged).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    fs::write(&rows, &forged).unwrap();
    let edit = async |statement: String| {
        let file = sqlx::sqlite::SqliteConnectOptions::new().filename(scene.daemon.site.state().join("sweepd.db"));
        let mut connection = sqlx::ConnectOptions::connect(&file).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
    };
    edit(format!("UPDATE archives SET rows_sha256 = '{sha256}' WHERE rows_file = '{name}'")).await;
    let found = scene.daemon.command(&["audit", "verify"]);
    assert!(found.code == 1 && found.stderr.contains("the record does not tell of sweepd-"), "{found:?}");
    assert_ne!(script(&scene), Some(true), "nor is the script deceived");
    // A table that names another file, however whole that is.
    fs::write(&rows, &content).unwrap();
    fs::write(folder.join("other.jsonl"), &forged).unwrap();
    edit(format!("UPDATE archives SET rows_file = 'other.jsonl' WHERE rows_file = '{name}'")).await;
    assert_eq!(scene.daemon.command(&["audit", "verify"]).code, 1);
    edit("UPDATE archives SET rows_file = '../sweepd.toml' WHERE rows_file = 'other.jsonl'".to_owned()).await;
    let found = scene.daemon.command(&["audit", "verify"]);
    assert!(found.code == 1 && found.stderr.contains("not the name of a file"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_archives_that_hangs_keeps_no_file_waiting() {
    let mut scene = Scene::new().await;
    // Whoever opens a pipe that nobody reads waits, as with a folder across the network that does not answer.
    let folder = scene.daemon.site.path().join("archive");
    fs::create_dir(&folder).unwrap();
    nix::unistd::mkfifo(&folder.join(".events.unfinished"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let config = fs::read_to_string(scene.daemon.site.config()).unwrap();
    scene.daemon.site.write_config(&config.replace("shutdown_grace = \"60s\"", "shutdown_grace = \"2s\""));
    scene.daemon.start().await;
    scene.put();
    scene.daemon.receipt("processed/list.txt").await;
    // By then what was before is old.
    crate::support::pause(std::time::Duration::from_secs(4)).await;
    for name in ["hangs.txt", "reloaded.txt"] {
        scene.daemon.site.put(name, list(&fleet(1, MACHINES, "archived")[..1]));
        scene.daemon.receipt(&format!("processed/{name}")).await;
        scene.daemon.hang_up();
        let read_again = || scene.daemon.has_logged("read again").then_some(());
        eventually("a reload", read_again).await;
    }
    assert_eq!(scene.archived("events").len(), 0);
    assert!(scene.daemon.terminate().await.success(), "nor a stop for longer than its grace");
}

/// A machine that boots in 2036 would else archive its whole history, empty its drop folder, and then not know the
/// scans that Defender lists.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_years_ahead_of_the_servers_removes_nothing() {
    let mut scene = Scene::under(Arc::new(Behind)).await;
    scene.daemon.start().await;
    scene.put();
    scene.daemon.all_final(MACHINES).await;
    let over = SystemClock.boot() + Duration::from_secs(6);
    eventually("the time after which everything would be old", || {
        // Each looks anew for what lies in the drop folder; by itself it is every minute.
        scene.daemon.hang_up();
        (SystemClock.boot() > over).then_some(())
    })
    .await;
    assert!(scene.files("events").is_empty() && scene.daemon.site.spool("processed/list.txt").exists());
    assert_eq!(scene.daemon.lines(&["sweep", "list"]).len(), 1);
    assert!(scene.daemon.has_logged("check the time service"), "{}", scene.daemon.log_text());
}

/// The archive may lie on the disk that the database is on.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_written_is_told_and_leaves_nothing_behind() {
    let mut scene = Scene::new().await;
    let (good, folder) =
        (fs::read_to_string(scene.daemon.site.config()).unwrap(), scene.daemon.site.path().join("archive"));
    fs::write(&folder, "no folder").unwrap();
    scene.daemon.start().await;
    scene.put();
    let metric = |daemon: &Daemon| {
        let text = daemon.get("/metrics").1;
        text.lines().find_map(|line| line.strip_prefix("sweepd_archive_failing ")).map(str::to_owned)
    };
    eventually("word of it", || (metric(&scene.daemon).as_deref() == Some("1")).then_some(())).await;
    scene.daemon.all_final(MACHINES).await;

    fs::remove_file(&folder).unwrap();
    scene.daemon.site.write_config(&good.replace("[intake]", "[intake]\nmin_free = \"4096TiB\""));
    scene.daemon.hang_up();
    eventually("word of the room", || scene.daemon.has_logged("(intake.min_free) are kept").then_some(())).await;
    eventually("the folder", || folder.exists().then_some(())).await;
    eventually("an empty folder", || (fs::read_dir(&folder).unwrap().count() == 0).then_some(())).await;
    assert_eq!(metric(&scene.daemon).as_deref(), Some("1"));

    scene.daemon.site.write_config(&good);
    scene.daemon.hang_up();
    scene.is_removed().await;
    eventually("its end", || (metric(&scene.daemon).as_deref() == Some("0")).then_some(())).await;
}
