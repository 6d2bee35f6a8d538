//! What an answer to `runAntiVirusScan` means. One pure function, one table.
//!
//! The table is the test: `defender::table` reads it here, makes each answer that it names, and holds
//! what [`judge`] says against it. The first row that fits counts. *Our action* carries the mark of the
//! attempt that is judged.
//!
//! | status | body | outcome | why |
//! |---|---|---|---|
//! | 2xx | our action | created | run-av-scan: 201 and a `MachineAction` |
//! | 2xx | our action, in the documentation's field names | created | machineaction: `lastUpdateTimeUtc` |
//! | 2xx | the action of another attempt | busy | run-av-scan: the pending action may come back instead of a new one |
//! | 2xx | an action without a mark | busy | the same: it is known, older, or somebody else's |
//! | 2xx | half an action | unknown | the effect may have happened |
//! | 2xx | an action without an id | unknown | the same |
//! | 2xx | another object | unknown | the same |
//! | 2xx | a page | unknown | a proxy's; the same |
//! | 2xx | noise | unknown | the same |
//! | 2xx | nothing | unknown | the same |
//! | 429 | nothing, a page, half an error, code `429`, code `TooManyRequests` | throttled | common-errors; the string "429" was observed |
//! | 400, 403, 500, 503 | code `429`, code `TooManyRequests` | throttled | lenient: the code says it |
//! | 400 | code `ActiveRequestAlreadyExists` | busy | documented for live response, observed for scans |
//! | 400 | message `Action is already in progress` | busy | run-av-scan |
//! | 400 | message `action is ALREADY IN PROGRESS for this machine.` | busy | messages may change |
//! | 400 | code `OsPlatformNotSupported` | refused | common-errors: never on this machine |
//! | 400 | code `ClientVersionNotSupported` | refused | common-errors: never on this machine |
//! | 400 | code `InvalidRequestBody`, code `MissingRequiredParameter` | malformed | common-errors: the caller's fault, ours |
//! | 400 | code `BadRequest`, code `InvalidInput`, code `ODataError`, code `SomethingNew` | unknown | not said to be ours, nor to be final |
//! | 400 | an error without a code, half an error, a page, nothing, noise | unknown | the same |
//! | 401 | code `Unauthorized`, a page, nothing | unauthorized | common-errors; the status says it |
//! | 403 | code `Forbidden`, code `DisabledFeature`, code `DisallowedOperation`, a page, nothing | forbidden | common-errors; the status says it |
//! | 404 | code `ResourceNotFound`, code `NotFound` | missing | common-errors; observed for an unknown machine, and in passing for a known one |
//! | 404 | a page, half an error, an error without a code, nothing | unknown | a proxy's or a gateway's: it says nothing of the machine |
//! | 1xx, 3xx, 402, 405, 406, 407, 408, 409, 410, 411, 412, 413, 415, 422, 425, 431, 451, 499, 5xx | code `InternalServerError`, a page, our action, half an error, noise, nothing | unknown | nothing says that it had no effect |
//!
//! No answer at all is *unknown* too, unless the connection failed before a byte of the call was sent:
//! that is *not sent*. A machine that is *missing* is looked up before its job is rejected (`lookup`).

use std::time::Duration;

use super::action::Action;
use super::id::AttemptId;
use super::job::Reason;
use super::throttle::{self, Told};

/// An answer, as far as it could be read.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What `Retry-After` asks for, seconds or date, if it was readable.
    pub retry_after: Option<Duration>,
    /// `error.code`.
    pub code: Option<String>,
    /// `error.message`.
    pub message: Option<String>,
    /// The `MachineAction` of a 2xx, if the whole body was one.
    pub action: Option<Action>,
}

/// What an answer means for the job and for its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Defender made an action for this attempt.
    Created(Action),
    /// The machine has a pending action; which one, when the answer told.
    Busy(Option<Action>),
    /// Defender will not do it for this machine.
    Refused(Reason),
    /// Defender says that it does not know the machine. Observed in passing for machines that exist:
    /// the machine is looked up before that is believed.
    Missing,
    /// The token is not accepted.
    Unauthorized,
    /// The application may not do this.
    Forbidden,
    /// The budget is spent, by us or by others; what the answer said about it.
    Throttled(Told),
    /// Defender could not read what we sent: an error in sweepd, or a change in the API.
    Malformed,
    /// It may have had an effect.
    Unknown,
    /// The connection failed before a byte of the call was sent.
    NotSent,
}

super::sweep::words!(OutcomeWord {
    Created = "created",
    Busy = "busy",
    Refused = "refused",
    Missing = "missing",
    Unauthorized = "unauthorized",
    Forbidden = "forbidden",
    Throttled = "throttled",
    Malformed = "malformed",
    Unknown = "unknown",
    NotSent = "not_sent",
});

/// The word of an outcome, for the record and for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the variants are those of `Outcome`")]
pub enum OutcomeWord {
    Created,
    Busy,
    Refused,
    Missing,
    Unauthorized,
    Forbidden,
    Throttled,
    Malformed,
    Unknown,
    NotSent,
}

