//! SQLite: the queue, the budget and the record. The only SQL of sweepd, a file per table family.
//!
//! One connection writes and groups what waits into one commit; a few read. Commands of the
//! command line are a second writer in a process of their own: every write begins with
//! `BEGIN IMMEDIATE` and waits for the other.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Sqlite, SqliteConnection};

use crate::domain::time::Wall;
use schema::{Candidate, Standing};
use under_way::{Operation, UnderWay};

pub mod actions;
pub mod archives;
pub mod attempts;
pub mod backups;
mod body;
mod boots;
pub mod cancellations;
mod chunks;
pub mod claims;
pub mod errands;
pub mod events;
pub mod incarnations;
pub mod ineligible;
pub mod jobs;
mod landmark;
pub mod lists;
pub mod long_files;
pub mod marks;
mod objects;
pub mod outlook;
mod privacy;
pub mod recent;
pub mod record;
pub mod retries;
pub mod schema;
pub mod settle;
pub mod slots;
pub mod status;
pub mod sweeps;
pub mod tenants;
#[cfg(test)]
mod tests;
pub mod throttles;
pub mod unasked;
mod under_way;
pub mod unsent;
pub mod withdrawals;
pub mod write_lock;
mod writer;

pub use landmark::FILE as HEAD_FILE;
pub use writer::Unit;

/// The name of the database in the state folder.
pub const FILE: &str = "sweepd.db";

/// How long to wait for the other writer, or for a free reader. Minutes: a command must outwait a
/// long commit, and under a fast clock a minute is a second.
const PATIENCE: Duration = Duration::from_mins(10);

/// For a file of the state folder that is not SQLite's: a pipe in its place would be waited for without end, and a stop
/// too.
const WITHOUT_WAITING: i32 = nix::fcntl::OFlag::O_NONBLOCK.bits();

/// The first SQLite without the WAL-reset corruption (3.7.0 to 3.51.2).
const SQLITE_AT_LEAST: (u32, u32, u32) = (3, 51, 3);

/// What can go wrong in the store. Internal: an operator meets it as "the database …".
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite, or the way to it, failed.
    #[error("{doing}: {source}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: Arc<sqlx::Error>,
    },
    /// The database is not one that this version of sweepd may use: says which file, why, and what to do.
    #[error("{0}")]
    Version(String),
    /// A guarded update did not touch exactly one row, or a state machine refused: nothing was
    /// written.
    #[error("{0}")]
    Guard(String),
    /// The writer has ended.
    #[error("the database is closed")]
    Closed,
    /// A file of the store could not be used.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
}

impl StoreError {
    /// What to do about what SQLite said, where somebody can do something.
    pub fn remedy(&self) -> Option<&'static str> {
        match self.code()? {
            8 => Some("its folder, its file or its disk is read-only here"),
            11 | 26 => Some("the file is damaged, or no database: put a backup in its place with `sweepd restore`"),
            13 => Some("make room on the disk"),
            _ => None,
        }
    }

    /// Whether SQLite found a file to be damaged, or no database: `SQLITE_CORRUPT`, `NOTADB`.
    pub fn is_damage(&self) -> bool {
        matches!(self.code(), Some(11 | 26))
    }

    /// Whether another connection has what was asked for, and had it for as long as SQLite waits: `SQLITE_BUSY`.
    pub fn is_busy(&self) -> bool {
        self.code() == Some(5)
    }

    /// The code of SQLite; the low byte of an extended one.
    fn code(&self) -> Option<u32> {
        let Self::Database { source, .. } = self else { return None };
        let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code)?;
        code.parse::<u32>().ok().map(|code| code & 0xff)
    }

    /// Whether the same write may hold later: the disk is full or broken, or another writer is at it.
    /// Anything else is an error of ours, which no repetition mends.
    pub fn may_pass(&self) -> bool {
        /// `SQLITE_BUSY`, `LOCKED`, `READONLY`, `IOERR`, `FULL`, `CANTOPEN`.
        const PASSING: [u32; 6] = [5, 6, 8, 10, 13, 14];
        match self {
            Self::Database { source, .. } => {
                let code = self.code().is_some_and(|code| PASSING.contains(&code));
                code || matches!(**source, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut)
            }
            Self::File { .. } => true,
            Self::Version(_) | Self::Guard(_) | Self::Closed => false,
        }
    }
}

