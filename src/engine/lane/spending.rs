//! What an app registration spends: one budget for each kind of call, as Defender has it.
//!
//! Every lane with that registration spends from the same one, and so do the calls of the lane that
//! a reload has put aside: what one of them meets, all of them know at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::budget::{Budget, Memory};
use crate::clock::Clock;
use crate::domain::budgets::Budgets;
use crate::domain::ledger::CallKind;
use crate::domain::silence::Silence;
use crate::store::throttles::Learnt;

/// The budgets of one app registration.
pub struct Spending(BTreeMap<CallKind, Mutex<Budget>>);

impl Spending {
    /// What may be spent, and what was learnt before the start.
    pub fn new(clock: &Arc<dyn Clock>, allowed: &Budgets, learnt: &BTreeMap<CallKind, Learnt>) -> Self {
        let (now, wall) = (clock.boot(), clock.wall());
        let budget = |kind: &CallKind| {
            let learnt = learnt.get(kind).copied().unwrap_or_default();
            let memory = Memory {
                foreign: learnt.foreign,
                last_429: now - wall.since(learnt.last_429),
                silence: learnt.silence.map_or_else(Silence::default, |(until, strikes)| {
                    Silence::resumed(until, strikes, now, allowed.longest_pause)
                }),
            };
            let budget = Budget::new(Arc::clone(clock), allowed.of(*kind), allowed.longest_pause, memory);
            (*kind, Mutex::new(budget))
        };
        Self(CallKind::ALL.iter().map(budget).collect())
    }

    /// What may be spent from now on.
    pub fn allow(&self, allowed: &Budgets) {
        for kind in CallKind::ALL {
            if let Some(mut budget) = self.of(*kind) {
                budget.allow(allowed.of(*kind), allowed.longest_pause);
            }
        }
    }

    /// What another process has written down of silences.
    pub fn hear_of(&self, learnt: &BTreeMap<CallKind, Learnt>) {
        for (kind, learnt) in learnt {
            if let (Some(mut budget), Some((until, strikes))) = (self.of(*kind), learnt.silence) {
                budget.hear_of(until, strikes);
            }
        }
    }

    /// The boot clock was found to have jumped ahead by so much.
    pub fn boot_went_ahead(&self, by: Duration) {
        for mut budget in CallKind::ALL.iter().filter_map(|kind| self.of(*kind)) {
            budget.boot_went_ahead(by);
        }
    }

    /// The budget of a kind of call; every kind has one.
    pub fn of(&self, kind: CallKind) -> Option<MutexGuard<'_, Budget>> {
        self.0.get(&kind).map(|budget| budget.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
