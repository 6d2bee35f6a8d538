//! A lane without its store: breakers, budget and ledger as the dispatcher asks them, against a
//! server that counts, with others who spend the same budget. Hours in milliseconds, from seeds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

mod anything;
mod gone;

use super::*;
use crate::domain::lane::{Gate, Lane};
use crate::domain::ledger::memory::Slots;
use crate::domain::ledger::{Admission, MARGIN};
use crate::domain::outcome::OutcomeWord;
use crate::domain::time::millis;
use crate::simulator::chance::Chance;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = MINUTE;
const CALL_TIMEOUT: Duration = MINUTE;

/// How others spend the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stranger {
    Nobody,
    /// So many calls an hour, evenly.
    Even(u32),
    /// The same on average.
    AtRandom(u32),
    /// So many at the start of each minute, in the first quarter of each hour.
    InBursts(u32),
    /// So many calls an hour at random, each tried again every second until it is let in.
    Stubborn(u32),
    /// So many at once, forty minutes before the first call of ours, and none since.
    Gone(u32),
}

/// What a 429 says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Says {
    Seconds,
    WindowOnly,
    Nothing,
}

/// How the server counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Counts {
    Sliding,
    /// From a first call on, for the length of the window.
    Fixed,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub configured: Limits,
    /// What the server really grants.
    pub granted: Limits,
    pub stranger: Stranger,
    pub says: Says,
    pub counts: Counts,
    pub latency: Duration,
    /// One call in so many has no answer; zero: none.
    pub lost: u32,
    /// Mean time between kills; zero: none.
    pub kills: Duration,
    pub hours: u32,
    pub spread: Spread,
}

#[derive(Debug, Default)]
pub struct Seen {
    pub calls: u32,
    pub throttled: u32,
    pub admitted: u32,
    pub foreign: u32,
    /// Calls of ours within the first hour in which all that was foreign is gone.
    pub hour_after: usize,
    /// The longest time between two of our calls, from the moment when there was room.
    pub silence: Duration,
    pub worst_minute: usize,
    pub worst_hour: usize,
    /// What was ours, had every call of the rest been used.
    pub left: u32,
}

/// One window as a server counts it.
#[derive(Debug)]
struct Counter {
    counts: Counts,
    window: Duration,
    limit: usize,
    admitted: VecDeque<Boot>,
}

impl Counter {
    fn new(counts: Counts, window: Duration, limit: NonZeroU32) -> Self {
        Self { counts, window, limit: limit.get() as usize, admitted: VecDeque::new() }
    }

    /// Whether there is room; else how long until there is.
    fn room(&mut self, now: Boot) -> Result<(), Duration> {
        let window = self.window;
        match self.counts {
            Counts::Sliding => {
                while self.admitted.front().is_some_and(|at| now.since(*at) > window) {
                    self.admitted.pop_front();
                }
            }
            Counts::Fixed if self.admitted.front().is_some_and(|began| now.since(*began) >= window) => {
                self.admitted.clear();
            }
            Counts::Fixed => {}
        }
        let first = *self.admitted.front().filter(|_| self.admitted.len() >= self.limit).unwrap_or(&now);
        if first == now && self.admitted.len() < self.limit { Ok(()) } else { Err((first + window).since(now)) }
    }
}

#[derive(Debug)]
struct Server {
    minute: Counter,
    hour: Counter,
}

impl Server {
    fn new(scenario: &Scenario) -> Self {
        Self {
            minute: Counter::new(scenario.counts, MINUTE, scenario.granted.per_minute),
            hour: Counter::new(scenario.counts, HOUR, scenario.granted.per_hour),
        }
    }

