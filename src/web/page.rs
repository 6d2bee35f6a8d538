//! The page: one document with its style and its script in it. Its policy allows these two by their hashes, and
//! nothing else that could run or be fetched but the answers of this listener.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("dashboard.css");
const SCRIPT: &str = include_str!("dashboard.js");
const DOCUMENT: &str = include_str!("dashboard.html");

/// Something that is sent whole, or not at all when whoever asks has it.
#[derive(Clone, Debug)]
pub struct Tagged {
    body: Bytes,
    tag: HeaderValue,
    media_type: &'static str,
}

impl Tagged {
    /// Of this media type.
    pub fn new(body: impl Into<Bytes>, media_type: &'static str) -> Self {
        let body = body.into();
        let hash = hash(&body);
        // Base64 is visible ASCII, which a header takes.
        let tag = HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body, tag, media_type }
    }

    /// The answer to whoever sends these headers.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let tag = (header::ETAG, self.tag.clone());
        if asked.get(header::IF_NONE_MATCH).is_some_and(|known| *known == self.tag) {
            return (StatusCode::NOT_MODIFIED, [tag]).into_response();
        }
        let media_type = (header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        ([tag, media_type], self.body.clone()).into_response()
    }
}

/// The page and its policy.
#[derive(Clone, Debug)]
pub struct Page {
    document: Tagged,
    policy: HeaderValue,
}

impl Page {
    /// Put together from its parts.
    pub fn new() -> Self {
        let document = DOCUMENT.replace("{style}", STYLE).replace("{script}", SCRIPT);
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
            hash(SCRIPT.as_bytes()),
            hash(STYLE.as_bytes()),
        );
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { document: Tagged::new(document, "text/html; charset=utf-8"), policy }
    }

    /// The answer to whoever sends these headers.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let mut response = self.document.answer(asked);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

fn hash(text: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_all_that_it_needs_and_asks_nobody_else() {
        let page = Page::new();
        let text = std::str::from_utf8(&page.document.body).unwrap();
        assert!(text.contains(STYLE) && text.contains(SCRIPT), "the hashes are those of what the page holds");
        for outside in ["src=\"http", "href=\"http", "@import", "url(", "<iframe", "innerHTML", "eval(", " style=\""] {
            assert!(!text.contains(outside), "{outside}");
        }
        let policy = page.policy.to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"),
            "{policy}"
        );
    }

    #[test]
    fn who_has_it_is_not_sent_it_again() {
        let tagged = Tagged::new("text", "text/plain");
        let mut asked = HeaderMap::new();
        assert_eq!(tagged.answer(&asked).status(), StatusCode::OK);
        asked.insert(header::IF_NONE_MATCH, tagged.tag.clone());
        assert_eq!(tagged.answer(&asked).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(Tagged::new("other", "text/plain").answer(&asked).status(), StatusCode::OK);
    }
}
