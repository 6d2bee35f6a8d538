//! The real engine in virtual time: hours of limits, faults, stalls, kills and clocks that step, from
//! seeds.
//!
//! `SWEEPD_SEED=7 cargo test --test virtual_time seeds -- --nocapture` runs one of them, with
//! `SWEEPD_LOG=debug,sqlx=warn` its log too. A seed decides everything but the order in which two
//! threads of SQLite end within one moment of virtual time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::scenario::Scenario;
use crate::support::world::{BEGIN, Ledger, World, fastest};
use sweepd::clock::{Clock, SystemClock};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::TenantReport;

const SEEDS: u64 = 50;

/// No scenario takes longer; most take four hours.
const AT_MOST: Duration = Duration::from_hours(48);

/// So long after the end, everything that was under way has arrived.
const SETTLED: Duration = Duration::from_mins(5);

/// Runs the scenario of a seed, and judges it. Returns how long it lasted.
fn run(seed: u64) -> Duration {
    let began = SystemClock.boot();
    let scenario = Scenario::of(seed);
    let mut world = scenario.world();
    let finished = scenario.run(&mut world, BEGIN + AT_MOST);
    assert!(finished, "after {:?} it is not done: {}\n{scenario:?}", world.age(), world.status());
    let lived = world.age();
    world.rest(SETTLED);
    judge(&scenario, &world);
    let report = world.wire.with_tenant(|tenant| tenant.report(world.clock.world()));
    let calls = &report.calls["scan"];
    println!(
        "seed {seed}: {} machines at {}/{}, {} calls, {} throttled, {} faults, {} starts, {:.1} h in {} ms",
        scenario.tenant.machines.len(),
        scenario.limits.per_minute,
        scenario.limits.per_hour,
        calls.arrivals,
        calls.throttled,
        report.faults_struck,
        world.incarnations,
        lived.as_secs_f64() / 3600.0,
        SystemClock.boot().since(began).as_millis(),
    );
    lived
}

fn judge(scenario: &Scenario, world: &World) {
    let report = world.wire.with_tenant(|tenant| tenant.report(world.clock.world()));
    budget(scenario, world, &report);
    let ledger = world.ledger();
    machines(scenario, &ledger, &report);
    attempts(world, &ledger, &report);
}

/// No window saw more than its limit, and the limits were made use of.
fn budget(scenario: &Scenario, world: &World, report: &TenantReport) {
    for (kind, calls) in &report.calls {
        assert!(calls.within_limits(), "{kind}: {calls:?}");
    }
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let took = arrivals.last().unwrap().since(arrivals[0]);
    let fastest = fastest(arrivals.len(), scenario.limits);
    if let Some(delay) = scenario.delay() {
        assert!(took <= fastest + delay, "{took:?} for {} calls; the fastest is {fastest:?}", arrivals.len());
    }
}

/// Every job has ended, no machine was scanned twice, and the queue knows what Defender knows.
fn machines(scenario: &Scenario, ledger: &Ledger, report: &TenantReport) {
    for (machine, scans) in &report.scans_per_machine {
        assert_eq!(*scans, 1, "scans of {machine}");
    }
    assert_eq!(ledger.jobs.len(), scenario.tenant.machines.len());
    for job in &ledger.jobs {
        let is_scanned = report.scans_per_machine.contains_key(&job.machine_id);
        assert_eq!(is_scanned, job.action_id.is_some(), "Defender and the queue disagree about {job:?}");
        assert!(job.finished_at.is_some(), "{job:?}");
    }
}

/// Nothing left without its attempt; what an attempt did not send, a kill kept from leaving.
fn attempts(world: &World, ledger: &Ledger, report: &TenantReport) {
    let traffic = world.wire.traffic(CallKind::Scan);
    let arrivals = report.calls["scan"].arrivals as u64;
    assert_eq!(arrivals, traffic.sent - traffic.lost, "{traffic:?}");
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for attempt in &ledger.attempts {
        *outcomes.entry(attempt.outcome.as_deref().unwrap_or("none")).or_default() += 1;
    }
    let attempts = ledger.attempts.len() as u64;
    let answered_by_death = |answer: &String| answer.contains("sweepd ended");
    let orphans =
        ledger.attempts.iter().filter(|attempt| attempt.answer.as_ref().is_some_and(answered_by_death)).count();
    let left = traffic.sent + traffic.not_sent;
    assert!(left <= attempts && attempts <= left + orphans as u64, "{traffic:?}, {attempts} attempts: {outcomes:?}");
}

/// The seeds, of two threads; returns those that failed, and how long the others lasted.
fn run_all(seeds: &[u64]) -> (Vec<u64>, Duration) {
    let next = AtomicUsize::new(0);
    let judged = Mutex::new((Vec::new(), Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let result = catch_unwind(AssertUnwindSafe(|| run(*seed)));
                    let mut judged = judged.lock().unwrap();
                    if let Ok(lived) = result {
                        judged.1 += lived;
                    } else {
                        println!("seed {seed}: FAILED");
                        judged.0.push(*seed);
                    }
                }
            });
        }
    });
    judged.into_inner().unwrap()
}

#[test]
fn fifty_seeds_keep_the_budget_and_lose_nothing() {
    let chosen: Option<u64> = std::env::var("SWEEPD_SEED").ok().map(|seed| seed.parse().unwrap());
    if let (Some(_), Ok(level)) = (chosen, std::env::var("SWEEPD_LOG")) {
        tracing_subscriber::fmt()
            .with_env_filter(level)
            .without_time()
            .with_ansi(false)
            .with_test_writer()
            .try_init()
            .unwrap();
    }
    let seeds = chosen.map_or_else(|| (1..=SEEDS).collect(), |seed| vec![seed]);
    let (failed, lived) = run_all(&seeds);
    assert!(failed.is_empty(), "run `SWEEPD_SEED=n cargo test --test virtual_time seeds` for n in {failed:?}");
    println!("{:.0} hours in all", lived.as_secs_f64() / 3600.0);
    assert!(lived > Duration::from_hours(2 * seeds.len() as u64), "hours of simulated time each, not {lived:?} in all");
}
