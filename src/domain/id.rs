//! The names of things. Each is parsed once, at the edge, and cannot be mistaken for another.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Why a text is not a machine id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a machine id: 40 hexadecimal digits are expected")]
pub struct NotAMachineId;

/// A device in Defender: 40 hexadecimal digits, lower case; upper case is accepted and folded.
///
/// Kept as its 20 bytes: a million of them are sorted, compared and indexed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId([u8; 20]);

impl MachineId {
    /// So many hexadecimal digits.
    pub const DIGITS: usize = 40;

    /// From the bytes that [`MachineId::bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes that the 40 digits stand for.
    pub const fn bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

impl FromStr for MachineId {
    type Err = NotAMachineId;

    fn from_str(text: &str) -> Result<Self, NotAMachineId> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 20 || !rest.is_empty() {
            return Err(NotAMachineId);
        }
        let mut bytes = [0; 20];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) else {
                return Err(NotAMachineId);
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of a tenant in configuration, folders and metrics: lower case, digits, `-`, `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(String);

/// Why a text cannot name a tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant's name has 1 to 64 characters: lower-case letters, digits, `-` and `_`")]
pub struct NotATenantName;

impl FromStr for TenantName {
    type Err = NotATenantName;

    fn from_str(text: &str) -> Result<Self, NotATenantName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if fits { Ok(Self(text.to_owned())) } else { Err(NotATenantName) }
    }
}

impl TenantName {
    /// The name as it was configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
    };
}

uuid_id! {
    /// One sweep. Version 7, so that ids sort by the time they were given.
    SweepId
}

uuid_id! {
    /// One call of `runAntiVirusScan`. Version 4: unguessable and never reused, since it is the
    /// mark by which the call is recognised among Defender's actions.
    AttemptId
}

/// A row of `jobs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A row of `slots`: the right to make one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub i64);

/// One incarnation of the daemon; raised at each start under the exclusive lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl AttemptId {
    /// The comment that Defender keeps with the action: the operator's words, then the mark.
    pub fn mark(self, comment: &str) -> String {
        let comment = comment.trim();
        if comment.is_empty() { format!("[sweepd {self}]") } else { format!("{comment} [sweepd {self}]") }
    }

    /// The attempt whose mark stands in an action's comment. The last one counts: a comment may
    /// quote an older one.
    pub fn marked_in(comment: &str) -> Option<Self> {
        let (_, after) = comment.rsplit_once("[sweepd ")?;
        let (id, _) = after.split_once(']')?;
        id.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07";

    #[test]
    fn machine_ids_fold_case_and_survive_the_round_trip() {
        let id: MachineId = ID.to_uppercase().parse().unwrap();
        assert_eq!(id.to_string(), ID);
        assert_eq!(MachineId::from_bytes(*id.bytes()), id);
    }

    #[test]
    fn what_is_no_machine_id_is_refused() {
        for text in [
            "",
            "1e5b",
            &ID[1..],
            &format!("{ID}0"),
            &ID.replace('1', "g"),
            &ID.replace('1', "é"),
            &format!(" {ID}"),
            &"+".repeat(40),
        ] {
            assert_eq!(text.parse::<MachineId>(), Err(NotAMachineId), "{text:?}");
        }
    }

    #[test]
    fn tenant_names_are_plain() {
        assert!("contoso-eu_2".parse::<TenantName>().is_ok());
        for text in ["", "Contoso", "a b", "../etc", "é", &"x".repeat(65)] {
            assert!(text.parse::<TenantName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_mark_is_found_again_whatever_stands_before_it() {
        let id = AttemptId(Uuid::from_u128(7));
        assert_eq!(AttemptId::marked_in(&id.mark("weekly")), Some(id));
        assert_eq!(AttemptId::marked_in(&id.mark("")), Some(id));
        let quoting = id.mark(&AttemptId(Uuid::from_u128(8)).mark("again:"));
        assert_eq!(AttemptId::marked_in(&quoting), Some(id));
        for foreign in ["", "weekly", "[sweepd ]", "[sweepd 0", "[sweepd not-an-id]"] {
            assert_eq!(AttemptId::marked_in(foreign), None, "{foreign:?}");
        }
    }
}
