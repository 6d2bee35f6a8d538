//! How much of a budget is ours, when others spend it too.
//!
//! Defender counts by app registration: a playbook that uses ours spends the same minute and hour,
//! and all that we ever hear of it is a 429. But a 429 is a measurement. The window was full when it
//! came, and the ledger knows how much of it was ours: the rest was somebody else's. From then on
//! only what was left is used of that window. When all of it has been used for a while without
//! another 429, a little more is tried, and soon more than a little: whoever was there may be gone.
//!
//! | what | why |
//! |---|---|
//! | never less than half of what was ours before | one 429 may be a mistake, or about something else |
//! | never less than a twentieth of the limit | a lane that stands still cannot learn that others left |
//! | a step below what was measured | the stranger's calls do not come evenly |
//! | raised only while the window is what binds | what was not tried was not allowed either |
//! | forgotten after [`FORGOTTEN`] without a 429 | a stranger of last week is no reason |

use std::num::NonZeroU32;
use std::time::Duration;

use super::ledger::{HOUR, Limits, MINUTE, Pace, Used, Window};
use super::time::Boot;

/// The first step, down and up, in parts of a limit.
const STEP: u32 = 50;
/// The least that stays ours, in parts of a limit.
const FLOOR: u32 = 20;
/// No 429 for so long, and it is as if there had never been one.
pub const FORGOTTEN: Duration = Duration::from_hours(24);

/// So long all that is ours of the minute must have been used before more is tried.
const MINUTE_TRIED: Duration = Duration::from_mins(2);
/// The same for the hour: others' calls of a quarter of an hour are a fair sample.
const HOUR_TRIED: Duration = Duration::from_mins(15);

/// From this part of what is ours on, the minute is taken for full when nobody says which window is. A
/// silence empties the minute: if it was the hour after all, the next 429 finds little in the minute.
const NEARLY_FULL: f64 = 0.5;

/// What others are believed to spend of each window, in calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Foreign {
    /// Of the minute.
    pub minute: u32,
    /// Of the hour.
    pub hour: u32,
}

/// What is ours of one window.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// All that the server grants.
    whole: u32,
    /// What the configuration lets us have of it.
    most: u32,
    /// What is ours now.
    ours: u32,
    /// How much more is tried next.
    step: u32,
    /// No more is tried before this.
    raise_at: Boot,
    /// How long between two steps.
    tried: Duration,
}

/// What is ours of both windows of one kind of call.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    minute: Share,
    hour: Share,
    last_429: Boot,
}

impl Share {
    const fn new(whole: NonZeroU32, most: NonZeroU32, tried: Duration) -> Self {
        let most = if most.get() < whole.get() { most.get() } else { whole.get() };
        Self { whole: whole.get(), most, ours: most, step: 1, raise_at: Boot(0), tried }
    }

    fn first_step(&self) -> u32 {
        self.whole.div_ceil(STEP)
    }

    fn floor(&self) -> u32 {
        self.whole.div_ceil(FLOOR).min(self.most)
    }

    fn lower(&mut self, used: u32, now: Boot) {
        let left = used.min(self.ours).saturating_sub(self.first_step());
        self.ours = left.max(self.ours / 2).max(self.floor());
        self.step = self.first_step();
        self.raise_at = now + self.tried;
    }

    fn raise(&mut self, now: Boot) {
        if self.ours == self.most || now < self.raise_at {
            return;
        }
        self.ours = self.ours.saturating_add(self.step).min(self.most);
        self.step = self.step.saturating_mul(2);
        self.raise_at = now + self.tried;
    }

    const fn foreign(&self) -> u32 {
        if self.ours == self.most { 0 } else { self.whole - self.ours }
    }
}

impl Shares {
    /// All that the configuration lets us have: `most` of the `whole` that the server grants.
    pub fn new(whole: Limits, most: Limits) -> Self {
        Self {
            minute: Share::new(whole.per_minute, most.per_minute, MINUTE_TRIED),
            hour: Share::new(whole.per_hour, most.per_hour, HOUR_TRIED),
            last_429: Boot(0),
        }
    }

    /// What was known of others before a restart, as [`Shares::foreign`] told it, and when the last 429
    /// showed it.
    pub fn remember(&mut self, foreign: Foreign, last_429: Boot, now: Boot) {
        for (share, foreign) in [(&mut self.minute, foreign.minute), (&mut self.hour, foreign.hour)] {
            let left = share.whole.saturating_sub(foreign);
            share.ours = left.max(share.floor()).min(share.most);
            share.step = share.first_step();
            share.raise_at = now + share.tried;
        }
        self.last_429 = last_429;
    }

