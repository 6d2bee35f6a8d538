//! `network.proxy` and its password: read, and never shown.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::Around;
use super::reader::Section;
use super::secret_file::{self, Content, Form, Wanted};
use super::source::{COMMAND_LINE, variable_of};
use super::urls;
use super::values::{self, Wrong};

const EXAMPLE: &str = "http://proxy.example.com:3128";

/// The content of `proxy_password_file`.
const PASSWORD: Wanted =
    Wanted { name: "the password", how: "put nothing but the proxy's password into the file", form: Form::Line };

/// The variables that may name a proxy, and hold its password.
const VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];

/// A proxy, and what it asks for. Printing it shows neither user nor password.
#[derive(Clone)]
pub struct Proxy {
    /// Without the password.
    url: Url,
    /// As it stands in a URL: `%` and what follows is one byte.
    password: Option<SecretString>,
}

impl Proxy {
    /// The whole URL, password included, for the client that connects to the proxy and for nothing else.
    pub fn url_with_password(&self) -> Url {
        let mut url = self.url.clone();
        if let Some(password) = &self.password {
            // Refused for a URL without a host alone, which this is not.
            url.set_password(Some(password.expose_secret())).ok();
        }
        url
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let mut url = urls::url(text, EXAMPLE)?;
        if url.path() != "/" {
            return Err(Wrong::new("has a path", format!("write one such as {EXAMPLE}")));
        }
        let password = url.password().map(SecretString::from);
        // As above.
        url.set_password(None).ok();
        Ok(Self { url, password })
    }

    /// Reads `proxy` and `proxy_password_file` of `[network]`.
    #[allow(clippy::option_option, reason = "wrong, or right and none")]
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Option<Self>> {
        let proxy = section.key("proxy", "", values::optional(Self::parse));
        let file = section.key("proxy_password_file", "", values::optional(values::path));
        warn_of_variables(section, around);
        if proxy.as_ref().is_some_and(Option::is_none) {
            warn_of_useless(section, around);
        }
        let (mut proxy, file) = (proxy?, file?);
        match (&mut proxy, file) {
            (None, None) => {}
            (Some(proxy), None) => proxy.warn_if_exposed(section, around),
            (proxy, Some(file)) => {
                let password = proxy.as_ref().map_or(Err(WITHOUT_PROXY), Self::lacks_password);
                if let Err((what, how)) = password {
                    section.complain("proxy_password_file", Wrong::new(what, how));
                    return None;
                }
                let password = password_in(section, around, &file)?;
                if let Some(proxy) = proxy {
                    proxy.password = password;
                }
            }
        }
        Some(proxy)
    }

    /// Whether a password from a file makes the URL whole; or what is wrong, and what to do.
    fn lacks_password(&self) -> Result<(), (&'static str, &'static str)> {
        if self.password.is_some() {
            return Err((
                "stands beside a password in network.proxy",
                "take the password out of network.proxy, as in http://USER@HOST:PORT",
            ));
        }
        if self.url.username().is_empty() {
            return Err((
                "is a password without a user name",
                "write the user name into network.proxy, as in http://USER@HOST:PORT",
            ));
        }
        Ok(())
    }

    /// Warns of a password that other users of this machine can read where it was written down.
    fn warn_if_exposed(&self, section: &mut Section<'_, '_>, around: &Around<'_>) {
        if self.password.is_none() {
            return;
        }
        let place = match section.place_of("proxy") {
            Some(COMMAND_LINE) => "the password stands on the command line, which every user may read".to_owned(),
            Some(place) if let Some(variable) = variable_of(place) => exposed_variable(variable),
            _ => match around.file.and_then(secret_file::exposed) {
                Some(exposed) => format!("the password stands in a file that others may read: {exposed}"),
                None => return,
            },
        };
        section.warn("proxy", &format!("{place}; {MOVE}"));
    }
}

const MOVE: &str = "write the password to a file of its own and name that file in network.proxy_password_file";

const WITHOUT_PROXY: (&str, &str) = (
    "is a password without a proxy: the proxy variables are not combined with it",
    "write network.proxy, as in http://USER@HOST:PORT",
);

fn exposed_variable(name: &str) -> String {
    format!(
        "the password stands in the environment variable {name}, and `systemctl show` shows what `Environment=` sets \
         to every user of this machine"
    )
}

fn warn_of_variables(section: &mut Section<'_, '_>, around: &Around<'_>) {
    for name in VARIABLES {
        if around.environment.get(name).is_some_and(holds_password) {
            section.warn("proxy", &format!("{}; {MOVE}", exposed_variable(name)));
        }
    }
}