/// Says what was being done when SQLite failed.
pub(crate) trait Doing<T> {
    /// Wraps the error with `what`, an infinitive without "to".
    fn doing(self, what: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, what: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Database { doing: what, source: Arc::new(source) })
    }
}

/// The database of one state folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: writer::Writer,
    view: View,
    path: PathBuf,
}

/// The same, to be looked at: whoever holds no more than this cannot write, since there is no method that does and
/// SQLite opened the file for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    readers: SqlitePool,
    under_way: UnderWay,
}

impl Deref for Store {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

/// A connection to read with. Until it is dropped, something is under way.
pub(crate) struct Reader {
    connection: PoolConnection<Sqlite>,
    _operation: Operation,
}

impl Deref for Reader {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

/// How a file is opened that may be anybody's: to be read, and with nothing of it believed.
fn looking(path: &Path) -> SqliteConnectOptions {
    careful(path).read_only(true)
}

fn options(path: &Path) -> SqliteConnectOptions {
    careful(path).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full)
}

/// What every connection has: a schema that somebody wrote into the file calls no function that does harm, and a damaged
/// page is found when it is read.
fn careful(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .foreign_keys(true)
        .busy_timeout(PATIENCE)
        .disable_statement_logging()
}

/// Connects to write. It reads at once: who has not opened the log does not write it back into the file when it is the
/// last to close, and who reads alone cannot.
async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let mut connection = options(path).connect().await.doing("open the database")?;
    sqlx::query("SELECT count(*) FROM sqlite_schema")
        .execute(&mut connection)
        .await
        .doing("read the database's schema")
        .map(|_| connection)
}

/// Makes the database file readable by its owner alone, before SQLite writes to it; the WAL takes
/// over its mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| StoreError::File { path: path.to_owned(), source: Arc::new(source) })
}

impl Store {
    /// Opens the database in `state_dir`, creating and migrating it. For the daemon, which holds
    /// the lock on the folder.
    pub async fn open(state_dir: &Path, at: Wall) -> Result<Self, StoreError> {
        Self::open_with(state_dir, &schema::MIGRATIONS, at).await
    }

