//! The accept loop. One request and its answer for each connection, within a time: a client that sends or reads slowly
//! holds neither a place nor the shutdown.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::guard::{is_probe, secure};
use super::places::{Places, Visit};
use crate::clock::Clock;
use crate::domain::time::Boot;
use crate::domain::trouble::Trouble;
use crate::health::Health;

/// A client that has not sent its header by then is gone.
const HEADER: Duration = Duration::from_secs(10);
/// From the connect to the last byte of the answer.
const EXCHANGE: Duration = Duration::from_mins(2);
/// A request waits so long for a place.
const PATIENCE: Duration = Duration::from_secs(15);
/// Running answers may go on for so long after a stop.
const GRACE: Duration = Duration::from_secs(2);

/// What serves connections.
#[derive(Clone)]
pub struct Connections {
    router: TowerToHyperService<Router>,
    places: Arc<Places>,
    clock: Arc<dyn Clock>,
}

impl Connections {
    pub fn new(router: Router, clock: Arc<dyn Clock>) -> Self {
        Self { router: TowerToHyperService::new(router), places: Places::new(), clock }
    }

    /// Serves until `stop`, then lets running answers end for a moment.
    pub async fn serve(self, listener: TcpListener, health: Health, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer.ip(), &graceful),
                Err(error) => {
                    // Out of file descriptors, most likely: accepting again at once would spin.
                    if let Some(told) = health.met(Trouble::Listener, "") {
                        tracing::warn!(%error, times = told.times, "the HTTP listener cannot accept a connection{told}");
                    }
                    self.clock.sleep_until(self.clock.boot() + Duration::from_secs(1)).await;
                }
            }
        }
        tokio::select! {
            () = graceful.shutdown() => {}
            () = self.clock.sleep_until(self.clock.boot() + GRACE) => {}
        }
    }

    fn take(&self, stream: TcpStream, peer: IpAddr, graceful: &GracefulShutdown) {
        let exchange = Arc::new(Exchange {
            visit: self.places.enter(peer),
            since: self.clock.boot(),
            has_asked: AtomicBool::new(false),
            clock: Arc::clone(&self.clock),
        });
        let (router, asking) = (self.router.clone(), Arc::clone(&exchange));
        let answer = service_fn(move |request| answer(router.clone(), Arc::clone(&asking), request));
        // Idle connections would hold the places of a client. And hyper tells when an answer is handed to the kernel
        // by the end of its connection alone.
        let connection = http1::Builder::new()
            .keep_alive(false)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), answer);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "an HTTP connection ended early");
                    }
                }
                () = exchange.visit.superseded() => tracing::debug!("an HTTP connection was closed: too many wait for a place"),
                () = exchange.is_over() => tracing::debug!("an HTTP connection was closed: its client is too slow"),
            }
        });
    }
}

/// One request and its answer.
struct Exchange {
    visit: Arc<Visit>,
    since: Boot,
    has_asked: AtomicBool,
    clock: Arc<dyn Clock>,
}

impl Exchange {
    /// Returns when its time is up.
    async fn is_over(&self) {
        self.clock.sleep_until(self.since + HEADER).await;
        if self.has_asked.load(Ordering::Relaxed) {
            self.clock.sleep_until(self.since + EXCHANGE).await;
        }
    }

    /// Whether the request may be answered: at once if it needs no place, or when there is one.
    async fn may_be_answered(&self, needs_no_place: bool) -> bool {
        self.has_asked.store(true, Ordering::Relaxed);
        if needs_no_place || self.visit.has_place() {
            return true;
        }
        tokio::select! {
            biased;
            () = self.visit.place() => true,
            () = self.clock.sleep_until(self.clock.boot() + PATIENCE) => false,
        }
    }
}

