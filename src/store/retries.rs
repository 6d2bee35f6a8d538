//! Trying again what did not succeed: a new sweep of machines that an older one has jobs for.

use futures_util::TryStreamExt;
use serde_json::json;
use sqlx::Row;

use super::chunks::{add, release_some};
use super::events::{self, Kind, Subject};
use super::sweeps::{CHUNK, Chunk, Counts, NewJob, SweepRow};
use super::tenants::{Operator, TenantRow};
use super::{Doing, Store, StoreError, jobs, unasked, unsent};
use crate::domain::id::SweepId;
use crate::domain::job::State;
use crate::domain::sweep::{HoldAbove, Priority, Source};
use crate::domain::time::Wall;

/// A sweep that tries another one's machines again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Its id.
    pub id: SweepId,
    /// The sweep whose machines these are.
    pub of: SweepRow,
    /// Whose.
    pub tenant: TenantRow,
    /// What people call it.
    pub name: String,
    /// Above how many machines it is held, as a file is.
    pub hold_above: HoldAbove,
    /// Who gives the command.
    pub operator: Operator,
    /// When.
    pub at: Wall,
}

fn job_of(row: &sqlx::sqlite::SqliteRow, line: u64) -> Result<NewJob, sqlx::Error> {
    let comment: String = row.try_get("comment")?;
    Ok(NewJob {
        line,
        machine: jobs::machine_of(row.try_get("machine")?)?,
        name: row.try_get::<Option<String>, _>("name")?.map(Into::into),
        scan: jobs::word(row, "scan_type")?,
        priority: Priority::from_rank(row.try_get("priority")?),
        not_before: None,
        on_pending: jobs::word(row, "on_pending")?,
        comment: comment.into(),
    })
}

impl Store {
    /// What of a sweep ended in one of these states, and has not been scanned since: a later job of the
    /// machine that succeeded, with a scan at least as strong, takes it off the list. What ended never
    /// changes, so the list holds however long somebody thinks about it.
    pub async fn to_retry(&self, sweep: SweepRow, states: &[State]) -> Result<Vec<NewJob>, StoreError> {
        let words: Vec<_> = states.iter().filter(|state| state.is_final()).map(|state| state.as_str()).collect();
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query(
            "SELECT machine, name, scan_type, priority, on_pending, comment FROM jobs
             WHERE id IN (SELECT id FROM jobs WHERE sweep_n = ?1 UNION ALL SELECT job_id FROM joins WHERE sweep_n = ?1)
               AND state IN (SELECT value FROM json_each(?2))
               AND NOT EXISTS (SELECT 1 FROM jobs AS later
                               WHERE later.tenant_id = jobs.tenant_id AND later.machine = jobs.machine
                                 AND later.finished_at IS NOT NULL AND later.id > jobs.id AND later.state = 'succeeded'
                                 AND later.scan_type IN (jobs.scan_type, 'Full'))
             ORDER BY id",
        )
        .bind(sweep)
        .bind(json!(words).to_string())
        .fetch(&mut *reader);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await.doing("find what to try again")? {
            found.push(job_of(&row, found.len() as u64 + 1).doing("find what to try again")?);
        }
        Ok(found)
    }

    /// Queues a sweep of these machines, all of it or nothing: whoever interrupts the command finds either
    /// the whole sweep or none. Returns its counts, and why it is held, if it is.
    pub async fn retry_sweep(&self, retry: Retry, jobs: Vec<NewJob>) -> Result<(Counts, Option<String>), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                // There is no file, so none is to be put away.
                let sweep: SweepRow = sqlx::query_scalar(
                    "INSERT INTO sweeps (id, tenant_id, name, source, state, file, sha256, received_at, filed, retry_of)
                     VALUES (?, ?, ?, ?, 'taking', '', '', ?, 1, ?) RETURNING n",
                )
                .bind(retry.id.to_string())
                .bind(retry.tenant)
                .bind(&retry.name)
                .bind(Source::Retry.as_str())
                .bind(retry.at.0)
                .bind(retry.of)
                .fetch_one(&mut *connection)
                .await
                .doing("begin a retry")?;
                unsent::begin(connection, sweep).await?;
                let mut counts = Counts::default();
                for some in jobs.chunks(CHUNK) {
                    let chunk = Chunk { jobs: some.to_vec(), ..Chunk::default() };
                    let added = add(connection, retry.tenant, sweep, &chunk, retry.at).await?;
                    counts.lines += added.lines;
                    counts.queued += added.queued;
                    counts.joined += added.joined;
                    counts.duplicates += added.duplicates;
                }
                let asked = unasked::asked(connection, retry.tenant, sweep, retry.at).await?.alone;
                let why_held = retry.hold_above.why(asked.quick, asked.full, "");
                sqlx::query("UPDATE sweeps SET state = iif(?, 'held', 'open') WHERE n = ?")
                    .bind(why_held.is_some())
                    .bind(sweep)
                    .execute(&mut *connection)
                    .await
                    .doing("open a retry")?;
                let (counted, held) = (&counts, &why_held);
                let body = json!({ "sweep": sweep, "retry_of": retry.of, "counts": counted, "held": held, "by": retry.operator });
                events::append(connection, retry.at, Kind::SweepRetried, Subject::tenant(retry.tenant), &body).await?;
                let mut at = why_held.is_none().then_some((0, 0));
                while let Some(after) = at {
                    at = release_some(connection, sweep, after, retry.at).await?;
                }
                Ok((counts, why_held))
            })
        })
        .await
    }

    /// How many jobs of a sweep are in which state, those that it joined included.
    pub async fn states_of(&self, sweep: SweepRow) -> Result<Vec<(State, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT state, count(*) AS n FROM jobs
             WHERE id IN (SELECT id FROM jobs WHERE sweep_n = ?1 UNION ALL SELECT job_id FROM joins WHERE sweep_n = ?1)
             GROUP BY state",
        )
        .bind(sweep)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("count a sweep's jobs")?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok((jobs::word(row, "state")?, u64::try_from(row.try_get::<i64, _>("n")?).unwrap_or(0)))
        };
        let mut states: Vec<_> = rows.iter().map(read).collect::<Result<_, _>>().doing("count a sweep's jobs")?;
        states.sort();
        Ok(states)
    }
}