/// Warns of a variable that should name the proxy, because `network.proxy` names none, and does not.
fn warn_of_useless(section: &mut Section<'_, '_>, around: &Around<'_>) {
    // As the HTTP client looks for them: the first of each pair that is set. An empty one names none.
    for names in [["HTTPS_PROXY", "https_proxy"], ["ALL_PROXY", "all_proxy"]] {
        let set = names.iter().find_map(|name| Some((*name, around.environment.get(name)?)));
        if let Some((name, what)) = set.and_then(|(name, text)| Some((name, useless(text)?))) {
            let how = format!("write it as {EXAMPLE}, or set network.proxy");
            section.warn("proxy", &format!("the environment variable {name} {what}; {how}"));
        }
    }
}

/// Why the text of a proxy variable is of no use, if so. It is not repeated: it may hold a password.
fn useless(text: &str) -> Option<String> {
    let target = Uri::from_static("https://host.invalid");
    match Matcher::builder().all(text.to_owned()).build().intercept(&target) {
        None => Some("cannot be read as a proxy's address and is ignored: calls go without it".to_owned()),
        Some(proxy) => match proxy.uri().scheme_str() {
            Some("http" | "https") => None,
            scheme => Some(format!(
                "names a proxy of the kind {}, which sweepd cannot use: no call gets through",
                scheme.unwrap_or_default()
            )),
        },
    }
}

/// Whether the text of a proxy variable, which need not have a scheme, holds a password.
fn holds_password(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}

/// The password in the file, as a URL has it; none where secrets are not read.
#[allow(clippy::option_option, reason = "wrong, or right and none")]
fn password_in(section: &mut Section<'_, '_>, around: &Around<'_>, file: &Path) -> Option<Option<SecretString>> {
    const KEY: &str = "proxy_password_file";
    if !around.environment.reads_secrets {
        return Some(None);
    }
    let read = secret_file::read(file, around, PASSWORD).map_err(|wrong| section.complain(KEY, wrong));
    let Content { text, place, oddity } = read.ok()?;
    for warning in secret_file::exposed(&place).into_iter().chain(oddity) {
        section.warn(KEY, &warning);
    }
    Some(Some(SecretString::from(text.expose_secret().replace('%', "%25"))))
}

/// For tests and tools: as `network.proxy` is written.
impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        let named = !url.username().is_empty() || self.password.is_some();
        url.set_username("").ok();
        let host = url.as_str().trim_end_matches('/').split_once("://").map_or("", |(_, host)| host);
        let user = if named { "[REDACTED]@" } else { "" };
        write!(f, "{}://{user}{host}", url.scheme())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_url_has_host_and_no_path() {
        let proxy = |text: &str| Proxy::parse(text).map(|proxy| proxy.url_with_password().to_string());
        assert_eq!(proxy("http://me:pw@proxy:3128/"), Ok("http://me:pw@proxy:3128/".into()));
        assert_eq!(proxy("https://me@Proxy"), Ok("https://me@proxy/".into()));
        assert_eq!(proxy("http://LOCALHOST.:3128"), Ok("http://localhost:3128/".into()));
        for text in ["proxy:3128", "socks5://proxy:1", "http://me:s3cret@proxy/path"] {
            let wrong = proxy(text).unwrap_err();
            assert!(!format!("{wrong:?}").contains("s3cret"), "{wrong:?}");
        }
    }

    #[test]
    fn proxy_variable_that_the_client_would_ignore_is_of_no_use() {
        for text in ["http://proxy:3128", "proxy:3128", "proxy", "https://ann:pw@proxy/", "http://[::1]:3128"] {
            assert_eq!(useless(text), None, "{text}");
        }
        for text in ["http//ann:pw@proxy", "http://", "//proxy:3128", "ftp://proxy", "http://pro xy", " http://proxy"] {
            let why = useless(text).unwrap_or_default();
            assert!(why.starts_with("cannot be read as a proxy's address and is ignored: "), "{text}: {why}");
        }
        assert!(useless("socks5://proxy:1080").unwrap().contains("of the kind socks5, which sweepd cannot use"));
    }

    #[test]
    fn password_in_a_proxy_variable_is_seen_in_each_form() {
        for text in ["http://ann:pw@proxy:3128", "ann:pw@proxy:3128", "https://ann:p@ss@proxy", "http://:pw@proxy"] {
            assert!(holds_password(text), "{text}");
        }
        for text in ["http://proxy:3128", "proxy:3128", "http://ann@proxy:3128", "http://ann:@proxy", "", "@", "://"] {
            assert!(!holds_password(text), "{text}");
        }
    }
}
