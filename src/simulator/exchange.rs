//! A request and its answer as plain values, and the shapes in which Defender and Entra refuse.

use std::time::Duration;

use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Without the query, as sent.
    pub path: String,
    /// The query's pairs, decoded.
    pub query: Vec<(String, String)>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The `Metadata` header.
    pub metadata: Option<String>,
    /// The body, complete.
    pub body: Vec<u8>,
}

impl Request {
    /// The token of `Authorization: Bearer …`.
    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
    }

    /// Whether the body is declared to be of this type, parameters aside.
    pub(super) fn is_of_type(&self, wanted: &str) -> bool {
        self.content_type.as_deref().is_some_and(|declared| {
            let essence = declared.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case(wanted)
        })
    }
}

/// An answer to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Further headers; length and date come from the server.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with a JSON body, written compactly as Defender does (rapid7's plugin matches
    /// `"message":"Action is already in progress"` literally).
    pub fn json(status: u16, body: &Value) -> Self {
        let kind = ("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned());
        Self { status, headers: vec![kind], body: body.to_string().into_bytes() }
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body read as JSON; null when it is none.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How an answer travels, once faults had their say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As it is.
    Answer(Response),
    /// As it is, after a while.
    Late(Duration, Response),
    /// Its first half, under the length of the whole; then the connection ends.
    Truncated(Response),
    /// Not at all: the connection is reset.
    Reset,
    /// Not at all: the connection stays open until the client leaves.
    Never,
    /// As it is, and the connection stays open; but whoever sends on it again is reset.
    Stale(Response),
    /// As no proper server would send it.
    ByHand(Response, Manner),
}

/// How an answer is sent by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A byte a second, from its status line on.
    HeadTrickles,
    /// Its head at once, then its body, a byte a second.
    BodyTrickles,
    /// Its head and half of its body at once, then nothing, until the client leaves.
    BodyHangs,
    /// Its head, then a body of a gigabyte.
    Gigabyte,
    /// Its head, then compressed data that unpack to a hundred times as much, until the client leaves.
    GzipBomb,
}

/// Why the API refuses a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The documented code (API/common-errors.md); empty for bad `OData` options, whose shape
    /// differs (observed, microsoft-365-docs issue 12682).
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// A query option that Defender does not understand.
    pub(super) fn odata(message: impl Into<String>) -> Self {
        Self::new(400, "", message)
    }

    /// The answer; `target` is the correlation id.
    pub(super) fn answer(&self, target: &str) -> Response {
        let error = if self.code.is_empty() {
            json!({"code": "", "message": self.message, "details": []})
        } else {
            json!({"code": self.code, "message": self.message, "target": target})
        };
        let response = Response::json(self.status, &json!({ "error": error }));
        match self.retry_after {
            Some(seconds) => response.with_header("Retry-After", &seconds.to_string()),
            None => response,
        }
    }
}

/// The pairs of a query or of a form: `application/x-www-form-urlencoded`, where `+` is a blank,
/// so that a `+` in a time has to be sent as `%2B`.
pub(super) fn form_pairs(encoded: &str) -> Vec<(String, String)> {
    encoded
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (form_decode(name), form_decode(value)))
        .collect()
}

fn form_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, beyond @ ..]) => match hex_pair(*high, *low) {
                Some(value) => {
                    decoded.push(value);
                    rest = beyond;
                }
                None => decoded.push(b'%'),
            },
            (byte, _) => decoded.push(*byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let value = char::from(high).to_digit(16)? * 16 + char::from(low).to_digit(16)?;
    u8::try_from(value).ok()
}

/// The reverse of [`form_pairs`], for the links that Defender hands out.
pub(super) fn query_of(pairs: &[(String, String)]) -> String {
    let encode_byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~$".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    let encode = |text: &str| text.bytes().map(encode_byte).collect::<String>();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_survive_the_round_trip() {
        let pairs = vec![
            ("$filter".to_owned(), "a eq 'é+ &=%' and b gt 2024-01-01T00:00:00+02:00".to_owned()),
            ("$top".to_owned(), "5".to_owned()),
        ];
        assert_eq!(form_pairs(&query_of(&pairs)), pairs);
        assert_eq!(
            form_pairs("a=b+c&&d&e=%zz%4"),
            [("a", "b c"), ("d", ""), ("e", "%zz%4")].map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn headers_are_read_leniently_where_http_does() {
        let request = Request {
            authorization: Some("bearer abc".to_owned()),
            content_type: Some("Application/JSON; charset=utf-8".to_owned()),
            ..Request::default()
        };
        assert_eq!(request.bearer(), Some("abc"));
        assert!(request.is_of_type("application/json"));
        assert!(!Request::default().is_of_type("application/json"));
    }

    #[test]
    fn refusals_have_the_two_documented_shapes() {
        let plain = Refusal::new(404, "ResourceNotFound", "Machine 1 was not found").answer("t");
        assert_eq!(
            plain.value(),
            json!({"error": {"code": "ResourceNotFound", "message": "Machine 1 was not found", "target": "t"}})
        );
        let odata = Refusal::odata("no").answer("t");
        assert_eq!(odata.value(), json!({"error": {"code": "", "message": "no", "details": []}}));
    }
}
