//! How much of each sweep is not sent yet, by priority: kept with every move of a job, so that the
//! end of every sweep can be told at once, however long the queue is.

use std::collections::BTreeMap;

use sqlx::{Row, SqliteConnection};

use super::sweeps::{NewJob, SweepRow};
use super::tenants::TenantRow;
use super::{Doing, StoreError, View};
use crate::domain::id::JobId;
use crate::domain::sweep::Priority;
use crate::domain::time::Wall;

/// Stands for a priority in the count of what a sweep joined: its order is its own sweep's affair.
const JOINED: i64 = -1;

/// What is not sent yet of a sweep that is let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsentSweep {
    /// Its row.
    pub n: SweepRow,
    /// When it was received.
    pub received_at: Wall,
    /// Its own jobs, by priority.
    pub own: BTreeMap<Priority, u64>,
    /// Jobs of other sweeps that it joined.
    pub joined: u64,
    /// The lowest priority that it asked for.
    pub lowest_priority: Priority,
    /// The latest time that it asked for.
    pub latest_not_before: Option<Wall>,
}

async fn add(connection: &mut SqliteConnection, sweep: SweepRow, priority: i64, by: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO unsent (sweep_n, priority, n) VALUES (?1, ?2, max(?3, 0))
         ON CONFLICT (sweep_n, priority) DO UPDATE SET n = max(n + ?3, 0)",
    )
    .bind(sweep)
    .bind(priority)
    .bind(by)
    .execute(connection)
    .await
    .doing("count what is not sent")
    .map(drop)
}

/// A sweep begins: it has joined nothing yet.
pub(crate) async fn begin(connection: &mut SqliteConnection, sweep: SweepRow) -> Result<(), StoreError> {
    add(connection, sweep, JOINED, 0).await
}

/// A chunk was taken in: jobs after `last` are new, and so many of those that it joined are queued.
pub(crate) async fn took(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    last: i64,
    joined: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO unsent (sweep_n, priority, n) SELECT ?1, priority, count(*) FROM jobs WHERE id > ?2 GROUP BY priority
         ON CONFLICT (sweep_n, priority) DO UPDATE SET n = n + excluded.n",
    )
    .bind(sweep)
    .bind(last)
    .execute(&mut *connection)
    .await
    .doing("count what is not sent")?;
    if joined > 0 {
        add(connection, sweep, JOINED, i64::try_from(joined).unwrap_or(i64::MAX)).await?;
    }
    sqlx::query(
        "UPDATE sweeps SET lowest_priority = min(lowest_priority, coalesce(asked.priority, 3)),
             latest_not_before = nullif(max(coalesce(latest_not_before, 0), coalesce(asked.not_before, 0)), 0)
         FROM (SELECT min(priority) AS priority, max(not_before) AS not_before FROM temp.chunk) AS asked WHERE n = ?",
    )
    .bind(sweep)
    .execute(connection)
    .await
    .doing("note what a sweep asks for")
    .map(drop)
}

/// Lines were appended to a sweep, each with a job of its own.
pub(crate) async fn asked(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    jobs: &[NewJob],
) -> Result<(), StoreError> {
    let mut by_priority: BTreeMap<i64, i64> = BTreeMap::new();
    for job in jobs {
        *by_priority.entry(job.priority.rank()).or_default() += 1;
    }
    for (priority, n) in &by_priority {
        add(connection, sweep, *priority, *n).await?;
    }
    sqlx::query(
        "UPDATE sweeps SET lowest_priority = min(lowest_priority, coalesce(?1, 3)),
             latest_not_before = nullif(max(coalesce(latest_not_before, 0), coalesce(?2, 0)), 0) WHERE n = ?3",
    )
    .bind(by_priority.keys().next().copied())
    .bind(jobs.iter().filter_map(|job| job.not_before).max().map(|at| at.0))
    .bind(sweep)
    .execute(connection)
    .await
    .doing("note what a sweep asks for")
    .map(drop)
}

/// The jobs in `temp.spare` are about to go; so many of those that the sweep joined instead are queued.
pub(crate) async fn made_way(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    joined: usize,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE unsent SET n = unsent.n - gone.n
         FROM (SELECT priority, count(*) AS n FROM temp.spare GROUP BY priority) AS gone
         WHERE unsent.sweep_n = ? AND unsent.priority = gone.priority",
    )
    .bind(sweep)
    .execute(&mut *connection)
    .await
    .doing("count what is not sent")?;
    add(connection, sweep, JOINED, i64::try_from(joined).unwrap_or(i64::MAX)).await
}

