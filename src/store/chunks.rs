//! A short file on its way into the queue: set by set, in few statements, whatever its size. And the release of what
//! is hidden.

use serde_json::json;
use sqlx::SqliteConnection;

use super::jobs;
use super::sweeps::{Chunk, Counts, LeftOut, NewJob, SweepRow};
use super::tenants::TenantRow;
use super::{Doing, StoreError, unsent};
use crate::domain::job::State;
use crate::domain::time::Wall;

/// A row's place is that in the chunk: several machines may stand on one line of a file.
const CHUNK_TABLE: [&str; 3] = [
    "CREATE TEMP TABLE IF NOT EXISTS chunk (place INTEGER PRIMARY KEY, machine BLOB, name TEXT, scan_type TEXT,
         priority INTEGER, not_before INTEGER, on_pending TEXT, comment TEXT)",
    "CREATE INDEX IF NOT EXISTS temp.chunk_keys ON chunk (machine, scan_type, place)",
    "DELETE FROM temp.chunk",
];

async fn load(connection: &mut SqliteConnection, jobs: &[NewJob]) -> Result<(), StoreError> {
    for statement in CHUNK_TABLE {
        sqlx::query(statement).execute(&mut *connection).await.doing("prepare a chunk")?;
    }
    let rows: Vec<_> = jobs
        .iter()
        .enumerate()
        .map(|(place, job)| {
            json!([
                place,
                job.machine.to_string(),
                job.name,
                job.scan.as_str(),
                job.priority.rank(),
                job.not_before.map(|at| at.0),
                job.on_pending.as_str(),
                &*job.comment,
            ])
        })
        .collect();
    sqlx::query(
        "INSERT INTO temp.chunk
         SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
         FROM json_each(?)",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .execute(connection)
    .await
    .doing("load a chunk")
    .map(drop)
}

/// Takes in a chunk: new jobs for machines that have no open one, joins for those that have.
pub(crate) async fn add(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    chunk: &Chunk,
    now: Wall,
) -> Result<Counts, StoreError> {
    load(connection, &chunk.jobs).await?;
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM jobs")
        .fetch_one(&mut *connection)
        .await
        .doing("find the last job")?;
    let queued = sqlx::query(
        "INSERT INTO jobs (tenant_id, sweep_n, machine, name, scan_type, state, priority, on_pending, comment,
                           not_before, parked_until, created_at, updated_at)
         SELECT ?1, ?2, machine, name, scan_type, 'queued', priority, on_pending, comment, not_before,
                9223372036854775807, ?3, ?3
         FROM temp.chunk AS new
         WHERE NOT EXISTS (SELECT 1 FROM open_jobs AS o WHERE o.tenant_id = ?1 AND o.machine = new.machine
                                                          AND o.scan_type = new.scan_type)
           AND place = (SELECT min(place) FROM temp.chunk AS first
                       WHERE first.machine = new.machine AND first.scan_type = new.scan_type)
         ORDER BY place",
    )
    .bind(tenant)
    .bind(sweep)
    .bind(now.0)
    .execute(&mut *connection)
    .await
    .doing("queue a chunk")?
    .rows_affected();
    let (joined, joined_unsent) = join(connection, tenant, sweep).await?;
    unsent::took(connection, sweep, last, joined_unsent).await?;
    sqlx::query(
        "INSERT INTO open_jobs (tenant_id, machine, scan_type, job_id)
         SELECT tenant_id, machine, scan_type, id FROM jobs WHERE id > ? ORDER BY machine",
    )
    .bind(last)
    .execute(&mut *connection)
    .await
    .doing("open a chunk's jobs")?;
    leave_out(connection, sweep, &chunk.left_out).await?;
    let counts = Counts {
        lines: chunk.lines(),
        queued,
        joined,
        duplicates: (chunk.jobs.len() as u64).saturating_sub(queued + joined) + chunk.left_out_again,
        not_eligible: chunk.left_out.len() as u64,
        refused: chunk.refused,
    };
    tally(connection, tenant, sweep, &counts).await?;
    let again = take_back(connection, sweep, (0, i64::MAX)).await?;
    let counts = Counts { duplicates: counts.duplicates + again, not_eligible: counts.not_eligible - again, ..counts };
    sqlx::query(
        "UPDATE sweeps SET full = full + (SELECT count(*) FROM jobs WHERE id > ? AND scan_type = 'Full') WHERE n = ?",
    )
    .bind(last)
    .bind(sweep)
    .execute(&mut *connection)
    .await
    .doing("count Full scans")?;
    Ok(counts)
}

/// Joins the chunk's machines that have an open job of another sweep. Returns how many, and how
/// many of those are not sent yet.
async fn join(connection: &mut SqliteConnection, tenant: TenantRow, sweep: SweepRow) -> Result<(u64, u64), StoreError> {
    let joined: Vec<bool> = sqlx::query_scalar(
        "INSERT OR IGNORE INTO joins (sweep_n, job_id, priority, not_before)
         SELECT ?2, jobs.id, max(new.priority), nullif(min(coalesce(new.not_before, 0)), 0) FROM temp.chunk AS new
             -- Cross: from the chunk to the open jobs by their key, never the other way round.
             CROSS JOIN open_jobs AS o ON o.tenant_id = ?1 AND o.machine = new.machine AND o.scan_type = new.scan_type
             CROSS JOIN jobs ON jobs.id = o.job_id
         WHERE jobs.sweep_n <> ?2 GROUP BY jobs.id
         RETURNING (SELECT state = 'queued' FROM jobs WHERE id = job_id)",
    )
    .bind(tenant)
    .bind(sweep)
    .fetch_all(connection)
    .await
    .doing("join open jobs")?;
    let unsent = joined.iter().filter(|unsent| **unsent).count();
    Ok((joined.len() as u64, unsent as u64))
}

