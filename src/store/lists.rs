//! Jobs and actions as the command line and the result files list them: streamed, never cut.

use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::Row;

use super::jobs::machine_of;
use super::{Doing, StoreError, View};
use crate::domain::hresult;
use crate::domain::id::{MachineId, TenantName};
use crate::domain::sweep::Priority;
use crate::domain::time::Wall;

/// Which rows are wanted; everything when nothing is set.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of one tenant.
    pub tenant: Option<TenantName>,
    /// Of one machine.
    pub machine: Option<MachineId>,
    /// In one state, or status.
    pub state: Option<String>,
    /// Of one sweep, by its row.
    pub sweep: Option<i64>,
    /// One row, by its id.
    pub id: Option<String>,
}

/// A job as `job list --json` prints it.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct JobLine {
    pub id: i64,
    pub machine_id: String,
    pub name: Option<String>,
    pub tenant: String,
    pub state: String,
    pub reason: Option<String>,
    /// More than the reason says: why a machine is not eligible.
    pub detail: Option<String>,
    pub scan_type: String,
    pub priority: String,
    pub attempts: i64,
    pub action_id: Option<String>,
    /// Who asked for its action, as Defender names them.
    pub requestor: Option<String>,
    /// What its action says of its error: in hex, with its meaning where known.
    pub error: Option<String>,
    pub blocked_by: Option<BlockedBy>,
    pub sweep_ids: Vec<String>,
    pub proof: String,
    pub proven_at: Option<String>,
    pub not_before: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub finished_at: Option<String>,
}

/// The action that a job waits for or was skipped for.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct BlockedBy {
    pub action_id: String,
    pub r#type: Option<String>,
    pub scope: Option<String>,
    pub requestor: Option<String>,
}

/// An action as `action list --json` prints it.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct ActionLine {
    pub action_id: String,
    pub tenant: String,
    pub machine_id: Option<String>,
    pub r#type: String,
    pub scope: Option<String>,
    pub status: String,
    /// `errorHResult` in hex, with its meaning where known.
    pub error: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub origin: String,
    pub job_id: Option<i64>,
    pub raw: Box<serde_json::value::RawValue>,
}

/// An attempt as `job show` prints it.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct AttemptLine {
    pub attempt_id: String,
    pub at: String,
    pub settled_at: Option<String>,
    pub outcome: Option<String>,
    pub http_status: Option<i64>,
    pub answer: Option<String>,
    pub looked_up: Option<String>,
}

/// A machine that a sweep left out.
#[derive(Clone, Debug)]
pub struct LeftOutLine {
    /// Where it stood in the file.
    pub line: i64,
    /// Which machine.
    pub machine: MachineId,
    /// What the file called it.
    pub name: Option<String>,
    /// Why.
    pub reason: String,
}

fn time(row: &sqlx::sqlite::SqliteRow, column: &str) -> Result<Option<String>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(|at| Wall(at).rfc3339()))
}

fn error(row: &sqlx::sqlite::SqliteRow) -> Result<Option<String>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>("error")?.and_then(hresult::told))
}

fn job_line(row: &sqlx::sqlite::SqliteRow) -> Result<JobLine, sqlx::Error> {
    let sweeps: String = row.try_get("sweep_ids")?;
    let blocked_by: Option<String> = row.try_get("blocked_by")?;
    let blocked_by = match blocked_by {
        None => None,
        Some(action_id) => Some(BlockedBy {
            action_id,
            r#type: row.try_get("blocking_type")?,
            scope: row.try_get("blocking_scope")?,
            requestor: row.try_get("blocking_requestor")?,
        }),
    };
    Ok(JobLine {
        id: row.try_get("id")?,
        machine_id: machine_of(row.try_get("machine")?)?.to_string(),
        name: row.try_get("name")?,
        tenant: row.try_get("tenant")?,
        state: row.try_get("state")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        scan_type: row.try_get("scan_type")?,
        priority: Priority::from_rank(row.try_get("priority")?).as_str().to_owned(),
        attempts: row.try_get("attempts")?,
        action_id: row.try_get("action_id")?,
        requestor: row.try_get("requestor")?,
        error: error(row)?,
        blocked_by,
        sweep_ids: sweeps.split(',').map(str::to_owned).collect(),
        proof: "none".to_owned(),
        proven_at: None,
        not_before: time(row, "not_before")?,
        created_at: time(row, "created_at")?.unwrap_or_default(),
        updated_at: time(row, "updated_at")?.unwrap_or_default(),
        finished_at: time(row, "finished_at")?,
    })
}

