//! Actions of Defender: kept verbatim, and what each change of one means for the jobs.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::events::{self, Kind, Subject};
use super::jobs::{self, With};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, marks};
use crate::domain::action::{Action, ActionStatus, Origin, Seen};
use crate::domain::id::{AttemptId, JobId, MachineId};
use crate::domain::job::{End, Event, Reason, State};
use crate::domain::outcome::mark;
use crate::domain::sweep::ScanType;
use crate::domain::time::Wall;

/// So far Defender's clock may be ahead of ours and still move the feed's cursor.
const AHEAD: Duration = Duration::from_mins(5);

/// Actions that one transaction takes in.
const AT_ONCE: usize = 200;

/// Jobs that one look gives up.
pub const GIVE_UP_AT_ONCE: usize = 1000;

/// So long after it was first seen a single read that finds nothing may still be a lagging index.
const LAG: Duration = Duration::from_mins(15);

/// An action that is believed to be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its id.
    pub id: String,
    /// When it changed last, as far as is known, by Defender's clock.
    pub updated_at: Wall,
}

/// The attempt and job that an action's mark belongs to.
struct Owner {
    attempt: AttemptId,
    job: JobId,
}

async fn owner(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    action: &Action,
) -> Result<Option<Owner>, StoreError> {
    // Once ours, always ours: a list may leave the comment out, or cut it. But a playbook may copy a comment
    // with its mark to an action of another type, or of another machine.
    let row = sqlx::query(
        "SELECT id, job_id FROM attempts WHERE tenant_id = ?1
             AND id = coalesce((SELECT attempt_id FROM actions WHERE tenant_id = ?1 AND id = ?2),
                               (SELECT id FROM attempts WHERE id = ?3 AND machine = coalesce(?4, machine)))",
    )
    .bind(tenant)
    .bind(&action.id)
    .bind(mark(action).filter(|_| action.is_scan() || action.action_type.is_empty()).map(|attempt| attempt.to_string()))
    .bind(action.machine.map(|machine| machine.bytes().to_vec()))
    .fetch_optional(connection)
    .await
    .doing("find the attempt of a mark")?;
    row.map(|row| Ok(Owner { attempt: jobs::word(&row, "id")?, job: JobId(row.try_get("job_id")?) }))
        .transpose()
        .doing("read the attempt of a mark")
}

pub(crate) fn action_of(row: &sqlx::sqlite::SqliteRow) -> Result<Action, sqlx::Error> {
    let machine: Option<Vec<u8>> = row.try_get("machine")?;
    let scope: Option<String> = row.try_get("scope")?;
    let status: String = row.try_get("status")?;
    Ok(Action {
        id: row.try_get("id")?,
        action_type: row.try_get("type")?,
        status: ActionStatus::parse(&status),
        machine: machine.map(jobs::machine_of).transpose()?,
        origin: jobs::word(row, "origin")?,
        scope: scope.and_then(|scope| scope.parse().ok()),
        comment: None,
        created_at: Wall(row.try_get("created_at")?),
        updated_at: Wall(row.try_get("updated_at")?),
    })
}

/// What is known of a machine's actions, for the decision whether to ask it: what is open, and
/// what succeeded. One of ours that was given up is waited for no longer: it counts like somebody else's.
pub(crate) async fn known(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    machine: MachineId,
) -> Result<Vec<Action>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, type, status, machine, scope, created_at, updated_at,
             iif((SELECT state FROM jobs WHERE jobs.id = actions.job_id) = 'timed_out', 'foreign', origin) AS origin
         FROM actions
         WHERE tenant_id = ? AND machine = ? AND status IN ('Pending', 'InProgress', 'Succeeded')",
    )
    .bind(tenant)
    .bind(machine.bytes().to_vec())
    .fetch_all(connection)
    .await
    .doing("read a machine's actions")?;
    rows.iter().map(action_of).collect::<Result<_, _>>().doing("read a machine's actions")
}

/// Whether two objects say the same, the envelope (`@odata…`) aside.
fn same(a: &str, b: &str) -> bool {
    fn plain(text: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
        let mut map: serde_json::Map<_, _> = serde_json::from_str(text).ok()?;
        map.retain(|key, _| !key.starts_with("@odata"));
        Some(map)
    }
    a == b || matches!((plain(a), plain(b)), (Some(a), Some(b)) if a == b)
}

/// Whether what is known of an action was said later than this: a list that lags behind must not take it back.
/// But no clock makes an action go on that has ended.
fn is_older(action: &Action, updated_at: Wall, status: &str) -> bool {
    let ends = End::of(&action.status).is_some() && End::of(&ActionStatus::parse(status)).is_none();
    action.updated_at < updated_at && !ends
}

