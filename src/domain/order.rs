//! Which of the jobs that are ready goes next: priority first, then age. Waiting raises a priority,
//! so that nothing routine waits for ever; *urgent* stays above, and gets the next calls always.

use std::cmp::Reverse;
use std::time::Duration;

use super::id::JobId;
use super::sweep::Priority;
use super::time::Wall;

/// The priority that a job has after having waited: a step higher each `rise_after`, at most
/// *high*. Zero for `rise_after` is never.
pub fn effective(priority: Priority, waited: Duration, rise_after: Duration) -> Priority {
    let mut priority = priority;
    let mut left = waited;
    while let Some(higher) = above(priority).filter(|_| !rise_after.is_zero()) {
        match left.checked_sub(rise_after) {
            Some(rest) => (priority, left) = (higher, rest),
            None => break,
        }
    }
    priority
}

/// How long a job must have waited in all to rise above what it has after `waited`; none if it is
/// as high as it gets.
pub fn next_rise(priority: Priority, waited: Duration, rise_after: Duration) -> Option<Duration> {
    let (mut priority, mut at) = (priority, rise_after);
    while let Some(higher) = above(priority).filter(|_| !rise_after.is_zero()) {
        if at > waited {
            return Some(at);
        }
        (priority, at) = (higher, at.saturating_add(rise_after));
    }
    None
}

const fn above(priority: Priority) -> Option<Priority> {
    match priority {
        Priority::Low => Some(Priority::Normal),
        Priority::Normal => Some(Priority::High),
        Priority::High | Priority::Urgent => None,
    }
}

/// A job that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub job: JobId,
    /// As it was asked for.
    pub priority: Priority,
    /// Since when it waits.
    pub since: Wall,
}

/// The one to send at `now`. Since ages go by id, it is enough to know the oldest of each priority.
pub fn first(candidates: &[Candidate], rise_after: Duration, now: Wall) -> Option<JobId> {
    let key = |candidate: &&Candidate| {
        let priority = effective(candidate.priority, now.since(candidate.since), rise_after);
        (priority, Reverse(candidate.job))
    };
    candidates.iter().max_by_key(key).map(|candidate| candidate.job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_hours(24);

    fn after(days: u32, priority: Priority) -> Priority {
        effective(priority, DAY * days, DAY)
    }

    fn just_before(time: Duration) -> Duration {
        time.saturating_sub(Duration::from_millis(1))
    }

    #[test]
    fn waiting_raises_a_priority_to_high_and_no_further() {
        assert_eq!(
            [0, 1, 2, 3, 999].map(|days| after(days, Priority::Low).as_str()),
            ["low", "normal", "high", "high", "high"]
        );
        assert_eq!([0, 1, 2].map(|days| after(days, Priority::Normal).as_str()), ["normal", "high", "high"]);
        assert_eq!(after(999, Priority::High), Priority::High);
        assert_eq!(after(999, Priority::Urgent), Priority::Urgent);
        assert_eq!(effective(Priority::Low, just_before(DAY), DAY), Priority::Low);
        assert_eq!(effective(Priority::Low, Duration::MAX, Duration::ZERO), Priority::Low, "zero is never");
    }

    #[test]
    fn the_next_rise_is_when_the_priority_changes() {
        for priority in Priority::ALL {
            for hours in [0, 1, 23, 24, 25, 47, 48, 100] {
                let waited = Duration::from_hours(hours);
                let before = effective(*priority, waited, DAY);
                match next_rise(*priority, waited, DAY) {
                    Some(at) => {
                        assert!(at > waited && effective(*priority, at, DAY) > before);
                        assert_eq!(effective(*priority, just_before(at), DAY), before);
                    }
                    None => assert_eq!(effective(*priority, Duration::MAX, DAY), before),
                }
            }
        }
        assert_eq!(next_rise(Priority::Low, DAY, Duration::ZERO), None);
    }

    #[test]
    fn a_clock_that_went_back_ages_nothing() {
        let candidates = [
            Candidate { job: JobId(1), priority: Priority::Normal, since: Wall(i64::MAX) },
            Candidate { job: JobId(2), priority: Priority::High, since: Wall(0) },
        ];
        assert_eq!(first(&candidates, DAY, Wall(5)), Some(JobId(2)));
        assert_eq!(first(&[], DAY, Wall(5)), None);
    }

    /// Jobs by age, each some hours younger than the one before; the last is made now.
    fn queue(jobs: &[(u8, u8)]) -> (Vec<Candidate>, Wall) {
        let mut at = Wall(0);
        let mut candidates = Vec::new();
        for ((priority, hours), id) in jobs.iter().zip(1..) {
            at = at + Duration::from_hours(u64::from(*hours));
            let priority = Priority::from_rank(i64::from(*priority));
            candidates.push(Candidate { job: JobId(id), priority, since: at });
        }
        (candidates, at)
    }

    proptest! {
        #[test]
        fn the_oldest_of_each_priority_stand_for_all(jobs in prop::collection::vec((0_u8..4, 0_u8..40), 1..40)) {
            let (all, now) = queue(&jobs);
            let oldest = |priority: &Priority| all.iter().find(|job| job.priority == *priority).copied();
            let heads: Vec<_> = Priority::ALL.iter().filter_map(oldest).collect();
            prop_assert_eq!(first(&heads, DAY, now), first(&all, DAY, now));
        }

        #[test]
        fn urgent_goes_first_and_what_has_risen_before_what_is_younger(
            jobs in prop::collection::vec((0_u8..4, 0_u8..40), 1..40),
        ) {
            let (all, now) = queue(&jobs);
            let next = first(&all, DAY, now).unwrap();
            let next = all.iter().find(|candidate| candidate.job == next).unwrap();
            for older in all.iter().filter(|older| older.job < next.job) {
                prop_assert!(older.priority < next.priority, "{older:?} for {next:?}");
                let risen = now.since(older.since) >= DAY * 2;
                prop_assert!(!risen || next.priority == Priority::Urgent, "{older:?} for {next:?}");
            }
            let urgent = all.iter().any(|candidate| candidate.priority == Priority::Urgent);
            prop_assert!(!urgent || next.priority == Priority::Urgent);
        }

        #[test]
        fn nothing_starves_however_much_that_is_more_important_comes_in(
            each_hour in prop::collection::vec(1_u8..3, 200),
        ) {
            // One job is sent an hour, and one that goes before comes in at once, for ever.
            let low = Candidate { job: JobId(1), priority: Priority::Low, since: Wall(0) };
            let mut waiting = vec![low];
            let mut sent_after = None;
            for (hour, priority) in (1..).zip(&each_hour) {
                let now = Wall(0) + Duration::from_hours(hour);
                let priority = Priority::from_rank(i64::from(*priority));
                waiting.push(Candidate { job: JobId(1 + i64::try_from(hour).unwrap()), priority, since: now });
                let next = first(&waiting, DAY, now).unwrap();
                waiting.retain(|candidate| candidate.job != next);
                if next == low.job {
                    sent_after = Some(hour);
                    break;
                }
            }
            prop_assert!(sent_after.is_some_and(|hours| hours <= 48), "{sent_after:?}");
        }
    }
}
