//! Machines that are answered nonsense for ever hold up nobody, and come to an end of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World};
use sweepd::domain::ledger::CallKind;
use sweepd::domain::time::Wall;
use sweepd::simulator::{Fault, FaultKind, Target};

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
        (answer(400, "<html>Bad request</html>"), "failed"),
        (FaultKind::Hang { effect: false }, "failed"),
        (FaultKind::ResetBeforeEffect, "failed"),
    ]);
}

#[test]
fn nor_do_machines_that_are_refused_for_ever() {
    come_to_an_end([
        (error(400, "InvalidRequestBody"), "failed"),
        (error(403, "Forbidden"), "rejected"),
        (error(403, "DisabledFeature"), "failed"),
        (answer(403, "<html>Forbidden</html>"), "failed"),
        (error(404, "ResourceNotFound"), "failed"),
        (error(400, "ActiveRequestAlreadyExists"), "skipped"),
        (error(400, "OsPlatformNotSupported"), "rejected"),
        (answer(502, "<html>Bad gateway</html>"), "failed"),
    ]);
}

#[test]
fn nor_do_machines_that_are_refused_in_words() {
    come_to_an_end([
        (error(400, "InvalidInput"), "rejected"),
        (error(403, "DisallowedOperation"), "rejected"),
        (error(404, "SomethingNew"), "rejected"),
        (error(409, "Conflict"), "rejected"),
        (error(410, "Gone"), "rejected"),
    ]);
}

#[test]
fn sixty_refused_machines_delay_no_good_one_behind_them() {
    const REFUSED: usize = 60;
    let setup = Setup::backlog(REFUSED + GOOD, Duration::from_millis(200));
    let (bad, good) = setup.tenant.machines.split_at(REFUSED);
    let bad: Vec<_> = bad.iter().map(|machine| machine.id).collect();
    let good: Vec<_> = good.iter().map(|machine| machine.id.to_string()).collect();
    let mut world = World::new(setup);
    world.wire.with_tenant(|tenant| {
        for machine in &bad {
            tenant.add_fault(Fault::always(SCAN, error(400, "InvalidInput")).about(machine));
        }
    });
    world.live(BEGIN + Duration::from_mins(1), Death::Killed);
    let asked = world.ledger().jobs.into_iter().filter(|job| good.contains(&job.machine_id) && job.attempts == 1);
    assert_eq!(asked.count(), GOOD, "the limit of a minute lets all of them out: {}", world.status());
    assert!(world.live(BEGIN + Duration::from_hours(2), Death::Killed), "{}", world.status());
    for job in world.ledger().jobs {
        if good.contains(&job.machine_id) {
            assert_eq!(job.state, "succeeded", "{job:?}");
        } else {
            let told = (job.state.as_str(), job.reason.as_deref(), job.detail.as_deref(), job.attempts);
            assert_eq!(told, ("rejected", Some("refused"), Some("InvalidInput: No."), 2));
        }
    }
}

#[test]
fn no_machine_is_called_five_times_within_a_second() {
    let answers = [
        error(401, "Unauthorized"),
        error(403, "Forbidden"),
        error(403, "DisallowedOperation"),
        error(403, "DisabledFeature"),
        answer(403, ""),
        error(400, "InvalidRequestBody"),
        error(400, "InvalidInput"),
        error(429, "429"),
    ];
    for fault in answers {
        let setup = Setup::backlog(GOOD, Duration::from_millis(20));
        let bad = setup.tenant.machines[0].id;
        let mut world = World::new(setup);
        world.wire.with_tenant(|tenant| tenant.add_fault(Fault::always(SCAN, fault.clone()).about(&bad)));
        world.live(BEGIN + Duration::from_mins(30), Death::Killed);
        let bad = world.ledger().jobs.into_iter().find(|job| job.machine_id == bad.to_string()).unwrap();
        let attempts = world.ask(async |store| store.attempts_of(bad.id).await.unwrap());
        let mut at: Vec<_> = attempts.iter().map(|attempt| Wall::parse(&attempt.at).unwrap()).collect();
        at.sort_unstable();
        for five in at.windows(5) {
            assert!(five[4].since(five[0]) >= Duration::from_secs(1), "{fault:?}: {attempts:?}");
        }
        assert!(at.len() > 1, "{fault:?}: {attempts:?}");
    }
}
