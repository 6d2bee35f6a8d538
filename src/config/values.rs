//! What single values look like: durations, sizes, counts, words, addresses.
//!
//! A parser takes the text of a value and says what is wrong with it and how it is written right.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::domain::time::Wall;

/// What is wrong with one value, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// A hundred years: what is longer is a slip of the pen, and would overflow a clock.
const LONGEST: Duration = Duration::from_hours(36_500 * 24);

/// The value as an error may show it: printable and short.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > 40 {
        short.push('…');
    }
    format!("`{short}`")
}

/// Number and unit of a text such as `30s`; the number is absent when there are no digits.
fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(unit).and_then(|digits| digits.parse().ok());
    (number, unit.trim())
}

/// `250ms`, `30s`, `5m`, `80h`, `7d`; at most a hundred years.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    const HOW: &str = "write a whole number and a unit: ms, s, m, h or d, such as 30s, 5m or 7d";
    let (number, unit) = number_and_unit(text);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => {
            return Err(Wrong::new(format!("{} is not a duration", shown(text)), HOW));
        }
    };
    let Some(number) = number else {
        return Err(Wrong::new(format!("{} is not a duration", shown(text)), HOW));
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| Wrong::new(format!("{} is longer than a hundred years", shown(text)), "write at most 36500d"))
}

/// As [`duration`], but not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, Wrong> {
    let duration = duration(text)?;
    if duration.is_zero() {
        return Err(Wrong::new("is zero", "write a duration above zero, such as 30s"));
    }
    Ok(duration)
}

/// Bytes: plain, or with `KiB`, `MiB`, `GiB`, `TiB`; not zero.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    const HOW: &str = "write bytes, or a whole number with KiB, MiB, GiB or TiB, such as 256MiB";
    let (number, unit) = number_and_unit(text);
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" => 1_u64,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(Wrong::new(format!("{} is not a size", shown(text)), HOW)),
    };
    match number.and_then(|number| number.checked_mul(bytes)) {
        Some(0) => Err(Wrong::new("is zero", HOW)),
        Some(size) => Ok(size),
        None => Err(Wrong::new(format!("{} is not a size", shown(text)), HOW)),
    }
}

fn number<T: FromStr>(text: &str, how: &str) -> Result<T, Wrong> {
    text.trim().parse().map_err(|_| Wrong::new(format!("{} is not such a number", shown(text)), how))
}

/// A whole number, zero included.
pub(super) fn count(text: &str) -> Result<u64, Wrong> {
    number(text, "write a whole number, 0 or more")
}

/// A whole number from 1 to 4,294,967,295.
pub(super) fn positive(text: &str) -> Result<NonZeroU32, Wrong> {
    const HOW: &str = "write a whole number from 1 to 4294967295";
    NonZeroU32::new(number(text, HOW)?).ok_or_else(|| Wrong::new("is 0", HOW))
}

/// A percentage of which something remains: 0 to 90.
pub(super) fn reserve(text: &str) -> Result<u8, Wrong> {
    const HOW: &str = "write a whole number from 0 to 90";
    let percent = number(text, HOW)?;
    if percent > 90 {
        return Err(Wrong::new(format!("is {percent}, above 90"), HOW));
    }
    Ok(percent)
}

/// `true` or `false`; from the environment also `1`, `0`, `yes`, `no`, `on`, `off`.
pub(super) fn flag(text: &str) -> Result<bool, Wrong> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Wrong::new(format!("{} is neither true nor false", shown(text)), "write true or false")),
    }
}

/// One of the words of an enum.
pub(super) fn word<T>(text: &str) -> Result<T, Wrong>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| Wrong::new(error.to_string(), "write one of these"))
}

/// Any text that is not blank.
pub(super) fn text(text: &str) -> Result<String, Wrong> {
    if text.trim().is_empty() {
        return Err(Wrong::new("is empty", "write a value"));
    }
    Ok(text.trim().to_owned())
}

/// A path, not empty.
pub(super) fn path(path: &str) -> Result<PathBuf, Wrong> {
    text(path).map(PathBuf::from)
}

