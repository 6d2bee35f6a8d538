//! governor paces, the ledger proves.
//!
//! What may be sent is decided by the ledger (`domain::ledger`, kept by the store): its proof holds
//! at the server. governor shapes *when*: its GCRA admits burst plus refill, up to twice a limit in
//! one window, so with `pace = "burst"` it carries the full quotas and the ledger is what binds;
//! with `"even"`, and after a 429, it spreads the calls.
//!
//! The workers of a tenant share one [`Budget`] for each kind of call. One waiter asks it and sleeps
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
use crate::domain::ledger::{Limits, Pace as Spread, Used, Window};
use crate::domain::share::{Foreign, Shares};
use crate::domain::throttle::Told;
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

/// Calls that come late may catch up with an even spread by so much: a waiter wakes milliseconds
/// after its time, and an hour of lost milliseconds would be calls.
const CATCH_UP: Duration = Duration::from_secs(12);
/// The same after a 429, where a few calls at once may all meet the next.
const CAREFUL: Duration = Duration::from_secs(2);

/// What one kind of call of one tenant may spend, and when.
pub struct Budget {
    clock: PaceClock,
    spread: Spread,
    shares: Shares,
    minute: Limiter,
    hour: Limiter,
    spaced: Option<(Duration, Limiter)>,
    /// Permits already had while a later limiter refused: held, never dropped and asked for again.
    held: [bool; 3],
    /// Admissions that were given back: the next calls have theirs already.
    unspent: u32,
    noted: Foreign,
}

impl Budget {
    /// A budget of `most` of the `whole` that Defender grants, spent as `spread` says; `foreign` is
    /// what others were believed to spend before a restart.
    pub fn new(clock: Arc<dyn Clock>, whole: Limits, most: Limits, spread: Spread, foreign: Foreign) -> Self {
        let clock = PaceClock(clock);
        let limiter = |quota| RateLimiter::direct_with_clock(quota, clock.clone());
        let mut shares = Shares::new(whole, most);
        if foreign != Foreign::default() {
            shares.remember(foreign, clock.0.boot());
        }
        let mut budget = Self {
            minute: limiter(Quota::per_minute(most.per_minute)),
            hour: limiter(Quota::per_hour(most.per_hour)),
            spaced: None,
            held: [false; 3],
            unspent: 0,
            noted: foreign,
            shares,
            spread,
            clock,
        };
        budget.space();
        budget
    }

    /// What the ledger may admit now.
    pub fn limits(&mut self) -> Limits {
        let limits = self.shares.ours(self.clock.0.boot());
        self.space();
        limits
    }

    /// Whether a call may go now; else when to ask again. An admission is spent: whoever then makes no
    /// call has to give it back.
    pub fn check(&mut self) -> Result<(), Boot> {
        if let Some(left) = self.unspent.checked_sub(1) {
            self.unspent = left;
            return Ok(());
        }
        let spaced = self.spaced.as_ref().map(|(_, limiter)| limiter);
        let limiters = [Some(&self.hour), Some(&self.minute), spaced];
        for (limiter, held) in limiters.into_iter().zip(&mut self.held) {
            let Some(limiter) = limiter.filter(|_| !*held) else { continue };
            if let Err(not_yet) = limiter.check() {
                let wait = not_yet.wait_time_from(self.clock.now()).max(Duration::from_millis(1));
                return Err(self.clock.0.boot() + wait);
            }
            *held = true;
        }
        self.held = [false; 3];
        Ok(())
    }

    /// The call that was admitted last is not made: the next one goes for it.
    pub const fn give_back(&mut self) {
        self.unspent = self.unspent.saturating_add(1);
    }

    /// A 429 came when `used` calls of ours had been answered within each window. Returns the window
    /// that was full.
    pub fn throttled(&mut self, used: Used, told: Told) -> Window {
        let blamed = self.shares.throttled(self.clock.0.boot(), used, told.window, told.wait);
        self.space();
        blamed
    }

    /// The ledger refused a call because of this window: when that lasts, more is tried.
    pub fn bound(&mut self, window: Window) {
        if self.shares.are_lowered() {
            self.shares.bound(window, self.clock.0.boot());
            self.space();
        }
    }

    /// How far calls are spread, if they are.
    pub fn spacing(&self) -> Option<Duration> {
        self.spaced.as_ref().map(|(spacing, _)| *spacing)
    }

    /// What others are believed to spend, when that is not what was noted last: to be written down.
    pub fn to_note(&mut self) -> Option<Foreign> {
        self.limits();
        let foreign = self.shares.foreign();
        (std::mem::replace(&mut self.noted, foreign) != foreign).then_some(foreign)
    }

    fn space(&mut self) {
        let wanted = self.shares.spacing(self.spread);
        if wanted != self.spacing() {
            let ahead = if self.spread == Spread::Even { CATCH_UP } else { CAREFUL };
            self.held = [false; 3];
            self.spaced = wanted.map(|spacing| (spacing, spaced(&self.clock, spacing, ahead)));
        }
    }
}

/// Evenly, but what is late may catch up by `ahead`.
fn spaced(clock: &PaceClock, spacing: Duration, ahead: Duration) -> Limiter {
    let burst = u32::try_from(ahead.as_nanos() / spacing.as_nanos().max(1)).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(spacing).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
    RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone())
}

#[cfg(test)]
mod tests;
