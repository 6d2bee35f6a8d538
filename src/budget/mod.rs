//! governor paces, the ledger proves.
//!
//! What may be sent is decided by the ledger (`domain::ledger`, kept by the store): its proof holds
//! at the server. governor shapes *when*: its GCRA admits burst plus refill, up to twice a limit in
//! one window, so with `pace = "burst"` it carries the full quotas and the ledger is what binds;
//! with `"even"`, and after a 429, it spreads the calls.
//!
//! The workers of a tenant share one [`Pace`] for each kind of call. One waiter asks it and sleeps
//! on our clock; `until_ready` has a timer of its own, which virtual time cannot move.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::domain::ledger::{HOUR, Limits, Pace as Spread};
use crate::domain::time::Boot;

/// governor's view of our clock.
#[derive(Clone)]
struct PaceClock(Arc<dyn Clock>);

impl GovernorClock for PaceClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(u64::try_from(self.0.boot().0).unwrap_or(0).saturating_mul(1_000_000))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, PaceClock, NoOpMiddleware<Nanos>>;

/// So much slower than the even pace of the hour the lane goes on after a 429, at first.
const SLOWED: u32 = 2;
/// Calls in a row that must be admitted before the lane goes a step faster again.
const STEP: u32 = 10;

struct Slowed {
    spacing: Duration,
    limiter: Limiter,
    admitted: u32,
}

/// The pace of one kind of call of one tenant.
pub struct Pace {
    clock: PaceClock,
    limits: Limits,
    minute: Limiter,
    hour: Limiter,
    even: Option<Limiter>,
    slowed: Option<Slowed>,
    /// Permits already had while a later limiter refused: held, never dropped and asked for again.
    held: [bool; 4],
}

impl Pace {
    /// A pace within `limits`, spread as `spread` says.
    pub fn new(clock: Arc<dyn Clock>, limits: Limits, spread: Spread) -> Self {
        let clock = PaceClock(clock);
        let limiter = |quota| RateLimiter::direct_with_clock(quota, clock.clone());
        let even = match spread {
            Spread::Burst => None,
            Spread::Even => Some(spaced(&clock, HOUR / limits.per_hour.get())),
        };
        Self {
            minute: limiter(Quota::per_minute(limits.per_minute)),
            hour: limiter(Quota::per_hour(limits.per_hour)),
            even,
            slowed: None,
            limits,
            clock,
            held: [false; 4],
        }
    }

    /// Whether a call may go now; else when to ask again. An admission is spent.
    pub fn check(&mut self) -> Result<(), Boot> {
        let slowed = self.slowed.as_ref().map(|slowed| &slowed.limiter);
        let limiters = [Some(&self.hour), Some(&self.minute), self.even.as_ref(), slowed];
        for (limiter, held) in limiters.into_iter().zip(&mut self.held) {
            let Some(limiter) = limiter.filter(|_| !*held) else { continue };
            if let Err(not_yet) = limiter.check() {
                let wait = not_yet.wait_time_from(self.clock.now()).max(Duration::from_millis(1));
                return Err(self.clock.0.boot() + wait);
            }
            *held = true;
        }
        self.held = [false; 4];
        self.faster();
        Ok(())
    }

    /// A 429: somebody else spends the same budget. Slower, and slower again if it comes again.
    pub fn slow_down(&mut self) {
        let even = HOUR / self.limits.per_hour.get();
        let spacing = self.slowed.as_ref().map_or(even, |slowed| slowed.spacing) * SLOWED;
        self.set_spacing(spacing.min(Duration::from_mins(1)));
    }

    /// How far calls are spread since the last 429, if they still are.
    pub fn slowed_to(&self) -> Option<Duration> {
        self.slowed.as_ref().map(|slowed| slowed.spacing)
    }

    fn faster(&mut self) {
        let Some(slowed) = &mut self.slowed else { return };
        slowed.admitted += 1;
        if slowed.admitted < STEP {
            return;
        }
        let spacing = slowed.spacing * 3 / 4;
        if spacing < Duration::from_mins(1) / self.limits.per_minute.get() {
            self.slowed = None;
        } else {
            self.set_spacing(spacing);
        }
    }

    fn set_spacing(&mut self, spacing: Duration) {
        let limiter = spaced(&self.clock, spacing);
        self.slowed = Some(Slowed { spacing, limiter, admitted: 0 });
    }
}

fn spaced(clock: &PaceClock, spacing: Duration) -> Limiter {
    let quota = Quota::with_period(spacing).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
    RateLimiter::direct_with_clock(quota.allow_burst(NonZeroU32::MIN), clock.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Wall;
    use futures_util::future::BoxFuture;
    use std::sync::atomic::{AtomicI64, Ordering};

    /// A clock that is moved by hand.
    #[derive(Default)]
    struct ByHand(AtomicI64);

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

    fn admitted_within(pace: &mut Pace, clock: &ByHand, time: Duration) -> u32 {
        let end = clock.boot() + time;
        let mut admitted = 0;
        loop {
            match pace.check() {
                Ok(()) => admitted += 1,
                Err(at) if at >= end => return admitted,
                Err(at) => clock.0.store(at.0, Ordering::SeqCst),
            }
        }
    }

    #[test]
    fn the_even_pace_spreads_the_hour() {
        let clock = Arc::new(ByHand::default());
        let mut pace = Pace::new(clock.clone(), Limits::DOCUMENTED, Spread::Even);
        assert_eq!(admitted_within(&mut pace, &clock, HOUR), 1500);
        // To the millisecond of our clock, which governor's nanoseconds are rounded up to.
        assert!((24..=25).contains(&admitted_within(&mut pace, &clock, Duration::from_mins(1))));
    }

    #[test]
    fn the_burst_never_holds_back_what_the_ledger_would_admit() {
        let clock = Arc::new(ByHand::default());
        let mut pace = Pace::new(clock.clone(), Limits::DOCUMENTED, Spread::Burst);
        for minute in 0..15 {
            clock.0.store(minute * 60_250, Ordering::SeqCst);
            for call in 0..100 {
                assert_eq!(pace.check(), Ok(()), "call {call} of minute {minute}");
            }
        }
        clock.0.store(3_600_250, Ordering::SeqCst);
        for _ in 0..100 {
            assert_eq!(pace.check(), Ok(()));
        }
    }

    #[test]
    fn after_a_429_it_goes_slower_and_works_its_way_up() {
        let clock = Arc::new(ByHand::default());
        let mut pace = Pace::new(clock.clone(), Limits::DOCUMENTED, Spread::Burst);
        pace.slow_down();
        assert_eq!(pace.slowed_to(), Some(Duration::from_millis(4800)));
        let first = admitted_within(&mut pace, &clock, Duration::from_mins(1));
        assert!((10..=16).contains(&first), "{first}");
        admitted_within(&mut pace, &clock, Duration::from_mins(10));
        assert_eq!(pace.slowed_to(), None);
    }
}
