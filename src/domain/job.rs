//! The life of a job: one state machine, a total function.
//!
//! ```text
//!            attempt written            accepted, found              the action ended
//!  queued ───────────────────▶ sending ────────────────▶ accepted ──▶ succeeded · failed
//!    │ ▲                        │ │ │ ↺ lost: looked up                timed_out · cancelled
//!    │ └── returned, absent ────┘ │ │
//!    │                            │ └─▶ rejected · needs_review · failed (attempts exhausted)
//!    └──▶ skipped · cancelled     └───▶ skipped
//! ```

use super::action::ActionStatus;
use super::sweep::words;

/// Where a job stands. The words are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Waits for budget, its time, a pending action to end, or a tenant that is paused.
    Queued,
    /// An attempt is written down; it is on the wire, or its outcome is being looked up.
    Sending,
    /// Defender returned an action that has not ended.
    Accepted,
    /// The action ended as `Succeeded`: Defender's word, which may mean no more than started.
    Succeeded,
    /// The action ended as `Failed`, or all attempts were lost.
    Failed,
    /// The action ended as `TimeOut`, or we gave up following it.
    TimedOut,
    /// The action was cancelled, or the job withdrawn while queued.
    Cancelled,
    /// Not sent, or refused as a duplicate, for a named reason.
    Skipped,
    /// Defender will not do it.
    Rejected,
    /// The outcome cannot be decided: an operator decides.
    NeedsReview,
}

words!(State {
    Queued = "queued",
    Sending = "sending",
    Accepted = "accepted",
    Succeeded = "succeeded",
    Failed = "failed",
    TimedOut = "timed_out",
    Cancelled = "cancelled",
    Skipped = "skipped",
    Rejected = "rejected",
    NeedsReview = "needs_review",
});

impl State {
    /// Nothing moves the job any more; only a retry, which is a new job, goes on from here.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Sending | Self::Accepted)
    }
}

/// Why a job ended as it did. The words are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Skipped: the machine has a pending action.
    PendingAction,
    /// Skipped: a scan at least as strong succeeded lately.
    RecentlyScanned,
    /// Skipped: Defender lists the machine as inactive, not onboarded, or merged into another one.
    NotEligible,
    /// Failed: every attempt's outcome stayed unknown.
    AttemptsExhausted,
    /// Timed out: the action did not end within `give_up_after`.
    GaveUp,
    /// Cancelled while queued.
    Withdrawn,
    /// Rejected: Defender does not know the machine.
    UnknownMachine,
    /// Rejected: the machine's platform cannot be scanned by the API.
    UnsupportedPlatform,
    /// Rejected: the machine's Defender client is too old.
    UnsupportedClient,
    /// Rejected: Defender said no to this machine, in words that are kept beside.
    Refused,
    /// Needs review: the tenant does not let us list actions, so a lost call cannot be looked up.
    CannotListActions,
}

words!(Reason {
    PendingAction = "pending_action",
    RecentlyScanned = "recently_scanned",
    NotEligible = "not_eligible",
    AttemptsExhausted = "attempts_exhausted",
    GaveUp = "gave_up",
    Withdrawn = "withdrawn",
    UnknownMachine = "unknown_machine",
    UnsupportedPlatform = "unsupported_platform",
    UnsupportedClient = "unsupported_client",
    Refused = "refused",
    CannotListActions = "cannot_list_actions",
});

/// How an action can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// `Succeeded`
    Succeeded,
    /// `Failed`
    Failed,
    /// `TimeOut`
    TimeOut,
    /// `Cancelled`
    Cancelled,
}

impl End {
    /// The end that a status stands for, if it is final.
    pub const fn of(status: &ActionStatus) -> Option<Self> {
        match status {
            ActionStatus::Succeeded => Some(Self::Succeeded),
            ActionStatus::Failed => Some(Self::Failed),
            ActionStatus::TimeOut => Some(Self::TimeOut),
            ActionStatus::Cancelled => Some(Self::Cancelled),
            ActionStatus::Pending | ActionStatus::InProgress | ActionStatus::Other(_) => None,
        }
    }
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// TX1: a slot was taken and the attempt written down.
    AttemptWritten,
    /// The call was answered without effect through no fault of the job (401, 403, 429), or its
    /// connection failed before a byte was sent: back to the queue, not counted.
    Returned,
    /// The call's outcome is unknown: looked up before anything else.
    Lost,
    /// The look-up has shown that the call had no effect, and attempts are left.
    Absent,
    /// The look-up has shown that the call had no effect, and it was the last attempt.
    Exhausted,
    /// The look-up is not permitted.
    Undecidable,
    /// An action with our mark exists.
    Accepted,
    /// The machine is busy with somebody's action, or was scanned lately.
    Skipped,
    /// The machine is busy, and the sweep says to wait.
    Parked,
    /// Defender will not do it.
    Refused,
    /// Our action ended.
    Ended(End),
    /// Our action did not end in the time we follow it.
    GaveUp,
    /// An operator withdrew the job.
    Withdrawn,
}

