//! One daemon at a time, and what the one before left behind.
//!
//! *Incarnation, not age*: the daemon holds an exclusive lock on the state folder and raises an
//! epoch. What an older epoch left on the wire is unknown, surely; nothing of this one is. No
//! clock decides what is orphaned.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::events::{self, Kind, Subject};
use super::jobs::machine_of;
use super::slots::BudgetRow;
use super::{Doing, Store, StoreError};
use crate::domain::id::{Epoch, JobId};
use crate::domain::lookup::{Question, next_look};
use crate::domain::time::{Boot, BootId, ServerTime, Wall, millis};

/// The name of the lock in the state folder.
const LOCK: &str = "sweepd.lock";

/// The exclusive right to a state folder, until dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    fn open(state_dir: &Path) -> Result<File, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = state_dir.join(LOCK);
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StoreError::File { path, source: Arc::new(source) })
    }

    /// Takes the lock; `None` when another daemon holds it.
    pub fn take(state_dir: &Path) -> Result<Option<Self>, StoreError> {
        let file = Self::open(state_dir)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => {
                Err(StoreError::File { path: state_dir.join(LOCK), source: Arc::new(source) })
            }
        }
    }

    /// Whether a daemon holds the lock now.
    pub fn is_held(state_dir: &Path) -> bool {
        let Ok(file) = OpenOptions::new().read(true).open(state_dir.join(LOCK)) else {
            return false;
        };
        // A shared lock, for an instant: it cannot keep a second command from looking.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

/// What a new incarnation has to know about its start.
#[derive(Clone, Debug)]
pub struct Birth {
    /// Wall clock.
    pub at: Wall,
    /// Boot clock.
    pub boot: Boot,
    /// Which boot.
    pub boot_id: BootId,
    /// How long a call that was given up may still arrive.
    pub unknown_grace: Duration,
    /// The longest time a lost call is looked for.
    pub lookup_horizon: Duration,
    /// This program's version.
    pub version: &'static str,
}

/// What was found at the start.
#[derive(Clone, Copy, Debug)]
pub struct Inheritance {
    /// The epoch of this incarnation.
    pub epoch: Epoch,
    /// Calls that an older one left on the wire: unknown now, and looked up.
    pub lost_calls: u64,
}

impl Store {
    /// Begins an incarnation: raises the epoch, settles what older ones left on the wire, and
    /// carries the ledger over to this boot's clock.
    pub async fn begin_incarnation(&self, birth: Birth) -> Result<Inheritance, StoreError> {
        self.write(move |connection| Box::pin(async move { begin(connection, &birth).await })).await
    }

    /// Notes what time a sign-in server has. Slots of earlier boots get the age that they have by its
    /// clock, if that is more than the time since this boot.
    ///
    /// Returns by how much this boot's clock jumped ahead since the server was asked last: by so much
    /// the slots that had settled are younger than they seemed, and are made so.
    pub async fn server_time(
        &self,
        boot_id: &BootId,
        budget: BudgetRow,
        seen: ServerTime,
        unknown_grace: Duration,
    ) -> Result<Duration, StoreError> {
        let boot_id = boot_id.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let ahead = jumped(connection, &boot_id, budget, seen, unknown_grace).await?;
                sqlx::query(
                    "INSERT INTO boots (boot_id, budget_id, asked, answered, date_at) VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT DO UPDATE SET asked = excluded.asked, answered = excluded.answered,
                         date_at = excluded.date_at",
                )
                .bind(&boot_id.0)
                .bind(budget.0)
                .bind(seen.asked.0)
                .bind(seen.answered.0)
                .bind(seen.date.0)
                .execute(&mut *connection)
                .await
                .doing("note the server's time")?;
                sqlx::query(
                    "UPDATE slots SET settles_boot = min(settles_boot, ?1 - max(?2 - settled_server, 0)),
                         settled_server = NULL
                     WHERE settled_server IS NOT NULL AND budget_id = ?3",
                )
                .bind(seen.answered.0)
                .bind(seen.earliest().0)
                .bind(budget.0)
                .execute(connection)
                .await
                .doing("age the slots of earlier boots")?;
                Ok(ahead)
            })
        })
        .await
    }

    /// Notes whether a registration's servers have a clock that runs as this machine's does. One that
    /// does not tells no jumps.
    pub async fn server_runs(&self, boot_id: &BootId, budget: BudgetRow, runs: bool) -> Result<(), StoreError> {
        let boot_id = boot_id.clone();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE boots SET runs = ? WHERE boot_id = ? AND budget_id = ?")
                    .bind(runs)
                    .bind(&boot_id.0)
                    .bind(budget.0)
                    .execute(connection)
                    .await
                    .doing("note the pace of the server's clock")
                    .map(drop)
            })
        })
        .await
    }

    /// Notes that this incarnation ended in order.
    pub async fn end_incarnation(&self, epoch: Epoch, at: Wall) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE incarnations SET stopped_at = ? WHERE epoch = ?")
                    .bind(at.0)
                    .bind(epoch.0)
                    .execute(&mut *connection)
                    .await
                    .doing("end the incarnation")?;
                let body = serde_json::json!({ "epoch": epoch.0 });
                events::append(connection, at, Kind::DaemonStopped, Subject::default(), &body).await
            })
        })
        .await
    }
}

