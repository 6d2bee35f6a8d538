//! Whose file is next: each tenant's oldest first, and the tenants in turn.
//!
//! A huge file keeps no short one waiting, its own tenant's included: each have places, and turns, of their own. Two
//! long ones are taken at a time; a third tenant's comes before the second of whoever had one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::domain::id::TenantName;
use crate::intake::folder::Ready;

/// Turns that are had at the same time, at most. Each long file holds the keys of up to a million machines.
const LONG: usize = 2;
const SHORT: usize = 4;

/// Up to here a file is short: a list of a few thousand machines.
const SHORT_BYTES: u64 = 128 << 10;

/// Short files of a tenant that are taken in one turn, so that they wait for the disk together; and their bytes, so
/// that they make no long transaction.
const TOGETHER: usize = 16;
const TOGETHER_BYTES: u64 = 32 << 10;

/// Whether a file takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Length {
    /// It is short.
    Short,
    /// It may be.
    Long,
}

const fn length_of(ready: &Ready) -> Length {
    if ready.found.size <= SHORT_BYTES { Length::Short } else { Length::Long }
}

/// What is taken in one turn: one file, or some short ones of a tenant, oldest first.
#[derive(Debug)]
pub struct Turn {
    /// Whose they are, where that is known before they are read.
    pub whose: Option<TenantName>,
    /// The files; there is one, at least.
    pub files: Vec<Ready>,
    /// How long they are.
    pub length: Length,
}

/// Files of one length that wait, and whose turn it was last.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Option<TenantName>, VecDeque<Ready>>,
    last: Option<TenantName>,
    under_way: usize,
}

impl Queue {
    fn next(&mut self, is_busy: impl Fn(&TenantName) -> bool) -> Option<(Option<TenantName>, Vec<Ready>)> {
        let may = |(whose, files): &(&Option<TenantName>, &VecDeque<Ready>)| {
            !files.is_empty() && !whose.as_ref().is_some_and(&is_busy)
        };
        let behind = self.waiting.range((Bound::Excluded(&self.last), Bound::Unbounded));
        let whose = behind.chain(&self.waiting).find(may)?.0.clone();
        let waiting = self.waiting.get_mut(&whose)?;
        let mut files = vec![waiting.pop_front()?];
        let mut bytes = files.first()?.found.size;
        // Whose a file is that nobody knows yet, it says itself: it is read alone.
        while whose.is_some() && files.len() < TOGETHER {
            let fits = |next: &mut Ready| bytes + next.found.size <= TOGETHER_BYTES;
            let Some(next) = waiting.pop_front_if(fits) else { break };
            bytes += next.found.size;
            files.push(next);
        }
        self.last.clone_from(&whose);
        self.under_way += 1;
        Some((whose, files))
    }
}

/// The files that wait for their turn, and those that have it.
#[derive(Debug, Default)]
pub struct Turns {
    short: Queue,
    long: Queue,
    /// Files outside the tenants' folders, and whose they turned out to be.
    known: HashMap<PathBuf, TenantName>,
    under_way: HashSet<PathBuf>,
}

impl Turns {
    /// What was found at the last look, oldest first, replaces what waited. `only` is the only tenant.
    pub fn found(&mut self, ready: Vec<Ready>, only: Option<&TenantName>) {
        self.short.waiting.clear();
        self.long.waiting.clear();
        if !self.known.is_empty() {
            let paths: HashSet<_> = ready.iter().map(|ready| ready.path.as_path()).collect();
            self.known.retain(|path, _| paths.contains(path.as_path()));
        }
        for ready in ready {
            if !self.under_way.contains(&ready.path) {
                let whose = ready.folder.as_ref().or(only).or_else(|| self.known.get(&ready.path)).cloned();
                self.queue(length_of(&ready)).waiting.entry(whose).or_default().push_back(ready);
            }
        }
    }

