//! How long a list of a million machines takes until it is durable and receipted, held against what the `sqlite3`
//! shell needs to import the same ids into a table with the same columns and indexes; how much memory the daemon
//! takes for it over what it has when idle; and for how long a second writer had to wait at the most meanwhile,
//! which is no less than what the daemon's own writer was held.
//!
//! Then a hundred thousand files of one machine each, dropped at once for one of two tenants: how long they take, how
//! much memory, and how long the other tenant's file waits among them.
//!
//! `SWEEPD_BENCH_MACHINES=100000 SWEEPD_BENCH_FILES=10000 cargo bench --bench intake` takes fewer.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "whoever runs a bench reads what went wrong; a bench measures"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use support::{Configured, Daemon, Site, number, quick_tenant, simulate};
use sweepd::simulator::fleet;

/// What a file may take and still be called quickly taken in.
const MOST_MEMORY_MIB: f64 = 64.0;
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Ids in random order, another set for each `salt`.
fn ids(machines: u32, salt: &str) -> Vec<String> {
    (0..machines)
        .map(|n| {
            let mut id = format!("{:x}", Sha256::digest(format!("{salt} {n}")));
            id.truncate(40);
            id
        })
        .collect()
}

/// The table of jobs, with the key of the open ones as an index of its own. The shell's import knows neither NULL
/// nor BLOB: what is NULL here is left empty there, and the ids are text.
const TABLE: &str = "CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, tenant_id INTEGER, sweep_n INTEGER, machine TEXT, name TEXT, scan_type TEXT, state TEXT,
    reason TEXT, priority INTEGER, on_pending TEXT, comment TEXT, not_before TEXT, parked_until TEXT, blocked_by TEXT,
    attempts INTEGER, action_id TEXT, created_at INTEGER, updated_at INTEGER, finished_at TEXT);
CREATE INDEX jobs_ready ON jobs (tenant_id, priority DESC, id) WHERE state = 'queued' AND parked_until = '';
CREATE INDEX jobs_parked ON jobs (tenant_id, parked_until) WHERE state = 'queued' AND parked_until <> '';
CREATE INDEX jobs_blocked ON jobs (tenant_id, blocked_by) WHERE state = 'queued' AND blocked_by <> '';
CREATE INDEX jobs_moving ON jobs (tenant_id, state) WHERE state IN ('sending', 'accepted');
CREATE INDEX jobs_of_sweep ON jobs (sweep_n);
CREATE INDEX jobs_finished ON jobs (tenant_id, machine) WHERE finished_at <> '';
CREATE UNIQUE INDEX open_jobs ON jobs (tenant_id, machine, scan_type);";

/// How long the shell takes; `None` without one.
fn shell(folder: &Path, ids: &[String]) -> Option<Duration> {
    let mut rows = String::new();
    for (n, id) in (1..).zip(ids) {
        writeln!(
            rows,
            "{n},1,1,{id},,Quick,queued,,1,skip,Scheduled scan by sweepd,,,,0,,1700000000000,1700000000000,"
        )
        .expect("a row");
    }
    fs::write(folder.join("jobs.csv"), rows).expect("the rows");
    let begun = Instant::now();
    let child = Command::new("sqlite3").current_dir(folder).arg("shell.db").stdin(Stdio::piped()).spawn();
    let mut child = child.ok()?;
    let script = format!("{TABLE}\n.mode csv\n.import jobs.csv jobs\n");
    child.stdin.take().expect("its input").write_all(script.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "the shell failed");
    let took = begun.elapsed();
    fs::remove_file(folder.join("shell.db")).expect("its database");
    fs::remove_file(folder.join("jobs.csv")).expect("the rows");
    Some(took)
}

/// A line of `/proc/<pid>/status`, in MiB.
fn memory(daemon: &Daemon, key: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with(key)).expect("the line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0
}

/// Drops a list and waits for its receipt. Returns how long that took.
async fn take(daemon: &Daemon, name: &str, ids: &[String]) -> Duration {
    let content = ids.join("\n") + "\n";
    let receipt = daemon.site.spool("processed").join(format!("{name}.receipt.json"));
    let begun = Instant::now();
    daemon.site.put(name, content);
    while !receipt.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    let receipt = daemon.receipt(&format!("processed/{name}")).await;
    assert_eq!(number(&receipt, "queued"), ids.len() as u64, "{receipt}");
    took
}

