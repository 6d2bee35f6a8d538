//! Who may read a tenant's receipts and results: those who may drop its files.
//!
//! An operator keeps the droppers of several tenants apart by the group and mode of `incoming/<tenant>/`. They carry over to
//! the tenant's folders in `processed/`, `rejected/` and `results/`, and decide whether a file in `incoming/` itself reaches
//! the tenant that it names.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::dir::{Dir, Kind, Stat};
use super::folder::Folder;
use super::incoming::ACCESS;

/// Where a folder is made that has to have a group from the beginning.
const MADE: &str = ".sweepd-shared.tmp";

/// What decides who may read and write in a folder.
const fn access(found: &Stat) -> (u32, u32) {
    (found.gid, found.mode & ACCESS)
}

impl Folder {
    /// Carries the group and mode of each `incoming/<tenant>/` over to the tenant's other folders, where they are not
    /// those of `incoming/` itself: its members may read there, and write nowhere. Returns the folders that could not
    /// get them, and why.
    pub fn share(&self) -> Vec<(PathBuf, io::Error)> {
        let mut failed = Vec::new();
        let mut opened = self.opened.clone();
        let Some(top) = opened.open(None).ok().and_then(|top| top.stat().ok()) else { return failed };
        for tenant in &self.tenants {
            // A folder that cannot be opened is reported by the look at it.
            let Ok(theirs) = opened.open(Some(tenant)) else { continue };
            let Ok(found) = theirs.stat() else { continue };
            if access(&found) == access(&top) {
                continue;
            }
            for kind in ["processed", "rejected", "results"] {
                let path = self.spool.join(kind).join(tenant.as_str());
                failed.extend(carry_over(&theirs, &found, &path).err().map(|error| (path, error)));
            }
        }
        failed
    }

    /// Whether the droppers of different tenants are kept apart: a tenant's folder has another group or mode than
    /// `incoming/` itself. An error if that cannot be seen.
    pub fn are_apart(&self) -> io::Result<bool> {
        let mut opened = self.opened.clone();
        let top = access(&opened.open(None)?.stat()?);
        let mut unknown = None;
        for tenant in &self.tenants {
            match opened.open(Some(tenant)).and_then(|folder| folder.stat()) {
                Ok(found) if access(&found) != top => return Ok(true),
                Ok(_) => {}
                Err(error) => {
                    let why = format!("incoming/{tenant}/: {error}");
                    unknown.get_or_insert(io::Error::new(error.kind(), why));
                }
            }
        }
        unknown.map_or(Ok(false), Err)
    }
}

/// Gives a folder of ours the group of `theirs`, and its members reading if they may do anything in `theirs`.
fn carry_over(theirs: &Dir, found: &Stat, path: &Path) -> io::Result<()> {
    let mode = if found.mode & 0o070 == 0 { 0o2700 } else { 0o2750 };
    let ours = Dir::trusted(path)?;
    match ours.share_with(found.gid, mode) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if ours.names()?.is_empty() && make_there(theirs, found, path, mode)? { Ok(()) } else { Err(error) }
        }
        shared => shared,
    }
}

/// Puts a new folder in the place of an empty one. The service user is no member of the group: what is made in a folder
/// with the set-group-id bit has its group from the beginning, and keeps it where it is moved to. Only in a sticky folder,
/// because only there no dropper can put another folder in its place. Returns whether that went well.
fn make_there(theirs: &Dir, found: &Stat, path: &Path, mode: u32) -> io::Result<bool> {
    let (new, name) = (OsStr::new(MADE), path.file_name().unwrap_or_default());
    let is_ours = |made: Stat| made.kind == Kind::Folder && made.uid == nix::unistd::geteuid().as_raw();
    if theirs.look(new).is_ok_and(is_ours) {
        // A kill has left it.
        theirs.remove_folder(new)?;
    }
    // A dropper may have put something there: it is not ours to move.
    if found.mode & 0o3000 != 0o3000 || !theirs.make_folder(new, mode)? {
        return Ok(false);
    }
    let is_right = theirs.look(new).is_ok_and(|made| made.gid == found.gid && made.mode & 0o2000 != 0);
    let moved = if is_right {
        let parent = Dir::trusted(path.parent().unwrap_or(Path::new(".")))?;
        // A folder that is not empty stays, and so does one that is not there any more.
        std::fs::remove_dir(path).and_then(|()| theirs.rename(new, &parent, name))
    } else {
        Ok(())
    };
    if !is_right || moved.is_err() {
        theirs.remove_folder(new)?;
    }
    moved.map(|()| is_right)
}
