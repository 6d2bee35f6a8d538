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
//! | 400, 403, 409, 410 | code `ActiveRequestAlreadyExists` | busy | documented for live response, observed for scans |
//! | 400, 409 | message `Action is already in progress` | busy | run-av-scan |
//! | 400 | message `action is ALREADY IN PROGRESS for this machine.` | busy | messages may change |
//! | 400, 403, 409, 410, 422 | code `OsPlatformNotSupported` | refused | common-errors: never on this machine |
//! | 400, 403, 409, 410, 422 | code `ClientVersionNotSupported` | refused | common-errors: never on this machine |
//! | 400, 409, 422 | code `InvalidRequestBody`, code `MissingRequiredParameter` | malformed | common-errors: the caller's fault, ours |
//! | 400, 402, 403, 405, 406, 407, 409, 410, 411, 412, 413, 415, 422, 425, 431, 451, 499 | code `BadRequest`, code `InvalidInput`, code `DisallowedOperation`, code `SomethingNew` | refused | a no that can be read is an answer, about this machine |
//! | 400 | code `ODataError`, code `NotFound` | refused | the same |
//! | 404 | code `InvalidInput`, code `SomethingNew` | refused | the same |
//! | 401 | code `Unauthorized`, code `InvalidInput`, a page, nothing | unauthorized | common-errors; the status says it |
//! | 403 | code `Forbidden`, code `DisabledFeature` | forbidden | common-errors: about the app |
//! | 403 | a page, half an error, an error without a code, an error without a message, nothing, noise | forbidden | nobody can tell whom it is about |
//! | 400, 409 | code `Forbidden`, code `DisabledFeature` | forbidden | the code says that it is about the app |
//! | 404 | code `ResourceNotFound`, code `NotFound` | missing | common-errors; observed for an unknown machine, and in passing for a known one |
//! | 400, 402, 404, 405, 406, 407, 409, 410, 411, 412, 413, 415, 422, 425, 431, 451, 499 | a page, half an error, an error without a code, an error without a message, our action, nothing, noise | unknown | a proxy's or a gateway's: it says nothing of the machine |
//! | 408 | code `RequestTimeout`, code `InvalidInput`, a page, nothing | unknown | the effect may have happened |
//! | 1xx, 3xx, 5xx | code `InternalServerError`, code `InvalidInput`, a page, our action, half an error, noise, nothing | unknown | nothing says that it had no effect |
//!
//! No answer at all is *unknown* too, unless the connection failed before a byte of the call was sent:
//! that is *not sent*. A machine that is *missing* is looked up before its job is rejected (`lookup`). A 403
//! means something else once Defender has accepted a call with the same token: [`Outcome::knowing`].

use std::time::Duration;

use super::action::Action;
use super::id::AttemptId;
use super::job::Reason;
use super::permission::roles_named;
use super::shown::on_one_line;
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
    /// The call is forbidden, and nothing shows that it is this machine's alone.
    Forbidden(Denial),
    /// The budget is spent, by us or by others; what the answer said about it.
    Throttled(Told),
    /// Defender could not read what we sent: an error in sweepd, or a change in the API.
    Malformed,
    /// It may have had an effect.
    Unknown,
    /// The connection failed before a byte of the call was sent.
    NotSent,
}

/// What a 403 says of its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The app lacks a permission: any of these roles would do, as Defender names them.
    Roles(Vec<String>),
    /// `Forbidden`, in words that name no role.
    Unnamed,
    /// A feature is switched off in the tenant.
    Feature,
    /// It is not in Defender's words: maybe a proxy's or a firewall's.
    Unreadable,
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
            Self::Forbidden(_) => OutcomeWord::Forbidden,
            Self::Throttled(_) => OutcomeWord::Throttled,
            Self::Malformed => OutcomeWord::Malformed,
            Self::Unknown => OutcomeWord::Unknown,
            Self::NotSent => OutcomeWord::NotSent,
        }
    }

    /// What an answer means for all that is known beside it: whether Defender has accepted another machine with the
    /// same token, and whether this machine is `suspect`, as one that failed while others were understood. A token
    /// names its roles, so a `Forbidden` under an accepted one is this machine's own. A 403 that nobody can read is no
    /// answer where others get one.
    #[must_use]
    pub fn knowing(self, token_is_accepted: bool, suspect: bool) -> Self {
        match self {
            Self::Forbidden(Denial::Roles(_) | Denial::Unnamed) if token_is_accepted => Self::Refused(Reason::Refused),
            Self::Forbidden(Denial::Unreadable) if token_is_accepted || suspect => Self::Unknown,
            other => other,
        }
    }
}

/// Judges the answer to `attempt`. See the table of the module.
pub fn judge(attempt: AttemptId, answer: &Answer) -> Outcome {
    match answer.status {
        200..=299 => match &answer.action {
            Some(action) if mark(action) == Some(attempt) => Outcome::Created(action.clone()),
            Some(action) => Outcome::Busy(Some(action.clone())),
            None => Outcome::Unknown,
        },
        _ if is_throttled(answer) => Outcome::Throttled(told(answer)),
        401 => Outcome::Unauthorized,
        408 => Outcome::Unknown,
        400..=499 => no(answer),
        _ => Outcome::Unknown,
    }
}

