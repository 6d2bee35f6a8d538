//! The status of everything, as `sweepd status --json`, `GET /api/status` and the dashboard show it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::forecast;
use crate::clock::local;
use crate::domain::budgets::{Budgets, CallBudget};
use crate::domain::forecast::Terms;
use crate::domain::id::TenantName;
use crate::domain::job::State;
use crate::domain::ledger::{CallKind, Used};
use crate::domain::share::Foreign;
use crate::domain::time::{Boot, Wall};
use crate::store::status::{SweepStatus, TenantStatus};
use crate::store::{StoreError, View};

/// The names are the contract's.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Report {
    /// When it was read; empty where that is told beside it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
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
    /// Why no file is taken, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intake_stopped: Option<String>,
    /// Why the database takes no writes, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_stopped: Option<String>,
}

/// A tenant as it stands.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct TenantReport {
    pub paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<String>,
    pub paused_since: Option<String>,
    /// When the pause ends by itself.
    pub paused_until: Option<String>,
    /// Why its configuration cannot be used, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<String>,
    pub jobs: BTreeMap<&'static str, u64>,
    pub budget: BTreeMap<&'static str, BTreeMap<&'static str, Gauge>>,
    /// Calls of each window that others with the same app registration are believed to make.
    pub foreign: BTreeMap<&'static str, Foreign>,
    /// Since when every sign-in has failed.
    pub sign_in_fails_since: Option<String>,
    pub waiting_for: String,
    pub waiting_until: Option<String>,
    pub eta: Option<String>,
    /// Why there is no `eta` though machines are queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_unknown: Option<String>,
    pub oldest_queued: Option<String>,
    /// How many actions have which status that sweepd does not know.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown_statuses: BTreeMap<String, u64>,
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

/// How long an unknown status is shown of an action that others asked for: nobody follows it to its end.
const FOREIGN_STATUS_SHOWN: Duration = Duration::from_hours(7 * 24);

/// What a tenant waits for whose configuration cannot be used; why follows.
pub const DISABLED: &str = "a correct configuration: ";

/// The tenants that the running daemon cannot use, and why, as it wrote down: it has read their secrets, which a
/// command does not.
pub async fn disabled(store: &View, running: bool) -> Result<BTreeMap<TenantName, String>, StoreError> {
    let tenants = if running { store.tenants_status().await? } else { Vec::new() };
    let why = |tenant: TenantStatus| Some((tenant.name, tenant.waiting.what.strip_prefix(DISABLED)?.to_owned()));
    Ok(tenants.into_iter().filter_map(why).collect())
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
pub fn empty(terms: &BTreeMap<TenantName, Terms>, at: Wall, running: bool) -> Report {
    let tenants = terms.iter().map(|(name, terms)| (name.to_string(), idle(&terms.budgets))).collect();
    Report { at: at.rfc3339(), tenants, sweeps: Vec::new(), daemon: daemon(running) }
}

impl Report {
    /// The same, with why no file is taken, if that is so.
    #[must_use]
    pub fn with_intake_stopped(mut self, why: Option<String>) -> Self {
        self.daemon.intake_stopped = why;
        self
    }

    /// The same, with why the database takes no writes, if that is so. A running daemon waits for nothing else then, and
    /// cannot write down that it does.
    #[must_use]
    pub fn with_database_stopped(mut self, why: Option<String>) -> Self {
        if let Some(why) = why.as_ref().filter(|_| self.daemon.running) {
            for tenant in self.tenants.values_mut() {
                tenant.waiting_for = format!("the database to take writes again: {why}");
                (tenant.waiting_until, tenant.eta) = (None, None);
            }
            self.sweeps.iter_mut().for_each(|sweep| sweep.eta = None);
        }
        self.daemon.database_stopped = why;
        self
    }

    /// The same, with those tenants that are configured and cannot be used, and why.
    #[must_use]
    pub fn with_disabled(mut self, disabled: &BTreeMap<TenantName, String>) -> Self {
        for (name, why) in disabled {
            let told = self.tenants.entry(name.to_string()).or_insert_with(|| idle(&Budgets::default()));
            told.waiting_for = format!("{DISABLED}{why}");
            told.waiting_until = None;
            told.eta = None;
            told.disabled = Some(why.clone());
        }
        self
    }
}

const fn daemon(running: bool) -> Daemon {
    Daemon { running, version: env!("CARGO_PKG_VERSION"), intake_stopped: None, database_stopped: None }
}

fn idle(budgets: &Budgets) -> TenantReport {
    TenantReport {
        paused: false,
        paused_reason: None,
        paused_since: None,
        paused_until: None,
        disabled: None,
        jobs: State::ALL.iter().map(|state| (state.as_str(), 0)).collect(),
        budget: CallKind::ALL.iter().map(|kind| (kind.as_str(), gauges(budgets.of(*kind), Used::default()))).collect(),
        foreign: CallKind::ALL.iter().map(|kind| (kind.as_str(), Foreign::default())).collect(),
        sign_in_fails_since: None,
        waiting_for: "nothing".to_owned(),
        waiting_until: None,
        eta: None,
        eta_unknown: None,
        oldest_queued: None,
        unknown_statuses: BTreeMap::new(),
    }
}

fn gauges(budget: CallBudget, used: Used) -> BTreeMap<&'static str, Gauge> {
    let limits = budget.most;
    BTreeMap::from([
        ("minute", Gauge { limit: limits.per_minute.get(), used: used.minute }),
        ("hour", Gauge { limit: limits.per_hour.get(), used: used.hour }),
    ])
}

