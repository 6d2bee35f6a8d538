//! Jobs: how one moves, and everything that has to move with it.

use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::events::{self, Kind, Subject};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, unsent, withdrawals};
use crate::domain::id::{JobId, MachineId};
use crate::domain::job::{self, Event, Reason, State};
use crate::domain::order::{self, Candidate};
use crate::domain::sweep::{OnPending, Priority, ScanType};
use crate::domain::time::Wall;

/// A job as the engine needs it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its row.
    pub id: JobId,
    /// Its tenant's row.
    pub tenant: TenantRow,
    /// What is to be scanned.
    pub machine: MachineId,
    /// How.
    pub scan: ScanType,
    /// Where it stands.
    pub state: State,
    /// What to do if the machine is busy.
    pub on_pending: OnPending,
    /// The operator's words, without the mark.
    pub comment: String,
    /// Attempts that count.
    pub attempts: u32,
    /// The action that it follows.
    pub action: Option<String>,
}

/// What comes with a move.
#[derive(Clone, Debug, Default)]
pub struct With {
    /// Why, if the new state wants a reason.
    pub reason: Option<Reason>,
    /// More than the reason says.
    pub detail: Option<String>,
    /// The action to follow from now on.
    pub action: Option<String>,
    /// The action that is in the way.
    pub blocked_by: Option<String>,
    /// Not ready before.
    pub parked_until: Option<Wall>,
    /// Added to the attempts that count.
    pub attempts: i64,
}

const COLUMNS: &str = "id, tenant_id, machine, scan_type, state, on_pending, comment, attempts, action_id";

pub(crate) fn machine_of(bytes: Vec<u8>) -> Result<MachineId, sqlx::Error> {
    bytes
        .try_into()
        .map(MachineId::from_bytes)
        .map_err(|bytes: Vec<u8>| sqlx::Error::Decode(format!("a machine id of {} bytes", bytes.len()).into()))
}

/// Reads a word of the contract from a column.
pub(crate) fn word<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &sqlx::sqlite::SqliteRow,
    column: &str,
) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|error: T::Err| sqlx::Error::Decode(Box::new(error)))
}

pub(crate) fn job_of(row: &sqlx::sqlite::SqliteRow) -> Result<Job, sqlx::Error> {
    Ok(Job {
        id: JobId(row.try_get("id")?),
        tenant: row.try_get("tenant_id")?,
        machine: machine_of(row.try_get("machine")?)?,
        scan: word(row, "scan_type")?,
        state: word(row, "state")?,
        on_pending: word(row, "on_pending")?,
        comment: row.try_get("comment")?,
        attempts: row.try_get("attempts")?,
        action: row.try_get("action_id")?,
    })
}

/// The job with this id.
pub(crate) async fn find(connection: &mut SqliteConnection, id: JobId) -> Result<Job, StoreError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM jobs WHERE id = ?")))
        .bind(id.0)
        .fetch_one(connection)
        .await
        .doing("find a job")?;
    job_of(&row).doing("read a job")
}

/// The statement that finds the oldest ready job of each priority: four steps down an index.
pub(crate) fn oldest_ready() -> String {
    let of = |priority: &Priority| {
        let rank = priority.rank();
        format!(
            "(SELECT id FROM jobs WHERE tenant_id = ?1 AND state = 'queued' AND parked_until IS NULL
                 AND priority = {rank} ORDER BY id LIMIT 1)"
        )
    };
    let oldest: Vec<_> = Priority::ALL.iter().map(of).collect();
    format!("SELECT {COLUMNS}, priority, created_at FROM jobs WHERE id IN ({})", oldest.join(", "))
}

/// The next job that is ready: by priority, which waiting raises, then by age. Looks at the oldest
/// of each priority, however long the queue is.
pub(crate) async fn next_ready(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    rise_after: Duration,
    now: Wall,
) -> Result<Option<Job>, StoreError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(oldest_ready()))
        .bind(tenant)
        .fetch_all(connection)
        .await
        .doing("find the next job")?;
    let candidate = |row: &sqlx::sqlite::SqliteRow| {
        let priority = Priority::from_rank(row.try_get("priority")?);
        Ok(Candidate { job: JobId(row.try_get("id")?), priority, since: Wall(row.try_get("created_at")?) })
    };
    let candidates = rows.iter().map(candidate).collect::<Result<Vec<_>, _>>().doing("read a job")?;
    let next = order::first(&candidates, rise_after, now);
    let row = rows.iter().zip(&candidates).find(|(_, candidate)| Some(candidate.job) == next);
    row.map(|(row, _)| job_of(row)).transpose().doing("read a job")
}

