//! The listener. Its own accept loop, since a half-sent header must neither hold a connection for
//! ever nor the shutdown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{metrics, report};
use crate::clock::Clock;
use crate::domain::forecast::Terms;
use crate::domain::id::TenantName;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// A client that has not sent its header by then is gone.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// More than any scraper needs.
const CONNECTIONS: usize = 64;

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// The database.
    pub store: Store,
    /// The terms of each configured tenant; replaced by a reload.
    pub terms: Arc<RwLock<BTreeMap<TenantName, Terms>>>,
    /// The tenants that are configured and cannot be used, and why; replaced likewise.
    pub disabled: Arc<RwLock<BTreeMap<TenantName, String>>>,
    /// What the loops say.
    pub health: Health,
    /// What the loops count.
    pub metrics: Metrics,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl Shown {
    fn now(&self) -> report::Now {
        report::Now { at: self.clock.wall(), boot: self.clock.boot() }
    }

    async fn report(&self) -> Result<report::Report, StoreError> {
        let terms = self.terms.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let report = report::read(&self.store, &terms, self.now(), true).await?;
        let stopped = self.health.why_intake_stopped();
        Ok(report.with_disabled(&self.disabled()).with_intake_stopped(stopped))
    }

    fn disabled(&self) -> BTreeMap<TenantName, String> {
        self.disabled.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// A listener that is bound, and not yet served.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds the address.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The address it is bound to; the port is the one that was given.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then lets running answers end for a moment.
    pub async fn serve(self, shown: Shown, stop: CancellationToken) {
        let service = TowerToHyperService::new(routes(shown.clone()));
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "the HTTP listener cannot accept a connection");
                    shown.clock.sleep_until(shown.clock.boot() + Duration::from_secs(1)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service.clone());
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an HTTP connection ended early");
                }
                drop(place);
            });
        }
        tokio::select! {
            () = graceful.shutdown() => {}
            () = shown.clock.sleep_until(shown.clock.boot() + Duration::from_secs(2)) => {}
        }
    }
}

fn routes(shown: Shown) -> Router {
    Router::new()
        .route("/", get(dashboard))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/status", get(status))
        .with_state(shown)
}

async fn dashboard() -> Response {
    let mut response = Html(include_str!("dashboard.html")).into_response();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

async fn healthz(State(shown): State<Shown>) -> Response {
    let stuck = shown.health.stuck();
    if stuck.is_empty() {
        (StatusCode::OK, "alive\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: {}\n", stuck.join(", "))).into_response()
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
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

async fn status(State(shown): State<Shown>) -> Response {
    match shown.report().await {
        Ok(report) => axum::Json(report).into_response(),
        Err(error) => broken(&error),
    }
}

async fn metrics_text(State(shown): State<Shown>) -> Response {
    let report = match shown.report().await {
        Ok(report) => report,
        Err(error) => return broken(&error),
    };
    match metrics::render(&shown.metrics, &report, shown.now()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")).into_response()
        }
    }
}

fn broken(error: &StoreError) -> Response {
    tracing::warn!(%error, "the database cannot be read");
    (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be read\n").into_response()
}
