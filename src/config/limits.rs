//! A tenant's `limits`: what may be spent, of each kind of call.

use std::time::Duration;

use crate::domain::budgets::{Budgets, CallBudget};
use crate::domain::ledger::{CallKind, Limits, Pace};

use super::reader::Section;
use super::values::{self, Wrong};

/// Longer than this nobody has to be silent: the longer window is an hour.
const A_DAY: Duration = Duration::from_hours(24);

/// Reads `[tenants.X.limits]`.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Budgets> {
    let whole = limits(section);
    let reserve = section.key("reserve_percent", "0", values::reserve);
    let pace = section.key("pace", "burst", values::word::<Pace>);
    // An hour's window and a minute: no honest answer asks for more.
    let longest_pause = section.key("longest_pause", "61m", values::positive_duration);
    if longest_pause.is_some_and(|pause| pause > A_DAY) {
        let text = "is longer than a day: one absurd answer could stop the tenant's calls for as long; 61m outlasts every window";
        section.warn("longest_pause", text);
    }
    // All of them are read before one that is wrong ends it: every error is told at once.
    let others = CallKind::ALL.iter().copied().filter(|kind| *kind != CallKind::Scan);
    let others: Vec<_> = others.map(|kind| (kind, section.within(kind.as_str(), limits))).collect();
    let whole = whole?;
    Some(Budgets {
        scan: CallBudget { whole, most: whole.without_reserve(reserve?), pace: pace? },
        longest_pause: longest_pause?,
        others: others.into_iter().map(|(kind, limits)| Some((kind, limits?))).collect::<Option<_>>()?,
    })
}

/// The two windows of one kind of call.
fn limits(section: &mut Section<'_, '_>) -> Option<Limits> {
    let per_minute = section.key("per_minute", "100", values::positive);
    let per_hour = section.key("per_hour", "1500", values::positive);
    let (per_minute, per_hour) = (per_minute?, per_hour?);
    let documented = Limits::DOCUMENTED;
    for (name, limit, most) in
        [("per_minute", per_minute, documented.per_minute), ("per_hour", per_hour, documented.per_hour)]
    {
        if limit > most {
            let text = format!(
                "is {limit}, above the {most} that Microsoft documents: what is above is answered with 429, unless this tenant was granted more"
            );
            section.warn(name, &text);
        }
    }
    let limits = Limits::new(per_minute, per_hour);
    if limits.is_err() {
        section.complain(
            "per_hour",
            Wrong::new(format!("is {per_hour}, below per_minute ({per_minute})"), "raise it, or lower per_minute"),
        );
    }
    limits.ok()
}
