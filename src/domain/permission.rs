//! Which permission of the app registration each feature needs, and what a look at a tenant says of it.
//!
//! The token names the roles it has, but nobody promises that it does, and Defender's own checks have
//! differed from its documentation: where a read was answered, the answer decides.

use super::ledger::CallKind;

const SCAN: &str = "Machine.Scan";
const READ: &str = "Machine.Read.All";
const READ_WRITE: &str = "Machine.ReadWrite.All";
/// Whoever may ask for any action may cancel one (cancel-machine-action); the first is what sweepd has.
const CANCEL: [&str; 7] = [
    SCAN,
    "Machine.CollectForensics",
    "Machine.Isolate",
    "Machine.RestrictExecution",
    "Machine.Offboard",
    "Machine.StopAndQuarantine",
    "Machine.LiveResponse",
];

/// What one kind of call needs, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The call.
    pub call: CallKind,
    /// What sweepd does with it, for people.
    pub feature: &'static str,
    /// Any of these roles will do (run-av-scan, get-machineaction-object, get-machines,
    /// cancel-machine-action); the first is the least.
    pub any_of: &'static [&'static str],
    /// What becomes of it without.
    pub without: &'static str,
}

/// Every feature that needs a permission.
pub const NEEDS: [Need; 6] = [
    Need {
        call: CallKind::Scan,
        feature: "asking for scans",
        any_of: &[SCAN],
        without: "nothing is sent, the queue waits",
    },
    Need {
        call: CallKind::ListActions,
        feature: "seeing busy machines, following scans, finding lost calls",
        any_of: &[READ, READ_WRITE],
        without: "a busy machine costs a call, a lost call ends in needs_review, and scans are followed by single reads, if at all",
    },
    Need {
        call: CallKind::GetAction,
        feature: "following a scan that the list does not show",
        any_of: &[READ, READ_WRITE],
        without: "such a scan ends as timed_out (gave_up)",
    },
    Need {
        call: CallKind::ListMachines,
        feature: "knowing which machines are inactive or not onboarded",
        any_of: &[READ, READ_WRITE],
        without: "each of them costs a call",
    },
    Need {
        call: CallKind::GetMachine,
        feature: "telling a machine that is missing in passing (404) from an unknown one",
        any_of: &[READ, READ_WRITE],
        without: "the second 404 after a wait rejects the job",
    },
    Need {
        call: CallKind::CancelAction,
        feature: "cancelling scans that Defender has accepted",
        any_of: &CANCEL,
        without: "`sweep cancel --actions` and `action cancel` end as forbidden",
    },
];

/// What came of a harmless read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It was answered.
    Allowed,
    /// 403: what it said, and the roles that it names as sufficient, if it names any.
    Forbidden {
        /// In Defender's words.
        said: String,
        /// Any of these would do.
        wants: Vec<String>,
    },
    /// 401.
    Unauthorized,
    /// No answer that anybody can read, and why.
    Unreachable(String),
    /// It was not made, or its answer says nothing about the permission; why.
    Not(String),
}

/// The most roles that are read in one answer, and the longest one.
const MAX_ROLES: usize = 10;
const MAX_ROLE_LENGTH: usize = 64;

/// The roles that a 403 names as sufficient. Two wordings were seen: `… required application permissions (A, B) …`,
/// and, since 2026, `Missing application roles. API required roles: A,B, application roles: C.`, where C is what the
/// app has. Of any other wording, every role that it names.
pub fn roles_named(message: &str) -> Vec<String> {
    let lower = message.to_ascii_lowercase();
    let has = lower
        .rfind(", application roles:")
        .filter(|at| lower.get(..*at).is_some_and(|head| head.contains("required roles:")));
    let wanted = message.get(..has.unwrap_or(message.len())).unwrap_or_default();
    let words = wanted.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).map(|word| word.trim_matches('.'));
    let mut roles: Vec<String> = Vec::new();
    for role in words.filter(|word| is_role(word)) {
        if roles.len() < MAX_ROLES && !roles.iter().any(|known| known == role) {
            roles.push(role.to_owned());
        }
    }
    roles
}

/// Whether a word is spelled like a role: `Machine.Scan`, `Machine.Read.All`.
fn is_role(word: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_uppercase()) && part.chars().all(|c| c.is_ascii_alphabetic())
    };
    word.len() <= MAX_ROLE_LENGTH && word.contains('.') && word.split('.').all(part)
}

/// What is known of a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is there.
    Granted,
    /// Nothing shows whether it is there.
    Unknown,
    /// Defender cannot be reached.
    Unreachable,
    /// Defender refuses the token itself.
    Refused,
    /// It is not there.
    Missing,
}

super::sweep::words!(Verdict {
    Granted = "granted",
    Unknown = "unknown",
    Unreachable = "unreachable",
    Refused = "refused",
    Missing = "missing",
});

