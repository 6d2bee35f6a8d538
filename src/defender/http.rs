//! Requests over HTTP/1.1, each on a connection of its own.
//!
//! A pooled connection that the server has just closed makes a request whose fate is unknown, and
//! some clients then send it again by themselves. At a hundred calls a minute a handshake for each
//! costs nothing; see `docs/adr/0004-one-connection-a-call.md`.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, ClientBuilder, Url, redirect, retry, tls};
use secrecy::ExposeSecret;

use crate::config::{LOOPBACK, Proxy, is_localhost, is_loopback};

use super::{Body, Failure, IN_MILLISECONDS, Reply, Request, Wire};

/// The compression that a server may use. It may not use `deflate`, because servers do not agree on whether that has
/// zlib's frame; one that uses it all the same is understood if it has.
const ACCEPTED: &str = "gzip";

/// How the wire is set up.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// A proxy, else what the environment says.
    pub proxy: Option<&'a Proxy>,
    /// Certificates trusted in addition to the system's.
    pub ca_file: Option<&'a Path>,
    /// For the connection, TLS included.
    pub connect_timeout: Duration,
    /// For the whole call.
    pub call_timeout: Duration,
    /// After this the kernel gives up on what it could not deliver.
    pub unknown_grace: Duration,
}

/// HTTP as the operating system has it.
#[derive(Debug)]
pub struct HttpWire {
    proxied: Client,
    direct: Client,
}

/// The look-up of names, which asks nobody for `localhost`.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            if is_localhost(name.as_str()) {
                // The port comes from the URL.
                return Ok(Box::new(LOOPBACK.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs);
            }
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn builder(options: &Options<'_>) -> anyhow::Result<ClientBuilder> {
    let mut builder = Client::builder()
        .user_agent(concat!("sweepd/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        // rustls knows nothing older; said here, so that it stays so with another library.
        .tls_version_min(tls::Version::TLS_1_2)
        .redirect(redirect::Policy::none())
        .dns_resolver(Names)
        .retry(retry::never())
        .pool_max_idle_per_host(0)
        .connect_timeout(options.connect_timeout)
        .timeout(options.call_timeout)
        .tcp_user_timeout(options.unknown_grace);
    if let Some(path) = options.ca_file {
        let pem = std::fs::read(path)?;
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(&pem)?);
    }
    Ok(builder)
}

impl HttpWire {
    /// A wire with these options. Installs the process's cryptography at the first call.
    pub fn new(options: &Options<'_>) -> anyhow::Result<Self> {
        // A second call finds it installed, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut proxied = builder(options)?;
        if let Some(proxy) = options.proxy {
            let proxy = reqwest::Proxy::all(proxy.url_with_password())?;
            proxied = proxied.proxy(proxy.no_proxy(reqwest::NoProxy::from_env()));
        }
        Ok(Self { proxied: proxied.build()?, direct: builder(options)?.no_proxy().build()? })
    }

    async fn exchange(&self, request: Request) -> Result<Reply, Failure> {
        let url = Url::parse(&request.url).map_err(|error| Failure::NotSent(format!("{}: {error}", request.url)))?;
        let stays_here = is_loopback(&url);
        if url.scheme() == "http" && !stays_here && !request.metadata {
            // The configuration refuses such an address; this holds whatever comes to make one.
            return Err(Failure::NotSent("http:// is for loopback only".to_owned()));
        }
        let client = if request.metadata || stays_here { &self.direct } else { &self.proxied };
        let builder = if request.post { client.post(url) } else { client.get(url) };
        let mut builder = builder.header("accept-encoding", ACCEPTED);
        if request.metadata {
            builder = builder.header("metadata", "true");
        }
        if let Some(bearer) = &request.bearer {
            builder = builder.bearer_auth(bearer.expose_secret());
        }
        builder = match &request.body {
            Body::None => builder,
            Body::Json(text) => builder.header("content-type", "application/json").body(text.clone()),
            Body::Form(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.expose_secret())).collect();
                builder.form(&fields)
            }
        };
        #[allow(clippy::disallowed_methods, reason = "this is the one place that sends")]
        let mut response = builder.send().await.map_err(|error| failure(&error))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut reply = Reply {
            status: response.status().as_u16(),
            retry_after: header("retry-after"),
            retry_after_ms: IN_MILLISECONDS.into_iter().find_map(header),
            date: header("date"),
            ..Reply::default()
        };
        // What the client decodes, it takes out of the head.
        let encoding = header("content-encoding").filter(|name| !name.eq_ignore_ascii_case("identity"));
        let mut body = Vec::new();
        loop {
            // What unpacks to much is at hand without waiting: others have their turn all the same.
            tokio::task::coop::consume_budget().await;
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(chunk)) if body.len() + chunk.len() > request.at_most => {
                    let room = request.at_most - body.len();
                    body.extend(chunk.iter().take(room));
                    reply.cut = Some(format!("the answer is larger than {} bytes", request.at_most));
                    break;
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Err(error) => {
                    reply.cut = Some(chain(&error));
                    break;
                }
            }
        }
        if let Some(encoding) = encoding {
            let encoding: String = encoding.chars().take(40).collect();
            let unread = format!("the answer is compressed as `{encoding}`, and {ACCEPTED} alone was asked for");
            reply.cut.get_or_insert(unread);
        }
        // Not copied, unless something has to be replaced: a page may have 64 MiB.
        reply.text =
            String::from_utf8(body).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Ok(reply)
    }
}

impl Wire for HttpWire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(self.exchange(request))
    }
}

