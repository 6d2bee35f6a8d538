//! When what is queued of a tenant will be done, and more machines behind it: `status` and
//! `sweepd forecast` ask the same question here, and so may a test.

use super::report::Now;
use crate::domain::forecast::{Outlook, Terms, usual_latency};
use crate::domain::ledger::CallKind;
use crate::domain::queue::{self, End, Ends, Sweep};
use crate::domain::share::Foreign;
use crate::domain::time::{Boot, Wall};
use crate::store::tenants::TenantRow;
use crate::store::unsent::UnsentSweep;
use crate::store::{StoreError, View};

/// What lies ahead of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    /// Machines that are queued and may be sent: those of held sweeps are not among them.
    pub queued: u64,
    /// When they are done, and the additional ones; empty when that is not known.
    pub ends: Ends,
    /// Why it is not known.
    pub unknown: Option<String>,
}

/// By the wall clock, what a forecast made at `now` says.
pub fn wall(end: End, now: Now) -> Wall {
    now.at + end.at.since(now.boot)
}

/// The forecast from the configuration alone, when there is no database yet.
pub fn from_terms(terms: &Terms, more: u64, now: Now) -> Forecast {
    let scan = terms.budgets.scan;
    let outlook = Outlook::idle(scan.most, scan.pace);
    Forecast { queued: 0, unknown: None, ends: queue::ends(&outlook, &[], more, terms.rise_after, now.boot) }
}

/// The forecast for a tenant, with `more` machines that would come in now at the usual priority.
///
/// An operator's pause is left out of it: the times of a paused tenant count as if it were resumed
/// now. So are those of a daemon that is not `running`, as if it were started. While calls fail for a
/// reason that somebody has to mend, no end is told.
pub async fn read(
    store: &View,
    tenant: TenantRow,
    terms: &Terms,
    more: u64,
    now: Now,
    running: bool,
) -> Result<Forecast, StoreError> {
    let unsent = store.unsent(tenant).await?;
    let standstill = store.standstill(tenant).await?;
    let longest = terms.budgets.longest_pause;
    let scan = terms.budgets.scan;
    let mut outlook = Outlook::beside(&scan, Foreign::default());
    // Without one the lane has never run: nothing is spent.
    if let Some(budget) = store.budget_of(tenant).await? {
        let foreign = store.foreign(budget).await?.get(&CallKind::Scan).copied().unwrap_or_default();
        outlook = Outlook::beside(&scan, foreign);
        outlook.latency = usual_latency(store.latencies(budget, CallKind::Scan, now.boot).await?);
        outlook.held = store.held(budget, CallKind::Scan, now.boot).await?;
    }
    outlook.not_before = standstill.not_before(now.at, now.boot, running, longest);
    let queued = unsent.iter().flat_map(|sweep| sweep.own.values()).sum();
    let sweeps: Vec<Sweep> = unsent.into_iter().map(|sweep| on_boot_clock(sweep, now)).collect();
    let ends = queue::ends(&outlook, &sweeps, more, terms.rise_after, now.boot);
    let unknown = standstill.without_end(running).filter(|_| queued > 0 || more > 0);
    Ok(Forecast { queued, ends: if unknown.is_none() { ends } else { Ends::default() }, unknown })
}

fn on_boot_clock(sweep: UnsentSweep, now: Now) -> Sweep {
    let boot = |at: Wall| -> Boot { now.boot + at.since(now.at) - now.at.since(at) };
    Sweep {
        n: sweep.n,
        own: sweep.own,
        joined: sweep.joined,
        lowest: sweep.lowest_priority,
        ready: sweep.latest_not_before.map_or(now.boot, boot),
        since: boot(sweep.received_at),
    }
}
