//! `GET /metrics`: the loops' counters, and what the database says at this moment.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::report::{Now, Report};
use crate::metrics::{Labels, Metrics};

/// The media type of what [`render`] makes.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes everything in the `OpenMetrics` text format.
pub fn render(metrics: &Metrics, report: &Report, now: Now) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register(
        "sweepd_build",
        "The program that runs",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]),
    );
    metrics.register(&mut registry);
    let gauge = |registry: &mut Registry, name: &str, help: &str| {
        let family = Family::<Labels, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    };
    let jobs = gauge(&mut registry, "sweepd_jobs", "Jobs that are kept, by state");
    let used = gauge(&mut registry, "sweepd_budget_used", "Calls that count in the sliding window");
    let limit = gauge(&mut registry, "sweepd_budget_limit", "Calls that the window allows");
    let foreign = gauge(
        &mut registry,
        "sweepd_budget_foreign",
        "Calls in the window that others with the same app registration are believed to make",
    );
    let oldest = gauge(&mut registry, "sweepd_oldest_queued_seconds", "Age of the job that is next in the queue");
    let paused = gauge(&mut registry, "sweepd_tenant_paused", "Whether an operator paused the tenant");
    let disabled = gauge(&mut registry, "sweepd_tenant_disabled", "Whether the tenant's configuration cannot be used");
    for (name, tenant) in &report.tenants {
        let tenant_label = ("tenant", name.clone());
        for (state, n) in &tenant.jobs {
            jobs.get_or_create(&vec![tenant_label.clone(), ("state", (*state).to_owned())]).set(signed(*n));
        }
        for (call, windows) in &tenant.budget {
            for (window, gauge) in windows {
                let labels = vec![tenant_label.clone(), ("call", (*call).to_owned()), ("window", (*window).to_owned())];
                used.get_or_create(&labels).set(i64::from(gauge.used));
                limit.get_or_create(&labels).set(i64::from(gauge.limit));
            }
        }
        for (call, calls) in &tenant.foreign {
            for (window, n) in [("minute", calls.minute), ("hour", calls.hour)] {
                let labels = vec![tenant_label.clone(), ("call", (*call).to_owned()), ("window", window.to_owned())];
                foreign.get_or_create(&labels).set(i64::from(n));
            }
        }
        let age = tenant.oldest_queued.map_or(0, |at| now.at.since(at).as_secs());
        oldest.get_or_create(&vec![tenant_label.clone()]).set(signed(age));
        paused.get_or_create(&vec![tenant_label.clone()]).set(i64::from(tenant.paused));
        disabled.get_or_create(&vec![tenant_label]).set(i64::from(tenant.disabled.is_some()));
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