    /// What is ours now: the limits for the ledger. Never above those of the configuration.
    pub fn ours(&mut self, now: Boot) -> Limits {
        if self.are_lowered() && now.since(self.last_429) >= FORGOTTEN {
            (self.minute.ours, self.hour.ours) = (self.minute.most, self.hour.most);
        }
        self.limits()
    }

    /// What is ours, as it was decided last.
    pub fn limits(&self) -> Limits {
        let some = |calls: u32| NonZeroU32::new(calls).unwrap_or(NonZeroU32::MIN);
        let per_hour = some(self.hour.ours);
        Limits { per_minute: some(self.minute.ours).min(per_hour), per_hour }
    }

    /// Whether somebody else is believed to spend the same budget.
    pub const fn are_lowered(&self) -> bool {
        self.minute.ours < self.minute.most || self.hour.ours < self.hour.most
    }

    /// When the last 429 came, that of an earlier incarnation included.
    pub const fn last_429(&self) -> Boot {
        self.last_429
    }

    /// How far calls are spread when the budget is spent so, if they are.
    ///
    /// With a stranger about, calls go evenly within the minute: few are on the wire when the window
    /// turns out to be full. Where the hour alone is full, they go slower than the minute would let us,
    /// for as long.
    pub fn spacing(&self, pace: Pace) -> Option<Duration> {
        let ours = self.limits();
        match pace {
            Pace::Even => Some(HOUR / ours.per_hour.get()),
            Pace::Burst if self.are_lowered() => {
                let slower = if self.foreign().minute == 0 { MINUTE / 4 } else { Duration::ZERO };
                Some((MINUTE + slower) / ours.per_minute.get())
            }
            Pace::Burst => None,
        }
    }

    /// What others are believed to spend.
    pub const fn foreign(&self) -> Foreign {
        Foreign { minute: self.minute.foreign(), hour: self.hour.foreign() }
    }

    /// A 429 came when `used` calls of ours had been answered within each window. `named` is the
    /// window that the answer blames, `wait` what it asks for. Returns the window that was blamed.
    pub fn throttled(&mut self, now: Boot, used: Used, named: Option<Window>, wait: Option<Duration>) -> Window {
        self.last_429 = now;
        let blamed = named.unwrap_or_else(|| self.likely(used, wait));
        match blamed {
            Window::Minute => self.minute.lower(used.minute, now),
            Window::Hour => self.hour.lower(used.hour, now),
        }
        blamed
    }

    /// A minute never makes anybody wait longer than a minute. Else the fuller one, by what is ours of
    /// it; and the minute when both are full: to take it for the hour costs hours.
    fn likely(&self, used: Used, wait: Option<Duration>) -> Window {
        if wait.is_some_and(|wait| wait > MINUTE + Duration::from_secs(5) && wait <= HOUR * 2) {
            return Window::Hour;
        }
        let full = |share: &Share, used: u32| f64::from(used) / f64::from(share.ours.max(1));
        let (minute, hour) = (full(&self.minute, used.minute), full(&self.hour, used.hour));
        if minute < NEARLY_FULL && hour > minute { Window::Hour } else { Window::Minute }
    }

