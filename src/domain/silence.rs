//! The silence that a 429 asks for: no call of that kind until it is over, whoever would make it.
//!
//! Defender throttles an app registration, not one of its callers: so there is one silence for each
//! kind of call of each registration, and it outlives reloads, restarts and boots. When no answer
//! says for how long, it is a minute, and twice as long each time until a call is answered again.

use std::time::Duration;

use super::time::Boot;

/// The first silence when nobody says for how long.
const FIRST: Duration = Duration::from_mins(1);
/// What doubling ends at.
const LAST: Duration = Duration::from_mins(10);

/// The silence of one kind of call. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// Since when, over all 429s in a row.
    since: Boot,
    /// No call before this time.
    until: Boot,
    /// So many silences in a row, without an answer between them; zero: there is none.
    strikes: u32,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// A silence begins.
    Began(Silence),
    /// Another call that was on the wire met the same 429, and makes it last until then.
    Prolonged(Silence),
    /// Calls are answered again, after so long.
    Over(Duration),
}

impl Silence {
    /// As it was written down before a start at `now`; none if that was all over. No answer, however
    /// absurd, makes it longer than `longest`.
    pub fn resumed(until: Boot, strikes: u32, now: Boot, longest: Duration) -> Self {
        Self { since: now, until: until.min(now + longest), strikes }
    }

    /// Until when no call may be made; none when one may.
    pub fn until(&self, now: Boot) -> Option<Boot> {
        Some(self.until).filter(|until| self.strikes > 0 && *until > now)
    }

    /// When it ends, whether or not that is over; and how many there were in a row.
    pub const fn noted(&self) -> (Boot, u32) {
        (self.until, self.strikes)
    }

    /// Somebody else met a 429; what is over, or shorter than what is known, changes nothing.
    pub fn hear_of(&mut self, until: Boot, strikes: u32, now: Boot, longest: Duration) {
        if until > now && until > self.until {
            let since = if self.strikes == 0 { now } else { self.since };
            *self = Self { since, until: until.min(now + longest), strikes: strikes.max(self.strikes) };
        }
    }

    /// The boot clock was found to have jumped ahead by so much: what it said was the end is later.
    pub fn later(&mut self, by: Duration, now: Boot, longest: Duration) {
        if self.strikes > 0 {
            self.until = (self.until + by).min(now + longest);
        }
    }

    /// A 429, which asks for `wait`.
    pub fn throttled(&mut self, now: Boot, wait: Option<Duration>, longest: Duration) -> Change {
        if let Some(until) = self.until(now) {
            // Others that were on the wire when it began: they prolong, but do not double.
            self.until = until.max(now + wait.unwrap_or_default().min(longest));
            return if self.until > until { Change::Prolonged(*self) } else { Change::None };
        }
        let wait = wait.unwrap_or_else(|| FIRST.saturating_mul(1 << self.strikes.min(16)).min(LAST));
        *self = Self {
            since: if self.strikes == 0 { now } else { self.since },
            until: now + wait.min(longest),
            strikes: self.strikes.saturating_add(1),
        };
        Change::Began(*self)
    }

