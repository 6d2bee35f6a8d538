//! The record: an append-only, hash-chained list of what happened.
//!
//! `hash = SHA-256("<previous hash, hex>\n<seq>\n<at>\n<kind>\n<tenant id>\n<job id>\n<machine>\n<body>")`
//! with empty text for what is absent, and 64 zeros before the first event. An auditor can recompute
//! it with `sha256sum`. A chain shows that nothing inside was changed; that nothing was cut off
//! or rewritten as a whole is shown by a head that was kept outside.

use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use sqlx::{Row, SqliteConnection};

use super::{Doing, Store, StoreError, View};
use crate::domain::id::{JobId, MachineId};
use crate::domain::time::Wall;

/// What an event is about. The words stand in the record for ever: add, never rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after the thing that happened")]
pub enum Kind {
    DaemonStarted,
    DaemonStopped,
    FileTaken,
    FileRejected,
    SweepFinished,
    AttemptWritten,
    AttemptAnswered,
    AttemptResolved,
    JobMoved,
    ActionSeen,
    CallMade,
    Paused,
    Resumed,
    SweepReleased,
    SweepCancelled,
    SweepRetried,
    CancelAsked,
    CancelWritten,
    CancelEnded,
    BackedUp,
    Restored,
    LaneStopped,
    LaneResumed,
    MarkUnknown,
    Reconciled,
    Archived,
}

crate::domain::sweep::words!(Kind {
    DaemonStarted = "daemon_started",
    DaemonStopped = "daemon_stopped",
    FileTaken = "file_taken",
    FileRejected = "file_rejected",
    SweepFinished = "sweep_finished",
    AttemptWritten = "attempt_written",
    AttemptAnswered = "attempt_answered",
    AttemptResolved = "attempt_resolved",
    JobMoved = "job_moved",
    ActionSeen = "action_seen",
    CallMade = "call_made",
    Paused = "paused",
    Resumed = "resumed",
    SweepReleased = "sweep_released",
    SweepCancelled = "sweep_cancelled",
    SweepRetried = "sweep_retried",
    CancelAsked = "cancel_asked",
    CancelWritten = "cancel_written",
    CancelEnded = "cancel_ended",
    BackedUp = "backed_up",
    Restored = "restored",
    LaneStopped = "lane_stopped",
    LaneResumed = "lane_resumed",
    MarkUnknown = "mark_unknown",
    Reconciled = "reconciled",
    Archived = "archived",
});

/// What an event concerns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject {
    /// The row of `tenants`.
    pub tenant: Option<i64>,
    /// The job.
    pub job: Option<JobId>,
    /// The machine.
    pub machine: Option<MachineId>,
}

impl Subject {
    /// A tenant as a whole.
    pub const fn tenant(tenant: i64) -> Self {
        Self { tenant: Some(tenant), job: None, machine: None }
    }
}

/// The last event of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number; zero when the record is empty.
    pub seq: i64,
    /// Its hash, 64 hexadecimal digits.
    pub hash: String,
}

impl Head {
    /// What stands before the first event.
    pub fn nothing() -> Self {
        Self { seq: 0, hash: NOTHING.to_owned() }
    }
}

/// An event as `audit export` prints it: every part of what its hash is made of, verbatim.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the parts of the hash, as the module names them")]
pub struct Exported {
    pub seq: i64,
    /// Milliseconds since 1970, as it is hashed.
    pub at: i64,
    /// The same, for people.
    pub time: String,
    pub kind: String,
    pub tenant_id: Option<i64>,
    pub job_id: Option<i64>,
    pub machine_id: Option<String>,
    /// The text that is hashed; JSON itself.
    pub body: String,
    pub hash: String,
}

const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

impl Exported {
    /// Whether it is the event after `previous`, unchanged.
    pub fn follows(&self, previous: &Head) -> bool {
        let machine = self.machine_id.as_ref().map(|id| id.parse::<MachineId>());
        let machine = match machine {
            Some(Err(_)) => return false,
            Some(Ok(id)) => Some(id),
            None => None,
        };
        let subject = Subject { tenant: self.tenant_id, job: self.job_id.map(JobId), machine };
        let hash = link(&previous.hash, self.seq, Wall(self.at), &self.kind, &subject, &self.body);
        self.seq == previous.seq + 1 && self.hash == hex(&hash)
    }
}

fn link(previous: &str, seq: i64, at: Wall, kind: &str, subject: &Subject, body: &str) -> [u8; 32] {
    let mut text = format!("{previous}\n{seq}\n{}\n{kind}\n", at.0);
    for part in [
        subject.tenant.map(|tenant| tenant.to_string()),
        subject.job.map(|job| job.to_string()),
        subject.machine.map(|machine| machine.to_string()),
    ] {
        text.push_str(part.as_deref().unwrap_or_default());
        text.push('\n');
    }
    text.push_str(body);
    Sha256::digest(text.as_bytes()).into()
}

