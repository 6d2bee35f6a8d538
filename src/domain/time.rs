//! Two kinds of time that must never be mixed up.
//!
//! [`Wall`] is what people and Defender write down; it may be stepped by an administrator or NTP.
//! [`Boot`] counts since the kernel started, suspend included (`CLOCK_BOOTTIME`); nobody can step
//! it, but it means nothing on another boot. The budget lives on [`Boot`] alone.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since the Unix epoch, as the wall clock had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
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

/// So far the clocks of one service's servers are believed to lie apart: tokens are good by them, and they
/// are all set by the same source.
const SERVERS_APART: Duration = Duration::from_secs(2);

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

    /// By how much, at the most, our boot clock went ahead of the server's clock since `before`; zero
    /// where network and rounding explain it.
    ///
    /// A kernel's boot clock does not jump. One that a library puts in its place does, and so does one
    /// that a virtual machine was restored with.
    pub fn boot_ahead_since(&self, before: &Self) -> Duration {
        let theirs = self.date.0.saturating_sub(before.date.0);
        let ahead = |ours: i64, rounding: i64| ours.saturating_sub(theirs).saturating_add(rounding);
        let surely = ahead(self.asked.0.saturating_sub(before.answered.0), -1000);
        let perhaps = ahead(self.answered.0.saturating_sub(before.asked.0), 1000);
        if surely <= millis(EXPLAINED) { Duration::ZERO } else { between(perhaps, 0) }
    }
}

/// A wall clock that is wrong by more is not believed.
pub const WRONG: Duration = Duration::from_hours(12);

/// For so long what is old waits for a server to tell the time; a tenant may never sign in.
const UNCONFIRMED: Duration = Duration::from_hours(24);

/// What is known of the time from somebody else: what is to be removed for its age has to be old by their clock too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Witness {
    /// Nobody has told the time yet.
    #[default]
    Nobody,
    /// A server told it.
    Server(ServerTime),
    /// A server answers, and its clock cannot be used.
    Mute,
}

impl Witness {
    /// The latest time that it surely is, for whoever removes what is old: the wall clock's, unless that is plainly
    /// ahead of the server's. A machine that boots in 2036 would else remove everything. `None` while nobody has
    /// confirmed it; after a day of that the wall clock alone has to do.
    pub fn surely(self, ours: Wall, began: Boot, now: Boot) -> Option<Wall> {
        match self {
            Self::Server(seen) => {
                let theirs = seen.now(now);
                Some(if ours.since(theirs) > WRONG { theirs } else { ours })
            }
            Self::Mute => Some(ours),
            Self::Nobody => (now.since(began) >= UNCONFIRMED).then_some(ours),
        }
    }
}

/// The clocks of two servers of one service, and of one that is set right, lie apart by no more.
const EXPLAINED: Duration = Duration::from_secs(5);

/// Whether a server's clock runs as fast as ours: nobody is to tell ages by one that stands still.
///
/// Held against the boot clock from answer to answer, ten seconds of them at a time; six such parts in a
/// row that say the same are a verdict. So neither gaps between answers nor a jump of either clock now and
/// then say anything about the other's pace.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerPace {
    last: Option<(Boot, Wall)>,
    ours: Duration,
    theirs: Duration,
    alike: u32,
    last_part: bool,
    verdict: Option<bool>,
}

impl ServerPace {
    const GAP: Duration = Duration::from_secs(30);
    const PART: Duration = Duration::from_secs(10);
    const ENOUGH: u32 = 6;

    /// An answer that was read at `at` had this `Date`. Returns the verdict when it is new.
    pub fn observe(&mut self, at: Boot, date: Wall) -> Option<bool> {
        let Some((at_before, date_before)) = self.last else {
            self.last = Some((at, date));
            return None;
        };
        if at < at_before || date < date_before {
            // Answers may be read in another order than they were written in: a second or two.
            let lost = at_before.since(at).max(date_before.since(date)) > Self::GAP;
            self.last = if lost { Some((at, date)) } else { self.last };
            return None;
        }
        self.last = Some((at, date));
        let (ours, theirs) = (at.since(at_before), date.since(date_before));
        if ours > Self::GAP || theirs > Self::GAP {
            return None;
        }
        self.ours += ours;
        self.theirs += theirs;
        if self.ours < Self::PART {
            return None;
        }
        let runs = self.theirs >= self.ours / 2 && self.theirs <= self.ours * 2;
        (self.ours, self.theirs) = (Duration::ZERO, Duration::ZERO);
        self.alike = if runs == self.last_part { self.alike + 1 } else { 1 };
        self.last_part = runs;
        if self.alike < Self::ENOUGH {
            return None;
        }
        self.alike = Self::ENOUGH;
        (self.verdict.replace(runs) != Some(runs)).then_some(runs)
    }