/// What a look says of one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which.
    pub need: Need,
    /// What is known.
    pub verdict: Verdict,
    /// How it is known.
    pub because: String,
    /// What to do, if there is something.
    pub remedy: Option<String>,
}

/// Judges one feature by the roles that the token names (none: it cannot be read) and by what came of
/// the read.
pub fn judge(need: Need, roles: Option<&[String]>, asked: &Asked) -> Finding {
    let has = need.any_of.iter().copied().find(|role| names(roles, role));
    let (verdict, because, remedy) = match asked {
        Asked::Allowed => (Verdict::Granted, "a read was answered".to_owned(), None),
        Asked::Forbidden { said, wants } => {
            let although = has.map(|role| format!(" although the token has {role}")).unwrap_or_default();
            let because = format!("Defender forbids the call (403){although}: {said}");
            (Verdict::Missing, because, Some(forbidden(&need, roles, wants)))
        }
        Asked::Unauthorized => (
            Verdict::Refused,
            "Defender refuses the token (401)".to_owned(),
            Some("check that cloud, region and tenant_id are those of the app registration".to_owned()),
        ),
        Asked::Unreachable(why) => (
            Verdict::Unreachable,
            format!("Defender cannot be reached: {why}"),
            Some("check api_url, network, proxy and firewall".to_owned()),
        ),
        Asked::Not(why) => match (has, roles) {
            (Some(role), _) => (Verdict::Granted, format!("the token has {role}; {why}"), None),
            (None, Some(_)) => (Verdict::Missing, "the token does not have it".to_owned(), Some(grant(need.any_of))),
            (None, None) => (Verdict::Unknown, format!("the token does not tell; {why}"), None),
        },
    };
    Finding { need, verdict, because, remedy }
}

/// Whether the token names this role.
fn names(roles: Option<&[String]>, role: &str) -> bool {
    roles.is_some_and(|roles| roles.iter().any(|named| named == role))
}

fn grant(any_of: &[&str]) -> String {
    let least = any_of.first().copied().unwrap_or_default();
    format!("grant {least} (WindowsDefenderATP, application permission) with admin consent")
}

