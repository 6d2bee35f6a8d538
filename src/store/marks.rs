//! Marks of sweepd on Defender's actions that this database did not write.
//!
//! An attempt is on disk before its call leaves, so every mark of ours is known here; unless this
//! database was restored from an older copy, was made anew, or runs twice. Then the same machines would be
//! scanned again, against a budget that is spent already. So the tenant's lane is held until an
//! operator has seen to it, and then takes over what the lost history did ([`Store::reconcile`]).

use sqlx::{Row, SqliteConnection};
use std::time::Duration;

use super::actions::{self, action_of};
use super::events::{self, Kind, Subject};
use super::slots::{BudgetRow, Stamp};
use super::tenants::{self, Operator, TenantRow};
use super::{Doing, Store, StoreError};
use crate::domain::action::{Action, Seen};
use crate::domain::id::{AttemptId, JobId, TenantName};
use crate::domain::ledger::{CallKind, HOUR, MARGIN};
use crate::domain::outcome::mark;
use crate::domain::time::Wall;

/// What a lane that is held for unknown marks waits for.
pub const WAITING: &str = "`sweepd reconcile`: Defender lists scans that sweepd asked for and this database does not \
                           know of. It was restored from an older copy, made anew, or runs twice: stop the other one \
                           first";

/// So far Defender's clock and ours may be apart: a job that was made this long after an action may
/// still be the one that it was for.
const APART: Duration = Duration::from_mins(5);

/// Marks that one transaction accepts, so that it never holds the writer for long.
const AT_ONCE: usize = 200;

/// What a reconciliation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reconciled {
    /// Actions of the lost history.
    pub actions: usize,
    /// Open jobs that follow one of them now.
    pub jobs: usize,
}

/// Takes note of an action that carries a mark which this database did not write.
pub(crate) async fn note(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    action: &Action,
    raw: &str,
    at: Wall,
) -> Result<(), StoreError> {
    let Some(attempt) = mark(action).filter(|_| action.is_scan()) else { return Ok(()) };
    // Of any tenant: a section may have been renamed. And of this requestor, as far as we know ours: the
    // marks of another sweepd with a registration of its own are none of our business.
    let noted = sqlx::query(
        "INSERT INTO unknown_marks (tenant_id, action_id, attempt_id, seen_at)
         SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE id = ?3)
             AND coalesce((SELECT raw ->> '$.requestor' FROM actions WHERE tenant_id = ?1 AND origin = 'ours'
                           ORDER BY rowid DESC LIMIT 1) = ?5 ->> '$.requestor', 1)
         ON CONFLICT (tenant_id, action_id) DO NOTHING",
    )
    .bind(tenant)
    .bind(&action.id)
    .bind(attempt.to_string())
    .bind(at.0)
    .bind(raw)
    .execute(&mut *connection)
    .await
    .doing("note an unknown mark")?
    .rows_affected();
    if noted == 1 {
        let body = serde_json::json!({ "action": action.id, "attempt": attempt.to_string() });
        let subject = Subject { tenant: Some(tenant), job: None, machine: action.machine };
        events::append(connection, at, Kind::MarkUnknown, subject, &body).await?;
    }
    Ok(())
}

/// Whether the tenant's lane must be held for marks that nobody has accepted yet.
pub(crate) async fn any(connection: &mut SqliteConnection, tenant: TenantRow) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM unknown_marks WHERE tenant_id = ? AND accepted_at IS NULL)")
        .bind(tenant)
        .fetch_one(connection)
        .await
        .doing("look for unknown marks")
}

/// An action of the lost history, and the mark that it carries.
struct Lost {
    action: Action,
    raw: String,
    attempt: AttemptId,
}

async fn lost(connection: &mut SqliteConnection, tenant: TenantRow) -> Result<Vec<Lost>, StoreError> {
    let rows = sqlx::query(
        "SELECT actions.id, type, status, machine, origin, scope, created_at, updated_at, raw,
             unknown_marks.attempt_id AS mark
         FROM unknown_marks JOIN actions ON actions.tenant_id = unknown_marks.tenant_id AND actions.id = action_id
         WHERE unknown_marks.tenant_id = ? AND accepted_at IS NULL ORDER BY created_at LIMIT ?",
    )
    .bind(tenant)
    .bind(i64::try_from(AT_ONCE).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
    .doing("list unknown marks")?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let attempt: AttemptId = super::jobs::word(row, "mark")?;
        let action = Action { comment: Some(attempt.mark("")), ..action_of(row)? };
        Ok(Lost { action, raw: row.try_get("raw")?, attempt })
    };
    rows.iter().map(read).collect::<Result<_, _>>().doing("list unknown marks")
}