    /// Whether the server's clock was found not to run as ours does.
    pub fn is_wrong(&self) -> bool {
        self.verdict == Some(false)
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
    fn a_boot_clock_that_jumped_is_told_by_the_servers_clock() {
        let seen = |asked: i64, date: i64| ServerTime {
            asked: Boot(asked * 1000),
            answered: Boot(asked * 1000 + 500),
            date: Wall(date * 1000),
        };
        let before = seen(100, 5000);
        for (asked, date, ahead) in [
            (100, 5000, 0),
            (160, 5060, 0),
            (160, 5056, 0),
            (160, 6000, 0),
            (50, 5060, 0),
            (160 + 3600, 5060, 3600 + 1),
            (160 + 60, 5060, 60 + 1),
            (160, 0, 5060 + 1),
        ] {
            let told = seen(asked, date).boot_ahead_since(&before);
            let most = if ahead == 0 { 0 } else { ahead + 1 };
            assert!((ahead..=most).contains(&told.as_secs()), "{asked} {date}: {told:?}");
        }
    }

    #[test]
    fn a_servers_clock_that_does_not_run_as_ours_does_is_found_out_within_a_minute_of_answers() {
        let verdicts = |answers: &mut dyn Iterator<Item = (i64, i64)>| {
            let mut pace = ServerPace::default();
            answers.filter_map(|(at, date)| pace.observe(Boot(at), Wall(date / 1000 * 1000))).collect::<Vec<_>>()
        };
        let each = |pace: fn(i64) -> i64| verdicts(&mut (0..2000).map(|n| (n * 700, pace(n * 700))));
        assert_eq!(each(|at| at + 5_000_000), [true]);
        assert_eq!(each(|at| at / 60), [false]);
        assert_eq!(each(|_| 77_000), [false]);
        assert_eq!(each(|at| at * 5), [false], "one that is too fast would make calls old");
        assert_eq!(each(|at| if at < 700_000 { 0 } else { at }), [false, true]);
        let jumps = |n: i64| n * 700 + 3_600_000 * (n / 100);
        assert_eq!(verdicts(&mut (0..2000).map(|n| (jumps(n), n * 700))), [true], "our own clock jumps");
        assert_eq!(verdicts(&mut (0..2000).map(|n| (n * 700, jumps(n)))), [true], "the server's clock jumps");
        assert_eq!(verdicts(&mut (0..2000).map(|n| (n * 40_000, n))), [false; 0], "too far apart to tell");
        let small_jumps = |n: i64| n * 700 + 25_000 * (n / 20);
        assert_eq!(verdicts(&mut (0..2000).map(|n| (small_jumps(n), n * 700))), [true; 0], "one in fourteen seconds");
        let out_of_order = |n: i64| if n % 3 == 0 { n * 700 - 1500 } else { n * 700 };
        assert_eq!(verdicts(&mut (3..2000).map(|n| (n * 700, out_of_order(n)))), [true]);
    }

    #[test]
    fn what_is_old_is_old_by_a_confirmed_clock() {
        const YEAR: Duration = Duration::from_hours(365 * 24);
        let server =
            Witness::Server(ServerTime { asked: Boot(0), answered: Boot(1000), date: Wall(1_800_000_000_000) });
        let (began, now) = (Boot(0), Boot(61_000));
        let theirs = Wall(1_800_000_060_000);
        for (ours, surely) in [
            (theirs, theirs),
            (theirs + YEAR, theirs),
            (theirs + WRONG, theirs + WRONG),
            (theirs - YEAR, theirs - YEAR),
            (Wall(0), Wall(0)),
        ] {
            assert_eq!(server.surely(ours, began, now), Some(surely), "the earlier one, unless they agree");
            assert_eq!(Witness::Mute.surely(ours, began, now), Some(ours));
            assert_eq!(Witness::Nobody.surely(ours, began, now), None);
            assert_eq!(Witness::Nobody.surely(ours, began, began + UNCONFIRMED), Some(ours), "nobody ever signs in");
        }
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