/// Tries to be the writer, again and again, and gives it back at once. Returns the longest time between two
/// successes.
fn wait_for_the_writer(database: &Path, stop: &AtomicBool) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(database).busy_timeout(Duration::ZERO);
        let mut connection = options.connect().await.expect("the database");
        let mut longest = Duration::ZERO;
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.is_ok() {
                longest = longest.max(last.elapsed());
                sqlx::query("ROLLBACK").execute(&mut connection).await.expect("nothing was done");
                thread::sleep(Duration::from_millis(2));
                last = Instant::now();
            } else {
                thread::sleep(Duration::from_micros(100));
            }
        }
        connection.close().await.expect("closed");
        longest
    })
}

/// A number from the environment.
fn asked(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// A hundred thousand files of one tenant, and one of another.
async fn small_files(files: u32) {
    let tenants = [quick_tenant(fleet(1, 1, "a")), quick_tenant(fleet(2, 1, "b"))];
    let simulator = simulate(2, tenants.to_vec()).await;
    let configured = [Configured::of("a", &tenants[0]), Configured::of("b", &tenants[1])];
    let daemon = Daemon::started(Site::new(&simulator, &configured, "hold_above = 0")).await;
    daemon.told(&["pause"]);
    let idle = memory(&daemon, "VmRSS:");
    let begun = Instant::now();
    for (n, id) in ids(files, "small").iter().enumerate() {
        daemon.site.put(&format!("a/{n}.txt"), id);
    }
    let dropped = begun.elapsed();
    let begun_other = Instant::now();
    daemon.site.put("b/one.txt", &ids(1, "other")[0]);
    let (other, all) = (daemon.site.spool("processed/b/one.txt.receipt.json"), daemon.site.spool("incoming/a"));
    let mut waited = None;
    while fs::read_dir(&all).expect("the folder").next().is_some() {
        if waited.is_none() && other.exists() {
            waited = Some(begun_other.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "{files} files of one machine each: dropped in {:.1} s, taken in {:.1} s; peak memory over idle: {:.1} MiB; \
         the other tenant's file waited {:.1} s",
        dropped.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        memory(&daemon, "VmHWM:") - idle,
        waited.unwrap_or_else(|| begun_other.elapsed()).as_secs_f64(),
    );
}

#[tokio::main]
async fn main() {
    let machines = asked("SWEEPD_BENCH_MACHINES", 1_000_000);
    let files = asked("SWEEPD_BENCH_FILES", 100_000);
    if files > 0 {
        small_files(files).await;
    }
    if machines > 0 {
        lists(machines).await;
    }
}

async fn lists(machines: u32) {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(1, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "hold_above = 0");
    let daemon = Daemon::started(site).await;
    daemon.told(&["pause"]);
    let idle = memory(&daemon, "VmRSS:");
    let first = ids(machines, "first");
    let took = take(&daemon, "first.txt", &first).await;
    let peak = memory(&daemon, "VmHWM:") - idle;
    println!("{machines} ids in random order, durable and receipted: {:.1} s", took.as_secs_f64());
    match shell(daemon.site.path(), &first) {
        Some(shell) => {
            let ratio = took.as_secs_f64() / shell.as_secs_f64();
            println!(
                "the sqlite3 shell imports the same in {:.1} s: ratio {ratio:.2} (at most 1)",
                shell.as_secs_f64()
            );
        }
        None => println!("no sqlite3 shell is installed: there is nothing to hold this against"),
    }
    println!("peak memory over idle ({idle:.0} MiB): {peak:.1} MiB (at most {MOST_MEMORY_MIB})");

    // A second list, into tables that hold the first, while a second writer stands by.
    let stop = Arc::new(AtomicBool::new(false));
    let (database, told) = (daemon.site.state().join("sweepd.db"), Arc::clone(&stop));
    let waiting = thread::spawn(move || wait_for_the_writer(&database, &told));
    let took = take(&daemon, "second.txt", &ids(machines / 4, "second")).await;
    stop.store(true, Ordering::Relaxed);
    let longest = waiting.join().expect("it counted");
    println!("{} more into the same tables: {:.1} s", machines / 4, took.as_secs_f64());
    println!("longest wait of a second writer: {} ms (at most {})", longest.as_millis(), LONGEST_WAIT.as_millis());
}
