//! Files that some process has open for writing at this moment, as far as `/proc` shows: to root those of everybody, to
//! others those of their own user's processes. What it does not show is not known to be open.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files right in `folder` that are open for writing.
pub fn written_to(folder: &Path) -> HashSet<PathBuf> {
    // Processes see paths without links.
    let Ok(real) = fs::canonicalize(folder) else { return HashSet::new() };
    let mut found = HashSet::new();
    for process in entries(Path::new("/proc")) {
        for descriptor in entries(&process.join("fd")) {
            let Ok(path) = fs::read_link(&descriptor) else { continue };
            if path.parent() == Some(&real)
                && let (Some(name), Some(number)) = (path.file_name(), descriptor.file_name())
                && is_for_writing(&process.join("fdinfo").join(number))
            {
                found.insert(folder.join(name));
            }
        }
    }
    found
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Whether a descriptor's flags, which are octal, say more than reading.
fn is_for_writing(about: &Path) -> bool {
    let text = fs::read_to_string(about).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & 3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_for_writing_is_found_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let names = ["written.txt", "appended.txt", "read.txt"].map(|name| dir.path().join(name));
        fs::write(&names[1], "x").unwrap();
        fs::write(&names[2], "x").unwrap();
        let written = fs::File::create(&names[0]).unwrap();
        let appended = fs::OpenOptions::new().append(true).open(&names[1]).unwrap();
        let read = fs::File::open(&names[2]).unwrap();
        for folder in [dir.path(), &link] {
            let expected = HashSet::from(["written.txt", "appended.txt"].map(|name| folder.join(name)));
            assert_eq!(written_to(folder), expected);
        }
        drop((written, appended, read));
        assert!(written_to(dir.path()).is_empty());
        assert!(written_to(Path::new("/nowhere/at/all")).is_empty());
    }
}