/// An address to listen on.
pub(super) fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    text.trim().parse().map_err(|_| {
        Wrong::new(
            format!("{} is not an address with a port", shown(text)),
            "write one such as 127.0.0.1:9464 or [::1]:9464, or \"\" for none",
        )
    })
}

/// Nothing for an empty text, else what `parse` makes of it.
pub(super) fn optional<T>(
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> impl FnOnce(&str) -> Result<Option<T>, Wrong> {
    move |text| {
        if text.trim().is_empty() { Ok(None) } else { parse(text).map(Some) }
    }
}

/// A day, from its beginning in UTC, or a time of RFC 3339.
pub(super) fn day(text: &str) -> Result<Wall, Wrong> {
    Wall::parse(text).or_else(|| Wall::parse(&format!("{text}T00:00:00Z"))).ok_or_else(|| {
        Wrong::new(format!("{} is no day", shown(text)), "write it as 2027-01-31, or as 2027-01-31T09:00:00Z")
    })
}

/// A level, or directives as `tracing-subscriber` understands them (`info,sweepd=debug`).
pub(super) fn log_level(text: &str) -> Result<String, Wrong> {
    const HOW: &str = "write off, error, warn, info, debug or trace, or directives such as info,sweepd::engine=debug";
    // Blanks after a comma make the filter read a part from the wrong place on, and panic within a letter.
    let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    // The filter takes a bare word that is no level for the name of a module, so that `inof` would
    // be silence.
    let strange = text.split(',').find(|part| {
        let bare = !part.contains(['=', '[']);
        let level = part.parse::<tracing_subscriber::filter::LevelFilter>();
        bare && (part.is_empty() || level.is_err())
    });
    if let Some(part) = strange {
        return Err(Wrong::new(format!("{} is not a level", shown(part)), HOW));
    }
    if tracing_subscriber::EnvFilter::builder().parse(&text).is_err() {
        return Err(Wrong::new(format!("{} is not a log filter", shown(&text)), HOW));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, millis) in
            [("250ms", 250), ("0s", 0), ("30s", 30_000), ("5m", 300_000), ("80h", 288_000_000), (" 7d ", 604_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "60", "s", "1.5h", "-1s", "1h30m", "5 minutes", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("36500d").is_ok());
        assert!(duration("36501d").unwrap_err().what.contains("hundred years"));
        assert!(duration("18446744073709551615d").is_err());
        assert_eq!(positive_duration("0ms").unwrap_err().what, "is zero");
    }

    #[test]
    fn sizes_are_binary_or_plain_bytes() {
        for (text, bytes) in
            [("1", 1), ("10KiB", 10 << 10), ("256MiB", 256 << 20), ("1 gib", 1 << 30), ("2TiB", 2 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "1KB", "-1", "1.5GiB", "MiB", "99999999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_whole_and_within_their_range() {
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count(" 77 "), Ok(77));
        assert_eq!(positive("5").unwrap().get(), 5);
        assert_eq!(reserve("90"), Ok(90));
        assert!(count("-1").is_err() && count("1.5").is_err() && count("true").is_err());
        assert!(positive("0").is_err() && positive("4294967296").is_err());
        assert!(reserve("91").is_err() && reserve("-1").is_err() && reserve("300").is_err());
    }

    #[test]
    fn flags_are_true_or_false() {
        assert_eq!((flag("TRUE"), flag("off")), (Ok(true), Ok(false)));
        assert!(flag("maybe").is_err());
    }

    #[test]
    fn log_levels_are_levels_or_directives() {
        for text in ["info", "OFF", "info,sweepd=debug", "warn,sweepd[run{tenant=x}]=trace"] {
            assert_eq!(log_level(text), Ok(text.to_owned()));
        }
        assert_eq!(log_level(" info, sweepd=debug ,warn").as_deref(), Ok("info,sweepd=debug,warn"));
        // What a fuzzer found: it ended in a panic.
        drop(log_level("2, 2\u{fffd}[2"));
        for text in ["", "inof", "info,verbose", "sweepd=loud"] {
            assert!(log_level(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_printable_and_short() {
        assert_eq!(shown("a\nb"), "`a b`");
        assert_eq!(shown(&"x".repeat(41)), format!("`{}…`", "x".repeat(40)));
    }
}
