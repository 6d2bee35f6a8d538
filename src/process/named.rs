//! Files that the operator names.
//!
//! Root may name a file that only root may read or make. Such a file is opened before the process becomes somebody
//! else. But a path may lead through folders of others, who can replace a part of it by a link at any moment: root
//! would then read or make a file of their choice. So root's rights open a file only if those who decide where the
//! path leads could as well have handed in a file of their own.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::{Owner, open_folder};

/// As many links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// A file that the operator named, and its descriptor if root's rights were used to open it.
#[derive(Debug)]
pub struct Named {
    /// Where it is; absolute.
    pub path: PathBuf,
    opened: Option<File>,
}

impl Named {
    /// A file to read; call it before the process becomes `owner`. A file that `owner` has to open is opened later.
    pub fn to_read(path: &Path, owner: Option<&Owner>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let opened = owner.and_then(|owner| open_as_root(&path, owner));
        Ok(Self { path, opened })
    }

    /// A file that does not exist yet; the same holds. It is its owner's alone.
    pub fn to_make(path: &Path, owner: Option<&Owner>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let opened = match owner {
            Some(owner) => make_as_root(&path, owner)?,
            None => None,
        };
        Ok(Self { path, opened })
    }

    /// The file, to be read: what root has opened, else what this process may open now.
    pub fn into_reader(self) -> io::Result<File> {
        self.opened.map_or_else(|| File::open(&self.path), Ok)
    }

    /// The file that root has made, if that was needed, and its path.
    pub fn into_made(self) -> (PathBuf, Option<File>) {
        (self.path, self.opened)
    }
}

/// What root may read at this path, unless that is to be left to `owner`, or is not there.
fn open_as_root(path: &Path, owner: &Owner) -> Option<File> {
    let decides = decides(path, MAX_LINKS).ok()?;
    if decides == Decides::One(owner.uid()) {
        return None;
    }
    let file = File::open(path).ok()?;
    if decides.may_hand_in(file.metadata().ok()?.uid()) {
        return Some(file);
    }
    // A file that root has put into a folder of others, such as a backup. Not a link there, nor a second name of another
    // file of root's.
    let (folder, name) = folder_of(path, owner).ok()??;
    let file = File::from(openat(folder.as_fd(), name, OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).ok()?);
    let found = file.metadata().ok()?;
    (found.is_file() && found.uid() == 0 && found.nlink() == 1).then_some(file)
}

/// A file that root makes at this path, unless that is to be left to `owner`. It is made in the very folder that was
/// looked at, wherever the path leads by then.
fn make_as_root(path: &Path, owner: &Owner) -> io::Result<Option<File>> {
    let Some((folder, name)) = folder_of(path, owner)? else { return Ok(None) };
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(folder.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    Ok(Some(File::from(made)))
}

/// The folder of a path and the name there, if the folder is one that those who decide could have given, and none of
/// `owner`'s.
fn folder_of<'a>(path: &'a Path, owner: &Owner) -> io::Result<Option<(File, &'a OsStr)>> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let decides = decides(above, MAX_LINKS)?;
    let folder = open_folder(above)?;
    let uid = folder.metadata()?.uid();
    let is_given = uid != owner.uid() && decides.may_hand_in(uid);
    Ok(is_given.then_some((folder, name)))
}

/// Who, beside root, can change where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decides {
    /// No other user.
    Root,
    /// This user.
    One(u32),
    /// Several users, or members of a group.
    Others,
}

impl Decides {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Root, one) | (one, Self::Root) => one,
            (Self::One(one), Self::One(other)) if one == other => self,
            _ => Self::Others,
        }
    }

    const fn owner(uid: u32) -> Self {
        if uid == 0 { Self::Root } else { Self::One(uid) }
    }

    /// Whether a file of this user is no more than what those who decide could have given anyway.
    const fn may_hand_in(self, uid: u32) -> bool {
        match self {
            Self::Root => true,
            Self::One(one) => one == uid,
            Self::Others => false,
        }
    }
}

/// Who decides where an absolute path leads. What was looked at cannot be changed meanwhile by others than the result
/// names, because each part was looked at in a folder that only those can change.
fn decides(path: &Path, links: u32) -> io::Result<Decides> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let (mut at, mut found, mut folder) = (PathBuf::new(), Decides::Root, None::<Metadata>);
    for part in path.components() {
        let above = at.clone();
        at.push(part);
        let mut here = fs::symlink_metadata(&at)?;
        if let Some(folder) = folder {
            found = found.and(Decides::owner(folder.uid()));
            // In a sticky folder everybody makes entries, and changes their own alone. A second name for a file of
            // root's is such an entry too.
            let is_own = folder.mode() & STICKY != 0 && !(here.is_file() && here.nlink() > 1);
            if folder.mode() & WRITABLE_BY_OTHERS != 0 {
                found = found.and(if is_own { Decides::owner(here.uid()) } else { Decides::Others });
            }
        }
        if here.is_symlink() {
            found = found.and(match links.checked_sub(1) {
                None => Decides::Others,
                // What a process has open (`/dev/fd/63`) is a link in name only: that process has decided.
                Some(_) if is_of_a_process(&here) => Decides::owner(here.uid()),
                Some(links) => decides(&above.join(fs::read_link(&at)?), links)?,
            });
            here = fs::metadata(&at)?;
        }
        folder = here.is_dir().then_some(here);
    }
    Ok(found)
}