/// Reads everything. `terms` are those of each configured tenant.
pub async fn read(
    store: &View,
    terms: &BTreeMap<TenantName, Terms>,
    now: Now,
    running: bool,
) -> Result<Report, StoreError> {
    let mut report = empty(terms, now.at, running);
    let mut ends = BTreeMap::new();
    for tenant in store.tenants_status().await? {
        let own = terms.get(&tenant.name);
        let budgets = own.map(|own| own.budgets.clone()).unwrap_or_default();
        let mut told = one(store, &tenant, &budgets, now).await?;
        if !running {
            "the daemon, which is not running".clone_into(&mut told.waiting_for);
            told.waiting_until = None;
        } else if let Some(own) = own {
            let queued = tenant.jobs.get(&State::Queued).is_some_and(|queued| *queued > 0);
            if told.paused {
                // Nobody knows for how long, since it may be resumed before its time.
                let word = |until| format!("paused until {until}, or `sweepd resume`");
                let word = told.paused_until.as_ref().map_or("paused until `sweepd resume`".to_owned(), word);
                told.eta_unknown = queued.then_some(word);
            } else {
                let forecast = forecast::read(store, tenant.row, own, 0, now, running).await?;
                told.eta = forecast.ends.queue.map(|end| forecast::wall(end, now).rfc3339());
                told.eta_unknown = forecast.unknown;
                ends.extend(forecast.ends.sweeps);
            }
        } else {
            told.waiting_until = None;
            "a configuration: this tenant is not configured any more".clone_into(&mut told.waiting_for);
        }
        report.tenants.insert(tenant.name.to_string(), told);
    }
    let eta = |sweep: &SweepStatus| ends.get(&sweep.n).map(|end| forecast::wall(*end, now).rfc3339());
    report.sweeps = store.unfinished_sweeps().await?.into_iter().map(|sweep| (eta(&sweep), sweep)).map(told).collect();
    Ok(report)
}

fn told((eta, sweep): (Option<String>, SweepStatus)) -> SweepReport {
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

async fn one(store: &View, tenant: &TenantStatus, budgets: &Budgets, now: Now) -> Result<TenantReport, StoreError> {
    let mut told = idle(budgets);
    for (state, n) in &tenant.jobs {
        told.jobs.insert(state.as_str(), *n);
    }
    if let Some(budget) = tenant.budget {
        let foreign = store.foreign(budget).await?;
        for kind in CallKind::ALL {
            let used = store.used(budget, *kind, now.boot).await?;
            told.foreign.insert(kind.as_str(), foreign.get(kind).copied().unwrap_or_default());
            told.budget.insert(kind.as_str(), gauges(budgets.of(*kind), used));
        }
    }
    told.paused = tenant.pause.is_some();
    told.paused_reason = tenant.pause.as_ref().and_then(|pause| pause.reason.clone());
    told.paused_since = tenant.pause.as_ref().map(|pause| pause.at.rfc3339());
    told.paused_until = tenant.pause.as_ref().and_then(|pause| pause.until).map(Wall::rfc3339);
    told.waiting_for = tenant.waiting.told(|until| local(until.whole_second(), now.at), now.at);
    let sending = tenant.jobs.get(&State::Sending).copied().unwrap_or(0);
    // Not written down by the lane: it would be a write more for each call.
    if told.waiting_for == "nothing" && sending > 0 {
        let on_the_wire = sending.saturating_sub(store.questions(tenant.row).await?);
        match on_the_wire {
            0 => {}
            1 => "the answer to 1 call on the wire".clone_into(&mut told.waiting_for),
            more => told.waiting_for = format!("the answers to {more} calls on the wire"),
        }
    }
    told.waiting_until = tenant.waiting.until.filter(|until| *until > now.at).map(Wall::rfc3339);
    told.sign_in_fails_since = tenant.sign_in_fails_since.map(Wall::rfc3339);
    told.oldest_queued = tenant.oldest_queued.map(Wall::rfc3339);
    told.unknown_statuses = store.unknown_statuses(tenant.row, now.at - FOREIGN_STATUS_SHOWN).await?;
    Ok(told)
}