/// Judges a 4xx that is about more than the token and the budget.
fn no(answer: &Answer) -> Outcome {
    let code = answer.code.as_deref().unwrap_or_default();
    let message = answer.message.as_deref().unwrap_or_default();
    let is = |word: &str| code.eq_ignore_ascii_case(word);
    if is("ActiveRequestAlreadyExists") || message.to_ascii_lowercase().contains("already in progress") {
        Outcome::Busy(None)
    } else if is("OsPlatformNotSupported") {
        Outcome::Refused(Reason::UnsupportedPlatform)
    } else if is("ClientVersionNotSupported") {
        Outcome::Refused(Reason::UnsupportedClient)
    } else if is("InvalidRequestBody") || is("MissingRequiredParameter") {
        Outcome::Malformed
    } else if is_missing(answer) {
        Outcome::Missing
    } else if let Some(denial) = denial(answer) {
        Outcome::Forbidden(denial)
    } else if is_readable(answer) {
        Outcome::Refused(Reason::Refused)
    } else {
        Outcome::Unknown
    }
}

/// What a no says against the app, if it does; a 403 that nobody can read may.
pub fn denial(answer: &Answer) -> Option<Denial> {
    let code = answer.code.as_deref().unwrap_or_default();
    if code.eq_ignore_ascii_case("DisabledFeature") {
        return Some(Denial::Feature);
    }
    if answer.status == 403 && !is_readable(answer) {
        return Some(Denial::Unreadable);
    }
    code.eq_ignore_ascii_case("Forbidden").then(|| {
        let roles = roles_named(answer.message.as_deref().unwrap_or_default());
        if roles.is_empty() { Denial::Unnamed } else { Denial::Roles(roles) }
    })
}

/// Whether an error is in Defender's words: it has a code and a message.
pub fn is_readable(answer: &Answer) -> bool {
    [&answer.code, &answer.message].iter().all(|part| part.as_ref().is_some_and(|part| !part.trim().is_empty()))
}

/// The most that is shown of Defender's words, in characters.
const MAX_SHOWN: usize = 300;

/// Code and message of an error, as they may be shown: on one line, bounded, without characters that a terminal
/// obeys. None of an error that cannot be read.
pub fn shown(answer: &Answer) -> Option<String> {
    let (code, message) = (answer.code.as_deref()?, answer.message.as_deref()?);
    is_readable(answer).then(|| on_one_line(&format!("{code}: {message}"), MAX_SHOWN))
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
    fn forbidden_under_an_accepted_token_is_about_the_machine() {
        let forbidden = |code: &str, message: &str| judge(OURS, &answer(403, code, message));
        let refused = Outcome::Refused(Reason::Refused);
        for (outcome, denial, then) in [
            (forbidden("Forbidden", "Required: Machine.Scan"), Denial::Roles(vec!["Machine.Scan".into()]), &refused),
            (forbidden("Forbidden", "No."), Denial::Unnamed, &refused),
            (forbidden("DisabledFeature", "Off."), Denial::Feature, &Outcome::Forbidden(Denial::Feature)),
            (forbidden("", "No."), Denial::Unreadable, &Outcome::Unknown),
        ] {
            assert_eq!(outcome, Outcome::Forbidden(denial));
            assert_eq!(outcome.clone().knowing(false, false), outcome);
            assert_eq!(outcome.knowing(true, false), *then);
        }
        assert_eq!(forbidden("DisallowedOperation", "No."), refused);
        assert_eq!(forbidden("", "").knowing(false, true), Outcome::Unknown, "others are answered");
        let lacking = forbidden("Forbidden", "Required: Machine.Scan");
        assert_eq!(lacking.clone().knowing(false, true), lacking, "the role may be gone since");
        assert_eq!(Outcome::Unauthorized.knowing(true, true), Outcome::Unauthorized);
    }

    #[test]
    fn defenders_words_are_shown_on_one_short_line() {
        let said = |code: &str, message: &str| shown(&answer(400, code, message));
        assert_eq!(
            said("InvalidInput", "The\r\nmachine \u{1b}[2J\u{202e}is odd.").unwrap(),
            "InvalidInput: The machine [2J is odd."
        );
        let long = said("X", &"ä".repeat(5000)).unwrap();
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_SHOWN + 1, true));
        assert_eq!((said("", "m"), said("X", " ")), (None, None));
    }

    #[test]
    fn a_429_tells_what_its_header_and_its_message_say() {
        let message = "Maximum allowed 1500 per 01:00:00. You can send requests again in 8 seconds.";
        let both = Answer { retry_after: Some(Duration::from_secs(30)), ..answer(429, "429", message) };
        let told = Told { wait: Some(Duration::from_secs(30)), window: Some(Window::Hour) };
        assert_eq!(judge(OURS, &both), Outcome::Throttled(told));
    }
}
