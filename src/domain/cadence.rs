//! How often Defender's list of actions is read.
//!
//! One list call serves a whole fleet, so it need not be rare; but it has a budget of its own, a page may
//! have to follow a page, and a fleet of which nothing moves changes nothing. So the list is read quickly
//! after something was sent or has moved, and ever more slowly while nothing does.

use std::num::NonZeroU32;
use std::time::Duration;

use super::ledger::HOUR;
use super::time::Boot;

/// Looks in a row without news after which the rests grow.
const PATIENT: u32 = 3;
/// The longest rest, in intervals.
const SLOWEST: u32 = 5;
/// What may be spent at once, as the time in which it is earned.
const AT_ONCE: Duration = Duration::from_mins(12);
/// Nobody is served by looks that come quicker than this.
const QUICKEST: Duration = Duration::from_secs(5);

/// What a look has shown, and what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Something moved since the look before: an action changed, or a scan was asked for.
    pub moved: bool,
    /// Jobs are ready to be sent: what is pending must be known then.
    pub sending: bool,
    /// List calls that it took.
    pub calls: u32,
}

/// The rests between looks of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Looks in a row in which nothing had moved.
    quiet: u32,
    /// When the calls of all looks so far would be paid for, at the rate that is theirs.
    paid: Boot,
}

/// How long to rest before the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// While nothing is sent.
    pub usual: Duration,
    /// As soon as something is sent meanwhile; never longer.
    pub once_sent: Duration,
}

impl Rest {
    /// So long, whatever is sent.
    pub const fn of(rest: Duration) -> Self {
        Self { usual: rest, once_sent: rest }
    }
}

impl Default for Cadence {
    fn default() -> Self {
        // A boot clock that a library sets may be below zero.
        Self { quiet: 0, paid: Boot(i64::MIN) }
    }
}

impl Cadence {
    /// How long to rest after this look, which ended at `now`, when `interval` is what is configured and the
    /// list may be read so often in an hour. Half of that is for others who read it, the look-up among
    /// them; of the other half a fifth may be spent at once.
    pub fn rest(&mut self, looked: Looked, interval: Duration, per_hour: NonZeroU32, now: Boot) -> Rest {
        self.quiet = if looked.moved { 0 } else { self.quiet.saturating_add(1) };
        let rest = match self.quiet {
            0 => quick(interval),
            1..=PATIENT => interval,
            _ if looked.sending => interval,
            quiet => interval.saturating_mul(1 << (quiet - PATIENT).min(8)).min(interval.saturating_mul(SLOWEST)),
        };
        let cost = HOUR.saturating_mul(looked.calls.saturating_mul(2)) / per_hour.get();
        self.paid = self.paid.max(now) + cost;
        let affordable = self.paid.since(now).saturating_sub(AT_ONCE);
        Rest { usual: rest.max(affordable), once_sent: rest.min(quick(interval)).max(affordable) }
    }
}

/// The rest after something was sent or has moved.
fn quick(interval: Duration) -> Duration {
    (interval / 4).max(QUICKEST).min(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::Limits;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const MOVED: Looked = Looked { moved: true, sending: false, calls: 1 };
    const QUIET: Looked = Looked { moved: false, ..MOVED };

    fn rests(cadence: &mut Cadence, looks: &[Looked]) -> Vec<u64> {
        let per_hour = Limits::DOCUMENTED.per_hour;
        looks.iter().map(|looked| cadence.rest(*looked, MINUTE, per_hour, Boot(0)).usual.as_secs()).collect()
    }

    #[test]
    fn looks_are_quick_while_something_moves_and_slow_while_nothing_does() {
        let mut cadence = Cadence::default();
        assert_eq!(rests(&mut cadence, &[MOVED; 3]), [15, 15, 15]);
        assert_eq!(rests(&mut cadence, &[QUIET; 7]), [60, 60, 60, 120, 240, 300, 300]);
        assert_eq!(rests(&mut cadence, &[MOVED, QUIET]), [15, 60]);
    }

    #[test]
    fn while_jobs_are_sent_the_list_is_not_let_grow_old() {
        let sending = Looked { sending: true, ..QUIET };
        assert_eq!(rests(&mut Cadence::default(), &[sending; 9]), [60; 9]);
    }

    #[test]
    fn what_is_sent_ends_a_long_rest() {
        let mut cadence = Cadence { quiet: 9, ..Cadence::default() };
        let rest = cadence.rest(QUIET, MINUTE, Limits::DOCUMENTED.per_hour, Boot(0));
        assert_eq!((rest.usual, rest.once_sent), (MINUTE * 5, Duration::from_secs(15)));
    }

    #[test]
    fn short_intervals_are_kept() {
        assert_eq!(quick(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(quick(Duration::from_secs(8)), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn looks_spend_half_of_an_hour_and_a_tenth_at_most(
            pages in prop::collection::vec((1..40_u32, any::<bool>(), any::<bool>()), 1..400),
            per_hour in 10..3_000_u32, seconds in 1..120_u64,
        ) {
            let limit = NonZeroU32::new(per_hour).unwrap();
            let (mut cadence, mut now, mut spent) = (Cadence::default(), Boot(0), 0_u32);
            for (calls, moved, sent) in pages {
                // What the looks before have spent, against the time that they took.
                let hours = now.since(Boot(0)).as_secs_f64() / 3600.0;
                let earned = f64::from(per_hour) * (hours / 2.0 + 0.1);
                prop_assert!(f64::from(spent) <= earned + 40.0, "{spent} after {hours} h");
                let looked = Looked { moved, sending: false, calls };
                let rest = cadence.rest(looked, Duration::from_secs(seconds), limit, now);
                prop_assert!(rest.once_sent <= rest.usual);
                spent += calls;
                now = now + if sent { rest.once_sent } else { rest.usual };
            }
        }
    }
}
