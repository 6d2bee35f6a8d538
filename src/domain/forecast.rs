//! When will it be done? One model answers for a sweep, for a tenant and for `sweepd forecast`:
//! the calls that the ledger will admit, one after the other, as fast as it does.
//!
//! A machine is *done* when its call was made and answered. How long the device then scans is its
//! own affair, and in no forecast. Machines that turn out to be busy cost no call, and end sooner
//! than told; calls that have to be repeated cost one more.

use std::collections::VecDeque;
use std::time::Duration;

use super::budgets::{Budgets, CallBudget};
use super::lane;
use super::ledger::{HOUR, Limits, MARGIN, MINUTE, Pace};
use super::share::Foreign;
use super::sweep::words;
use super::time::Boot;

/// Calls reckoned one by one, at most: beyond two hours of calls the schedule repeats itself.
const EXACT: u64 = 400_000;

/// So many are always reckoned one by one, however few an hour allows.
const AT_LEAST: u64 = 1024;

/// What a tenant's configuration says about the order and the speed of its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What may be spent.
    pub budgets: Budgets,
    /// A queued job rises a step of priority each time it has waited so long; zero: never.
    pub rise_after: Duration,
}

/// All that decides when calls can be made from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// How many calls may be made.
    pub limits: Limits,
    /// How far calls are apart at least, to the millisecond; zero when they are not spread.
    pub spacing: Duration,
    /// From the taking of a slot to its settling; zero while none was measured.
    pub latency: Duration,
    /// When the slots that still count settled, oldest first.
    pub held: Vec<Boot>,
    /// No call before this time, whatever the budget allows: the lane is held.
    pub not_before: Option<Boot>,
}

/// What made the last of some calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// The budget had room for all of them, or the lane was held.
    Nothing,
    /// They are spread over the hour.
    Pace,
    /// The sliding minute.
    Minute,
    /// The sliding hour.
    Hour,
}

words!(Bound { Nothing = "nothing", Pace = "pace", Minute = "minute", Hour = "hour" });

/// The call after `calls` others goes out `wait` after the first of them has settled.
#[derive(Clone, Copy)]
struct Rule {
    calls: u64,
    wait: Duration,
    bound: Bound,
}

impl Outlook {
    /// Nothing is spent, nothing is held, and how long a call takes is not known.
    pub fn idle(limits: Limits, pace: Pace) -> Self {
        Self::beside(&CallBudget { pace, ..CallBudget::of(limits) }, Foreign::default())
    }

    /// The same for a budget that others are believed to spend too.
    pub fn beside(budget: &CallBudget, foreign: Foreign) -> Self {
        let shares = budget.beside(foreign);
        Self {
            limits: shares.limits(),
            spacing: shares.spacing(budget.pace).map(up_to_a_millisecond).unwrap_or_default(),
            latency: Duration::ZERO,
            held: Vec::new(),
            not_before: None,
        }
    }

    /// What the ledger says, and how many calls a lane has on the wire.
    fn rules(&self) -> [Rule; 3] {
        let width = lane::width(self.limits.per_minute, self.latency);
        [
            Rule { calls: width.into(), wait: Duration::ZERO, bound: Bound::Nothing },
            Rule { calls: self.limits.per_minute.get().into(), wait: MINUTE + MARGIN, bound: Bound::Minute },
            Rule { calls: self.limits.per_hour.get().into(), wait: HOUR + MARGIN, bound: Bound::Hour },
        ]
    }

    /// So many calls, and how long they take, once nothing but the slowest rule is felt.
    fn period(&self) -> (u64, Duration) {
        let spread = (1, self.spacing);
        let rules = self.rules().map(|rule| (rule.calls, rule.wait + self.latency));
        rules.into_iter().fold(spread, |slowest, rule| {
            let slower = rule.1.as_millis() * u128::from(slowest.0) >= slowest.1.as_millis() * u128::from(rule.0);
            if slower { rule } else { slowest }
        })
    }
}

