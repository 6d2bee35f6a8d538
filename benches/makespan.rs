//! How long so many calls take, each way of sending against the same windows, in virtual time: what the limits
//! allow at best, sweepd (the real engine and SQLite), and three loops that people write. Prints a table in
//! markdown; `docs/BUDGET.md` has one.
//!
//! `SWEEPD_BENCH_MOST=1501 cargo bench --bench makespan` leaves the larger numbers out.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "whoever runs a bench reads what went wrong")]

#[path = "../tests/support/world.rs"]
mod world;

use std::time::Duration;

use governor::clock::{Clock as _, FakeRelativeClock};
use governor::{Quota, RateLimiter};
use sweepd::domain::ledger::{CallKind, HOUR, Limits, MINUTE};
use sweepd::domain::time::Wall;
use sweepd::simulator::windows::Windows;
use world::{BEGIN, Death, Setup, World, fastest};

const MACHINES: [usize; 5] = [100, 1500, 1501, 5000, 10_000];
const LATENCY: Duration = Duration::from_millis(300);

/// What became of one way of sending.
struct Outcome {
    /// From the first call's arrival to the last one's.
    took: Duration,
    worst_minute: usize,
    worst_hour: usize,
    throttled: u64,
    never_scanned: usize,
}

impl Outcome {
    fn of(machines: usize, windows: &Windows) -> Self {
        let admitted = usize::try_from(windows.admitted()).expect("as many as there are machines");
        Self {
            took: span(windows.seen()),
            worst_minute: windows.worst(MINUTE),
            worst_hour: windows.worst(HOUR),
            throttled: windows.throttled(),
            // No loop repeats a call, so what was refused stays undone.
            never_scanned: machines - admitted,
        }
    }
}

fn span(arrivals: &[Wall]) -> Duration {
    arrivals.first().zip(arrivals.last()).map_or(Duration::ZERO, |(first, last)| last.since(*first))
}

/// One call after the other, each when the one before is answered and `wait`, which is told the time, has passed.
fn in_a_loop(machines: usize, mut wait: impl FnMut(Duration) -> Duration) -> Outcome {
    let mut windows = Windows::new(Limits::DOCUMENTED, false);
    let mut now = Duration::ZERO;
    for _ in 0..machines {
        now += wait(now);
        windows.arrive(BEGIN + (now + LATENCY / 2));
        now += LATENCY;
    }
    Outcome::of(machines, &windows)
}

/// `governor` alone: a limiter for the minute and one for the hour, each waited for before a call, as with
/// `until_ready`.
fn governor_alone(machines: usize) -> Outcome {
    let clock = FakeRelativeClock::default();
    let Limits { per_minute, per_hour } = Limits::DOCUMENTED;
    let limiters = [Quota::per_minute(per_minute), Quota::per_hour(per_hour)]
        .map(|quota| RateLimiter::direct_with_clock(quota, clock.clone()));
    let mut shown = Duration::ZERO;
    in_a_loop(machines, |now| {
        clock.advance(now.saturating_sub(shown));
        shown = now;
        for limiter in &limiters {
            while let Err(refused) = limiter.check() {
                let wait = refused.wait_time_from(clock.now());
                clock.advance(wait);
                shown += wait;
            }
        }
        shown.saturating_sub(now)
    })
}

fn sleeping(machines: usize, between: Duration) -> Outcome {
    in_a_loop(machines, |now| if now.is_zero() { now } else { between })
}

fn sweepd(machines: usize) -> Outcome {
    let mut world = World::new(Setup::backlog(machines, LATENCY));
    assert!(world.live(BEGIN + Duration::from_hours(24), Death::Killed), "{}", world.status());
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let report = world.wire.with_tenant(|tenant| tenant.report(world.clock.world()));
    let scan = report.calls.get("scan").expect("there were scan calls");
    Outcome {
        took: span(&arrivals),
        worst_minute: scan.worst_minute,
        worst_hour: scan.worst_hour,
        throttled: scan.throttled,
        never_scanned: machines - report.scans_per_machine.len(),
    }
}

fn duration(time: Duration) -> String {
    let seconds = (time + Duration::from_millis(500)).as_secs();
    format!("{} h {:02} min {:02} s", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn row(machines: usize, way: &str, outcome: &Outcome) {
    let Outcome { took, worst_minute, worst_hour, throttled, never_scanned } = outcome;
    println!(
        "| {machines} | {way} | {} | {worst_minute} | {worst_hour} | {throttled} | {never_scanned} |",
        duration(*took)
    );
}

fn main() {
    let most = std::env::var("SWEEPD_BENCH_MOST").ok().map(|most| most.parse().expect("a number of machines"));
    println!("| machines | sent by | first to last call | worst minute | worst hour | 429s | never scanned |");
    println!("|---:|---|---:|---:|---:|---:|---:|");
    for machines in MACHINES.into_iter().filter(|machines| most.is_none_or(|most| *machines <= most)) {
        println!("| {machines} | *fastest legal* | {} | | | | |", duration(fastest(machines, Limits::DOCUMENTED)));
        row(machines, "**sweepd**", &sweepd(machines));
        row(machines, "a loop with `governor` alone", &governor_alone(machines));
        row(machines, "a loop that sleeps 600 ms", &sleeping(machines, Duration::from_millis(600)));
        row(machines, "a loop that sleeps 2.4 s", &sleeping(machines, Duration::from_millis(2400)));
    }
}
