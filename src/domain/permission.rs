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
    /// 403, with what it said.
    Forbidden(String),
    /// 401.
    Unauthorized,
    /// No answer that anybody can read, and why.
    Unreachable(String),
    /// It was not made, or its answer says nothing about the permission; why.
    Not(String),
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
        Asked::Forbidden(said) => {
            (Verdict::Missing, format!("Defender forbids the call (403): {said}"), Some(forbidden(&need, roles)))
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

/// What to grant when the call was forbidden: a role that the token has already is not enough here.
fn forbidden(need: &Need, roles: Option<&[String]>) -> String {
    let lacking: Vec<&str> = need.any_of.iter().copied().filter(|role| !names(roles, role)).collect();
    match (lacking.as_slice(), lacking.len() == need.any_of.len()) {
        ([], _) => "the token has the permission, and it is not enough: check licence and `cloud`".to_owned(),
        (lacking, true) => grant(lacking),
        (lacking, false) => format!("what the token has is not enough here: {}", grant(lacking)),
    }
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
        let forbidden = Asked::Forbidden("any of (…)".to_owned());
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
