//! Folders that others may write to, by descriptor.
//!
//! In such a folder a name may be something else at each look. So the folder is opened once, links are not followed, and
//! everything in it is reached through that descriptor and a single name: no path is resolved a second time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Which file it is, whatever its name is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The file with this inode on this device.
    #[cfg(test)]
    pub const fn of(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }

    /// The number of its inode.
    pub const fn inode(self) -> u64 {
        self.inode
    }
}

/// What lies under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A link, a pipe, a device or a socket.
    Other,
}

/// What the file system says of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which one it is.
    pub identity: Identity,
    /// What it is.
    pub kind: Kind,
    /// How many names it has.
    pub links: u64,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions, the set-id and sticky bits included.
    pub mode: u32,
    /// How long it is, in bytes.
    pub size: u64,
    /// When it was written last: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// When it was changed in any way, in seconds since 1970.
    pub changed: i64,
}

impl Stat {
    #[allow(clippy::useless_conversion, reason = "the width of these fields is the platform's")]
    fn of(found: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Folder,
            _ => Kind::Other,
        };
        Self {
            identity: Identity { device: found.st_dev.into(), inode: found.st_ino.into() },
            kind,
            links: found.st_nlink.into(),
            uid: found.st_uid,
            gid: found.st_gid,
            mode: found.st_mode & 0o7777,
            size: u64::try_from(found.st_size).unwrap_or(0),
            modified: (found.st_mtime.into(), found.st_mtime_nsec.into()),
            changed: found.st_ctime.into(),
        }
    }

    /// What an open file is.
    pub fn of_file(file: &impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&fstat(file)?))
    }

    /// When it was written last.
    pub fn modified_at(&self) -> Option<SystemTime> {
        let (seconds, nanos) = self.modified;
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since)
    }

    /// Whether this is the same file with the same content, as far as its times can tell.
    pub fn is_unchanged(&self, now: &Self) -> bool {
        (self.identity, self.kind, self.size, self.modified) == (now.identity, now.kind, now.size, now.modified)
    }
}

/// Gives something of our own this group, by descriptor.
fn give_group(what: &impl AsFd, group: u32) -> io::Result<()> {
    if Stat::of_file(what)?.gid != group {
        #[allow(clippy::disallowed_methods, reason = "by descriptor, and of what is our own")]
        nix::unistd::fchown(what, None, Some(group.into()))?;
    }
    Ok(())
}

/// A folder that is open.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    identity: Identity,
}

/// A name right in a folder; anything else leads elsewhere.
fn single(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a single file"));
    }
    Ok(name)
}

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const PLAIN_FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

impl Dir {
    /// Opens a folder by its path, which must be one that only the service or root can change: links in it are
    /// followed.
    pub fn trusted(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Self::with(nix::fcntl::open(path, flags, Mode::empty())?, path.to_owned())
    }

    /// Opens a folder in this one. A link is not followed.
    pub fn folder(&self, name: &OsStr) -> io::Result<Self> {
        Self::with(self.open(name, FOLDER)?, self.path.join(name))
    }

    fn with(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let identity = Stat::of_file(&fd)?.identity;
        Ok(Self { fd, path, identity })
    }

    fn open(&self, name: &OsStr, flags: OFlag) -> io::Result<OwnedFd> {
        let name = single(name)?;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.fd, name, how) {
            // An old kernel, or a container's filter. For a single name O_NOFOLLOW says the same.
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => Ok(openat(&self.fd, name, flags, Mode::empty())?),
            opened => Ok(opened?),
        }
    }

    /// Where it was when it was opened: to show, not to be resolved again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is now.
    pub fn stat(&self) -> io::Result<Stat> {
        Stat::of_file(&self.fd)
    }

    /// Whether `name` in `parent` still is this folder.
    pub fn is_still(&self, parent: &Self, name: &OsStr) -> bool {
        parent.look(name).is_ok_and(|found| found.identity == self.identity)
    }

    /// What lies under this name; a link is not followed.
    pub fn look(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(Stat::of(&fstatat(&self.fd, single(name)?, AtFlags::AT_SYMLINK_NOFOLLOW)?))
    }

    /// Opens a file for reading. A link is not followed, and a pipe not waited for: what was a file a moment ago may be
    /// either by now.
    pub fn file(&self, name: &OsStr) -> io::Result<File> {
        Ok(File::from(self.open(name, PLAIN_FILE)?))
    }

    /// The names in it, in no order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        // A descriptor of its own: the place in the listing belongs to it.
        let again = openat(&self.fd, ".", FOLDER, Mode::empty())?;
        let mut listing = nix::dir::Dir::from_fd(again)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Makes a folder in it with this mode, whatever the umask; false if there is something by that name already. A
    /// service manager may forbid the set-group-id bit (`RestrictSUIDSGID=`): then the folder has what it inherits.
    pub fn make_folder(&self, name: &OsStr, mode: u32) -> io::Result<bool> {
        match mkdirat(&self.fd, single(name)?, Mode::from_bits_truncate(mode & 0o777)) {
            Err(Errno::EEXIST) => return Ok(false),
            other => other?,
        }
        self.folder(name)?.set_mode(mode)?;
        Ok(true)
    }

    /// Gives the folder this mode. Where the set-group-id bit is forbidden, the folder keeps the one that it inherited if
    /// the rest of its mode is right; else it goes without.
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        let now = self.stat()?.mode;
        let with = |mode: u32| fchmod(&self.fd, Mode::from_bits_truncate(mode));
        if now == mode {
            return Ok(());
        }
        match with(mode) {
            Err(Errno::EPERM) if now & 0o777 == mode & 0o777 => Ok(()),
            Err(Errno::EPERM) => Ok(with(mode & !0o2000)?),
            changed => Ok(changed?),
        }
    }

    /// Gives the folder this group and mode.
    pub fn share_with(&self, group: u32, mode: u32) -> io::Result<()> {
        give_group(&self.fd, group)?;
        self.set_mode(mode)
    }

    /// Gives a file that the daemon has written here to the readers of this folder: the folder's group, and, if the
    /// folder is closed to other users, what its mode allows. A group that cannot be given was reported with the folder.
    pub fn adopt(&self, file: &File) -> io::Result<()> {
        let folder = self.stat()?;
        match give_group(file, folder.gid) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            given => given?,
        }
        let mode = folder.mode & 0o640;
        let is_closed = folder.mode.trailing_zeros() >= 3;
        if is_closed && Stat::of_file(file)?.mode != mode {
            fchmod(file, Mode::from_bits_truncate(mode))?;
        }
        Ok(())
    }

    /// Gives a file another name, in this folder or another one, and never that of something that is there.
    pub fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        let (name, new) = (single(name)?, single(new)?);
        match renameat2(&self.fd, name, &to.fd, new, RenameFlags::RENAME_NOREPLACE) {
            // A file system that cannot promise as much: it is looked at just before.
            Err(Errno::EINVAL | Errno::ENOSYS) => match to.look(new) {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(_) => Ok(nix::fcntl::renameat(&self.fd, name, &to.fd, new)?),
            },
            renamed => Ok(renamed?),
        }
    }

    /// Takes a file's name away.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, single(name)?, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes a folder in it that is empty.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, single(name)?, UnlinkatFlags::RemoveDir)?)
    }

    /// Makes what was renamed in it last.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.fd)?)
    }
}
