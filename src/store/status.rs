//! What `status`, the metrics and the dashboard show: read at once, changed by nobody.

use std::collections::BTreeMap;

use sqlx::Row;

use super::jobs;
use super::slots::BudgetRow;
use super::tenants::{Pause, TenantRow, Waiting, pause_of};
use super::{Doing, StoreError, View};
use crate::domain::id::{SweepId, TenantName};
use crate::domain::job::State;
use crate::domain::time::Wall;

/// A tenant as it stands.
#[derive(Clone, Debug)]
pub struct TenantStatus {
    /// Its row.
    pub row: TenantRow,
    /// The budget of its app registration; none before its lane ran for the first time.
    pub budget: Option<BudgetRow>,
    /// Its name.
    pub name: TenantName,
    /// An operator's pause.
    pub pause: Option<Pause>,
    /// What its lane waits for.
    pub waiting: Waiting,
    /// Jobs that are kept, by state.
    pub jobs: BTreeMap<State, u64>,
    /// Since when every sign-in has failed.
    pub sign_in_fails_since: Option<Wall>,
    /// When the oldest queued job was made.
    pub oldest_queued: Option<Wall>,
}

/// Who asked for a sweep: what was seen of its file, apart from what that says of itself; and how long it is.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// Of the file as it was opened: its owner's `uid`, and once it is taken its `size`, `modified_at`, `changed_at`.
    pub observed: Option<serde_json::Value>,
    /// What the file says: `uid`, `login_uid`, `host`.
    pub claimed: Option<serde_json::Value>,
    /// Lines that the receipt counts.
    pub lines: i64,
    /// All lines of the file, once it is taken.
    pub physical_lines: Option<i64>,
}