/// Whether anything of the request can have arrived. Only a connection that never stood is sure.
fn failure(error: &reqwest::Error) -> Failure {
    if error.is_connect() || error.is_builder() { Failure::NotSent(chain(error)) } else { Failure::Lost(chain(error)) }
}

/// An error with its causes, and without the URL: that is in the log line already.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { String::new() };
    let mut cause: Option<&dyn Error> = error.source();
    if cause.is_none() && text.is_empty() {
        text = error.to_string();
    }
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const READ: &str = "{\"error\":{\"code\":\"ResourceNotFound\"}}";
    /// That, as gzip has it.
    const COMPRESSED: [u8; 57] = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xab, 0x56, 0x4a, 0x2d, 0x2a, 0xca, 0x2f, 0x52,
        0xb2, 0xaa, 0x56, 0x4a, 0xce, 0x4f, 0x49, 0x55, 0xb2, 0x52, 0x0a, 0x4a, 0x2d, 0xce, 0x2f, 0x2d, 0x4a, 0x4e,
        0xf5, 0xcb, 0x2f, 0x71, 0xcb, 0x2f, 0xcd, 0x4b, 0x51, 0xaa, 0xad, 0x05, 0x00, 0x5c, 0xc5, 0x31, 0x00, 0x25,
        0x00, 0x00, 0x00,
    ];

    /// The same, as deflate has it: in zlib's frame, which HTTP prescribes, and bare, which some servers send.
    const FRAMED: [u8; 45] = [
        0x78, 0x9c, 0xab, 0x56, 0x4a, 0x2d, 0x2a, 0xca, 0x2f, 0x52, 0xb2, 0xaa, 0x56, 0x4a, 0xce, 0x4f, 0x49, 0x55,
        0xb2, 0x52, 0x0a, 0x4a, 0x2d, 0xce, 0x2f, 0x2d, 0x4a, 0x4e, 0xf5, 0xcb, 0x2f, 0x71, 0xcb, 0x2f, 0xcd, 0x4b,
        0x51, 0xaa, 0xad, 0x05, 0x00, 0xf7, 0x38, 0x0d, 0x6b,
    ];

    /// What the wire makes of this body, which the server sends whatever it was asked for.
    async fn read(encoding: &'static str, body: &'static [u8]) -> Reply {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            let head =
                format!("HTTP/1.1 404 No\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
            String::from_utf8_lossy(&request[..read]).to_ascii_lowercase()
        });
        let request = Request { post: false, url, bearer: None, body: Body::None, metadata: false, at_most: 1000 };
        let reply = HttpWire::new(&unhurried()).unwrap().send(request).await.unwrap();
        assert!(server.join().unwrap().contains("accept-encoding: gzip\r\n"), "a list of 8 MB travels compressed");
        reply
    }

    #[tokio::test]
    async fn a_compressed_answer_is_read_and_a_broken_one_is_told() {
        for (encoding, body) in [("gzip", &COMPRESSED[..]), ("deflate", &FRAMED), ("identity", READ.as_bytes())] {
            let whole = read(encoding, body).await;
            assert_eq!((whole.status, whole.cut, whole.text.as_str()), (404, None, READ), "{encoding}");
        }
        for (encoding, body) in [("gzip", &COMPRESSED[..20]), ("deflate", &FRAMED[2..41])] {
            let broken = read(encoding, body).await;
            assert!(broken.status == 404 && broken.cut.is_some(), "{encoding}: {broken:?}");
        }
    }

    #[tokio::test]
    async fn answer_in_an_encoding_that_is_not_decoded_is_unreadable() {
        for encoding in ["br", "deflate, gzip"] {
            let cut = read(encoding, b"marker").await.cut.unwrap();
            assert_eq!(cut, format!("the answer is compressed as `{encoding}`, and gzip alone was asked for"));
        }
    }

    fn unhurried() -> Options<'static> {
        let patience = Duration::from_secs(30);
        Options {
            proxy: None,
            ca_file: None,
            connect_timeout: patience,
            call_timeout: patience,
            unknown_grace: patience,
        }
    }

    #[tokio::test]
    async fn localhost_is_looked_up_nowhere() {
        for name in ["localhost", "LOCALHOST", "LocalHost."] {
            let found: Vec<_> = Names.resolve(name.parse().unwrap()).await.unwrap().map(|found| found.ip()).collect();
            assert_eq!(found, LOOPBACK, "{name}");
        }
    }

    #[tokio::test]
    async fn http_to_another_host_is_not_sent() {
        let wire = HttpWire::new(&unhurried()).unwrap();
        // Of a network that is for documentation, and a name that never exists.
        for url in ["http://192.0.2.1/", "http://api.localhost/", "http://localhost.invalid/"] {
            let bearer = Some("token".to_owned().into());
            let request =
                Request { post: false, url: url.to_owned(), bearer, body: Body::None, metadata: false, at_most: 1000 };
            let refused = Failure::NotSent("http:// is for loopback only".to_owned());
            assert_eq!(wire.send(request).await.unwrap_err(), refused, "{url}");
        }
    }

    #[test]
    fn neither_a_proxys_password_nor_a_token_is_in_what_debugging_shows() {
        let proxy = "http://ann:s3cret@proxy".parse().unwrap();
        let options = Options {
            proxy: Some(&proxy),
            ca_file: None,
            connect_timeout: Duration::ZERO,
            call_timeout: Duration::ZERO,
            unknown_grace: Duration::ZERO,
        };
        let reply = Reply { status: 200, text: "{\"access_token\":\"s3cret\"}".to_owned(), ..Reply::default() };
        let shown = format!("{options:?} {reply:?} {:?}", HttpWire::new(&options).unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains("ann") && shown.contains("status: 200"), "{shown}");
    }
}
