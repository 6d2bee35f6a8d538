//! The files of the state folder are their owner's alone (mode 0600).
//!
//! sweepd makes them so. Another program that puts a database there, such as `litestream restore`, may leave it open to
//! every user of the machine, and SQLite gives the log the mode of its database.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::backups::beside;
use super::incarnations::LOCK;
use super::{FILE, HEAD_FILE, StoreError, WITHOUT_WAITING};
use crate::domain::shown::ShownPath;

/// The rights of the group and of others.
const OTHERS: u32 = 0o077;

/// Takes the rights of others from every file of the store in this folder; fails where that cannot be done for the
/// database itself. Call it before the database is open: to close a second descriptor of it would end SQLite's locks.
pub(super) fn close_to_others(state_dir: &Path) -> Result<(), StoreError> {
    let (mut count, mut first) = (0_u64, None);
    for path in files(state_dir)? {
        if let Some(mode) = close(&path)? {
            count += 1;
            first.get_or_insert((path, mode));
        }
    }
    if let Some((file, mode)) = first {
        tracing::warn!(
            file = %ShownPath::new(&file), mode = format!("{mode:04o}"), files = count,
            "files of the database were open to other users: their mode is 0600 now, and since when they were open is not known; \
             they hold no secret, but the record with the names of machines and operators, which others may have read; have the \
             program that put them there use umask 077"
        );
    }
    Ok(())
}

/// The database and its log, wherever a link leads, and what lies beside under names of ours: copies, note and lock.
fn files(state_dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::File { path: state_dir.to_owned(), source: Arc::new(source) };
    let database = state_dir.join(FILE);
    let database = fs::canonicalize(&database).unwrap_or(database);
    let mut files = vec![beside(&database, "-wal"), beside(&database, "-shm")];
    for entry in fs::read_dir(state_dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let is_copy = name.as_encoded_bytes().starts_with(FILE.as_bytes());
        if is_copy || [HEAD_FILE, LOCK].map(OsStr::new).contains(&name.as_os_str()) {
            files.push(state_dir.join(name));
        }
    }
    files.sort();
    files.insert(0, database);
    files.dedup();
    Ok(files)
}

/// Closes a regular file; returns the mode that it had if that was open to others. What is no such file, or is gone, is
/// left to those who open it.
fn close(path: &Path) -> Result<Option<u32>, StoreError> {
    let failed = |source: io::Error| StoreError::File { path: path.to_owned(), source: Arc::new(source) };
    let is_open = |found: &fs::Metadata| found.is_file() && found.mode() & OTHERS != 0;
    // Only then is it opened: see above.
    if !fs::symlink_metadata(path).is_ok_and(|found| is_open(&found)) {
        return Ok(None);
    }
    let file = open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !is_open(&found) {
        return Ok(None);
    }
    let mode = found.mode() & 0o7777;
    if let Err(error) = file.set_permissions(Permissions::from_mode(mode & 0o700)) {
        let shown = ShownPath::new(path);
        return Err(StoreError::Version(format!(
            "{shown}: it is open to other users (mode {mode:04o}) and belongs to the user {}, so that sweepd cannot close it \
             ({error}): it was left as it is; run chown --reference={} {shown} and chmod 600 {shown}",
            found.uid(),
            ShownPath::new(path.parent().unwrap_or(path)),
        )));
    }
    Ok(Some(mode))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits() | WITHOUT_WAITING).open(path)
}
