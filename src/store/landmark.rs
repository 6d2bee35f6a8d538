//! Where the record of this state folder stood last, noted beside the database.
//!
//! The database does not know that it was put back to an older copy of itself; a file that was not copied
//! with it does. Defender's list shows what such a copy has forgotten ([`super::marks`]), but it lags: what
//! was sent in its last minutes would be sent again before they show. So calls wait for them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::events::{Head, Kind, Subject};
use super::tenants::{Operator, Sending};
use super::{Store, StoreError, WITHOUT_WAITING};
use crate::domain::id::TenantName;
use crate::domain::time::Wall;

/// The name of the note in the state folder: the number and the hash of an event.
pub const FILE: &str = "sweepd.head";

/// The note, open.
#[derive(Debug)]
pub(super) struct Landmark {
    file: File,
    path: PathBuf,
}

impl Landmark {
    fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        match opened {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(StoreError::File { path, source: Arc::new(source) }),
        }
    }

    /// What was noted last in this state folder; `None` where there is no note. Nothing is made.
    pub(super) fn noted(state_dir: &Path) -> Result<Option<Head>, StoreError> {
        let path = state_dir.join(FILE);
        match OpenOptions::new().read(true).custom_flags(WITHOUT_WAITING).open(&path) {
            Ok(file) => Ok(last(&file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::File { path, source: Arc::new(source) }),
        }
    }

    /// Notes the head of what is committed: in one write, always as long, so that a kill leaves one or the other.
    /// Not forced to disk: a note that is older than the database does no harm.
    pub(super) fn note(&self, head: &Head) -> io::Result<()> {
        self.file.write_all_at(format!("{:020} {}\n", head.seq, head.hash).as_bytes(), 0)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What was noted last; `None` where nothing was, or the machine went down before it was on disk.
fn last(file: &File) -> Option<Head> {
    let mut text = [0; 85];
    file.read_exact_at(&mut text, 0).ok()?;
    let (seq, hash) = std::str::from_utf8(&text).ok()?.split_once(' ')?;
    (hash.len() == 64).then_some(Head { seq: seq.parse().ok()?, hash: hash.to_owned() })
}

impl Store {
    /// Notes from now on where the record stands, with each commit. Where the note of the last daemon here tells
    /// of an event that this database does not hold, it is older, or another one: then these tenants are paused
    /// for `lag` first, in which Defender's list shows what is not known here. Returns whether that was so.
    pub async fn keep_landmark<'a>(
        &self,
        state_dir: &Path,
        tenants: impl Iterator<Item = &'a TenantName> + Send,
        by: &Operator,
        at: Wall,
        lag: Duration,
    ) -> Result<bool, StoreError> {
        let landmark = Landmark::open(state_dir)?;
        let lost = match last(&landmark.file) {
            Some(head) => (!self.record_has(&head).await?).then_some(head),
            None => None,
        };
        if let Some(head) = &lost {
            let reason = "the database is older than what ran here last";
            for name in tenants {
                self.pause_until(name, reason, at + lag, by, at).await?;
            }
            let body = serde_json::json!({ "missing": { "seq": head.seq, "hash": head.hash },
                "paused_until": (at + lag).rfc3339(), "by": by });
            self.record(at, Kind::Restored, Subject::default(), body).await?;
        }
        self.writer.keep(landmark).await?;
        Ok(lost.is_some())
    }

    /// Pauses a tenant until then, unless it is paused for as long already.
    pub(super) async fn pause_until(
        &self,
        name: &TenantName,
        reason: &str,
        until: Wall,
        by: &Operator,
        at: Wall,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant(name).await?;
        let longer = self.pause_of(tenant).await?.is_some_and(|pause| pause.until.is_none_or(|end| end >= until));
        if !longer {
            let sending = Sending::Paused(Some(reason.to_owned()), Some(until));
            self.set_paused(name, sending, by.clone(), at).await?;
        }
        Ok(())
    }
}

/// A restored database knows better: the note that is there tells of the one that it replaced.
pub(super) fn forget(state_dir: &Path) -> Result<(), StoreError> {
    super::backups::remove_if_there(&state_dir.join(FILE))
}
