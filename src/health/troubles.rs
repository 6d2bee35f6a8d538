//! What goes wrong again and again, and what of it is told: [`domain::trouble`](crate::domain::trouble) decides,
//! this keeps it for all loops and words it.
//!
//! A caller that is told nothing back logs nothing:
//!
//! ```ignore
//! if let Some(told) = health.met(Trouble::SignIn, tenant) {
//!     tracing::error!(tenant, times = told.times, "the sign-in failed{told}");
//! }
//! ```

use std::fmt;

use super::Health;
use crate::clock::local;
use crate::domain::time::Boot;
use crate::domain::trouble::{Count, Trouble};

/// Something that is to be told of a run of trouble. Shown, it is the end of a sentence: nothing when it happened
/// once, else how often and since when.
#[derive(Clone, Debug)]
pub struct Repeated {
    /// How often it has happened, at least once.
    pub times: u64,
    /// When it happened first, as people here read it.
    since: String,
}

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.times > 1 { write!(f, " ({} times since {})", self.times, self.since) } else { Ok(()) }
    }
}

/// A run of trouble that is over, and of whose end nobody was told.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What it was.
    pub trouble: Trouble,
    /// Whose it was; empty when it was everybody's.
    pub tenant: String,
    /// How often it happened.
    pub told: Repeated,
    /// Since when it has not, as people here read it.
    pub over: String,
}

impl Health {
    /// This has happened to this tenant, or to all where that is empty. Returns what to log, if it is to be logged.
    pub fn met(&self, trouble: Trouble, tenant: &str) -> Option<Repeated> {
        let now = self.clock.boot();
        self.with(|inner| inner.runs.met((trouble, tenant.to_owned()), now)).map(|count| self.told(count))
    }

    /// It is over. Returns what to log, if there was trouble and its end is to be logged.
    pub fn over(&self, trouble: Trouble, tenant: &str) -> Option<Repeated> {
        let now = self.clock.boot();
        self.with(|inner| inner.runs.over(&(trouble, tenant.to_owned()), now)).map(|count| self.told(count))
    }

    /// Runs that have ended and are to be told of now: to be asked every few minutes.
    pub fn troubles_ended(&self) -> Vec<Ended> {
        let now = self.clock.boot();
        let ended = self.with(|inner| inner.runs.settled(now));
        let ended = ended.into_iter().map(|((trouble, tenant), count, over)| Ended {
            trouble,
            tenant,
            told: self.told(count),
            over: self.shown(over),
        });
        ended.collect()
    }

    /// An operator has changed something: what is met next is told at once.
    pub fn forget_troubles(&self) {
        self.with(|inner| inner.runs.forget());
    }

    fn told(&self, count: Count) -> Repeated {
        Repeated { times: count.times, since: self.shown(count.since) }
    }

    fn shown(&self, at: Boot) -> String {
        let now = self.clock.wall();
        local(now - self.clock.boot().since(at), now)
    }
}
