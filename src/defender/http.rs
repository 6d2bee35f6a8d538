//! Requests over HTTP/1.1, each on a connection of its own.
//!
//! A pooled connection that the server has just closed makes a request whose fate is unknown, and
//! some clients then send it again by themselves. At a hundred calls a minute a handshake for each
//! costs nothing; see `docs/adr/0004-one-connection-a-call.md`.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::{Certificate, Client, ClientBuilder, Proxy, Url, redirect, retry, tls};
use secrecy::ExposeSecret;

use super::{Body, Failure, IN_MILLISECONDS, Reply, Request, Wire};

/// How the wire is set up.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// A proxy, else what the environment says.
    pub proxy: Option<&'a str>,
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

fn builder(options: &Options<'_>) -> anyhow::Result<ClientBuilder> {
    let mut builder = Client::builder()
        .user_agent(concat!("sweepd/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        // rustls knows nothing older; said here, so that it stays so with another library.
        .tls_version_min(tls::Version::TLS_1_2)
        .redirect(redirect::Policy::none())
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
            proxied = proxied.proxy(Proxy::all(proxy)?.no_proxy(reqwest::NoProxy::from_env()));
        }
        Ok(Self { proxied: proxied.build()?, direct: builder(options)?.no_proxy().build()? })
    }

    async fn exchange(&self, request: Request) -> Result<Reply, Failure> {
        let url = Url::parse(&request.url).map_err(|error| Failure::NotSent(format!("{}: {error}", request.url)))?;
        let client = if request.metadata || is_loopback(&url) { &self.direct } else { &self.proxied };
        let mut builder = if request.post { client.post(url) } else { client.get(url) };
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
        let mut body = Vec::new();
        loop {
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
        reply.text = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }
}

impl Wire for HttpWire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(self.exchange(request))
    }
}

/// Whether a URL stays on this machine; then no proxy is asked.
fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
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
