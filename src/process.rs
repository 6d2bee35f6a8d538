//! This process: whose rights it has, and who may look into it.
//!
//! A command of root that works by path in a folder of the service user does what that user likes: a name there may
//! be a link by the time it is used. So such a command becomes the owner of the folder first, in all its threads and
//! for good. What only root may open is opened before ([`Named`]).

mod named;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, User, getgrouplist, getresgid, getresuid, seteuid, setgroups, setresgid, setresuid};

pub use named::Named;

/// The group of files that belong to no group.
const NO_GROUP: u32 = 65_534;

/// Keeps the memory of this process from core dumps, and from every other process of its user. Call it before anything
/// is read, and again when the user has changed.
pub fn hide() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    // The second lock. Where a service manager forbids the call it has set the limit itself (`LimitCORE=0`).
    setrlimit(Resource::RLIMIT_CORE, 0, 0).ok();
    Ok(())
}

/// A user with the groups that the user has: whom this process may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Owner {
    /// The owner of the first of these folders that is not root's. Of a folder that does not exist yet, it is the owner
    /// of the one that it will be made in. `None` where this process is not root's, or all of them are.
    pub fn of(folders: &[&Path]) -> io::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for folder in folders {
            // Links are followed: an administrator may have moved the folder to another disk. Where the link leads
            // does not matter, because everything is done with the rights of that folder's owner.
            let found = existing(folder)?.metadata()?;
            if found.uid() != Uid::from_raw(0).as_raw() {
                return Ok(Some(Self::with(found.uid(), found.gid())));
            }
        }
        Ok(None)
    }

    /// As the service manager starts the service: with the user's own groups, so that no more is permitted than there,
    /// and no less. A number that the host has no user for gets the group of the folder, unless that is root's.
    fn with(uid: u32, folder_gid: u32) -> Self {
        let uid = Uid::from_raw(uid);
        if let Ok(Some(user)) = User::from_uid(uid) {
            let name = std::ffi::CString::new(user.name);
            let groups = name.ok().and_then(|name| getgrouplist(&name, user.gid).ok()).unwrap_or_default();
            return Self { uid, gid: user.gid, groups };
        }
        let gid = Gid::from_raw(if folder_gid == 0 { NO_GROUP } else { folder_gid });
        Self { uid, gid, groups: Vec::new() }
    }

    /// The number of the user.
    pub const fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Becomes this user, irrevocably: real, effective and saved ids, in every thread (libc sees to that).
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn assume(&self) -> io::Result<()> {
        let Self { uid, gid, ref groups } = *self;
        setgroups(groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        let (users, own) = (getresuid()?, getresgid()?);
        let is_whole = [users.real, users.effective, users.saved] == [uid; 3]
            && [own.real, own.effective, own.saved] == [gid; 3]
            && seteuid(Uid::from_raw(0)).is_err();
        if !is_whole {
            return Err(Errno::EPERM.into());
        }
        hide()
    }
}

/// The folder, or the nearest one above it that exists.
fn existing(folder: &Path) -> io::Result<File> {
    let mut at = folder;
    loop {
        let opened = open_folder(at);
        match (opened, at.parent()) {
            (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => at = above,
            (opened, _) => return opened,
        }
    }
}

/// A folder, to be looked at and to make files in.
fn open_folder(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits()).open(folder)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may change files of its own by path")]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn the_owner_is_that_of_the_first_folder_that_is_not_roots() {
        let folder = tempfile::tempdir().unwrap();
        let [roots, state, link] = ["roots", "state", "link"].map(|name| folder.path().join(name));
        for made in [&roots, &state] {
            std::fs::create_dir(made).unwrap();
        }
        std::os::unix::fs::symlink(&state, &link).unwrap();
        if !Uid::effective().is_root() {
            assert_eq!(Owner::of(&[&state]).unwrap(), None, "who is not root stays what they are");
            return eprintln!("skipped: needs root");
        }
        assert_eq!(Owner::of(&[&roots, &state, &roots.join("not/yet")]).unwrap(), None);
        chown(&state, Some(54_321), Some(54_322)).unwrap();
        let owner = Owner::with(54_321, 54_322);
        assert_eq!((owner.gid.as_raw(), owner.groups.as_slice()), (54_322, &[][..]));
        for folders in [&[state.as_path()][..], &[&roots, &state], &[&link], &[&state.join("not/yet")]] {
            assert_eq!(Owner::of(folders).unwrap().as_ref(), Some(&owner), "{folders:?}");
        }
        assert_eq!(Owner::with(54_321, 0).gid.as_raw(), NO_GROUP, "nothing of root is left");
        std::fs::write(roots.join("file"), "marker").unwrap();
        assert!(Owner::of(&[&roots.join("file")]).is_err(), "a file is no folder");
    }
}