/// The job by which a lane that is held is probed: one that was not asked yet, from the far end of the queue,
/// else the one that came back first. What one machine meets for ever must not be taken for what all meet, and
/// machines that stand together in a list are often alike.
pub(crate) async fn next_probe(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
) -> Result<Option<Job>, StoreError> {
    for (which, order) in [
        ("AND NOT EXISTS (SELECT 1 FROM attempts WHERE job_id = jobs.id)", "priority, id DESC"),
        ("", "updated_at, id"),
    ] {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM jobs WHERE tenant_id = ? AND state = 'queued' AND parked_until IS NULL {which}
             ORDER BY {order} LIMIT 1"
        )))
        .bind(tenant)
        .fetch_optional(&mut *connection)
        .await
        .doing("find a job to probe with")?;
        if let Some(row) = row {
            return job_of(&row).map(Some).doing("read a job");
        }
    }
    Ok(None)
}

/// Moves a job, and with it the counts, the sweeps it belongs to, and the record.
///
/// Guarded by the state the job was read in: exactly one row is touched, or nothing is written.
pub(crate) async fn apply(
    connection: &mut SqliteConnection,
    job: &Job,
    event: Event,
    with: With,
    at: Wall,
) -> Result<State, StoreError> {
    let state =
        job::next(job.state, event).map_err(|impossible| StoreError::Guard(format!("job {}: {impossible}", job.id)))?;
    let touched = sqlx::query(
        "UPDATE jobs SET state = ?1, reason = ?2, detail = ?11, action_id = coalesce(?3, action_id), blocked_by = ?4,
             parked_until = ?5, attempts = max(attempts + ?6, 0), updated_at = ?7, finished_at = ?8
         WHERE id = ?9 AND state = ?10",
    )
    .bind(state.as_str())
    .bind(with.reason.map(Reason::as_str))
    .bind(&with.action)
    .bind(&with.blocked_by)
    .bind(with.parked_until.map(|at| at.0))
    .bind(with.attempts)
    .bind(at.0)
    .bind(state.is_final().then_some(at.0))
    .bind(job.id.0)
    .bind(job.state.as_str())
    .bind(&with.detail)
    .execute(&mut *connection)
    .await
    .doing("move a job")?
    .rows_affected();
    if touched != 1 {
        return Err(StoreError::Guard(format!("job {} is not {} any more", job.id, job.state)));
    }
    if state != job.state {
        count(connection, job.tenant, job.state, -1).await?;
        count(connection, job.tenant, state, 1).await?;
        if job.state == State::Queued || state == State::Queued {
            unsent::moved(connection, job.id, if state == State::Queued { 1 } else { -1 }).await?;
        }
        // Attempts and answers have events of their own; this one tells what became of the job.
        if state.is_final() || state == State::Accepted {
            let body = serde_json::json!({
                "from": job.state.as_str(), "to": state.as_str(), "reason": with.reason.map(Reason::as_str),
                "detail": with.detail,
                "action": with.action, "blocked_by": with.blocked_by,
            });
            let subject = Subject { tenant: Some(job.tenant), job: Some(job.id), machine: Some(job.machine) };
            events::append(connection, at, Kind::JobMoved, subject, &body).await?;
        }
    }
    if state.is_final() {
        close(connection, job, at).await?;
    }
    if job.state == State::Sending {
        let moved = Job { state, action: with.action.or_else(|| job.action.clone()), ..job.clone() };
        return Box::pin(withdrawals::come_home(connection, &moved, at)).await;
    }
    Ok(state)
}

/// Adds to the number of jobs in a state.
pub(crate) async fn count(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    state: State,
    by: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO job_counts (tenant_id, state, n) VALUES (?1, ?2, max(?3, 0))
         ON CONFLICT (tenant_id, state) DO UPDATE SET n = n + ?3",
    )
    .bind(tenant)
    .bind(state.as_str())
    .bind(by)
    .execute(connection)
    .await
    .doing("count jobs")
    .map(drop)
}

