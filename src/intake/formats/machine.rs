//! A machine as people write it: its id, or the address of its page in the portal; and what they write by mistake.

use std::borrow::Cow;

use uuid::Uuid;

use super::printable;
use crate::domain::id::MachineId;

/// Where an operator finds the right id.
pub const WHERE_IDS_ARE: &str = "Defender's machine id has 40 hexadecimal digits and stands in the column `Device ID` of \
     the portal's device export, in `DeviceId` of advanced hunting, and in the address of the device's page in the portal";

/// Between several machines on one line; the mark stands where one file was glued to another.
const BETWEEN: [char; 5] = [',', ';', ' ', '\t', '\u{feff}'];

/// What a text names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A machine of Defender's.
    Machine(MachineId),
    /// A device of Entra's or Intune's, which knows it by a GUID.
    Guid(Uuid),
}

/// What `text` names, without the blanks and quotes around it; `None` if it is no device.
pub fn named(text: &str) -> Option<Named> {
    let text = bare(text);
    if let Ok(machine) = text.parse() {
        return Some(Named::Machine(machine));
    }
    if let Some(machine) = of_address(text) {
        return Some(Named::Machine(machine));
    }
    let guid = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    // With its hyphens: 32 digits alone may be anything.
    (guid.len() == 36).then(|| Uuid::try_parse(guid).ok()).flatten().map(Named::Guid)
}

/// The machine that `text` names, or what is wrong with it.
pub fn machine(text: &str) -> Result<MachineId, String> {
    match named(text) {
        Some(Named::Machine(machine)) => Ok(machine),
        Some(Named::Guid(_)) => {
            Err(format!("this GUID is the device's id in Entra or Intune, not in Defender: {WHERE_IDS_ARE}"))
        }
        None if bare(text).is_empty() => Err("the machine id is empty".to_owned()),
        None => Err("not a machine id: 40 hexadecimal digits are expected".to_owned()),
    }
}

/// The machines that one line names, with nothing but commas, semicolons and blanks between them.
pub fn machines(line: &str) -> Result<Vec<MachineId>, String> {
    let whole = match machine(line) {
        Ok(machine) => return Ok(vec![machine]),
        Err(whole) => whole,
    };
    let words = || line.split(BETWEEN).filter(|word| !bare(word).is_empty());
    let wrong = words().find_map(|word| machine(word).err().map(|reason| (word, reason)));
    match wrong {
        None if words().next().is_none() => Err(whole),
        None => Ok(words().filter_map(|word| machine(word).ok()).collect()),
        // One wrong word, or nothing that is right: what is said of the whole says it all.
        Some(_) if !words().any(|word| machine(word).is_ok()) => Err(words_fault(words(), whole)),
        Some((word, reason)) => {
            let word = printable(bare(word), 60);
            Err(format!(
                "`{word}` beside a machine id: {reason}; put the ids alone, or a header line above the columns"
            ))
        }
    }
}

/// What is wrong with a line without any machine: a list of GUIDs is said to be one.
fn words_fault<'a>(mut words: impl Iterator<Item = &'a str>, whole: String) -> String {
    let guid = words.find(|word| matches!(named(word), Some(Named::Guid(_))));
    guid.and_then(|word| machine(word).err()).unwrap_or(whole)
}

/// Without blanks, quotes and marks around it.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\u{feff}'))
}

/// The machine whose page has this address: `https://security.microsoft.com/machines/v2/<id>?tid=…` and its kin.
fn of_address(text: &str) -> Option<MachineId> {
    let text: Cow<'_, str> = if text.contains('/') { text.to_ascii_lowercase().into() } else { return None };
    let path = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(&text);
    let (host, rest) = path.split_once("/machines/")?;
    if !host.contains('.') || host.contains(char::is_whitespace) {
        return None;
    }
    let rest = rest.strip_prefix("v2/").unwrap_or(rest);
    let (id, after) = rest.split_at_checked(MachineId::DIGITS)?;
    (after.is_empty() || after.starts_with(['/', '?', '#'])).then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07";
    const OTHER: &str = "7b1f4967d9728e5aa3c06a9e617a22a4a5a17378";
    const GUID: &str = "2f3a6d0e-8f0c-4a52-9c39-0a5f0f3a9b1c";

    #[test]
    fn ids_lose_what_stands_around_them() {
        for text in [format!("\u{feff}{ID}"), format!(" \"{ID}\"\t"), format!("'{}'", ID.to_uppercase())] {
            assert_eq!(machine(&text).unwrap().to_string(), ID);
        }
        assert_eq!(machine("\"\"").unwrap_err(), "the machine id is empty");
    }

    #[test]
    fn address_of_a_portal_page_names_its_machine() {
        for text in [
            format!("https://security.microsoft.com/machines/v2/{ID}?tid={GUID}"),
            format!("https://security.microsoft.com/machines/v2/{ID}/timeline#x"),
            format!("https://security.microsoft.com/machines/{ID}/overview"),
            format!("HTTPS://Security.Microsoft.com/machines/{}", ID.to_uppercase()),
            format!("securitycenter.windows.com/machines/{ID}"),
            format!("\"https://api.securitycenter.microsoft.com/api/machines/{ID}\""),
        ] {
            assert_eq!(machine(&text).unwrap().to_string(), ID, "{text}");
        }
        for text in [
            format!("https://security.microsoft.com/machines/{ID}0"),
            format!("https://security.microsoft.com/machines/v3/{ID}"),
            format!("https://security.microsoft.com/files/{ID}"),
            format!("/machines/{ID}"),
            format!("two words.example/machines/{ID}"),
            "https://security.microsoft.com/machines/é".to_owned(),
        ] {
            assert!(machine(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn guid_is_said_to_be_one_of_entra_or_intune() {
        for text in [GUID.to_owned(), format!(" {{{}}} ", GUID.to_uppercase()), format!("\"{GUID}\"")] {
            let reason = machine(&text).unwrap_err();
            assert!(reason.contains("Entra or Intune") && reason.contains("`Device ID`"), "{reason}");
        }
        assert!(!machine(&GUID.replace('-', "")).unwrap_err().contains("Entra"));
        assert!(machines(&format!("{GUID};{GUID}")).unwrap_err().contains("Entra"));
    }

    #[test]
    fn one_line_may_name_several_machines_and_nothing_else() {
        for between in [",", ";", " ", "\t", ", ", "\",\"", "\u{feff}", " ,; "] {
            let found = machines(&format!("{ID}{between}{OTHER}")).unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [ID, OTHER], "{between:?}");
        }
        assert_eq!(machines(&format!("{ID},")).unwrap().len(), 1);
        assert_eq!(machines(&format!("https://x.example/machines/{ID}?a=b,c;d e")).unwrap().len(), 1);
        let reason = machines(&format!("{ID},pc-1")).unwrap_err();
        assert!(reason.starts_with("`pc-1` beside a machine id: "), "{reason}");
        for (text, reason) in [("a b", "not a machine id"), (",", "not a machine id"), ("''", "is empty")] {
            assert!(machines(text).unwrap_err().contains(reason), "{text}");
        }
        assert!(machines(&format!("{ID}{OTHER}")).is_err());
    }
}
