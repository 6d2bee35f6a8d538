//! A tenant's `limits`: what may be spent, of each kind of call.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::ledger::{CallKind, Limits, Pace};

use super::reader::Section;
use super::values::{self, Wrong};

/// `[tenants.X.limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Of the scan call, all that Defender grants.
    pub whole: Limits,
    /// Of the scan call, what is ours: the whole without the reserve.
    pub most: Limits,
    /// How the scan call's budget is spent.
    pub pace: Pace,
    /// No answer, whatever it asks for, makes calls stop for longer.
    pub longest_pause: Duration,
    /// Of every other kind of call.
    others: BTreeMap<CallKind, Limits>,
}

/// What one kind of call may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallBudget {
    /// All that Defender grants.
    pub whole: Limits,
    /// What is ours of it.
    pub most: Limits,
    /// How it is spent.
    pub pace: Pace,
}

impl Budgets {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let whole = limits(section);
        let reserve = section.key("reserve_percent", "0", values::reserve);
        let pace = section.key("pace", "burst", values::word::<Pace>);
        // An hour's window and a minute: no honest answer asks for more.
        let longest_pause = section.key("longest_pause", "61m", values::positive_duration);
        // All of them are read before one that is wrong ends it: every error is told at once.
        let others = CallKind::ALL.iter().copied().filter(|kind| *kind != CallKind::Scan);
        let others: Vec<_> = others.map(|kind| (kind, section.within(kind.as_str(), limits))).collect();
        let whole = whole?;
        Some(Self {
            whole,
            most: whole.without_reserve(reserve?),
            pace: pace?,
            longest_pause: longest_pause?,
            others: others.into_iter().map(|(kind, limits)| Some((kind, limits?))).collect::<Option<_>>()?,
        })
    }

    /// What a kind of call may spend.
    pub fn of(&self, kind: CallKind) -> CallBudget {
        match self.others.get(&kind) {
            Some(limits) => CallBudget { whole: *limits, most: *limits, pace: Pace::Burst },
            None => CallBudget { whole: self.whole, most: self.most, pace: self.pace },
        }
    }
}

/// The two windows of one kind of call.
fn limits(section: &mut Section<'_, '_>) -> Option<Limits> {
    let per_minute = section.key("per_minute", "100", values::positive);
    let per_hour = section.key("per_hour", "1500", values::positive);
    let (per_minute, per_hour) = (per_minute?, per_hour?);
    let limits = Limits::new(per_minute, per_hour);
    if limits.is_err() {
        section.complain(
            "per_hour",
            Wrong::new(format!("is {per_hour}, below per_minute ({per_minute})"), "raise it, or lower per_minute"),
        );
    }
    limits.ok()
}