/// A job has ended: its machine is free for the next one, its sweeps have one job less to wait for.
async fn close(connection: &mut SqliteConnection, job: &Job, at: Wall) -> Result<(), StoreError> {
    // While a long file is taken, a job may be there that is not the open one.
    sqlx::query("DELETE FROM open_jobs WHERE tenant_id = ? AND machine = ? AND scan_type = ? AND job_id = ?")
        .bind(job.tenant)
        .bind(job.machine.bytes().to_vec())
        .bind(job.scan.as_str())
        .bind(job.id.0)
        .execute(&mut *connection)
        .await
        .doing("close a job")?;
    sqlx::query(
        "UPDATE sweeps SET open = open - 1
         WHERE n = (SELECT sweep_n FROM jobs WHERE id = ?1) OR n IN (SELECT sweep_n FROM joins WHERE job_id = ?1)",
    )
    .bind(job.id.0)
    .execute(&mut *connection)
    .await
    .doing("count down a job's sweeps")?;
    let done: Vec<i64> = sqlx::query_scalar(
        "UPDATE sweeps SET state = 'done', finished_at = ?2
         WHERE open = 0 AND state = 'open'
           AND (n = (SELECT sweep_n FROM jobs WHERE id = ?1) OR n IN (SELECT sweep_n FROM joins WHERE job_id = ?1))
         RETURNING n",
    )
    .bind(job.id.0)
    .bind(at.0)
    .fetch_all(&mut *connection)
    .await
    .doing("finish a job's sweeps")?;
    for n in done {
        let body = serde_json::json!({ "sweep": n });
        events::append(connection, at, Kind::SweepFinished, Subject::tenant(job.tenant), &body).await?;
    }
    Ok(())
}

impl Store {
    /// Whether a job is ready to be sent.
    pub async fn has_ready(&self, tenant: TenantRow) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE tenant_id = ? AND state = 'queued' AND parked_until IS NULL)",
        )
        .bind(tenant)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("look for a ready job")
    }

    /// Makes ready what was parked until now. Returns how many jobs.
    pub async fn unpark_due(&self, tenant: TenantRow, now: Wall) -> Result<u64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE jobs SET parked_until = NULL, blocked_by = NULL, updated_at = ?2
                     WHERE id IN (SELECT id FROM jobs WHERE tenant_id = ?1 AND state = 'queued'
                                  AND parked_until <= ?2 ORDER BY parked_until LIMIT 5000)",
                )
                .bind(tenant)
                .bind(now.0)
                .execute(connection)
                .await
                .doing("make parked jobs ready")
                .map(|done| done.rows_affected())
            })
        })
        .await
    }

    /// Makes ready what waits for something else than its own time, whatever its parking says: the wall
    /// clock was set back. It is judged anew before it is sent.
    pub async fn release_parks(&self, tenant: TenantRow, now: Wall) -> Result<(), StoreError> {
        loop {
            let released = self.write(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE jobs SET parked_until = iif(not_before > ?2, not_before, NULL), blocked_by = NULL,
                             updated_at = ?2
                         WHERE id IN (SELECT id FROM jobs WHERE tenant_id = ?1 AND state = 'queued'
                                          AND parked_until < 9223372036854775807
                                          AND (not_before IS NULL OR parked_until <> not_before) LIMIT 5000)",
                    )
                    .bind(tenant)
                    .bind(now.0)
                    .execute(connection)
                    .await
                    .doing("release what is parked")
                    .map(|done| done.rows_affected())
                })
            });
            if released.await? == 0 {
                return Ok(());
            }
        }
    }

    /// When the next parked job becomes ready, if any is parked; those of held sweeps do not count.
    pub async fn next_parked(&self, tenant: TenantRow) -> Result<Option<Wall>, StoreError> {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT min(parked_until) FROM jobs
             WHERE tenant_id = ? AND state = 'queued' AND parked_until IS NOT NULL AND parked_until < 9223372036854775807",
        )
        .bind(tenant)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("find the next parked job")?;
        Ok(at.map(Wall))
    }
}
