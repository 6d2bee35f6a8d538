//! Tokens that Defender refuses (401) though they are fresh.
//!
//! Tokens are revoked before they expire, so the first refusal is worth another sign-in at once. When the
//! new one is refused as well, no sign-in helps for now: the next is made after a pause, which doubles.

use std::time::Duration;

use super::ledger::CallKind;
use super::time::Boot;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_mins(5);

/// What the reading calls of a lane have met. The scan's own refusals hold the lane (`domain::lane`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals(Option<Refused>);

#[derive(Clone, Copy, Debug)]
struct Refused {
    /// The last call that was refused: another kind's answer says nothing of it.
    kind: CallKind,
    /// Fresh tokens in a row that were.
    fresh: u32,
    until: Boot,
}

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Sign in anew, and ask again at once.
    Again,
    /// No reading call until then. `first` says whether this is news.
    Wait {
        /// Until when.
        until: Boot,
        /// Whether the token before it was still accepted.
        first: bool,
    },
}

impl Refusals {
    /// A call of this kind was refused at `now`.
    pub fn refused(&mut self, now: Boot, kind: CallKind) -> Refusal {
        // Long after the last one this is another story.
        let before = self.0.filter(|before| now.since(before.until) < LAST_PAUSE);
        let Some(before) = before else {
            self.0 = Some(Refused { kind, fresh: 0, until: now });
            return Refusal::Again;
        };
        if now < before.until {
            // On the wire with others when that was found out.
            return Refusal::Wait { until: before.until, first: false };
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << before.fresh.min(16)).min(LAST_PAUSE);
        let until = now + pause;
        self.0 = Some(Refused { kind, fresh: before.fresh.saturating_add(1), until });
        Refusal::Wait { until, first: before.fresh == 0 }
    }

    /// A call of this kind was answered by more than a 401.
    pub fn accepted(&mut self, kind: CallKind) {
        self.0 = self.0.filter(|refused| refused.kind != kind);
    }

    /// When the next token is tried, while fresh ones are refused: a time that has come means that it is being tried.
    pub fn next_try(&self, now: Boot) -> Option<Boot> {
        let refused = self.0.filter(|refused| refused.fresh > 0 && now.since(refused.until) < LAST_PAUSE)?;
        Some(refused.until)
    }

    /// Until when no reading call is worth a sign-in.
    pub fn until(&self, now: Boot) -> Option<Boot> {
        self.0.map(|refused| refused.until).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: CallKind = CallKind::ListActions;

    fn at(seconds: i64) -> Boot {
        Boot(seconds * 1000)
    }

    #[test]
    fn a_revoked_token_is_replaced_at_once_and_the_next_one_after_growing_pauses() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.refused(at(0), LIST), Refusal::Again);
        assert_eq!((refusals.until(at(0)), refusals.next_try(at(0))), (None, None), "the fresh one is tried");
        let (mut now, mut pauses) = (at(0), Vec::new());
        for n in 0..9 {
            let Refusal::Wait { until, first } = refusals.refused(now, LIST) else { panic!("a storm") };
            assert_eq!((refusals.until(now), first), (Some(until), n == 0));
            assert_eq!(refusals.refused(now, LIST), Refusal::Wait { until, first: false }, "it was on the wire");
            pauses.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(refusals.until(now), None, "then one is tried");
        assert_eq!(refusals.next_try(now), Some(now), "and refused so far");
        assert_eq!(refusals.next_try(now + LAST_PAUSE), None, "long ago");
    }

    #[test]
    fn an_answer_ends_it_and_another_kinds_does_not() {
        let mut refusals = Refusals::default();
        refusals.refused(at(0), LIST);
        refusals.refused(at(0), LIST);
        refusals.accepted(CallKind::GetAction);
        assert_eq!(refusals.until(at(1)), Some(at(5)));
        refusals.accepted(LIST);
        assert_eq!((refusals.until(at(1)), refusals.next_try(at(1))), (None, None));
        assert_eq!(refusals.refused(at(2), LIST), Refusal::Again);
    }

    #[test]
    fn long_afterwards_a_token_may_be_revoked_again() {
        let mut refusals = Refusals::default();
        refusals.refused(at(0), LIST);
        assert_eq!(refusals.refused(at(300), LIST), Refusal::Again);
    }
}
