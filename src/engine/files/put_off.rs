//! Files that could not be taken: when each is tried again, and what was reported of it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::domain::time::Boot;
use crate::intake::dir::{Identity, Stat};

/// After a file could not be taken for a reason that may pass.
pub const AGAIN: Duration = Duration::from_secs(30);
/// What was reported of a file is forgotten when the file was not tried for this long: it is gone.
const FORGET: Duration = Duration::from_mins(10);
/// Files that are remembered one by one. With more of them, all files of an owner wait together.
const MOST: usize = 50_000;

/// What is new about a file that could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The file.
    File,
    /// The reason: the file was reported with another one.
    Reason,
    /// Nothing.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Tried {
    again: Boot,
    /// The reason, as its hash.
    why: u64,
}

/// The files that could not be taken, by which file it is: a new file under an old name is another one.
#[derive(Debug, Default)]
pub struct PutOff {
    files: HashMap<Identity, Tried>,
    owners: HashMap<u32, Boot>,
}

impl PutOff {
    /// Whether this file waits.
    pub fn contains(&self, file: &Stat, now: Boot) -> bool {
        self.files.get(&file.identity).is_some_and(|tried| tried.again > now)
            || self.owners.get(&file.uid).is_some_and(|again| *again > now)
    }

    /// The file could not be taken, for this reason.
    pub fn note(&mut self, file: &Stat, why: &str, now: Boot) -> News {
        let mut hash = DefaultHasher::new();
        why.hash(&mut hash);
        let tried = Tried { again: now + AGAIN, why: hash.finish() };
        if self.files.len() >= MOST && !self.files.contains_key(&file.identity) {
            self.owners.insert(file.uid, tried.again);
            return News::Nothing;
        }
        match self.files.insert(file.identity, tried) {
            None => News::File,
            Some(before) if before.why != tried.why => News::Reason,
            Some(_) => News::Nothing,
        }
    }

    /// The file is taken, or gone.
    pub fn remove(&mut self, file: &Stat) {
        self.files.remove(&file.identity);
    }

    /// Forgets what is over.
    pub fn forget(&mut self, now: Boot) {
        self.files.retain(|_, tried| now.since(tried.again) < FORGET);
        self.owners.retain(|_, again| *again > now);
    }

    /// Every file may be tried at once.
    pub fn end(&mut self, now: Boot) {
        self.owners.clear();
        for tried in self.files.values_mut() {
            tried.again = tried.again.min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::intake::dir::Dir;

    /// Files that differ.
    fn files(dir: &Path, count: usize) -> Vec<Stat> {
        let opened = Dir::trusted(dir).unwrap();
        let file = |n: usize| {
            std::fs::write(dir.join(n.to_string()), "x").unwrap();
            opened.look(n.to_string().as_ref()).unwrap()
        };
        (0..count).map(file).collect()
    }

    #[test]
    fn a_file_waits_and_each_reason_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, mut put_off) = (files(dir.path(), 1)[0], PutOff::default());
        assert_eq!(put_off.note(&file, "closed", Boot(0)), News::File);
        assert!(put_off.contains(&file, Boot(29_999)) && !put_off.contains(&file, Boot(30_000)));
        put_off.forget(Boot(30_000));
        assert_eq!(put_off.note(&file, "closed", Boot(30_000)), News::Nothing);
        assert_eq!(put_off.note(&file, "linked", Boot(60_000)), News::Reason);
        put_off.end(Boot(61_000));
        assert!(!put_off.contains(&file, Boot(61_000)), "there is room again");
        assert_eq!(put_off.note(&file, "linked", Boot(61_000)), News::Nothing);
        put_off.forget(Boot(61_000 + 30_000 + 600_000));
        assert_eq!(put_off.note(&file, "linked", Boot(1_000_000)), News::File, "it was gone");
    }

    #[test]
    fn any_number_of_files_costs_a_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let real = files(dir.path(), 2);
        let mut put_off = PutOff::default();
        let made = |inode: u64| Stat { identity: Identity::of(1, inode), ..real[0] };
        for inode in 0..MOST as u64 + 100 {
            put_off.note(&made(inode), "closed", Boot(0));
        }
        assert_eq!((put_off.files.len(), put_off.owners.len()), (MOST, 1));
        let other = Stat { uid: real[0].uid + 1, ..real[1] };
        assert!(put_off.contains(&real[1], Boot(1)), "the owner's files wait together");
        assert!(!put_off.contains(&other, Boot(1)), "and nobody else's");
        put_off.forget(Boot(30_000));
        assert!(!put_off.contains(&real[1], Boot(30_000)));
    }
}