/// By how much this boot's clock jumped ahead since the server was asked last; slots that have settled
/// are moved by as much, to what a call that is lost now would have at the most, and so are the ends of silences.
async fn jumped(
    connection: &mut SqliteConnection,
    boot_id: &BootId,
    budget: BudgetRow,
    seen: ServerTime,
    unknown_grace: Duration,
) -> Result<Duration, StoreError> {
    let before =
        sqlx::query("SELECT asked, answered, date_at FROM boots WHERE boot_id = ? AND budget_id = ? AND runs = 1")
            .bind(&boot_id.0)
            .bind(budget.0)
            .fetch_optional(&mut *connection)
            .await
            .doing("read the server's time")?;
    let Some(before) = before else { return Ok(Duration::ZERO) };
    let read = || {
        let (asked, answered) = (Boot(before.try_get("asked")?), Boot(before.try_get("answered")?));
        Ok(ServerTime { asked, answered, date: Wall(before.try_get("date_at")?) })
    };
    let ahead = seen.boot_ahead_since(&read().doing("read the server's time")?);
    if !ahead.is_zero() {
        sqlx::query(
            "UPDATE slots SET settles_boot = min(settles_boot + ?1, max(settles_boot, ?2))
             WHERE budget_id = ?3 AND settles_boot < 9223372036854775807",
        )
        .bind(millis(ahead))
        // A call that was given up just before the jump may still arrive.
        .bind((seen.answered + unknown_grace).0)
        .bind(budget.0)
        .execute(&mut *connection)
        .await
        .doing("make slots younger")?;
        sqlx::query("UPDATE silences SET until_boot = min(until_boot + ?1, ?2 + length_ms) WHERE budget_id = ?3")
            .bind(millis(ahead))
            .bind(seen.answered.0)
            .bind(budget.0)
            .execute(connection)
            .await
            .doing("make silences end later")?;
    }
    Ok(ahead)
}

async fn begin(connection: &mut SqliteConnection, birth: &Birth) -> Result<Inheritance, StoreError> {
    let epoch: i64 = sqlx::query_scalar(
        "INSERT INTO incarnations (epoch, started_at, started_boot, boot_id, version)
         SELECT coalesce(max(epoch), 0) + 1, ?, ?, ?, ? FROM incarnations RETURNING epoch",
    )
    .bind(birth.at.0)
    .bind(birth.boot.0)
    .bind(&birth.boot_id.0)
    .bind(birth.version)
    .fetch_one(&mut *connection)
    .await
    .doing("raise the epoch")?;
    carry_ledger_over(connection, birth).await?;
    let lost_calls = adopt_lost_calls(connection, birth).await?;
    let body = serde_json::json!({
        "epoch": epoch, "version": birth.version, "boot_id": birth.boot_id.0, "lost_calls": lost_calls,
    });
    events::append(connection, birth.at, Kind::DaemonStarted, Subject::default(), &body).await?;
    Ok(Inheritance { epoch: Epoch(epoch), lost_calls })
}

