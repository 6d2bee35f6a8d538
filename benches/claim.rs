//! What it costs to claim the next job with a thousand queued and with ten million: time, and bytes that SQLite reads,
//! for each of some hundred claims.
//!
//! `SWEEPD_BENCH_QUEUED=10000000 cargo bench --bench claim` makes ten million, which takes minutes and 2 GB of disk;
//! without, it is one million.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "whoever runs a bench reads what went wrong; a bench measures"
)]

use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use sweepd::domain::eligibility::{Inactive, PendingTypes, Rules};
use sweepd::domain::id::{AttemptId, SweepId};
use sweepd::domain::ledger::Limits;
use sweepd::domain::sweep::Source;
use sweepd::domain::time::{Boot, BootId, Wall};
use sweepd::store::Store;
use sweepd::store::claims::{Ask, Claimed};
use sweepd::store::incarnations::Birth;
use sweepd::store::slots::Stamp;
use sweepd::store::sweeps::NewSweep;
use uuid::Uuid;

const CLAIMS: u32 = 500;
const NOW: Wall = Wall(1_700_000_000_000);

/// What one claim took on average.
struct Cost {
    time: Duration,
    read: u64,
}

/// Bytes that this process has read.
fn read_so_far() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("the line");
    line.parse().expect("a number")
}

/// Jobs of one sweep, in the order of their machines: written past the intake, which would take its time.
async fn fill(database: &Path, tenant: i64, sweep: i64, queued: u32) {
    let mut connection = SqliteConnectOptions::new().filename(database).connect().await.expect("the database");
    let jobs = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?3)
        INSERT INTO jobs (tenant_id, sweep_n, machine, scan_type, state, priority, on_pending, comment, created_at, updated_at)
        SELECT ?1, ?2, unhex(printf('%040x', n)), 'Quick', 'queued', 1, 'skip', 'Scheduled scan', ?4, ?4 FROM number";
    let statements = [
        jobs,
        "INSERT INTO open_jobs SELECT tenant_id, machine, scan_type, id FROM jobs WHERE sweep_n = ?2 ORDER BY id",
        "INSERT INTO job_counts VALUES (?1, 'queued', ?3) ON CONFLICT DO UPDATE SET n = ?3",
        "INSERT INTO unsent VALUES (?2, 1, ?3)",
        "UPDATE sweeps SET state = 'open', released = 1, filed = 1, lines = ?3, queued = ?3, open = ?3 WHERE n = ?2",
    ];
    for statement in statements {
        sqlx::query(statement)
            .bind(tenant)
            .bind(sweep)
            .bind(queued)
            .bind(NOW.0)
            .execute(&mut connection)
            .await
            .expect("rows");
    }
    connection.close().await.expect("closed");
}

async fn cost(queued: u32) -> Cost {
    let folder = tempfile::tempdir().expect("a folder");
    let boot_id = BootId("bench".to_owned());
    let store = Store::open(folder.path(), NOW).await.expect("a database");
    let tenant = store.tenant(&"contoso".parse().expect("a name")).await.expect("a tenant");
    let budget = store.budget(tenant, "directory/app").await.expect("a budget");
    let birth = Birth {
        at: NOW,
        boot: Boot(0),
        boot_id: boot_id.clone(),
        unknown_grace: Duration::from_mins(1),
        lookup_horizon: Duration::from_mins(10),
        version: "bench",
    };
    let epoch = store.begin_incarnation(birth).await.expect("an incarnation").epoch;
    let new = NewSweep {
        id: SweepId(Uuid::from_u128(1)),
        tenant,
        name: "bench".to_owned(),
        source: Source::File,
        file: "bench.txt".to_owned(),
        sha256: "0".repeat(64),
        file_uid: None,
        received_at: NOW,
    };
    let sweep = store.begin_sweep(new).await.expect("a sweep");
    fill(&folder.path().join(sweepd::store::FILE), tenant, sweep, queued).await;

    let many = NonZeroU32::new(1_000_000).expect("not zero");
    let ask = |n: u32| Ask {
        tenant,
        budget,
        stamp: Stamp { epoch, boot_id: boot_id.clone(), boot: Boot(i64::from(n)), at: NOW },
        limits: Limits::new(many, many).expect("limits"),
        rules: Rules {
            pending_types: PendingTypes::These(vec!["RunAntiVirusScan".to_owned()]),
            scanned_since: None,
            inactive: Inactive::Send,
        },
        rise_after: Duration::from_hours(24),
        attempt: AttemptId(Uuid::from_u128(u128::from(n))),
        probe: false,
        blind: false,
        minds_marks: true,
        looked: Boot(0),
    };
    let claim = async |n: u32| match store.claim(ask(n)).await.expect("a claim") {
        Claimed::Call(_) => {}
        other => panic!("a call was expected: {other:?}"),
    };
    // The first ones fill the caches.
    for n in 0..50 {
        claim(n).await;
    }
    let (begun, read) = (Instant::now(), read_so_far());
    for n in 50..50 + CLAIMS {
        claim(n).await;
    }
    let cost = Cost { time: begun.elapsed() / CLAIMS, read: (read_so_far() - read) / u64::from(CLAIMS) };
    store.close().await;
    cost
}

#[tokio::main]
async fn main() {
    let most = std::env::var("SWEEPD_BENCH_QUEUED").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    println!("| queued | time for each claim | read for each claim |\n|---:|---:|---:|");
    for queued in [1000, most] {
        let Cost { time, read } = cost(queued).await;
        println!("| {queued} | {:.2} ms | {read} bytes |", time.as_secs_f64() * 1000.0);
    }
}
