//! The arithmetic of the budget: may one more call be made, and if not, when?
//!
//! # Why it holds at the server
//!
//! The server counts *arrivals* in windows; we only know when we took a slot and when the call
//! **settled**: its answer was read, or its connection failed before a byte was sent, or so much
//! time has passed that nothing can deliver it any more. A call arrives between the two.
//!
//! A slot is taken only when fewer than N slots are unsettled or settled within the last window
//! (plus [`MARGIN`]). Take any N + 1 calls, and let X be the one whose slot was taken last. When X
//! was let in, at most N − 1 of all slots were still held, so at least one of the other N calls,
//! Y, had settled more than a window before. Y arrived before it settled, X arrives after it was
//! taken: their arrivals lie more than a window apart. So no window, wherever it begins, sees
//! N + 1 arrivals. Latency, stalls and order on the wire do not appear in the argument.
//!
//! The one assumption is that nothing delivers a request later than `unknown_grace` after we gave
//! it up: that is when a call without an answer settles.

use std::num::NonZeroU32;
use std::time::Duration;

use super::time::Boot;

/// Added to each window: the resolution of our clock, and of the server's.
pub const MARGIN: Duration = Duration::from_millis(250);

/// The two windows in which Defender counts, for every kind of call (documented per API page).
pub const MINUTE: Duration = Duration::from_mins(1);
/// See [`MINUTE`].
pub const HOUR: Duration = Duration::from_hours(1);

/// How many calls of one kind a tenant may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In any 60 s.
    pub per_minute: NonZeroU32,
    /// In any 3,600 s. Never below `per_minute`.
    pub per_hour: NonZeroU32,
}

/// How the budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as both limits allow.
    #[default]
    Burst,
    /// Spread over the hour.
    Even,
}

super::sweep::words!(Pace { Burst = "burst", Even = "even" });

/// The kinds of call, each with limits of its own at Defender (inferred: buckets are per
/// operation, tenant and application).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// `POST /api/machines/{id}/runAntiVirusScan`
    Scan,
    /// `GET /api/machineactions`
    ListActions,
    /// `GET /api/machineactions/{id}`
    GetAction,
    /// `GET /api/machines`
    ListMachines,
    /// `GET /api/machines/{id}`
    GetMachine,
    /// `POST /api/machineactions/{id}/cancel`
    CancelAction,
}

super::sweep::words!(CallKind {
    Scan = "scan",
    ListActions = "list_actions",
    GetAction = "get_action",
    ListMachines = "list_machines",
    GetMachine = "get_machine",
    CancelAction = "cancel_action",
});

/// Why a text is no [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("per_hour is {per_hour}, below per_minute ({per_minute}): the hour could never fill a minute")]
pub struct HourBelowMinute {
    per_minute: NonZeroU32,
    per_hour: NonZeroU32,
}

const fn documented(calls: u32) -> NonZeroU32 {
    match NonZeroU32::new(calls) {
        Some(calls) => calls,
        None => NonZeroU32::MIN,
    }
}

impl Limits {
    /// 100 a minute and 1,500 an hour: what Microsoft documents for each of the calls in
    /// [`CallKind`] (run-av-scan, get-machineactions-collection, get-machines, cancel).
    pub const DOCUMENTED: Self = Self { per_minute: documented(100), per_hour: documented(1500) };

    /// Limits of a call, checked against each other.
    pub fn new(per_minute: NonZeroU32, per_hour: NonZeroU32) -> Result<Self, HourBelowMinute> {
        if per_hour < per_minute {
            return Err(HourBelowMinute { per_minute, per_hour });
        }
        Ok(Self { per_minute, per_hour })
    }

