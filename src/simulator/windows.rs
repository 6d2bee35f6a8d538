//! The limits as the server counts them: exact sliding windows over arrivals.
//!
//! Microsoft documents 100 calls a minute and 1,500 an hour (API/run-av-scan.md and the pages of
//! the other calls) and does not say how a window begins. The strictest reading is enforced here:
//! no closed window of 60 s or 3,600 s, wherever it begins, holds more than its limit. Whoever
//! keeps this keeps every other reading; [`Shape::Fixed`] is such another one.
//!
//! The windows belong to an app registration. Others may use the same one: their calls fill the
//! windows as ours do, and are told apart in the report.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::ledger::{HOUR, Limits, MINUTE};
use crate::domain::time::Wall;

/// The resolution of the server's clock: what arrives this much after a closed window is outside.
const TICK: Duration = Duration::from_millis(1);

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There was room.
    Admitted,
    /// A window is full.
    Throttled(Full),
}

/// A window that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// How many calls it holds.
    pub limit: u32,
    /// How long it is.
    pub window: Duration,
    /// How long until a call would be admitted again, if none arrives before.
    pub wait: Duration,
}

/// How a server lays its windows; what Defender does is not documented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Any 60 s and any 3,600 s.
    #[default]
    Sliding,
    /// One after the other, the first beginning with the first call.
    Fixed,
}

/// Both windows of one kind of call of one app registration in one tenant.
#[derive(Clone, Debug)]
pub struct Windows {
    limits: Limits,
    count_rejected: bool,
    shape: Shape,
    /// The first call, and the last.
    span: Option<(Wall, Wall)>,
    /// What the windows hold; never more than the larger limit, since older arrivals decide
    /// nothing.
    counted: VecDeque<Wall>,
    /// Everything of ours that arrived, for the report.
    seen: Vec<Wall>,
    admitted: u64,
    throttled: u64,
    foreign: Foreign,
}

/// Calls of others that use the same app registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// How many arrived.
    pub arrivals: u64,
    /// How many of them were answered with 429.
    pub throttled: u64,
}

impl Windows {
    /// Empty windows, which slide. With `count_rejected`, calls that were answered with 429 fill the windows
    /// too, so that a client that does not stop is never let in (which of the two Defender does is
    /// unknown).
    pub const fn new(limits: Limits, count_rejected: bool) -> Self {
        Self {
            limits,
            count_rejected,
            shape: Shape::Sliding,
            span: None,
            counted: VecDeque::new(),
            seen: Vec::new(),
            admitted: 0,
            throttled: 0,
            foreign: Foreign { arrivals: 0, throttled: 0 },
        }
    }

    /// The same, laid otherwise.
    #[must_use]
    pub const fn shaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// A call arrives. Time does not run backwards here: an earlier `now` counts as the latest one
    /// seen.
    pub fn arrive(&mut self, now: Wall) -> Verdict {
        let now = self.record(now);
        let verdict = self.judge(now);
        match verdict {
            Verdict::Admitted => self.admitted += 1,
            Verdict::Throttled(_) => self.throttled += 1,
        }
        verdict
    }

    /// A call of somebody else arrives who uses the same app registration.
    pub fn arrive_foreign(&mut self, now: Wall) -> Verdict {
        let now = self.pass(now);
        let verdict = self.judge(now);
        self.foreign.arrivals += 1;
        self.foreign.throttled += u64::from(verdict != Verdict::Admitted);
        verdict
    }

    fn judge(&mut self, now: Wall) -> Verdict {
        if self.full(now).is_none() {
            self.count(now);
            return Verdict::Admitted;
        }
        if self.count_rejected {
            self.count(now);
        }
        self.full(now).map_or(Verdict::Admitted, Verdict::Throttled)
    }

    /// A call arrives that is refused before anybody counts it, for want of a token or a role. It
    /// was on the wire all the same, so the report has it.
    pub fn turn_away(&mut self, now: Wall) {
        self.record(now);
    }

    /// How much of ours arrived.
    pub const fn arrivals(&self) -> usize {
        self.seen.len()
    }

