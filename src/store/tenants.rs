//! What operators decide about a tenant, and what its lane remembers over a restart.

use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::events::{self, Kind, Subject};
use super::{Doing, Store, StoreError};
use crate::domain::id::TenantName;
use crate::domain::lane::Hold;
use crate::domain::time::{Boot, Wall, seconds_left};

/// A row of `tenants`.
pub type TenantRow = i64;

/// An operator's word that nothing is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub at: Wall,
    /// Why, as the operator said.
    pub reason: Option<String>,
    /// Who.
    pub by: Option<String>,
    /// When it ends by itself, if it does.
    pub until: Option<Wall>,
}

/// What an operator decides about a tenant's sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Nothing is sent, for this reason if one was given, and until then if it ends by itself.
    Paused(Option<String>, Option<Wall>),
    /// It goes on.
    Resumed,
}

/// Who gave a command: what the record keeps of an operator.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Operator {
    /// The user the command ran as.
    pub uid: u32,
    /// The user who logged in, which `sudo` does not change; from the audit subsystem.
    pub login_uid: Option<u32>,
    /// The host.
    pub host: String,
}

/// What a lane waits for: a line for people, and until when if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// In words; `nothing` when there is nothing to do. `{until}` stands for the time.
    pub what: String,
    /// By the wall clock.
    pub until: Option<Wall>,
}

/// A daemon that has not gone on for so long after the time that it named is asked about.
const OVERDUE: Duration = Duration::from_mins(1);

impl Waiting {
    /// In words, with the time as `shown`. A time that is past is not told as one that is waited for: the step is due, and
    /// once it is overdue, the words say so.
    pub fn told(&self, shown: impl Fn(Wall) -> String, now: Wall) -> String {
        match self.until {
            Some(until) if until <= now => {
                let due = self.what.replace("at {until}", "now").replace("{until}", "now");
                if now.since(until) < OVERDUE {
                    return due;
                }
                format!("{due}; due since {}, and the daemon has not said why it waits: see its log", shown(until))
            }
            until => self.what.replace("{until}", &until.map(shown).unwrap_or_default()),
        }
    }
}

/// What a lane has to know of its tenant before each decision.
#[derive(Clone, Debug)]
pub struct LaneMemory {
    /// Whether an operator paused it.
    pub pause: Option<Pause>,
    /// What held its lane last, if nothing has freed it since.
    pub hold: Option<Hold>,
    /// Since when every sign-in has failed, if the last one did.
    pub sign_in_fails_since: Option<Wall>,
    /// The last update that the feed has seen, by Defender's clock.
    pub feed_cursor: Option<Wall>,
}

pub(crate) async fn ensure(connection: &mut SqliteConnection, name: &TenantName) -> Result<TenantRow, StoreError> {
    sqlx::query("INSERT INTO tenants (name) VALUES (?) ON CONFLICT (name) DO NOTHING")
        .bind(name.as_str())
        .execute(&mut *connection)
        .await
        .doing("add a tenant")?;
    sqlx::query_scalar("SELECT id FROM tenants WHERE name = ?")
        .bind(name.as_str())
        .fetch_one(connection)
        .await
        .doing("find a tenant")
}

pub(crate) fn pause_of(row: &sqlx::sqlite::SqliteRow) -> Result<Option<Pause>, sqlx::Error> {
    let at: Option<i64> = row.try_get("paused_at")?;
    let Some(at) = at else { return Ok(None) };
    Ok(Some(Pause {
        at: Wall(at),
        reason: row.try_get("paused_reason")?,
        by: row.try_get("paused_by")?,
        until: row.try_get::<Option<i64>, _>("paused_until")?.map(Wall),
    }))
}

/// What holds a lane, to be written down with the answer that caused it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Why.
    pub why: Hold,
    /// Until when.
    pub until: Boot,
}

pub(crate) async fn hold(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    held: &Held,
    at: Wall,
    boot: Boot,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE tenants SET hold = ?, hold_until_boot = ? WHERE id = ?")
        .bind(held.why.as_str())
        .bind(held.until.0)
        .bind(tenant)
        .execute(&mut *connection)
        .await
        .doing("note a hold")?;
    stopped(connection, tenant, held.why.as_str(), held.until.since(boot), at).await
}

