//! How many files an owner may have taken within an hour (`intake.max_files_per_hour`).
//!
//! Counted by the minute on the boot clock, and kept in memory: a restart or reload begins anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::time::Boot;

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: i64 = 60_000;

/// Files that were taken within the hour, by owner and minute.
#[derive(Clone, Debug, Default)]
pub struct Taken(BTreeMap<u32, VecDeque<(i64, u64)>>);

impl Taken {
    /// A file of this owner was taken.
    pub fn note(&mut self, owner: u32, now: Boot) {
        let minutes = self.0.entry(owner).or_default();
        let minute = now.0.div_euclid(MINUTE);
        match minutes.back_mut() {
            Some((last, count)) if *last == minute => *count += 1,
            _ => minutes.push_back((minute, 1)),
        }
    }

    /// Forgets what is older than an hour: afterwards there are at most 61 numbers for each owner of the last hour.
    pub fn forget(&mut self, now: Boot) {
        for minutes in self.0.values_mut() {
            while minutes.front().is_some_and(|(minute, _)| ends(*minute) <= now) {
                minutes.pop_front();
            }
        }
        self.0.retain(|_, minutes| !minutes.is_empty());
    }

    /// How many of this owner's count now.
    pub fn count(&self, owner: u32) -> u64 {
        self.0.get(&owner).into_iter().flatten().map(|(_, count)| count).sum()
    }

    /// When the first of them counts no more.
    pub fn until(&self, owner: u32) -> Option<Boot> {
        self.0.get(&owner)?.front().map(|(minute, _)| ends(*minute))
    }
}

/// When what was taken in this minute counts no more: the last of it, an hour later.
fn ends(minute: i64) -> Boot {
    Boot((minute + 1) * MINUTE) + HOUR
}

/// How many files of each owner may be taken now: those that were taken within the hour and those that are being taken
/// count against the limit.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// Files of one owner within an hour; 0: any number.
    limit: u64,
    /// Owners that have no limit.
    free: [u32; 2],
    taken: Taken,
    under_way: BTreeMap<u32, u64>,
}

impl Allowance {
    /// Nothing was taken yet.
    pub fn new(limit: u64, free: [u32; 2]) -> Self {
        Self { limit, free, taken: Taken::default(), under_way: BTreeMap::new() }
    }

    /// Files of this owner that may be begun now; `None` for any number.
    pub fn left(&self, owner: u32) -> Option<u64> {
        if self.limit == 0 || self.free.contains(&owner) {
            return None;
        }
        let under_way = self.under_way.get(&owner).copied().unwrap_or(0);
        Some(self.limit.saturating_sub(self.taken.count(owner)).saturating_sub(under_way))
    }

    /// A file of this owner is being taken.
    pub fn begin(&mut self, owner: u32) {
        *self.under_way.entry(owner).or_default() += 1;
    }

    /// That is over. Only a file that was dealt with counts from now on.
    pub fn end(&mut self, owner: u32, is_done: bool, now: Boot) {
        if let Some(under_way) = self.under_way.get_mut(&owner) {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 {
                self.under_way.remove(&owner);
            }
        }
        if is_done && self.limit > 0 && !self.free.contains(&owner) {
            self.taken.note(owner, now);
        }
    }

    /// Forgets what is older than an hour.
    pub fn forget(&mut self, now: Boot) {
        self.taken.forget(now);
    }

    /// When one more of this owner may be taken, should none be left now and those under way count.
    pub fn until(&self, owner: u32) -> Option<Boot> {
        self.taken.until(owner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_hour_sees_more_than_the_limit(steps in prop::collection::vec((0_i64..400_000, 0_u32..3), 1..400), limit in 1_u64..20) {
            let (mut taken, mut now) = (Taken::default(), 0);
            let mut log: Vec<(i64, u32)> = Vec::new();
            for (pause, owner) in steps {
                now += pause;
                taken.forget(Boot(now));
                if taken.count(owner) < limit {
                    taken.note(owner, Boot(now));
                    log.push((now, owner));
                } else {
                    prop_assert!(taken.until(owner).is_some_and(|until| until > Boot(now) && until <= Boot(now + 3_660_000)));
                }
                let within = log.iter().filter(|(at, of)| *of == owner && *at > now - 3_600_000).count();
                prop_assert!(within as u64 <= limit);
            }
        }
    }

    #[test]
    fn what_is_being_taken_counts_and_what_was_not_taken_does_not() {
        let mut files = Allowance::new(2, [0, 999]);
        assert_eq!((files.left(7), files.left(0), files.left(999)), (Some(2), None, None));
        files.begin(7);
        files.begin(7);
        assert_eq!((files.left(7), files.left(8)), (Some(0), Some(2)), "each owner by itself");
        files.end(7, false, Boot(0));
        assert_eq!(files.left(7), Some(1));
        files.end(7, true, Boot(0));
        assert_eq!((files.left(7), files.until(7)), (Some(1), Some(Boot(3_660_000))));
        files.begin(0);
        files.end(0, true, Boot(0));
        assert_eq!((files.left(0), files.until(0)), (None, None));
        files.forget(Boot(3_660_000));
        assert_eq!(files.left(7), Some(2));
        assert!(files.under_way.is_empty());
        assert_eq!(Allowance::new(0, [0, 0]).left(7), None);
    }

    #[test]
    fn an_owner_without_files_is_forgotten() {
        let mut taken = Taken::default();
        (0..1000).for_each(|owner| taken.note(owner, Boot(0)));
        assert_eq!((taken.count(5), taken.until(5)), (1, Some(Boot(3_660_000))));
        taken.forget(Boot(3_660_000));
        assert!(taken.0.is_empty());
    }
}