async fn answer(
    router: TowerToHyperService<Router>,
    exchange: Arc<Exchange>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if exchange.may_be_answered(is_probe(request.uri())).await {
        return router.call(request).await;
    }
    let later = [(header::RETRY_AFTER, "15")];
    let words = "busy: all places of this client, or of this listener, are taken; try again later\n";
    Ok(secure((StatusCode::SERVICE_UNAVAILABLE, later, words).into_response()))
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use futures_util::future::BoxFuture;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;
    use tokio::sync::{Notify, watch};

    use super::*;
    use crate::clock::SystemClock;
    use crate::domain::time::{Wall, millis};

    /// A clock that the test moves by hand; it notes what is waited for.
    struct Hand {
        now: watch::Sender<i64>,
        awaited: watch::Sender<Vec<Boot>>,
    }

    impl Hand {
        fn pass(&self, time: Duration) {
            self.now.send_modify(|now| *now += millis(time));
        }

        /// Returns once something waits for this time.
        async fn is_awaited(&self, at: Boot) {
            self.awaited.subscribe().wait_for(|awaited| awaited.contains(&at)).await.unwrap();
        }
    }

    impl Clock for Hand {
        fn wall(&self) -> Wall {
            Wall(*self.now.borrow())
        }

        fn boot(&self) -> Boot {
            Boot(*self.now.borrow())
        }

        fn sleep_until(&self, at: Boot) -> BoxFuture<'_, ()> {
            self.awaited.send_modify(|awaited| awaited.push(at));
            let mut times = self.now.subscribe();
            Box::pin(async move {
                times.wait_for(|now| *now >= at.0).await.ok();
            })
        }
    }

    /// More than the kernel keeps of an answer that nobody reads.
    const LARGE: usize = 64 << 20;

    struct Scene {
        address: std::net::SocketAddr,
        clock: Arc<Hand>,
        places: Arc<Places>,
        /// How many requests have come to `/held`, and how they are let go.
        held: Arc<watch::Sender<usize>>,
        release: Arc<Notify>,
    }

    async fn scene() -> Scene {
        let clock = Arc::new(Hand { now: watch::Sender::new(0), awaited: watch::Sender::default() });
        let (held, release) = (Arc::new(watch::Sender::new(0)), Arc::new(Notify::new()));
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into();
        let (arrived, released) = (Arc::clone(&held), Arc::clone(&release));
        let linger = move || {
            arrived.send_modify(|held| *held += 1);
            async move { released.notified().await }
        };
        let router = Router::new()
            .route("/healthz", get(|| async { "alive" }))
            .route("/fast", get(|| async { "fast" }))
            .route("/held", get(linger))
            .route("/large", get(|| async { vec![b'x'; LARGE] }));
        let watching: Arc<dyn Clock> = Arc::<Hand>::clone(&clock);
        let health = Health::new(Arc::clone(&watching), Duration::from_secs(1));
        let connections = Connections::new(router, watching);
        let places = Arc::clone(&connections.places);
        tokio::spawn(connections.serve(listener, health, CancellationToken::new()));
        Scene { address, clock, places, held, release }
    }

    impl Scene {
        /// A connection of the client with this last number in its address.
        async fn connect(&self, client: u8) -> TcpStream {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, client], 0).into()).unwrap();
            socket.connect(self.address).await.unwrap()
        }

        async fn ask(&self, client: u8, path: &str) -> TcpStream {
            let mut stream = self.connect(client).await;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
            stream
        }

        async fn answer(&self, client: u8, path: &str) -> String {
            let mut stream = self.ask(client, path).await;
            rest(&mut stream).await
        }
    }

    /// What is waited for, unless it never comes.
    async fn surely<T>(wanted: impl Future<Output = T>) -> T {
        tokio::select! {
            found = wanted => found,
            () = SystemClock.sleep_until(SystemClock.boot() + Duration::from_mins(3)) => panic!("it never came"),
        }
    }

    /// All that still comes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        // A connection that is cut may end with an error.
        surely(stream.read_to_end(&mut all)).await.ok();
        String::from_utf8(all).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn slow_reader_is_cut_off_and_its_place_is_free() {
        let scene = scene().await;
        let mut readers = Vec::new();
        for _ in 0..8 {
            let mut reader = scene.ask(1, "/large").await;
            assert_eq!(reader.read_u8().await.unwrap(), b'H', "the answer has begun");
            readers.push(reader);
        }
        scene.clock.pass(HEADER);
        assert!(scene.answer(2, "/fast").await.ends_with("fast"));
        scene.clock.pass(EXCHANGE);
        surely(async {
            while !scene.places.are_all_free() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        for reader in &mut readers {
            assert!(rest(reader).await.len() < LARGE, "no more comes than the kernel kept");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn slow_sender_is_cut_off_however_much_it_has_sent() {
        let scene = scene().await;
        let (mut silent, mut half) = (scene.connect(1).await, scene.connect(1).await);
        half.write_all(b"GET /fast HTTP/1.1\r\nHost: local").await.unwrap();
        // Behind both.
        assert!(scene.answer(2, "/fast").await.ends_with("fast"));
        scene.clock.pass(HEADER);
        assert_eq!((rest(&mut silent).await, rest(&mut half).await), (String::new(), String::new()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connection_ends_with_its_answer() {
        let scene = scene().await;
        let answer = scene.answer(1, "/fast").await;
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn client_with_eight_requests_waits_and_no_other_client_does() {
        let scene = scene().await;
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(scene.ask(1, "/held").await);
        }
        let mut ninth = scene.ask(1, "/fast").await;
        assert!(scene.answer(2, "/fast").await.ends_with("fast"));
        assert!(scene.answer(1, "/healthz").await.ends_with("alive"), "a probe needs no place");
        scene.release.notify_one();
        assert!(rest(&mut ninth).await.ends_with("fast"), "it has the place of one that was answered");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn request_that_finds_no_place_in_time_is_told_to_come_again() {
        let scene = scene().await;
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(scene.ask(1, "/held").await);
        }
        scene.held.subscribe().wait_for(|held| *held == 8).await.unwrap();
        let mut ninth = scene.ask(1, "/fast").await;
        surely(scene.clock.is_awaited(Boot(0) + PATIENCE)).await;
        scene.clock.pass(PATIENCE);
        let busy = rest(&mut ninth).await;
        assert!(busy.starts_with("HTTP/1.1 503 ") && busy.contains("retry-after: 15\r\n"), "{busy}");
        assert!(busy.contains("x-content-type-options: nosniff"), "{busy}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn flood_of_silent_connections_fails_no_probe() {
        let scene = scene().await;
        let mut flood = Vec::new();
        for n in 0..160_u16 {
            flood.push(scene.connect(u8::try_from(n % 80).unwrap() + 1).await);
        }
        for client in [1, 77, 200] {
            assert!(scene.answer(client, "/healthz").await.ends_with("alive"), "{client}");
        }
        // One without a place gave way to a later one; those with a place have it still.
        assert_eq!(rest(&mut flood[70]).await, "");
        flood[0].write_all(b"GET /fast HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert!(rest(&mut flood[0]).await.ends_with("fast"));
    }
}
