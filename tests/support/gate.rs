//! A way to the simulator that can be shut: connections are refused, or end in the handshake of TLS,
//! until it is opened.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use super::tls::{Server, server};

/// The next port that is tried. They are below those that the kernel hands out by itself, so that nobody else's
/// connection takes one while nobody listens on it.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of this machine on which nobody listens.
fn free_port() -> u16 {
    let own = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::SeqCst)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Refuses every connection until it is opened; then all lead to the simulator.
#[derive(Debug)]
pub struct Refusing(SocketAddr);

impl Refusing {
    /// A shut one.
    pub fn new() -> Self {
        Self(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())))
    }

    /// Where it is, or will be.
    pub fn url(&self) -> String {
        format!("http://{}", self.0)
    }

    /// From now on it leads there.
    pub fn open(&self, upstream: SocketAddr) {
        let listener = TcpListener::bind(self.0).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || relay(&mut stream.unwrap(), upstream));
            }
        });
    }
}

/// Spoils every handshake of TLS until it is opened; then all lead to the simulator.
#[derive(Debug)]
pub struct NoTls {
    address: SocketAddr,
    is_open: Arc<AtomicBool>,
    spoiled: Arc<AtomicU64>,
}

impl NoTls {
    /// A shut one.
    pub fn new(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gate = Self { address: listener.local_addr().unwrap(), is_open: Arc::default(), spoiled: Arc::default() };
        let (is_open, spoiled) = (Arc::clone(&gate.is_open), Arc::clone(&gate.spoiled));
        std::thread::spawn(move || {
            let config = server(&[&rustls::version::TLS13]);
            for stream in listener.incoming() {
                let (mut stream, config) = (stream.unwrap(), config.clone());
                if is_open.load(Ordering::SeqCst) {
                    std::thread::spawn(move || relay(Server::new(&config, stream).inside(), upstream));
                } else {
                    spoiled.fetch_add(1, Ordering::SeqCst);
                    // What a port says that speaks plain HTTP. The client may have left before.
                    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").ok();
                }
            }
        });
        gate
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on it leads to the simulator.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    /// Handshakes that were spoiled.
    pub fn spoiled(&self) -> u64 {
        self.spoiled.load(Ordering::SeqCst)
    }
}

/// Carries one request there, and its answer back.
fn relay(client: &mut (impl Read + Write), upstream: SocketAddr) -> io::Result<()> {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap();
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    let mut simulator = TcpStream::connect(upstream)?;
    // So that the answer has an end.
    let (first, rest) = head.split_once("\r\n").unwrap();
    simulator.write_all(format!("{first}\r\nConnection: close\r\n{rest}").as_bytes())?;
    simulator.write_all(&body)?;
    let mut answer = Vec::new();
    simulator.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.flush()
}