/// Records that a tenant's scans have stopped, for so long.
pub(crate) async fn stopped(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    why: &str,
    time: Duration,
    at: Wall,
) -> Result<(), StoreError> {
    let body = serde_json::json!({ "why": why, "seconds": seconds_left(time) });
    events::append(connection, at, Kind::LaneStopped, Subject::tenant(tenant), &body).await
}

pub(crate) async fn resume(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    stood: Duration,
    at: Wall,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE tenants SET hold = NULL, hold_until_boot = NULL WHERE id = ?")
        .bind(tenant)
        .execute(&mut *connection)
        .await
        .doing("end a hold")?;
    went_on(connection, tenant, stood, at).await
}

/// Records that a tenant's scans go on after having stood so long.
pub(crate) async fn went_on(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    stood: Duration,
    at: Wall,
) -> Result<(), StoreError> {
    let body = serde_json::json!({ "stood_seconds": stood.as_secs() });
    events::append(connection, at, Kind::LaneResumed, Subject::tenant(tenant), &body).await
}

/// What goes on record of a sign-in; `failed` says why it did.
pub fn sign_in_body(failed: Option<&str>) -> serde_json::Value {
    match failed {
        None => serde_json::json!({ "call": "sign_in", "outcome": "ok" }),
        Some(why) => serde_json::json!({ "call": "sign_in", "outcome": "failed", "answer": why }),
    }
}

/// Notes whether signing in fails: since the first failure of a row.
async fn sign_in_fails(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    fails: bool,
    at: Wall,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE tenants SET sign_in_fails_since = iif(?, coalesce(sign_in_fails_since, ?), NULL) WHERE id = ?")
        .bind(fails)
        .bind(at.0)
        .bind(tenant)
        .execute(connection)
        .await
        .doing("note a sign-in")
        .map(drop)
}

impl Store {
    /// The row of a tenant, made if it is new.
    pub async fn tenant(&self, name: &TenantName) -> Result<TenantRow, StoreError> {
        let name = name.clone();
        self.write(move |connection| Box::pin(async move { ensure(connection, &name).await })).await
    }

    /// What the lane of a tenant has to know.
    pub async fn lane_memory(&self, tenant: TenantRow) -> Result<LaneMemory, StoreError> {
        let row = sqlx::query(
            "SELECT paused_at, paused_reason, paused_by, paused_until, hold, sign_in_fails_since, feed_cursor FROM tenants WHERE id = ?",
        )
        .bind(tenant)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("read a tenant")?;
        let read = || {
            let word: Option<String> = row.try_get("hold")?;
            let cursor: Option<i64> = row.try_get("feed_cursor")?;
            Ok(LaneMemory {
                pause: pause_of(&row)?,
                hold: word.and_then(|word| word.parse().ok()),
                sign_in_fails_since: row.try_get::<Option<i64>, _>("sign_in_fails_since")?.map(Wall),
                feed_cursor: cursor.map(Wall),
            })
        };
        read().doing("read a tenant")
    }

    /// Whether an operator paused the tenant.
    pub async fn pause_of(&self, tenant: TenantRow) -> Result<Option<Pause>, StoreError> {
        Ok(self.lane_memory(tenant).await?.pause)
    }

