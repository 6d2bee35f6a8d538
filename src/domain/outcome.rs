//! What an answer to `runAntiVirusScan` means. One pure function, one table.
//!
//! | answer | outcome | source |
//! |---|---|---|
//! | 2xx with an action that carries this attempt's mark | [`Outcome::Created`] | run-av-scan (201 and a `MachineAction`) |
//! | 2xx with another action | [`Outcome::Busy`] with it | run-av-scan: the pending action may come back instead of a new one |
//! | 2xx without a readable action | [`Outcome::Unknown`] | the effect may have happened |
//! | 400 `ActiveRequestAlreadyExists`, or "already in progress" | [`Outcome::Busy`] | run-av-scan; the code was observed |
//! | 400 `OsPlatformNotSupported`, `ClientVersionNotSupported` | [`Outcome::Refused`] | common-errors |
//! | 400 `InvalidRequestBody`, `MissingRequiredParameter` | [`Outcome::Malformed`] | common-errors: the caller's fault, ours |
//! | 401 | [`Outcome::Unauthorized`] | common-errors |
//! | 403 | [`Outcome::Forbidden`] | common-errors |
//! | 404 with `ResourceNotFound` or `NotFound` | [`Outcome::Refused`] | common-errors; observed for an unknown machine |
//! | 429, or any refusal with `error.code` "429" or `TooManyRequests` | [`Outcome::Throttled`] | common-errors; the string "429" was observed |
//! | anything else: 3xx, 408, 5xx, a 404 page of a proxy, an unlisted 400 | [`Outcome::Unknown`] | nothing says that it had no effect |

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
        404 if is("ResourceNotFound") || is("NotFound") => Outcome::Refused(Reason::UnknownMachine),
        _ => Outcome::Unknown,
    }
}

/// The attempt whose mark an action carries.
pub fn mark(action: &Action) -> Option<AttemptId> {
    action.comment.as_deref().and_then(AttemptId::marked_in)
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
    fn errors_are_judged_as_the_table_says() {
        let table = [
            (400, "ActiveRequestAlreadyExists", "", Outcome::Busy(None)),
            (400, "BadRequest", "Action is already in progress", Outcome::Busy(None)),
            (400, "OsPlatformNotSupported", "", Outcome::Refused(Reason::UnsupportedPlatform)),
            (400, "ClientVersionNotSupported", "", Outcome::Refused(Reason::UnsupportedClient)),
            (400, "InvalidRequestBody", "", Outcome::Malformed),
            (400, "MissingRequiredParameter", "", Outcome::Malformed),
            (400, "SomethingNew", "", Outcome::Unknown),
            (400, "TooManyRequests", "", Outcome::Throttled(Told::default())),
            (503, "429", "", Outcome::Throttled(Told::default())),
            (401, "Unauthorized", "", Outcome::Unauthorized),
            (403, "Forbidden", "", Outcome::Forbidden),
            (404, "ResourceNotFound", "", Outcome::Refused(Reason::UnknownMachine)),
            (404, "", "<html>not found</html>", Outcome::Unknown),
            (408, "", "", Outcome::Unknown),
            (429, "429", "", Outcome::Throttled(Told::default())),
            (429, "", "<html>", Outcome::Throttled(Told::default())),
            (301, "", "", Outcome::Unknown),
            (307, "", "", Outcome::Unknown),
            (500, "InternalServerError", "", Outcome::Unknown),
            (503, "", "", Outcome::Unknown),
        ];
        for (status, code, message, expected) in table {
            assert_eq!(judge(OURS, &answer(status, code, message)), expected, "{status} {code} {message}");
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