/// A sweep as it stands.
#[derive(Clone, Debug)]
pub struct SweepStatus {
    /// Its row.
    pub n: i64,
    /// Its id.
    pub id: SweepId,
    /// Its name.
    pub name: String,
    /// Whose.
    pub tenant: TenantName,
    /// `file`, `submit`, `retry` or `schedule`.
    pub source: String,
    /// `taking`, `held`, `open` or `done`.
    pub state: String,
    /// Machines with a job.
    pub total: u64,
    /// Those whose job is not final.
    pub open: u64,
    /// When it was received.
    pub received_at: Wall,
    /// The sweep whose machines it tries again.
    pub retry_of: Option<SweepId>,
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn tenant_of(row: &sqlx::sqlite::SqliteRow) -> Result<TenantStatus, sqlx::Error> {
    Ok(TenantStatus {
        row: row.try_get("id")?,
        budget: row.try_get::<Option<i64>, _>("budget_id")?.map(BudgetRow),
        name: jobs::word(row, "name")?,
        pause: pause_of(row)?,
        waiting: Waiting {
            what: row.try_get("waiting_for")?,
            until: row.try_get::<Option<i64>, _>("waiting_until")?.map(Wall),
        },
        jobs: BTreeMap::new(),
        sign_in_fails_since: row.try_get::<Option<i64>, _>("sign_in_fails_since")?.map(Wall),
        oldest_queued: row.try_get::<Option<i64>, _>("oldest")?.map(Wall),
    })
}

pub(crate) fn sweep_of(row: &sqlx::sqlite::SqliteRow) -> Result<SweepStatus, sqlx::Error> {
    Ok(SweepStatus {
        n: row.try_get("n")?,
        id: jobs::word(row, "id")?,
        name: row.try_get("name")?,
        tenant: jobs::word(row, "tenant")?,
        source: row.try_get("source")?,
        state: row.try_get("state")?,
        total: unsigned(row.try_get("total")?),
        open: unsigned(row.try_get("open")?),
        received_at: Wall(row.try_get("received_at")?),
        retry_of: row.try_get::<Option<String>, _>("retry_of")?.and_then(|id| id.parse().ok()),
    })
}

const SWEEPS: &str =
    "SELECT sweeps.n, sweeps.id, sweeps.name, tenants.name AS tenant, source, state, queued + joined AS total,
     open, received_at, (SELECT id FROM sweeps AS first WHERE first.n = sweeps.retry_of) AS retry_of
     FROM sweeps JOIN tenants ON tenants.id = sweeps.tenant_id";

/// What finds sweeps by how their ids begin.
pub(super) fn sweeps_beginning() -> String {
    // What follows in an id is a hexadecimal digit or a dash; a tilde comes after all of them.
    format!("{SWEEPS} WHERE sweeps.id >= ?1 AND sweeps.id < ?1 || '~' ORDER BY sweeps.id")
}

/// Unknown words that are shown, and how much of each, in characters.
const MAX_UNKNOWN_WORDS: i64 = 5;
const MAX_WORD: i64 = 40;

/// What counts the actions of a tenant by a status that sweepd does not know: its own while they are followed, and
/// those of others since a time.
pub(super) const UNKNOWN_STATUSES: &str = "SELECT substr(status, 1, ?3), count(*) FROM actions
     WHERE tenant_id = ?1
         AND status NOT IN ('Pending', 'InProgress', 'Succeeded', 'Failed', 'TimeOut', 'Cancelled', 'Gone')
         AND iif(job_id IS NULL, first_seen_at > ?2,
                 (SELECT state FROM jobs WHERE jobs.id = actions.job_id) = 'accepted')
     GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?4";

impl View {
    /// Who asked for a sweep; nothing of one that has no file.
    pub async fn asker(&self, sweep: i64) -> Result<Asker, StoreError> {
        let (observed, claimed, lines, physical_lines): (_, _, _, Option<i64>) = sqlx::query_as(
            "SELECT coalesce(iif(json_valid(receipt), receipt ->> '$.observed', NULL),
                    iif(file_uid IS NULL, NULL, json_object('uid', file_uid))),
                iif(json_valid(receipt), receipt ->> '$.claimed', NULL),
                lines, iif(json_valid(receipt), receipt ->> '$.physical_lines', NULL)
             FROM sweeps WHERE n = ?",
        )
        .bind(sweep)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("read who asked for a sweep")?;
        let read = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Asker { observed: read(observed), claimed: read(claimed), lines, physical_lines })
    }

    /// How many actions have which status that sweepd does not know; of many words the most frequent.
    pub async fn unknown_statuses(&self, tenant: TenantRow, since: Wall) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(UNKNOWN_STATUSES)
            .bind(tenant)
            .bind(since.0)
            .bind(MAX_WORD)
            .bind(MAX_UNKNOWN_WORDS)
            .fetch_all(&mut *self.reader().await?)
            .await
            .doing("count actions of an unknown status")?;
        Ok(rows.into_iter().map(|(word, n)| (word, unsigned(n))).collect())
    }

    /// All tenants that the database knows.
    pub async fn tenants_status(&self) -> Result<Vec<TenantStatus>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT id, budget_id, name, paused_at, paused_reason, paused_by, paused_until, waiting_for, waiting_until,
                 sign_in_fails_since,
                 (SELECT min((SELECT created_at FROM jobs
                              WHERE tenant_id = tenants.id AND state = 'queued' AND parked_until IS NULL
                                AND priority = value ORDER BY id LIMIT 1)) FROM json_each('[0, 1, 2, 3]')) AS oldest
             FROM tenants ORDER BY name",
        )
        .fetch_all(&mut *reader)
        .await
        .doing("read the tenants")?;
        let mut tenants: Vec<TenantStatus> =
            rows.iter().map(tenant_of).collect::<Result<_, _>>().doing("read the tenants")?;
        let counts = sqlx::query("SELECT tenant_id, state, n FROM job_counts")
            .fetch_all(&mut *reader)
            .await
            .doing("count the jobs")?;
        for row in &counts {
            let read = || Ok((row.try_get("tenant_id")?, jobs::word(row, "state")?, row.try_get("n")?));
            let (tenant, state, n): (TenantRow, State, i64) = read().doing("count the jobs")?;
            if let Some(found) = tenants.iter_mut().find(|found| found.row == tenant) {
                found.jobs.insert(state, unsigned(n));
            }
        }
        Ok(tenants)
    }

    /// Sweeps that are not finished, oldest first.
    pub async fn unfinished_sweeps(&self) -> Result<Vec<SweepStatus>, StoreError> {
        self.sweeps(&format!("{SWEEPS} WHERE state <> 'done' ORDER BY n"), None, -1).await
    }

    /// All sweeps that are kept, newest first.
    pub async fn all_sweeps(&self) -> Result<Vec<SweepStatus>, StoreError> {
        self.sweeps(&format!("{SWEEPS} ORDER BY n DESC"), None, -1).await
    }

    /// Sweeps whose id begins so, in the order of their ids, `most` at most. Of any number no other is read.
    pub async fn sweeps_beginning(&self, beginning: &str, most: usize) -> Result<Vec<SweepStatus>, StoreError> {
        self.sweeps(&sweeps_beginning(), Some(beginning), i64::try_from(most).unwrap_or(i64::MAX)).await
    }

    /// Finished sweeps whose results are not written yet.
    pub async fn sweeps_to_report(&self) -> Result<Vec<SweepStatus>, StoreError> {
        self.sweeps(&format!("{SWEEPS} WHERE state = 'done' AND reported = 0 AND filed = 1 ORDER BY n"), None, -1).await
    }

    async fn sweeps(
        &self,
        statement: &str,
        beginning: Option<&str>,
        most: i64,
    ) -> Result<Vec<SweepStatus>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{statement} LIMIT ?2")))
            .bind(beginning)
            .bind(most)
            .fetch_all(&mut *self.reader().await?)
            .await
            .doing("list sweeps")?;
        rows.iter().map(sweep_of).collect::<Result<_, _>>().doing("list sweeps")
    }
}