    fn arrive(&mut self, now: Boot) -> Result<(), (Duration, Window)> {
        let (minute, hour) = (self.minute.room(now), self.hour.room(now));
        hour.map_err(|wait| (wait, Window::Hour))?;
        minute.map_err(|wait| (wait, Window::Minute))?;
        self.minute.admitted.push_back(now);
        self.hour.admitted.push_back(now);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Arrival(usize),
    Answer { epoch: u64, throttled: Option<(Duration, bool)>, latency: Duration },
    Silence { epoch: u64 },
    Foreign,
    ForeignAgain,
    Kill,
}

struct Core {
    scenario: Scenario,
    chance: Chance,
    clock: Arc<ByHand>,
    lane: Lane,
    budget: Budget,
    slots: Slots,
    server: Server,
    arrivals: Vec<Boot>,
    events: BinaryHeap<Reverse<(Boot, u64, Happens)>>,
    /// How long after its arrival each call is answered, and by which incarnation it was made.
    calls: Vec<(Boot, Duration, u64, bool)>,
    epoch: u64,
    number: u64,
    /// Until when the last 429 asked for silence.
    silent: Boot,
    seen: Seen,
}

fn lane(scenario: &Scenario) -> Lane {
    Lane::new(scenario.configured.per_minute)
}

impl Core {
    fn new(scenario: Scenario) -> Self {
        let clock = Arc::new(ByHand::default());
        let mut core = Self {
            chance: Chance::new(scenario.seed),
            lane: lane(&scenario),
            budget: Self::budget(&clock, &scenario, Memory::default()),
            slots: Slots::default(),
            server: Server::new(&scenario),
            arrivals: Vec::new(),
            events: BinaryHeap::new(),
            calls: Vec::new(),
            epoch: 0,
            number: 0,
            silent: Boot(0),
            seen: Seen::default(),
            clock,
            scenario,
        };
        if let Stranger::Gone(calls) = core.scenario.stranger {
            core.server.hour.admitted.extend((0..calls).map(|_| Boot(0) - MINUTE * 40));
        } else if core.scenario.stranger != Stranger::Nobody {
            core.later(Duration::ZERO, Happens::Foreign);
        }
        if !core.scenario.kills.is_zero() {
            core.later(SECOND * 30, Happens::Kill);
        }
        core
    }

    fn budget(clock: &Arc<ByHand>, scenario: &Scenario, memory: Memory) -> Budget {
        Budget::new(Arc::<ByHand>::clone(clock), allowed(scenario.configured, scenario.spread), LONGEST, memory)
    }

    fn now(&self) -> Boot {
        self.clock.boot()
    }

