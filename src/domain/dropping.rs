//! How many files an owner may have taken within an hour (`intake.max_files_per_hour`).
//!
//! Counted by the minute on the boot clock, and kept in memory: a restart begins anew.

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
    fn an_owner_without_files_is_forgotten() {
        let mut taken = Taken::default();
        (0..1000).for_each(|owner| taken.note(owner, Boot(0)));
        assert_eq!((taken.count(5), taken.until(5)), (1, Some(Boot(3_660_000))));
        taken.forget(Boot(3_660_000));
        assert!(taken.0.is_empty());
    }
}
