//! Taking a sweep back: what is queued of it ends, unless another sweep asked for it too.
//!
//! A job belongs to the sweep that made it, and counts in those that joined. When its own sweep is
//! withdrawn, one that joined inherits it: what somebody else asked for is not theirs to cancel.

use sqlx::{Row, SqliteConnection};

use super::cancellations::{self, Wish};
use super::events::{self, Kind, Subject};
use super::jobs::{self, Job, With};
use super::sweeps::{CHUNK, SweepRow};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, unsent};
use crate::domain::id::JobId;
use crate::domain::job::{Event, Reason, State};
use crate::domain::time::Wall;

/// What an operator's cancelling of a sweep comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Extent {
    /// Jobs of its own that are queued and wanted by no other sweep: they end.
    pub queued: u64,
    /// Jobs that are queued, and go on since another sweep wants them.
    pub shared: u64,
    /// Calls on the wire, or being looked up: what had no effect ends.
    pub sending: u64,
    /// Scans that Defender has accepted: they go on, unless it is asked to cancel them.
    pub accepted: u64,
    /// Those of them that are its own and wanted by no other sweep.
    pub accepted_alone: u64,
}

impl Store {
    /// What cancelling a sweep would come to now.
    pub async fn extent(&self, sweep: SweepRow) -> Result<Extent, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE state = 'queued' AND own AND NOT shared) AS queued,
                 count(*) FILTER (WHERE state = 'queued' AND (shared OR NOT own)) AS shared,
                 count(*) FILTER (WHERE state = 'sending') AS sending,
                 count(*) FILTER (WHERE state = 'accepted') AS accepted,
                 count(*) FILTER (WHERE state = 'accepted' AND own AND NOT shared) AS accepted_alone
             FROM (SELECT state, sweep_n = ?1 AS own,
                       EXISTS (SELECT 1 FROM joins WHERE job_id = jobs.id AND sweep_n <> ?1 AND priority >= 0) AS shared
                   FROM jobs WHERE finished_at IS NULL
                     AND id IN (SELECT id FROM jobs WHERE sweep_n = ?1 UNION ALL SELECT job_id FROM joins WHERE sweep_n = ?1))",
        )
        .bind(sweep)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("count what cancelling comes to")?;
        let number = |column| row.try_get::<i64, _>(column).map(|n| u64::try_from(n).unwrap_or(0));
        let read = || {
            Ok(Extent {
                queued: number("queued")?,
                shared: number("shared")?,
                sending: number("sending")?,
                accepted: number("accepted")?,
                accepted_alone: number("accepted_alone")?,
            })
        };
        read().doing("count what cancelling comes to")
    }

    /// An operator cancels a sweep: what is queued of it is withdrawn, and so will be whose call is on the wire,
    /// if that has no effect; `actions` says whether what it did is to be cancelled. The command is on record
    /// before the first job moves; should it be interrupted, giving it again does the rest. Returns how many
    /// jobs were withdrawn at once.
    pub async fn cancel_sweep(
        &self,
        sweep: SweepRow,
        tenant: TenantRow,
        wish: Wish,
        actions: bool,
    ) -> Result<u64, StoreError> {
        let body = serde_json::json!({ "sweep": sweep, "by": wish.operator });
        let at = wish.at;
        self.record(at, Kind::SweepCancelled, Subject::tenant(tenant), body).await?;
        let wish = actions.then(|| serde_json::json!(wish).to_string());
        self.write(move |connection| Box::pin(async move { await_calls(connection, sweep, wish).await })).await?;
        self.withdraw(sweep, at).await
    }

    /// Withdraws what is still queued of a sweep and wanted by no other. Returns how many jobs.
    pub async fn withdraw(&self, sweep: SweepRow, at: Wall) -> Result<u64, StoreError> {
        let mut after = Some(0);
        while let Some(job) = after {
            after = self
                .write_rows(CHUNK, move |connection| {
                    Box::pin(async move { wish_nothing(connection, sweep, job).await })
                })
                .await?;
        }
        while self.write(move |connection| Box::pin(async move { hand_over_some(connection, sweep).await })).await? > 0
        {
        }
        let mut withdrawn = 0;
        loop {
            let n = self
                .write(move |connection| Box::pin(async move { withdraw_some(connection, sweep, at).await }))
                .await?;
            withdrawn += n;
            if n == 0 {
                break;
            }
        }
        self.write(move |connection| Box::pin(async move { hold_no_more(connection, sweep, at).await })).await?;
        Ok(withdrawn)
    }

    /// Gives a sweep up whose file cannot be read to its end: what was queued of it is withdrawn.
    /// Returns how many jobs.
    pub async fn abandon_sweep(&self, sweep: SweepRow, at: Wall) -> Result<u64, StoreError> {
        let withdrawn = self.withdraw(sweep, at).await?;
        // What it joined goes on without it. The last of it goes with the sweep's end.
        let leave = "DELETE FROM joins WHERE sweep_n = ?1 AND job_id IN (
                         SELECT job_id FROM joins WHERE sweep_n = ?1 ORDER BY job_id LIMIT 2000)";
        let mut left = CHUNK as u64;
        while left == CHUNK as u64 {
            left = self
                .write_rows(CHUNK, move |connection| {
                    Box::pin(async move {
                        let left = sqlx::query(leave).bind(sweep).execute(connection).await;
                        left.doing("leave joined jobs").map(|left| left.rows_affected())
                    })
                })
                .await?;
        }
        self.write(move |connection| {
            Box::pin(async move {
                // Jobs of others that it joined go on without it.
                sqlx::query("DELETE FROM joins WHERE sweep_n = ?")
                    .bind(sweep)
                    .execute(&mut *connection)
                    .await
                    .doing("leave joined jobs")?;
                unsent::left_all(connection, sweep).await?;
                // Its own may have been sent, since another sweep had joined them.
                sqlx::query(
                    "UPDATE sweeps SET state = iif(own.open = 0, 'done', 'open'),
                         finished_at = iif(own.open = 0, ?1, NULL), open = own.open, filed = 1, reported = 1, released = 1
                     FROM (SELECT count(*) AS open FROM jobs WHERE sweep_n = ?2 AND finished_at IS NULL) AS own
                     WHERE n = ?2 AND state = 'taking'",
                )
                .bind(at.0)
                .bind(sweep)
                .execute(connection)
                .await
                .doing("abandon a sweep")
                .map(drop)
            })
        })
        .await?;
        Ok(withdrawn)
    }
}