    /// A call that began at `began` was answered with something else than a 429.
    pub fn answered(&mut self, began: Boot, now: Boot) -> Change {
        // A call from before the silence proves nothing about it, however late its answer comes.
        if self.strikes == 0 || began < self.until {
            return Change::None;
        }
        let stood = now.since(self.since);
        *self = Self::default();
        Change::Over(stood)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(61);

    fn throttled(silence: &mut Silence, now: Boot, seconds: Option<u64>) -> Change {
        silence.throttled(now, seconds.map(Duration::from_secs), LONGEST)
    }

    #[test]
    fn it_lasts_as_long_as_a_429_says_and_never_for_ever() {
        let mut silence = Silence::default();
        assert_eq!(silence.until(Boot(0)), None);
        assert!(matches!(throttled(&mut silence, Boot(0), Some(20)), Change::Began(_)));
        assert_eq!(silence.until(Boot(19_999)), Some(Boot(20_000)));
        assert_eq!(silence.answered(Boot(0), Boot(1)), Change::None, "another call that was on the wire comes home");
        assert_eq!(silence.until(Boot(19_999)), Some(Boot(20_000)));
        assert_eq!(silence.until(Boot(20_000)), None);
        assert!(matches!(throttled(&mut silence, Boot(20_000), Some(u64::MAX)), Change::Began(_)));
        assert_eq!(silence.until(Boot(20_000)), Some(Boot(20_000) + LONGEST));
    }

    #[test]
    fn others_that_meet_the_same_429_prolong_it_never_shorten_it_and_do_not_double_it() {
        let mut silence = Silence::default();
        throttled(&mut silence, Boot(0), Some(20));
        assert!(matches!(throttled(&mut silence, Boot(7), Some(20)), Change::Prolonged(_)));
        assert_eq!(silence.until(Boot(8)), Some(Boot(20_007)));
        for wait in [Some(5), Some(20), None] {
            assert_eq!(throttled(&mut silence, Boot(7), wait), Change::None);
        }
        assert_eq!(silence.noted(), (Boot(20_007), 1));
    }

    #[test]
    fn without_a_word_it_doubles_up_to_a_bound_until_a_call_is_answered() {
        let (mut silence, mut now) = (Silence::default(), Boot(0));
        let mut lengths = Vec::new();
        for _ in 0..6 {
            throttled(&mut silence, now, None);
            let until = silence.until(now).unwrap();
            lengths.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(lengths, [60, 120, 240, 480, 600, 600]);
        assert_eq!(silence.answered(now, now), Change::Over(SECOND * 2100));
        assert_eq!(silence.answered(now, now), Change::None);
        throttled(&mut silence, now, None);
        assert_eq!(silence.until(now), Some(now + SECOND * 60));
    }

    #[test]
    fn what_somebody_else_met_is_kept_too_and_shortens_nothing() {
        let mut silence = Silence::default();
        silence.hear_of(Boot(900), 1, Boot(1000), LONGEST);
        assert_eq!(silence, Silence::default(), "that is over");
        silence.hear_of(Boot(60_000), 2, Boot(1000), LONGEST);
        assert_eq!((silence.until(Boot(1000)), silence.noted().1), (Some(Boot(60_000)), 2));
        silence.hear_of(Boot(50_000), 1, Boot(1000), LONGEST);
        assert_eq!(silence.noted(), (Boot(60_000), 2));
        silence.hear_of(Boot(i64::MAX), 1, Boot(1000), LONGEST);
        assert_eq!(silence.until(Boot(1000)), Some(Boot(1000) + LONGEST));
    }

    #[test]
    fn a_slow_call_from_before_it_ends_no_silence_though_its_answer_comes_after() {
        let mut silence = Silence::default();
        throttled(&mut silence, Boot(10), None);
        assert_eq!(silence.answered(Boot(9), Boot(70_000)), Change::None);
        throttled(&mut silence, Boot(70_001), None);
        assert_eq!(silence.until(Boot(70_001)), Some(Boot(70_001) + SECOND * 120), "it goes on doubling");
        assert_eq!(silence.answered(Boot(190_001), Boot(190_010)), Change::Over(SECOND * 190));
    }

    #[test]
    fn a_boot_clock_that_jumped_ahead_ends_no_silence() {
        let day = Duration::from_hours(24);
        let mut silence = Silence::resumed(Boot(60_000), 1, Boot(10_000) + day, LONGEST);
        assert_eq!(silence.until(Boot(10_000) + day), None, "so it seems");
        silence.later(day, Boot(10_000) + day, LONGEST);
        assert_eq!(silence.until(Boot(10_000) + day), Some(Boot(60_000) + day));
        let mut none = Silence::default();
        none.later(day, Boot(0), LONGEST);
        assert_eq!(none, Silence::default());
    }

    #[test]
    fn it_outlives_a_restart_and_goes_on_doubling() {
        let mut silence = Silence::resumed(Boot(1000), 2, Boot(5), LONGEST);
        assert_eq!(silence.until(Boot(999)), Some(Boot(1000)));
        throttled(&mut silence, Boot(1000), None);
        assert_eq!(silence.until(Boot(1000)), Some(Boot(241_000)));
        let absurd = Silence::resumed(Boot(i64::MAX), 1, Boot(5), LONGEST);
        assert_eq!(absurd.until(Boot(5)), Some(Boot(5) + LONGEST));
    }
}