/// What to grant when the call was forbidden. Where Defender names the roles that would do, its word counts, and not
/// what its documentation says; a role that the token has already is not enough here.
fn forbidden(need: &Need, roles: Option<&[String]>, wants: &[String]) -> String {
    let documented: Vec<&str> = need.any_of.to_vec();
    let mut sufficient: Vec<&str> =
        documented.iter().copied().filter(|role| wants.iter().any(|want| want == role)).collect();
    sufficient.extend(wants.iter().map(String::as_str).filter(|want| !documented.contains(want)));
    let sufficient = if wants.is_empty() { documented } else { sufficient };
    let lacking: Vec<&str> = sufficient.iter().copied().filter(|role| !names(roles, role)).collect();
    let has_one = need.any_of.iter().any(|role| names(roles, role));
    if lacking.is_empty() || !wants.is_empty() && lacking.len() < sufficient.len() {
        return "the token has the permission, and it is not enough: check licence and `cloud`".to_owned();
    }
    if has_one { format!("what the token has is not enough here: {}", grant(&lacking)) } else { grant(&lacking) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(call: CallKind) -> Need {
        NEEDS.into_iter().find(|need| need.call == call).unwrap()
    }

    fn found(call: CallKind, roles: Option<&[&str]>, asked: &Asked) -> (Verdict, String) {
        let roles: Option<Vec<String>> = roles.map(|roles| roles.iter().map(|role| (*role).to_owned()).collect());
        let finding = judge(need(call), roles.as_deref(), asked);
        (finding.verdict, format!("{}; {}", finding.because, finding.remedy.unwrap_or_default()))
    }

    #[test]
    fn the_scan_is_told_by_the_token_alone() {
        let not = Asked::Not("no scan is started to find out".to_owned());
        for (roles, verdict, words) in [
            (Some(&["Machine.Scan"][..]), Verdict::Granted, "the token has Machine.Scan"),
            (Some(&["Machine.Read.All", "machine.scan"][..]), Verdict::Missing, "grant Machine.Scan "),
            (Some(&[][..]), Verdict::Missing, "with admin consent"),
            (None, Verdict::Unknown, "no scan is started"),
        ] {
            let (found, said) = found(CallKind::Scan, roles, &not);
            assert!(found == verdict && said.contains(words), "{roles:?}: {found:?} {said}");
        }
    }

    #[test]
    fn an_answer_beats_what_the_token_says() {
        let forbidden = Asked::Forbidden { said: "any of (…)".to_owned(), wants: Vec::new() };
        let call = CallKind::ListActions;
        assert_eq!(found(call, Some(&[]), &Asked::Allowed).0, Verdict::Granted);
        assert_eq!(found(call, None, &Asked::Allowed).0, Verdict::Granted);
        for (roles, words) in [
            (Some(&["Machine.Scan"][..]), "; grant Machine.Read.All "),
            (Some(&["Machine.Read.All"][..]), "is not enough here: grant Machine.ReadWrite.All "),
            (Some(&["Machine.ReadWrite.All"][..]), "is not enough here: grant Machine.Read.All "),
            (Some(&["Machine.Read.All", "Machine.ReadWrite.All"][..]), "check licence"),
            (None, "; grant Machine.Read.All "),
        ] {
            let (verdict, said) = found(call, roles, &forbidden);
            assert!(verdict == Verdict::Missing && said.contains(words), "{roles:?}: {said}");
        }
    }

    #[test]
    fn the_roles_that_defender_names_beat_the_documented_ones() {
        let wants = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let call = CallKind::ListActions;
        for (wanted, roles, words) in [
            (&["Machine.ReadWrite.All"][..], Some(&["Machine.Scan"][..]), "; grant Machine.ReadWrite.All "),
            (&["Machine.ReadWrite.All", "Machine.Read.All"], Some(&[]), "; grant Machine.Read.All "),
            (
                &["Machine.ReadWrite.All"],
                Some(&["Machine.Read.All"]),
                "is not enough here: grant Machine.ReadWrite.All ",
            ),
            (&["Alert.Read.All"], Some(&["Machine.Read.All"]), "is not enough here: grant Alert.Read.All "),
            (&["Machine.Read.All", "Machine.ReadWrite.All"], Some(&["Machine.Read.All"]), "check licence"),
            (&["Machine.ReadWrite.All"], None, "; grant Machine.ReadWrite.All "),
        ] {
            let (verdict, said) = found(call, roles, &Asked::Forbidden { said: "no".to_owned(), wants: wants(wanted) });
            assert!(verdict == Verdict::Missing && said.contains(words), "{wanted:?} {roles:?}: {said}");
        }
        let asked = Asked::Forbidden { said: "no".to_owned(), wants: wants(&["Machine.ReadWrite.All"]) };
        let (_, said) = found(call, Some(&["Machine.Read.All"]), &asked);
        assert!(said.contains("(403) although the token has Machine.Read.All: no"), "the conflict is told: {said}");
    }

    #[test]
    fn roles_are_read_in_every_wording_of_a_403() {
        for (message, roles) in [
            (
                "The app has none of the required application permissions (Machine.Scan) for this.",
                &["Machine.Scan"][..],
            ),
            (
                "Required application permissions (Machine.Read.All, Machine.ReadWrite.All).",
                &["Machine.Read.All", "Machine.ReadWrite.All"],
            ),
            (
                "Missing application roles. API required roles: Machine.Scan, application roles: Machine.Read.All.",
                &["Machine.Scan"],
            ),
            (
                "Missing application roles. API required roles: Machine.Read.All,Machine.ReadWrite.All, application roles: Machine.Scan.",
                &["Machine.Read.All", "Machine.ReadWrite.All"],
            ),
            ("Missing application roles. API required roles: Machine.Scan, application roles: .", &["Machine.Scan"]),
            ("missing role", &[]),
            ("See api.security.microsoft.com. No. It is Off.", &[]),
            ("", &[]),
        ] {
            assert_eq!(roles_named(message), roles, "{message}");
        }
        let many: Vec<_> = (b'A'..=b'Z').map(|c| format!("Machine.{}", char::from(c))).collect();
        assert_eq!(roles_named(&many.join(",")).len(), MAX_ROLES);
        assert!(roles_named(&format!("Machine.{}", "A".repeat(100))).is_empty());
    }

    #[test]
    fn trouble_on_the_way_is_no_missing_permission() {
        let unreachable = Asked::Unreachable("refused".to_owned());
        let call = CallKind::GetAction;
        assert_eq!(found(call, Some(&[]), &unreachable).0, Verdict::Unreachable);
        assert_eq!(found(call, Some(&["Machine.Read.All"]), &Asked::Unauthorized).0, Verdict::Refused);
        let not = Asked::Not("there is no action yet".to_owned());
        assert_eq!(found(call, Some(&["Machine.ReadWrite.All"]), &not).0, Verdict::Granted);
        assert_eq!(found(call, Some(&["Machine.Scan"]), &not).0, Verdict::Missing);
    }

    #[test]
    fn every_need_is_of_another_call_and_says_what_is_lost() {
        for (n, need) in NEEDS.iter().enumerate() {
            assert!(!need.any_of.is_empty() && !need.feature.is_empty() && !need.without.is_empty());
            assert!(NEEDS.iter().skip(n + 1).all(|other| other.call != need.call));
        }
    }
}