/// A job leaves the queue (−1), or comes back to it (1): for its own sweep and for those that joined.
pub(crate) async fn moved(connection: &mut SqliteConnection, job: JobId, by: i64) -> Result<(), StoreError> {
    for statement in [
        "UPDATE unsent SET n = max(n + ?2, 0) WHERE (sweep_n, priority) = (SELECT sweep_n, priority FROM jobs WHERE id = ?1)",
        "UPDATE unsent SET n = max(n + ?2, 0) WHERE priority = -1 AND sweep_n IN (SELECT sweep_n FROM joins WHERE job_id = ?1)",
    ] {
        sqlx::query(statement).bind(job.0).bind(by).execute(&mut *connection).await.doing("count what is not sent")?;
    }
    Ok(())
}

/// Queued jobs that a sweep joined, those after `after` up to `last`, are about to rise to its wish.
pub(crate) async fn rises(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    after: i64,
    last: i64,
) -> Result<(), StoreError> {
    let rising: Vec<(SweepRow, i64, i64, i64)> = sqlx::query_as(
        "SELECT jobs.sweep_n, jobs.priority, wish.priority, count(*)
         FROM joins AS wish CROSS JOIN jobs ON jobs.id = wish.job_id
         WHERE wish.sweep_n = ? AND wish.job_id > ? AND wish.job_id <= ?
           AND jobs.state = 'queued' AND wish.priority > jobs.priority GROUP BY 1, 2, 3",
    )
    .bind(sweep)
    .bind(after)
    .bind(last)
    .fetch_all(&mut *connection)
    .await
    .doing("count what rises")?;
    for (owner, from, to, n) in rising {
        add(connection, owner, from, -n).await?;
        add(connection, owner, to, n).await?;
    }
    Ok(())
}

/// A queued job goes from one sweep to another that had joined it, and which the first now joins.
pub(crate) async fn handed_over(
    connection: &mut SqliteConnection,
    job: i64,
    from: SweepRow,
    to: SweepRow,
) -> Result<(), StoreError> {
    let priority: i64 = sqlx::query_scalar("SELECT priority FROM jobs WHERE id = ?")
        .bind(job)
        .fetch_one(&mut *connection)
        .await
        .doing("read a job's priority")?;
    for (sweep, priority, by) in [(from, priority, -1), (to, priority, 1), (to, JOINED, -1), (from, JOINED, 1)] {
        add(connection, sweep, priority, by).await?;
    }
    Ok(())
}

/// A sweep has left all that it joined.
pub(crate) async fn left_all(connection: &mut SqliteConnection, sweep: SweepRow) -> Result<(), StoreError> {
    sqlx::query("UPDATE unsent SET n = 0 WHERE sweep_n = ? AND priority = -1")
        .bind(sweep)
        .execute(connection)
        .await
        .doing("count what is not sent")
        .map(drop)
}

impl View {
    /// What is not sent yet of a tenant's sweeps that are let go, oldest first. Those of which all is
    /// sent are left out.
    pub async fn unsent(&self, tenant: TenantRow) -> Result<Vec<UnsentSweep>, StoreError> {
        // The first of the two conditions is the index's.
        let rows = sqlx::query(
            "SELECT sweeps.n AS sweep, received_at, lowest_priority, latest_not_before, unsent.priority, unsent.n AS jobs
             FROM sweeps CROSS JOIN unsent ON unsent.sweep_n = sweeps.n
             WHERE tenant_id = ? AND state <> 'done' AND state = 'open' AND unsent.n > 0 ORDER BY sweeps.n",
        )
        .bind(tenant)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("read what is not sent")?;
        let mut sweeps: Vec<UnsentSweep> = Vec::new();
        for row in &rows {
            add_row(&mut sweeps, row).doing("read what is not sent")?;
        }
        Ok(sweeps)
    }
}

fn add_row(sweeps: &mut Vec<UnsentSweep>, row: &sqlx::sqlite::SqliteRow) -> Result<(), sqlx::Error> {
    let n = row.try_get("sweep")?;
    if sweeps.last().is_none_or(|last| last.n != n) {
        sweeps.push(UnsentSweep {
            n,
            received_at: Wall(row.try_get("received_at")?),
            own: BTreeMap::new(),
            joined: 0,
            lowest_priority: Priority::from_rank(row.try_get("lowest_priority")?),
            latest_not_before: row.try_get::<Option<i64>, _>("latest_not_before")?.map(Wall),
        });
    }
    let jobs = u64::try_from(row.try_get::<i64, _>("jobs")?).unwrap_or(0);
    let priority: i64 = row.try_get("priority")?;
    if let Some(sweep) = sweeps.last_mut() {
        if priority == JOINED {
            sweep.joined = jobs;
        } else {
            sweep.own.insert(Priority::from_rank(priority), jobs);
        }
    }
    Ok(())
}
