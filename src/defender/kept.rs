//! What of an answer is kept on record: as it came, without secrets, and not endlessly.

use secrecy::{ExposeSecret, SecretString};

/// What of an answer is kept on record, in bytes.
const KEEP: usize = 16 * 1024;
const REDACTED: &str = "[redacted]";
/// Names after which a secret stands, in JSON, in a form or in a header.
const NAMES: [&str; 7] = [
    "access_token",
    "refresh_token",
    "id_token",
    "client_secret",
    "client_assertion",
    "authorization: bearer",
    "bearer",
];

/// The text of an answer to a call with this token, as it is kept: proxies and error pages repeat what
/// they were sent.
pub fn kept(text: &str, token: &SecretString) -> String {
    // No secret that begins within what is kept is cut in two by this.
    let start = up_to(text, KEEP * 4);
    let token = token.expose_secret();
    let start = if token.is_empty() { start.to_owned() } else { start.replace(token, REDACTED) };
    let start = redacted(&start);
    let mut kept = up_to(&start, KEEP).to_owned();
    if kept.len() < start.len() || start.len() < text.len() && text.len() > KEEP {
        kept += &format!("… [{} bytes in all]", text.len());
    }
    kept
}

/// At most so many bytes, in whole characters.
fn up_to(text: &str, most: usize) -> &str {
    (0..=most.min(text.len())).rev().find_map(|end| text.get(..end)).unwrap_or_default()
}

/// Without what looks like a token, whoever's it is.
fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let begins = !before.is_ascii_alphanumeric();
        if let Some((kept, secret)) = begins.then(|| secret_at(rest)).flatten() {
            out += rest.get(..kept).unwrap_or_default();
            out += REDACTED;
            rest = rest.get(kept + secret..).unwrap_or_default();
            before = ']';
            continue;
        }
        out.push(c);
        before = c;
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    out
}

/// The bytes before a secret that begins here, and those of the secret.
fn secret_at(text: &str) -> Option<(usize, usize)> {
    // A JSON Web Token: three parts, of which the first two begin with `{"` in base64.
    if text.starts_with("eyJ") {
        let length = word(text);
        return text.get(..length)?.contains(".eyJ").then_some((0, length));
    }
    NAMES.iter().find_map(|name| {
        let bytes = text.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(name))?.len();
        let after = text.get(bytes..)?;
        let gap = after.find(|c: char| !matches!(c, '"' | '\'' | ':' | '=' | ' ' | '\\'))?;
        let length = word(after.get(gap..)?);
        // "bearer" and "access_token" are words of error messages too.
        (gap > 0 && length >= 16).then_some((bytes + gap, length))
    })
}

/// How long the run of characters is that tokens and secrets are made of.
fn word(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || "-._~+/%!*".contains(c))).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJodHRwcyJ9.c2lnbmF0dXJl";

    #[test]
    fn whatever_looks_like_a_secret_is_not_kept() {
        for (text, expected) in [
            (format!("<pre>GET / Authorization: Bearer {JWT}\n"), "<pre>GET / Authorization: Bearer [redacted]\n"),
            (format!("token={JWT}&x=1"), "token=[redacted]&x=1"),
            ("{\"access_token\": \"0123456789abcdefgh\"}".to_owned(), "{\"access_token\": \"[redacted]\"}"),
            ("a=1&client_secret=Zq8~abcdefghijklmnop&b=2".to_owned(), "a=1&client_secret=[redacted]&b=2"),
            ("bearer opaque-0123456789-é".to_owned(), "bearer [redacted]é"),
        ] {
            assert_eq!(redacted(&text), expected);
        }
    }

    #[test]
    fn the_token_of_the_call_is_not_kept_wherever_it_stands() {
        let token = SecretString::from("opaque");
        assert_eq!(kept("<p>xopaquey opaque</p>", &token), "<p>x[redacted]y [redacted]</p>");
        assert_eq!(kept("as it is", &SecretString::from("")), "as it is");
    }

    #[test]
    fn what_is_kept_is_capped_and_says_so() {
        let token = SecretString::from("opaque");
        let long = "ü".repeat(KEEP);
        let text = kept(&long, &token);
        assert!(text.len() < KEEP + 50 && text.ends_with(&format!("ü… [{} bytes in all]", long.len())));
        // A token that the cap would cut in two is not kept by halves.
        let text = kept(&format!("{}{JWT}{}", "x ".repeat(KEEP / 2 - 5), "y".repeat(KEEP * 9)), &token);
        assert!(!text.contains("eyJ"), "{}", &text[text.len() - 99..]);
    }

    #[test]
    fn what_only_speaks_of_secrets_is_kept_as_it_came() {
        let longest = "the bearer token is missing; access_token: none. eyJust a word. ".repeat(3);
        let ours = "{\"requestorComment\":\"weekly [sweepd 6a2f41a1-8a39-4b6f-8d1e-0c6a3a9d2b11]\"} \u{0} ü";
        for text in [&longest, ours, "", "e", "eyJ", "bearer", "Bearer ", "client_secret="] {
            assert_eq!(redacted(text), text);
        }
    }
}
