//! governor paces, the ledger proves.
//!
//! What may be sent is decided by the ledger (`domain::ledger`, kept by the store): its proof holds
//! at the server. governor shapes *when*: its GCRA admits burst plus refill, up to twice a limit in
//! one window, so with `pace = "burst"` it carries the full quotas and the ledger is what binds;
//! with `"even"`, and after a 429, it spreads the calls.
//!
//! Whoever calls with one app registration shares one [`Budget`] for each kind of call, and the silence
//! that a 429 asks for is in it. One waiter asks it and sleeps
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
use crate::domain::budgets::CallBudget;
use crate::domain::ledger::{Limits, Pace as Spread, Used, Window};
use crate::domain::share::{Foreign, Shares};
use crate::domain::silence::{Change, Silence};
use crate::domain::throttle::Told;
use crate::domain::time::Boot;

/// governor's view of our clock: the time since a budget was made. The boot clock itself may be below
/// zero, under a library that sets it, and governor's cannot.
#[derive(Clone)]
struct PaceClock(Arc<dyn Clock>, Boot);

impl GovernorClock for PaceClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.boot().since(self.1))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, PaceClock, NoOpMiddleware<Nanos>>;

/// Calls that come late may catch up with an even spread by so much: a waiter wakes milliseconds
/// after its time, and an hour of lost milliseconds would be calls.
const CATCH_UP: Duration = Duration::from_secs(12);
/// The same after a 429, where a few calls at once may all meet the next.
const CAREFUL: Duration = Duration::from_secs(2);

/// What a budget has learnt from 429s: what outlives a restart, and other limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// What others are believed to spend.
    pub foreign: Foreign,
    /// When the last 429 showed it.
    pub last_429: Boot,
    /// The silence that it asked for.
    pub silence: Silence,
}

/// What one kind of call of one app registration may spend, and when.
pub struct Budget {
    clock: PaceClock,
    allowed: CallBudget,
    /// No answer makes a silence longer.
    longest: Duration,
    silence: Silence,
    shares: Shares,
    minute: Limiter,
    hour: Limiter,
    spaced: Option<(Duration, Limiter)>,
    /// Permits already had while a later limiter refused: held, never dropped and asked for again.
    held: [bool; 3],
    /// Admissions that were given back: the next calls have theirs already.
    unspent: u32,
    /// What is on disk of what others spend, and of when that was seen.
    noted: (Foreign, Boot),
}

impl Budget {
    /// A budget of which so much is allowed, and in which no answer asks for a silence of more than
    /// `longest`; `memory` is what was learnt before.
    pub fn new(clock: Arc<dyn Clock>, allowed: CallBudget, longest: Duration, memory: Memory) -> Self {
        let began = clock.boot();
        let clock = PaceClock(clock, began);
        let limiter = |quota| RateLimiter::direct_with_clock(quota, clock.clone());
        let mut shares = Shares::new(allowed.whole, allowed.most);
        if memory.foreign != Foreign::default() {
            shares.remember(memory.foreign, memory.last_429, clock.0.boot());
        }
        let mut budget = Self {
            minute: limiter(Quota::per_minute(allowed.most.per_minute)),
            hour: limiter(Quota::per_hour(allowed.most.per_hour)),
            spaced: None,
            held: [false; 3],
            unspent: 0,
            noted: (memory.foreign, memory.last_429),
            silence: memory.silence,
            shares,
            allowed,
            longest,
            clock,
        };
        budget.space();
        budget
    }

    /// From now on so much is allowed. What was learnt stays.
    pub fn allow(&mut self, allowed: CallBudget, longest: Duration) {
        if (allowed, longest) != (self.allowed, self.longest) {
            let (foreign, last_429) = (self.shares.foreign(), self.shares.last_429());
            let memory = Memory { foreign, last_429, silence: self.silence };
            let noted = self.noted;
            *self = Self { noted, ..Self::new(Arc::clone(&self.clock.0), allowed, longest, memory) };
        }
    }

    /// Until when no call may be made, since a 429 asked for that.
    pub fn silent_until(&self) -> Option<Boot> {
        self.silence.until(self.clock.0.boot())
    }

    /// Somebody else met a 429, and has written down until when there is to be silence.
    pub fn hear_of(&mut self, until: Boot, strikes: u32) {
        self.silence.hear_of(until, strikes, self.clock.0.boot(), self.longest);
    }

    /// The boot clock was found to have jumped ahead by so much: a silence lasts as long all the same.
    pub fn boot_went_ahead(&mut self, by: Duration) {
        self.silence.later(by, self.clock.0.boot(), self.longest);
    }

    /// A 429. What it says of others is for [`Budget::measured`], if a silence begins with it.
    pub fn throttled(&mut self, told: Told) -> Change {
        self.silence.throttled(self.clock.0.boot(), told.wait, self.longest)
    }

    /// An answer that was no 429, to a call that began then.
    pub fn answered(&mut self, began: Boot) -> Change {
        self.silence.answered(began, self.clock.0.boot())
    }

    /// What the ledger may admit now.
    pub fn limits(&mut self) -> Limits {
        let limits = self.shares.ours(self.clock.0.boot());
        self.space();
        limits
    }

    /// Whether a call may go now; else when to ask again. An admission is spent: whoever then finds no
    /// call to make gives it back at once. One that is kept back later, for a silence or a stop, loses it:
    /// given back, all that were, after the silence, would go out together.
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
    pub fn measured(&mut self, used: Used, told: Told) -> Window {
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

    /// What others are believed to spend and when that was seen, while it is not on disk.
    pub fn to_note(&mut self) -> Option<(Foreign, Boot)> {
        self.limits();
        let seen = (self.shares.foreign(), self.shares.last_429());
        let nobody = seen.0 == Foreign::default() && self.noted.0 == Foreign::default();
        (seen != self.noted && !nobody).then_some(seen)
    }

    /// It is on disk.
    pub const fn noted(&mut self, seen: (Foreign, Boot)) {
        self.noted = seen;
    }

    fn space(&mut self) {
        let wanted = self.shares.spacing(self.allowed.pace);
        if wanted != self.spacing() {
            let ahead = if self.allowed.pace == Spread::Even { CATCH_UP } else { CAREFUL };
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
