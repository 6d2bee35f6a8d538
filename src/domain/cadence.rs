//! How often Defender's list of actions is read.
//!
//! One list call serves a whole fleet, so it need not be rare; but it has a budget of its own, a page may
//! have to follow a page, and a fleet of which nothing moves changes nothing. So the list is read quickly
//! after something was sent or has moved, and ever more slowly while nothing does.

use std::num::NonZeroU32;
use std::time::Duration;

use super::ledger::HOUR;

/// Looks in a row without news after which the rests grow.
const PATIENT: u32 = 3;
/// The longest rest, in intervals.
const SLOWEST: u32 = 5;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cadence {
    /// Looks in a row in which nothing had moved.
    quiet: u32,
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

impl Cadence {
    /// How long to rest after this look, when `interval` is what is configured and the list may be read so
    /// often in an hour: half of that is for others who read it, the look-up among them.
    pub fn rest(&mut self, looked: Looked, interval: Duration, per_hour: NonZeroU32) -> Rest {
        self.quiet = if looked.moved { 0 } else { self.quiet.saturating_add(1) };
        let rest = match self.quiet {
            0 => quick(interval),
            1..=PATIENT => interval,
            _ if looked.sending => interval,
            quiet => interval.saturating_mul(1 << (quiet - PATIENT).min(8)).min(interval.saturating_mul(SLOWEST)),
        };
        let affordable = HOUR.saturating_mul(looked.calls.saturating_mul(2)) / per_hour.get();
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
        looks.iter().map(|looked| cadence.rest(*looked, MINUTE, Limits::DOCUMENTED.per_hour).usual.as_secs()).collect()
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
        let mut cadence = Cadence { quiet: 9 };
        let rest = cadence.rest(QUIET, MINUTE, Limits::DOCUMENTED.per_hour);
        assert_eq!((rest.usual, rest.once_sent), (MINUTE * 5, Duration::from_secs(15)));
    }

    #[test]
    fn short_intervals_are_kept() {
        assert_eq!(quick(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(quick(Duration::from_secs(8)), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn no_look_spends_more_than_half_of_the_hour(
            calls in 0..5_000_u32, per_hour in 1..3_000_u32, moved in any::<bool>(), seconds in 1..600_u64,
        ) {
            let per_hour = NonZeroU32::new(per_hour).unwrap();
            let looked = Looked { moved, sending: false, calls };
            let rest = Cadence::default().rest(looked, Duration::from_secs(seconds), per_hour);
            for rest in [rest.usual, rest.once_sent] {
                prop_assert!(f64::from(calls) * 3600.0 / rest.as_secs_f64() <= f64::from(per_hour.get()) / 2.0 + 0.001);
            }
            prop_assert!(rest.once_sent <= rest.usual);
        }
    }
}