/// Notes the calls on the wire that only this sweep wants.
async fn await_calls(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    wish: Option<String>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO withdrawn (job_id, wish) SELECT id, ?2 FROM jobs WHERE sweep_n = ?1 AND state = 'sending'
         ON CONFLICT DO UPDATE SET wish = coalesce(excluded.wish, wish)",
    )
    .bind(sweep)
    .bind(wish)
    .execute(connection)
    .await
    .doing("withdraw calls on the wire")
    .map(drop)
}

/// What becomes of a job whose call is not on the wire any more, if an operator withdrew it meanwhile and nobody
/// else wants it. Returns its state.
pub(crate) async fn come_home(connection: &mut SqliteConnection, job: &Job, at: Wall) -> Result<State, StoreError> {
    let withdrawn: Option<(Option<String>, bool)> = sqlx::query_as(
        "DELETE FROM withdrawn WHERE job_id = ?1 RETURNING wish, EXISTS (
             SELECT 1 FROM joins JOIN jobs ON jobs.id = joins.job_id
             WHERE joins.job_id = ?1 AND joins.sweep_n <> jobs.sweep_n AND joins.priority >= 0)",
    )
    .bind(job.id.0)
    .fetch_optional(&mut *connection)
    .await
    .doing("look whether a job was withdrawn")?;
    let Some((wish, false)) = withdrawn else { return Ok(job.state) };
    match (job.state, &job.action, wish) {
        (State::Queued, ..) => {
            let why = With { reason: Some(Reason::Withdrawn), ..With::default() };
            jobs::apply(connection, job, Event::Withdrawn, why, at).await
        }
        (State::Accepted, Some(action), Some(wish)) => {
            let wish: Wish = serde_json::from_str(&wish).map_err(|error| StoreError::Guard(error.to_string()))?;
            cancellations::wish(connection, job.tenant, action, &Wish { at, ..wish }).await?;
            Ok(job.state)
        }
        _ => Ok(job.state),
    }
}

/// The rank of a wish that was withdrawn: the job still counts in the sweep, which cannot inherit it.
const NO_WISH: i64 = -1;