/// Takes in an action as it was received, whether in an answer or in a list: keeps it, and moves
/// the jobs that it concerns. Returns the action with its origin.
pub(crate) async fn see(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    seen: &Seen,
    at: Wall,
) -> Result<Action, StoreError> {
    let owner = owner(connection, tenant, &seen.action).await?;
    let mut action = seen.action.clone();
    action.origin = if owner.is_some() { Origin::Ours } else { Origin::Foreign };
    // A fresh action comes without its scope (observed); of our own we know what was asked for.
    if let (Some(owner), None) = (&owner, action.scope) {
        action.scope = Some(jobs::find(connection, owner.job).await?.scan);
    }
    if keep(connection, tenant, &action, &seen.raw, owner.as_ref(), at).await? {
        let body = serde_json::json!({
            "action": action.id, "status": action.status.as_str(), "origin": action.origin.as_str(),
            "raw": serde_json::from_str(&seen.raw).unwrap_or(serde_json::Value::Null),
        });
        let subject =
            Subject { tenant: Some(tenant), job: owner.as_ref().map(|owner| owner.job), machine: action.machine };
        events::append(connection, at, Kind::ActionSeen, subject, &body).await?;
        if owner.is_none() {
            marks::note(connection, tenant, &action, &seen.raw, at).await?;
        }
    }
    if let Some(owner) = &owner {
        action.status = own(connection, tenant, &action, owner).await?;
        follow(connection, owner, &action, at).await?;
    }
    if !action.status.is_open() {
        unblock(connection, tenant, &action.id, at).await?;
    }
    Ok(action)
}

/// Writes the action down. Returns whether it says anything that was not known.
async fn keep(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    action: &Action,
    raw: &str,
    owner: Option<&Owner>,
    at: Wall,
) -> Result<bool, StoreError> {
    let known: Option<(i64, String, String)> =
        sqlx::query_as("SELECT updated_at, status, raw FROM actions WHERE tenant_id = ? AND id = ?")
            .bind(tenant)
            .bind(&action.id)
            .fetch_optional(&mut *connection)
            .await
            .doing("find an action")?;
    if let Some((updated_at, status, known)) = &known
        && (is_older(action, Wall(*updated_at), status) || action.updated_at.0 == *updated_at && same(known, raw))
    {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO actions (tenant_id, id, machine, type, scope, status, origin, attempt_id, job_id, created_at,
                              updated_at, first_seen_at, raw)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (tenant_id, id) DO UPDATE SET
             machine = coalesce(excluded.machine, machine), scope = coalesce(excluded.scope, scope),
             status = excluded.status, origin = excluded.origin, attempt_id = excluded.attempt_id,
             job_id = excluded.job_id, updated_at = excluded.updated_at, raw = excluded.raw",
    )
    .bind(tenant)
    .bind(&action.id)
    .bind(action.machine.map(|machine| machine.bytes().to_vec()))
    .bind(&action.action_type)
    .bind(action.scope.map(ScanType::as_str))
    .bind(action.status.as_str())
    .bind(action.origin.as_str())
    .bind(owner.map(|owner| owner.attempt.to_string()))
    .bind(owner.map(|owner| owner.job.0))
    .bind(action.created_at.0)
    .bind(action.updated_at.0)
    .bind(at.0)
    .bind(raw)
    .execute(&mut *connection)
    .await
    .doing("keep an action")?;
    Ok(true)
}

/// An action of ours that was kept as somebody else's, before its mark was seen, becomes ours.
/// Returns the status that is kept: an answer may come after a list has told more.
async fn own(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    action: &Action,
    owner: &Owner,
) -> Result<ActionStatus, StoreError> {
    let status: String = sqlx::query_scalar(
        "UPDATE actions SET origin = 'ours', attempt_id = ?1, job_id = ?2, scope = coalesce(scope, ?3)
         WHERE tenant_id = ?4 AND id = ?5 RETURNING status",
    )
    .bind(owner.attempt.to_string())
    .bind(owner.job.0)
    .bind(action.scope.map(ScanType::as_str))
    .bind(tenant)
    .bind(&action.id)
    .fetch_one(connection)
    .await
    .doing("own an action")?;
    Ok(ActionStatus::parse(&status))
}