    /// When each call of ours arrived.
    pub fn seen(&self) -> &[Wall] {
        &self.seen
    }

    /// What others did.
    pub const fn foreign(&self) -> Foreign {
        self.foreign
    }

    /// What of ours was let in.
    pub const fn admitted(&self) -> u64 {
        self.admitted
    }

    /// What of ours was answered with 429.
    pub const fn throttled(&self) -> u64 {
        self.throttled
    }

    /// The limits that are enforced.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The most arrivals of ours that any closed window of this length saw, refused ones included.
    pub fn worst(&self, window: Duration) -> usize {
        let mut worst = 0;
        let mut opening = self.seen.iter().enumerate().peekable();
        for (last, at) in self.seen.iter().enumerate() {
            while opening.next_if(|(_, first)| at.since(**first) > window).is_some() {}
            worst = worst.max(opening.peek().map_or(0, |(first, _)| last + 1 - first));
        }
        worst
    }

    fn record(&mut self, now: Wall) -> Wall {
        let now = self.pass(now);
        self.seen.push(now);
        now
    }

    fn pass(&mut self, now: Wall) -> Wall {
        let (first, now) = self.span.map_or((now, now), |(first, last)| (first, now.max(last)));
        self.span = Some((first, now));
        now
    }

    fn count(&mut self, now: Wall) {
        self.counted.push_back(now);
        let needed = usize::try_from(self.limits.per_hour.get()).unwrap_or(usize::MAX);
        while self.counted.len() > needed {
            self.counted.pop_front();
        }
    }

    /// The full window that frees last, if any is full.
    fn full(&self, now: Wall) -> Option<Full> {
        let windows = [(self.limits.per_minute.get(), MINUTE), (self.limits.per_hour.get(), HOUR)];
        windows
            .into_iter()
            .filter_map(|(limit, window)| {
                // The window is full while it holds `limit` calls: until the one that many back
                // has left it.
                let back = usize::try_from(limit).ok()?;
                let oldest = self.counted.get(self.counted.len().checked_sub(back)?)?;
                let wait = match self.shape {
                    Shape::Sliding => (*oldest + window + TICK).since(now),
                    Shape::Fixed => {
                        let (first, _) = self.span?;
                        let inside = now.since(first).as_millis() % window.as_millis();
                        let opened = now - Duration::from_millis(u64::try_from(inside).ok()?);
                        if *oldest < opened { Duration::ZERO } else { (opened + window).since(now) }
                    }
                };
                (!wait.is_zero()).then_some(Full { limit, window, wait })
            })
            .max_by_key(|full| full.wait)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn limits(per_minute: u32, per_hour: u32) -> Limits {
        Limits::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(per_hour).unwrap()).unwrap()
    }

    #[test]
    fn the_edge_of_a_window_is_exact_to_the_millisecond() {
        let mut windows = Windows::new(limits(2, 10), false);
        assert_eq!(windows.arrive(Wall(0)), Verdict::Admitted);
        assert_eq!(windows.arrive(Wall(10)), Verdict::Admitted);
        let full = Full { limit: 2, window: MINUTE, wait: Duration::from_millis(1) };
        assert_eq!(windows.arrive(Wall(60_000)), Verdict::Throttled(full));
        assert_eq!(windows.arrive(Wall(60_001)), Verdict::Admitted);
        assert!(matches!(windows.arrive(Wall(60_002)), Verdict::Throttled(_)));
        assert_eq!((windows.arrivals(), windows.admitted(), windows.throttled()), (5, 3, 2));
    }

    #[test]
    fn the_worst_window_is_closed_at_both_ends() {
        for (second, worst) in [(60_000, 2), (60_001, 1)] {
            let mut windows = Windows::new(limits(5, 10), false);
            windows.arrive(Wall(0));
            windows.arrive(Wall(second));
            assert_eq!(windows.worst(MINUTE), worst);
        }
    }

