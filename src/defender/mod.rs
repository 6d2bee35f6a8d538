//! The API as documented: what is sent, what comes back, and the sign-in. The only outgoing HTTP.
//!
//! One request on the wire for each call here: no retries, no redirects, no connection that is
//! used twice. Whoever calls has taken a slot before.

mod apart;
mod client;
#[cfg(test)]
mod fixtures;
pub mod http;
mod kept;
mod sign_in;
#[cfg(test)]
mod table;
mod wire;

pub use client::{ActionQuery, Client, Listed, Machines, Read, Scanned};
pub use http::HttpWire;
pub use sign_in::{Authority, Claims, Credential, Guids, SignIn, SignInError, SignedIn, Token};

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use secrecy::SecretString;

use crate::domain::throttle::{milliseconds, seconds};
use crate::domain::time::{Wall, millis};

/// What a request carries.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(String),
    /// A form, which may hold a secret.
    Form(Vec<(&'static str, SecretString)>),
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// `GET` or `POST`.
    pub post: bool,
    /// Absolute.
    pub url: String,
    /// The access token.
    pub bearer: Option<SecretString>,
    /// What it carries.
    pub body: Body,
    /// For this machine's metadata service: with the header `Metadata: true`, and never through a
    /// proxy.
    pub metadata: bool,
    /// No more of the answer is read than this, in bytes after decompression.
    pub at_most: usize,
}

/// The headers under which services of Azure tell `Retry-After` in milliseconds.
pub const IN_MILLISECONDS: [&str; 2] = ["x-ms-retry-after-ms", "retry-after-ms"];

/// One answer.
#[derive(Clone, Default)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The same in milliseconds, under the first of [`IN_MILLISECONDS`] that came, as it came.
    pub retry_after_ms: Option<String>,
    /// `Date`, as it came.
    pub date: Option<String>,
    /// The body, as text; what is not UTF-8 is replaced.
    pub text: String,
    /// Why the body is not whole, if it is not.
    pub cut: Option<String>,
}

/// Without the text, which may hold a token.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("retry_after_ms", &self.retry_after_ms)
            .field("date", &self.date)
            .field("bytes", &self.text.len())
            .field("cut", &self.cut)
            .finish()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No byte of the request can have arrived.
    #[error("{0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("{0}")]
    Lost(String),
}

/// What carries requests: HTTP, or a simulation in the same process.
pub trait Wire: Send + Sync {
    /// Sends exactly one request and reads its answer.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, Failure>>;
}

/// How long the headers ask to wait, the longer of two that differ: a call that comes too early
/// prolongs the silence. Nothing for what is negative or garbage.
fn retry_after(reply: &Reply, now: Wall) -> Option<Duration> {
    let in_milliseconds = reply.retry_after_ms.as_deref().and_then(|text| milliseconds(text.trim()));
    reply.retry_after.as_deref().and_then(|text| plain(text.trim(), reply, now)).max(in_milliseconds)
}

/// `Retry-After` itself: seconds, or a date less the answer's own `Date`; `now` is for an answer that
/// has none.
fn plain(text: &str, reply: &Reply, now: Wall) -> Option<Duration> {
    if let Some(wait) = seconds(text) {
        return Some(wait);
    }
    let until = http_date(text)?;
    let now = reply.date.as_deref().and_then(http_date).unwrap_or(now);
    Some(until.since(now))
}

/// A date of HTTP, to the second.
fn http_date(text: &str) -> Option<Wall> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Wall(millis(since)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_spellings_and_garbage_is_nothing() {
        let reply = |retry: &str, date: Option<&str>| Reply {
            retry_after: Some(retry.into()),
            date: date.map(Into::into),
            ..Reply::default()
        };
        let ours = Wall::parse("2026-11-21T10:00:20Z").unwrap();
        let at = |retry: &str, date: Option<&str>| retry_after(&reply(retry, date), ours);
        let date = "Sat, 21 Nov 2026 10:00:00 GMT";
        assert_eq!(at("17", None), Some(Duration::from_secs(17)));
        assert_eq!(at(" 0 ", None), Some(Duration::ZERO));
        assert_eq!(at("Sat, 21 Nov 2026 10:00:30 GMT", Some(date)), Some(Duration::from_secs(30)));
        assert_eq!(at("Sat, 21 Nov 2026 09:00:00 GMT", Some(date)), Some(Duration::ZERO), "which says nothing");
        for nothing in ["-3", "soon", "", "1e9"] {
            assert_eq!(at(nothing, Some(date)), None, "{nothing:?}");
        }
        assert_eq!(at("Sat, 21 Nov 2026 10:00:30 GMT", None), Some(Duration::from_secs(10)), "by our own clock");
    }
    #[test]
    fn milliseconds_are_read_and_the_longer_of_two_headers_counts() {
        let ms = Duration::from_millis;
        for (plain, in_milliseconds, wait) in [
            (None, Some("1500"), Some(ms(1500))),
            (None, Some(" 1500.2 "), Some(ms(1501))),
            (Some("1"), Some("1500"), Some(ms(1500))),
            (Some("2"), Some("1500"), Some(ms(2000))),
            (Some("soon"), Some("1500"), Some(ms(1500))),
            (Some("2"), Some("-5"), Some(ms(2000))),
            (None, Some("soon"), None),
            (None, None, None),
        ] {
            let own = |text: Option<&str>| text.map(ToOwned::to_owned);
            let reply = Reply { retry_after: own(plain), retry_after_ms: own(in_milliseconds), ..Reply::default() };
            assert_eq!(retry_after(&reply, Wall(0)), wait, "{plain:?} {in_milliseconds:?}");
        }
    }
}
