//! Actions that an operator wants Defender to cancel: asked for here, made by the lane, one call at a time.
//!
//! The call names the action, so making it twice cancels once: a lost answer does no harm. It is looked up all
//! the same before the call is made again, since the action itself tells what became of it.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::events::{self, Kind, Subject};
use super::sweeps::SweepRow;
use super::tenants::{Operator, TenantRow};
use super::{Doing, Store, StoreError, jobs};
use crate::domain::action::ActionStatus;
use crate::domain::id::{JobId, MachineId};
use crate::domain::time::Wall;

/// What became of a wish to cancel. The words are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The action is cancelled.
    Cancelled,
    /// It had ended otherwise before.
    Ended,
    /// Defender does not know it.
    Unknown,
    /// The application may not cancel.
    Forbidden,
    /// Defender refuses it, though the action has not ended.
    Refused,
    /// Asked often enough, and it has not ended.
    GaveUp,
}

crate::domain::sweep::words!(CancelOutcome {
    Cancelled = "cancelled",
    Ended = "ended",
    Unknown = "unknown",
    Forbidden = "forbidden",
    Refused = "refused",
    GaveUp = "gave_up",
});

/// Who wants something cancelled, and with which words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// What Defender shows as the reason.
    pub comment: String,
    /// Who gives the command.
    pub operator: Operator,
    /// When.
    pub at: Wall,
}

/// A wish that is not fulfilled yet, with what is known of its action.
#[derive(Clone, Debug)]
pub struct Cancellation {
    /// Its row.
    pub id: i64,
    /// Which action.
    pub action: String,
    /// The operator's words.
    pub comment: String,
    /// Calls that may have had their effect.
    pub calls: u32,
    /// The last of them has no answer that decides: the action is read first.
    pub in_doubt: bool,
    /// What Defender said against it.
    pub answer: Option<String>,
    /// The action's status, as it is known.
    pub status: ActionStatus,
    /// Its job and machine, for the record.
    subject: Subject,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelCall {
    /// No call that had an effect: what was known before is what is known.
    Returned,
    /// Nobody knows yet; what Defender said against it, if it said something.
    Doubt(Option<String>),
    /// That was the end of it.
    Over(CancelOutcome, Option<String>),
}

fn cancellation_of(tenant: TenantRow, row: &sqlx::sqlite::SqliteRow) -> Result<Cancellation, sqlx::Error> {
    let machine: Option<Vec<u8>> = row.try_get("machine")?;
    let status: String = row.try_get("status")?;
    Ok(Cancellation {
        id: row.try_get("id")?,
        action: row.try_get("action_id")?,
        comment: row.try_get("comment")?,
        calls: row.try_get("calls")?,
        in_doubt: row.try_get("in_doubt")?,
        answer: row.try_get("answer")?,
        status: ActionStatus::parse(&status),
        subject: Subject {
            tenant: Some(tenant),
            job: row.try_get::<Option<i64>, _>("job_id")?.map(JobId),
            machine: machine.map(jobs::machine_of).transpose()?,
        },
    })
}

/// Writes a wish down, unless there is an open one for the same action, or the action has ended. Returns
/// whether it is new.
pub(crate) async fn wish(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    action: &str,
    wish: &Wish,
) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "INSERT INTO cancellations (tenant_id, action_id, comment, asked_at)
         SELECT tenant_id, id, ?3, ?4 FROM actions
         WHERE tenant_id = ?1 AND id = ?2 AND status IN ('Pending', 'InProgress')
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(tenant)
    .bind(action)
    .bind(&wish.comment)
    .bind(wish.at.0)
    .fetch_optional(&mut *connection)
    .await
    .doing("ask for a cancellation")?;
    if row.is_none() {
        return Ok(false);
    }
    let (job, machine): (Option<i64>, Option<Vec<u8>>) =
        sqlx::query_as("SELECT job_id, machine FROM actions WHERE tenant_id = ? AND id = ?")
            .bind(tenant)
            .bind(action)
            .fetch_one(&mut *connection)
            .await
            .doing("read an action")?;
    let machine: Option<MachineId> = machine.map(jobs::machine_of).transpose().doing("read an action")?;
    let body = json!({ "action": action, "comment": wish.comment, "by": wish.operator });
    let subject = Subject { tenant: Some(tenant), job: job.map(JobId), machine };
    events::append(connection, wish.at, Kind::CancelAsked, subject, &body).await?;
    Ok(true)
}

impl Store {
    /// An operator wants an action cancelled; the tenant's lane asks Defender for it. Returns whether the
    /// wish is new: the action is open, and nobody has asked before.
    pub async fn ask_to_cancel(&self, tenant: TenantRow, action: String, asked: Wish) -> Result<bool, StoreError> {
        self.write(move |connection| Box::pin(async move { wish(connection, tenant, &action, &asked).await })).await
    }