    fn later(&mut self, wait: Duration, event: Happens) {
        self.number += 1;
        self.events.push(Reverse((self.now() + wait, self.number, event)));
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.chance.share()).ln())
    }

    /// Sends what may be sent, as the dispatcher does. Returns when to look again.
    fn send(&mut self) -> Option<Boot> {
        loop {
            let now = self.now();
            if let Some(until) = self.budget.silent_until() {
                return Some(until);
            }
            match self.lane.gate(now) {
                Gate::Open | Gate::Probe(_) => {}
                Gate::Full => return None,
                Gate::Held(_, until) => return Some(until),
            }
            match self.slots.admission(self.budget.limits(), now) {
                Admission::Open => {}
                Admission::NotBefore(at, window) => {
                    self.budget.bound(window);
                    // As the dispatcher does: it looks again, however long it is to wait.
                    return Some(at.min(now + SECOND * 30));
                }
                Admission::WhenSettled(window) => {
                    self.budget.bound(window);
                    return None;
                }
            }
            if let Err(at) = self.budget.check() {
                return Some(at);
            }
            assert!(now >= self.silent, "{:?}: a call in the pause that a 429 asked for", self.scenario);
            self.slots.take();
            self.lane.sent();
            self.seen.calls += 1;
            let there = self.scenario.latency.mul_f64(self.chance.share());
            let back = self.scenario.latency.saturating_sub(there);
            let lost = self.scenario.lost > 0 && self.chance.below(self.scenario.lost) == 0;
            self.calls.push((now, back, self.epoch, lost));
            let number = self.calls.len() - 1;
            let there = if lost { (CALL_TIMEOUT + GRACE).mul_f64(self.chance.share()) } else { there };
            self.later(there, Happens::Arrival(number));
            if lost {
                self.later(CALL_TIMEOUT, Happens::Silence { epoch: self.epoch });
            }
        }
    }

    fn happen(&mut self, event: Happens) {
        let now = self.now();
        match event {
            Happens::Arrival(number) => {
                let (sent, back, epoch, lost) = self.calls[number];
                self.arrivals.push(now);
                let verdict = self.server.arrive(now);
                match verdict {
                    Ok(()) => self.seen.admitted += 1,
                    Err(_) => self.seen.throttled += 1,
                }
                if !lost {
                    let throttled = verdict.err().map(|(wait, window)| (wait, window == Window::Hour));
                    let latency = now.since(sent) + back;
                    self.later(back, Happens::Answer { epoch, throttled, latency });
                }
            }
            Happens::Answer { epoch, throttled, latency } if epoch == self.epoch => self.answer(throttled, latency),
            Happens::Silence { epoch } if epoch == self.epoch => {
                self.slots.settle(now + GRACE);
                self.lane.settled(now, OutcomeWord::Unknown, CALL_TIMEOUT, true, false);
            }
            Happens::Answer { .. } | Happens::Silence { .. } => {}
            Happens::Foreign => self.foreign(),
            Happens::ForeignAgain => self.stubborn(),
            Happens::Kill => {
                // The incarnation ends; what others spend was written down.
                self.epoch += 1;
                self.slots.lose(now + GRACE);
                // The one assumption: nothing of a dead process is delivered later than that.
                let latest = now + GRACE;
                let events = std::mem::take(&mut self.events).into_iter();
                self.events = events
                    .map(|Reverse((at, number, event))| match event {
                        Happens::Arrival(_) => Reverse((at.min(latest), number, event)),
                        _ => Reverse((at, number, event)),
                    })
                    .collect();
                self.lane = lane(&self.scenario);
                // As the store does: what 429s have taught outlives the incarnation.
                let Budget { shares, silence, .. } = &self.budget;
                let (foreign, last_429) = (shares.foreign(), shares.last_429());
                let memory = Memory { foreign, last_429, silence: *silence };
                self.budget = Self::budget(&self.clock, &self.scenario, memory);
                let wait = self.exponential(self.scenario.kills);
                self.later(wait, Happens::Kill);
            }
        }
    }

    fn answer(&mut self, throttled: Option<(Duration, bool)>, latency: Duration) {
        let now = self.now();
        self.slots.settle(now);
        let Some((wait, hour)) = throttled else {
            self.lane.settled(now, OutcomeWord::Created, latency, true, false);
            self.budget.answered(now - latency);
            return;
        };
        let window = Some(if hour { Window::Hour } else { Window::Minute });
        let whole_seconds = Duration::from_secs(wait.as_secs() + 1);
        let told = match self.scenario.says {
            Says::Seconds => Told { wait: Some(whole_seconds), window: None },
            Says::WindowOnly => Told { wait: None, window },
            Says::Nothing => Told::default(),
        };
        self.silent = self.silent.max(now + told.wait.unwrap_or_default());
        self.lane.settled(now, OutcomeWord::Throttled, latency, true, false);
        if matches!(self.budget.throttled(told), Change::Began(_)) {
            let within =
                |window: Duration| u32::try_from(self.slots.settled_between(now - window - MARGIN, now)).unwrap();
            let used = Used { minute: within(MINUTE), hour: within(HOUR) };
            self.budget.measured(used, told);
        }
    }

    fn foreign(&mut self) {
        let now = self.now();
        let every = |an_hour: u32| HOUR / an_hour;
        let (calls, wait) = match self.scenario.stranger {
            Stranger::Nobody | Stranger::Gone(_) => return,
            Stranger::Even(an_hour) => (1, every(an_hour)),
            Stranger::AtRandom(an_hour) => (1, self.exponential(every(an_hour))),
            Stranger::Stubborn(an_hour) => {
                let wait = self.exponential(every(an_hour));
                self.later(wait, Happens::Foreign);
                return self.stubborn();
            }
            Stranger::InBursts(a_minute) => {
                let quarter = now.0.rem_euclid(millis(HOUR)) < millis(HOUR / 4);
                (if quarter { a_minute } else { 0 }, MINUTE)
            }
        };
        for _ in 0..calls {
            self.seen.foreign += u32::from(self.server.arrive(now).is_ok());
        }
        self.later(wait, Happens::Foreign);
    }

    fn stubborn(&mut self) {
        match self.server.arrive(self.now()) {
            Ok(()) => self.seen.foreign += 1,
            Err(_) => self.later(SECOND, Happens::ForeignAgain),
        }
    }

    pub fn run(mut self) -> Seen {
        let end = Boot(0) + HOUR * self.scenario.hours;
        loop {
            let again = self.send();
            let next = self.events.peek().map(|Reverse((at, _, _))| *at);
            let at = match (again, next) {
                (Some(again), Some(next)) => again.min(next),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => break,
            };
            if at >= end {
                break;
            }
            self.clock.set(at.max(self.now()));
            while let Some(Reverse((due, _, _))) = self.events.peek()
                && *due <= self.now()
            {
                let Some(Reverse((_, _, event))) = self.events.pop() else { break };
                self.happen(event);
            }
        }
        let room = Boot(0) + MINUTE * 20;
        let after: Vec<Boot> =
            std::iter::once(room).chain(self.arrivals.iter().copied().filter(|at| *at > room)).collect();
        self.seen.silence = after.windows(2).map(|two| two[1].since(two[0])).max().unwrap_or_default();
        self.seen.hour_after = after.iter().filter(|at| at.since(room) <= HOUR).count();
        self.seen.worst_minute = worst(&self.arrivals, MINUTE);
        self.seen.worst_hour = worst(&self.arrivals, HOUR);
        let granted = self.scenario.granted.per_hour.get() * self.scenario.hours;
        self.seen.left = granted.saturating_sub(self.seen.foreign);
        self.seen
    }
}

