//! `GET /metrics`: the loops' counters, and what the database says at this moment.
//!
//! Labels are tenants and words of this program: nothing that a file, a device or Defender says becomes one.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::Shown;
use super::report::{Now, Report, TenantReport};
use crate::domain::job::State;
use crate::domain::time::Wall;
use crate::metrics::Labels;
use crate::store::StoreError;

/// How far back it is told what has ended.
const DAY: Duration = Duration::from_hours(24);

/// What a sweep that is not finished may be.
const SWEEP_STATES: [&str; 3] = ["taking", "held", "open"];

/// What the database says.
#[derive(Debug)]
pub struct Told {
    report: Report,
    /// Machines that nobody has decided about, by tenant.
    undecided: BTreeMap<String, u64>,
    /// Jobs that ended within a day, by tenant and state.
    ended: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

/// Reads everything that is not counted by the loops.
pub async fn read(shown: &Shown) -> Result<Told, StoreError> {
    let report = shown.report().await?;
    let finals: Vec<State> = State::ALL.iter().copied().filter(|state| state.is_final()).collect();
    let mut told = Told { report, undecided: BTreeMap::new(), ended: BTreeMap::new() };
    let since = shown.clock.wall() - DAY;
    for tenant in shown.view.tenants_status().await? {
        let name = tenant.name.to_string();
        let mut ended: BTreeMap<&'static str, u64> = finals.iter().map(|state| (state.as_str(), 0)).collect();
        for alike in shown.view.ended_since(tenant.row, &finals, since).await? {
            *ended.entry(alike.state.as_str()).or_default() += alike.jobs;
        }
        told.undecided.insert(name.clone(), shown.view.undecided(tenant.row).await?);
        told.ended.insert(name, ended);
    }
    Ok(told)
}

type Gauges = Family<Labels, Gauge>;

/// The gauges that are set from what was read.
#[derive(Default)]
struct Set {
    jobs: Gauges,
    ended: Gauges,
    undecided: Gauges,
    sweeps: Gauges,
    used: Gauges,
    limit: Gauges,
    foreign: Gauges,
    oldest: Gauges,
    paused: Gauges,
    paused_for: Gauges,
    signed_out_for: Gauges,
    disabled: Gauges,
    stopped: Gauge,
}

impl Set {
    fn register(&self, registry: &mut Registry) {
        for (name, help, family) in [
            ("sweepd_jobs", "Jobs that are kept, by state", &self.jobs),
            ("sweepd_jobs_ended_day", "Jobs that ended within the last 24 hours, by state", &self.ended),
            (
                "sweepd_undecided_machines",
                "Machines whose last job needs review, and that nobody has asked for again; counted up to 10000",
                &self.undecided,
            ),
            ("sweepd_sweeps", "Sweeps that are not finished, by state", &self.sweeps),
            ("sweepd_budget_used", "Calls that count in the sliding window", &self.used),
            ("sweepd_budget_limit", "Calls that the window allows", &self.limit),
            (
                "sweepd_budget_foreign",
                "Calls in the window that others with the same app registration are believed to make",
                &self.foreign,
            ),
            (
                "sweepd_oldest_queued_seconds",
                "Age of the oldest job that could be sent; 0 if there is none",
                &self.oldest,
            ),
            ("sweepd_tenant_paused", "Whether an operator paused the tenant", &self.paused),
            (
                "sweepd_tenant_paused_seconds",
                "For how long the tenant has been paused; 0 if it is not",
                &self.paused_for,
            ),
            (
                "sweepd_sign_in_failing_seconds",
                "For how long every sign-in has failed; 0 if the last one went well",
                &self.signed_out_for,
            ),
            ("sweepd_tenant_disabled", "Whether the tenant's configuration cannot be used", &self.disabled),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register("sweepd_database_stopped", "Whether the database takes no writes", self.stopped.clone());
    }

    fn tenant(&self, name: &str, tenant: &TenantReport, now: Now) {
        let own = ("tenant", name.to_owned());
        for (state, n) in &tenant.jobs {
            self.jobs.get_or_create(&vec![own.clone(), ("state", (*state).to_owned())]).set(signed(*n));
        }
        for (call, windows) in &tenant.budget {
            for (window, gauge) in windows {
                let labels = vec![own.clone(), ("call", (*call).to_owned()), ("window", (*window).to_owned())];
                self.used.get_or_create(&labels).set(i64::from(gauge.used));
                self.limit.get_or_create(&labels).set(i64::from(gauge.limit));
            }
        }
        for (call, calls) in &tenant.foreign {
            for (window, n) in [("minute", calls.minute), ("hour", calls.hour)] {
                let labels = vec![own.clone(), ("call", (*call).to_owned()), ("window", window.to_owned())];
                self.foreign.get_or_create(&labels).set(i64::from(n));
            }
        }
        let own = vec![own];
        self.oldest.get_or_create(&own).set(age(tenant.oldest_queued.as_ref(), now));
        self.paused.get_or_create(&own).set(i64::from(tenant.paused));
        self.paused_for.get_or_create(&own).set(age(tenant.paused_since.as_ref(), now));
        self.signed_out_for.get_or_create(&own).set(age(tenant.sign_in_fails_since.as_ref(), now));
        self.disabled.get_or_create(&own).set(i64::from(tenant.disabled.is_some()));
        for state in SWEEP_STATES {
            self.sweeps.get_or_create(&vec![("tenant", name.to_owned()), ("state", state.to_owned())]).set(0);
        }
    }

    fn told(&self, told: &Told, now: Now) {
        for (name, tenant) in &told.report.tenants {
            self.tenant(name, tenant, now);
        }
        for sweep in &told.report.sweeps {
            let labels = vec![("tenant", sweep.tenant.clone()), ("state", sweep.state.clone())];
            self.sweeps.get_or_create(&labels).inc();
        }
        for (name, n) in &told.undecided {
            self.undecided.get_or_create(&vec![("tenant", name.clone())]).set(signed(*n));
        }
        for (name, ended) in &told.ended {
            for (state, n) in ended {
                let labels = vec![("tenant", name.clone()), ("state", (*state).to_owned())];
                self.ended.get_or_create(&labels).set(signed(*n));
            }
        }
    }
}

/// Writes everything in the `OpenMetrics` text format ([`super::exposition`] knows another).
pub fn render(shown: &Shown, told: &Told, now: Now) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register(
        "sweepd_build",
        "The program that runs",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]),
    );
    shown.metrics.register(&mut registry);
    let set = Set::default();
    set.register(&mut registry);
    set.stopped.set(i64::from(shown.health.why_database_stopped().is_some()));
    set.told(told, now);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Seconds since a time of the report; 0 without one.
fn age(since: Option<&String>, now: Now) -> i64 {
    signed(since.and_then(|at| Wall::parse(at)).map_or(0, |at| now.at.since(at).as_secs()))
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