    /// The same for every scan of a sweep that Defender has accepted and that no other sweep wants. Returns
    /// how many wishes are new.
    pub async fn ask_to_cancel_scans(
        &self,
        tenant: TenantRow,
        sweep: SweepRow,
        asked: Wish,
    ) -> Result<u64, StoreError> {
        let actions: Vec<String> = sqlx::query_scalar(
            "SELECT action_id FROM jobs WHERE sweep_n = ?1 AND state = 'accepted' AND action_id IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM joins WHERE job_id = jobs.id AND sweep_n <> ?1 AND priority >= 0)",
        )
        .bind(sweep)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("find what to cancel")?;
        let mut new = 0;
        // A lane must not wait for a long sweep.
        for some in actions.chunks(500) {
            let (some, asked) = (some.to_vec(), asked.clone());
            new += self
                .write(move |connection| {
                    Box::pin(async move {
                        let mut new = 0;
                        for action in &some {
                            new += u64::from(wish(connection, tenant, action, &asked).await?);
                        }
                        Ok(new)
                    })
                })
                .await?;
        }
        Ok(new)
    }

    /// The first wish of a tenant behind this one that is not fulfilled, as it stands now.
    pub async fn next_cancellation(&self, tenant: TenantRow, after: i64) -> Result<Option<Cancellation>, StoreError> {
        let row = sqlx::query(
            "SELECT cancellations.id, action_id, comment, calls, in_doubt, answer, status, machine, job_id
             FROM cancellations JOIN actions ON actions.tenant_id = cancellations.tenant_id AND actions.id = action_id
             WHERE cancellations.tenant_id = ? AND cancellations.id > ? AND ended_at IS NULL
             ORDER BY cancellations.id LIMIT 1",
        )
        .bind(tenant)
        .bind(after)
        .fetch_optional(&mut *self.reader().await?)
        .await
        .doing("read what is to be cancelled")?;
        row.map(|row| cancellation_of(tenant, &row)).transpose().doing("read what is to be cancelled")
    }

    /// A call is about to be made: on record before a byte of it leaves. Returns whether it still may be: not
    /// when the action has ended since, or the wish.
    pub async fn cancel_written(&self, wish: Cancellation, at: Wall) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let touched = sqlx::query(
                    "UPDATE cancellations SET calls = calls + 1, in_doubt = 1 WHERE id = ? AND ended_at IS NULL
                         AND EXISTS (SELECT 1 FROM actions WHERE tenant_id = cancellations.tenant_id AND id = action_id
                                     AND status IN ('Pending', 'InProgress'))",
                )
                .bind(wish.id)
                .execute(&mut *connection)
                .await
                .doing("write a cancelling call down")?
                .rows_affected();
                if touched == 1 {
                    let body = json!({ "action": wish.action });
                    events::append(connection, at, Kind::CancelWritten, wish.subject, &body).await?;
                }
                Ok(touched == 1)
            })
        })
        .await
    }

    /// What came of it. So many calls that were written down, `without_effect`, do not count.
    pub async fn cancel_settled(
        &self,
        wish: Cancellation,
        call: CancelCall,
        without_effect: u32,
        at: Wall,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let (doubt, answer, outcome) = match call {
                    CancelCall::Returned => (wish.in_doubt, wish.answer.clone(), None),
                    CancelCall::Doubt(answer) => (true, answer, None),
                    CancelCall::Over(outcome, answer) => (false, answer, Some(outcome)),
                };
                let touched = sqlx::query(
                    "UPDATE cancellations SET calls = max(calls - ?1, 0), in_doubt = ?2, answer = ?3, outcome = ?4,
                         ended_at = iif(?4 IS NULL, NULL, ?5)
                     WHERE id = ?6 AND ended_at IS NULL",
                )
                .bind(without_effect)
                .bind(doubt)
                .bind(&answer)
                .bind(outcome.map(CancelOutcome::as_str))
                .bind(at.0)
                .bind(wish.id)
                .execute(&mut *connection)
                .await
                .doing("settle a cancelling call")?
                .rows_affected();
                if let (1, Some(outcome)) = (touched, outcome) {
                    let body = json!({ "action": wish.action, "outcome": outcome.as_str(), "answer": answer });
                    events::append(connection, at, Kind::CancelEnded, wish.subject, &body).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// What became of the last wish to cancel an action: none while it is open, or was never asked for; with
    /// what Defender said.
    pub async fn cancel_outcome(
        &self,
        tenant: TenantRow,
        action: &str,
    ) -> Result<Option<(CancelOutcome, Option<String>)>, StoreError> {
        let row = sqlx::query(
            "SELECT outcome, answer FROM cancellations WHERE tenant_id = ? AND action_id = ? ORDER BY id DESC LIMIT 1",
        )
        .bind(tenant)
        .bind(action)
        .fetch_optional(&mut *self.reader().await?)
        .await
        .doing("read a cancellation")?;
        let Some(row) = row else { return Ok(None) };
        let read = || {
            let outcome: Option<String> = row.try_get("outcome")?;
            Ok((outcome, row.try_get("answer")?))
        };
        let (outcome, answer) = read().doing("read a cancellation")?;
        Ok(outcome.and_then(|word| word.parse().ok()).map(|outcome| (outcome, answer)))
    }
}
