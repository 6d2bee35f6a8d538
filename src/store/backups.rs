//! A consistent copy of the database while the daemon runs, and a copy in the place of the database.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::events::{Head, Kind, Subject};
use super::schema::{MIGRATIONS, Migrated};
use super::tenants::Operator;
use super::{Doing, FILE, Store, StoreError, create_private, options};
use crate::domain::shown::ShownPath;
use crate::domain::time::Wall;

/// A restored database does not know the calls of the hour before: by then they count no more.
pub const HOUR_OVER: Duration = Duration::from_mins(61);

/// What a copy is found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The last event of its record.
    pub head: Head,
    /// How long it is.
    pub bytes: u64,
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    |source| StoreError::File { path: path.to_owned(), source: Arc::new(source) }
}

/// A name beside `path` that nobody takes for a finished file.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// What has been written to a file or a folder is on the disk when this returns.
fn to_disk(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(file_error(path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

async fn check_pages(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: String =
        sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(connection).await.doing("check the copy")?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Guard(format!("the copy is damaged: {found}"))) }
}

impl Store {
    /// Writes a consistent copy of the database to `to`, which must not exist: readable by its owner alone,
    /// checked, and on disk when this returns. Nobody waits for it meanwhile. Of two at a time to one name, the first to
    /// be finished gets it.
    pub async fn back_up(&self, to: &Path, operator: Operator, at: Wall) -> Result<Copied, StoreError> {
        let is_there = || StoreError::Guard(format!("{} is there already: choose another name", ShownPath::new(&to)));
        if to.exists() {
            return Err(is_there());
        }
        // Each backup has a name of its own until it is finished, and takes it away if it fails.
        let mut name = OsString::from(".");
        name.push(to.file_name().unwrap_or_default());
        name.push(".");
        let folder = folder_of(to);
        let made = tempfile::Builder::new().prefix(&name).suffix(".unfinished").tempfile_in(folder);
        let unfinished = made.map_err(file_error(folder))?.into_temp_path();
        let copied = copy_into(&mut *self.reader().await?, &unfinished).await?;
        unfinished.persist_noclobber(to).map_err(|failed| match failed.error.kind() {
            io::ErrorKind::AlreadyExists => is_there(),
            _ => file_error(to)(failed.error),
        })?;
        to_disk(folder)?;
        self.record_backup(to, &copied, operator, at).await?;
        Ok(copied)
    }

    /// The same into a file that is open and empty, and that may lie where this process can make none: `to` is what it
    /// is called. The copy is made and checked beside the database first. If that fails, the file is empty again.
    pub async fn back_up_into(
        &self,
        mut file: File,
        to: &Path,
        operator: Operator,
        at: Wall,
    ) -> Result<Copied, StoreError> {
        let unfinished = beside(&self.path, ".backup.unfinished");
        let held = hold(&unfinished)?;
        let poured = self.pour(&unfinished, &held, &mut file, to).await;
        let removed = remove_if_there(&unfinished);
        // Until here, no other backup uses the name.
        drop(held);
        if poured.is_err() {
            file.set_len(0).and_then(|()| file.sync_all()).map_err(file_error(to))?;
        }
        let copied = poured?;
        removed?;
        self.record_backup(to, &copied, operator, at).await?;
        Ok(copied)
    }

    async fn pour(&self, unfinished: &Path, mut held: &File, file: &mut File, to: &Path) -> Result<Copied, StoreError> {
        let copied = copy_into(&mut *self.reader().await?, unfinished).await?;
        // What is held, and not what has the name by now.
        let bytes =
            io::copy(&mut held, file).and_then(|bytes| file.sync_all().map(|()| bytes)).map_err(file_error(to))?;
        if bytes != copied.bytes {
            let name = ShownPath::new(&unfinished);
            return Err(StoreError::Guard(format!("{name} was replaced while it was copied; try again")));
        }
        Ok(copied)
    }

    async fn record_backup(&self, to: &Path, copied: &Copied, by: Operator, at: Wall) -> Result<(), StoreError> {
        let body = serde_json::json!({ "file": ShownPath::new(&to).to_string(), "head": copied.head.hash, "by": by });
        self.record(at, Kind::BackedUp, Subject::default(), body).await
    }

    /// Puts on record that a migration has left a copy behind.
    pub(super) async fn record_migration(&self, migrated: &Migrated, at: Wall) -> Result<(), StoreError> {
        let schema = serde_json::json!({ "from": migrated.from, "to": migrated.to });
        let (file, head) = (ShownPath::new(&migrated.kept).to_string(), &migrated.copied.head.hash);
        let body = serde_json::json!({ "file": file, "head": head, "schema": schema });
        self.record(at, Kind::BackedUp, Subject::default(), body).await
    }
}

/// Copies the database of a connection to `unfinished`, in the place of whatever is there: readable by its
/// owner alone, checked, and on disk when this returns. If that fails, nothing is left behind.
pub(super) async fn copy_of(connection: &mut SqliteConnection, unfinished: &Path) -> Result<Copied, StoreError> {
    let copied = try_copy(connection, unfinished).await;
    if copied.is_err()
        && let Err(left) = remove_if_there(unfinished)
    {
        tracing::debug!(error = %left, "an unfinished backup stays behind");
    }
    copied
}

async fn try_copy(connection: &mut SqliteConnection, unfinished: &Path) -> Result<Copied, StoreError> {
    remove_if_there(unfinished)?;
    create_private(unfinished)?;
    copy_into(connection, unfinished).await
}

/// Makes an empty file, its owner's alone, and waits while another process uses it for the same. One that a killed
/// process has left behind is used again.
fn hold(unfinished: &Path) -> Result<File, StoreError> {
    let held = || loop {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(unfinished)?;
        file.lock()?;
        // Who had it before has taken the name away.
        if is_named(&file, unfinished)? {
            file.set_len(0)?;
            return Ok(file);
        }
    };
    held().map_err(file_error(unfinished))
}

/// Whether a path is this file's.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies the database of a connection into an empty file, whose mode SQLite leaves as it is, and checks the copy: it
/// is on disk when this returns.
async fn copy_into(connection: &mut SqliteConnection, unfinished: &Path) -> Result<Copied, StoreError> {
    let Some(name) = unfinished.to_str() else {
        return Err(StoreError::Guard("a path that is no UTF-8 cannot be written to".to_owned()));
    };
    sqlx::query("VACUUM INTO ?").bind(name).execute(connection).await.doing("copy the database")?;
    to_disk(unfinished)?;
    let mut copy = options(unfinished)
        .read_only(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Delete)
        .connect()
        .await
        .doing("open the copy")?;
    check_pages(&mut copy).await?;
    let head = super::events::head(&mut copy).await?;
    copy.close().await.doing("close the copy")?;
    let bytes = fs::metadata(unfinished).map_err(file_error(unfinished))?.len();
    Ok(Copied { head, bytes })
}

/// Gives a finished copy its name, and sees to it that it keeps it.
pub(super) fn into_place(unfinished: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(unfinished, to).map_err(file_error(to))?;
    to_disk(folder_of(to))
}

/// A copy on its way into the place of the database. Whoever has it holds the lock on the state folder.
#[derive(Debug)]
pub struct Restoring {
    state_dir: PathBuf,
    unfinished: PathBuf,
    store: Store,
}

/// A copy that is open, to be restored: it may lie where this process can open nothing.
#[derive(Debug)]
pub struct Copy {
    /// What it is called.
    pub path: PathBuf,
    /// The file.
    pub file: File,
    /// Its log. A database that was put aside after a kill has its last events there, and in the file itself it has not.
    pub log: Option<File>,
}

impl Copy {
    /// What the log of a database is called.
    pub fn log_of(database: &Path) -> PathBuf {
        beside(database, "-wal")
    }
}

impl Restoring {
    /// Copies `from` beside the database, and checks that it is one, whole, and with a record that fits
    /// itself. The database stays as it is.
    pub async fn check(from: Copy, state_dir: &Path) -> Result<(Self, Copied), StoreError> {
        let unfinished = state_dir.join(".restoring.db");
        remove(&unfinished)?;
        let checked = Self::copied(from, state_dir, unfinished.clone()).await;
        if checked.is_err() {
            remove(&unfinished)?;
        }
        checked
    }

    async fn copied(from: Copy, state_dir: &Path, unfinished: PathBuf) -> Result<(Self, Copied), StoreError> {
        let Copy { path, file, log } = from;
        let mut bytes = copy_privately(file, &path, &unfinished)?;
        if let Some(log) = log {
            bytes += copy_privately(log, &Copy::log_of(&path), &Copy::log_of(&unfinished))?;
        }
        let Some(store) = Store::open_copy(&unfinished, &path, &MIGRATIONS).await? else {
            return Err(StoreError::Guard(format!("{} is no database of sweepd", ShownPath::new(&path))));
        };
        let mut reader = store.reader().await?;
        check_pages(&mut reader).await?;
        drop(reader);
        match store.verify_record().await? {
            Ok(head) => Ok((Self { state_dir: state_dir.to_owned(), unfinished, store }, Copied { head, bytes })),
            Err(seq) => {
                Err(StoreError::Guard(format!("event {seq} of the copy's record does not fit the one before it")))
            }
        }
    }

    /// Leaves everything as it was.
    pub async fn abandon(self) -> Result<(), StoreError> {
        self.store.close().await;
        remove(&self.unfinished)
    }

    /// Pauses every tenant in the copy until the calls that it does not know count no more, puts that and
    /// the restoring on record, and puts the copy in the database's place. Returns where the database went,
    /// if there was one.
    pub async fn finish(self, operator: Operator, at: Wall) -> Result<Option<PathBuf>, StoreError> {
        let until = at + HOUR_OVER;
        for tenant in self.store.tenants_status().await? {
            self.store.pause_until(&tenant.name, "restored from a backup", until, &operator, at).await?;
        }
        let body = serde_json::json!({ "paused_until": until.rfc3339(), "by": operator });
        self.store.record(at, Kind::Restored, Subject::default(), body).await?;
        // The last to close it writes its log back into the file.
        self.store.close().await;
        to_disk(&self.unfinished)?;
        let database = self.state_dir.join(FILE);
        let aside = put_aside(&database, at)?;
        fs::rename(&self.unfinished, &database).map_err(file_error(&database))?;
        super::landmark::forget(&self.state_dir)?;
        to_disk(&self.state_dir)?;
        Ok(aside)
    }
}

/// Copies a file into a new one that is its owner's alone; returns its length.
fn copy_privately(mut from: File, name: &Path, to: &Path) -> Result<u64, StoreError> {
    let mut options = fs::OpenOptions::new();
    let mut made = options.write(true).create_new(true).mode(0o600).open(to).map_err(file_error(to))?;
    io::copy(&mut from, &mut made).map_err(file_error(name))
}

/// Removes a database that nobody has open, with its log.
fn remove(database: &Path) -> Result<(), StoreError> {
    ["", "-wal", "-shm"].iter().try_for_each(|ending| remove_if_there(&beside(database, ending)))
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

/// Gives the database a second name, and moves its log there: the log first, since a log without its database must
/// never meet another one. The first name stays, for the copy to take: were there none for a moment, and the machine
/// down in it, the next start would begin with an empty database.
fn put_aside(database: &Path, at: Wall) -> Result<Option<PathBuf>, StoreError> {
    let stamp = at.rfc3339().replace(':', "-");
    let aside = beside(database, &format!(".before-restore-{stamp}"));
    for ending in ["-wal", "-shm"] {
        if_there(fs::rename, &beside(database, ending), &beside(&aside, ending))?;
    }
    // Where the file system knows no second names, the moment has to be.
    let there = if_there(fs::hard_link, database, &aside).or_else(|_| if_there(fs::rename, database, &aside))?;
    Ok(there.then_some(aside))
}

/// Does this with a file; false where there is none.
fn if_there(change: fn(PathBuf, PathBuf) -> std::io::Result<()>, from: &Path, to: &Path) -> Result<bool, StoreError> {
    match change(from.to_owned(), to.to_owned()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(file_error(from)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_no_moment_of_a_restore_is_there_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join(FILE);
        assert_eq!(put_aside(&database, Wall(0)).unwrap(), None, "there was none");
        for ending in ["", "-wal"] {
            fs::write(beside(&database, ending), ending).unwrap();
        }
        let aside = put_aside(&database, Wall(0)).unwrap().unwrap();
        assert!(database.exists(), "until the copy takes its name");
        assert!(!beside(&database, "-wal").exists() && beside(&aside, "-wal").exists());
        fs::rename(&database, folder.path().join("other")).unwrap();
        assert_eq!(fs::read(&aside).unwrap(), b"");
    }
}
