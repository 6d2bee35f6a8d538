//! Should this machine be asked at all, given what is already known about it?

use super::action::{Action, ActionStatus, Origin};
use super::sweep::{OnPending, ScanType};
use super::time::Wall;

/// Which pending actions make a machine busy (`pending_types`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingTypes {
    /// `["*"]`: any action.
    Any,
    /// Actions of these types, as Defender spells them.
    These(Vec<String>),
}

impl PendingTypes {
    /// Whether an action of this type counts.
    pub fn holds(&self, action_type: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(types) => types.iter().any(|t| t.eq_ignore_ascii_case(action_type)),
        }
    }
}

/// What becomes of machines that Defender shows as inactive; and, unless it is `send`, of those that are not
/// onboarded or are merged into another record, which are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inactive {
    /// Asked like any other.
    Send,
    /// Skipped: `not_eligible`.
    Skip,
    /// Kept queued until they are active.
    Wait,
}

super::sweep::words!(Inactive { Send = "send", Skip = "skip", Wait = "wait" });

/// Why a machine need not be asked, by Defender's list of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ineligible {
    /// No signal for seven days.
    Inactive,
    /// Discovered, or offboarded.
    NotOnboarded,
    /// An older record of a machine that has another one.
    Merged,
}

super::sweep::words!(Ineligible { Inactive = "inactive", NotOnboarded = "not_onboarded", Merged = "merged" });

impl Ineligible {
    /// In words, for results.
    pub const fn told(self) -> &'static str {
        match self {
            Self::Inactive => "inactive in Defender's list of machines",
            Self::NotOnboarded => "not onboarded in Defender's list of machines",
            Self::Merged => "merged into another record in Defender's list of machines",
        }
    }

    /// What the list says of a machine: `healthStatus`, `onboardingStatus` (documented as `onboarded`,
    /// observed as `Onboarded`) and whether it has a `mergedIntoMachineId` (observed). Words that nobody
    /// documents, and words that are missing, make no machine ineligible.
    pub fn of(health: Option<&str>, onboarding: Option<&str>, is_merged: bool) -> Option<Self> {
        let not_onboarded = ["CanBeOnboarded", "Unsupported", "InsufficientInfo"];
        let is = |said: Option<&str>, word: &str| said.is_some_and(|said| said.eq_ignore_ascii_case(word));
        if is_merged {
            Some(Self::Merged)
        } else if not_onboarded.iter().any(|word| is(onboarding, word)) {
            Some(Self::NotOnboarded)
        } else {
            is(health, "Inactive").then_some(Self::Inactive)
        }
    }
}

/// The rules of a tenant that decide on a machine before a call is spent on it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What makes a machine busy.
    pub pending_types: PendingTypes,
    /// A scan that succeeded after this, by Defender's clock, is recent enough; none turns the rule off.
    pub scanned_since: Option<Wall>,
    /// What becomes of machines that the list shows as inactive, while it is at hand.
    pub inactive: Inactive,
}

impl Rules {
    /// What becomes of a machine that the list shows so: nothing while nobody wants to know; only what is
    /// inactive can become active again, so only that is waited for.
    pub const fn of_ineligible(&self, why: Ineligible) -> Option<Inactive> {
        match (self.inactive, why) {
            (Inactive::Send, _) => None,
            (Inactive::Wait, Ineligible::Inactive) => Some(Inactive::Wait),
            (Inactive::Wait | Inactive::Skip, _) => Some(Inactive::Skip),
        }
    }
}

/// What to do with a job whose turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask Defender.
    Send,
    /// The machine is busy, and the sweep asked to skip those. Names the blocking action.
    SkipPending(String),
    /// The machine is busy: come back when this action has ended.
    WaitFor(String),
    /// It was scanned lately, by this action.
    SkipRecent(String),
}

