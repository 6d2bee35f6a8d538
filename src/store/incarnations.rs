//! One daemon at a time, and what the one before left behind.
//!
//! *Incarnation, not age*: the daemon holds an exclusive lock on the state folder and raises an
//! epoch. What an older epoch left on the wire is unknown, surely; nothing of this one is. No
//! clock decides what is orphaned.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::events::{self, Kind, Subject};
use super::jobs::machine_of;
use super::slots::BudgetRow;
use super::{Doing, Store, StoreError, WITHOUT_WAITING, boots, write_lock};
use crate::domain::id::{Epoch, JobId};
use crate::domain::lookup::{Question, next_look};
use crate::domain::time::{Boot, BootId, Wall};

/// The name of the lock in the state folder.
pub(super) const LOCK: &str = "sweepd.lock";

/// The exclusive right to a state folder, until dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    fn open(state_dir: &Path) -> Result<File, StoreError> {
        let path = state_dir.join(LOCK);
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(WITHOUT_WAITING)
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
        let opened = OpenOptions::new().read(true).custom_flags(WITHOUT_WAITING).open(state_dir.join(LOCK));
        let Ok(file) = opened else { return false };
        // A shared lock, for an instant: it cannot keep a second command from looking.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The process that holds it, where the kernel tells: the daemon, or for an instant a command that looks at it.
    pub fn holder(state_dir: &Path) -> Option<u32> {
        write_lock::holder_of_file(&state_dir.join(LOCK))
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
    let budgets: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM budgets").fetch_all(&mut *connection).await.doing("find the budgets")?;
    for budget in budgets {
        boots::stamp(connection, BudgetRow(budget)).await?;
    }
    let lost = birth.boot + birth.unknown_grace;
    for statement in [
        // Another boot's, perhaps of another machine: settled by now, a lost call's grace included. By the
        // server's clock, where that does not say: not before the next sign-in.
        "UPDATE slots SET boot_id = ?3, settles_boot = ?1, settled_server = coalesce(settled_server, ?4)
         WHERE boot_id <> ?3",
        // This boot's: unsettled ones; and all that a clock which went back puts into the future.
        "UPDATE slots SET settles_boot = ?1, settled_server = coalesce(settled_server, ?4) WHERE settles_boot > ?1",
        // A silence that began before this boot ends its own length from now at the latest.
        "UPDATE silences SET until_boot = ?2 + length_ms, boot_id = ?3 WHERE boot_id <> ?3",
        // Whatever else holds a lane is probed at once by a new incarnation.
        "UPDATE tenants SET hold_until_boot = ?2 WHERE hold IS NOT NULL",
    ] {
        sqlx::query(statement)
            .bind(lost.0)
            .bind(birth.boot.0)
            .bind(&birth.boot_id.0)
            .bind(boots::NOT_KNOWN.0)
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