/// Makes ready the next [`CHUNK`](super::sweeps::CHUNK) of a sweep's own jobs after `after`, and of the jobs it joined
/// lets the stronger wish win. Returns where to go on, `None` at the end.
pub(crate) async fn release_some(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    after: (i64, i64),
    now: Wall,
) -> Result<Option<(i64, i64)>, StoreError> {
    let own: Option<i64> = sqlx::query_scalar(
        "SELECT max(id) FROM (SELECT id FROM jobs WHERE sweep_n = ? AND id > ? ORDER BY id LIMIT 2000)",
    )
    .bind(sweep)
    .bind(after.0)
    .fetch_one(&mut *connection)
    .await
    .doing("find what to release")?;
    let joined: Option<i64> = sqlx::query_scalar(
        "SELECT max(job_id) FROM (SELECT job_id FROM joins WHERE sweep_n = ? AND job_id > ? ORDER BY job_id LIMIT 2000)",
    )
    .bind(sweep)
    .bind(after.1)
    .fetch_one(&mut *connection)
    .await
    .doing("find what was joined")?;
    let next = (own.unwrap_or(after.0), joined.unwrap_or(after.1));
    sqlx::query(
        // Not hidden any more: a later wish of a sweep that joined in the meantime does not win either.
        "UPDATE jobs SET parked_until = iif(not_before > ?4, min(not_before, parked_until), NULL)
         WHERE sweep_n = ?1 AND id > ?2 AND id <= ?3 AND state = 'queued' AND parked_until IS NOT NULL
           AND blocked_by IS NULL",
    )
    .bind(sweep)
    .bind(after.0)
    .bind(next.0)
    .bind(now.0)
    .execute(&mut *connection)
    .await
    .doing("release jobs")?;
    unsent::rises(connection, sweep, after.1, next.1).await?;
    sqlx::query(
        "UPDATE jobs SET priority = max(jobs.priority, wish.priority),
             parked_until = CASE WHEN jobs.blocked_by IS NOT NULL OR jobs.parked_until IS NULL THEN jobs.parked_until
                                 WHEN coalesce(wish.not_before, 0) <= ?4 THEN NULL
                                 ELSE min(jobs.parked_until, wish.not_before) END
         FROM joins AS wish
         WHERE wish.sweep_n = ?1 AND wish.job_id > ?2 AND wish.job_id <= ?3 AND jobs.id = wish.job_id
           AND jobs.state = 'queued'",
    )
    .bind(sweep)
    .bind(after.1)
    .bind(next.1)
    .bind(now.0)
    .execute(&mut *connection)
    .await
    .doing("let the stronger wish win")?;
    if next != after {
        return Ok(Some(next));
    }
    sqlx::query("UPDATE sweeps SET released = 1 WHERE n = ?")
        .bind(sweep)
        .execute(connection)
        .await
        .doing("note a release")?;
    Ok(None)
}

pub(crate) async fn leave_out(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    left: &[LeftOut],
) -> Result<(), StoreError> {
    if left.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> =
        left.iter().map(|left| json!([left.line, left.machine.to_string(), left.name, left.reason])).collect();
    sqlx::query(
        "INSERT INTO left_out (sweep_n, line, machine, name, reason)
         SELECT ?, value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3 FROM json_each(?)",
    )
    .bind(sweep)
    .bind(serde_json::Value::from(rows).to_string())
    .execute(connection)
    .await
    .doing("leave machines out")
    .map(drop)
}

/// Of lines that were left out, those whose machine another line of the file asks for are duplicates of that: an event
/// table tells of a device before and after it was onboarded. Returns how many. May be repeated.
pub(crate) async fn take_back(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    (first, last): (i64, i64),
) -> Result<u64, StoreError> {
    let again = sqlx::query(
        "DELETE FROM left_out WHERE sweep_n = ?1 AND line BETWEEN ?2 AND ?3 AND EXISTS (
             SELECT 1 FROM open_jobs AS o JOIN jobs ON jobs.id = o.job_id
             WHERE o.tenant_id = (SELECT tenant_id FROM sweeps WHERE n = ?1) AND o.machine = left_out.machine
               AND (jobs.sweep_n = ?1 OR EXISTS (SELECT 1 FROM joins WHERE joins.sweep_n = ?1 AND joins.job_id = jobs.id)))",
    )
    .bind(sweep)
    .bind(first)
    .bind(last)
    .execute(&mut *connection)
    .await
    .doing("find who is asked for after all")?
    .rows_affected();
    if again > 0 {
        sqlx::query("UPDATE sweeps SET duplicates = duplicates + ?1, not_eligible = not_eligible - ?1 WHERE n = ?2")
            .bind(i64::try_from(again).unwrap_or(i64::MAX))
            .bind(sweep)
            .execute(connection)
            .await
            .doing("count who is asked for after all")?;
    }
    Ok(again)
}

async fn tally(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    counts: &Counts,
) -> Result<(), StoreError> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE sweeps SET lines = lines + ?1, queued = queued + ?2, joined = joined + ?3, duplicates = duplicates + ?4,
             not_eligible = not_eligible + ?5, refused = refused + ?6, open = open + ?2 + ?3 WHERE n = ?7",
    )
    .bind(number(counts.lines))
    .bind(number(counts.queued))
    .bind(number(counts.joined))
    .bind(number(counts.duplicates))
    .bind(number(counts.not_eligible))
    .bind(number(counts.refused))
    .bind(sweep)
    .execute(&mut *connection)
    .await
    .doing("count a chunk")?;
    jobs::count(connection, tenant, State::Queued, number(counts.queued)).await
}
