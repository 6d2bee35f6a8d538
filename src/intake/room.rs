//! Whether there is room for more: intake stops before a short disk stops the daemon, which has answers to write down.

use std::io;
use std::path::Path;

use crate::domain::shown::ShownPath;
use nix::sys::statvfs::statvfs;

/// What is left to the daemon where nothing else is configured, and no more than this part of the file system.
const FLOOR: u64 = 64 << 20;
const PART: u64 = 10;

/// So many files the daemon itself can still make, and no more than that part of all: some file systems count them.
const FILES: u64 = 64;

/// A file system, in bytes.
#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    size: u64,
    /// How many more files there can be.
    files: u64,
    /// How many at most; 0 where they are not counted.
    most_files: u64,
}

impl Space {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = statvfs(folder)?;
        #[allow(clippy::useless_conversion, reason = "their width is the platform's")]
        let bytes = |blocks| u64::from(blocks).saturating_mul(u64::from(found.fragment_size()));
        #[allow(clippy::useless_conversion, reason = "their width is the platform's")]
        let (files, most_files) = (u64::from(found.files_available()), u64::from(found.files()));
        Ok(Self { free: bytes(found.blocks_available()), size: bytes(found.blocks()), files, most_files })
    }

    /// The floor that it is under, if it is.
    fn under(self, min_free: Option<u64>) -> Option<u64> {
        let floor = min_free.unwrap_or_else(|| FLOOR.min(self.size / PART));
        (self.free < floor).then_some(floor)
    }

    /// The floor of files that it is under, if it is.
    fn under_files(self) -> Option<u64> {
        let floor = FILES.min(self.most_files / PART);
        (self.files < floor).then_some(floor)
    }
}

/// Why there is no room in one of these folders; `None` if there is, or if nobody can tell. `min_free` is
/// `intake.min_free`, in bytes.
pub fn shortage(folders: &[&Path], min_free: Option<u64>) -> Option<String> {
    folders.iter().find_map(|folder| {
        let space = Space::of(folder).ok()?;
        if let Some(floor) = space.under_files() {
            let (folder, files) = (ShownPath::new(&folder), space.files);
            return Some(format!("{folder} has room for {files} more files, and {floor} are kept for the daemon"));
        }
        let floor = space.under(min_free)?;
        let (folder, free, floor) = (ShownPath::new(&folder), space.free >> 20, floor >> 20);
        Some(format!("{folder} has {free} MiB left, and {floor} MiB (intake.min_free) are kept for the daemon"))
    })
}

/// With less room than this, in bytes, SQLite can write next to nothing.
const FULL: u64 = 64 << 10;

/// That the file system of this folder is full, in words, if it is.
pub fn full(folder: &Path) -> Option<String> {
    let space = Space::of(folder).ok()?;
    let (folder, kib) = (ShownPath::new(&folder), space.free >> 10);
    (space.free < FULL).then(|| format!("the disk of {folder} is full ({kib} KiB left): make room"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_what_is_configured_else_a_small_part() {
        let space = |free: u64, size: u64| Space { free: free << 20, size: size << 20, files: 0, most_files: 0 };
        assert_eq!(space(63, 100_000).under(None), Some(64 << 20));
        assert_eq!(space(64, 100_000).under(None), None);
        assert_eq!(space(5, 50).under(None), None, "a small file system is not all floor");
        assert_eq!(space(4, 50).under(None), Some(5 << 20));
        assert_eq!(space(99, 100_000).under(Some(100 << 20)), Some(100 << 20));
        assert_eq!(space(1, 100_000).under(Some(1)), None);
    }

    #[test]
    fn files_are_counted_where_the_file_system_counts_them() {
        let files = |files, most_files| Space { free: 0, size: 0, files, most_files }.under_files();
        assert_eq!(files(0, 0), None);
        assert_eq!((files(63, 100_000), files(64, 100_000)), (Some(64), None));
        assert_eq!((files(9, 100), files(10, 100)), (Some(10), None), "a small file system is not all floor");
    }

    #[test]
    fn a_folder_that_nobody_can_look_at_is_not_short() {
        assert_eq!(shortage(&[Path::new("/nowhere/at/all")], Some(u64::MAX)), None);
        // Each is looked at: the spool folder may be on another disk.
        let why = shortage(&[Path::new("/nowhere/at/all"), Path::new("/")], Some(u64::MAX)).unwrap();
        assert!(why.starts_with("/ has ") && why.contains("intake.min_free"), "{why}");
    }
}
