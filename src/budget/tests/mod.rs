//! The budget under a clock that is moved by hand.

mod lane_core;

use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::BoxFuture;

use super::*;
use crate::domain::budgets::CallBudget;
use crate::domain::forecast::{Outlook, Schedule};
use crate::domain::ledger::{HOUR, MINUTE};
use crate::domain::time::Wall;

/// A clock that is moved by hand.
#[derive(Default)]
pub struct ByHand(AtomicI64);

impl ByHand {
    pub fn set(&self, at: Boot) {
        self.0.store(at.0, Ordering::SeqCst);
    }
}

impl Clock for ByHand {
    fn wall(&self) -> Wall {
        Wall(self.boot().0)
    }
    fn boot(&self) -> Boot {
        Boot(self.0.load(Ordering::SeqCst))
    }
    fn sleep_until(&self, at: Boot) -> BoxFuture<'_, ()> {
        self.0.fetch_max(at.0, Ordering::SeqCst);
        Box::pin(async {})
    }
}

const LONGEST: Duration = Duration::from_mins(61);

fn allowed(limits: Limits, pace: Spread) -> CallBudget {
    CallBudget { pace, ..CallBudget::of(limits) }
}

fn budget(clock: &Arc<ByHand>, spread: Spread) -> Budget {
    Budget::new(Arc::<ByHand>::clone(clock), allowed(Limits::DOCUMENTED, spread), LONGEST, Memory::default())
}

fn admitted_within(budget: &mut Budget, clock: &ByHand, time: Duration) -> u32 {
    let end = clock.boot() + time;
    let mut admitted = 0;
    loop {
        match budget.check() {
            Ok(()) => admitted += 1,
            Err(at) if at >= end => return admitted,
            Err(at) => clock.set(at),
        }
    }
}

#[test]
fn the_even_pace_spreads_the_hour() {
    let clock = Arc::new(ByHand::default());
    let mut even = budget(&clock, Spread::Even);
    // Five at most are ahead, which the ledger takes back at the end of the hour.
    let hour = admitted_within(&mut even, &clock, HOUR);
    assert!((1500..=1505).contains(&hour), "{hour}");
    assert!((24..=26).contains(&admitted_within(&mut even, &clock, MINUTE)));
}

#[test]
fn an_even_pace_makes_up_for_waking_late() {
    let clock = Arc::new(ByHand::default());
    let mut even = budget(&clock, Spread::Even);
    let mut admitted = 0;
    while clock.boot() < Boot(0) + HOUR {
        match even.check() {
            Ok(()) => admitted += 1,
            Err(at) => clock.set(at + Duration::from_millis(700)),
        }
    }
    assert!(admitted >= 1495, "{admitted}");
}

#[test]
fn the_burst_never_holds_back_what_the_ledger_would_admit() {
    let clock = Arc::new(ByHand::default());
    let mut burst = budget(&clock, Spread::Burst);
    for minute in 0..15 {
        clock.set(Boot(minute * 60_250));
        for call in 0..100 {
            assert_eq!(burst.check(), Ok(()), "call {call} of minute {minute}");
        }
    }
    clock.set(Boot(3_600_250));
    for _ in 0..100 {
        assert_eq!(burst.check(), Ok(()));
    }
}

#[test]
fn after_a_429_it_goes_evenly_within_what_was_left_and_works_its_way_up() {
    let clock = Arc::new(ByHand::default());
    let mut burst = budget(&clock, Spread::Burst);
    assert_eq!(burst.measured(Used { minute: 60, hour: 60 }, Told::default()), Window::Minute);
    assert_eq!(burst.limits().per_minute.get(), 58);
    assert_eq!(burst.to_note(), Some((Foreign { minute: 42, hour: 0 }, Boot(0))));
    let first = admitted_within(&mut burst, &clock, MINUTE);
    assert!((57..=60).contains(&first), "{first}");
    for _ in 0..20 {
        clock.set(clock.boot() + MINUTE);
        burst.bound(Window::Minute);
    }
    assert_eq!((burst.spacing(), burst.limits()), (None, Limits::DOCUMENTED));
}

