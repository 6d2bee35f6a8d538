//! The breakers of a lane: when a tenant's calls must stop, and how they start again.
//!
//! One call's trouble is the job's; trouble that every call would meet is the lane's. A lane that
//! is held makes no call until its time, then exactly one, the probe, whose answer decides. So the
//! queue is never burnt on a tenant that is throttled, forbidden, signed out or down.

use std::num::NonZeroU32;
use std::time::Duration;

use super::outcome::OutcomeWord;
use super::time::Boot;

/// Why a lane is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// 429: the budget is spent, by us or by others with the same app registration.
    Throttled,
    /// 401 also with a fresh token.
    SignedOut,
    /// 403: the application lacks a permission.
    Forbidden,
    /// Defender could not read our request.
    Malformed,
    /// Ten outcomes in a row were unknown: Defender, or the way to it, is down.
    Down,
}

super::sweep::words!(Hold {
    Throttled = "throttled",
    SignedOut = "signed_out",
    Forbidden = "forbidden",
    Malformed = "malformed",
    Down = "down",
});

/// So many unknown outcomes in a row stop the lane.
pub const UNKNOWN_IN_A_ROW: u32 = 10;

impl Hold {
    /// The first pause, and what doubling ends at.
    const fn pauses(self) -> (Duration, Duration) {
        match self {
            Self::Throttled => (Duration::from_mins(1), Duration::from_mins(10)),
            Self::SignedOut => (Duration::from_secs(5), Duration::from_mins(5)),
            Self::Forbidden | Self::Malformed => (Duration::from_mins(1), Duration::from_hours(1)),
            Self::Down => (Duration::from_secs(30), Duration::from_mins(10)),
        }
    }

    /// How long a lane stands that is held for this for the so many-th time in a row, from zero, when
    /// nobody says for how long.
    pub fn pause(self, strikes: u32) -> Duration {
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
    /// It stood already, and another call that was on the wire makes it stand until then.
    Prolonged(Hold, Boot),
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
    /// No answer, however absurd its `Retry-After`, holds the lane longer.
    longest: Duration,
    held: Option<Held>,
    unknown_in_a_row: u32,
    unauthorized_before: bool,
    in_flight: u32,
    latency: Duration,
}

impl Lane {
    /// An open lane with nothing on the wire, that no answer holds for more than `longest`.
    pub const fn new(per_minute: NonZeroU32, longest: Duration) -> Self {
        Self {
            per_minute,
            longest,
            held: None,
            unknown_in_a_row: 0,
            unauthorized_before: false,
            in_flight: 0,
            latency: Duration::from_secs(1),
        }
    }

    /// Takes up a hold that was written down before a start or a reload. Those are an operator's
    /// word to try again: all but a throttled lane is probed at once. A pause that Defender asked
    /// for is kept, since calls within it prolong it.
    pub fn resume_hold(&mut self, why: Hold, now: Boot, until: Boot) {
        let until = if why == Hold::Throttled { until.min(now + self.longest) } else { now };
        self.held = Some(Held { why, since: now, until, strikes: 0 });
    }