/// Decides on a job of `scan` with what is known of its machine's actions.
///
/// A pending scan of our own that is weaker than the job (Quick before Full) is waited for: nobody
/// else asked for it, and the job still adds something. Everything else that is pending counts
/// as somebody's work and follows `on_pending`.
pub fn judge<'a>(
    rules: &Rules,
    scan: ScanType,
    on_pending: OnPending,
    known: impl IntoIterator<Item = &'a Action>,
) -> Verdict {
    let mut weaker = None;
    let mut recent = None;
    for action in known {
        if action.status.is_open() && rules.pending_types.holds(&action.action_type) {
            if action.origin == Origin::Ours && action.scope == Some(ScanType::Quick) && scan == ScanType::Full {
                weaker = Some(action);
                continue;
            }
            return match on_pending {
                OnPending::Skip => Verdict::SkipPending(action.id.clone()),
                OnPending::Wait => Verdict::WaitFor(action.id.clone()),
            };
        }
        let strong_enough = action.scope.is_some_and(|done| done >= scan);
        if action.status == ActionStatus::Succeeded
            && action.is_scan()
            && strong_enough
            && rules.scanned_since.is_some_and(|since| action.updated_at > since)
        {
            recent = Some(action);
        }
    }
    match (weaker, recent) {
        (Some(action), _) => Verdict::WaitFor(action.id.clone()),
        (None, Some(action)) => Verdict::SkipRecent(action.id.clone()),
        (None, None) => Verdict::Send,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules(scanned_since: Option<Wall>) -> Rules {
        Rules {
            pending_types: PendingTypes::These(vec!["RunAntiVirusScan".into()]),
            scanned_since,
            inactive: Inactive::Send,
        }
    }

    fn action(status: ActionStatus, origin: Origin, scope: ScanType) -> Action {
        Action {
            id: "a".into(),
            action_type: "RunAntiVirusScan".into(),
            status,
            machine: None,
            origin,
            scope: Some(scope),
            comment: None,
            created_at: Wall(0),
            updated_at: Wall(1_000_000),
        }
    }

    #[test]
    fn the_list_says_which_machines_need_not_be_asked() {
        for (health, onboarding, is_merged, expected) in [
            (Some("Active"), Some("Onboarded"), false, None),
            (Some("inactive"), Some("onboarded"), false, Some(Ineligible::Inactive)),
            (Some("Inactive"), Some("CanBeOnboarded"), false, Some(Ineligible::NotOnboarded)),
            (Some("Active"), Some("InsufficientInfo"), false, Some(Ineligible::NotOnboarded)),
            (Some("Active"), Some("Unsupported"), true, Some(Ineligible::Merged)),
            (Some("ImpairedCommunication"), Some("Onboarded"), false, None),
            (Some("SomethingNew"), Some("SomethingNew"), false, None),
            (None, None, false, None),
        ] {
            assert_eq!(Ineligible::of(health, onboarding, is_merged), expected, "{health:?} {onboarding:?}");
        }
    }

    #[test]
    fn only_what_may_become_active_is_waited_for() {
        let of = |inactive, why| Rules { inactive, ..rules(None) }.of_ineligible(why);
        for why in Ineligible::ALL {
            assert_eq!(of(Inactive::Send, *why), None);
            assert_eq!(of(Inactive::Skip, *why), Some(Inactive::Skip));
        }
        assert_eq!(of(Inactive::Wait, Ineligible::Inactive), Some(Inactive::Wait));
        assert_eq!(of(Inactive::Wait, Ineligible::Merged), Some(Inactive::Skip));
    }

    #[test]
    fn a_foreign_pending_scan_is_skipped_or_waited_for_as_the_sweep_says() {
        let known = [action(ActionStatus::Pending, Origin::Foreign, ScanType::Quick)];
        let judged = |on| judge(&rules(None), ScanType::Full, on, &known);
        assert_eq!(judged(OnPending::Skip), Verdict::SkipPending("a".into()));
        assert_eq!(judged(OnPending::Wait), Verdict::WaitFor("a".into()));
    }

    #[test]
    fn our_own_weaker_scan_is_waited_for_and_our_equal_one_is_not() {
        let known = [action(ActionStatus::InProgress, Origin::Ours, ScanType::Quick)];
        assert_eq!(judge(&rules(None), ScanType::Full, OnPending::Skip, &known), Verdict::WaitFor("a".into()));
        assert_eq!(judge(&rules(None), ScanType::Quick, OnPending::Skip, &known), Verdict::SkipPending("a".into()));
    }

    #[test]
    fn other_types_do_not_block_unless_configured() {
        let mut isolate = action(ActionStatus::Pending, Origin::Foreign, ScanType::Full);
        isolate.action_type = "Isolate".into();
        let known = [isolate];
        assert_eq!(judge(&rules(None), ScanType::Full, OnPending::Skip, &known), Verdict::Send);
        let any = Rules { pending_types: PendingTypes::Any, ..rules(None) };
        assert_eq!(judge(&any, ScanType::Full, OnPending::Skip, &known), Verdict::SkipPending("a".into()));
    }

    #[test]
    fn a_recent_scan_counts_when_it_was_at_least_as_strong() {
        let ended = Wall(1_000_000);
        for (done, asked, expected) in [
            (ScanType::Full, ScanType::Quick, true),
            (ScanType::Quick, ScanType::Quick, true),
            (ScanType::Quick, ScanType::Full, false),
        ] {
            let known = [action(ActionStatus::Succeeded, Origin::Foreign, done)];
            let skipped =
                judge(&rules(Some(ended - Duration::from_millis(1))), asked, OnPending::Skip, &known) != Verdict::Send;
            assert_eq!(skipped, expected, "{done} before {asked}");
            assert_eq!(judge(&rules(Some(ended)), asked, OnPending::Skip, &known), Verdict::Send);
        }
    }
}
