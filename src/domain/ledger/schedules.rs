//! Random schedules against a reference model of the server's windows.

use std::num::NonZeroU32;
use std::time::Duration;

use super::memory::Slots;
use super::{Admission, HOUR, Limits, MINUTE};
use crate::domain::time::Boot;
use crate::simulator::chance::Chance;

/// As `network.unknown_grace`: nothing arrives later than this after it was given up.
const GRACE: Duration = Duration::from_mins(1);
/// As `network.call_timeout`.
const GIVEN_UP_AFTER: Duration = Duration::from_mins(1);
/// A schedule: several windows full, and quick enough for a million of them.
const CALLS: u32 = 24;

/// The reference: counts by definition, in every closed window that begins with an arrival, which
/// are the fullest ones; and in windows laid end to end from any moment.
struct Server {
    arrivals: Vec<Boot>,
}

impl Server {
    fn worst_sliding(&self, window: Duration) -> usize {
        let mut first = 0;
        let mut worst = 0;
        for (last, at) in self.arrivals.iter().enumerate() {
            while at.since(self.arrivals[first]) > window {
                first += 1;
            }
            worst = worst.max(last - first + 1);
        }
        worst
    }

    fn worst_fixed(&self, window: Duration, phase: i64) -> usize {
        let length = i64::try_from(window.as_millis()).unwrap();
        let (mut worst, mut counted, mut current) = (0, 0, i64::MIN);
        for at in &self.arrivals {
            let number = (at.0 - phase).div_euclid(length);
            counted = if number == current { counted + 1 } else { 1 };
            current = number;
            worst = worst.max(counted);
        }
        worst
    }
}

fn some(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// A duration that is often at one of its ends.
fn scattered(chance: &mut Chance, most: Duration) -> Duration {
    match chance.below(4) {
        0 => Duration::ZERO,
        1 => most,
        _ => Duration::from_millis(u64::from(chance.below(u32::try_from(most.as_millis()).unwrap()))),
    }
}

/// One lane that takes a slot whenever the rule admits one, through latency, stalls, lost calls and
/// kills. Each call arrives anywhere between its slot and the last moment at which it can.
fn run(seed: u64) -> (Limits, Server) {
    let mut chance = Chance::new(seed);
    let per_minute = 1 + chance.below(6);
    let limits = Limits::new(some(per_minute), some(per_minute + chance.below(10))).unwrap();
    let mut slots = Slots::default();
    // What is on the wire, by the time at which its answer comes.
    let mut wire: Vec<Boot> = Vec::new();
    let mut arrivals = Vec::new();
    let mut now = Boot(0);
    let slowest = [50, 3_000, 30_000, 59_000][chance.below(4) as usize];
    for _ in 0..CALLS {
        let gap = [0, 5, 20_000, 400_000][chance.below(4) as usize];
        now = now + scattered(&mut chance, Duration::from_millis(gap + 1));
        if chance.below(12) == 0 {
            slots.lose(now + GRACE);
            wire.clear();
        }
        loop {
            wire.retain(|at| {
                let home = *at <= now;
                if home {
                    slots.settle(*at);
                }
                !home
            });
            match slots.admission(limits, now) {
                Admission::Open => break,
                Admission::NotBefore(at, _) => now = at,
                Admission::WhenSettled(_) => now = *wire.iter().min().unwrap(),
            }
        }
        slots.take();
        if chance.below(6) == 0 {
            // No answer: given up, and delivered at the last moment at which anything can.
            arrivals.push(now + scattered(&mut chance, GIVEN_UP_AFTER + GRACE));
            slots.settle(now + GIVEN_UP_AFTER + GRACE);
        } else {
            let latency = scattered(&mut chance, Duration::from_millis(slowest));
            arrivals.push(now + scattered(&mut chance, latency + Duration::from_millis(1)).min(latency));
            wire.push(now + latency);
        }
    }
    arrivals.sort_unstable();
    (limits, Server { arrivals })
}

fn no_window_is_overfull(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let (limits, server) = run(seed);
        let (minute, hour) = (limits.per_minute.get() as usize, limits.per_hour.get() as usize);
        assert!(server.worst_sliding(MINUTE) <= minute, "seed {seed}: {} in a minute", server.worst_sliding(MINUTE));
        assert!(server.worst_sliding(HOUR) <= hour, "seed {seed}: {} in an hour", server.worst_sliding(HOUR));
        let phase = i64::from(Chance::new(seed).below(3_600_000));
        assert!(server.worst_fixed(MINUTE, phase) <= minute, "seed {seed}, fixed minutes");
        assert!(server.worst_fixed(HOUR, phase) <= hour, "seed {seed}, fixed hours");
    }
}

#[test]
fn a_million_random_schedules_never_overfill_a_window() {
    no_window_is_overfull(0..1_000_000);
}

/// In a thread of its own.
#[test]
fn nor_does_a_second_million() {
    no_window_is_overfull(1_000_000..2_000_000);
}

#[test]
fn the_reference_sees_what_is_too_much() {
    let at = |seconds: &[i64]| Server { arrivals: seconds.iter().map(|s| Boot(s * 1000)).collect() };
    assert_eq!(at(&[0, 60, 61]).worst_sliding(MINUTE), 2);
    assert_eq!(at(&[0, 30, 60]).worst_sliding(MINUTE), 3, "closed at both ends");
    assert_eq!(at(&[0, 59, 60, 61]).worst_fixed(MINUTE, 0), 2);
    assert_eq!(at(&[0, 59, 60, 61]).worst_fixed(MINUTE, -1000), 3);
}