/// Moves the job that an action of ours belongs to.
async fn follow(connection: &mut SqliteConnection, owner: &Owner, action: &Action, at: Wall) -> Result<(), StoreError> {
    let resolved = sqlx::query(
        "UPDATE attempts SET resolved = 'found', resolved_at = ?1
         WHERE id = ?2 AND question IS NOT NULL AND resolved IS NULL",
    )
    .bind(at.0)
    .bind(owner.attempt.to_string())
    .execute(&mut *connection)
    .await
    .doing("resolve an attempt")?
    .rows_affected();
    let mut job = jobs::find(connection, owner.job).await?;
    if resolved == 1 {
        let body =
            serde_json::json!({ "attempt": owner.attempt.to_string(), "resolved": "found", "action": action.id });
        let subject = Subject { tenant: Some(job.tenant), job: Some(job.id), machine: Some(job.machine) };
        events::append(connection, at, Kind::AttemptResolved, subject, &body).await?;
    }
    if matches!(job.state, State::Queued | State::Sending) {
        // A probe does not count against its job; but what was accepted was asked for at least once.
        let attempts = i64::from(job.attempts == 0);
        let with = With { action: Some(action.id.clone()), attempts, ..With::default() };
        job.state = jobs::apply(connection, &job, Event::Accepted, with, at).await?;
        job.action = Some(action.id.clone());
    }
    if job.state == State::Accepted
        && job.action.as_deref() == Some(&action.id)
        && let Some(end) = End::of(&action.status)
    {
        jobs::apply(connection, &job, Event::Ended(end), With::default(), at).await?;
    }
    Ok(())
}

/// Makes ready the jobs that waited for an action to end.
async fn unblock(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    action: &str,
    at: Wall,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET parked_until = NULL, blocked_by = NULL, updated_at = ?3
         WHERE tenant_id = ?1 AND blocked_by = ?2 AND state = 'queued'",
    )
    .bind(tenant)
    .bind(action)
    .bind(at.0)
    .execute(connection)
    .await
    .doing("make ready what waited for an action")
    .map(drop)
}

