//! Who may ask, and what every answer carries.
//!
//! The listener has no login, so a web page that somebody visits must not be able to ask in their name: a page
//! whose own name is made to point here (DNS rebinding) asks under that name, and is refused. Whatever is not
//! a GET or a HEAD is refused too. Answers may not be framed, sniffed or read by other origins.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The names under which this listener may be asked.
#[derive(Clone, Debug)]
pub struct Hosts {
    listen: IpAddr,
    names: BTreeSet<String>,
}

impl Hosts {
    /// Those of a listener: `localhost`, loopback, its own address, and these names.
    pub fn new(listen: SocketAddr, names: &[String]) -> Self {
        let names = names.iter().cloned().chain(["localhost".to_owned()]).collect();
        Self { listen: listen.ip(), names }
    }

    /// Whether a `Host` header names it. The port is left aside: it is not what an attacker chooses.
    fn know(&self, host: &str) -> bool {
        let name = host_of(host).trim_end_matches('.').to_ascii_lowercase();
        match name.parse::<IpAddr>() {
            // An address is no name that somebody else could point here. A listener on all addresses has them all.
            Ok(address) => address.is_loopback() || address == self.listen || self.listen.is_unspecified(),
            Err(_) => self.names.contains(&name),
        }
    }
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// What answers may do in a browser that have no policy of their own: nothing.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// Stands before every route.
pub async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let probes = is_probe(request.uri());
    let knows_name = is_asked_by_name(&hosts, &request);
    let mut response = match refusal(&request, probes || knows_name) {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    if probes && !knows_name {
        // A probe asks under whatever name it has, and learns nothing but whether: why may name tenants and paths.
        response = (response.status(), WHY).into_response();
    }
    secure(response)
}

/// Whether a request asks whether sweepd works, and nothing else.
pub fn is_probe(uri: &Uri) -> bool {
    matches!(uri.path(), "/healthz" | "/readyz")
}

/// The answer with what every answer carries.
pub fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.extend(ALWAYS);
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What a probe is told that does not ask under a known name.
const WHY: &str = "ask by address or as localhost for the reason\n";

fn is_asked_by_name(hosts: &Hosts, request: &Request) -> bool {
    let asked = named(request.headers(), request.uri().authority().map(axum::http::uri::Authority::as_str));
    asked.is_some_and(|host| hosts.know(host))
}

fn refusal(request: &Request, may_ask: bool) -> Option<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(header::ALLOW, HeaderValue::from_static("GET, HEAD"))];
        return Some((StatusCode::METHOD_NOT_ALLOWED, allow, "read-only: GET and HEAD alone\n").into_response());
    }
    if may_ask {
        return None;
    }
    let word = "this is not one of my names: ask by address or as localhost, or add the name to http.hosts\n";
    Some((StatusCode::MISDIRECTED_REQUEST, word).into_response())
}

/// Under which single name is asked; none if there is none, or several that differ.
fn named<'a>(headers: &'a HeaderMap, authority: Option<&'a str>) -> Option<&'a str> {
    let mut names = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default()).chain(authority);
    let first = names.next()?;
    names.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, names: &[&str]) -> Hosts {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Hosts::new(listen.parse().unwrap(), &names)
    }

    #[test]
    fn only_names_that_cannot_be_pointed_here_by_others_are_known() {
        let loopback = hosts("127.0.0.1:9464", &["sweepd.example"]);
        for host in [
            "127.0.0.1:9464",
            "127.0.0.1",
            "localhost:9464",
            "LOCALHOST",
            "[::1]:9464",
            "127.9.9.9",
            "sweepd.example:1",
            "Sweepd.Example.",
        ] {
            assert!(loopback.know(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.5",
            "[::",
            "sweepd.example.evil",
            "evil@localhost",
        ] {
            assert!(!loopback.know(host), "{host}");
        }
        let one = hosts("10.0.0.5:9464", &[]);
        assert!(one.know("10.0.0.5:9464") && one.know("localhost") && !one.know("10.0.0.6:9464"));
        let all = hosts("[::]:9464", &[]);
        assert!(all.know("10.0.0.5:80") && all.know("[fe80::1]:80") && !all.know("evil.example"));
    }

    #[test]
    fn several_names_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(named(&headers, None), None);
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert_eq!(named(&headers, None), Some("localhost"));
        assert_eq!(named(&headers, Some("evil.example")), None);
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(named(&headers, None), None);
    }
}