    /// Writes down what a lane waits for. Not an event: it changes by the minute.
    pub async fn set_waiting(&self, tenant: TenantRow, waiting: Waiting) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE tenants SET waiting_for = ?, waiting_until = ? WHERE id = ?")
                    .bind(waiting.what)
                    .bind(waiting.until.map(|at| at.0))
                    .bind(tenant)
                    .execute(connection)
                    .await
                    .doing("note what a tenant waits for")
                    .map(drop)
            })
        })
        .await
    }

    /// Records a sign-in, and since when they have failed: the first failure of a row is remembered over
    /// a restart, and forgotten at the next that goes well. `failed` says why. None goes well while Defender
    /// `refuses` fresh tokens.
    pub async fn record_sign_in(
        &self,
        tenant: TenantRow,
        failed: Option<String>,
        refuses: bool,
        at: Wall,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sign_in_fails(connection, tenant, failed.is_some() || refuses, at).await?;
                let body = sign_in_body(failed.as_deref());
                events::append(connection, at, Kind::CallMade, Subject::tenant(tenant), &body).await
            })
        })
        .await
    }

    /// Notes that Defender refuses fresh tokens, or has accepted one. The calls themselves are on record.
    pub async fn note_tokens(&self, tenant: TenantRow, are_refused: bool, at: Wall) -> Result<(), StoreError> {
        self.write(move |connection| Box::pin(async move { sign_in_fails(connection, tenant, are_refused, at).await }))
            .await
    }

    /// Ends a pause whose time is over. Whoever has prolonged it in the meantime is heeded.
    pub async fn end_pause(&self, tenant: TenantRow, at: Wall) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let until: Option<i64> = sqlx::query_scalar(
                    "SELECT paused_until FROM tenants WHERE id = ? AND paused_at IS NOT NULL AND paused_until <= ?",
                )
                .bind(tenant)
                .bind(at.0)
                .fetch_optional(&mut *connection)
                .await
                .doing("read the end of a pause")?;
                let Some(until) = until else { return Ok(()) };
                sqlx::query(
                    "UPDATE tenants SET paused_at = NULL, paused_reason = NULL, paused_by = NULL, paused_until = NULL
                     WHERE id = ?",
                )
                .bind(tenant)
                .execute(&mut *connection)
                .await
                .doing("end a pause")?;
                let body = serde_json::json!({ "until": Wall(until).rfc3339() });
                events::append(connection, at, Kind::Resumed, Subject::tenant(tenant), &body).await
            })
        })
        .await
    }

    /// Pauses or resumes a tenant. Returns whether that changed anything; a pause that stands takes the new
    /// end, and the new reason if one is given.
    pub async fn set_paused(
        &self,
        name: &TenantName,
        sending: Sending,
        operator: Operator,
        at: Wall,
    ) -> Result<bool, StoreError> {
        let name = name.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let tenant = ensure(connection, &name).await?;
                let (paused, reason, until) = match sending {
                    Sending::Paused(reason, until) => (true, reason, until),
                    Sending::Resumed => (false, None, None),
                };
                let by = format!("uid {}@{}", operator.login_uid.unwrap_or(operator.uid), operator.host);
                let changed = sqlx::query(
                    "UPDATE tenants SET paused_at = ?1, paused_reason = ?2, paused_by = ?3
                     WHERE id = ?4 AND (paused_at IS NULL) <> (?1 IS NULL)",
                )
                .bind(paused.then_some(at.0))
                .bind(&reason)
                .bind(paused.then_some(by))
                .bind(tenant)
                .execute(&mut *connection)
                .await
                .doing("pause or resume a tenant")?
                .rows_affected()
                    == 1;
                sqlx::query(
                    "UPDATE tenants SET paused_reason = coalesce(?1, paused_reason), paused_until = ?2
                     WHERE id = ?3 AND (paused_at IS NOT NULL OR ?2 IS NULL)",
                )
                .bind(&reason)
                .bind(until.map(|until| until.0))
                .bind(tenant)
                .execute(&mut *connection)
                .await
                .doing("note the end of a pause")?;
                let kind = if paused { Kind::Paused } else { Kind::Resumed };
                let body = serde_json::json!({ "tenant": name.as_str(), "reason": reason, "until": until.map(Wall::rfc3339), "by": operator });
                events::append(connection, at, kind, Subject::tenant(tenant), &body).await?;
                Ok(changed)
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_that_is_past_is_told_as_one_that_is_waited_for() {
        let now = Wall(100_000_000);
        let shown = |at: Wall| format!("<{}>", at.0);
        let words = [
            "minute window: next call at {until}",
            "throttled by Defender until {until} (429)",
            "`sweepd resume`, or {until}: paused",
            "nothing",
        ];
        for (ago, times) in [(-1, 1), (0, 0), (59_999, 0), (60_000, 1)] {
            let until = Some(Wall(now.0 - ago));
            for what in words {
                let told = Waiting { what: what.to_owned(), until }.told(shown, now);
                let expected = if ago < 0 && !what.contains("{until}") { 0 } else { times };
                assert_eq!(told.matches('<').count(), expected, "{told}");
                assert!(!told.contains('{'), "{told}");
                assert_eq!(told.contains("see its log"), ago >= 60_000, "{told}");
            }
        }
        let due = Waiting { what: words[0].to_owned(), until: Some(now) };
        assert_eq!(due.told(shown, now), "minute window: next call now");
        assert_eq!(Waiting { what: "nothing".to_owned(), until: None }.told(shown, now), "nothing");
    }
}
