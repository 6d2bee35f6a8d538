//! The names under which files are put away. Several files are taken at once, and what is a free name for one must not
//! be taken for free by the next before the first has it: one file would take the place of the other.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::folder::{Folder, Place, receipt_name};
use crate::domain::id::TenantName;

/// The names that were chosen, and that their files do not have yet; those of their receipts too.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashSet<PathBuf>>);

impl Names {
    /// A name that is free and stays so until the promise is dropped.
    pub fn choose(&self, folder: &Folder, place: Place, below: Option<&TenantName>, name: &OsStr) -> Promise<'_> {
        let mut promised = self.promised();
        let free = folder.free_name(place, below, name, |path| promised.contains(path));
        let target = folder.place(place, below).join(free);
        promised.extend(both(&target));
        Promise { names: self, target, is_kept: false }
    }

    /// Nobody else gets this name until it is released.
    pub fn reserve(&self, target: &Path) {
        self.promised().extend(both(target));
    }

    /// The file has its name, or never will.
    pub fn release(&self, target: &Path) {
        let mut promised = self.promised();
        for path in both(target) {
            promised.remove(&path);
        }
    }

    fn promised(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a file and its receipt come to lie.
fn both(target: &Path) -> [PathBuf; 2] {
    [target.to_owned(), target.with_file_name(receipt_name(target.file_name().unwrap_or_default()))]
}

/// A name that is one file's.
#[derive(Debug)]
pub struct Promise<'a> {
    names: &'a Names,
    target: PathBuf,
    is_kept: bool,
}

impl Promise<'_> {
    /// The path of that name.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The name is on record, and is the file's until [`Names::release`].
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.names.release(&self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn no_two_files_get_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &["a".parse().unwrap()]);
        folder.create().unwrap();
        let names = Names::default();
        let choose = |name: &[u8]| {
            let name = OsString::from_vec(name.to_vec());
            names.choose(&folder, Place::Processed, None, &name)
        };
        let name = |promise: &Promise<'_>| promise.target().file_name().unwrap().to_str().unwrap().to_owned();
        // Two names that are no text, and read alike.
        let (grave, acute) = (choose(b"caf\xe8.txt"), choose(b"caf\xe9.txt"));
        assert_eq!((name(&grave), name(&acute)), ("caf\u{fffd}.txt".to_owned(), "caf\u{fffd}.1.txt".to_owned()));
        // One whose own name is what the other one got.
        std::fs::write(dir.path().join("processed/list.txt"), "").unwrap();
        let (second, numbered) = (choose(b"list.txt"), choose(b"list.1.txt"));
        assert_eq!((name(&second), name(&numbered)), ("list.1.txt".to_owned(), "list.1.1.txt".to_owned()));
        // One whose name is that of the other's receipt.
        let (file, receipt) = (choose(b"x"), choose(b"x.receipt.json"));
        assert_eq!((name(&file), name(&receipt)), ("x".to_owned(), "x.receipt.1.json".to_owned()));
        // What was given up is free again; what is on record is not.
        drop(grave);
        assert_eq!(name(&choose(b"caf\xe8.txt")), "caf\u{fffd}.txt");
        let target = acute.target().to_owned();
        acute.keep();
        names.reserve(&target);
        assert_eq!(name(&choose(b"caf\xe9.1.txt")), "caf\u{fffd}.1.1.txt");
        names.release(&target);
        assert_eq!(name(&choose(b"caf\xe9.1.txt")), "caf\u{fffd}.1.txt");
    }
}
