//! The status of everything, as `sweepd status --json`, `GET /api/status` and the dashboard show it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::forecast::{Outlook, Schedule, usual_latency};
use crate::domain::id::TenantName;
use crate::domain::job::State;
use crate::domain::ledger::{CallKind, Limits, Pace};
use crate::domain::time::{Boot, Wall};
use crate::store::status::{SweepStatus, TenantStatus};
use crate::store::{Store, StoreError};

/// The names are the contract's.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Report {
    pub tenants: BTreeMap<String, TenantReport>,
    pub sweeps: Vec<SweepReport>,
    pub daemon: Daemon,
}

/// What is known of the daemon itself.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names speak")]
pub struct Daemon {
    pub running: bool,
    pub version: &'static str,
}

/// A tenant as it stands.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct TenantReport {
    pub paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<String>,
    pub jobs: BTreeMap<&'static str, u64>,
    pub budget: BTreeMap<&'static str, BTreeMap<&'static str, Gauge>>,
    pub waiting_for: String,
    pub waiting_until: Option<String>,
    pub eta: Option<String>,
    #[serde(skip)]
    pub oldest_queued: Option<Wall>,
}

/// How much of a window is used.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Gauge {
    pub limit: u32,
    pub used: u32,
}

/// A sweep as it stands.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct SweepReport {
    pub id: String,
    pub name: String,
    pub tenant: String,
    pub source: String,
    pub state: String,
    pub total: u64,
    pub open: u64,
    pub received_at: String,
    pub eta: Option<String>,
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The wall clock.
    pub at: Wall,
    /// The boot clock, which the ledger lives on.
    pub boot: Boot,
}

/// What is reported without a database: every configured tenant, with zeros.
pub fn empty(limits: &BTreeMap<TenantName, Limits>, running: bool) -> Report {
    let tenants = limits.iter().map(|(name, limits)| (name.to_string(), idle(*limits))).collect();
    Report { tenants, sweeps: Vec::new(), daemon: daemon(running) }
}

const fn daemon(running: bool) -> Daemon {
    Daemon { running, version: env!("CARGO_PKG_VERSION") }
}

fn idle(limits: Limits) -> TenantReport {
    TenantReport {
        paused: false,
        paused_reason: None,
        jobs: State::ALL.iter().map(|state| (state.as_str(), 0)).collect(),
        budget: BTreeMap::from([("scan", windows(limits, 0, 0))]),
        waiting_for: "nothing".to_owned(),
        waiting_until: None,
        eta: None,
        oldest_queued: None,
    }
}

fn windows(limits: Limits, minute: u32, hour: u32) -> BTreeMap<&'static str, Gauge> {
    BTreeMap::from([
        ("minute", Gauge { limit: limits.per_minute.get(), used: minute }),
        ("hour", Gauge { limit: limits.per_hour.get(), used: hour }),
    ])
}

/// Reads everything. `limits` are those of the scan call of each configured tenant.
pub async fn read(
    store: &Store,
    limits: &BTreeMap<TenantName, Limits>,
    now: Now,
    running: bool,
) -> Result<Report, StoreError> {
    let mut report = empty(limits, running);
    let sweeps = store.unfinished_sweeps().await?;
    let mut finish = BTreeMap::new();
    for tenant in store.tenants_status().await? {
        // What is held, or not complete, is not on its way.
        let hidden = sweeps.iter().filter(|sweep| sweep.tenant == tenant.name && sweep.state != "open");
        let hidden = hidden.map(|sweep| sweep.open).sum();
        let own = limits.get(&tenant.name).copied();
        let limits = own.unwrap_or(Limits::DOCUMENTED);
        let mut told = one(store, &tenant, limits, hidden, now).await?;
        if !running {
            "the daemon, which is not running".clone_into(&mut told.waiting_for);
            (told.waiting_until, told.eta) = (None, None);
        } else if own.is_none() {
            (told.waiting_until, told.eta) = (None, None);
            "a configuration: this tenant is not configured any more".clone_into(&mut told.waiting_for);
        }
        finish.insert(tenant.name.clone(), told.eta.clone());
        report.tenants.insert(tenant.name.to_string(), told);
    }
    report.sweeps = sweeps
        .into_iter()
        .map(|sweep| {
            let eta = finish.get(&sweep.tenant).cloned().flatten();
            told(sweep, eta)
        })
        .collect();
    Ok(report)
}

fn told(sweep: SweepStatus, eta: Option<String>) -> SweepReport {
    SweepReport {
        id: sweep.id.to_string(),
        name: sweep.name,
        tenant: sweep.tenant.to_string(),
        source: sweep.source,
        eta: eta.filter(|_| sweep.state == "open"),
        state: sweep.state,
        total: sweep.total,
        open: sweep.open,
        received_at: sweep.received_at.rfc3339(),
    }
}

async fn one(
    store: &Store,
    tenant: &TenantStatus,
    limits: Limits,
    hidden: u64,
    now: Now,
) -> Result<TenantReport, StoreError> {
    let mut told = idle(limits);
    for (state, n) in &tenant.jobs {
        told.jobs.insert(state.as_str(), *n);
    }
    for kind in [CallKind::Scan, CallKind::ListActions] {
        let used = store.used(tenant.row, kind, now.boot).await?;
        let limits = if kind == CallKind::Scan { limits } else { Limits::DOCUMENTED };
        told.budget.insert(kind.as_str(), windows(limits, used.minute, used.hour));
    }
    told.paused = tenant.pause.is_some();
    told.paused_reason = tenant.pause.as_ref().and_then(|pause| pause.reason.clone());
    told.waiting_for.clone_from(&tenant.waiting.what);
    told.waiting_until = tenant.waiting.until.map(Wall::rfc3339);
    told.oldest_queued = tenant.oldest_queued;
    let queued = tenant.jobs.get(&State::Queued).copied().unwrap_or(0).saturating_sub(hidden);
    if queued > 0 && !told.paused {
        let held = store.held(tenant.row, CallKind::Scan, now.boot).await?;
        let latency = usual_latency(store.latencies(tenant.row, CallKind::Scan, now.boot).await?);
        let outlook = Outlook { limits, pace: Pace::Burst, latency, held, not_before: None };
        let last = Schedule::of(outlook, now.boot, queued).answered(queued);
        // Not before what the lane waits for, whatever the budget would allow.
        let eta = (now.at + last.since(now.boot)).max(tenant.waiting.until.unwrap_or_default());
        told.eta = Some(eta.rfc3339());
    }
    Ok(told)
}
