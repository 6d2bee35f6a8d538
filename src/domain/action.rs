//! A `MachineAction` of Defender, as far as sweepd decides by it. The object itself is kept
//! verbatim by the store.

use std::fmt;

use super::id::MachineId;
use super::sweep::ScanType;
use super::time::Wall;

/// The type of a scan, as machineaction spells it.
pub const SCAN: &str = "RunAntiVirusScan";

/// `status` of a `MachineAction`. Documented: the six; anything else is kept and shown, and counts
/// as neither pending nor final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionStatus {
    /// Accepted by Defender; the machine has not taken it up.
    Pending,
    /// The machine works on it.
    InProgress,
    /// Defender's word; may mean no more than started on the machine.
    Succeeded,
    /// It failed.
    Failed,
    /// Defender gave up (observed: about three days for a machine that stays away).
    TimeOut,
    /// Cancelled, with two l.
    Cancelled,
    /// A word that Defender does not document.
    Other(String),
}

impl ActionStatus {
    /// The status as Defender spells it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::TimeOut => "TimeOut",
            Self::Cancelled => "Cancelled",
            Self::Other(word) => word,
        }
    }

    /// Reads the word in any case. `Canceled` is read as `Cancelled`: Defender spells it so in other lists.
    pub fn parse(word: &str) -> Self {
        if word.eq_ignore_ascii_case("Canceled") {
            return Self::Cancelled;
        }
        [Self::Pending, Self::InProgress, Self::Succeeded, Self::Failed, Self::TimeOut, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(word))
            .unwrap_or_else(|| Self::Other(word.to_owned()))
    }

    /// The word of a status that Defender does not document.
    pub fn unknown_word(&self) -> Option<&str> {
        match self {
            Self::Other(word) => Some(word),
            _ => None,
        }
    }

    /// Pending or in progress: the machine is busy.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::InProgress)
    }

    /// One of the four that end an action.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::TimeOut | Self::Cancelled)
    }
}

impl fmt::Display for ActionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who asked for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It carries the mark of an attempt of ours.
    Ours,
    /// Somebody else did: the portal, another tool, another sweepd.
    Foreign,
}

super::sweep::words!(Origin { Ours = "ours", Foreign = "foreign" });

/// What sweepd reads in a `MachineAction`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// `id`: a GUID in every capture, treated as opaque.
    pub id: String,
    /// `type`, an open set.
    pub action_type: String,
    /// `status`.
    pub status: ActionStatus,
    /// `machineId`; null was seen.
    pub machine: Option<MachineId>,
    /// Whether the mark in the comment is one of ours.
    pub origin: Origin,
    /// `scope` of a scan; null in a fresh answer, `Quick` or `Full` on later reads (observed).
    pub scope: Option<ScanType>,
    /// `requestorComment`.
    pub comment: Option<String>,
    /// `creationDateTimeUtc`.
    pub created_at: Wall,
    /// `lastUpdateDateTimeUtc`, else the creation time.
    pub updated_at: Wall,
}

impl Action {
    /// Whether this is an antivirus scan.
    pub fn is_scan(&self) -> bool {
        self.action_type.eq_ignore_ascii_case(SCAN)
    }
}

/// An action as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What sweepd reads in it. Its `origin` is provisional: only the store knows which marks are
    /// ours.
    pub action: Action,
    /// The object verbatim.
    pub raw: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_as_documented_and_unknown_ones_kept() {
        for word in ["Pending", "InProgress", "Succeeded", "Failed", "TimeOut", "Cancelled"] {
            let status = ActionStatus::parse(word);
            assert_eq!(status.as_str(), word);
            assert!(status.is_open() != status.is_final(), "{word} is either open or final");
        }
        assert_eq!(ActionStatus::parse("canceled"), ActionStatus::Cancelled);
        let odd = ActionStatus::parse("Paused");
        assert_eq!(odd.as_str(), "Paused");
        assert!(!odd.is_open() && !odd.is_final());
    }
}
