//! What a machine may be given besides its id, whether in CSV columns or under JSON keys.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::keys::{self, ID_NAMES, Known, Near, Slot};
use super::{Line, Options, Refusal, Row, printable};
use crate::domain::id::MachineId;
use crate::domain::sweep::{ScanType, UnknownWord, clean_comment};
use crate::domain::time::Wall;

/// The longest device name that is kept; Windows allows 15 characters, DNS 253.
const NAME_MAX: usize = 256;

/// How much of a name or a value is shown in a reason, in characters.
const SHOWN_MAX: usize = 60;

/// What a file gives for one slot.
#[derive(Clone, Debug)]
pub enum Given<'a> {
    /// A cell, or a JSON string.
    Text(Cow<'a, str>),
    /// JSON that is no string; which kind of value, in words.
    Other(&'static str),
}

impl Given<'_> {
    pub fn is_blank(&self) -> bool {
        matches!(self, Self::Text(text) if text.trim().is_empty())
    }

    /// Whether both say the same.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one.trim().eq_ignore_ascii_case(two.trim()),
            _ => false,
        }
    }
}

/// All that a file gives for one machine.
#[derive(Debug, Default)]
pub struct Found<'a> {
    values: Vec<(Known, Cow<'a, str>, Given<'a>)>,
    /// Why it cannot be used, whatever else it says.
    fault: Option<Fault>,
    /// A name that was passed over, and that may be a slip.
    aside: Option<String>,
}

impl<'a> Found<'a> {
    /// Takes in what stands under a name that is known.
    pub fn add(&mut self, name: Cow<'a, str>, known: Known, given: Given<'a>) {
        if known.slot.is_unsupported() && !given.is_blank() {
            self.fault.get_or_insert_with(|| unsupported(&name));
        }
        match self.values.iter_mut().find(|(other, ..)| other.rank == known.rank) {
            None => self.values.push((known, name, given)),
            Some((.., before)) if given.is_blank() || given.is(before) => {}
            Some((_, _, before)) if before.is_blank() => *before = given,
            Some((_, before, _)) => {
                let fault = twice(before, &name);
                self.fault.get_or_insert(fault);
            }
        }
    }

    /// Takes in a name that is not known.
    pub fn add_unknown(&mut self, name: &str) {
        match keys::near(name) {
            Some(near @ Near::Option(_)) => {
                self.fault.get_or_insert_with(|| slip("key", name, near));
            }
            Some(near @ Near::Else(_)) => {
                self.aside.get_or_insert_with(|| passed_over("key", name, near));
            }
            None => {}
        }
    }

    /// A warning about a name that was passed over.
    pub fn aside(&self) -> Option<&str> {
        self.aside.as_deref()
    }

    /// Why it cannot be used, whatever else it says.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }

    /// Whether it names a machine.
    pub fn is_machine(&self) -> bool {
        self.at(Slot::Machine).is_some()
    }

    /// What is given for a slot, under its preferred name. A machine's id stands under one name in the whole file.
    fn at(&self, slot: Slot) -> Option<&Given<'a>> {
        let given = self.values.iter().filter(|(known, ..)| known.slot == slot);
        let rank = |(known, _, given): &&(Known, _, Given<'_>)| (slot != Slot::Machine && given.is_blank(), known.rank);
        given.min_by_key(rank).map(|(.., given)| given)
    }
}

/// What is said of two names that mean the same, and hold two values.
pub fn twice(first: &str, second: &str) -> Fault {
    let (first, second) = (printable(first.trim(), SHOWN_MAX), printable(second.trim(), SHOWN_MAX));
    format!("`{first}` and `{second}` are the same option and hold two values; keep one of them")
}

/// What is said of a name that is one letter off an option, and is refused for that.
pub fn slip(what: &str, name: &str, near: Near) -> Fault {
    let (name, meant) = (printable(name.trim(), SHOWN_MAX), near.meant());
    format!("unknown {what} `{name}`: did you mean {meant}? Rename it or remove it")
}

/// What is said of a name that is one letter off a known one, and is passed over.
pub fn passed_over(what: &str, name: &str, near: Near) -> String {
    let (name, meant) = (printable(name.trim(), SHOWN_MAX), near.meant());
    format!("{what} `{name}` is unknown and was not read: did you mean {meant}?")
}

/// What is said of an option of a later version.
pub fn unsupported(name: &str) -> Fault {
    let name = printable(name.trim(), SHOWN_MAX);
    format!(
        "`{name}` is not supported by this version: without it the scan would be at another time or of other machines \
         than asked for; remove it"
    )
}

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

