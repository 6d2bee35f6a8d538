//! Whose file is next: each tenant's one after the other, oldest first, and the tenants in turn.
//!
//! A huge file of one tenant keeps nobody else's waiting: long files and short ones have places of their own.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use crate::domain::id::TenantName;
use crate::intake::folder::Ready;

/// Files that are taken at the same time, at most. Each long one holds the keys of up to a million machines.
const LONG: usize = 2;
const SHORT: usize = 4;

/// Up to here a file is short: a list of a few thousand machines.
const SHORT_BYTES: u64 = 128 << 10;

const fn is_short(ready: &Ready) -> bool {
    ready.size <= SHORT_BYTES
}

/// The files that wait for their turn, and those that have it.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: BTreeMap<Option<TenantName>, VecDeque<Ready>>,
    /// Whose turn it was last.
    last: Option<TenantName>,
    /// Files outside the tenants' folders, and whose they turned out to be.
    known: HashMap<PathBuf, TenantName>,
    under_way: HashSet<PathBuf>,
    long: usize,
    short: usize,
}

impl Turns {
    /// What was found at the last look, oldest first, replaces what waited. `only` is the only tenant.
    pub fn found(&mut self, ready: Vec<Ready>, only: Option<&TenantName>) {
        self.waiting.clear();
        let paths: HashSet<_> = ready.iter().map(|ready| ready.path.clone()).collect();
        self.known.retain(|path, _| paths.contains(path));
        for ready in ready {
            if !self.under_way.contains(&ready.path) {
                let whose = ready.folder.as_ref().or(only).or_else(|| self.known.get(&ready.path)).cloned();
                self.waiting.entry(whose).or_default().push_back(ready);
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.values().all(VecDeque::is_empty)
    }

    /// The next file that may be taken now; `is_busy` tells of whom a file is being taken.
    pub fn next(&mut self, is_busy: impl Fn(&TenantName) -> bool) -> Option<Ready> {
        let (long, short) = (self.long < LONG, self.short < SHORT);
        let may = |whose: &Option<TenantName>, files: &VecDeque<Ready>| {
            files.front().is_some_and(|ready| if is_short(ready) { short } else { long })
                && !whose.as_ref().is_some_and(&is_busy)
        };
        let candidates = || self.waiting.iter().filter(|(whose, files)| may(whose, files)).map(|(whose, _)| whose);
        let whose = candidates().find(|whose| **whose > self.last).or_else(|| candidates().next())?.clone();
        let ready = self.waiting.get_mut(&whose)?.pop_front()?;
        self.last = whose;
        self.under_way.insert(ready.path.clone());
        *(if is_short(&ready) { &mut self.short } else { &mut self.long }) += 1;
        Some(ready)
    }

    /// A file has had its turn.
    pub fn done(&mut self, ready: &Ready) {
        self.under_way.remove(&ready.path);
        let places = if is_short(ready) { &mut self.short } else { &mut self.long };
        *places = places.saturating_sub(1);
    }

    /// A file turned out to be this tenant's, of whom another is being taken: it waits.
    pub fn wait(&mut self, ready: Ready, whose: TenantName) {
        self.known.insert(ready.path.clone(), whose.clone());
        self.waiting.entry(Some(whose)).or_default().push_back(ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: Option<&str>, name: &str, size: u64) -> Ready {
        let folder = folder.map(|folder| folder.parse().unwrap());
        Ready { path: PathBuf::from(name), folder, name: name.into(), size }
    }

    fn names(turns: &mut Turns, busy: &[&str]) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(ready) = turns.next(|whose| busy.contains(&whose.as_str())) {
            names.push(ready.name.to_string_lossy().into_owned());
            turns.done(&ready);
        }
        names
    }

    #[test]
    fn tenants_take_turns_and_each_has_its_own_order() {
        let mut turns = Turns::default();
        let all = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("c", "c2")];
        turns.found(all.iter().map(|(folder, name)| file(Some(folder), name, 1)).collect(), None);
        assert_eq!(names(&mut turns, &["c"]), ["a1", "b1", "a2", "a3"]);
        assert_eq!(names(&mut turns, &[]), ["c1", "c2"]);
        assert!(turns.is_empty());
    }

    #[test]
    fn long_files_leave_places_to_short_ones() {
        let mut turns = Turns::default();
        let huge = SHORT_BYTES + 1;
        let files = [("a", huge), ("b", huge), ("c", huge), ("d", 1)];
        turns.found(files.iter().map(|(name, size)| file(Some(name), name, *size)).collect(), None);
        let mut begun: Vec<_> = std::iter::from_fn(|| turns.next(|_| false)).collect();
        let names: Vec<_> = begun.iter().map(|ready| ready.name.to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["a", "b", "d"]);
        turns.done(&begun.remove(0));
        assert_eq!(turns.next(|_| false).unwrap().name, "c");
    }

    #[test]
    fn what_is_under_way_is_not_begun_again_and_whose_a_file_is_is_remembered() {
        let mut turns = Turns::default();
        turns.found(vec![file(None, "x", 1)], None);
        let ready = turns.next(|_| false).unwrap();
        turns.found(vec![file(None, "x", 1)], None);
        assert!(turns.next(|_| false).is_none());
        turns.done(&ready);
        turns.wait(ready, "a".parse().unwrap());
        turns.found(vec![file(None, "x", 1)], None);
        assert_eq!(names(&mut turns, &["a"]), Vec::<String>::new(), "it is known to be a's");
        assert_eq!(names(&mut turns, &[]), ["x"]);
    }
}