    /// The same, with the schema of `migrations`. A database that has an older one is copied before it is
    /// migrated, which is put on record. One that has a newer one, that lacks an object or has one too many, or that
    /// is not sweepd's, is refused, and stays as it is.
    pub async fn open_with(state_dir: &Path, migrations: &Migrator, at: Wall) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        privacy::close_to_others(state_dir)?;
        if has_content(&path)? {
            schema::look(&path, Candidate::Database(&path), migrations).await?;
        }
        create_private(&path)?;
        let mut connection = connect(&path).await?;
        check_sqlite(&mut connection).await?;
        let migrated = schema::bring_up(&mut connection, &path, migrations, at).await?;
        let store = Self::around(connection, &path);
        if let Some(migrated) = migrated {
            store.record_migration(&migrated, at).await?;
        }
        Ok(store)
    }

    /// Opens the database of a state folder as it is. For commands; `None` when there is none yet.
    pub async fn open_existing(state_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = state_dir.join(FILE);
        if !is_current(&path).await? {
            return Ok(None);
        }
        let connection = connect(&path).await?;
        Ok(Some(Self::around(connection, &path)))
    }

    /// Opens a copy of `of`, which is migrated if it has an older schema: what it was copied from is the way back.
    /// `None` when there is nothing in it.
    async fn open_copy(path: &Path, of: &Path, migrations: &Migrator) -> Result<Option<Self>, StoreError> {
        if !has_content(path)? {
            return Ok(None);
        }
        let standing = schema::look(path, Candidate::CopyOf(of), migrations).await?;
        if standing == Standing::Empty {
            return Ok(None);
        }
        let mut connection = connect(path).await?;
        if standing != Standing::Current {
            schema::run(&mut connection, migrations).await?;
        }
        Ok(Some(Self::around(connection, path)))
    }

    fn around(connection: SqliteConnection, path: &Path) -> Self {
        let under_way = UnderWay::default();
        let writer = writer::Writer::start(connection, under_way.clone());
        Self { writer, view: View::of(path, 4, under_way), path: path.to_owned() }
    }

    /// A view with connections of its own: whoever looks through it keeps no reader of the engine waiting. Close it
    /// before the store.
    pub fn view(&self) -> View {
        View::of(&self.path, 2, self.view.under_way.clone())
    }

    /// Runs `unit` in a transaction and returns once it is on disk.
    ///
    /// Units that wait at the same time share one commit, a savepoint each: an error takes back
    /// its own unit alone.
    pub async fn write<T, F>(&self, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Unit<'c, T> + Send + 'static,
    {
        self.writer.write(0, unit).await
    }

    /// The same for a unit that takes in so many rows: units with many between them do not share a commit, so that
    /// the writer is not held for long.
    pub(crate) async fn write_rows<T, F>(&self, rows: usize, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Unit<'c, T> + Send + 'static,
    {
        self.writer.write(rows, unit).await
    }

    /// A number that changes when another process has written. Cheap: no table is read.
    pub async fn data_version(&self) -> Result<i64, StoreError> {
        self.writer
            .outside(|connection| {
                Box::pin(async move {
                    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await.doing("read the data version")
                })
            })
            .await
    }

    /// A number that is another with each transaction, while one waits to begin: another process writes, or the disk hangs.
    /// Asks nobody who could wait too.
    pub fn waits_to_begin(&self) -> Option<u64> {
        self.writer.waits_to_begin()
    }

    /// Has the writer begin a transaction that writes nothing, without waiting for it: [`Store::waits_to_begin`] tells how
    /// that goes, also while nobody has anything to write.
    pub fn probe_writer(&self) {
        self.writer.probe();
    }

    /// Closes readers and writer after what is queued is written.
    pub async fn close(&self) {
        let _operation = self.view.under_way.begin();
        self.view.close().await;
        self.writer.close().await;
    }
}

impl View {
    /// Opens the database of a state folder as it is, to be looked at and nothing else; `None` when there is none yet.
    pub async fn open_existing(state_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = state_dir.join(FILE);
        Ok(is_current(&path).await?.then(|| Self::of(&path, 2, UnderWay::default())))
    }

    fn of(path: &Path, connections: u32, under_way: UnderWay) -> Self {
        let readers = SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .acquire_slow_threshold(PATIENCE)
            .connect_lazy_with(options(path).read_only(true));
        Self { readers, under_way }
    }

    /// A connection to read with.
    pub(crate) async fn reader(&self) -> Result<Reader, StoreError> {
        let operation = self.under_way.begin();
        let connection = self.readers.acquire().await.doing("open a reading connection")?;
        Ok(Reader { connection, _operation: operation })
    }

    /// Whether nobody waits for the database: nothing is read, written, queued to be, or closed.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_nothing()
    }

    /// Closes its connections. Of a store that is written to, [`Store::close`] closes more.
    pub async fn close(&self) {
        let _operation = self.under_way.begin();
        self.readers.close().await;
    }
}

/// Whether there is a database of sweepd at `path`, in this version's schema; an error where there is something else.
async fn is_current(path: &Path) -> Result<bool, StoreError> {
    if !has_content(path)? {
        return Ok(false);
    }
    let standing = schema::look(path, Candidate::Database(path), &schema::MIGRATIONS).await?;
    schema::expect_current(standing, path, &schema::MIGRATIONS)
}

/// Whether there is a file with something in it, which can be read.
fn has_content(path: &Path) -> Result<bool, StoreError> {
    let failed = |error| StoreError::File { path: path.to_owned(), source: Arc::new(error) };
    match std::fs::metadata(path) {
        // SQLite would wait for a pipe without end, and call a folder an I/O error.
        Ok(found) if !found.is_file() => return Err(Candidate::Database(path).refused("it is no regular file")),
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    }
    // SQLite says no more than "unable to open"; the file system says why.
    std::fs::File::open(path).map_err(failed)?;
    Ok(true)
}

async fn check_sqlite(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await.doing("ask SQLite's version")?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < SQLITE_AT_LEAST {
        return Err(StoreError::Version(format!("SQLite {version} has a bug that corrupts databases in WAL mode")));
    }
    Ok(())
}
