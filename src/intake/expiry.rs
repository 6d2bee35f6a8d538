//! The end of what lies in the spool folder: what was taken, refused, or told as a result, a while ago.
//!
//! The record keeps what each of these files was; the file itself is for people who want to look, and for scripts
//! that fetch it. Nobody else empties these folders.

use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::time::Wall;

/// The folders whose files end. Never `incoming/`: what lies there has not been taken.
const ENDING: [&str; 3] = ["processed", "rejected", "results"];

/// What one round has done.
#[derive(Debug, Default)]
pub struct Removed {
    /// Files that are gone.
    pub files: u64,
    /// What they held, in bytes.
    pub bytes: u64,
    /// What could not be removed or looked at; the first of them, with the reason.
    pub left: Option<(PathBuf, io::Error)>,
}

impl Removed {
    fn stays(&mut self, path: &Path, error: io::Error) {
        // Somebody else was quicker, or there is no such folder yet.
        if error.kind() != ErrorKind::NotFound && self.left.is_none() {
            self.left = Some((path.to_owned(), error));
        }
    }
}

/// Removes the regular files that have lain in the ending folders of `spool`, and in the folders of tenants there,
/// for longer than `keep`. Ends early once `stop` says so.
///
/// Since when a file lies there is told by its inode's change, which a rename sets: its modification may be as old
/// as whoever dropped it likes.
pub fn remove(spool: &Path, keep: Duration, now: Wall, stop: &dyn Fn() -> bool) -> Removed {
    let mut removed = Removed::default();
    for kind in ENDING {
        in_folder(&spool.join(kind), true, &mut removed, stop, &|changed| now.since(changed) > keep);
    }
    removed
}

fn in_folder(
    folder: &Path,
    with_tenants: bool,
    removed: &mut Removed,
    stop: &dyn Fn() -> bool,
    is_over: &dyn Fn(Wall) -> bool,
) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return removed.stays(folder, error),
    };
    for entry in entries {
        if stop() {
            return;
        }
        let found = entry.and_then(|entry: DirEntry| Ok((entry.path(), entry.metadata()?)));
        let (path, metadata) = match found {
            Ok(found) => found,
            Err(error) => {
                removed.stays(folder, error);
                continue;
            }
        };
        if metadata.is_dir() && with_tenants {
            in_folder(&path, false, removed, stop, is_over);
        } else if metadata.is_file() && is_over(Wall(metadata.ctime().saturating_mul(1000))) {
            match fs::remove_file(&path) {
                Ok(()) => {
                    removed.files += 1;
                    removed.bytes += metadata.len();
                }
                Err(error) => removed.stays(&path, error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::shown::ShownPath;

    const DAY: Duration = Duration::from_hours(24);

    fn names(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                names.extend(self::names(&entry.path()));
            }
            names.push(ShownPath::new(&entry.path().strip_prefix(folder.parent().unwrap()).unwrap()).to_string());
        }
        names.sort();
        names
    }

    fn scene() -> (tempfile::TempDir, Wall) {
        let spool = tempfile::tempdir().unwrap();
        for folder in ["incoming", "processed/contoso/deeper", "rejected", "results/fabrikam"] {
            fs::create_dir_all(spool.path().join(folder)).unwrap();
        }
        for file in [
            "incoming/waits.txt",
            "processed/a.txt",
            "processed/contoso/b.txt",
            "processed/contoso/deeper/c.txt",
            "rejected/d.txt.receipt.json",
            "results/fabrikam/e.csv",
        ] {
            fs::write(spool.path().join(file), "12345").unwrap();
        }
        let changed = fs::metadata(spool.path().join("processed/a.txt")).unwrap().ctime();
        (spool, Wall(changed * 1000))
    }

    #[test]
    fn what_lies_longer_than_it_is_kept_goes_and_nothing_else_does() {
        let (spool, put) = scene();
        let before = names(spool.path());
        assert_eq!(remove(spool.path(), DAY, put + DAY, &|| false).files, 0, "not before its time");
        assert_eq!(remove(spool.path(), DAY, Wall(0), &|| false).files, 0, "a clock that is behind removes nothing");
        assert_eq!(remove(spool.path(), DAY, put + DAY * 3, &|| true).files, 0, "nor does one who is to stop");
        assert_eq!(names(spool.path()), before);
        std::os::unix::fs::symlink("../incoming/waits.txt", spool.path().join("processed/link")).unwrap();
        let removed = remove(spool.path(), DAY, put + DAY * 3, &|| false);
        assert_eq!((removed.files, removed.bytes), (4, 20), "{removed:?}");
        assert!(removed.left.is_none(), "{removed:?}");
        let left = names(spool.path());
        for there in ["incoming/waits.txt", "deeper/c.txt", "processed/link"] {
            assert!(left.iter().any(|name| name.ends_with(there)), "{there} is gone: {left:?}");
        }
        assert_eq!(left.len(), before.len() - 4 + 1);
    }

    #[test]
    fn the_age_of_its_content_is_not_how_long_it_lies_there() {
        let (spool, put) = scene();
        let old = fs::File::options().write(true).open(spool.path().join("processed/a.txt")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(remove(spool.path(), DAY, put + DAY / 2, &|| false).files, 0);
    }

    #[test]
    fn folders_that_are_not_there_are_none_and_others_are_told() {
        let nowhere = tempfile::tempdir().unwrap();
        assert!(remove(&nowhere.path().join("spool"), DAY, Wall(0), &|| false).left.is_none());
        fs::write(nowhere.path().join("results"), "a file").unwrap();
        let (path, _) = remove(nowhere.path(), DAY, Wall(0), &|| false).left.unwrap();
        assert_eq!(path, nowhere.path().join("results"));
    }
}
