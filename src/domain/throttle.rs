//! What a 429 says: how long to wait, and which window was full.
//!
//! | spelling | read as | source |
//! |---|---|---|
//! | `Retry-After: 17`, `2.5` | that many seconds, rounded up | common-errors; fractions are lenient |
//! | `Retry-After:` a date | until then, by the answer's own `Date` | RFC 9110 |
//! | `Retry-After: 0`, negative, garbage | nothing: the message is asked | |
//! | `retry-after-ms`, `x-ms-retry-after-ms` | milliseconds; of several headers the longest counts | Azure services |
//! | more digits than a number has | for ever: the bound of the silence decides | |
//! | "again in 8 seconds", "in 1500 ms" in the message | that long | observed; lenient |
//! | "wait 50 seconds" | that long | lenient |
//! | "replenished in 00:03:20", "in 1.00:03:20" | hours, minutes and seconds; days before the point | API Management |
//! | "1500 per 01:00:00", "per hour" in the message | the hour was full | observed |
//! | "100 calls in 00:01:00" | no wait: a number just before makes it a limit | |
//!
//! When nothing says for how long, the silence of that budget has a length of its own, which doubles.

use std::time::Duration;

use super::ledger::{MINUTE, Window};

/// What an answer says about the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// How long to wait; never zero.
    pub wait: Option<Duration>,
    /// Which window was full.
    pub window: Option<Window>,
}

/// A number as headers have them, rounded up; none for what is no number.
fn whole(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let up = u64::from(fraction.bytes().any(|byte| byte != b'0'));
    Some(whole.parse::<u64>().unwrap_or(u64::MAX).saturating_add(up))
}

/// Seconds as `Retry-After` has them, zero included; none for what is no number.
pub fn seconds(text: &str) -> Option<Duration> {
    whole(text).map(Duration::from_secs)
}

/// Milliseconds as `x-ms-retry-after-ms` has them; else as [`seconds`].
pub fn milliseconds(text: &str) -> Option<Duration> {
    whole(text).map(Duration::from_millis)
}

/// `hh:mm:ss` or `d.hh:mm:ss`, as .NET writes a span of time; broken seconds are rounded up.
fn span(text: &str) -> Option<Duration> {
    let mut parts = text.split(':');
    let (hours, minutes, rest) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let number = |text: &str| text.parse::<u64>().ok();
    let hours = number(days)?.checked_mul(24)?.checked_add(number(hours)?)?;
    let minutes = hours.checked_mul(60)?.checked_add(number(minutes)?)?;
    minutes.checked_mul(60)?.checked_add(whole(rest)?).map(Duration::from_secs)
}

/// What `Retry-After`, already read, and the message say together.
pub fn told(retry_after: Option<Duration>, message: &str) -> Told {
    let words: Vec<String> = message
        .split_whitespace()
        .map(|word| word.trim_matches(['.', ',', ';', '!', '(', ')']).to_lowercase())
        .collect();
    let wait = retry_after.filter(|wait| !wait.is_zero()).or_else(|| wait_in(&words));
    Told { wait, window: window_in(&words) }
}

/// "in 8 seconds", "after 2 minutes", "in 00:03:20"; not "100 calls in 60 seconds", which is a limit.
fn wait_in(words: &[String]) -> Option<Duration> {
    let is_limit = |at: usize| {
        let before = words.get(at.saturating_sub(2)..at).unwrap_or_default();
        before.iter().any(|word| whole(word).is_some())
    };
    words.iter().enumerate().find_map(|(at, word)| {
        if !matches!(word.as_str(), "in" | "after" | "wait") || is_limit(at) {
            return None;
        }
        let number = words.get(at + 1)?;
        let unit = words.get(at + 2).map(String::as_str).unwrap_or_default();
        let wait = span(number).or_else(|| match unit {
            "ms" | "msec" | "millisecond" | "milliseconds" => milliseconds(number),
            "s" | "sec" | "secs" | "second" | "seconds" => seconds(number),
            "min" | "mins" | "minute" | "minutes" => Some(seconds(number)?.saturating_mul(60)),
            "hour" | "hours" => Some(seconds(number)?.saturating_mul(3600)),
            _ => None,
        });
        wait.filter(|wait| !wait.is_zero())
    })
}

