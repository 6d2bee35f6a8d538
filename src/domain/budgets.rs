//! What a tenant may spend, of each kind of call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::{CallKind, Limits, Pace};
use super::share::{Foreign, Shares};
use super::time::Boot;

/// What one kind of call may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallBudget {
    /// All that Defender grants.
    pub whole: Limits,
    /// What is ours of it: the whole without the reserve.
    pub most: Limits,
    /// How it is spent.
    pub pace: Pace,
}

impl CallBudget {
    /// All of these limits, as fast as they allow.
    pub const fn of(limits: Limits) -> Self {
        Self { whole: limits, most: limits, pace: Pace::Burst }
    }

    fn stricter(self, other: Self) -> Self {
        Self {
            whole: self.whole.stricter(other.whole),
            most: self.most.stricter(other.most),
            pace: if self.pace == Pace::Even { Pace::Even } else { other.pace },
        }
    }

    /// What is ours beside what others are believed to spend.
    pub fn beside(&self, foreign: Foreign) -> Shares {
        let mut shares = Shares::new(self.whole, self.most);
        if foreign != Foreign::default() {
            shares.remember(foreign, Boot(0), Boot(0));
        }
        shares
    }
}

/// What every kind of call may spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Calls that ask for a scan.
    pub scan: CallBudget,
    /// Every other kind, where it is not what is documented.
    pub others: BTreeMap<CallKind, Limits>,
    /// No answer, whatever it asks for, makes calls stop for longer.
    pub longest_pause: Duration,
}

impl Budgets {
    /// What a kind of call may spend.
    pub fn of(&self, kind: CallKind) -> CallBudget {
        match kind {
            CallKind::Scan => self.scan,
            _ => CallBudget::of(self.others.get(&kind).copied().unwrap_or(Limits::DOCUMENTED)),
        }
    }

    /// What both allow: two sections with one app registration spend one budget.
    #[must_use]
    pub fn stricter(&self, other: &Self) -> Self {
        let others = CallKind::ALL.iter().filter(|kind| **kind != CallKind::Scan);
        Self {
            scan: self.scan.stricter(other.scan),
            others: others.map(|kind| (*kind, self.of(*kind).stricter(other.of(*kind)).most)).collect(),
            longest_pause: self.longest_pause.min(other.longest_pause),
        }
    }
}

impl Default for Budgets {
    /// What Microsoft documents.
    fn default() -> Self {
        Self {
            scan: CallBudget::of(Limits::DOCUMENTED),
            others: BTreeMap::new(),
            longest_pause: Duration::from_mins(61),
        }
    }
}
