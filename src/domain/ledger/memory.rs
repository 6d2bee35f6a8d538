//! The ledger in memory, as the store keeps it on disk: what tests of the arithmetic run on.

use std::num::NonZeroU32;

use super::{Admission, Limits, Nth, admission};
use crate::domain::time::Boot;

/// The slots of one kind of call.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// When the settled ones settled, or will have, oldest first.
    settled: Vec<Boot>,
    /// Those on the wire.
    on_the_wire: usize,
}

impl Slots {
    fn nth(&self, limit: NonZeroU32) -> Nth {
        let beyond = (limit.get() as usize).checked_sub(self.on_the_wire);
        match beyond.filter(|beyond| *beyond > 0) {
            None => Nth::Unsettled,
            Some(beyond) => {
                self.settled.len().checked_sub(beyond).map_or(Nth::Absent, |at| Nth::Settled(self.settled[at]))
            }
        }
    }

    /// May a slot be taken?
    pub fn admission(&self, limits: Limits, now: Boot) -> Admission {
        admission(self.nth(limits.per_minute), self.nth(limits.per_hour), now)
    }

    /// Takes one.
    pub const fn take(&mut self) {
        self.on_the_wire += 1;
    }

    /// A call on the wire has settled, or will have.
    pub fn settle(&mut self, at: Boot) {
        self.on_the_wire -= 1;
        let place = self.settled.partition_point(|other| *other <= at);
        self.settled.insert(place, at);
    }

    /// A kill: what was on the wire may still arrive until then.
    pub fn lose(&mut self, until: Boot) {
        while self.on_the_wire > 0 {
            self.settle(until);
        }
    }

    /// How many have settled after `since` and until `now`.
    pub fn settled_between(&self, since: Boot, now: Boot) -> usize {
        self.settled.partition_point(|at| *at <= now) - self.settled.partition_point(|at| *at <= since)
    }

    /// Calls on the wire.
    pub const fn on_the_wire(&self) -> usize {
        self.on_the_wire
    }
}