    /// What both allow.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self { per_minute: self.per_minute.min(other.per_minute), per_hour: self.per_hour.min(other.per_hour) }
    }

    /// What is ours when `percent` (below 100) is left to others; at least one call each.
    #[must_use]
    pub fn without_reserve(self, percent: u8) -> Self {
        let ours = |limit: NonZeroU32| {
            let kept = u64::from(limit.get()) * u64::from(100 - percent.min(99)) / 100;
            NonZeroU32::new(u32::try_from(kept).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
        };
        Self { per_minute: ours(self.per_minute), per_hour: ours(self.per_hour) }
    }
}

/// Calls that count in each window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// In the sliding minute.
    pub minute: u32,
    /// In the sliding hour.
    pub hour: u32,
}

/// What holds the N-th newest slot of a window, N being its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nth {
    /// Fewer than N slots are known.
    Absent,
    /// The slot settled, or will have, at this time.
    Settled(Boot),
    /// Its call is still on the wire.
    Unsettled,
}

/// Which of the two windows binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The sliding minute.
    Minute,
    /// The sliding hour.
    Hour,
}

super::sweep::words!(Window { Minute = "minute", Hour = "hour" });

/// The ledger's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A slot may be taken now.
    Open,
    /// Not before this time, because of this window.
    NotBefore(Boot, Window),
    /// A call on the wire holds the slot that must come free: its settling decides.
    WhenSettled(Window),
}

/// May a slot be taken at `now`, given what holds the N-th newest slot of each window?
///
/// *Newest* orders by the time of settling, unsettled ones first.
pub fn admission(minute: Nth, hour: Nth, now: Boot) -> Admission {
    let opens = |nth, window, length: Duration| match nth {
        Nth::Absent => Admission::Open,
        Nth::Unsettled => Admission::WhenSettled(window),
        Nth::Settled(at) => {
            let free = at + length + MARGIN;
            if free <= now { Admission::Open } else { Admission::NotBefore(free, window) }
        }
    };
    let minute = opens(minute, Window::Minute, MINUTE);
    match (minute, opens(hour, Window::Hour, HOUR)) {
        (other, Admission::Open) | (Admission::Open, other) => other,
        (Admission::NotBefore(a, _), hour @ Admission::NotBefore(b, _)) => {
            if b >= a {
                hour
            } else {
                minute
            }
        }
        (Admission::WhenSettled(_), hour) => hour,
        (minute, Admission::WhenSettled(_)) => minute,
    }
}

#[cfg(test)]
pub mod memory;
#[cfg(test)]
mod schedules;

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_minute: u32, per_hour: u32) -> Limits {
        Limits::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(per_hour).unwrap()).unwrap()
    }

    #[test]
    fn an_hour_below_the_minute_is_refused() {
        assert!(Limits::new(NonZeroU32::new(5).unwrap(), NonZeroU32::new(4).unwrap()).is_err());
    }

    #[test]
    fn a_reserve_is_left_to_others_but_never_everything() {
        assert_eq!(limits(100, 1500).without_reserve(20), limits(80, 1200));
        assert_eq!(limits(1, 1).without_reserve(99), limits(1, 1));
        assert_eq!(limits(100, 1500).without_reserve(0), limits(100, 1500));
    }

    #[test]
    fn admission_waits_for_the_window_that_binds_longest() {
        let at = |s: i64| Boot(s * 1000);
        let now = at(10_000);
        assert_eq!(admission(Nth::Absent, Nth::Absent, now), Admission::Open);
        assert_eq!(
            admission(Nth::Settled(at(9_990)), Nth::Absent, now),
            Admission::NotBefore(at(10_050) + MARGIN, Window::Minute)
        );
        assert_eq!(
            admission(Nth::Settled(at(9_990)), Nth::Settled(at(9_000)), now),
            Admission::NotBefore(at(12_600) + MARGIN, Window::Hour)
        );
        assert_eq!(admission(Nth::Settled(at(9_000)), Nth::Settled(at(5_000)), now), Admission::Open);
        assert_eq!(admission(Nth::Unsettled, Nth::Absent, now), Admission::WhenSettled(Window::Minute));
    }
}
