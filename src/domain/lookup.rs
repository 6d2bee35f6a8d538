//! When to look for an attempt whose outcome is unknown, and what a look means.
//!
//! The list of actions may lag behind a call (observed), and a call that was given up may still
//! be delivered for `unknown_grace`. So absence counts only in a look that began at the horizon
//! or later; presence counts at once.

use std::time::Duration;

use super::time::Boot;

/// The first looks after an outcome became unknown; the last one is at the horizon.
const LOOKS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_mins(2),
    Duration::from_mins(5),
];

/// Why an attempt is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Did the call have an effect?
    Effect,
    /// The call was refused since the machine is busy: with which action?
    Blocker,
}

super::sweep::words!(Question { Effect = "effect", Blocker = "blocker" });

/// When to look the next time, `looks` having been made since the question came up at `since`.
pub fn next_look(question: Question, since: Boot, looks: u32, horizon: Duration, now: Boot) -> Boot {
    let scheduled = match question {
        // The blocker exists already: the answer said so.
        Question::Blocker if looks == 0 => return now,
        Question::Blocker | Question::Effect => LOOKS
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
        Question::Effect => horizon,
        Question::Blocker => horizon.min(BLOCKER_HORIZON),
    };
    began >= since + horizon
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
    fn a_blocker_is_looked_for_at_once() {
        assert_eq!(next_look(Question::Blocker, Boot(7), 0, HORIZON, Boot(7)), Boot(7));
    }
}
