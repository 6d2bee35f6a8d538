//! Whether what is old by the wall clock may be removed: not at once where that clock has gone ahead.
//!
//! A clock that jumps by years makes everything old at one moment. Nobody can step the boot clock, so the two are held
//! against each other: after a jump the wall clock is believed again when it has gone on as it is for a day, or has
//! come back. Nothing is lost by waiting.

use std::time::Duration;

use super::time::{Boot, Wall, millis};

/// For so long a clock that jumped ahead is not believed.
const DOUBT: Duration = Duration::from_hours(24);
/// Less is a clock that was set right, or a virtual machine that stood still. What is old a day too early is old.
const ALLOWED: Duration = Duration::from_hours(24);

/// The two clocks, from look to look. What was before the first look is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steadiness {
    /// By how much the wall clock was ahead of the boot clock when it was believed last, in milliseconds.
    believed: Option<i64>,
    /// The same since it jumped, and when that was seen.
    doubted: Option<(i64, Boot)>,
}

impl Steadiness {
    /// Looks at both clocks. Returns by how much the wall clock has gone ahead, where it is not to be believed.
    pub fn ahead(&mut self, wall: Wall, boot: Boot) -> Option<Duration> {
        let (offset, allowed) = (wall.0.saturating_sub(boot.0), millis(ALLOWED));
        let ahead = offset.saturating_sub(self.believed.unwrap_or(offset));
        if ahead > allowed {
            let known = self.doubted.filter(|(doubted, _)| offset.saturating_sub(*doubted) <= allowed);
            let since = known.map_or(boot, |(_, since)| since);
            if boot.since(since) < DOUBT {
                self.doubted = Some((offset, since));
                return Some(Duration::from_millis(ahead.unsigned_abs()));
            }
        }
        *self = Self { believed: Some(offset), doubted: None };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;

    /// Looks so many hours after the boot, with the wall clock so far ahead of where it was.
    fn look(clock: &mut Steadiness, hours: i64, ahead: i64) -> Option<i64> {
        let (wall, boot) = (Wall(YEAR * 50 + hours * HOUR + ahead), Boot(hours * HOUR));
        clock.ahead(wall, boot).map(millis)
    }

    #[test]
    fn after_a_jump_ahead_a_day_goes_by_first() {
        let mut clock = Steadiness::default();
        for hours in 0..100 {
            assert_eq!(look(&mut clock, hours, 0), None, "hours are no jump, however many");
        }
        for hours in 100..124 {
            assert_eq!(look(&mut clock, hours, YEAR), Some(YEAR), "{hours}");
        }
        assert_eq!(look(&mut clock, 124, YEAR), None, "it has gone on so for a day: that is the time");
        assert_eq!(look(&mut clock, 125, YEAR), None);
    }

    #[test]
    fn a_clock_that_jumps_on_is_doubted_from_there_on_and_one_that_comes_back_is_right() {
        let mut clock = Steadiness::default();
        assert_eq!(look(&mut clock, 0, 0), None);
        assert_eq!(look(&mut clock, 1, YEAR), Some(YEAR));
        assert_eq!(look(&mut clock, 20, 2 * YEAR), Some(2 * YEAR));
        assert_eq!(look(&mut clock, 26, 2 * YEAR), Some(2 * YEAR), "not a day since the second jump");
        assert_eq!(look(&mut clock, 27, 0), None);
        assert_eq!(look(&mut clock, 28, YEAR), Some(YEAR), "the day begins anew");
        assert_eq!(look(&mut clock, 51, YEAR), Some(YEAR));
        assert_eq!(look(&mut clock, 52, -YEAR), None, "what is behind makes nothing old");
    }

    #[test]
    fn a_clock_that_is_set_right_or_drifts_holds_nothing() {
        let mut clock = Steadiness::default();
        for hours in 0..1000 {
            assert_eq!(look(&mut clock, hours, hours * 60_000), None, "a minute in each hour");
        }
        assert_eq!(look(&mut clock, 1000, 1000 * 60_000 + 23 * HOUR), None, "less than a day");
        assert!(look(&mut clock, 1001, 1000 * 60_000 + 48 * HOUR).is_some(), "more");
    }
}
