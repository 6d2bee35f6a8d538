//! What a machine may be given besides its id, and how both CSV columns and JSON keys spell it.

use std::borrow::Cow;
use std::str::FromStr;

use super::{Line, Options, Refusal, Row, printable};
use crate::domain::id::MachineId;
use crate::domain::sweep::{UnknownWord, clean_comment};
use crate::domain::time::Wall;

/// The longest device name that is kept; Windows allows 15 characters, DNS 253.
const NAME_MAX: usize = 256;

/// What a column or a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Machine,
    Name,
    Onboarding,
    ScanType,
    Comment,
    Priority,
    NotBefore,
    OnPending,
}

/// Every spelling that is understood, in any case. Where two of one slot are present, the one that
/// stands higher here counts: `id` may be anything next to a `machine_id`.
const SPELLINGS: &[(&str, Slot)] = &[
    ("machine_id", Slot::Machine),
    ("MachineId", Slot::Machine),
    ("Device ID", Slot::Machine),
    ("DeviceId", Slot::Machine),
    ("MdatpDeviceId", Slot::Machine),
    ("id", Slot::Machine),
    ("Device Name", Slot::Name),
    ("DeviceName", Slot::Name),
    ("computerDnsName", Slot::Name),
    ("Onboarding Status", Slot::Onboarding),
    ("OnboardingStatus", Slot::Onboarding),
    ("scan_type", Slot::ScanType),
    ("comment", Slot::Comment),
    ("priority", Slot::Priority),
    ("not_before", Slot::NotBefore),
    ("on_pending", Slot::OnPending),
];

/// The spellings of a machine id, for messages.
pub const ID_SPELLINGS: &str = "machine_id, MachineId, Device ID, DeviceId, MdatpDeviceId, id";

/// What `name` means, with its rank among the spellings: lower is preferred.
pub fn slot(name: &str) -> Option<(Slot, usize)> {
    let name = name.trim();
    SPELLINGS
        .iter()
        .enumerate()
        .find(|(_, (spelling, _))| spelling.eq_ignore_ascii_case(name))
        .map(|(rank, (_, slot))| (*slot, rank))
}

/// One value for each [`Slot`].
#[derive(Clone, Debug, Default)]
pub struct Slots<T> {
    pub machine: T,
    pub name: T,
    pub onboarding: T,
    pub scan_type: T,
    pub comment: T,
    pub priority: T,
    pub not_before: T,
    pub on_pending: T,
}

impl<T> Slots<T> {
    /// The value of `slot`.
    pub fn at(&mut self, slot: Slot) -> &mut T {
        match slot {
            Slot::Machine => &mut self.machine,
            Slot::Name => &mut self.name,
            Slot::Onboarding => &mut self.onboarding,
            Slot::ScanType => &mut self.scan_type,
            Slot::Comment => &mut self.comment,
            Slot::Priority => &mut self.priority,
            Slot::NotBefore => &mut self.not_before,
            Slot::OnPending => &mut self.on_pending,
        }
    }

    /// The same slots with each value replaced.
    pub fn map<'a, U>(&'a self, mut with: impl FnMut(&'a T) -> U) -> Slots<U> {
        Slots {
            machine: with(&self.machine),
            name: with(&self.name),
            onboarding: with(&self.onboarding),
            scan_type: with(&self.scan_type),
            comment: with(&self.comment),
            priority: with(&self.priority),
            not_before: with(&self.not_before),
            on_pending: with(&self.on_pending),
        }
    }
}

/// What a file gives for one slot.
#[derive(Clone, Debug)]
pub enum Given<'a> {
    /// A cell, or a JSON string.
    Text(Cow<'a, str>),
    /// JSON that is no string; which kind of value, in words.
    Other(&'static str),
}

/// All that a file gives for one machine.
pub type Found<'a> = Slots<Option<Given<'a>>>;

/// What is wrong with a field, in words; `field: reason` when it is known which.
pub type Fault = String;

/// The machine that `text` names.
pub fn machine(text: &str) -> Result<MachineId, Fault> {
    super::machine::machine(text)
}

/// One of a few words; empty means that nothing is asked for.
pub fn word<T: FromStr<Err = UnknownWord>>(text: &str) -> Result<Option<T>, Fault> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: UnknownWord| error.to_string())
}

/// A comment that may be sent to Defender, which keeps it for good: what could not be decoded is
/// refused rather than kept mangled.
pub fn comment(text: &str) -> Result<Option<String>, Fault> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("holds bytes that are no text in the file's encoding; save the file as UTF-8".to_owned());
    }
    let comment = clean_comment(text).map_err(|error| error.to_string())?;
    Ok((!comment.is_empty()).then_some(comment))
}