#[test]
fn what_others_spend_is_to_be_noted_until_it_is_on_disk() {
    let clock = Arc::new(ByHand::default());
    let mut burst = budget(&clock, Spread::Burst);
    assert_eq!(burst.to_note(), None);
    burst.measured(Used { minute: 60, hour: 60 }, Told::default());
    let seen = burst.to_note().unwrap();
    assert_eq!(burst.to_note(), Some(seen), "the write failed");
    burst.noted(seen);
    assert_eq!(burst.to_note(), None);
    clock.set(Boot(7));
    burst.measured(Used { minute: 60, hour: 60 }, Told::default());
    assert!(burst.to_note().is_some_and(|(_, last_429)| last_429 == Boot(7)), "when it was seen counts too");
    clock.set(Boot(7) + crate::domain::share::FORGOTTEN);
    assert_eq!(burst.to_note(), Some((Foreign::default(), Boot(7))), "forgotten on disk too");
}

#[test]
fn other_limits_change_nothing_about_what_was_learnt() {
    let clock = Arc::new(ByHand::default());
    let mut burst = budget(&clock, Spread::Burst);
    burst.throttled(Told { wait: Some(MINUTE), window: None });
    burst.measured(Used { minute: 60, hour: 60 }, Told::default());
    let fewer = Limits::DOCUMENTED.without_reserve(10);
    burst.allow(CallBudget { most: fewer, ..allowed(Limits::DOCUMENTED, Spread::Burst) }, LONGEST);
    assert_eq!(burst.silent_until(), Some(Boot(0) + MINUTE));
    assert_eq!((burst.limits().per_minute.get(), burst.limits().per_hour), (58, fewer.per_hour));
    assert_eq!(burst.to_note(), Some((Foreign { minute: 42, hour: 0 }, Boot(0))), "nor is it on disk now");
    clock.set(Boot(0) + MINUTE);
    assert_eq!((burst.silent_until(), burst.answered(clock.boot())), (None, Change::Over(MINUTE)));
}

#[test]
fn the_forecast_knows_the_pace_beside_a_stranger() {
    for (minute, hour) in [(0, 0), (40, 0), (0, 600), (42, 630)] {
        let foreign = Foreign { minute, hour };
        for pace in [Spread::Burst, Spread::Even] {
            let clock = Arc::new(ByHand::default());
            let scan = CallBudget { pace, ..CallBudget::of(Limits::DOCUMENTED) };
            let memory = Memory { foreign, ..Memory::default() };
            let mut budget = Budget::new(Arc::<ByHand>::clone(&clock), scan, LONGEST, memory);
            let calls = if pace == Spread::Even { 25 } else { budget.limits().per_minute.get() };
            let schedule = Schedule::of(Outlook::beside(&scan, foreign), Boot(0), calls.into());
            for _ in 0..calls {
                while budget.check().map_err(|at| clock.set(at)).is_err() {}
            }
            let told = schedule.call(calls.into());
            let apart = told.since(clock.boot()).max(clock.boot().since(told));
            // Calls that are late may catch up by so much.
            let catch_up = if pace == Spread::Even { CATCH_UP } else { CAREFUL };
            assert!(apart <= catch_up, "{foreign:?} {pace:?}: {told:?} for {:?}", clock.boot());
        }
    }
}

#[test]
fn an_admission_that_is_given_back_is_not_lost() {
    let clock = Arc::new(ByHand::default());
    let mut even = budget(&clock, Spread::Even);
    let whole = admitted_within(&mut even, &clock, MINUTE * 10);
    let clock = Arc::new(ByHand::default());
    let mut even = budget(&clock, Spread::Even);
    let (mut admitted, end) = (0, clock.boot() + MINUTE * 10);
    'minutes: loop {
        // Nine of ten times no call comes of it.
        for turn in 0..10 {
            while let Err(at) = even.check() {
                if at >= end {
                    break 'minutes;
                }
                clock.set(at);
            }
            if turn < 9 {
                even.give_back();
            }
        }
        admitted += 1;
    }
    assert_eq!(admitted, whole);
}