/// An event that cannot happen in a state: the caller's error, and nothing may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} cannot take {event:?}")]
pub struct Impossible {
    /// The state it is in.
    pub state: State,
    /// What was said to have happened.
    pub event: Event,
}

/// The state after `event`.
///
/// Final states take nothing. A queued job can be accepted: an action with the mark of an earlier
/// attempt showed up after the look-up had called it absent, so it need not be sent again.
pub const fn next(state: State, event: Event) -> Result<State, Impossible> {
    Ok(match (state, event) {
        (State::Queued, Event::AttemptWritten) | (State::Sending, Event::Lost) => State::Sending,
        (State::Queued, Event::Parked) | (State::Sending, Event::Returned | Event::Absent | Event::Parked) => {
            State::Queued
        }
        (State::Queued | State::Sending, Event::Skipped) => State::Skipped,
        (State::Queued | State::Sending | State::Accepted, Event::Accepted) => State::Accepted,
        (State::Queued, Event::Withdrawn) | (State::Accepted, Event::Ended(End::Cancelled)) => State::Cancelled,
        (State::Sending, Event::Refused) => State::Rejected,
        (State::Sending, Event::Exhausted) | (State::Accepted, Event::Ended(End::Failed)) => State::Failed,
        (State::Sending, Event::Undecidable) => State::NeedsReview,
        (State::Accepted, Event::Ended(End::Succeeded)) => State::Succeeded,
        (State::Accepted, Event::Ended(End::TimeOut) | Event::GaveUp) => State::TimedOut,
        _ => return Err(Impossible { state, event }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 16] = [
        Event::AttemptWritten,
        Event::Returned,
        Event::Lost,
        Event::Absent,
        Event::Exhausted,
        Event::Undecidable,
        Event::Accepted,
        Event::Skipped,
        Event::Parked,
        Event::Refused,
        Event::Ended(End::Succeeded),
        Event::Ended(End::Failed),
        Event::Ended(End::TimeOut),
        Event::Ended(End::Cancelled),
        Event::GaveUp,
        Event::Withdrawn,
    ];

    /// Every pair, written out: rows are states, columns the events above; `-` is impossible.
    const TABLE: [(State, [&str; 16]); 3] = {
        const NO: &str = "-";
        [
            (
                State::Queued,
                ["sending", NO, NO, NO, NO, NO, "accepted", "skipped", "queued", NO, NO, NO, NO, NO, NO, "cancelled"],
            ),
            (
                State::Sending,
                [
                    NO,
                    "queued",
                    "sending",
                    "queued",
                    "failed",
                    "needs_review",
                    "accepted",
                    "skipped",
                    "queued",
                    "rejected",
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                ],
            ),
            (
                State::Accepted,
                [
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    "accepted",
                    NO,
                    NO,
                    NO,
                    "succeeded",
                    "failed",
                    "timed_out",
                    "cancelled",
                    "timed_out",
                    NO,
                ],
            ),
        ]
    };

    #[test]
    fn every_pair_of_state_and_event_does_what_the_table_says() {
        for state in State::ALL {
            let row = TABLE.iter().find(|(s, _)| s == state).map_or(["-"; 16], |(_, row)| *row);
            for (event, expected) in EVENTS.iter().zip(row) {
                let got = next(*state, *event).map_or("-", State::as_str);
                assert_eq!(got, expected, "{state} × {event:?}");
            }
        }
    }

    #[test]
    fn final_states_take_nothing_and_open_ones_can_end() {
        for state in State::ALL {
            let moves = EVENTS.iter().filter(|event| next(*state, **event).is_ok()).count();
            assert_eq!(moves == 0, state.is_final(), "{state}");
        }
    }

    #[test]
    fn every_final_state_can_be_reached_from_queued() {
        let mut reached = vec![State::Queued];
        let mut at = 0;
        while at < reached.len() {
            for event in EVENTS {
                if let Ok(state) = next(reached[at], event)
                    && !reached.contains(&state)
                {
                    reached.push(state);
                }
            }
            at += 1;
        }
        assert_eq!(reached.len(), State::ALL.len());
    }
}
