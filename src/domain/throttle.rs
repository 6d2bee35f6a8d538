//! What a 429 says: how long to wait, and which window was full.
//!
//! | spelling | read as | source |
//! |---|---|---|
//! | `Retry-After: 17`, `2.5` | that many seconds, rounded up | common-errors; fractions are lenient |
//! | `Retry-After:` a date | until then, by the answer's own `Date` | RFC 9110 |
//! | `Retry-After: 0`, negative, garbage | nothing: the message is asked | |
//! | more digits than a number has | for ever: the lane's bound decides | |
//! | "again in 8 seconds" in the message | that long | observed |
//! | "1500 per 01:00:00", "per hour" in the message | the hour was full | observed |
//!
//! When nothing says for how long, the lane's own pause decides, which doubles.

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

/// Seconds as `Retry-After` has them, zero included; none for what is no number.
pub fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let up = u64::from(fraction.bytes().any(|byte| byte != b'0'));
    Some(Duration::from_secs(whole.parse::<u64>().unwrap_or(u64::MAX).saturating_add(up)))
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

/// "in 8 seconds", "after 2 minutes".
fn wait_in(words: &[String]) -> Option<Duration> {
    words.windows(3).find_map(|three| {
        let [before, number, unit] = three else { return None };
        if before != "in" && before != "after" {
            return None;
        }
        let length = match unit.trim_end_matches('s') {
            "second" | "sec" => 1,
            "minute" | "min" => 60,
            "hour" => 3600,
            _ => return None,
        };
        seconds(number).map(|number| number.saturating_mul(length)).filter(|wait| !wait.is_zero())
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
    let parts: Vec<u64> = word.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = parts.as_slice() else { return None };
    let length = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(*seconds)?;
    Some(if length > MINUTE.as_secs() { Window::Hour } else { Window::Minute })
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
        for (retry_after, message, wait, window) in [
            (None, apim, Some(8), Some(Window::Minute)),
            (Some(30), apim, Some(30), Some(Window::Minute)),
            (Some(0), apim, Some(8), Some(Window::Minute)),
            (None, quota, None, Some(Window::Hour)),
            (None, "Rate limit is exceeded. Try again after 2 minutes.", Some(120), None),
            (None, "too many calls per hour, retry in 90 seconds", Some(90), Some(Window::Hour)),
            (None, "100 calls per 1 minute", None, Some(Window::Minute)),
            (None, "again in 0 seconds.", None, None),
            (None, "in -3 seconds", None, None),
            (None, "per", None, None),
            (None, "per 1", None, None),
            (None, "per 99999999999999999999:00:00", None, None),
            (None, "", None, None),
        ] {
            let expected = Told { wait: wait.map(Duration::from_secs), window };
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
