//! When to look for an attempt whose outcome is unknown, and what a look means.
//!
//! The list of actions may lag behind a call (observed), and a call that was given up may still
//! be delivered for `unknown_grace`. So absence counts only in a look that began at the horizon
//! or later; presence counts at once.
//!
//! A machine that Defender calls unknown (404) was seen to exist a moment later. So it is read itself
//! before its job is rejected, and where that is not permitted, it takes a second 404.

use std::time::Duration;

use super::retry::pause;
use super::time::Boot;

/// The first looks after an outcome became unknown; the last one is at the horizon.
const LOOKS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_mins(2),
    Duration::from_mins(5),
];

/// So long after a 404 the machine itself is read.
const PASSING: Duration = Duration::from_secs(30);

/// Why an attempt is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Did the call have an effect?
    Effect,
    /// The call was refused since the machine is busy: with which action?
    Blocker,
    /// The call was answered with 404: does Defender know the machine?
    Machine,
}

super::sweep::words!(Question { Effect = "effect", Blocker = "blocker", Machine = "machine" });

/// When to look the next time, `looks` having been made since the question came up at `since`.
pub fn next_look(question: Question, since: Boot, looks: u32, horizon: Duration, now: Boot) -> Boot {
    let scheduled = match question {
        // The blocker exists already: the answer said so.
        Question::Blocker if looks == 0 => return now,
        // What made Defender not know the machine for a moment may also make it not find it.
        Question::Machine if looks == 0 => return since + PASSING.min(horizon),
        Question::Blocker | Question::Machine | Question::Effect => LOOKS
            .get(looks as usize)
            .copied()
            .filter(|after| *after < horizon)
            .map_or(since + horizon, |after| since + after),
    };
    // Looks that could not be made (throttled, down, stopped) are not made up for in a burst.
    scheduled.max(now + Duration::from_secs(5).min(horizon))
}

/// How long to go on asking which action blocks, before the job is skipped without its name.
pub const BLOCKER_HORIZON: Duration = Duration::from_secs(45);

/// Whether a look that began at `began` and found nothing proves that there is nothing.
pub fn proves_absence(question: Question, since: Boot, horizon: Duration, began: Boot) -> bool {
    let horizon = match question {
        Question::Effect | Question::Machine => horizon,
        Question::Blocker => horizon.min(BLOCKER_HORIZON),
    };
    began >= since + horizon
}

/// What was learnt of a machine that Defender called unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It can be read: the 404 was in passing.
    Yes,
    /// Reading it is answered with 404 too.
    No,
    /// The tenant does not let us read machines.
    NotPermitted,
}

/// What becomes of the job of a machine that Defender called unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterMissing {
    /// Back to the queue, and not again before this has passed.
    Again(Duration),
    /// It was the last attempt, though the machine exists.
    Exhausted,
    /// It is rejected: Defender does not know the machine.
    Unknown,
}

/// Decides on a job after its `attempts`-th call, of at most `max_attempts`, was answered with 404.
/// `before` says whether an earlier one was answered so, too.
pub fn after_missing(known: Known, attempts: u32, max_attempts: u32, before: bool) -> AfterMissing {
    let last = attempts >= max_attempts;
    match known {
        Known::No => AfterMissing::Unknown,
        Known::NotPermitted if before || last => AfterMissing::Unknown,
        Known::Yes if last => AfterMissing::Exhausted,
        Known::Yes | Known::NotPermitted => AfterMissing::Again(pause(attempts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HORIZON: Duration = Duration::from_mins(10);

    #[test]
    fn looks_come_at_growing_intervals_and_end_at_the_horizon() {
        let since = Boot(1_000_000);
        let mut now = since;
        let mut at = Vec::new();
        for looks in 0..7 {
            now = next_look(Question::Effect, since, looks, HORIZON, now);
            at.push(now.since(since).as_secs());
        }
        assert_eq!(at, [5, 15, 45, 120, 300, 600, 605]);
    }

    #[test]
    fn absence_counts_only_at_the_horizon() {
        let since = Boot(0);
        assert!(!proves_absence(Question::Effect, since, HORIZON, since + Duration::from_secs(599)));
        assert!(proves_absence(Question::Effect, since, HORIZON, since + HORIZON));
        assert!(proves_absence(Question::Blocker, since, HORIZON, since + BLOCKER_HORIZON));
    }

    #[test]
    fn a_short_horizon_is_kept() {
        let since = Boot(0);
        let horizon = Duration::from_secs(10);
        let first = next_look(Question::Effect, since, 0, horizon, since);
        assert_eq!(first, since + Duration::from_secs(5));
        assert_eq!(next_look(Question::Effect, since, 1, horizon, first), since + horizon);
    }

    #[test]
    fn what_exists_already_is_looked_for_at_once() {
        assert_eq!(next_look(Question::Blocker, Boot(7), 0, HORIZON, Boot(7)), Boot(7));
    }

    #[test]
    fn what_may_pass_is_given_time_to() {
        let look = |horizon| next_look(Question::Machine, Boot(7), 0, horizon, Boot(7));
        assert_eq!(look(HORIZON), Boot(7) + Duration::from_secs(30));
        assert_eq!(look(Duration::from_secs(4)), Boot(7) + Duration::from_secs(4), "a short horizon is kept");
    }

    #[test]
    fn a_404_is_final_when_the_machine_itself_is_not_there_or_when_it_comes_again() {
        let again = |seconds| AfterMissing::Again(Duration::from_secs(seconds));
        for (known, attempts, before, expected) in [
            (Known::No, 1, false, AfterMissing::Unknown),
            (Known::Yes, 0, false, again(30)),
            (Known::Yes, 1, true, again(30)),
            (Known::Yes, 2, true, again(60)),
            (Known::Yes, 4, true, again(240)),
            (Known::Yes, 5, true, AfterMissing::Exhausted),
            (Known::NotPermitted, 1, false, again(30)),
            (Known::NotPermitted, 3, false, again(120)),
            (Known::NotPermitted, 2, true, AfterMissing::Unknown),
            (Known::NotPermitted, 5, false, AfterMissing::Unknown),
        ] {
            assert_eq!(after_missing(known, attempts, 5, before), expected, "{known:?} {attempts} {before}");
        }
        assert_eq!(after_missing(Known::Yes, 99, u32::MAX, false), again(900));
    }
}