/// Takes back the wishes for the next of the jobs that a sweep joined. Returns where to go on, `None` at the end.
async fn wish_nothing(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    after: i64,
) -> Result<Option<i64>, StoreError> {
    let last: Option<i64> = sqlx::query_scalar(
        "SELECT max(job_id) FROM (SELECT job_id FROM joins WHERE sweep_n = ? AND job_id > ? ORDER BY job_id LIMIT 2000)",
    )
    .bind(sweep)
    .bind(after)
    .fetch_one(&mut *connection)
    .await
    .doing("find wishes to withdraw")?;
    sqlx::query("UPDATE joins SET priority = ?, not_before = NULL WHERE sweep_n = ? AND job_id > ? AND job_id <= ?")
        .bind(NO_WISH)
        .bind(sweep)
        .bind(after)
        .bind(last)
        .execute(connection)
        .await
        .doing("withdraw wishes")?;
    Ok(last)
}

/// Lets sweeps that joined inherit jobs, those first that are under way. Returns how many.
async fn hand_over_some(connection: &mut SqliteConnection, sweep: SweepRow) -> Result<usize, StoreError> {
    let heirs = sqlx::query(
        "SELECT jobs.id, wish.sweep_n, wish.not_before, heir.state IN ('open', 'done') AS released
         FROM jobs JOIN joins AS wish ON wish.job_id = jobs.id AND wish.priority >= 0
             JOIN sweeps AS heir ON heir.n = wish.sweep_n
         WHERE jobs.sweep_n = ? AND jobs.state = 'queued' ORDER BY jobs.id, released DESC, heir.n LIMIT 100",
    )
    .bind(sweep)
    .fetch_all(&mut *connection)
    .await
    .doing("find who inherits")?;
    let mut last = None;
    for row in &heirs {
        let read =
            || Ok((row.try_get("id")?, row.try_get("sweep_n")?, row.try_get("not_before")?, row.try_get("released")?));
        let (job, heir, not_before, released): (i64, SweepRow, Option<i64>, bool) =
            read().doing("read who inherits")?;
        if last.replace(job) != Some(job) {
            hand_over(connection, sweep, job, heir, not_before, released).await?;
        }
    }
    Ok(heirs.len())
}

async fn hand_over(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    job: i64,
    heir: SweepRow,
    not_before: Option<i64>,
    released: bool,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM joins WHERE sweep_n = ? AND job_id = ?")
        .bind(heir)
        .bind(job)
        .execute(&mut *connection)
        .await
        .doing("inherit a job")?;
    sqlx::query("INSERT INTO joins (sweep_n, job_id, priority) VALUES (?, ?, ?)")
        .bind(sweep)
        .bind(job)
        .bind(NO_WISH)
        .execute(&mut *connection)
        .await
        .doing("inherit a job")?;
    // Hidden again, when nobody but a held sweep wants it.
    sqlx::query(
        "UPDATE jobs SET sweep_n = ?1, not_before = ?2,
             parked_until = iif(?3, iif(parked_until = 9223372036854775807, ?2, parked_until), 9223372036854775807),
             blocked_by = iif(?3, blocked_by, NULL)
         WHERE id = ?4",
    )
    .bind(heir)
    .bind(not_before)
    .bind(released)
    .bind(job)
    .execute(&mut *connection)
    .await
    .doing("inherit a job")?;
    unsent::handed_over(connection, job, sweep, heir).await
}

async fn withdraw_some(connection: &mut SqliteConnection, sweep: SweepRow, at: Wall) -> Result<u64, StoreError> {
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM jobs WHERE sweep_n = ? AND state = 'queued' LIMIT 100")
        .bind(sweep)
        .fetch_all(&mut *connection)
        .await
        .doing("find what to withdraw")?;
    for id in &ids {
        let job = jobs::find(connection, JobId(*id)).await?;
        let with = With { reason: Some(Reason::Withdrawn), ..With::default() };
        jobs::apply(connection, &job, Event::Withdrawn, with, at).await?;
    }
    Ok(ids.len() as u64)
}

/// A held sweep that is withdrawn waits for nobody's release.
async fn hold_no_more(connection: &mut SqliteConnection, sweep: SweepRow, at: Wall) -> Result<(), StoreError> {
    let done: Option<(bool, TenantRow)> = sqlx::query_as(
        "UPDATE sweeps SET state = iif(open = 0, 'done', 'open'), finished_at = iif(open = 0, ?1, NULL), released = 1
         WHERE n = ?2 AND state = 'held' RETURNING open = 0, tenant_id",
    )
    .bind(at.0)
    .bind(sweep)
    .fetch_optional(&mut *connection)
    .await
    .doing("end the holding of a sweep")?;
    if let Some((true, tenant)) = done {
        let body = serde_json::json!({ "sweep": sweep });
        events::append(connection, at, Kind::SweepFinished, Subject::tenant(tenant), &body).await?;
    }
    Ok(())
}