/// Brings slots and silences of other boots onto this boot's clock, and settles what is unsettled.
///
/// What happened on another boot is read as if it had happened now, whatever the wall clock says, until
/// a sign-in tells the time ([`Store::server_time`]): the folder may come from another machine, whose
/// last call may be a second old. What was unsettled may still be delivered for `unknown_grace`.
async fn carry_ledger_over(connection: &mut SqliteConnection, birth: &Birth) -> Result<(), StoreError> {
    let grace = millis(birth.unknown_grace);
    let lost = birth.boot.0.saturating_add(grace);
    let latest = ServerTime { asked: birth.boot, answered: birth.boot, date: Wall(0) }.latest();
    for statement in [
        // By the clock of the sign-in server, where one was seen on that boot.
        "UPDATE slots SET settled_server = boots.date_at + ?4 + (slots.settles_boot - boots.asked) FROM boots
         WHERE boots.boot_id = slots.boot_id AND boots.budget_id = slots.budget_id AND slots.boot_id <> ?3
           AND boots.runs = 1 AND slots.settled_server IS NULL AND slots.settles_boot < 9223372036854775807",
        // Another boot's, perhaps of another machine: settled by now, a lost call's grace included.
        "UPDATE slots SET boot_id = ?3, settles_boot = ?1 WHERE boot_id <> ?3",
        // This boot's: unsettled ones; and a bound for a clock that went back all the same.
        "UPDATE slots SET settles_boot = ?1 WHERE settles_boot > ?1",
        // A silence that began before this boot ends its own length from now at the latest.
        "UPDATE silences SET until_boot = ?2 + length_ms, boot_id = ?3 WHERE boot_id <> ?3",
        // Whatever else holds a lane is probed at once by a new incarnation.
        "UPDATE tenants SET hold_until_boot = ?2 WHERE hold IS NOT NULL",
    ] {
        sqlx::query(statement)
            .bind(lost)
            .bind(birth.boot.0)
            .bind(&birth.boot_id.0)
            .bind(latest.0)
            .execute(&mut *connection)
            .await
            .doing("carry the ledger over")?;
    }
    Ok(())
}

async fn adopt_lost_calls(connection: &mut SqliteConnection, birth: &Birth) -> Result<u64, StoreError> {
    const WHY: &str = "sweepd ended while the call was on the wire";
    let look = |question| next_look(question, birth.boot, 0, birth.lookup_horizon, birth.boot);
    let lost = sqlx::query(
        "UPDATE attempts SET settled_at = ?1, outcome = 'unknown', question = 'effect', asked_boot = ?2,
             looks = 0, next_look_boot = ?3, answer = ?4
         WHERE settled_at IS NULL RETURNING id, tenant_id, job_id, machine",
    )
    .bind(birth.at.0)
    .bind(birth.boot.0)
    .bind(look(Question::Effect).0)
    .bind(WHY)
    .fetch_all(&mut *connection)
    .await
    .doing("adopt lost calls")?;
    for row in &lost {
        let read = || {
            let subject = Subject {
                tenant: row.try_get("tenant_id")?,
                job: Some(JobId(row.try_get("job_id")?)),
                machine: Some(machine_of(row.try_get("machine")?)?),
            };
            Ok((subject, row.try_get::<String, _>("id")?))
        };
        let (subject, attempt) = read().doing("read a lost call")?;
        let body = serde_json::json!({ "attempt": attempt, "outcome": "unknown", "answer": WHY });
        events::append(connection, birth.at, Kind::AttemptAnswered, subject, &body).await?;
    }
    // Older questions start over: their times were on another incarnation's, maybe another boot's, clock.
    sqlx::query(
        "UPDATE attempts SET asked_boot = ?1, looks = 0, next_look_boot = ?2
         WHERE question IS NOT NULL AND resolved IS NULL",
    )
    .bind(birth.boot.0)
    .bind(look(Question::Effect).0)
    .execute(&mut *connection)
    .await
    .doing("adopt open questions")?;
    Ok(lost.len() as u64)
}