/// Whether a link lies in the file system that shows processes.
fn is_of_a_process(link: &Metadata) -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.dev() == link.dev())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may change files of its own by path")]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use nix::unistd::Uid;

    use super::*;

    const ANN: u32 = 54_321;
    const SERVICE: u32 = 54_322;

    /// A folder of root's in which Ann has one, the service has one, and one may be written to by a group.
    fn folders() -> Option<tempfile::TempDir> {
        if !Uid::effective().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let top = tempfile::tempdir().unwrap();
        for (name, owner, mode) in [("roots", 0, 0o755), ("ann", ANN, 0o700), ("service", SERVICE, 0o750)] {
            fs::create_dir(top.path().join(name)).unwrap();
            fs::set_permissions(top.path().join(name), Permissions::from_mode(mode)).unwrap();
            chown(top.path().join(name), Some(owner), Some(owner)).unwrap();
        }
        for (name, mode) in [("group", 0o770), ("tmp", 0o1777), ("group/folder", 0o755)] {
            fs::create_dir(top.path().join(name)).unwrap();
            fs::set_permissions(top.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        Some(top)
    }

    fn put(path: &Path, owner: u32) {
        fs::write(path, "marker").unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        chown(path, Some(owner), Some(owner)).unwrap();
    }

    #[test]
    fn root_reads_only_what_those_who_decide_could_hand_in() {
        let Some(top) = folders() else { return };
        let at = |relative: &str| top.path().join(relative);
        for (path, owner) in [
            ("roots/file", 0),
            ("ann/file", ANN),
            ("ann/roots", 0),
            ("roots/two", 0),
            ("service/file", SERVICE),
            ("group/file", 0),
            ("tmp/file", 0),
            ("tmp/anns", ANN),
            ("tmp/two", 0),
            ("group/folder/file", 0),
            ("group/anns", ANN),
        ] {
            put(&at(path), owner);
        }
        for (of, second) in [("tmp/two", "tmp/names"), ("roots/two", "ann/names")] {
            fs::hard_link(at(of), at(second)).unwrap();
        }
        for (link, target) in [
            ("roots/link", "../roots/file"),
            ("ann/to-root", "../roots/file"),
            ("roots/to-ann", "../ann/file"),
            ("roots/through-ann", "../ann/to-root"),
            ("roots/folder", "../ann"),
            ("service/to-root", "../roots/file"),
            ("group/to-root", "../roots/file"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let owner = Owner::with(SERVICE, SERVICE);
        for (path, is_roots_to_open) in [
            ("roots/file", true),
            ("roots/link", true),
            ("tmp/file", true),
            // Her file in her folder: she could have given it.
            ("ann/file", true),
            ("roots/to-ann", true),
            ("roots/folder/file", true),
            ("tmp/anns", true),
            // Root has put it there.
            ("ann/roots", true),
            // Not hers, and she says what the path leads to.
            ("ann/to-root", false),
            ("ann/names", false),
            ("roots/through-ann", false),
            ("service/to-root", false),
            // In a group, nobody knows who it was.
            ("group/file", true),
            ("group/anns", false),
            ("group/to-root", false),
            ("group/folder/file", false),
            ("tmp/two", false),
            // The service user's own are opened as that user.
            ("service/file", false),
            ("roots/nowhere", false),
        ] {
            let named = Named::to_read(&at(path), Some(&owner)).unwrap();
            assert_eq!(named.opened.is_some(), is_roots_to_open, "{path}");
        }
        assert!(Named::to_read(&at("roots/file"), None).unwrap().opened.is_none(), "nobody becomes somebody else");
        let (pipe, _end) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
        assert_eq!(decides(Path::new(&path), MAX_LINKS).unwrap(), Decides::Root, "`<(command)` of root's shell");
        symlink("../ann/gone", at("roots/dangling")).unwrap();
        assert!(decides(&at("roots/dangling"), MAX_LINKS).is_err(), "what is not there may be made by anybody");
    }

    #[test]
    fn root_makes_a_file_only_in_a_folder_that_was_looked_at() {
        let Some(top) = folders() else { return };
        let at = |relative: &str| top.path().join(relative);
        symlink("../roots", at("ann/to-root")).unwrap();
        symlink("../roots/through-a-link", at("roots/dangling")).unwrap();
        let owner = Owner::with(SERVICE, SERVICE);
        for (path, is_roots_to_make) in [
            ("roots/new", true),
            ("ann/new", true),
            ("tmp/new", true),
            ("ann/to-root/other", false),
            ("service/new", false),
            ("group/new", true),
            ("group/folder/new", false),
        ] {
            let named = Named::to_make(&at(path), Some(&owner)).unwrap();
            assert_eq!(named.opened.is_some(), is_roots_to_make, "{path}");
            assert_eq!(at(path).exists(), is_roots_to_make, "{path}");
        }
        let made = fs::metadata(at("ann/new")).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o7777), (0, 0o600), "root's alone, wherever it lies");
        for taken in ["roots/new", "roots/dangling"] {
            let error = Named::to_make(&at(taken), Some(&owner)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{taken}");
        }
        assert!(!at("roots/through-a-link").exists());
    }
}
