//! The tenants on loopback: real HTTP/1.1, so that resets, truncated answers and silence are real.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use futures_util::stream;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::by_hand;
use super::chance::Chance;
use super::exchange::{Delivery, Manner, Refusal, Request, Response, form_pairs};
use super::faults::Fault;
use super::options::Options;
use super::report::Report;
use super::sign_in::unknown_directory;
use super::tenant::{Tenant, unauthorized};
use crate::clock::Clock;
use crate::domain::id::MachineId;
use crate::domain::time::{Boot, Wall};

/// More than any call of the API needs.
const BODY_MAX: usize = 1024 * 1024;

/// A simulation that is being served. Dropping it ends it; [`Simulator::stop`] also waits.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    served: Arc<Served>,
    accepting: JoinHandle<()>,
    ending: DropGuard,
}

/// One connection, as far as requests on it have to know of each other.
#[derive(Default)]
struct Line {
    /// Whether it has carried a request.
    is_used: AtomicBool,
    /// Whether the next request on it is reset.
    is_stale: AtomicBool,
    /// What becomes of it when hyper has left it.
    end: Mutex<Option<End>>,
}

enum End {
    Reset,
    ByHand(Response, Manner),
}

impl Line {
    /// Hyper is to leave the connection, without another byte.
    fn end(&self, end: End) -> Cut {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        Cut
    }
}

/// What connections share.
struct Served {
    tenants: Vec<Mutex<Tenant>>,
    stray_requests: AtomicU64,
    requests_on_used_connections: AtomicU64,
    clock: Arc<dyn Clock>,
    /// The server has a clock of its own, as Defender has: set once, and deaf to later steps of
    /// the wall clock of this machine.
    started: (Wall, Boot),
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("tenants", &self.tenants.len()).finish_non_exhaustive()
    }
}

fn lock(tenant: &Mutex<Tenant>) -> MutexGuard<'_, Tenant> {
    tenant.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulator {
    /// Listens, and serves until stopped or dropped. Two tenants with the same id are an error.
    pub async fn start(options: Options, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let ids: BTreeSet<_> = options.tenants.iter().map(|tenant| tenant.tenant_id).collect();
        if ids.len() < options.tenants.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "two tenants share a tenant_id"));
        }
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let started = (clock.wall(), clock.boot());
        let url = format!("http://{addr}");
        let tenants = options.tenants.into_iter();
        let tenants = tenants.map(|tenant| Mutex::new(Tenant::new(tenant, options.seed, started.0, &url))).collect();
        let served = Arc::new(Served {
            tenants,
            stray_requests: AtomicU64::default(),
            requests_on_used_connections: AtomicU64::default(),
            clock,
            started,
        });
        let end = CancellationToken::new();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&served), end.clone()));
        Ok(Self { addr, served, accepting, ending: end.drop_guard() })
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of both the API and the sign-in authority, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What was seen so far.
    pub fn report(&self) -> Report {
        self.served.report()
    }

    /// What time it is at the server.
    pub fn now(&self) -> Wall {
        self.served.now()
    }

    /// Something is to go wrong at the `tenant`-th tenant.
    ///
    /// # Panics
    /// When there is no such tenant.
    pub fn add_fault(&self, tenant: usize, fault: Fault) {
        self.with_tenant(tenant, |tenant| tenant.add_fault(fault));
    }

    /// Nothing is to go wrong any more at the `tenant`-th tenant.
    ///
    /// # Panics
    /// When there is no such tenant.
    pub fn clear_faults(&self, tenant: usize) {
        self.with_tenant(tenant, Tenant::clear_faults);
    }

    /// An analyst starts a full scan in the portal.
    ///
    /// # Panics
    /// When there is no such tenant.
    pub fn start_foreign_scan(&self, tenant: usize, machine: MachineId) {
        let now = self.now();
        self.with_tenant(tenant, |tenant| tenant.start_foreign_scan(now, machine));
    }

    /// The analyst cancels every scan that was started in the portal and has not ended.
    ///
    /// # Panics
    /// When there is no such tenant.
    pub fn cancel_foreign_scans(&self, tenant: usize) {
        let now = self.now();
        self.with_tenant(tenant, |tenant| tenant.cancel_foreign_scans(now));
    }

    /// Anything else that may be done to a tenant, or asked of it, between two requests.
    ///
    /// # Panics
    /// When there is no such tenant.
    pub fn with_tenant<T>(&self, tenant: usize, act: impl FnOnce(&mut Tenant) -> T) -> T {
        let Some(found) = self.served.tenants.get(tenant) else {
            panic!("there is no tenant {tenant} in this simulation")
        };
        act(&mut lock(found))
    }

    /// Ends every connection and waits until all is gone.
    pub async fn stop(self) {
        drop(self.ending);
        // A task that was killed is gone as well.
        drop(self.accepting.await);
    }
}

