//! The breakers of a lane: when a tenant's calls must stop, and how they start again.
//!
//! One call's trouble is the job's; trouble that every call would meet is the lane's. A lane that
//! is held makes no call until its time, then exactly one, the probe, whose answer decides. So the
//! queue is never burnt on a tenant that is forbidden, signed out or down. A 429 is neither the job's
//! trouble nor the lane's: it is about the budget, which has its own silence (`domain::silence`).

use std::num::NonZeroU32;
use std::time::Duration;

use super::outcome::OutcomeWord;
use super::time::Boot;

/// Why a lane is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// 401 also with a fresh token.
    SignedOut,
    /// 403: the application lacks a permission.
    Forbidden,
    /// Defender could not read our request.
    Malformed,
    /// Ten outcomes in a row were unknown: Defender, or the way to it, is down.
    Down,
    /// 404 is all that was ever answered here: the address is not that of the API.
    NotThere,
}

super::sweep::words!(Hold {
    SignedOut = "signed_out",
    Forbidden = "forbidden",
    Malformed = "malformed",
    Down = "down",
    NotThere = "not_there",
});

/// So many unknown outcomes in a row stop the lane.
pub const UNKNOWN_IN_A_ROW: u32 = 10;

impl Hold {
    /// The first pause, and what doubling ends at.
    const fn pauses(self) -> (Duration, Duration) {
        match self {
            Self::SignedOut => (Duration::from_secs(5), Duration::from_mins(5)),
            Self::Forbidden | Self::Malformed | Self::NotThere => (Duration::from_mins(1), Duration::from_hours(1)),
            Self::Down => (Duration::from_secs(30), Duration::from_mins(10)),
        }
    }

    /// How long a lane stands that is held for this for the so many-th time in a row, from zero.
    fn pause(self, strikes: u32) -> Duration {
        let (first, last) = self.pauses();
        first.saturating_mul(1 << strikes.min(16)).min(last)
    }
}

/// What the lane may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Send.
    Open,
    /// Send one, and await its answer; this is what held the lane.
    Probe(Hold),
    /// As many calls are on the wire as latency justifies: the next answer opens it.
    Full,
    /// Nothing before this time.
    Held(Hold, Boot),
}

/// What a settled call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing worth telling.
    None,
    /// The lane stops until the time given.
    Stopped(Hold, Boot),
    /// The lane goes on after having stood this long.
    Resumed(Hold, Duration),
}

