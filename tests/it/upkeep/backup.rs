//! Owns: a backup of a running daemon is whole, and restoring it sends nothing twice; a database of another
//! version is migrated with a way back, or left as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::{Configured, Daemon, Site, eventually, list, number, quick_tenant, scan_arrivals, simulate, text};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};
use sweepd::clock::{Clock, SystemClock};
use sweepd::simulator::{TenantOptions, fleet};
use sweepd::store::Store;
use sweepd::store::schema::MIGRATIONS;

fn counts(daemon: &Daemon) -> (u64, u64) {
    let jobs = &daemon.status()["tenants"]["contoso"]["jobs"];
    (number(jobs, "accepted"), number(jobs, "queued"))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_backups_at_one_time_to_one_file_one_gets_it_whole() {
    let tenant = quick_tenant(fleet(72, 1, "backup"));
    let simulator = simulate(72, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let file = daemon.site.path().join("backup.db");
    let name = file.to_str().unwrap();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let at_once: Vec<_> = (0..4).map(|_| scope.spawn(|| daemon.command(&["backup", name]))).collect();
        at_once.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(ended.iter().filter(|one| one.code == 0).count(), 1, "{ended:?}");
    for other in ended.iter().filter(|one| one.code != 0) {
        assert!(other.code == 1 && other.stderr.contains("is there already"), "{other:?}");
    }
    let left = |name: &str| name.contains("backup.db") && name != "backup.db" || name.ends_with(".unfinished");
    let names = fs::read_dir(daemon.site.path()).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!names.into_iter().any(|name| left(&name.to_string_lossy())), "nothing is left behind");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "its owner's alone");
    let view = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).read_only(true);
    let mut copy = view.connect().await.unwrap();
    let whole: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut copy).await.unwrap();
    assert_eq!(whole, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_and_sends_nothing_twice() {
    let machines = fleet(71, 5, "backup");
    let long = (Duration::from_hours(2), Duration::from_hours(2));
    let tenant = TenantOptions { action_duration: long, ..quick_tenant(machines.clone()) };
    let simulator = simulate(71, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("first.txt", list(&machines[..3]));
    eventually("three scans", || (counts(&daemon) == (3, 0)).then_some(())).await;
    daemon.told(&["pause", "--for", "30m"]);
    daemon.site.put("second.txt", list(&machines[3..]));
    daemon.receipt("processed/second.txt").await;

    let file = daemon.site.path().join("backup.db");
    let name = file.to_str().unwrap();
    let told = daemon.lines(&["backup", name]);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600, "its owner's alone");
    daemon.told(&["audit", "verify", "--head", text(&told[0], "head")]);
    assert_eq!(daemon.command(&["backup", name]).code, 1, "nothing is overwritten");
    assert_eq!(
        fs::read_dir(daemon.site.path())
            .unwrap()
            .flatten()
            .filter(|entry| { entry.file_name().to_string_lossy().starts_with("backup.db") })
            .count(),
        1,
        "and nothing is left behind"
    );

    // What is sent after the backup, the backup does not know.
    daemon.told(&["resume"]);
    eventually("five scans", || (counts(&daemon) == (5, 0)).then_some(())).await;
    assert_eq!(daemon.command(&["restore", name, "--yes"]).code, 75, "a daemon runs");
    assert!(daemon.terminate().await.success());
    let before = fs::read(daemon.site.state().join("sweepd.db")).unwrap();
    assert_eq!(daemon.command(&["restore", name]).code, 2, "nobody could be asked");
    let broken = daemon.site.path().join("broken.db");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    fs::write(&broken, bytes).unwrap();
    assert_eq!(daemon.command(&["restore", broken.to_str().unwrap(), "--yes"]).code, 65, "it is damaged");
    fs::write(&broken, "no database at all").unwrap();
    assert_eq!(daemon.command(&["restore", broken.to_str().unwrap(), "--yes"]).code, 65, "it is none");
    assert_eq!(fs::read(daemon.site.state().join("sweepd.db")).unwrap(), before, "nothing was changed");

    let told = daemon.lines(&["restore", name, "--yes"]);
    assert!(fs::exists(text(&told[0], "aside")).unwrap(), "what was there is kept: {told:?}");
    assert_eq!(mode(&daemon.site.state().join("sweepd.db")), 0o600);
    daemon.start().await;
    let status = daemon.status();
    assert_eq!(counts(&daemon), (3, 2), "as it was at the backup: {status}");
    assert_eq!(status["tenants"]["contoso"]["paused_until"], told[0]["paused_until"], "longer than it was: {status}");
    daemon.told(&["audit", "verify"]);
    // Defender's list tells of the scans that the backup does not know: they are taken over, not made again.
    let taken = eventually("unknown scans", || {
        let told = daemon.lines(&["reconcile", "--yes"]);
        (number(&told[0], "actions") > 0).then_some(told)
    });
    assert_eq!(number(&taken.await[0], "jobs"), 2);
    daemon.told(&["resume"]);
    eventually("the end of what was queued", || (counts(&daemon) == (5, 0)).then_some(())).await;
    assert_eq!(scan_arrivals(&simulator, 0), 5, "nothing is sent twice");
}

/// systemd starts a service again that failed, every ten seconds, and one that ends with 78 it does not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_database_of_sweepd_ends_run_for_good() {
    let tenant = quick_tenant(fleet(74, 1, "garbage"));
    let simulator = simulate(74, vec![tenant.clone()]).await;
    let daemon = Daemon::new(Site::new(&simulator, &[Configured::of("contoso", &tenant)], ""));
    fs::create_dir(daemon.site.state()).unwrap();
    let database = daemon.site.state().join("sweepd.db");
    let edit = async |statements: &str| {
        let file = sqlx::sqlite::SqliteConnectOptions::new().filename(&database).create_if_missing(true);
        let mut connection = file.connect().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    };
    let refused = |told: &str| {
        let before = fs::read(&database).unwrap();
        for command in ["run", "status"] {
            let ended = daemon.command(&[command]);
            assert_eq!(ended.code, 78, "{command}: {ended:?}");
            for word in [database.to_str().unwrap(), told, "`sweepd restore`", "move the file away"] {
                assert!(ended.stderr.contains(word), "{word}: {ended:?}");
            }
        }
        assert_eq!(fs::read(&database).unwrap(), before, "it was left as it is");
    };
    fs::write(&database, "marker").unwrap();
    refused("damaged, or no database");
    fs::remove_file(&database).unwrap();
    edit("CREATE TABLE notes (a)").await;
    refused("another program");

    fs::remove_file(&database).unwrap();
    Store::open(&daemon.site.state(), SystemClock.wall()).await.unwrap().close().await;
    let trigger = "DROP TRIGGER events_are_not_deleted";
    edit(trigger).await;
    refused("the trigger `events_are_not_deleted` is missing");
    let copy = daemon.site.path().join("copy.db");
    fs::rename(&database, &copy).unwrap();
    let restored = daemon.command(&["restore", copy.to_str().unwrap(), "--yes"]);
    assert!(restored.code == 65 && restored.stderr.contains("`events_are_not_deleted` is missing"), "{restored:?}");
    assert!(!database.exists(), "nothing was put in its place");

    // What would be waited for, or is an I/O error to SQLite.
    let in_its_place = |told: &str| {
        for command in ["run", "status", "pause"] {
            let ended = daemon.command(&[command]);
            assert!(ended.code == 78 && ended.stderr.contains(told), "{command}: {ended:?}");
        }
    };
    nix::unistd::mkfifo(&database, nix::sys::stat::Mode::S_IRWXU).unwrap();
    in_its_place("it is no regular file");
    fs::remove_file(&database).unwrap();
    fs::create_dir(&database).unwrap();
    in_its_place("it is no regular file");
    let lock = daemon.site.state().join("sweepd.lock");
    fs::remove_file(&lock).unwrap();
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ended = daemon.command(&["run"]);
    assert!(ended.code == 1 && ended.stderr.contains(lock.to_str().unwrap()), "{ended:?}");
}