impl Served {
    fn now(&self) -> Wall {
        let (wall, boot) = self.started;
        wall + self.clock.boot().since(boot)
    }

    fn report(&self) -> Report {
        let now = self.now();
        Report {
            tenants: self.tenants.iter().map(|tenant| lock(tenant).report(now)).collect(),
            stray_requests: self.stray_requests.load(Ordering::Relaxed),
            requests_on_used_connections: self.requests_on_used_connections.load(Ordering::Relaxed),
        }
    }

    /// The tenant that a request is for, by the directory in the path or by whose token it is. A
    /// token that nobody issued is the only tenant's to refuse, if there is but one.
    fn tenant_of(&self, request: &Request) -> Option<&Mutex<Tenant>> {
        if let Some(directory) = directory(request) {
            let meant = |tenant: &Mutex<Tenant>| lock(tenant).options.tenant_id.to_string() == directory;
            return self.tenants.iter().find(|tenant| meant(tenant));
        }
        match self.tenants.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|tenant| lock(tenant).is_meant_by(request)),
        }
    }

    fn exchange(&self, request: &Request) -> Delivery {
        if let Some(tenant) = self.tenant_of(request) {
            let mut tenant = lock(tenant);
            // Under the lock, so that arrivals are in order.
            let now = self.now();
            return tenant.exchange(now, request);
        }
        let stray = self.stray_requests.fetch_add(1, Ordering::Relaxed);
        let mut chance = Chance::new(stray);
        Delivery::Answer(match directory(request) {
            Some(directory) => unknown_directory(self.now(), &directory, &mut chance),
            None => unauthorized().answer(&chance.uuid().to_string()),
        })
    }

    /// `POST /_simulator/faults`: a [`Fault`] in JSON, with the number of the tenant beside it.
    fn order_fault(&self, body: &[u8]) -> Response {
        #[derive(Deserialize)]
        struct Order {
            #[serde(default)]
            tenant: usize,
            #[serde(flatten)]
            fault: Fault,
        }
        let refused = |why: String| Refusal::new(400, "BadRequest", why).answer("");
        match serde_json::from_slice::<Order>(body) {
            Err(error) => refused(error.to_string()),
            Ok(order) => match self.tenants.get(order.tenant) {
                None => refused(format!("there is no tenant {}", order.tenant)),
                Some(tenant) => {
                    lock(tenant).add_fault(order.fault);
                    Response { status: 204, headers: Vec::new(), body: Vec::new() }
                }
            },
        }
    }

    /// Both what the outside controls and what the tenants answer.
    fn route(&self, request: &Request) -> Delivery {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/_simulator/report") => {
                let report = serde_json::to_value(self.report()).unwrap_or_default();
                Delivery::Answer(Response::json(200, &report))
            }
            ("POST", "/_simulator/faults") => Delivery::Answer(self.order_fault(&request.body)),
            _ => self.exchange(request),
        }
    }
}

/// The directory that a sign-in names.
fn directory(request: &Request) -> Option<String> {
    let name = request.path.strip_prefix('/')?.strip_suffix("/oauth2/v2.0/token")?;
    Some(name.to_ascii_lowercase())
}

