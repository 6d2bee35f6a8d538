//! Time as Defender writes it: 100 ns ticks.

use std::time::Duration;

use crate::domain::time::Wall;

/// Units of 100 ns since the Unix epoch, as far as a `DateTime` of .NET resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticks(i64);

const PER_MILLISECOND: i64 = 10_000;

impl Ticks {
    /// The start of this millisecond.
    pub(super) const fn at(wall: Wall) -> Self {
        Self(wall.0.saturating_mul(PER_MILLISECOND))
    }

    /// Moved on by a few ticks.
    pub(super) fn and(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(i64::from(ticks)))
    }

    pub(super) fn after(self, duration: Duration) -> Self {
        let ticks = i64::try_from(duration.as_nanos() / 100).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(ticks))
    }

    /// With up to seven fractional digits, trailing zeros trimmed (observed in every capture).
    pub(super) fn rfc3339(self) -> String {
        jiff::Timestamp::from_nanosecond(i128::from(self.0) * 100)
            .map_or_else(|_| format!("{} ticks", self.0), |at| at.to_string())
    }

    /// Reads a date with its offset, in any precision; what is below a tick is cut off.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(at.as_nanosecond().div_euclid(100)).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_digits_are_kept_and_zeros_trimmed() {
        for text in ["2024-10-21T11:26:49.6894208Z", "2024-10-21T11:26:49.68Z", "2024-10-21T11:26:49Z"] {
            assert_eq!(Ticks::parse(text).unwrap().rfc3339(), text);
        }
        assert_eq!(Ticks::at(Wall(1_500)).and(7).rfc3339(), "1970-01-01T00:00:01.5000007Z");
        assert_eq!(Ticks::at(Wall(0)).after(Duration::from_micros(1)).rfc3339(), "1970-01-01T00:00:00.000001Z");
        assert_eq!(Ticks::parse("2024-10-21"), None);
    }
}