/// "per 00:01:00", "per hour", "per 1 minute".
fn window_in(words: &[String]) -> Option<Window> {
    let after = words.iter().position(|word| word == "per").map(|per| per + 1)?;
    let mut rest = words.get(after..)?.iter();
    let word = rest.next().and_then(|word| if word == "1" { rest.next() } else { Some(word) })?;
    match word.trim_end_matches('s') {
        "minute" => return Some(Window::Minute),
        "hour" => return Some(Window::Hour),
        _ => {}
    }
    span(word).map(|length| if length > MINUTE { Window::Hour } else { Window::Minute })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn seconds_are_read_whole_or_broken_and_garbage_is_nothing() {
        assert_eq!(seconds("17"), Some(SECOND * 17));
        assert_eq!(seconds("2.5"), Some(SECOND * 3));
        assert_eq!(seconds("2.0"), Some(SECOND * 2));
        assert_eq!(seconds("0"), Some(Duration::ZERO));
        assert_eq!(seconds("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        for nothing in ["", "-3", "soon", "1e9", "1.2.3", ".5", "+4", "٣"] {
            assert_eq!(seconds(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_429_is_read_in_whichever_spelling() {
        let apim = "Maximum allowed 100 per 00:01:00 for the key K. You can send requests again in 8 seconds.";
        let quota = "API calls quota exceeded! maximum allowed 1500 per 01:00:00";
        let volume = "Out of call volume quota. Quota will be replenished in 00:03:20.";
        let second = |seconds| Some(SECOND * seconds);
        let millis = |millis| Some(Duration::from_millis(millis));
        for (retry_after, message, wait, window) in [
            (None, apim, second(8), Some(Window::Minute)),
            (Some(30), apim, second(30), Some(Window::Minute)),
            (Some(0), apim, second(8), Some(Window::Minute)),
            (None, quota, None, Some(Window::Hour)),
            (None, "Rate limit is exceeded. Try again after 2 minutes.", second(120), None),
            (None, "too many calls per hour, retry in 90 seconds", second(90), Some(Window::Hour)),
            (None, "100 calls per 1 minute", None, Some(Window::Minute)),
            (None, volume, second(200), None),
            (None, "Quota will be replenished in 1.00:03:20", second(86_600), None),
            (None, "replenished in 00:00:07.2500000.", second(8), None),
            (None, "maximum allowed 1500 per 1.00:00:00", None, Some(Window::Hour)),
            (None, "try again in 1500 milliseconds", millis(1500), None),
            (None, "Please wait 300 seconds before retrying.", second(300), None),
            (None, "Try again in 1500 ms.", millis(1500), None),
            (None, "after 1 millisecond", millis(1), None),
            (None, "100 calls in 60 seconds are allowed; go on in 7 seconds", second(7), None),
            (None, "maximum 1500 in 01:00:00", None, None),
            (None, "in 00:00:00", None, None),
            (None, "in 03:20", None, None),
            (None, "in 00:00:00:20", None, None),
            (None, "in 99999999999999999999:00:00", None, None),
            (None, "again in 0 seconds.", None, None),
            (None, "in -3 seconds", None, None),
            (None, "in", None, None),
            (None, "per", None, None),
            (None, "per 1", None, None),
            (None, "per 99999999999999999999:00:00", None, None),
            (None, "", None, None),
        ] {
            let expected = Told { wait, window };
            assert_eq!(told(retry_after.map(Duration::from_secs), message), expected, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange_and_no_wait_is_zero(message in "\\PC{0,80}", retry in any::<Option<u64>>()) {
            let told = told(retry.map(Duration::from_secs), &message);
            prop_assert!(told.wait.is_none_or(|wait| !wait.is_zero()));
        }
    }
}