/// A point in time.
pub fn not_before(text: &str) -> Result<Option<Wall>, Fault> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    Wall::parse(text).map(Some).ok_or_else(|| {
        format!(
            "`{}` is no time with its offset (RFC 3339), such as 2026-10-05T22:00:00Z or 2026-10-05T22:00:00+02:00",
            printable(text.trim(), 40)
        )
    })
}

/// Reads one slot that a row may leave out, and says which one was wrong.
fn optional<T>(
    field: &str,
    given: Option<&Given<'_>>,
    read: impl FnOnce(&str) -> Result<Option<T>, Fault>,
) -> Result<Option<T>, Fault> {
    match given {
        None => Ok(None),
        Some(Given::Text(text)) => read(text).map_err(|reason| format!("{field}: {reason}")),
        Some(Given::Other(kind)) => Err(format!("{field}: a string is expected, not {kind}")),
    }
}

/// A short text that is shown, never acted on.
fn label(text: &str) -> Option<Box<str>> {
    let text = text.trim();
    (!text.is_empty()).then(|| printable(text, NAME_MAX).into_boxed_str())
}

fn row(line: u64, found: &Found<'_>) -> Result<Row, Fault> {
    let machine = match &found.machine {
        None => {
            return Err(format!("no machine id; it is named by one of: {ID_SPELLINGS}"));
        }
        Some(Given::Text(text)) => machine(text)?,
        Some(Given::Other(kind)) => {
            return Err(format!("the machine id is {kind}; a string is expected"));
        }
    };
    Ok(Row {
        line,
        machine,
        name: optional("device name", found.name.as_ref(), |text| Ok(label(text)))?,
        scan_type: optional("scan_type", found.scan_type.as_ref(), word)?,
        comment: optional("comment", found.comment.as_ref(), comment)?.map(String::into_boxed_str),
        priority: optional("priority", found.priority.as_ref(), word)?,
        not_before: optional("not_before", found.not_before.as_ref(), not_before)?,
        on_pending: optional("on_pending", found.on_pending.as_ref(), word)?,
    })
}

/// Why a machine is left out, if it is: a portal export also lists what could be, or can never be,
/// onboarded, and no scan reaches those.
fn left_out(found: &Found<'_>, options: Options) -> Result<Option<String>, Fault> {
    let status = optional("onboarding status", found.onboarding.as_ref(), |text| Ok(label(text)))?;
    Ok(status
        .filter(|status| options.only_onboarded && !status.eq_ignore_ascii_case("onboarded"))
        .map(|status| format!("onboarding status is `{}`", printable(&status, 60))))
}

/// What becomes of one record; `shown` is how it reads in a refusal.
pub fn judge(line: u64, found: &Found<'_>, options: Options, shown: impl FnOnce() -> String) -> Line {
    let judged = row(line, found).and_then(|row| Ok((row, left_out(found, options)?)));
    match judged {
        Ok((row, None)) => Line::Row(row),
        Ok((Row { machine, name, .. }, Some(reason))) => Line::NotEligible { line, machine, name, reason },
        Err(reason) => Line::Refused(Refusal::new(line, &shown(), reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sweep::{Priority, ScanType};

    #[test]
    fn spellings_are_known_in_any_case_and_ranked() {
        assert_eq!(slot(" MACHINE_ID "), Some((Slot::Machine, 0)));
        assert_eq!(slot("device id").unwrap().0, Slot::Machine);
        assert!(slot("DeviceID").unwrap().1 < slot("ID").unwrap().1);
        assert_eq!(slot("computerdnsname").unwrap().0, Slot::Name);
        assert_eq!(slot("device"), None);
    }

    #[test]
    fn empty_fields_ask_for_nothing() {
        assert_eq!(word::<ScanType>(" ").unwrap(), None);
        assert_eq!(comment("\r\n").unwrap(), None);
        assert_eq!(not_before("").unwrap(), None);
    }

    #[test]
    fn wrong_fields_say_what_is_allowed() {
        assert_eq!(word::<Priority>("asap").unwrap_err(), "`asap` is not one of: low, normal, high, urgent");
        assert!(not_before("tomorrow").unwrap_err().contains("2026-10-05T22:00:00Z"));
        assert!(not_before("2026-10-05T22:00:00").is_err(), "no offset, no time");
        assert!(comment("caf\u{fffd}").unwrap_err().contains("UTF-8"));
        assert!(comment(&"x".repeat(1001)).unwrap_err().contains("1000"));
    }
}