fn action_line(row: &sqlx::sqlite::SqliteRow) -> Result<ActionLine, sqlx::Error> {
    let machine: Option<Vec<u8>> = row.try_get("machine")?;
    let raw: String = row.try_get("raw")?;
    Ok(ActionLine {
        action_id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        machine_id: machine.map(machine_of).transpose()?.map(|machine| machine.to_string()),
        r#type: row.try_get("type")?,
        scope: row.try_get("scope")?,
        status: row.try_get("status")?,
        error: error(row)?,
        created_at: time(row, "created_at")?.unwrap_or_default(),
        updated_at: time(row, "updated_at")?.unwrap_or_default(),
        origin: row.try_get("origin")?,
        job_id: row.try_get("job_id")?,
        raw: serde_json::value::RawValue::from_string(raw).map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

const JOBS: &str =
    "SELECT jobs.id, jobs.machine, coalesce(jobs.name, iif(json_valid(own.raw), own.raw ->> '$.computerDnsName', NULL),
             iif(json_valid(blocking.raw), blocking.raw ->> '$.computerDnsName', NULL)) AS name,
         iif(json_valid(own.raw), own.raw ->> '$.requestor', NULL) AS requestor,
         tenants.name AS tenant, jobs.state, jobs.reason, jobs.detail,
         jobs.scan_type, jobs.priority, jobs.attempts, jobs.action_id, jobs.blocked_by, jobs.not_before,
         jobs.created_at, jobs.updated_at, jobs.finished_at,
         blocking.type AS blocking_type, blocking.scope AS blocking_scope,
         blocking.raw ->> '$.requestor' AS blocking_requestor,
         CAST(iif(json_valid(own.raw), own.raw ->> '$.errorHResult', NULL) AS INTEGER) AS error,
         (SELECT group_concat(sweeps.id) FROM sweeps WHERE sweeps.n = jobs.sweep_n
              OR sweeps.n IN (SELECT sweep_n FROM joins WHERE job_id = jobs.id)) AS sweep_ids
     FROM jobs JOIN tenants ON tenants.id = jobs.tenant_id
         LEFT JOIN actions AS own ON own.tenant_id = jobs.tenant_id AND own.id = jobs.action_id
         LEFT JOIN actions AS blocking ON blocking.tenant_id = jobs.tenant_id AND blocking.id = jobs.blocked_by
     WHERE";

const ACTIONS: &str = "SELECT actions.id, tenants.name AS tenant, machine, type, scope, status, origin, job_id,
         created_at, updated_at, raw,
         CAST(iif(json_valid(raw), raw ->> '$.errorHResult', NULL) AS INTEGER) AS error
     FROM actions CROSS JOIN tenants ON tenants.id = actions.tenant_id
     WHERE";

/// The conditions of a list: only those that are wanted, so that each finds its index.
struct Terms {
    tenant: &'static str,
    machine: &'static str,
    state: &'static str,
    sweep: &'static str,
    id: &'static str,
    order: &'static str,
    /// The order of a long list: one that the table is in, so that its first rows come at once.
    long: &'static str,
    /// States that few rows have at a time, and in which index those are.
    open: (&'static [&'static str], &'static str),
}

const JOB_TERMS: Terms = Terms {
    tenant: "tenants.name = ?1",
    machine: "jobs.id IN (SELECT job_id FROM open_jobs WHERE tenant_id IN (SELECT id FROM tenants) AND machine = ?2
                          UNION ALL SELECT id FROM jobs WHERE tenant_id IN (SELECT id FROM tenants) AND machine = ?2
                                                          AND finished_at IS NOT NULL)",
    state: "jobs.state = ?3",
    sweep: "jobs.id IN (SELECT id FROM jobs WHERE sweep_n = ?4 UNION ALL SELECT job_id FROM joins WHERE sweep_n = ?4)",
    id: "jobs.id = ?5",
    order: "jobs.id",
    long: "jobs.id",
    open: (
        &["sending", "accepted"],
        "jobs.state IN ('sending', 'accepted') AND jobs.tenant_id IN (SELECT id FROM tenants)",
    ),
};

const ACTION_TERMS: Terms = Terms {
    tenant: "tenants.name = ?1",
    machine: "actions.tenant_id IN (SELECT id FROM tenants) AND machine = ?2",
    state: "status = ?3",
    sweep: "job_id IN (SELECT id FROM jobs WHERE sweep_n = ?4)",
    id: "actions.tenant_id IN (SELECT id FROM tenants) AND actions.id = ?5",
    order: "created_at, actions.id",
    long: "actions.rowid",
    open: (&["Pending", "InProgress"], "status IN ('Pending', 'InProgress')"),
};

impl Terms {
    fn of(&self, wanted: &Wanted) -> String {
        let is_open = wanted.state.as_deref().is_some_and(|state| self.open.0.contains(&state));
        let terms = [
            (wanted.tenant.is_some(), self.tenant),
            (wanted.machine.is_some(), self.machine),
            (wanted.state.is_some(), self.state),
            (wanted.sweep.is_some(), self.sweep),
            (wanted.id.is_some(), self.id),
            (is_open, self.open.1),
        ];
        let terms = terms.into_iter().filter(|(wanted, _)| *wanted).map(|(_, term)| term);
        let terms: Vec<_> = terms.chain(["1"]).collect();
        let is_short = is_open || wanted.machine.is_some() || wanted.sweep.is_some() || wanted.id.is_some();
        format!("{} ORDER BY {}", terms.join(" AND "), if is_short { self.order } else { self.long })
    }
}

/// What lists the wanted jobs.
pub(super) fn jobs_statement(wanted: &Wanted) -> String {
    format!("{JOBS} {}", JOB_TERMS.of(wanted))
}

/// What lists the wanted actions.
pub(super) fn actions_statement(wanted: &Wanted) -> String {
    format!("{ACTIONS} {}", ACTION_TERMS.of(wanted))
}

impl View {
    /// Hands every wanted job to `each`, by age.
    pub async fn jobs(
        &self,
        wanted: &Wanted,
        mut each: impl FnMut(JobLine) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, StoreError> {
        self.rows(jobs_statement(wanted), wanted, "list jobs", |row| Ok(each(job_line(row)?))).await
    }

    /// Hands every wanted action to `each`: those of a machine by the time of their creation, else in the order in which
    /// they were seen first.
    pub async fn actions(
        &self,
        wanted: &Wanted,
        mut each: impl FnMut(ActionLine) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, StoreError> {
        self.rows(actions_statement(wanted), wanted, "list actions", |row| Ok(each(action_line(row)?))).await
    }

    /// The ids of actions that begin so, in their order, `most` at most: whether there is one, and which others.
    pub async fn action_ids(&self, beginning: &str, most: usize) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            // What follows a letter or digit in an id is never a tilde, which comes after all of them.
            "SELECT DISTINCT id FROM actions WHERE tenant_id IN (SELECT id FROM tenants) AND id >= ?1 AND id < ?1 || '~'
             LIMIT ?2",
        )
        .bind(beginning)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("find an action")
    }

    /// Machines with a job or an action whose id begins with these hexadecimal digits, `most` at most.
    pub async fn machines_beginning(&self, digits: &str, most: usize) -> Result<Vec<MachineId>, StoreError> {
        let end = |filler: &str| {
            let missing = MachineId::DIGITS.checked_sub(digits.len())?;
            (digits.to_owned() + &filler.repeat(missing)).parse().ok()
        };
        let (Some(first), Some(last)): (Option<MachineId>, Option<MachineId>) = (end("0"), end("f")) else {
            return Ok(Vec::new());
        };
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(
            // Each part ends on its own: the first digit alone may have a million.
            "SELECT machine FROM (SELECT DISTINCT machine FROM open_jobs
                                  WHERE tenant_id IN (SELECT id FROM tenants) AND machine BETWEEN ?1 AND ?2 LIMIT ?3)
             UNION SELECT machine FROM (SELECT DISTINCT machine FROM jobs
                                  WHERE tenant_id IN (SELECT id FROM tenants) AND machine BETWEEN ?1 AND ?2
                                    AND finished_at IS NOT NULL LIMIT ?3)
             UNION SELECT machine FROM (SELECT DISTINCT machine FROM actions
                                  WHERE tenant_id IN (SELECT id FROM tenants) AND machine BETWEEN ?1 AND ?2 LIMIT ?3)
             LIMIT ?3",
        )
        .bind(first.bytes().to_vec())
        .bind(last.bytes().to_vec())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("find a machine")?;
        rows.into_iter().map(machine_of).collect::<Result<_, _>>().doing("find a machine")
    }

    async fn rows(
        &self,
        statement: String,
        wanted: &Wanted,
        doing: &'static str,
        mut each: impl FnMut(&sqlx::sqlite::SqliteRow) -> Result<std::io::Result<()>, sqlx::Error>,
    ) -> Result<std::io::Result<()>, StoreError> {
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(wanted.tenant.as_ref().map(TenantName::as_str))
            .bind(wanted.machine.map(|machine| machine.bytes().to_vec()))
            .bind(wanted.state.as_deref())
            .bind(wanted.sweep)
            .bind(wanted.id.as_deref())
            .fetch(&mut *reader);
        while let Some(row) = rows.try_next().await.doing(doing)? {
            if let Err(error) = each(&row).doing(doing)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// The attempts of a job, oldest first.
    pub async fn attempts_of(&self, job: i64) -> Result<Vec<AttemptLine>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, taken_at, settled_at, outcome, http_status, answer, question, resolved FROM attempts
             WHERE job_id = ? ORDER BY taken_at, rowid",
        )
        .bind(job)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("list a job's attempts")?;
        let line = |row: &sqlx::sqlite::SqliteRow| {
            let question: Option<String> = row.try_get("question")?;
            let resolved: Option<String> = row.try_get("resolved")?;
            Ok(AttemptLine {
                attempt_id: row.try_get("id")?,
                at: time(row, "taken_at")?.unwrap_or_default(),
                settled_at: time(row, "settled_at")?,
                outcome: row.try_get("outcome")?,
                http_status: row.try_get("http_status")?,
                answer: row.try_get("answer")?,
                looked_up: question.map(|_| resolved.unwrap_or_else(|| "being looked up".to_owned())),
            })
        };
        rows.iter().map(line).collect::<Result<_, _>>().doing("list a job's attempts")
    }

    /// The next jobs of a sweep after the job `after`, by age, so many at most: its own, and those that it joined.
    /// A page costs the same wherever it begins, and between two pages nothing is held.
    pub async fn jobs_of_sweep(&self, sweep: i64, after: i64, most: u32) -> Result<Vec<JobLine>, StoreError> {
        let statement = format!(
            "{JOBS} jobs.id IN (SELECT id FROM (
                 SELECT id FROM (SELECT id FROM jobs WHERE sweep_n = ?1 AND id > ?2 ORDER BY id LIMIT ?3)
                 UNION ALL SELECT job_id FROM (SELECT job_id FROM joins WHERE sweep_n = ?1 AND job_id > ?2
                                               ORDER BY job_id LIMIT ?3)
                 ORDER BY id LIMIT ?3)) ORDER BY jobs.id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(sweep)
            .bind(after)
            .bind(most)
            .fetch_all(&mut *self.reader().await?)
            .await
            .doing("list a sweep's jobs")?;
        rows.iter().map(job_line).collect::<Result<_, _>>().doing("list a sweep's jobs")
    }

    /// The next machines that a sweep left out after the line `after`, in the file's order, so many at most.
    pub async fn left_out(&self, sweep: i64, after: i64, most: u32) -> Result<Vec<LeftOutLine>, StoreError> {
        let rows = sqlx::query(
            "SELECT line, machine, name, reason FROM left_out WHERE sweep_n = ? AND line > ? ORDER BY line LIMIT ?",
        )
        .bind(sweep)
        .bind(after)
        .bind(most)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("list what a sweep left out")?;
        let line = |row: &sqlx::sqlite::SqliteRow| {
            Ok(LeftOutLine {
                line: row.try_get("line")?,
                machine: machine_of(row.try_get("machine")?)?,
                name: row.try_get("name")?,
                reason: row.try_get("reason")?,
            })
        };
        rows.iter().map(line).collect::<Result<_, _>>().doing("list what a sweep left out")
    }
}