impl Store {
    /// Takes in a page of the feed, then moves its cursor. Returns how many actions said something new. What
    /// says nothing new costs a query for the page, and no write: each look takes in again what the looks
    /// before it have seen.
    pub async fn see_actions(
        &self,
        tenant: TenantRow,
        seen: Vec<Seen>,
        cursor: Option<Wall>,
        at: Wall,
    ) -> Result<usize, StoreError> {
        let news = self.news(tenant, seen).await?;
        let (n, mut news) = (news.len(), news.into_iter().peekable());
        // In small transactions: a lane must not wait for a long page.
        while news.peek().is_some() {
            let some: Vec<_> = news.by_ref().take(AT_ONCE).collect();
            self.write(move |connection| {
                Box::pin(async move {
                    for seen in &some {
                        see(connection, tenant, seen, at).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        }
        // One action dated in the far future must not blind the feed.
        let cursor = cursor.map(|cursor| cursor.min(at + AHEAD));
        if cursor.is_some() && cursor > self.lane_memory(tenant).await?.feed_cursor {
            self.move_cursor(tenant, cursor).await?;
        }
        Ok(n)
    }

    /// What of a page says something that is not known.
    async fn news(&self, tenant: TenantRow, mut seen: Vec<Seen>) -> Result<Vec<Seen>, StoreError> {
        let ids: Vec<&str> = seen.iter().map(|seen| seen.action.id.as_str()).collect();
        let rows: Vec<(String, i64, String, String, String)> = sqlx::query_as(
            "SELECT id, updated_at, status, origin, raw FROM actions
             WHERE tenant_id = ? AND id IN (SELECT value FROM json_each(?))",
        )
        .bind(tenant)
        .bind(serde_json::json!(ids).to_string())
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("compare a page of actions")?;
        let known: HashMap<_, _> =
            rows.into_iter().map(|(id, at, status, origin, raw)| (id, (Wall(at), status, origin, raw))).collect();
        seen.retain(|seen| {
            known.get(&seen.action.id).is_none_or(|(at, status, origin, raw)| {
                // A lagging list may still be the first to show whose an action is.
                let is_old = is_older(&seen.action, *at, status)
                    && (origin == Origin::Ours.as_str() || mark(&seen.action).is_none());
                !is_old && !same(raw, &seen.raw)
            })
        });
        Ok(seen)
    }

    async fn move_cursor(&self, tenant: TenantRow, cursor: Option<Wall>) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE tenants SET feed_cursor = max(coalesce(feed_cursor, ?1), ?1) WHERE id = ?2 AND ?1 IS NOT NULL",
                )
                .bind(cursor.map(|at| at.0))
                .bind(tenant)
                .execute(connection)
                .await
                .doing("move the feed's cursor")
                .map(drop)
            })
        })
        .await
    }

    /// What is believed to be open, whosesoever, in the order of its ids: to be read singly when the tenant's
    /// own list does not show it as open any more.
    pub async fn open_actions(&self, tenant: TenantRow, limit: u32) -> Result<Vec<Open>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, updated_at FROM actions WHERE tenant_id = ? AND status IN ('Pending', 'InProgress')
             ORDER BY id LIMIT ?",
        )
        .bind(tenant)
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("list open actions")?;
        Ok(rows.into_iter().map(|(id, at)| Open { id, updated_at: Wall(at) }).collect())
    }

    /// When the oldest open action was created, by Defender's clock: the feed need not start earlier.
    pub async fn oldest_open_action(&self, tenant: TenantRow) -> Result<Option<Wall>, StoreError> {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT min(created_at) FROM actions WHERE tenant_id = ? AND status IN ('Pending', 'InProgress')",
        )
        .bind(tenant)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("find the oldest open action")?;
        Ok(at.map(Wall))
    }

    /// Defender does not know an action any more that we believed open (purged, or its device
    /// removed): it keeps no machine busy. One that a job follows stays until it is given up, and a
    /// young one may only be missing from an index that lags.
    pub async fn action_gone(&self, tenant: TenantRow, id: String, at: Wall) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let gone = sqlx::query(
                    "UPDATE actions SET status = 'Gone' WHERE tenant_id = ?1 AND id = ?2 AND first_seen_at < ?3
                         AND status IN ('Pending', 'InProgress')
                         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = actions.job_id AND jobs.state = 'accepted')",
                )
                .bind(tenant)
                .bind(&id)
                .bind((at - LAG).0)
                .execute(&mut *connection)
                .await
                .doing("close an action that is gone")?
                .rows_affected();
                if gone == 1 {
                    let body = serde_json::json!({ "action": id, "status": "Gone", "raw": null });
                    events::append(connection, at, Kind::ActionSeen, Subject::tenant(tenant), &body).await?;
                    unblock(connection, tenant, &id, at).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// How many jobs of a tenant wait for the end of an action, their own or one that blocks them: whether
    /// there is anything to follow.
    pub async fn to_follow(&self, tenant: TenantRow) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM jobs WHERE tenant_id = ?1 AND state = 'accepted'
                                                     -- Said twice, so that the partial index serves.
                                                     AND state IN ('sending', 'accepted'))
                  + (SELECT count(*) FROM jobs WHERE tenant_id = ?1 AND state = 'queued' AND blocked_by IS NOT NULL)",
        )
        .bind(tenant)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("count what is followed")?;
        Ok(u64::try_from(n).unwrap_or(0))
    }

    /// Stops following what has not ended in time: of what was first seen longest ago, at most
    /// [`GIVE_UP_AT_ONCE`]. Returns how many jobs. Nothing to give up costs the writer nothing.
    pub async fn give_up(
        &self,
        tenant: TenantRow,
        pending_since: Wall,
        in_progress_since: Wall,
        at: Wall,
    ) -> Result<usize, StoreError> {
        let overdue: Vec<i64> = sqlx::query_scalar(OVERDUE)
            .bind(tenant)
            .bind(pending_since.0)
            .bind(in_progress_since.0)
            .bind(i64::try_from(GIVE_UP_AT_ONCE).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.reader().await?)
            .await
            .doing("find what to give up")?;
        let mut given_up = 0;
        // In small transactions: a lane must not wait for all of them.
        for some in overdue.chunks(AT_ONCE) {
            let some = some.to_vec();
            given_up += self.write(move |connection| Box::pin(give_these_up(connection, some, at))).await?;
        }
        Ok(given_up)
    }
}

/// Jobs whose action has not ended though it was first seen before a time, of which there is one for what
/// is in progress and one for everything else.
pub(crate) const OVERDUE: &str = "SELECT jobs.id FROM actions CROSS JOIN jobs ON jobs.id = actions.job_id
     WHERE actions.tenant_id = ?1 AND actions.status NOT IN ('Succeeded', 'Failed', 'TimeOut', 'Cancelled')
       AND actions.first_seen_at < max(?2, ?3)
       AND actions.first_seen_at < iif(actions.status = 'InProgress', ?3, ?2)
       AND jobs.state = 'accepted' AND jobs.action_id = actions.id
     ORDER BY actions.first_seen_at LIMIT ?4";

async fn give_these_up(connection: &mut SqliteConnection, jobs: Vec<i64>, at: Wall) -> Result<usize, StoreError> {
    let mut given_up = 0;
    for id in jobs {
        let job = jobs::find(connection, JobId(id)).await?;
        // It may have ended since it was found.
        if job.state == State::Accepted {
            let with = With { reason: Some(Reason::GaveUp), ..With::default() };
            jobs::apply(connection, &job, Event::GaveUp, with, at).await?;
            given_up += 1;
        }
    }
    Ok(given_up)
}