async fn accept(listener: TcpListener, served: Arc<Served>, end: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => break,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, Arc::clone(&served)));
            } else {
                // Out of file descriptors, most likely: some will be returned.
                let later = served.clock.boot() + Duration::from_millis(50);
                tokio::select! {
                    () = end.cancelled() => break,
                    () = served.clock.sleep_until(later) => {}
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, served: Arc<Served>) {
    // Without it small answers merely take longer: no reason to refuse the connection.
    drop(stream.set_nodelay(true));
    let line = Arc::new(Line::default());
    let service = service_fn(|request| answer(request, Arc::clone(&served), Arc::clone(&line)));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ended = poll_fn(|cx| Pin::new(&mut connection).poll(cx)).await;
    let end = line.end.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let (true, Some(end)) = (ended.is_err(), end) {
        let stream = connection.into_parts().io.into_inner();
        drop(match end {
            // What is closed with nothing to linger for is reset; otherwise it merely ends.
            End::Reset => stream.set_zero_linger(),
            // Until the client leaves, which is an error then.
            End::ByHand(answer, manner) => by_hand::send(stream, &answer, manner, served.now(), &*served.clock).await,
        });
    }
}

/// The connection ends here, without another byte.
#[derive(Debug, thiserror::Error)]
#[error("cut off on purpose")]
struct Cut;

async fn answer(
    request: hyper::Request<Incoming>,
    served: Arc<Served>,
    line: Arc<Line>,
) -> Result<hyper::Response<Body>, Cut> {
    if line.is_used.swap(true, Ordering::Relaxed) {
        served.requests_on_used_connections.fetch_add(1, Ordering::Relaxed);
    }
    if line.is_stale.load(Ordering::Relaxed) {
        return Err(line.end(End::Reset));
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), BODY_MAX).await.map_err(|_| Cut)?;
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: form_pairs(head.uri.query().unwrap_or_default()),
        authorization: text(header::AUTHORIZATION),
        content_type: text(header::CONTENT_TYPE),
        metadata: text(HeaderName::from_static("metadata")),
        body: body.to_vec(),
    };
    match served.route(&request) {
        Delivery::Answer(response) => send(response, served.now(), Body::from),
        Delivery::Late(after, response) => {
            served.clock.sleep_until(served.clock.boot() + after).await;
            send(response, served.now(), Body::from)
        }
        Delivery::Truncated(response) => send(response, served.now(), |body| half_of(&body)),
        Delivery::Stale(response) => {
            line.is_stale.store(true, Ordering::Relaxed);
            send(response, served.now(), Body::from)
        }
        Delivery::Reset => Err(line.end(End::Reset)),
        Delivery::ByHand(response, manner) => Err(line.end(End::ByHand(response, manner))),
        Delivery::Never => match std::future::pending::<Infallible>().await {},
    }
}

fn send(response: Response, now: Wall, body: impl FnOnce(Vec<u8>) -> Body) -> Result<hyper::Response<Body>, Cut> {
    let date = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    let length = response.body.len();
    let mut answer = hyper::Response::new(body(response.body));
    *answer.status_mut() = StatusCode::from_u16(response.status).map_err(|_| Cut)?;
    let headers = answer.headers_mut();
    let date = HeaderValue::try_from(httpdate::fmt_http_date(date)).map_err(|_| Cut)?;
    headers.insert(header::DATE, date);
    if response.status != 204 {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    // Last, so that a fault may put a header of its own in the place of these.
    for (name, value) in &response.headers {
        let name = HeaderName::try_from(name).map_err(|_| Cut)?;
        headers.insert(name, HeaderValue::try_from(value).map_err(|_| Cut)?);
    }
    Ok(answer)
}

/// The first half of a body, then an error in the place of the rest.
fn half_of(body: &[u8]) -> Body {
    let (half, _) = body.split_at(body.len() / 2);
    let half = Bytes::copy_from_slice(half);
    Body::from_stream(stream::unfold(Some(half), |half| async move {
        if let Some(half) = half {
            return Some((Ok(half), None));
        }
        // Lets what was written so far leave before the connection ends.
        tokio::task::yield_now().await;
        Some((Err(Cut), None))
    }))
}