/// A scan type; `Full scan` as the portal and `FullScan` as PowerShell have it are understood too.
pub fn scan_type(text: &str) -> Result<Option<ScanType>, Fault> {
    let called = |scan: &&ScanType| keys::is(text, &format!("{}scan", scan.as_str().to_ascii_lowercase()));
    match ScanType::ALL.iter().find(called) {
        Some(scan) => Ok(Some(*scan)),
        None => word(text),
    }
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
    let machine = match found.at(Slot::Machine) {
        None => return Err(format!("no machine id; it is named by one of: {ID_NAMES}")),
        Some(Given::Text(text)) => machine(text)?,
        Some(Given::Other(kind)) => {
            return Err(format!("the machine id is {kind}; a string is expected"));
        }
    };
    Ok(Row {
        line,
        machine,
        name: optional("device name", found.at(Slot::Name), |text| Ok(label(text)))?,
        scan_type: optional("scan_type", found.at(Slot::ScanType), scan_type)?,
        comment: optional("comment", found.at(Slot::Comment), comment)?.map(String::into_boxed_str),
        priority: optional("priority", found.at(Slot::Priority), word)?,
        not_before: optional("not_before", found.at(Slot::NotBefore), not_before)?,
        on_pending: optional("on_pending", found.at(Slot::OnPending), word)?,
        tenant: optional("tenant", found.at(Slot::Tenant), |text| Ok(label(text)))?,
    })
}

/// Why a machine is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOutFor {
    /// It could be, or can never be, onboarded: no scan reaches it. With its status.
    NotOnboarded(Box<str>),
    /// Its record is an old one of a machine that has another by now, with that one's id: no scan reaches it.
    Merged(Box<str>),
}

impl fmt::Display for LeftOutFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOnboarded(status) => write!(f, "onboarding status is `{status}`"),
            Self::Merged(into) => write!(f, "merged into `{into}`, which is the machine's record now"),
        }
    }
}

/// Why a machine is left out, if it is: a portal export also lists what is not onboarded, and every export lists dead
/// records.
fn left_out(found: &Found<'_>, options: Options) -> Result<Option<LeftOutFor>, Fault> {
    let short = |text: &str| Ok((!text.trim().is_empty()).then(|| printable(text.trim(), SHOWN_MAX).into_boxed_str()));
    let merged = optional("merged into", found.at(Slot::Merged), short)?;
    let status = optional("onboarding status", found.at(Slot::Onboarding), short)?;
    let refused = status.filter(|status| options.only_onboarded && !status.eq_ignore_ascii_case("onboarded"));
    Ok(merged.map(LeftOutFor::Merged).or(refused.map(LeftOutFor::NotOnboarded)))
}

/// What becomes of one record; `shown` is how it reads in a refusal.
pub fn judge(line: u64, found: &Found<'_>, options: Options, shown: impl FnOnce() -> String) -> Line {
    let usable = found.fault.clone().map_or(Ok(()), Err);
    let judged = usable.and_then(|()| row(line, found)).and_then(|row| Ok((row, left_out(found, options)?)));
    match judged {
        Ok((row, None)) => Line::Row(row),
        Ok((Row { machine, name, .. }, Some(why))) => Line::NotEligible { line, machine, name, why },
        Err(reason) => Line::Refused(Refusal::new(line, &shown(), reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sweep::{Priority, ScanType};

    fn found(values: &[(&'static str, &'static str)]) -> Found<'static> {
        let mut found = Found::default();
        for (name, text) in values {
            found.add((*name).into(), keys::known(name).unwrap(), Given::Text((*text).into()));
        }
        found
    }

    #[test]
    fn scan_type_is_read_as_people_write_it() {
        for text in ["full", "FULL", " Full ", "Full scan", "FullScan", "full_scan"] {
            assert_eq!(scan_type(text), Ok(Some(ScanType::Full)), "{text}");
        }
        assert_eq!(scan_type("QuickScan"), Ok(Some(ScanType::Quick)));
        assert_eq!(scan_type(" "), Ok(None));
        for text in ["fu", "custom", "CustomScan", "Full, please", "scan"] {
            assert!(scan_type(text).unwrap_err().ends_with("is not one of: Quick, Full"), "{text}");
        }
    }

    #[test]
    fn option_given_twice_counts_when_both_say_the_same() {
        for (values, fault) in [
            ([("scan_type", "Full"), ("ScanType", "full ")], None),
            ([("scan_type", ""), ("ScanType", "Full")], None),
            ([("scan_type", "Full"), ("ScanType", " ")], None),
            ([("scan_type", "Full"), ("Scan Type", "Quick")], Some("`scan_type` and `Scan Type` are the same option")),
        ] {
            let found = found(&values);
            assert_eq!(found.fault.is_some(), fault.is_some(), "{values:?}");
            assert!(found.fault.as_deref().unwrap_or_default().starts_with(fault.unwrap_or_default()), "{values:?}");
            assert!(
                fault.is_some()
                    || matches!(optional("", found.at(Slot::ScanType), scan_type), Ok(Some(ScanType::Full)))
            );
        }
    }

    #[test]
    fn unsupported_option_is_a_fault_where_it_says_something() {
        for name in ["window", "Expires", "SELECT"] {
            assert!(found(&[(name, " ")]).fault.is_none(), "{name}");
            let fault = found(&[(name, "x")]).fault.unwrap();
            assert!(fault.starts_with(&format!("`{name}` is not supported by this version")), "{fault}");
        }
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