impl Outcome {
    /// The outcome without what it carries.
    pub const fn word(&self) -> OutcomeWord {
        match self {
            Self::Created(_) => OutcomeWord::Created,
            Self::Busy(_) => OutcomeWord::Busy,
            Self::Refused(_) => OutcomeWord::Refused,
            Self::Missing => OutcomeWord::Missing,
            Self::Unauthorized => OutcomeWord::Unauthorized,
            Self::Forbidden => OutcomeWord::Forbidden,
            Self::Throttled(_) => OutcomeWord::Throttled,
            Self::Malformed => OutcomeWord::Malformed,
            Self::Unknown => OutcomeWord::Unknown,
            Self::NotSent => OutcomeWord::NotSent,
        }
    }
}

/// Judges the answer to `attempt`. See the table of the module.
pub fn judge(attempt: AttemptId, answer: &Answer) -> Outcome {
    let code = answer.code.as_deref().unwrap_or_default();
    let message = answer.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let is = |word: &str| code.eq_ignore_ascii_case(word);
    match answer.status {
        200..=299 => match &answer.action {
            Some(action) if mark(action) == Some(attempt) => Outcome::Created(action.clone()),
            Some(action) => Outcome::Busy(Some(action.clone())),
            None => Outcome::Unknown,
        },
        _ if is_throttled(answer) => Outcome::Throttled(told(answer)),
        400 if is("ActiveRequestAlreadyExists") || message.contains("already in progress") => Outcome::Busy(None),
        400 if is("OsPlatformNotSupported") => Outcome::Refused(Reason::UnsupportedPlatform),
        400 if is("ClientVersionNotSupported") => Outcome::Refused(Reason::UnsupportedClient),
        400 if is("InvalidRequestBody") || is("MissingRequiredParameter") => Outcome::Malformed,
        401 => Outcome::Unauthorized,
        403 => Outcome::Forbidden,
        404 if is_missing(answer) => Outcome::Missing,
        _ => Outcome::Unknown,
    }
}

/// The attempt whose mark an action carries.
pub fn mark(action: &Action) -> Option<AttemptId> {
    action.comment.as_deref().and_then(AttemptId::marked_in)
}

/// Whether an answer is Defender's word that what was named is not there. A 404 without that word is
/// anybody's: a proxy's, a gateway's, or that of a host which is not the API.
pub fn is_missing(answer: &Answer) -> bool {
    let code = answer.code.as_deref().unwrap_or_default();
    answer.status == 404 && ["ResourceNotFound", "NotFound"].iter().any(|word| code.eq_ignore_ascii_case(word))
}

/// Whether an answer says that the budget is spent.
pub fn is_throttled(answer: &Answer) -> bool {
    let code = answer.code.as_deref().unwrap_or_default();
    answer.status == 429 || (answer.status >= 400 && (code == "429" || code.eq_ignore_ascii_case("TooManyRequests")))
}

/// What a throttling answer says, in its headers and its message.
pub fn told(answer: &Answer) -> Told {
    throttle::told(answer.retry_after, answer.message.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::{ActionStatus, Origin};
    use crate::domain::ledger::Window;
    use crate::domain::time::Wall;
    use uuid::Uuid;

    const OURS: AttemptId = AttemptId(Uuid::from_u128(1));

    fn action(comment: &str) -> Action {
        Action {
            id: "a".into(),
            action_type: "RunAntiVirusScan".into(),
            status: ActionStatus::Pending,
            machine: None,
            origin: Origin::Foreign,
            scope: None,
            comment: Some(comment.into()),
            created_at: Wall(0),
            updated_at: Wall(0),
        }
    }

    fn answer(status: u16, code: &str, message: &str) -> Answer {
        Answer { status, code: Some(code.into()), message: Some(message.into()), ..Answer::default() }
    }

    #[test]
    fn a_2xx_is_judged_by_its_mark_alone() {
        for status in [200, 201, 202] {
            let with = |comment: &str| Answer { status, action: Some(action(comment)), ..Answer::default() };
            assert!(matches!(judge(OURS, &with(&OURS.mark("weekly"))), Outcome::Created(_)));
            assert!(matches!(judge(OURS, &with("somebody else's")), Outcome::Busy(Some(_))));
            let other = AttemptId(Uuid::from_u128(2)).mark("an older attempt");
            assert!(matches!(judge(OURS, &with(&other)), Outcome::Busy(Some(_))));
            assert_eq!(judge(OURS, &Answer { status, ..Answer::default() }), Outcome::Unknown);
        }
    }

    #[test]
    fn a_429_tells_what_its_header_and_its_message_say() {
        let message = "Maximum allowed 1500 per 01:00:00. You can send requests again in 8 seconds.";
        let both = Answer { retry_after: Some(Duration::from_secs(30)), ..answer(429, "429", message) };
        let told = Told { wait: Some(Duration::from_secs(30)), window: Some(Window::Hour) };
        assert_eq!(judge(OURS, &both), Outcome::Throttled(told));
    }
}
