//! What is left in place in the drop folder: each such name is reported once, and any number of them is remembered in a
//! bounded memory.

use std::collections::HashSet;
use std::path::PathBuf;

/// Names that are remembered one by one, of each kind.
pub const MOST: usize = 1000;

/// Why something is left in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is no regular file.
    NoFile,
    /// Its ending is none of those that are taken.
    Ending,
    /// Its name says that it is unfinished, and it has not changed for a day.
    Unfinished,
}

/// What a look has found for one reason.
#[derive(Clone, Debug, Default)]
pub struct Found {
    named: Vec<PathBuf>,
    count: usize,
}

impl Found {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { named: Vec::new(), count: 0 }
    }

    /// One more. Only the first are remembered by name.
    pub fn add(&mut self, path: PathBuf) {
        self.count += 1;
        if self.named.len() < MOST {
            self.named.push(path);
        }
    }
}

/// What was not there at the look before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Why it is left in place.
    pub why: Why,
    /// The first by name; never empty.
    pub named: Vec<PathBuf>,
    /// How many: more than are named, if there are very many.
    pub count: u64,
}

/// What the last look has found, for each reason.
#[derive(Clone, Debug, Default)]
pub struct Known {
    kinds: [(HashSet<PathBuf>, usize); 3],
}

impl Known {
    /// Takes what a look has found, for one reason after the other, and returns what is new.
    pub fn new_ones(&mut self, found: [(Why, Found); 3]) -> Vec<Stray> {
        let each = self.kinds.iter_mut().zip(found);
        each.filter_map(|(known, (why, found))| {
            let Found { named, count } = found;
            let mut new: Vec<_> = named.iter().filter(|path| !known.0.contains(*path)).cloned().collect();
            // With more of them than are remembered, it is their number that shows what is new.
            let more = if count > MOST { count.saturating_sub(known.1) } else { new.len() };
            if new.is_empty() {
                new.extend(named.first().cloned());
            }
            new.truncate(more);
            *known = (named.into_iter().collect(), count);
            (!new.is_empty()).then_some(Stray { why, named: new, count: more as u64 })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_news_once_and_any_number_costs_bounded_memory() {
        let mut known = Known::default();
        let mut news = |range: std::ops::Range<usize>| {
            let mut found = Found::default();
            range.for_each(|n| found.add(PathBuf::from(n.to_string())));
            let found = [(Why::NoFile, Found::default()), (Why::Ending, found), (Why::Unfinished, Found::default())];
            let news = known.new_ones(found);
            assert!(known.kinds.iter().all(|(names, _)| names.len() <= MOST));
            news.into_iter().map(|news| (news.why, news.named.len(), news.count)).collect::<Vec<_>>()
        };
        assert_eq!(news(0..2), [(Why::Ending, 2, 2)]);
        assert_eq!(news(0..3), [(Why::Ending, 1, 1)]);
        assert_eq!(news(1..3), []);
        assert_eq!(news(0..10_000), [(Why::Ending, MOST - 2, 9_998)]);
        assert_eq!(news(0..10_000), []);
        assert_eq!(news(0..10_001), [(Why::Ending, 1, 1)]);
        assert_eq!(news(0..0), []);
    }
}