    /// The ledger refused a call because of this window: all that is ours of it is used.
    pub fn bound(&mut self, window: Window, now: Boot) {
        match window {
            Window::Minute => self.minute.raise(now),
            Window::Hour => self.hour.raise(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares() -> Shares {
        Shares::new(Limits::DOCUMENTED, Limits::DOCUMENTED)
    }

    fn at(seconds: u64) -> Boot {
        Boot(0) + Duration::from_secs(seconds)
    }

    const fn used(minute: u32, hour: u32) -> Used {
        Used { minute, hour }
    }

    #[test]
    fn a_429_measures_what_others_spend() {
        let mut shares = shares();
        assert_eq!(shares.throttled(at(40), used(60, 60), None, None), Window::Minute);
        assert_eq!(shares.ours(at(41)).per_minute.get(), 58);
        assert_eq!(shares.foreign(), Foreign { minute: 42, hour: 0 });
        assert_eq!(shares.throttled(at(900), used(50, 900), Some(Window::Hour), None), Window::Hour);
        assert_eq!(shares.ours(at(901)).per_hour.get(), 870);
        assert_eq!(shares.foreign(), Foreign { minute: 42, hour: 630 });
    }

    #[test]
    fn the_window_is_the_named_one_else_the_one_that_can_ask_for_such_a_wait_else_the_fuller() {
        let wait = |seconds| Some(Duration::from_secs(seconds));
        for (used, named, wait, expected) in [
            (used(99, 99), Some(Window::Hour), None, Window::Hour),
            (used(1, 1499), Some(Window::Minute), wait(1000), Window::Minute),
            (used(99, 99), None, wait(1800), Window::Hour),
            (used(99, 900), None, wait(12), Window::Minute),
            (used(10, 1400), None, wait(12), Window::Hour),
            (used(60, 60), None, wait(u64::MAX), Window::Minute),
        ] {
            assert_eq!(shares().throttled(at(0), used, named, wait), expected, "{used:?} {named:?} {wait:?}");
        }
    }

    #[test]
    fn one_429_never_takes_more_than_half_and_many_leave_a_twentieth() {
        let mut shares = shares();
        shares.throttled(at(0), used(1, 1), Some(Window::Hour), None);
        assert_eq!(shares.limits().per_hour.get(), 750);
        for _ in 0..20 {
            shares.throttled(at(0), used(0, 0), Some(Window::Minute), None);
            shares.throttled(at(0), used(0, 0), Some(Window::Hour), None);
        }
        assert_eq!((shares.limits().per_minute.get(), shares.limits().per_hour.get()), (5, 75));
    }

    #[test]
    fn more_is_tried_only_while_the_window_binds_and_faster_every_time() {
        let mut shares = shares();
        shares.throttled(at(0), used(60, 60), None, None);
        let mut seen = Vec::new();
        for minutes in 0..12 {
            shares.bound(Window::Minute, at(minutes * 60));
            seen.push(shares.limits().per_minute.get());
        }
        assert_eq!(seen, [58, 58, 60, 60, 64, 64, 72, 72, 88, 88, 100, 100]);
        assert!(!shares.are_lowered());
        let mut idle = super::Shares::new(Limits::DOCUMENTED, Limits::DOCUMENTED);
        idle.throttled(at(0), used(60, 60), None, None);
        assert_eq!(idle.ours(at(86_399)).per_minute.get(), 58);
        assert_eq!(idle.ours(at(86_400)).per_minute.get(), 100, "forgotten");
    }

    #[test]
    fn a_reserve_is_left_even_when_nobody_uses_it_and_counts_as_theirs() {
        let most = Limits::DOCUMENTED.without_reserve(20);
        let mut shares = Shares::new(Limits::DOCUMENTED, most);
        assert_eq!(shares.ours(at(0)), most);
        shares.throttled(at(0), used(60, 60), None, None);
        assert_eq!(shares.foreign().minute, 42);
        for minutes in 0..60 {
            shares.bound(Window::Minute, at(minutes * 60));
        }
        assert_eq!(shares.ours(at(3600)), most);
    }

    #[test]
    fn what_was_learnt_outlives_a_restart() {
        let mut before = shares();
        before.throttled(at(0), used(60, 60), None, None);
        before.throttled(at(0), used(60, 900), Some(Window::Hour), None);
        let mut after = shares();
        after.remember(before.foreign(), before.last_429(), at(5));
        assert_eq!(after.limits(), before.limits());
        after.remember(Foreign { minute: 5000, hour: u32::MAX }, at(0), at(5));
        assert_eq!(after.limits().per_minute.get(), 5, "nonsense from a disk stops nobody");
    }

    #[test]
    fn however_often_it_is_restarted_what_was_learnt_is_forgotten_in_a_day() {
        let mut shares = shares();
        shares.throttled(at(0), used(60, 60), None, None);
        for hour in 1..24 {
            let mut after = self::shares();
            after.remember(shares.foreign(), shares.last_429(), at(hour * 3600));
            assert_eq!(after.ours(at(hour * 3600)).per_minute.get(), 58, "after {hour} hours");
            shares = after;
        }
        assert_eq!(shares.ours(at(86_400)).per_minute.get(), 100);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_limits_stay_limits(
            minute in 1_u32..300, more in 0_u32..3000, reserve in 0_u8..90,
            events in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u32..4000, 0_u64..4000), 0..60),
        ) {
            let some = |n| NonZeroU32::new(n).unwrap();
            let whole = Limits::new(some(minute), some(minute + more)).unwrap();
            let most = whole.without_reserve(reserve);
            let mut shares = Shares::new(whole, most);
            let mut now = at(0);
            for (throttled, hour, calls, gap) in events {
                now = now + Duration::from_secs(gap);
                let window = if hour { Window::Hour } else { Window::Minute };
                if throttled {
                    shares.throttled(now, used(calls, calls), Some(window), None);
                } else {
                    shares.bound(window, now);
                }
                let ours = shares.ours(now);
                prop_assert!(ours.per_minute <= most.per_minute && ours.per_hour <= most.per_hour);
                prop_assert!(ours.per_minute <= ours.per_hour);
            }
        }
    }
}