/// The fullest closed window; arrivals come in order.
fn worst(arrivals: &[Boot], window: Duration) -> usize {
    let (mut first, mut worst) = (0, 0);
    for (last, at) in arrivals.iter().enumerate() {
        while at.since(arrivals[first]) > window {
            first += 1;
        }
        worst = worst.max(last - first + 1);
    }
    worst
}

fn documented(seed: u64) -> Scenario {
    Scenario {
        seed,
        configured: Limits::DOCUMENTED,
        granted: Limits::DOCUMENTED,
        stranger: Stranger::Nobody,
        says: Says::Seconds,
        counts: Counts::Sliding,
        latency: Duration::from_millis(400),
        lost: 0,
        kills: Duration::ZERO,
        hours: 6,
        spread: Spread::Burst,
    }
}

/// Runs a scenario in every dialect of the server. Says how many of our calls met a 429 and how much
/// of what others left was used, at worst, in percent.
fn at_worst(scenario: &Scenario) -> (f64, f64) {
    let (mut met, mut used) = (0.0_f64, 100.0_f64);
    let mut seed = 0;
    for says in [Says::Seconds, Says::WindowOnly, Says::Nothing] {
        for counts in [Counts::Sliding, Counts::Fixed] {
            for latency in [Duration::from_millis(200), SECOND * 3] {
                seed += 1;
                let run = Core::new(Scenario { seed, says, counts, latency, ..scenario.clone() }).run();
                let percent = |part: u32, whole: u32| f64::from(part) * 100.0 / f64::from(whole);
                met = met.max(percent(run.throttled, run.calls));
                used = used.min(percent(run.admitted, run.left));
            }
        }
    }
    (met, used)
}

#[test]
fn with_a_stranger_who_eats_40_percent_few_calls_meet_a_429_and_most_of_the_rest_is_used() {
    for stranger in [Stranger::Even(600), Stranger::AtRandom(600), Stranger::InBursts(40), Stranger::Stubborn(600)] {
        let (met, used) = at_worst(&Scenario { stranger, ..documented(0) });
        assert!(met <= 3.0 && used >= 90.0, "{stranger:?}: {met:.2} % met a 429, {used:.1} % was used");
    }
}

#[test]
fn nor_do_more_when_the_server_grants_40_percent_less_than_is_configured() {
    let granted = Limits::DOCUMENTED.without_reserve(40);
    let (met, used) = at_worst(&Scenario { granted, ..documented(0) });
    assert!(met <= 3.0 && used >= 90.0, "{met:.2} % met a 429, {used:.1} % was used");
}

#[test]
fn the_even_pace_loses_less_than_a_hundredth() {
    let seen = Core::new(Scenario { spread: Spread::Even, latency: SECOND * 3, ..documented(7) }).run();
    assert!(seen.calls >= seen.left * 99 / 100, "{} of {}", seen.calls, seen.left);
    assert!(seen.worst_minute <= 30, "{} in a minute", seen.worst_minute);
}