    #[test]
    fn counting_rejected_calls_prolongs_the_wait() {
        let mut windows = Windows::new(limits(1, 10), true);
        windows.arrive(Wall(0));
        let Verdict::Throttled(full) = windows.arrive(Wall(59_000)) else {
            panic!("a minute with one call has no room for a second")
        };
        assert_eq!(full.wait, MINUTE + TICK);
        assert!(matches!(windows.arrive(Wall(60_001)), Verdict::Throttled(_)));
        assert_eq!(windows.arrive(Wall(120_002)), Verdict::Admitted);
    }

    #[test]
    fn a_clock_that_steps_back_frees_nothing() {
        let mut windows = Windows::new(limits(1, 10), false);
        windows.arrive(Wall(100_000));
        assert!(matches!(windows.arrive(Wall(0)), Verdict::Throttled(_)));
        assert_eq!(windows.worst(MINUTE), 2);
    }

    #[test]
    fn fixed_windows_follow_each_other_and_each_holds_its_limit() {
        let mut windows = Windows::new(limits(2, 3), false).shaped(Shape::Fixed);
        for (at, admitted) in [
            (7_000, true),
            (66_998, true),
            (66_999, false),
            // The second minute of the windows: two calls more within two milliseconds, but for the hour.
            (67_000, true),
            (67_001, false),
            (3_606_999, false),
            (3_607_000, true),
            (3_607_001, true),
            (3_607_002, false),
        ] {
            assert_eq!(windows.arrive(Wall(at)) == Verdict::Admitted, admitted, "{at}");
        }
        assert_eq!(windows.worst(MINUTE), 4);
        let full = Full { limit: 2, window: MINUTE, wait: Duration::from_millis(59_998) };
        assert_eq!(windows.arrive(Wall(3_607_002)), Verdict::Throttled(full));
    }

    #[test]
    fn a_stranger_fills_the_same_windows_and_is_told_apart() {
        let mut windows = Windows::new(limits(2, 10), false);
        assert_eq!(windows.arrive_foreign(Wall(0)), Verdict::Admitted);
        assert_eq!(windows.arrive(Wall(1)), Verdict::Admitted);
        assert!(matches!(windows.arrive(Wall(2)), Verdict::Throttled(_)));
        assert!(matches!(windows.arrive_foreign(Wall(3)), Verdict::Throttled(_)));
        assert_eq!(windows.foreign(), Foreign { arrivals: 2, throttled: 1 });
        assert_eq!((windows.arrivals(), windows.throttled(), windows.worst(HOUR)), (2, 1, 2));
    }

    /// Whether one more call fits, by definition.
    fn fits(admitted: &[i64], limits: Limits, now: i64) -> bool {
        let within = |window: i64| admitted.iter().filter(|at| now - **at <= window).count();
        within(60_000) < limits.per_minute.get() as usize && within(3_600_000) < limits.per_hour.get() as usize
    }

    proptest! {
        #[test]
        fn windows_agree_with_counting_by_hand(
            per_minute in 1_u32..5,
            more in 0_u32..8,
            gaps in prop::collection::vec(prop_oneof![0_i64..5, 0_i64..90_000, 0_i64..2_000_000], 1..80),
        ) {
            let limits = limits(per_minute, per_minute + more);
            let mut windows = Windows::new(limits, false);
            let (mut admitted, mut seen, mut now) = (Vec::new(), Vec::new(), 0_i64);
            for gap in gaps {
                now += gap;
                seen.push(now);
                let verdict = windows.arrive(Wall(now));
                prop_assert_eq!(verdict == Verdict::Admitted, fits(&admitted, limits, now));
                match verdict {
                    Verdict::Admitted => admitted.push(now),
                    Verdict::Throttled(full) => {
                        let free = now + i64::try_from(full.wait.as_millis()).unwrap();
                        prop_assert!(fits(&admitted, limits, free));
                        prop_assert!(!fits(&admitted, limits, free - 1));
                    }
                }
            }
            for window in [MINUTE, HOUR] {
                let length = i64::try_from(window.as_millis()).unwrap();
                let worst = |times: &[i64]| times.iter()
                    .map(|first| times.iter().filter(|at| (0..=length).contains(&(*at - first))).count())
                    .max().unwrap_or(0);
                prop_assert_eq!(windows.worst(window), worst(&seen));
            }
        }
    }
}
