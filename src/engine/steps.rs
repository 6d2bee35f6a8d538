//! The steps between seeing a file and being done with it, each with a name. After any of them the daemon may be
//! killed, and the next start does the rest: `tests/it/files/kill_points.rs` shows it for each.
//!
//! A build with debug assertions kills itself at the step that `SWEEPD_KILLED_AT` names (`moved`, or `appended:2` for
//! the second time), and stops at the one that `SWEEPD_STOPPED_AT` names, until it is continued. A release build knows
//! neither variable nor a way to be asked.

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The file was found ready, and nothing of it was read.
    Seen,
    /// It was opened and hashed.
    Hashed,
    /// Its first lines were read.
    Read,
    /// A long file: its sweep stands in the database, without lines.
    Begun,
    /// A long file: so many more lines stand in the database.
    Appended,
    /// A long file: lines that were appended have their keys.
    Keyed,
    /// All of it is in the database, its receipt included.
    Committed,
    /// A file that cannot be used: this is on record.
    Recorded,
    /// The receipt is on disk, under a name that nobody looks for.
    ReceiptAside,
    /// Our copy of the file is on disk beside it, under a name that nobody looks for.
    CopyAside,
    /// The file that was dropped is gone.
    Removed,
    /// The copy has its name.
    Moved,
    /// The receipt has its name.
    Receipted,
    /// The database knows that the file was moved.
    Filed,
    /// The sweep's jobs are ready.
    Released,
    /// The files of an archive are there, and nobody knows of them.
    ArchiveWritten,
    /// The archive is on record.
    ArchiveRecorded,
    /// Some of what was archived was removed.
    ArchiveRemoved,
}

impl Step {
    /// Every step that a file comes to, in order.
    pub const ALL: [Self; 15] = [
        Self::Seen,
        Self::Hashed,
        Self::Read,
        Self::Begun,
        Self::Appended,
        Self::Keyed,
        Self::Committed,
        Self::Recorded,
        Self::ReceiptAside,
        Self::CopyAside,
        Self::Removed,
        Self::Moved,
        Self::Receipted,
        Self::Filed,
        Self::Released,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Hashed => "hashed",
            Self::Read => "read",
            Self::Begun => "begun",
            Self::Appended => "appended",
            Self::Keyed => "keyed",
            Self::Committed => "committed",
            Self::Recorded => "recorded",
            Self::ReceiptAside => "receipt_aside",
            Self::CopyAside => "copy_aside",
            Self::Removed => "removed",
            Self::Moved => "moved",
            Self::Receipted => "receipted",
            Self::Filed => "filed",
            Self::Released => "released",
            Self::ArchiveWritten => "archive_written",
            Self::ArchiveRecorded => "archive_recorded",
            Self::ArchiveRemoved => "archive_removed",
        }
    }
}

/// This step has been taken.
#[cfg(not(debug_assertions))]
pub const fn passed(_: Step) {}

/// This step has been taken.
#[cfg(debug_assertions)]
pub fn passed(step: Step) {
    use nix::sys::signal::{Signal, kill};
    use std::sync::atomic::{AtomicU32, Ordering};
    static TIMES: AtomicU32 = AtomicU32::new(0);
    for (variable, signal) in [("SWEEPD_KILLED_AT", Signal::SIGKILL), ("SWEEPD_STOPPED_AT", Signal::SIGSTOP)] {
        let Ok(asked) = std::env::var(variable) else { continue };
        let (name, nth) = asked.split_once(':').unwrap_or((&asked, "1"));
        if name == step.as_str() && Ok(TIMES.fetch_add(1, Ordering::Relaxed) + 1) == nth.parse() {
            kill(nix::unistd::Pid::this(), signal).unwrap_or_else(|error| tracing::error!(%error, "it goes on"));
        }
    }
}
