//! Two kinds of time that must never be mixed up.
//!
//! [`Wall`] is what people and Defender write down; it may be stepped by an administrator or NTP.
//! [`Boot`] counts since the kernel started, suspend included (`CLOCK_BOOTTIME`); nobody can step
//! it, but it means nothing on another boot. The budget lives on [`Boot`] alone.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since the Unix epoch, as the wall clock had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// Milliseconds since this machine booted, time in suspend included.
///
/// May lie in the future (a slot that settles when a lost call can no longer arrive) and, for what
/// happened before this boot, at or below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub i64);

/// Names one boot of one kernel (`/proc/sys/kernel/random/boot_id`). [`Boot`] times compare only
/// within one of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub String);

/// What time a server has: the `Date` of an answer, and between which moments of our boot clock it
/// was written. No step of our wall clock changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTime {
    /// When the request was made.
    pub asked: Boot,
    /// When its answer had been read.
    pub answered: Boot,
    /// The `Date`, which is cut to the second.
    pub date: Wall,
}

/// So far the clocks of one service's servers are believed to lie apart.
const SERVERS_APART: Duration = Duration::from_secs(30);

impl ServerTime {
    /// What the server's clock had at [`ServerTime::asked`], at the latest.
    pub fn latest(&self) -> Wall {
        self.date + Duration::from_secs(1) + SERVERS_APART
    }

    /// What it had at [`ServerTime::answered`], at the earliest.
    pub fn earliest(&self) -> Wall {
        self.date - SERVERS_APART
    }

    /// What it has now, as well as it is known.
    pub fn now(&self, now: Boot) -> Wall {
        self.date + now.since(self.answered)
    }
}

/// A duration in whole milliseconds, saturating: 292 million years are enough.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What remains of a wait, in whole seconds for people: rounded up, since a wait that is told too short
/// is believed to be over while it lasts.
pub fn seconds_left(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

fn between(later: i64, earlier: i64) -> Duration {
    Duration::from_millis(u64::try_from(later.saturating_sub(earlier)).unwrap_or(0))
}

macro_rules! instant {
    ($name:ident) => {
        impl $name {
            /// How long from `earlier` to `self`; zero when `earlier` is later.
            pub fn since(self, earlier: Self) -> Duration {
                between(self.0, earlier.0)
            }
        }

        impl Add<Duration> for $name {
            type Output = Self;
            fn add(self, duration: Duration) -> Self {
                Self(self.0.saturating_add(millis(duration)))
            }
        }

        impl Sub<Duration> for $name {
            type Output = Self;
            fn sub(self, duration: Duration) -> Self {
                Self(self.0.saturating_sub(millis(duration)))
            }
        }
    };
}

instant!(Wall);
instant!(Boot);

impl Wall {
    /// The next whole second, or the time itself: how a time to come is shown that is cut to seconds.
    #[must_use]
    pub const fn whole_second(self) -> Self {
        Self(self.0.saturating_add((1000 - self.0.rem_euclid(1000)) % 1000))
    }

    /// The time as RFC 3339 in UTC with milliseconds, as every JSON of sweepd shows times.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .map_or_else(|_| format!("{} ms since 1970", self.0), |at| format!("{at:.3}"))
    }

    /// Reads RFC 3339 with any number of fractional digits and any offset.
    ///
    /// Defender writes 0 to 7 fractional digits, trailing zeros trimmed (observed); below the
    /// millisecond is cut off.
    pub fn parse(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.trim().parse().ok()?;
        Some(Self(at.as_millisecond()))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defender_timestamps_of_every_precision_are_read() {
        for (text, millis) in [
            ("2024-10-21T11:26:49.6894208Z", 1_729_510_009_689),
            ("2024-10-21T11:26:49Z", 1_729_510_009_000),
            ("2024-10-21T11:26:49.6Z", 1_729_510_009_600),
            ("2024-10-21T13:26:49.6+02:00", 1_729_510_009_600),
        ] {
            assert_eq!(Wall::parse(text), Some(Wall(millis)), "{text}");
        }
        assert_eq!(Wall::parse("yesterday"), None);
    }

    #[test]
    fn wall_times_are_written_in_utc_with_milliseconds() {
        assert_eq!(Wall(1_729_510_009_600).rfc3339(), "2024-10-21T11:26:49.600Z");
    }

    #[test]
    fn what_remains_is_never_told_too_short() {
        let left = |millis| seconds_left(Duration::from_millis(millis));
        assert_eq!([0, 1, 1000, 39_001, 39_999, 40_000, 40_001].map(left), [0, 1, 1, 40, 40, 40, 41]);
        assert_eq!(seconds_left(Duration::MAX), u64::MAX);
        assert_eq!(
            [0, 1, 999, 1000, -1, i64::MAX].map(|at| Wall(at).whole_second().0),
            [0, 1000, 1000, 1000, 0, i64::MAX]
        );
    }

    #[test]
    fn durations_never_run_backwards() {
        assert_eq!(Boot(5).since(Boot(9)), Duration::ZERO);
        assert_eq!(Boot(9) - Duration::from_millis(4), Boot(5));
        assert_eq!(Wall(i64::MAX) + Duration::from_secs(1), Wall(i64::MAX));
    }
}