    const fn queue(&mut self, length: Length) -> &mut Queue {
        match length {
            Length::Short => &mut self.short,
            Length::Long => &mut self.long,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        [&self.short, &self.long].iter().all(|queue| queue.waiting.values().all(VecDeque::is_empty))
    }

    /// What may be taken now; `is_busy` tells of whom files of that length are being taken.
    pub fn next(&mut self, is_busy: impl Fn(&TenantName, Length) -> bool) -> Option<Turn> {
        for (length, most) in [(Length::Short, SHORT), (Length::Long, LONG)] {
            let queue = self.queue(length);
            if queue.under_way < most
                && let Some((whose, files)) = queue.next(|whose| is_busy(whose, length))
            {
                self.under_way.extend(files.iter().map(|ready| ready.path.clone()));
                return Some(Turn { whose, files, length });
            }
        }
        None
    }

    /// Whether this file is being taken.
    pub fn is_under_way(&self, path: &Path) -> bool {
        self.under_way.contains(path)
    }

    /// A turn of this length was had.
    pub fn had(&mut self, length: Length) {
        let queue = self.queue(length);
        queue.under_way = queue.under_way.saturating_sub(1);
    }

    /// A file is not under way any more.
    pub fn done(&mut self, ready: &Ready) {
        self.under_way.remove(&ready.path);
    }

    /// A file turned out to be this tenant's, of whom another is being taken: it waits.
    pub fn wait(&mut self, ready: Ready, whose: TenantName) {
        self.known.insert(ready.path.clone(), whose.clone());
        self.queue(length_of(&ready)).waiting.entry(Some(whose)).or_default().push_back(ready);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::intake::dir::{Dir, Stat};

    const HUGE: u64 = SHORT_BYTES + 1;

    fn file(folder: Option<&str>, name: &str, size: u64) -> Ready {
        let folder = folder.map(|folder| folder.parse().unwrap());
        let dir = Arc::new(Dir::trusted(Path::new("/")).unwrap());
        let found = Stat { size, ..dir.stat().unwrap() };
        Ready { dir, path: PathBuf::from(name), folder, name: name.into(), found }
    }

    fn all(files: &[(&str, &str, u64)]) -> Vec<Ready> {
        files.iter().map(|(folder, name, size)| file(Some(folder), name, *size)).collect()
    }

    fn names_of(turn: &Turn) -> Vec<String> {
        turn.files.iter().map(|ready| ready.name.to_string_lossy().into_owned()).collect()
    }

    /// Ends a turn.
    fn end(turns: &mut Turns, turn: &Turn) {
        turns.had(turn.length);
        turn.files.iter().for_each(|ready| turns.done(ready));
    }

    /// Begins what may begin.
    fn begun(turns: &mut Turns) -> Vec<Turn> {
        std::iter::from_fn(|| turns.next(|_, _| false)).collect()
    }

    fn names(turns: &mut Turns, busy: &[&str]) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(turn) = turns.next(|whose, _| busy.contains(&whose.as_str())) {
            names.extend(names_of(&turn));
            end(turns, &turn);
        }
        names
    }

    #[test]
    fn tenants_take_turns_and_each_has_its_own_order() {
        let mut turns = Turns::default();
        let long = |(folder, name)| (folder, name, HUGE);
        let files = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("c", "c2")];
        turns.found(all(&files.map(long)), None);
        assert_eq!(names(&mut turns, &["c"]), ["a1", "b1", "a2", "a3"]);
        assert_eq!(names(&mut turns, &[]), ["c1", "c2"]);
        assert!(turns.is_empty());
    }

    #[test]
    fn short_files_of_a_tenant_are_taken_together_in_their_order() {
        let mut turns = Turns::default();
        let mut files: Vec<_> = (0..40).map(|n| file(Some("a"), &format!("a{n:02}"), 41)).collect();
        files.push(file(Some("b"), "b", 41));
        files.extend(all(&[("c", "c1", TOGETHER_BYTES), ("c", "c2", 1), ("c", "c3", 1)]));
        let nobodys = vec![file(None, "x", 1), file(None, "y", 1)];
        files.extend(nobodys.clone());
        turns.found(files, None);
        let sizes = |turns: &[Turn]| turns.iter().map(|turn| turn.files.len()).collect::<Vec<_>>();
        let first = begun(&mut turns);
        assert_eq!(sizes(&first), [TOGETHER, 1, 1, 1], "a's, b's, the longest of c's, and one of nobody's");
        assert_eq!(names_of(&first[0])[..2], ["a00", "a01"]);
        for turn in &first {
            end(&mut turns, turn);
        }
        let second = begun(&mut turns);
        assert_eq!(sizes(&second), [TOGETHER, 2, 1, 8]);
        assert_eq!(names_of(&second[0])[0], "a16");
        for turn in &second {
            end(&mut turns, turn);
        }
        turns.found(nobodys, None);
        assert!(begun(&mut turns).iter().all(|turn| turn.files.len() == 1), "whose they are is not known");
    }

    #[test]
    fn no_short_file_waits_for_a_long_one_and_the_third_long_one_gets_its_turn() {
        let mut turns = Turns::default();
        let files = [("a", "a1", HUGE), ("a", "a2", HUGE), ("a", "a", 1), ("b", "b1", HUGE), ("b", "b2", HUGE)];
        let third = [("c", "c1", HUGE), ("c", "c", 1)];
        turns.found([all(&files), all(&third)].concat(), None);
        let busy = |whose: &TenantName, length| length == Length::Long && ["a", "b"].contains(&whose.as_str());
        let short: Vec<_> = [turns.next(|_, _| false), turns.next(|_, _| false)].into_iter().flatten().collect();
        assert_eq!(short.iter().flat_map(names_of).collect::<Vec<_>>(), ["a", "c"]);
        let long = begun(&mut turns);
        assert_eq!(long.iter().flat_map(names_of).collect::<Vec<_>>(), ["a1", "b1"]);
        assert!(turns.next(busy).is_none());
        end(&mut turns, &long[0]);
        assert_eq!(names_of(&turns.next(|_, _| false).unwrap()), ["c1"], "not a's second, though a comes first");
    }

    #[test]
    fn what_is_under_way_is_not_begun_again_and_whose_a_file_is_is_remembered() {
        let mut turns = Turns::default();
        turns.found(vec![file(None, "x", 1)], None);
        let mut turn = turns.next(|_, _| false).unwrap();
        turns.found(vec![file(None, "x", 1)], None);
        assert!(turns.next(|_, _| false).is_none());
        end(&mut turns, &turn);
        turns.wait(turn.files.remove(0), "a".parse().unwrap());
        turns.found(vec![file(None, "x", 1)], None);
        assert_eq!(names(&mut turns, &["a"]), Vec::<String>::new(), "it is known to be a's");
        assert_eq!(names(&mut turns, &[]), ["x"]);
    }
}