/// Gives the action to the open job that it was for, if there is one. Returns whether there was.
async fn adopt(connection: &mut SqliteConnection, tenant: TenantRow, lost: Lost, at: Wall) -> Result<bool, StoreError> {
    // Asked for before the action was created: what was asked for later is another scan.
    let job: Option<i64> = sqlx::query_scalar(
        "SELECT jobs.id FROM open_jobs JOIN jobs ON jobs.id = open_jobs.job_id
         WHERE open_jobs.tenant_id = ?1 AND open_jobs.machine = ?2 AND open_jobs.scan_type = coalesce(?3, 'Quick')
           AND jobs.state IN ('queued', 'sending') AND jobs.created_at <= ?4",
    )
    .bind(tenant)
    .bind(lost.action.machine.map(|machine| machine.bytes().to_vec()))
    .bind(lost.action.scope.map(crate::domain::sweep::ScanType::as_str))
    .bind((lost.action.created_at + APART).0)
    .fetch_optional(&mut *connection)
    .await
    .doing("find the job of an unknown mark")?;
    if let Some(job) = job {
        write_attempt(connection, tenant, JobId(job), &lost, at).await?;
        // With its attempt the mark is one of ours: the job follows the action, to its end if it has ended.
        let seen = Seen { action: lost.action.clone(), raw: lost.raw };
        actions::see(connection, tenant, &seen, at).await?;
    }
    sqlx::query("UPDATE unknown_marks SET accepted_at = ? WHERE tenant_id = ? AND action_id = ?")
        .bind(at.0)
        .bind(tenant)
        .bind(&lost.action.id)
        .execute(connection)
        .await
        .doing("accept an unknown mark")?;
    Ok(job.is_some())
}

/// The attempt that the lost history must have made.
async fn write_attempt(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    job: JobId,
    lost: &Lost,
    at: Wall,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO attempts (id, job_id, tenant_id, machine, slot_id, epoch, probe, taken_at, settled_at, outcome,
                               answer)
         SELECT ?1, ?2, ?3, machine, 0, (SELECT max(epoch) FROM incarnations), 0, ?4, ?5, 'created', ?6
         FROM jobs WHERE id = ?2",
    )
    .bind(lost.attempt.to_string())
    .bind(job.0)
    .bind(tenant)
    .bind(lost.action.created_at.0)
    .bind(at.0)
    .bind("found in Defender's list by its mark: made by a history that this database has lost")
    .execute(connection)
    .await
    .doing("write down a lost attempt")
    .map(drop)
}

impl Store {
    /// How many actions carry marks that this database did not write, and nobody has accepted.
    pub async fn unknown_marks(&self, tenant: TenantRow) -> Result<u64, StoreError> {
        let n: i64 =
            sqlx::query_scalar("SELECT count(*) FROM unknown_marks WHERE tenant_id = ? AND accepted_at IS NULL")
                .bind(tenant)
                .fetch_one(&mut *self.reader().await?)
                .await
                .doing("count unknown marks")?;
        Ok(u64::try_from(n).unwrap_or(0))
    }

    /// Writes the calls behind unknown marks into the ledger, each once: Defender has counted them, at the
    /// time of its action's creation. `server_now` is what Defender's clock says now.
    pub async fn charge_unknown_marks(
        &self,
        tenant: TenantRow,
        budget: BudgetRow,
        stamp: Stamp,
        server_now: Wall,
    ) -> Result<u64, StoreError> {
        let is_due: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM unknown_marks WHERE tenant_id = ? AND charged = 0)")
                .bind(tenant)
                .fetch_one(&mut *self.reader().await?)
                .await
                .doing("look for calls to charge")?;
        if !is_due {
            return Ok(0);
        }
        self.write(move |connection| {
            Box::pin(async move {
                // A minute is for the clocks: a slot that is held too long costs less than one too many.
                let age_of_none = HOUR + MARGIN + Duration::from_mins(1);
                let charged = sqlx::query(
                    "INSERT INTO slots (budget_id, kind, epoch, boot_id, taken_boot, taken_at, settles_boot)
                     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?5 - max(?7 - created_at - 60000, 0)
                     FROM unknown_marks JOIN actions
                         ON actions.tenant_id = unknown_marks.tenant_id AND actions.id = unknown_marks.action_id
                     WHERE unknown_marks.tenant_id = ?8 AND charged = 0 AND created_at > ?9",
                )
                .bind(budget.0)
                .bind(CallKind::Scan.as_str())
                .bind(stamp.epoch.0)
                .bind(&stamp.boot_id.0)
                .bind(stamp.boot.0)
                .bind(stamp.at.0)
                .bind(server_now.0)
                .bind(tenant)
                .bind((server_now - age_of_none).0)
                .execute(&mut *connection)
                .await
                .doing("charge unknown marks")?
                .rows_affected();
                sqlx::query("UPDATE unknown_marks SET charged = 1 WHERE tenant_id = ? AND charged = 0")
                    .bind(tenant)
                    .execute(connection)
                    .await
                    .doing("charge unknown marks")?;
                Ok(charged)
            })
        })
        .await
    }

    /// An operator's word that the history behind the unknown marks is over and counts as ours: each of its
    /// actions goes to the open job that it was for, or stays somebody's. Then the lane may go on.
    pub async fn reconcile(&self, name: &TenantName, by: Operator, at: Wall) -> Result<Reconciled, StoreError> {
        let mut done = Reconciled::default();
        loop {
            let name = name.clone();
            let some = self.write(move |connection| {
                Box::pin(async move {
                    let tenant = tenants::ensure(connection, &name).await?;
                    let mut some = Reconciled::default();
                    for lost in lost(connection, tenant).await? {
                        some.actions += 1;
                        some.jobs += usize::from(adopt(connection, tenant, lost, at).await?);
                    }
                    Ok(some)
                })
            });
            let some = some.await?;
            done = Reconciled { actions: done.actions + some.actions, jobs: done.jobs + some.jobs };
            if some.actions < AT_ONCE {
                break;
            }
        }
        if done.actions > 0 {
            let tenant = self.tenant(name).await?;
            let body = serde_json::json!({ "tenant": name.as_str(), "done": done, "by": by });
            self.record(at, Kind::Reconciled, Subject::tenant(tenant), body).await?;
        }
        Ok(done)
    }
}
