//! Should this machine be asked at all, given what is already known about it?

use std::time::Duration;

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

/// The rules of a tenant that decide on a machine before a call is spent on it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What makes a machine busy.
    pub pending_types: PendingTypes,
    /// A scan that succeeded less than this ago is recent enough; zero turns the rule off.
    pub skip_if_scanned_within: Duration,
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
    now: Wall,
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
            && now.since(action.updated_at) < rules.skip_if_scanned_within
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
    use super::*;

    fn rules(within: u64) -> Rules {
        Rules {
            pending_types: PendingTypes::These(vec!["RunAntiVirusScan".into()]),
            skip_if_scanned_within: Duration::from_secs(within),
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
    fn a_foreign_pending_scan_is_skipped_or_waited_for_as_the_sweep_says() {
        let known = [action(ActionStatus::Pending, Origin::Foreign, ScanType::Quick)];
        let judged = |on| judge(&rules(0), ScanType::Full, on, &known, Wall(0));
        assert_eq!(judged(OnPending::Skip), Verdict::SkipPending("a".into()));
        assert_eq!(judged(OnPending::Wait), Verdict::WaitFor("a".into()));
    }

    #[test]
    fn our_own_weaker_scan_is_waited_for_and_our_equal_one_is_not() {
        let known = [action(ActionStatus::InProgress, Origin::Ours, ScanType::Quick)];
        assert_eq!(judge(&rules(0), ScanType::Full, OnPending::Skip, &known, Wall(0)), Verdict::WaitFor("a".into()));
        assert_eq!(
            judge(&rules(0), ScanType::Quick, OnPending::Skip, &known, Wall(0)),
            Verdict::SkipPending("a".into())
        );
    }

    #[test]
    fn other_types_do_not_block_unless_configured() {
        let mut isolate = action(ActionStatus::Pending, Origin::Foreign, ScanType::Full);
        isolate.action_type = "Isolate".into();
        let known = [isolate];
        assert_eq!(judge(&rules(0), ScanType::Full, OnPending::Skip, &known, Wall(0)), Verdict::Send);
        let any = Rules { pending_types: PendingTypes::Any, ..rules(0) };
        assert_eq!(judge(&any, ScanType::Full, OnPending::Skip, &known, Wall(0)), Verdict::SkipPending("a".into()));
    }

    #[test]
    fn a_recent_scan_counts_when_it_was_at_least_as_strong() {
        let now = Wall(1_000_000 + 59_000);
        for (done, asked, expected) in [
            (ScanType::Full, ScanType::Quick, true),
            (ScanType::Quick, ScanType::Quick, true),
            (ScanType::Quick, ScanType::Full, false),
        ] {
            let known = [action(ActionStatus::Succeeded, Origin::Foreign, done)];
            let skipped = judge(&rules(60), asked, OnPending::Skip, &known, now) != Verdict::Send;
            assert_eq!(skipped, expected, "{done} before {asked}");
            assert_eq!(judge(&rules(59), asked, OnPending::Skip, &known, now), Verdict::Send);
        }
    }
}