/// Calls that may be on the wire at once when each takes `latency`: enough that latency does not
/// bind, few enough that a 429 meets few others.
pub fn width(per_minute: NonZeroU32, latency: Duration) -> u32 {
    let per_second = f64::from(per_minute.get()) / 60.0;
    let wide = (4.0 * per_second * latency.as_secs_f64()).ceil().clamp(2.0, 128.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 2..=128")]
    let wide = wide as u32;
    wide
}

#[derive(Clone, Copy, Debug)]
struct Held {
    why: Hold,
    since: Boot,
    until: Boot,
    strikes: u32,
}

/// The breakers of one tenant's scan calls. Fed with what happens, asked before each call.
#[derive(Clone, Debug)]
pub struct Lane {
    per_minute: NonZeroU32,
    held: Option<Held>,
    unknown_in_a_row: u32,
    unauthorized_before: bool,
    is_there: bool,
    in_flight: u32,
    latency: Duration,
}

impl Lane {
    /// An open lane with nothing on the wire.
    pub const fn new(per_minute: NonZeroU32) -> Self {
        Self {
            per_minute,
            held: None,
            unknown_in_a_row: 0,
            unauthorized_before: false,
            is_there: false,
            in_flight: 0,
            latency: Duration::from_secs(1),
        }
    }

    /// Takes up a hold that was written down before a start. That is an operator's word to try again:
    /// the lane is probed at once.
    pub const fn resume_hold(&mut self, why: Hold, now: Boot) {
        self.held = Some(Held { why, since: now, until: now, strikes: 0 });
    }

    /// A reload: other limits, maybe another address, and an operator's word to try again, as at a start.
    /// What is on the wire stays.
    pub fn reload(&mut self, per_minute: NonZeroU32, now: Boot) {
        self.per_minute = per_minute;
        self.is_there = false;
        if let Some(held) = self.held.as_mut() {
            held.until = held.until.min(now);
        }
    }

    /// Whether this address has answered anything but 404. Until then a 404 says nothing of a machine:
    /// a wrong host or path answers every call so.
    pub const fn is_there(&self) -> bool {
        self.is_there
    }

    /// A reading call was answered as only the API would.
    pub fn shown(&mut self, now: Boot) {
        self.is_there = true;
        if let Some(held) = self.held.as_mut().filter(|held| held.why == Hold::NotThere) {
            held.until = held.until.min(now);
        }
    }

    /// Calls on the wire.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Calls that may be on the wire at once.
    pub fn width(&self) -> u32 {
        width(self.per_minute, self.latency)
    }

    /// May a call be made at `now`?
    pub fn gate(&self, now: Boot) -> Gate {
        match self.held {
            Some(held) if now < held.until => Gate::Held(held.why, held.until),
            Some(_) if self.in_flight > 0 => Gate::Full,
            Some(held) => Gate::Probe(held.why),
            None if self.in_flight >= self.width() => Gate::Full,
            None => Gate::Open,
        }
    }

    /// A call goes out.
    pub const fn sent(&mut self) {
        self.in_flight += 1;
    }

    /// A call that was about to go out did not: nothing is learnt from that.
    pub const fn kept_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A call has settled with `outcome`. `token_was_current` says whether a 401 was about the token
    /// that is still in use, or about one already replaced; `suspect`, whether the machine was refused before
    /// while others were not: then it is refused once more, and the lane is none the wiser.
    pub fn settled(
        &mut self,
        now: Boot,
        outcome: OutcomeWord,
        latency: Duration,
        token_was_current: bool,
        suspect: bool,
    ) -> Change {
        self.in_flight = self.in_flight.saturating_sub(1);
        // How long it took to give up says nothing of how many calls are worth having on the wire.
        if !matches!(outcome, OutcomeWord::Unknown | OutcomeWord::NotSent) {
            self.latency = (self.latency * 4 + latency) / 5;
        }
        match outcome {
            OutcomeWord::Missing if !self.is_there => self.hold(now, Hold::NotThere),
            OutcomeWord::Created | OutcomeWord::Busy | OutcomeWord::Refused | OutcomeWord::Missing => {
                self.is_there = true;
                self.understood(now)
            }
            OutcomeWord::Throttled => {
                // Somebody answers. Whether a call would succeed, a 429 does not say: what holds the lane stays.
                self.unknown_in_a_row = 0;
                Change::None
            }
            OutcomeWord::Forbidden | OutcomeWord::Malformed if suspect && self.held.is_none() => Change::None,
            OutcomeWord::Forbidden => self.hold(now, Hold::Forbidden),
            OutcomeWord::Malformed => self.hold(now, Hold::Malformed),
            OutcomeWord::Unauthorized if !token_was_current => Change::None,
            OutcomeWord::Unauthorized if !self.unauthorized_before => {
                // Once, a fresh token is tried at once: tokens are revoked before they expire.
                self.unauthorized_before = true;
                Change::None
            }
            OutcomeWord::Unauthorized => self.hold(now, Hold::SignedOut),
            OutcomeWord::Unknown | OutcomeWord::NotSent => {
                self.unknown_in_a_row = self.unknown_in_a_row.saturating_add(1);
                if self.unknown_in_a_row >= UNKNOWN_IN_A_ROW || self.held.is_some() {
                    self.hold(now, Hold::Down)
                } else {
                    Change::None
                }
            }
        }
    }

    fn understood(&mut self, now: Boot) -> Change {
        self.unknown_in_a_row = 0;
        self.unauthorized_before = false;
        match self.held {
            Some(held) => {
                self.held = None;
                Change::Resumed(held.why, now.since(held.since))
            }
            None => Change::None,
        }
    }

    fn hold(&mut self, now: Boot, why: Hold) -> Change {
        let (since, strikes) = match self.held {
            // Others that were on the wire when the lane stopped.
            Some(held) if now < held.until => return Change::None,
            Some(held) => (held.since, if held.why == why { held.strikes.saturating_add(1) } else { 0 }),
            None => (now, 0),
        };
        let until = now + why.pause(strikes);
        self.held = Some(Held { why, since, until, strikes });
        Change::Stopped(why, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lane() -> Lane {
        Lane::new(NonZeroU32::new(100).unwrap())
    }

    fn call(lane: &mut Lane, now: Boot, outcome: OutcomeWord) -> Change {
        lane.sent();
        lane.settled(now, outcome, SECOND, true, false)
    }

    #[test]
    fn ten_unknown_in_a_row_stop_the_lane_and_one_answer_starts_it() {
        let mut lane = lane();
        for _ in 0..9 {
            assert_eq!(call(&mut lane, Boot(0), OutcomeWord::Unknown), Change::None);
        }
        let until = Boot(30_000);
        assert_eq!(call(&mut lane, Boot(0), OutcomeWord::NotSent), Change::Stopped(Hold::Down, until));
        assert_eq!(lane.gate(Boot(29_999)), Gate::Held(Hold::Down, until));
        assert_eq!(lane.gate(until), Gate::Probe(Hold::Down));
        assert_eq!(call(&mut lane, until, OutcomeWord::Unknown), Change::Stopped(Hold::Down, until + SECOND * 60));
        let later = until + SECOND * 60;
        assert_eq!(call(&mut lane, later, OutcomeWord::Created), Change::Resumed(Hold::Down, SECOND * 90));
        assert_eq!(lane.gate(later), Gate::Open);
    }

    #[test]
    fn an_understood_answer_in_between_resets_the_count() {
        let mut lane = lane();
        for n in 0..40 {
            let outcome = if n % 9 == 0 { OutcomeWord::Refused } else { OutcomeWord::Unknown };
            assert_eq!(call(&mut lane, Boot(0), outcome), Change::None);
        }
    }

    #[test]
    fn a_401_tries_a_fresh_token_once_then_holds() {
        let mut lane = lane();
        assert_eq!(call(&mut lane, Boot(0), OutcomeWord::Unauthorized), Change::None);
        assert_eq!(lane.gate(Boot(0)), Gate::Open);
        assert!(matches!(call(&mut lane, Boot(0), OutcomeWord::Unauthorized), Change::Stopped(Hold::SignedOut, _)));
        let mut reloaded = Lane::new(lane.per_minute);
        reloaded.resume_hold(Hold::SignedOut, Boot(1));
        assert_eq!(reloaded.gate(Boot(1)), Gate::Probe(Hold::SignedOut));
    }

    #[test]
    fn while_held_only_one_probe_is_on_the_wire() {
        let mut lane = lane();
        call(&mut lane, Boot(0), OutcomeWord::Forbidden);
        let at = Boot(60_000);
        assert_eq!(lane.gate(at), Gate::Probe(Hold::Forbidden));
        lane.sent();
        assert_eq!(lane.gate(at), Gate::Full);
    }

    #[test]
    fn width_follows_latency_within_bounds() {
        let mut lane = lane();
        for _ in 0..40 {
            lane.sent();
            lane.settled(Boot(0), OutcomeWord::Created, Duration::from_millis(10), true, false);
        }
        assert_eq!(lane.width(), 2);
        for _ in 0..40 {
            lane.sent();
            lane.settled(Boot(0), OutcomeWord::Created, SECOND * 30, true, false);
        }
        assert_eq!(lane.width(), 128);
        for _ in 0..128 {
            lane.sent();
        }
        assert_eq!(lane.gate(Boot(0)), Gate::Full);
    }

    #[test]
    fn a_defender_that_hangs_does_not_get_more_calls_for_it() {
        let mut lane = lane();
        let width = lane.width();
        for _ in 0..UNKNOWN_IN_A_ROW - 1 {
            lane.sent();
            lane.settled(Boot(0), OutcomeWord::Unknown, SECOND * 60, true, false);
        }
        assert_eq!(lane.width(), width);
    }

    #[test]
    fn a_429_neither_holds_a_lane_nor_frees_one() {
        let mut lane = lane();
        for _ in 0..3 * UNKNOWN_IN_A_ROW {
            assert_eq!(call(&mut lane, Boot(0), OutcomeWord::Unknown), Change::None, "somebody answers");
            assert_eq!(call(&mut lane, Boot(0), OutcomeWord::Throttled), Change::None);
        }
        assert_eq!(lane.gate(Boot(0)), Gate::Open);
        call(&mut lane, Boot(0), OutcomeWord::Forbidden);
        let until = Boot(60_000);
        assert_eq!(call(&mut lane, Boot(1), OutcomeWord::Throttled), Change::None);
        assert_eq!(lane.gate(Boot(1)), Gate::Held(Hold::Forbidden, until));
        assert_eq!(call(&mut lane, until, OutcomeWord::Throttled), Change::None);
        assert_eq!(lane.gate(until), Gate::Probe(Hold::Forbidden), "the probe has still to be made");
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_those_that_come_home_meanwhile_change_nothing() {
        let (mut lane, mut now) = (lane(), Boot(0));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Change::Stopped(_, until) = call(&mut lane, now, OutcomeWord::Forbidden) else { panic!() };
            assert_eq!(call(&mut lane, now, OutcomeWord::Forbidden), Change::None);
            pauses.push(until.since(now).as_secs() / 60);
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_machine_that_is_refused_again_holds_no_other_and_frees_no_lane() {
        let mut lane = lane();
        let refused = |lane: &mut Lane, now| {
            lane.sent();
            lane.settled(now, OutcomeWord::Forbidden, SECOND, true, true)
        };
        assert_eq!(refused(&mut lane, Boot(0)), Change::None);
        assert_eq!(lane.gate(Boot(0)), Gate::Open);
        call(&mut lane, Boot(0), OutcomeWord::Forbidden);
        let until = Boot(60_000);
        assert!(matches!(refused(&mut lane, until), Change::Stopped(Hold::Forbidden, _)), "it was the probe");
    }

    #[test]
    fn where_nothing_but_404_was_ever_answered_the_first_one_holds_the_lane() {
        let (mut lane, until) = (lane(), Boot(60_000));
        assert_eq!(call(&mut lane, Boot(0), OutcomeWord::Missing), Change::Stopped(Hold::NotThere, until));
        assert!(!lane.is_there());
        assert_eq!(call(&mut lane, until, OutcomeWord::Created), Change::Resumed(Hold::NotThere, until.since(Boot(0))));
        for _ in 0..3 * UNKNOWN_IN_A_ROW {
            assert_eq!(call(&mut lane, until, OutcomeWord::Missing), Change::None, "a list of machines that are gone");
        }
        lane.reload(NonZeroU32::MIN, until);
        assert!(!lane.is_there(), "the address may be another one");
    }

    #[test]
    fn a_list_that_can_be_read_shows_that_the_api_is_there() {
        let mut lane = lane();
        lane.shown(Boot(0));
        assert_eq!(call(&mut lane, Boot(0), OutcomeWord::Missing), Change::None);
        lane.reload(NonZeroU32::MIN, Boot(0));
        call(&mut lane, Boot(0), OutcomeWord::Missing);
        lane.shown(Boot(7));
        assert_eq!(lane.gate(Boot(7)), Gate::Probe(Hold::NotThere));
        call(&mut lane, Boot(7), OutcomeWord::Forbidden);
        lane.shown(Boot(8));
        assert!(matches!(lane.gate(Boot(8)), Gate::Held(Hold::Forbidden, _)), "what it says nothing of stays");
    }

    #[test]
    fn a_reload_tries_again_at_once() {
        let mut lane = lane();
        call(&mut lane, Boot(0), OutcomeWord::Forbidden);
        lane.reload(NonZeroU32::MIN, Boot(1));
        assert_eq!(lane.gate(Boot(1)), Gate::Probe(Hold::Forbidden));
    }
}
