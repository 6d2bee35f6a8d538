//! What lies in a folder: of any number of files the oldest.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::dir::{Dir, Kind, Stat};
use super::formats::is_taken_by_name;
use super::left::Why;
use super::moved::Moved;

/// So many files of a folder are looked at more closely, the oldest: there may be any number.
pub const AT_ONCE: usize = 4096;

/// Names that other programs write to before the real one.
const UNFINISHED: [&str; 6] = [".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp"];

/// A file that may be taken. They sort by age.
#[derive(Debug, PartialEq, Eq)]
pub struct Candidate {
    pub modified: Option<SystemTime>,
    pub name: OsString,
    pub found: Stat,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.modified, &self.name).cmp(&(other.modified, &other.name))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What lies in a folder.
#[derive(Default)]
pub struct Listed {
    /// The oldest files, by age.
    pub oldest: Vec<Candidate>,
    /// Whether there are more of them.
    pub more: bool,
    /// What is not taken.
    pub left: Vec<(Why, Candidate)>,
}

/// Lists a folder. Files for which `is_put_off` are left out; what is there no more is forgotten in `moved`.
pub fn list(
    folder: &Dir,
    moved: &mut Moved,
    mut is_put_off: impl FnMut(&Path, &Stat) -> bool,
    is_expected: impl Fn(&OsStr, Kind) -> bool,
) -> io::Result<Listed> {
    let mut listed = Listed::default();
    let mut oldest = BinaryHeap::new();
    let mut present = HashSet::new();
    for name in folder.names()? {
        let path = folder.path().join(&name);
        // Not followed: a link is no file of ours. Gone meanwhile: somebody took it back.
        let Ok(found) = folder.look(&name) else { continue };
        if moved.contains(&path) {
            present.insert(name.clone());
        }
        let is_unfinished = is_unfinished(&name);
        let why = match found.kind {
            Kind::File if is_unfinished => Some(Why::Unfinished),
            Kind::File if !is_taken_by_name(&name) => Some(Why::Ending),
            Kind::File => None,
            Kind::Folder | Kind::Other if is_unfinished || is_expected(&name, found.kind) => continue,
            Kind::Folder | Kind::Other => Some(Why::NoFile),
        };
        let candidate = Candidate { modified: found.modified_at(), name, found };
        if let Some(why) = why {
            listed.left.push((why, candidate));
        } else if !is_put_off(&path, &candidate.found) {
            oldest.push(candidate);
            if oldest.len() > AT_ONCE {
                oldest.pop();
                listed.more = true;
            }
        }
    }
    moved.keep(folder.path(), &present);
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