    /// A reload: other limits, and an operator's word to try again, as at a start. What is on the wire
    /// and what Defender asked for stay.
    pub fn reload(&mut self, per_minute: NonZeroU32, longest: Duration, now: Boot) {
        (self.per_minute, self.longest) = (per_minute, longest);
        if let Some(held) = self.held.as_mut().filter(|held| held.why != Hold::Throttled) {
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

    /// A call has settled with `outcome`. `wait` is what a 429 asked for; `token_was_current` says
    /// whether a 401 was about the token that is still in use, or about one already replaced.
    pub fn settled(
        &mut self,
        now: Boot,
        outcome: OutcomeWord,
        wait: Option<Duration>,
        latency: Duration,
        token_was_current: bool,
    ) -> Change {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.latency = (self.latency * 4 + latency) / 5;
        match outcome {
            OutcomeWord::Created | OutcomeWord::Busy | OutcomeWord::Refused => self.understood(now),
            OutcomeWord::Throttled => self.hold(now, Hold::Throttled, wait),
            OutcomeWord::Forbidden => self.hold(now, Hold::Forbidden, None),
            OutcomeWord::Malformed => self.hold(now, Hold::Malformed, None),
            OutcomeWord::Unauthorized if !token_was_current => Change::None,
            OutcomeWord::Unauthorized if !self.unauthorized_before => {
                // Once, a fresh token is tried at once: tokens are revoked before they expire.
                self.unauthorized_before = true;
                Change::None
            }
            OutcomeWord::Unauthorized => self.hold(now, Hold::SignedOut, None),
            OutcomeWord::Unknown | OutcomeWord::NotSent => {
                self.unknown_in_a_row = self.unknown_in_a_row.saturating_add(1);
                if self.unknown_in_a_row >= UNKNOWN_IN_A_ROW || self.held.is_some() {
                    self.hold(now, Hold::Down, None)
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
            // A call from before the pause proves nothing about the pause.
            Some(held) if held.why == Hold::Throttled && now < held.until => Change::None,
            Some(held) => {
                self.held = None;
                Change::Resumed(held.why, now.since(held.since))
            }
            None => Change::None,
        }
    }

    fn hold(&mut self, now: Boot, why: Hold, wait: Option<Duration>) -> Change {
        let longest = self.longest;
        let pause = |strikes| wait.unwrap_or_else(|| why.pause(strikes)).min(longest);
        match &mut self.held {
            // Others that were on the wire when the lane stopped: they prolong, but do not double.
            Some(held) if now < held.until => {
                let first = why == Hold::Throttled && held.why != Hold::Throttled;
                let told = wait.or_else(|| first.then(|| why.pause(0))).unwrap_or_default();
                let until = held.until.max(now + told.min(longest));
                let longer = until > held.until;
                held.until = until;
                if first {
                    // What Defender asks for goes before our own reasons: no answer and no restart ends it.
                    held.why = why;
                    return Change::Stopped(why, until);
                }
                if longer { Change::Prolonged(held.why, until) } else { Change::None }
            }
            Some(held) => {
                held.strikes = if held.why == why { held.strikes.saturating_add(1) } else { 0 };
                held.why = why;
                held.until = now + pause(held.strikes);
                Change::Stopped(why, held.until)
            }
            None => {
                let until = now + pause(0);
                self.held = Some(Held { why, since: now, until, strikes: 0 });
                Change::Stopped(why, until)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(61);

    fn lane() -> Lane {
        Lane::new(NonZeroU32::new(100).unwrap(), LONGEST)
    }

    fn call(lane: &mut Lane, now: Boot, outcome: OutcomeWord) -> Change {
        lane.sent();
        lane.settled(now, outcome, None, SECOND, true)
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
    fn a_429_holds_as_long_as_it_says_and_never_for_ever() {
        let mut lane = lane();
        lane.sent();
        lane.sent();
        let told = lane.settled(Boot(0), OutcomeWord::Throttled, Some(SECOND * 20), SECOND, true);
        assert_eq!(told, Change::Stopped(Hold::Throttled, Boot(20_000)));
        // The other call that was on the wire comes home: the pause stands.
        assert_eq!(lane.settled(Boot(1), OutcomeWord::Created, None, SECOND, true), Change::None);
        assert_eq!(lane.gate(Boot(19_999)), Gate::Held(Hold::Throttled, Boot(20_000)));
        lane.sent();
        let absurd = lane.settled(Boot(20_000), OutcomeWord::Throttled, Some(Duration::MAX), SECOND, true);
        assert_eq!(absurd, Change::Stopped(Hold::Throttled, Boot(20_000) + LONGEST));
    }

    #[test]
    fn others_that_meet_the_same_429_prolong_the_pause_and_do_not_slow_it_again() {
        let mut lane = lane();
        let mut throttled = |now| {
            lane.sent();
            lane.settled(now, OutcomeWord::Throttled, Some(SECOND * 20), SECOND, true)
        };
        assert_eq!(throttled(Boot(0)), Change::Stopped(Hold::Throttled, Boot(20_000)));
        assert_eq!(throttled(Boot(7)), Change::Prolonged(Hold::Throttled, Boot(20_007)));
        assert_eq!(throttled(Boot(7)), Change::None);
    }

    #[test]
    fn a_429_that_comes_while_the_lane_is_down_is_kept_whatever_else_comes_home() {
        let mut lane = lane();
        for _ in 0..12 {
            lane.sent();
        }
        for _ in 0..10 {
            lane.settled(Boot(0), OutcomeWord::Unknown, None, SECOND, true);
        }
        let until = Boot(0) + SECOND * 300;
        let told = lane.settled(Boot(0), OutcomeWord::Throttled, Some(SECOND * 300), SECOND, true);
        assert_eq!(told, Change::Stopped(Hold::Throttled, until));
        assert_eq!(lane.settled(Boot(1), OutcomeWord::Created, None, SECOND, true), Change::None);
        assert_eq!(lane.gate(Boot(2)), Gate::Held(Hold::Throttled, until));
    }

    #[test]
    fn pauses_without_a_word_double_up_to_their_bound() {
        let mut lane = lane();
        let mut now = Boot(0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let Change::Stopped(_, until) = call(&mut lane, now, OutcomeWord::Throttled) else { panic!() };
            pauses.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [60, 120, 240, 480, 600, 600]);
    }

    #[test]
    fn a_401_tries_a_fresh_token_once_then_holds() {
        let mut lane = lane();
        assert_eq!(call(&mut lane, Boot(0), OutcomeWord::Unauthorized), Change::None);
        assert_eq!(lane.gate(Boot(0)), Gate::Open);
        assert!(matches!(call(&mut lane, Boot(0), OutcomeWord::Unauthorized), Change::Stopped(Hold::SignedOut, _)));
        let mut reloaded = Lane::new(lane.per_minute, LONGEST);
        reloaded.resume_hold(Hold::SignedOut, Boot(1), Boot(i64::MAX));
        assert_eq!(reloaded.gate(Boot(1)), Gate::Probe(Hold::SignedOut));
    }

    #[test]
    fn a_reload_tries_again_but_keeps_a_pause_that_defender_asked_for() {
        let mut forbidden = lane();
        call(&mut forbidden, Boot(0), OutcomeWord::Forbidden);
        forbidden.reload(NonZeroU32::MIN, LONGEST, Boot(1));
        assert_eq!(forbidden.gate(Boot(1)), Gate::Probe(Hold::Forbidden));
        let mut throttled = lane();
        call(&mut throttled, Boot(0), OutcomeWord::Throttled);
        throttled.reload(NonZeroU32::MIN, LONGEST, Boot(1));
        assert_eq!(throttled.gate(Boot(1)), Gate::Held(Hold::Throttled, Boot(60_000)));
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
            lane.settled(Boot(0), OutcomeWord::Created, None, Duration::from_millis(10), true);
        }
        assert_eq!(lane.width(), 2);
        for _ in 0..40 {
            lane.sent();
            lane.settled(Boot(0), OutcomeWord::Created, None, SECOND * 30, true);
        }
        assert_eq!(lane.width(), 128);
        for _ in 0..128 {
            lane.sent();
        }
        assert_eq!(lane.gate(Boot(0)), Gate::Full);
    }

    #[test]
    fn a_pause_that_defender_asked_for_survives_a_restart() {
        let mut lane = lane();
        lane.resume_hold(Hold::Throttled, Boot(5), Boot(1000));
        assert_eq!(lane.gate(Boot(999)), Gate::Held(Hold::Throttled, Boot(1000)));
        assert_eq!(lane.gate(Boot(1000)), Gate::Probe(Hold::Throttled));
    }
}