/// Appends an event within the caller's transaction: it stands if and only if what it tells of does. Of a body that is
/// longer than its kind may have, the rest is cut ([`super::body`]).
pub(crate) async fn append(
    connection: &mut SqliteConnection,
    at: Wall,
    kind: Kind,
    subject: Subject,
    body: &serde_json::Value,
) -> Result<(), StoreError> {
    // Inside the transaction: another process may have appended since ours last looked.
    let head = head(connection).await?;
    let seq = head.seq + 1;
    let body = super::body::text_of(kind, body);
    let hash = link(&head.hash, seq, at, kind.as_str(), &subject, &body);
    sqlx::query(
        "INSERT INTO events (seq, at, kind, tenant_id, job_id, machine, body, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(seq)
    .bind(at.0)
    .bind(kind.as_str())
    .bind(subject.tenant)
    .bind(subject.job.map(|job| job.0))
    .bind(subject.machine.map(|machine| machine.bytes().to_vec()))
    .bind(body)
    .bind(hash.to_vec())
    .execute(connection)
    .await
    .doing("append to the record")
    .map(drop)
}

pub(crate) async fn head(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let last = sqlx::query("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")
        .fetch_optional(connection)
        .await
        .doing("read the record's head")?;
    match last {
        None => Ok(Head { seq: 0, hash: NOTHING.to_owned() }),
        Some(row) => {
            let hash: Vec<u8> = row.try_get("hash").doing("read the record's head")?;
            Ok(Head { seq: row.try_get("seq").doing("read the record's head")?, hash: hex(&hash) })
        }
    }
}

/// An event as it is shown.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// Its place in the record.
    pub seq: i64,
    /// When it was written, RFC 3339.
    pub at: String,
    /// What happened.
    pub kind: String,
    /// How.
    pub body: serde_json::Value,
}

impl View {
    /// Where the record ends now.
    pub async fn record_head(&self) -> Result<Head, StoreError> {
        head(&mut *self.reader().await?).await
    }
}

impl Store {
    /// Appends an event of its own.
    pub async fn record(
        &self,
        at: Wall,
        kind: Kind,
        subject: Subject,
        body: serde_json::Value,
    ) -> Result<(), StoreError> {
        self.write(move |connection| Box::pin(async move { append(connection, at, kind, subject, &body).await })).await
    }
}

impl View {
    /// Whether the record has this very event.
    pub(super) async fn record_has(&self, event: &Head) -> Result<bool, StoreError> {
        if event.seq == 0 {
            return Ok(true);
        }
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM events WHERE seq = ? AND hash = unhex(?))")
            .bind(event.seq)
            .bind(&event.hash)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("look for an event")
    }

    /// Hands every event after `after`, up to `last` if that is given, to `each`: oldest first, as it was hashed.
    /// Without `last`, what was archived is left out.
    pub async fn export_record(
        &self,
        after: i64,
        last: Option<i64>,
        mut each: impl FnMut(Exported) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, StoreError> {
        let mut reader = self.reader().await?;
        let after = match last {
            Some(_) => after,
            None => after.max(super::archives::archived(&mut reader).await?.seq),
        };
        let mut rows = sqlx::query(
            "SELECT seq, at, kind, tenant_id, job_id, machine, body, hash FROM events WHERE seq > ? AND seq <= ? ORDER BY seq",
        )
        .bind(after)
        .bind(last.unwrap_or(i64::MAX))
        .fetch(&mut *reader);
        while let Some(row) = rows.try_next().await.doing("export the record")? {
            if let Err(error) = each(exported(&row).doing("export the record")?) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// The events of a machine, oldest first: all, or so many of the last.
    pub async fn events_of_machine(
        &self,
        tenant: i64,
        machine: MachineId,
        last: Option<u32>,
    ) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, at, kind, body FROM events WHERE tenant_id = ? AND machine = ? ORDER BY seq DESC LIMIT ?",
        )
        .bind(tenant)
        .bind(machine.bytes().to_vec())
        .bind(last.map_or(-1, i64::from))
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("read a machine's events")?;
        rows.iter().rev().map(event).collect::<Result<_, _>>().doing("read a machine's events")
    }
}

fn event(row: &sqlx::sqlite::SqliteRow) -> Result<Event, sqlx::Error> {
    let body: String = row.try_get("body")?;
    Ok(Event {
        seq: row.try_get("seq")?,
        at: Wall(row.try_get("at")?).rfc3339(),
        kind: row.try_get("kind")?,
        body: serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body)),
    })
}

pub(super) fn exported(row: &sqlx::sqlite::SqliteRow) -> Result<Exported, sqlx::Error> {
    let machine: Option<Vec<u8>> = row.try_get("machine")?;
    let hash: Vec<u8> = row.try_get("hash")?;
    let at = row.try_get("at")?;
    Ok(Exported {
        seq: row.try_get("seq")?,
        at,
        time: Wall(at).rfc3339(),
        kind: row.try_get("kind")?,
        tenant_id: row.try_get("tenant_id")?,
        job_id: row.try_get("job_id")?,
        machine_id: machine.map(|machine| hex(&machine)),
        body: row.try_get("body")?,
        hash: hex(&hash),
    })
}
