//! A server that speaks TLS, with a certificate of a CA that no system knows (`tests/fixtures/tls`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

/// The CA's certificate, from the root of the repository.
pub const CA: &str = "tests/fixtures/tls/ca.pem";

/// A configuration that speaks these versions and no other.
pub fn server(versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../fixtures/tls/server.pem")).unwrap();
    let lines = include_str!("../fixtures/tls/key.txt").lines().filter(|line| !line.starts_with('#'));
    let key = STANDARD.decode(lines.collect::<String>()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key).unwrap())
        .unwrap()
}

/// One connection.
#[derive(Debug)]
pub struct Server(StreamOwned<ServerConnection, TcpStream>);

impl Server {
    /// A connection that was accepted.
    pub fn new(config: &ServerConfig, stream: TcpStream) -> Self {
        Self(StreamOwned::new(ServerConnection::new(Arc::new(config.clone())).unwrap(), stream))
    }

    /// Reads the head of a request and answers it. None: there was no request, or the client hung up
    /// in the handshake.
    pub fn answer(&mut self, answer: &[u8]) -> Option<String> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if self.0.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        self.0.write_all(answer).and_then(|()| self.0.flush()).ok()?;
        String::from_utf8(head).ok()
    }

    /// What it carries.
    pub const fn inside(&mut self) -> &mut StreamOwned<ServerConnection, TcpStream> {
        &mut self.0
    }

    /// What was agreed on to be spoken.
    pub fn protocol(&self) -> Option<Vec<u8>> {
        self.0.conn.alpn_protocol().map(<[u8]>::to_vec)
    }
}
