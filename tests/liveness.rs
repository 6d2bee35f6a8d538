//! Machines that are answered nonsense for ever hold up nobody, and come to an end of their own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a scenario fails loudly")]

#[path = "support/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, Target};
use world::{BEGIN, Death, Setup, World};

/// More than stop a lane, and they stand at its head.
const BAD: usize = 12;
const GOOD: usize = 30;
const SCAN: Target = Target::Call(CallKind::Scan);

fn answer(code: u16, body: &str) -> FaultKind {
    FaultKind::Status { code, body: body.to_owned(), effect: false, headers: Vec::new() }
}

fn error(code: u16, word: &str) -> FaultKind {
    answer(code, &format!(r#"{{"error":{{"code":"{word}","message":"No.","target":"|3b.1"}}}}"#))
}

/// A world in which the first machines always meet this.
fn world(fault: &FaultKind) -> World {
    let setup = Setup::backlog(BAD + GOOD, Duration::from_millis(200));
    let bad: Vec<_> = setup.tenant.machines.iter().take(BAD).map(|machine| machine.id).collect();
    let world = World::new(setup);
    world.wire.with_tenant(|tenant| {
        for machine in bad {
            tenant.add_fault(Fault::always(SCAN, fault.clone()).about(&machine));
        }
    });
    world
}

/// How many jobs are in each state.
fn states(world: &World) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for job in world.ledger().jobs {
        *states.entry(job.state).or_default() += 1;
    }
    states
}

/// The good ones are through soon, the bad ones some time, and all is over within a day.
fn come_to_an_end(faults: impl IntoIterator<Item = (FaultKind, &'static str)>) {
    for (fault, end) in faults {
        let mut world = world(&fault);
        assert!(world.live(BEGIN + Duration::from_hours(24), Death::Killed), "{fault:?}: {}", world.status());
        let expected = BTreeMap::from([("succeeded".to_owned(), GOOD), (end.to_owned(), BAD)]);
        assert_eq!(states(&world), expected, "{fault:?}");
        let good = world.ledger().jobs.into_iter().filter(|job| job.state == "succeeded");
        let last = good.filter_map(|job| job.finished_at).max().unwrap();
        assert!(last < (BEGIN + Duration::from_mins(45)).rfc3339(), "{fault:?}: {last}");
    }
}

#[test]
fn machines_that_are_never_answered_well_hold_up_no_other_and_come_to_an_end() {
    come_to_an_end([
        (error(500, "InternalServerError"), "failed"),
        (error(400, "SomethingNew"), "failed"),
        (FaultKind::Hang { effect: false }, "failed"),
        (FaultKind::ResetBeforeEffect, "failed"),
    ]);
}

#[test]
fn nor_do_machines_that_are_refused_for_ever() {
    come_to_an_end([
        (error(400, "InvalidRequestBody"), "failed"),
        (error(403, "Forbidden"), "failed"),
        (error(404, "ResourceNotFound"), "failed"),
        (error(400, "ActiveRequestAlreadyExists"), "skipped"),
        (error(400, "OsPlatformNotSupported"), "rejected"),
        (answer(502, "<html>Bad gateway</html>"), "failed"),
    ]);
}
