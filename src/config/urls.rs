//! Addresses of services: what a URL may be, and which URLs stay on this machine.
//!
//! A URL may carry a secret, so no message repeats one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::values::Wrong;

/// The one name of this machine that needs no look-up. Neither DNS nor `/etc/hosts` is asked for it, because http is
/// allowed to it: it means [`LOOPBACK`] and nothing else.
const LOCALHOST: &str = "localhost";

/// Where connections to `localhost` go, in this order.
pub const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Whether a host's name is `localhost`, in any case, with or without the dot of a full name.
pub fn is_localhost(name: &str) -> bool {
    name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(LOCALHOST)
}

/// Whether connections to a URL stay on this machine: 127.0.0.0/8 however it is written, `::1`, `localhost`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => is_localhost(name),
        None => false,
    }
}

/// A URL of http or https with a host, and without query and fragment.
pub(super) fn url(text: &str, example: &str) -> Result<Url, Wrong> {
    let how = format!("write one such as {example}");
    let mut url =
        Url::parse(text.trim()).map_err(|error| Wrong::new(format!("is not a URL ({error})"), how.clone()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Wrong::new("is not a URL of http or https with a host", how));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new("has a query or a fragment", how));
    }
    // One spelling, which is also the one that certificates have.
    if url.host_str().is_some_and(is_localhost) && url.set_host(Some(LOCALHOST)).is_err() {
        return Err(Wrong::new("is not a URL of http or https with a host", how));
    }
    Ok(url)
}

/// Where calls or sign-ins go: https, or http on this machine; without the slash at its end.
pub(super) fn service_url(text: &str) -> Result<String, Wrong> {
    const EXAMPLE: &str = "https://api.securitycenter.microsoft.com";
    let url = url(text, EXAMPLE)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::new("has a user name or a password", format!("write one such as {EXAMPLE}")));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(Wrong::new(
            "is http:// to another host, where anybody on the way could read the token",
            "write https://; http:// is for loopback only",
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The path between a service's address and its calls, such as `/api/v1.0`: with a slash at its start, without one at
/// its end; empty if calls follow the address directly.
pub(super) fn service_path(text: &str) -> Result<String, Wrong> {
    let path = text.trim().trim_end_matches('/');
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    // Each part is what it looks like: no empty one, and none that a server resolves away.
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(may_stand);
    match path.strip_prefix('/') {
        None if path.is_empty() => Ok(String::new()),
        Some(parts) if parts.split('/').all(is_part) => Ok(path.to_owned()),
        _ => Err(Wrong::new("is not a path", "write one such as /api or /api/v1.0, of letters, digits and - _ . ~")),
    }
}

/// Whether a URL that [`service_url`] has read goes on behind its host.
pub(super) fn has_path(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_for_loopback_only() {
        for text in [
            "https://api.securitycenter.microsoft.com",
            "http://127.0.0.1:8080",
            "http://127.8.9.1",
            "http://[::1]:80/base",
            "http://localhost:1",
        ] {
            assert!(service_url(text).is_ok(), "{text}");
        }
        for text in [
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://169.254.169.254",
            "http://[::2]/",
            "http://[::ffff:10.0.0.1]",
            "http://localhost.example.com",
            "http://api.localhost",
            "http://localhost..",
            "http://localhost%2eexample.com",
            "http://127.0.0.1.example.com",
        ] {
            assert!(service_url(text).unwrap_err().what.starts_with("is http://"), "{text}");
        }
        assert_eq!(service_url("https://Example.com/a/"), Ok("https://example.com/a".into()));
    }

    #[test]
    fn each_spelling_of_loopback_is_read_as_the_address() {
        for (text, read) in [
            ("http://LOCALHOST:80/", "http://localhost"),
            ("http://LocalHost.:8080", "http://localhost:8080"),
            ("https://localhost.", "https://localhost"),
            ("http://127.1:8080", "http://127.0.0.1:8080"),
            ("http://0x7f.1", "http://127.0.0.1"),
            ("http://2130706433", "http://127.0.0.1"),
            ("http://127.0.0.1.", "http://127.0.0.1"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]"),
        ] {
            assert_eq!(service_url(text).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn service_path_is_normalised_or_refused() {
        for (text, read) in
            [("/api", "/api"), (" /api/v1.0/ ", "/api/v1.0"), ("/defender/api", "/defender/api"), ("", ""), ("/", "")]
        {
            assert_eq!(service_path(text).as_deref(), Ok(read), "{text}");
        }
        for text in ["api", "//api", "/api//v1.0", "/api/../x", "/.", "/api?s3cret", "/api#s3cret", "/a b", "/%61"] {
            let wrong = service_path(text).unwrap_err();
            assert!(wrong.what == "is not a path" && !format!("{wrong:?}").contains("s3cret"), "{text}: {wrong:?}");
        }
    }

    #[test]
    fn urls_are_refused_without_being_repeated() {
        for text in [
            "s3cret",
            "ftp://s3cret.example.com",
            "https://user:s3cret@example.com",
            "https://s3cret@example.com",
            "https://example.com/?s3cret",
            "https://example.com/#s3cret",
        ] {
            let wrong = service_url(text).unwrap_err();
            assert!(!format!("{wrong:?}").contains("s3cret"), "{wrong:?}");
        }
    }
}