/// Whoever was killed has its last events in the log beside the database, and both are put aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_after_a_kill_is_undone_without_loss() {
    let machines = fleet(73, 3, "undone");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(73, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let backup = daemon.site.path().join("backup.db");
    daemon.told(&["backup", backup.to_str().unwrap()]);
    daemon.site.put("list.txt", list(&machines));
    daemon.receipt("processed/list.txt").await;
    daemon.kill();

    let told = daemon.lines(&["restore", backup.to_str().unwrap(), "--yes"]);
    let aside = text(&told[0], "aside");
    assert!(fs::metadata(format!("{aside}-wal")).unwrap().len() > 0, "the log was put aside with it");
    assert!(daemon.lines(&["sweep", "list"]).is_empty(), "as it was at the backup");
    daemon.told(&["restore", aside, "--yes"]);
    assert_eq!(daemon.lines(&["sweep", "list"]).len(), 1, "what the log held is there again");
    daemon.told(&["audit", "verify"]);
}

/// The schema of a later version: this one's, and a step that it does not have.
fn later() -> Migrator {
    let ours: Vec<_> = MIGRATIONS.iter().cloned().collect();
    let next = ours.iter().map(|step| step.version).max().unwrap() + 1;
    let step = "CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT".into_sql_str();
    let step = Migration::new(next, "later".into(), MigrationType::Simple, step, false);
    Migrator::with_migrations(ours.into_iter().chain([step]).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_keeps_a_copy_with_which_one_goes_back() {
    let machines = fleet(72, 3, "upgrade");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(72, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.told(&["pause"]);
    daemon.site.put("list.txt", list(&machines));
    daemon.receipt("processed/list.txt").await;
    assert!(daemon.terminate().await.success());

    // A later version starts here, with a step of its own.
    let at = SystemClock.wall();
    Store::open_with(&daemon.site.state(), &later(), at).await.unwrap().close().await;
    let migrated = fs::read(daemon.site.state().join("sweepd.db")).unwrap();

    // The version before it does not touch what it does not understand, and says what to do.
    daemon.launch();
    assert_eq!(daemon.ended().await.code(), Some(78), "{}", daemon.log_text());
    let told = daemon.log_text();
    assert!(told.contains("newer version of sweepd") && told.contains("sweepd restore"), "{told}");
    let status = daemon.command(&["status"]);
    assert_eq!(status.code, 78, "{}", status.stderr);
    let kept = fs::read_dir(daemon.site.state()).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.into_iter().find(|path| path.to_str().unwrap().contains("sweepd.db.schema-")).unwrap();
    let name = kept.to_str().unwrap();
    assert!(told.contains(name), "the copy that fits is named: {told}");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let newer = daemon.site.path().join("newer.db");
    fs::copy(daemon.site.state().join("sweepd.db"), &newer).unwrap();
    assert_eq!(daemon.command(&["restore", newer.to_str().unwrap(), "--yes"]).code, 65, "nor is it restored");
    assert_eq!(fs::read(daemon.site.state().join("sweepd.db")).unwrap(), migrated, "nothing was changed");

    // Going back, as it is documented.
    daemon.told(&["restore", name, "--yes"]);
    daemon.start().await;
    assert_eq!(counts(&daemon), (0, 3), "the queue is as it was");
    daemon.told(&["audit", "verify"]);
    daemon.told(&["resume"]);
    daemon.all_final(3).await;
    assert_eq!(scan_arrivals(&simulator, 0), 3);
}
