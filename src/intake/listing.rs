//! What lies in a folder: of any number of files the oldest.

use std::collections::{BinaryHeap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::moved::Moved;

/// So many files of a folder are looked at more closely, the oldest: there may be any number.
pub const AT_ONCE: usize = 4096;

/// Names that other programs write to before the real one.
const UNFINISHED: [&str; 6] = [".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp"];

/// A file that may be taken. They sort by age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub modified: Option<SystemTime>,
    pub name: OsString,
    pub size: u64,
}

/// What lies in a folder.
#[derive(Default)]
pub struct Listed {
    /// The oldest files, by age.
    pub oldest: Vec<Candidate>,
    /// Whether there are more of them.
    pub more: bool,
    /// What is no regular file.
    pub odd: Vec<(OsString, Metadata)>,
}

/// Lists a folder. Files for which `is_put_off` are left out; what is there no more is forgotten in `moved`.
pub fn list(folder: &Path, moved: &mut Moved, is_put_off: impl Fn(&Path) -> bool) -> io::Result<Listed> {
    let mut listed = Listed::default();
    let mut oldest = BinaryHeap::new();
    let mut present = HashSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_unfinished(&name) {
            continue;
        }
        let path = entry.path();
        // Not followed: a link is no file of ours. Gone meanwhile: somebody took it back.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if moved.contains(&path) {
            present.insert(name.clone());
        }
        if !metadata.is_file() {
            listed.odd.push((name, metadata));
        } else if !is_put_off(&path) {
            oldest.push(Candidate { modified: metadata.modified().ok(), name, size: metadata.len() });
            if oldest.len() > AT_ONCE {
                oldest.pop();
                listed.more = true;
            }
        }
    }
    moved.keep(folder, &present);
    listed.oldest = oldest.into_sorted_vec();
    Ok(listed)
}

fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".")
        || name.ends_with(b"~")
        || UNFINISHED.iter().any(|ending| {
            name.len() >= ending.len()
                && name.get(name.len() - ending.len()..).is_some_and(|end| end.eq_ignore_ascii_case(ending.as_bytes()))
        })
}
