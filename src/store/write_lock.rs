//! Who keeps others from writing to the database: the daemon's writer waits for that process, and an operator wants to
//! know which one it is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fmt, fs};

use sqlx::SqliteConnection;

use super::backups::beside;
use super::{Doing, FILE, StoreError};
use crate::domain::shown::on_one_line;

/// The byte of the `-shm` file that is locked by whoever writes (<https://www.sqlite.org/walformat.html>, section 2.3.1).
const WRITE_BYTE: u64 = 120;

/// What is locked, as the kernel tells everybody.
const LOCKS: &str = "/proc/locks";

/// A process that holds the write lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// What it is called, where that may be read.
    pub program: Option<String>,
}

impl Holder {
    /// Who holds the write lock of the database in this folder; `None` if nobody does, or where the kernel does not tell.
    ///
    /// The lock file itself is not opened: to close it would end the locks of this process.
    pub fn of(state_dir: &Path) -> Option<Self> {
        let shared = fs::metadata(beside(&state_dir.join(FILE), "-shm")).ok()?;
        let pid = holder(&fs::read_to_string(LOCKS).ok()?, "POSIX", shared.ino(), WRITE_BYTE)?;
        let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Some(Self { pid, program: program.map(|name| name.trim_end().to_owned()) })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.as_deref().map(|name| format!(" (`{}`)", on_one_line(name, 40))).unwrap_or_default();
        write!(f, "process {}{program} holds the database's write lock", self.pid)
    }
}

/// The process that has locked a file as a whole (`flock`), whatever else has it open.
pub(super) fn holder_of_file(path: &Path) -> Option<u32> {
    holder(&fs::read_to_string(LOCKS).ok()?, "FLOCK", fs::metadata(path).ok()?.ino(), 0)
}

/// The process that has locked this byte of the file with this number, in one of the two ways. Numbers are those of one
/// file system; another one's file with the same number, locked at the same byte, does no more than name a process too
/// many.
fn holder(locks: &str, way: &str, inode: u64, byte: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        // `1: POSIX  ADVISORY  WRITE 4711 fe:00:5669009 120 120`; who waits for a lock has `->` in front.
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, _, mode) = (words.next()?, words.next()?, words.next()?);
        let (pid, file, first, last) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let is_ours = kind == way && mode == "WRITE" && file.rsplit(':').next()?.parse() == Ok(inode);
        let last = if last == "EOF" { u64::MAX } else { last.parse().ok()? };
        let covers = first.parse::<u64>().ok()? <= byte && byte <= last;
        (is_ours && covers).then(|| pid.parse().ok())?
    })
}

/// Whether the writer waits to begin a transaction, and which one: told without the database, which does not answer then.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Odd from the first request for the lock until a transaction has begun.
    transaction: AtomicU64,
    is_probe_queued: AtomicBool,
}

impl Beginning {
    /// Begins a transaction. SQLite gives a request up after its timeout (`SQLITE_BUSY`), although the other process
    /// still has the lock: so the next request goes on with the same wait.
    pub(super) async fn begin(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        self.0.transaction.fetch_or(1, Ordering::SeqCst);
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(connection).await.doing("begin a transaction").map(drop);
        if !begun.as_ref().is_err_and(StoreError::is_busy) {
            self.0.transaction.fetch_add(1, Ordering::SeqCst);
        }
        begun
    }

    /// A number that is another with each transaction, while one waits to begin.
    pub(super) fn waits(&self) -> Option<u64> {
        let n = self.0.transaction.load(Ordering::SeqCst);
        (n % 2 == 1).then_some(n)
    }

    /// Notes whether a probe is in the writer's queue. Returns whether one was.
    pub(super) fn set_probe_queued(&self, is_queued: bool) -> bool {
        self.0.is_probe_queued.swap(is_queued, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::super::{Store, Unit};
    use super::*;
    use crate::domain::time::Wall;

    #[test]
    fn the_holder_is_whoever_locked_the_byte_of_the_writer() {
        let locks = "1: FLOCK  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     2: POSIX  ADVISORY  READ 12 fe:00:77 123 123\n\
                     3: POSIX  ADVISORY  WRITE 13 fe:00:78 120 120\n\
                     4: -> POSIX  ADVISORY  WRITE 14 fe:00:77 120 120\n\
                     5: POSIX  ADVISORY  WRITE 15 fe:00:77 120 120\n\
                     nonsense\n";
        assert_eq!(holder(locks, "POSIX", 77, WRITE_BYTE), Some(15));
        assert_eq!(holder(locks, "POSIX", 79, WRITE_BYTE), None);
        assert_eq!(holder(locks, "FLOCK", 77, 0), Some(11));
        assert_eq!(holder("1: POSIX  ADVISORY  WRITE 16 00:1f:5 0 EOF\n", "POSIX", 5, WRITE_BYTE), Some(16));
        let checkpoint = "1: POSIX  ADVISORY  WRITE 16 00:1f:5 121 122\n";
        assert_eq!(holder(checkpoint, "POSIX", 5, WRITE_BYTE), None);
    }

    /// Writes nothing.
    async fn write(store: &Store) -> Result<(), StoreError> {
        store.write(|_| Box::pin(async { Ok(()) })).await
    }

    fn short_timeout(connection: &mut SqliteConnection) -> Unit<'_, ()> {
        Box::pin(async {
            sqlx::query("PRAGMA busy_timeout = 1").execute(connection).await.doing("set the timeout").map(drop)
        })
    }

    #[tokio::test]
    async fn a_wait_outlasts_the_timeout_until_the_lock_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Wall(0)).await.unwrap();
        store.writer.outside(short_timeout).await.unwrap();
        assert_eq!(store.waits_to_begin(), None);
        let mut other = SqliteConnectOptions::new().filename(folder.path().join(FILE)).connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        assert!(write(&store).await.unwrap_err().is_busy());
        let waits = store.waits_to_begin();
        assert!(waits.is_some(), "the timeout is over, and the other process still has the lock");
        assert!(write(&store).await.unwrap_err().is_busy());
        assert_eq!(store.waits_to_begin(), waits, "it is the same wait");
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        write(&store).await.unwrap();
        assert_eq!(store.waits_to_begin(), None);
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        write(&store).await.unwrap_err();
        assert_ne!(store.waits_to_begin(), waits, "it is another wait");
    }
}
