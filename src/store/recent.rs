//! What happened lately, for whoever watches: calls minute by minute, jobs that ended, and what nobody has decided.

use serde_json::json;
use sqlx::Row;

use super::jobs;
use super::slots::BudgetRow;
use super::tenants::TenantRow;
use super::{Doing, StoreError, View};
use crate::domain::id::TenantName;
use crate::domain::job::State;
use crate::domain::ledger::CallKind;
use crate::domain::time::{Boot, Wall};

/// So many minutes of calls are told: for each of the last sixty, the hour before it can be added up.
pub const MINUTES: usize = 120;

/// More undecided machines than this are not counted: it is too many in any case.
const UNDECIDED_AT_MOST: i64 = 10_000;

/// What counts them: by machine, so that where it looks next is beside where it looked last.
pub(super) const UNDECIDED: &str = "SELECT count(*) FROM (
     SELECT 1 FROM jobs WHERE tenant_id = ?1 AND state = 'needs_review'
         AND NOT EXISTS (SELECT 1 FROM open_jobs AS again WHERE again.tenant_id = ?1
                         AND again.machine = jobs.machine AND again.scan_type = jobs.scan_type)
         AND NOT EXISTS (SELECT 1 FROM jobs AS again WHERE again.tenant_id = ?1
                         AND again.machine = jobs.machine AND again.finished_at IS NOT NULL
                         AND again.scan_type = jobs.scan_type AND again.id > jobs.id)
     LIMIT ?2)";

const MINUTE_MS: i64 = 60_000;

/// Jobs of a tenant that ended alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub state: State,
    /// Why, where the state has a reason.
    pub reason: Option<String>,
    /// How many.
    pub jobs: u64,
    /// When the last of them did.
    pub last_at: Wall,
    /// The last of them.
    pub last_job: i64,
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

impl View {
    /// Calls of a kind in each of the last [`MINUTES`] minutes of the boot clock, by when they settled, as the ledger
    /// counts them; the last is the running one, which has the calls on the wire too.
    pub async fn calls_by_minute(&self, budget: BudgetRow, kind: CallKind, now: Boot) -> Result<Vec<u32>, StoreError> {
        let running = now.0.div_euclid(MINUTE_MS);
        let first = running - i64::try_from(MINUTES).unwrap_or(i64::MAX) + 1;
        let rows = sqlx::query(
            "SELECT min(settles_boot, ?3) / ?4 AS minute, count(*) AS n FROM slots
             WHERE budget_id = ?1 AND kind = ?2 AND settles_boot >= ?5 GROUP BY 1",
        )
        .bind(budget.0)
        .bind(kind.as_str())
        .bind(now.0)
        .bind(MINUTE_MS)
        .bind(first * MINUTE_MS)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("count calls by the minute")?;
        let mut minutes = vec![0; MINUTES];
        for row in &rows {
            let read = || Ok((row.try_get("minute")?, row.try_get("n")?));
            let (minute, n): (i64, u32) = read().doing("count calls by the minute")?;
            if let Some(place) = usize::try_from(minute - first).ok().and_then(|at| minutes.get_mut(at)) {
                *place = n;
            }
        }
        Ok(minutes)
    }

    /// The jobs of a tenant that ended in one of these states since then, by state and reason, most first.
    pub async fn ended_since(
        &self,
        tenant: TenantRow,
        states: &[State],
        since: Wall,
    ) -> Result<Vec<Ended>, StoreError> {
        let states = json!(states.iter().map(|state| state.as_str()).collect::<Vec<_>>()).to_string();
        let rows = sqlx::query(
            // Of a bare column beside max() SQLite takes the row that has it.
            "SELECT state, reason, count(*) AS n, max(finished_at) AS last_at, id FROM jobs
             WHERE tenant_id = ?1 AND state IN (SELECT value FROM json_each(?2)) AND finished_at > ?3
             GROUP BY state, reason ORDER BY n DESC, state, reason",
        )
        .bind(tenant)
        .bind(states)
        .bind(since.0)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("count what ended lately")?;
        let ended = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Ended {
                state: jobs::word(row, "state")?,
                reason: row.try_get("reason")?,
                jobs: unsigned(row.try_get("n")?),
                last_at: Wall(row.try_get("last_at")?),
                last_job: row.try_get("id")?,
            })
        };
        rows.iter().map(ended).collect::<Result<_, _>>().doing("count what ended lately")
    }

    /// The jobs of a tenant that ended in this state last and since then, newest first: when, and which.
    pub async fn last_ended(
        &self,
        tenant: TenantRow,
        state: State,
        since: Wall,
        most: usize,
    ) -> Result<Vec<(Wall, i64)>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT finished_at, id FROM jobs WHERE tenant_id = ? AND state = ? AND finished_at > ?
             ORDER BY finished_at DESC LIMIT ?",
        )
        .bind(tenant)
        .bind(state.as_str())
        .bind(since.0)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("list what ended last")?;
        Ok(rows.into_iter().map(|(at, job)| (Wall(at), job)).collect())
    }

    /// Machines of a tenant whose last job needs review, and which nobody has asked for again since.
    pub async fn undecided(&self, tenant: TenantRow) -> Result<u64, StoreError> {
        sqlx::query_scalar(UNDECIDED)
            .bind(tenant)
            .bind(UNDECIDED_AT_MOST)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("count what nobody has decided")
            .map(unsigned)
    }

    /// How many machines of each tenant wait to be sent, or are being sent; those of held sweeps do not count.
    pub async fn unsent_by_tenant(&self) -> Result<Vec<(TenantName, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT name, coalesce((SELECT sum(n) FROM job_counts WHERE tenant_id = tenants.id
                                    AND state IN ('queued', 'sending')), 0)
                 - coalesce((SELECT sum(unsent.n) FROM sweeps JOIN unsent ON unsent.sweep_n = sweeps.n
                             WHERE sweeps.tenant_id = tenants.id AND sweeps.state = 'held'
                               AND unsent.priority >= 0), 0) AS n FROM tenants",
        )
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("measure the queues")?;
        let read = |row: &sqlx::sqlite::SqliteRow| Ok((jobs::word(row, "name")?, unsigned(row.try_get("n")?)));
        rows.iter().map(read).collect::<Result<_, _>>().doing("measure the queues")
    }
}