/// Clocks have whole milliseconds, and a call is never early.
fn up_to_a_millisecond(duration: Duration) -> Duration {
    Duration::from_millis(whole_millis(duration + Duration::from_nanos(999_999)))
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When each of the next calls can be made.
#[derive(Clone, Debug)]
pub struct Schedule {
    outlook: Outlook,
    start: Boot,
    /// The first calls, one by one.
    calls: Vec<Boot>,
    /// From which call on something binds, each bound later than the one before.
    bounds: Vec<(u64, Bound)>,
}

impl Schedule {
    /// The schedule of the next `calls` calls from `now` on. Its cost does not grow with `calls`
    /// beyond two hours of them.
    pub fn of(outlook: Outlook, now: Boot, calls: u64) -> Self {
        let two_hours = u64::from(outlook.limits.per_hour.get()) * 2;
        let exact = calls.min(two_hours.max(AT_LEAST)).min(EXACT);
        let mut schedule = Self { outlook, start: now, calls: Vec::new(), bounds: Vec::new() };
        schedule.reckon(exact);
        schedule
    }

    fn reckon(&mut self, exact: u64) {
        let (rules, spacing, latency) = (self.outlook.rules(), self.outlook.spacing, self.outlook.latency);
        let kept = self.outlook.limits.per_hour.get() as usize;
        // By the time of settling, which is what the ledger goes by.
        let mut settled: VecDeque<Boot> = self.outlook.held.iter().copied().collect();
        let mut at = self.start.max(self.outlook.not_before.unwrap_or(self.start));
        let mut last = self.outlook.held.last().map(|settled| *settled - latency);
        let mut bound = Bound::Nothing;
        for n in 1..=exact {
            let mut wait_until = |time: Option<Boot>, by: Bound| {
                if let Some(time) = time.filter(|time| *time > at) {
                    at = time;
                    if by > bound {
                        bound = by;
                        self.bounds.push((n, by));
                    }
                }
            };
            wait_until(last.filter(|_| !spacing.is_zero()).map(|last| last + spacing), Bound::Pace);
            for rule in rules {
                let nth = usize::try_from(rule.calls).ok().and_then(|calls| settled.len().checked_sub(calls));
                wait_until(nth.and_then(|nth| settled.get(nth)).map(|settled| *settled + rule.wait), rule.bound);
            }
            self.calls.push(at);
            last = Some(at);
            // A slot of a lost call settles later than those that are taken after it.
            let settles = at + latency;
            let place = settled.iter().rev().take_while(|other| **other > settles).count();
            settled.insert(settled.len() - place, settles);
            while settled.len() > kept {
                settled.pop_front();
            }
        }
    }

    /// When the `n`-th call can be made; the start for none.
    pub fn call(&self, n: u64) -> Boot {
        let one_by_one = self.calls.len() as u64;
        let at = |n: u64| usize::try_from(n).ok().and_then(|n| self.calls.get(n.checked_sub(1)?)).copied();
        let (calls, time) = self.outlook.period();
        let Some(beyond) = n.checked_sub(one_by_one).filter(|beyond| *beyond > 0) else {
            return at(n).unwrap_or(self.start);
        };
        let periods = beyond.div_ceil(calls);
        let (from, added) = match n.checked_sub(periods.saturating_mul(calls)).and_then(at) {
            Some(from) => (from, whole_millis(time).saturating_mul(periods)),
            // A period longer than what was reckoned one by one: on average.
            None => (
                at(one_by_one).unwrap_or(self.start),
                u64::try_from(time.as_millis() * u128::from(beyond) / u128::from(calls)).unwrap_or(u64::MAX),
            ),
        };
        from + Duration::from_millis(added)
    }

    /// When the `n`-th call is answered; the start for none.
    pub fn answered(&self, n: u64) -> Boot {
        if n == 0 { self.start } else { self.call(n) + self.outlook.latency }
    }

    /// What made the first `n` calls wait, the longest wait of all.
    pub fn bound(&self, n: u64) -> Bound {
        self.bounds.iter().rev().find(|(from, _)| *from <= n).map_or(Bound::Nothing, |(_, bound)| *bound)
    }

    /// How many of the next `most` calls are made before `time`.
    pub fn calls_before(&self, time: Boot, most: u64) -> u64 {
        let (mut made, mut not_made) = (0, most.saturating_add(1));
        while not_made - made > 1 {
            let middle = made + (not_made - made) / 2;
            if self.call(middle) < time { made = middle } else { not_made = middle }
        }
        made
    }

    /// What lies ahead when `made` calls of this schedule were made, and no other before `time`.
    pub fn after(&self, made: u64, time: Boot) -> Outlook {
        let counts_since = time - HOUR - MARGIN;
        let first = made.saturating_sub(self.outlook.limits.per_hour.get().into());
        let settled = (first + 1..=made).map(|n| self.answered(n));
        let mut held: Vec<Boot> = self.outlook.held.iter().copied().chain(settled).collect();
        held.retain(|settled| *settled > counts_since);
        held.sort_unstable();
        Outlook { held, not_before: Some(time), ..self.outlook.clone() }
    }
}

/// What calls usually take, given what the last ones took: the median, which a few calls that were
/// lost, and settled minutes later, do not move. Zero when nothing is known.
pub fn usual_latency(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::{Admission, Nth, admission};
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(per_minute: u32, per_hour: u32) -> Limits {
        Limits::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(per_hour).unwrap()).unwrap()
    }

    fn last(outlook: &Outlook, calls: u64) -> Duration {
        Schedule::of(outlook.clone(), Boot(0), calls).answered(calls).since(Boot(0))
    }

    fn idle(calls: u64) -> Duration {
        last(&Outlook::idle(Limits::DOCUMENTED, Pace::Burst), calls)
    }

    #[test]
    fn an_idle_budget_gives_the_documented_times() {
        let minutes = |calls| idle(calls).as_secs() / 60;
        assert_eq!([1, 100, 101, 120, 1500].map(minutes), [0, 0, 1, 1, 14]);
        assert_eq!([1501, 5000, 10_000, 60_000].map(minutes), [60, 3 * 60 + 4, 6 * 60 + 9, 39 * 60 + 14]);
    }

    #[test]
    fn a_window_turns_over_more_slowly_by_what_a_call_takes() {
        let slow = Outlook { latency: SECOND * 2, ..Outlook::idle(Limits::DOCUMENTED, Pace::Burst) };
        // Three hour windows, four minute windows, the calls of a minute as wide as the lane is, an answer.
        let wide = u64::from(lane::width(Limits::DOCUMENTED.per_minute, slow.latency));
        let burst = slow.latency * u32::try_from(99 / wide).unwrap();
        assert_eq!(last(&slow, 5000), idle(5000) + slow.latency * (3 + 4 + 1) + burst);
    }

    #[test]
    fn what_is_already_spent_delays_the_rest() {
        let outlook = Outlook { held: vec![Boot(0); 1500], ..Outlook::idle(Limits::DOCUMENTED, Pace::Burst) };
        let schedule = Schedule::of(outlook, Boot(60_000), 1);
        assert_eq!((schedule.call(1), schedule.bound(1)), (Boot(0) + HOUR + MARGIN, Bound::Hour));
    }

    #[test]
    fn nothing_left_is_done_now() {
        let held = Outlook { not_before: Some(Boot(9)), ..Outlook::idle(Limits::DOCUMENTED, Pace::Burst) };
        assert_eq!(Schedule::of(held, Boot(5), 0).answered(0), Boot(5));
    }

    #[test]
    fn a_lane_that_is_held_starts_when_it_may() {
        let held = Outlook { not_before: Some(Boot(90_000)), ..Outlook::idle(Limits::DOCUMENTED, Pace::Burst) };
        let late = last(&held, 1500);
        assert_eq!(late, idle(1500) + SECOND * 90);
    }

    #[test]
    fn an_even_pace_spreads_calls_over_the_hour() {
        let even = Outlook::idle(Limits::DOCUMENTED, Pace::Even);
        let schedule = Schedule::of(even.clone(), Boot(0), 3000);
        assert_eq!([1, 2, 3, 1500].map(|n| schedule.call(n).0), [0, 2400, 4800, 1499 * 2400]);
        assert_eq!(schedule.call(1501), Boot(0) + HOUR + MARGIN);
        assert_eq!(
            (schedule.bound(1), schedule.bound(1500), schedule.bound(1501)),
            (Bound::Nothing, Bound::Pace, Bound::Hour)
        );
        let lately = Outlook { held: vec![Boot(1000)], ..even };
        assert_eq!(Schedule::of(lately, Boot(2000), 1).call(1), Boot(3400));
    }

    #[test]
    fn the_longest_wait_of_all_is_what_binds() {
        let schedule = Schedule::of(Outlook::idle(Limits::DOCUMENTED, Pace::Burst), Boot(0), 5000);
        let bound = [0, 100, 101, 1500, 1501, 5000].map(|n| schedule.bound(n).as_str());
        assert_eq!(bound, ["nothing", "nothing", "minute", "minute", "hour", "hour"]);
    }

    #[test]
    fn limits_whose_hour_never_fills_are_bound_by_the_minute() {
        let narrow = Outlook::idle(limits(10, 1500), Pace::Burst);
        let hours = last(&narrow, 100_001).as_secs_f64() / 3600.0;
        assert!((167.3..167.4).contains(&hours), "10,000 minute windows of 60.25 s: {hours}");
        let one = Outlook::idle(limits(1, 1), Pace::Burst);
        assert_eq!(last(&one, 3), (HOUR + MARGIN) * 2);
    }

    #[test]
    fn huge_limits_and_huge_queues_cost_nothing() {
        let huge = Outlook::idle(limits(1_000_000, 4_000_000_000), Pace::Burst);
        assert!(last(&huge, u64::MAX) > HOUR * 24 * 365);
        assert!(last(&Outlook::idle(limits(1, 1), Pace::Burst), u64::MAX) > HOUR * 24 * 365);
        assert_eq!(last(&huge, EXACT), Duration::ZERO);
        assert!(last(&huge, 1_000_000) < MINUTE, "beyond that on average");
    }

    #[test]
    fn calls_before_a_time_are_those_that_were_made() {
        let schedule = Schedule::of(Outlook::idle(Limits::DOCUMENTED, Pace::Burst), Boot(0), 9000);
        let made = |time: Duration| schedule.calls_before(Boot(0) + time, 9000);
        assert_eq!([Duration::ZERO, SECOND, MINUTE + MARGIN, MINUTE + SECOND].map(made), [0, 100, 100, 200]);
        assert_eq!([HOUR, HOUR + SECOND, HOUR * 2].map(made), [1500, 1600, 3000]);
        assert_eq!(made(HOUR * 100), 9000);
    }

    #[test]
    fn what_was_made_before_a_gap_still_counts_after_it() {
        let schedule = Schedule::of(Outlook::idle(limits(2, 3), Pace::Burst), Boot(0), 2);
        let gap = Boot(0) + Duration::from_mins(30);
        let later = Schedule::of(schedule.after(2, gap), gap, 2);
        assert_eq!((later.call(1), later.call(2)), (gap, Boot(0) + HOUR + MARGIN));
    }

    #[test]
    fn the_usual_latency_is_not_moved_by_lost_calls() {
        let took = [300, 61_000, 320, 310, 120_000].map(Duration::from_millis);
        assert_eq!(usual_latency(took.to_vec()), Duration::from_millis(320));
        assert_eq!(usual_latency(Vec::new()), Duration::ZERO);
    }

    /// The lane reduced to its bones, asking the ledger before every call.
    fn by_the_ledger(outlook: &Outlook, now: Boot, calls: usize) -> Vec<Boot> {
        let mut settled = outlook.held.clone();
        let mut made: Vec<Boot> = Vec::new();
        let mut now = now.max(outlook.not_before.unwrap_or(now));
        let width = lane::width(outlook.limits.per_minute, outlook.latency) as usize;
        let mut last = outlook.held.last().map(|settled| *settled - outlook.latency);
        while made.len() < calls {
            if let Some(last) = last.filter(|_| !outlook.spacing.is_zero()) {
                now = now.max(last + outlook.spacing);
            }
            settled.sort_unstable_by(|a, b| b.cmp(a));
            let next_answer = settled.iter().copied().filter(|at| *at > now).min();
            let on_the_wire = settled.iter().filter(|at| **at > now).count();
            let nth = |limit: NonZeroU32| match settled.get(limit.get() as usize - 1) {
                None => Nth::Absent,
                Some(at) if *at > now => Nth::Unsettled,
                Some(at) => Nth::Settled(*at),
            };
            match admission(nth(outlook.limits.per_minute), nth(outlook.limits.per_hour), now) {
                Admission::Open if on_the_wire < width => {
                    made.push(now);
                    settled.push(now + outlook.latency);
                    last = Some(now);
                }
                Admission::NotBefore(at, _) => now = at,
                Admission::Open | Admission::WhenSettled(_) => now = next_answer.unwrap(),
            }
        }
        made
    }

    proptest! {
        #[test]
        fn the_schedule_is_what_the_ledger_admits(
            per_minute in 1_u32..5,
            (more, odd) in (1_u32..30, 0_u32..4),
            spacing in prop_oneof![Just(0_u64), 0_u64..5000],
            latency in 0_u64..9000,
            mut held in prop::collection::vec(-3_700_000_i64..0, 0..9),
            hold in prop::option::of(0_i64..100_000),
        ) {
            held.sort_unstable();
            let limits = limits(per_minute, per_minute * more + odd);
            let outlook = Outlook {
                limits,
                spacing: Duration::from_millis(spacing),
                latency: Duration::from_millis(latency),
                held: held.into_iter().map(Boot).collect(),
                not_before: hold.map(Boot),
            };
            let calls = 3 * limits.per_hour.get() as usize + 7;
            let schedule = Schedule::of(outlook.clone(), Boot(0), calls as u64);
            let exact = by_the_ledger(&outlook, Boot(0), calls);
            let told: Vec<Boot> = (1..=calls as u64).map(|n| schedule.call(n)).collect();
            prop_assert_eq!(told, exact);
        }

        #[test]
        fn what_repeats_itself_is_what_would_be_reckoned(
            per_minute in 1_u32..40,
            (more, odd) in (1_u32..90, 0_u32..40),
            pace in prop_oneof![Just(Pace::Burst), Just(Pace::Even)],
            foreign in prop_oneof![Just(Foreign::default()), (0_u32..9, 0_u32..90).prop_map(|(minute, hour)| Foreign { minute, hour })],
            latency in 0_u64..4000,
            held in prop::collection::vec(-3_600_000_i64..0, 0..200),
        ) {
            let limits = limits(per_minute, per_minute * more + odd);
            let mut held: Vec<Boot> = held.into_iter().map(Boot).collect();
            held.sort_unstable();
            held.truncate(limits.per_hour.get() as usize);
            let latency = Duration::from_millis(latency);
            let budget = CallBudget { pace, ..CallBudget::of(limits) };
            let outlook = Outlook { latency, held, ..Outlook::beside(&budget, foreign) };
            let limits = outlook.limits;
            let calls = 8 * u64::from(limits.per_hour.get()) + 1024;
            let schedule = Schedule::of(outlook.clone(), Boot(0), calls);
            let mut exact = Schedule::of(outlook, Boot(0), 0);
            exact.reckon(calls);
            let whole = limits.per_hour.get().is_multiple_of(per_minute);
            for n in [calls, calls - 1, calls / 2 + 3, calls / 3] {
                let (told, exact) = (schedule.call(n), exact.call(n));
                // Where minutes do not add up to the hour, the odd ones may move about.
                let off = exact.since(told);
                prop_assert!(told <= exact && off <= MINUTE + MARGIN + latency, "{n}: {told:?} for {exact:?}");
                prop_assert!(off.is_zero() || !whole, "{n}: {told:?} for {exact:?}");
            }
        }
    }
}
