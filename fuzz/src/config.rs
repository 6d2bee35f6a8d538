//! What values of the configuration are read with.

use crate::domain::time::millis;

#[path = "../../src/config/der.rs"]
mod der;
#[path = "../../src/config/urls.rs"]
mod urls;
#[path = "../../src/config/values.rs"]
mod values;

/// Reads any text as each kind of value. What is read is within its bounds, and what is refused is told in words that
/// can be printed.
pub fn read_as_everything(text: &str) {
    let told = |wrong: values::Wrong| {
        assert!(!wrong.what.is_empty() && !wrong.remedy.is_empty(), "{text:?}");
        assert!(!wrong.what.chars().any(char::is_control), "{text:?}: {}", wrong.what);
    };
    match values::duration(text) {
        // A hundred years, which no clock overflows.
        Ok(duration) => assert!(millis(duration) <= 36_500 * 86_400_000, "{text:?}"),
        Err(wrong) => told(wrong),
    }
    values::size(text).map(|size| assert!(size > 0, "{text:?}")).unwrap_or_else(told);
    values::reserve(text).map(|percent| assert!(percent <= 90, "{text:?}")).unwrap_or_else(told);
    values::count(text).map(drop).unwrap_or_else(told);
    values::positive(text).map(drop).unwrap_or_else(told);
    values::flag(text).map(drop).unwrap_or_else(told);
    values::socket(text).map(drop).unwrap_or_else(told);
    values::day(text).map(drop).unwrap_or_else(told);
    values::log_level(text).map(drop).unwrap_or_else(told);
    urls::service_url(text).map(drop).unwrap_or_else(told);
    drop(values::shown(text));
}

/// Reads any bytes as a certificate: the key that is found lies within them.
pub fn read_as_certificate(der: &[u8]) {
    if let Some(key) = der::certificate(der).and_then(|certificate| certificate.rsa_key) {
        assert!(key.len() < der.len());
    }
}
