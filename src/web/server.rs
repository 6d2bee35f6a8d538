//! The listener and its routes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::burndown::Burndown;
use super::connections::Connections;
use super::exposition::Exposition;
use super::guard::{Hosts, guard};
use super::page::{Page, Tagged};
use super::{machine, metrics, overview, report};
use crate::clock::Clock;
use crate::domain::forecast::Terms;
use crate::domain::id::{MachineId, TenantName};
use crate::domain::time::Boot;
use crate::domain::trouble::Trouble;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::store::{StoreError, View};

/// What the page shows is read no more often than this, however many look at it.
const FRESH: Duration = Duration::from_secs(1);

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// The database, to be looked at.
    pub view: View,
    /// The terms of each configured tenant; replaced by a reload.
    pub terms: Arc<RwLock<BTreeMap<TenantName, Terms>>>,
    /// The tenants that are configured and cannot be used, and why; replaced likewise.
    pub disabled: Arc<RwLock<BTreeMap<TenantName, String>>>,
    /// What the loops say.
    pub health: Health,
    /// What the loops count.
    pub metrics: Metrics,
    /// How long the queues have been.
    pub burndown: Burndown,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl Shown {
    /// Now, by its clocks.
    pub(super) fn now(&self) -> report::Now {
        report::Now { at: self.clock.wall(), boot: self.clock.boot() }
    }

    /// The status, as this daemon sees it.
    pub(super) async fn report(&self) -> Result<report::Report, StoreError> {
        let terms = self.terms.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let report = report::read(&self.view, &terms, self.now(), true).await?;
        let stopped = self.health.why_intake_stopped();
        let database = self.health.why_database_stopped();
        Ok(report.with_disabled(&self.disabled()).with_intake_stopped(stopped).with_database_stopped(database))
    }

    fn disabled(&self) -> BTreeMap<TenantName, String> {
        self.disabled.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// A listener that is bound, and not yet served.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    hosts: Hosts,
}

impl Server {
    /// Binds the address. It may be asked under these names too.
    pub async fn bind(address: SocketAddr, names: &[String]) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, hosts: Hosts::new(address, names) })
    }

    /// The address it is bound to; the port is the one that was given.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then lets running answers end for a moment.
    pub async fn serve(self, shown: Shown, stop: CancellationToken) {
        let connections = Connections::new(routes(shown.clone(), self.hosts), shown.clock);
        connections.serve(self.listener, shown.health, stop).await;
    }
}

/// What a route works with.
#[derive(Clone)]
struct Site {
    shown: Shown,
    page: Page,
    overview: Arc<Mutex<Option<(Boot, Tagged)>>>,
}

fn routes(shown: Shown, hosts: Hosts) -> Router {
    let site = Site { shown, page: Page::new(), overview: Arc::default() };
    Router::new()
        .route("/", get(dashboard))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/status", get(status))
        .route("/api/overview", get(overview))
        .route("/api/machine", get(machine))
        .with_state(site)
        .layer(middleware::from_fn_with_state(hosts, guard))
}

async fn dashboard(State(site): State<Site>, asked: HeaderMap) -> Response {
    site.page.answer(&asked)
}

/// What the page shows. The time goes beside it: with it inside, nothing would ever stay the same.
async fn overview(State(site): State<Site>, asked: HeaderMap) -> Response {
    let mut response = match overview_of(&site).await {
        Ok(Some(told)) => told.answer(&asked),
        Ok(None) => (StatusCode::INTERNAL_SERVER_ERROR, "the overview cannot be written\n").into_response(),
        Err(error) => return broken(&site.shown, &error),
    };
    if let Ok(now) = HeaderValue::from_str(&site.shown.clock.wall().rfc3339()) {
        response.headers_mut().insert(HeaderName::from_static("sweepd-time"), now);
    }
    response
}

async fn overview_of(site: &Site) -> Result<Option<Tagged>, StoreError> {
    // Whoever comes while it is being read waits for the same answer.
    let mut kept = site.overview.lock().await;
    let now = site.shown.now();
    if let Some((_, told)) = kept.as_ref().filter(|(read, _)| now.boot.since(*read) < FRESH) {
        return Ok(Some(told.clone()));
    }
    let read = overview::read(&site.shown, now).await?;
    let told = serde_json::to_vec(&read).ok().map(|json| Tagged::new(json, "application/json"));
    *kept = told.clone().map(|told| (now.boot, told));
    Ok(told)
}

/// What is asked of a machine.
#[derive(serde::Deserialize)]
struct Which {
    #[serde(default)]
    id: String,
}

async fn machine(State(site): State<Site>, Query(which): Query<Which>) -> Response {
    let Ok(id) = which.id.trim().parse::<MachineId>() else {
        return (StatusCode::BAD_REQUEST, "id: a machine id has 40 hexadecimal digits\n").into_response();
    };
    match machine::read(&site.shown.view, id).await {
        Ok(machine) => axum::Json(machine).into_response(),
        Err(error) => broken(&site.shown, &error),
    }
}

async fn healthz(State(Site { shown, .. }): State<Site>) -> Response {
    let stuck = shown.health.stuck();
    if stuck.is_empty() {
        (StatusCode::OK, "alive\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: {}\n", stuck.join(", "))).into_response()
    }
}

async fn readyz(State(Site { shown, .. }): State<Site>) -> Response {
    let missing = shown.health.missing();
    // Whoever works is not held responsible for whoever does not: it is told, and no more.
    let mut disabled = String::new();
    for (tenant, why) in shown.disabled() {
        disabled += &format!("tenant {tenant} is disabled: {why}\n");
    }
    if missing.is_empty() {
        (StatusCode::OK, format!("ready\n{disabled}")).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n{disabled}", missing.join("; "))).into_response()
    }
}

async fn status(State(Site { shown, .. }): State<Site>) -> Response {
    match shown.report().await {
        Ok(report) => axum::Json(report).into_response(),
        Err(error) => broken(&shown, &error),
    }
}

async fn metrics_text(State(Site { shown, .. }): State<Site>, asked: HeaderMap) -> Response {
    let read = metrics::read(&shown).await;
    let read = match read {
        Ok(read) => read,
        Err(error) => return broken(&shown, &error),
    };
    match metrics::render(&shown, &read, shown.now()) {
        Ok(text) => {
            let wanted = Exposition::wanted(&asked);
            let told = [(header::CONTENT_TYPE, wanted.media_type()), (header::VARY, "Accept")];
            (told, wanted.of(text)).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")).into_response()
        }
    }
}

fn broken(shown: &Shown, error: &StoreError) -> Response {
    if let Some(told) = shown.health.met(Trouble::Page, "") {
        tracing::warn!(%error, times = told.times, "the page or the metrics cannot read the database{told}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be read\n").into_response()
}
