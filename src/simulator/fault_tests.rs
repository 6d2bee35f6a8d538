//! What went wrong on order, and what is true all the same.

use std::time::Duration;

use super::tenant_tests::{START, World, limits};
use super::{Delivery, Fault, FaultKind, Target};
use crate::domain::ledger::CallKind;

#[test]
fn effects_are_counted_though_faults_hide_the_answers() {
    let status = |effect| FaultKind::Status { code: 503, body: "busy".to_owned(), effect, headers: Vec::new() };
    let mut world = World::new(|_| {});
    let on = Target::Call(CallKind::Scan);
    for (machine, (kind, effect)) in [
        (status(false), false),
        (status(true), true),
        (FaultKind::ResetBeforeEffect, false),
        (FaultKind::ResetAfterEffect, true),
        (FaultKind::Hang { effect: false }, false),
        (FaultKind::Hang { effect: true }, true),
        (FaultKind::Truncated, true),
        (FaultKind::Garbage, true),
        (FaultKind::Empty, true),
        (FaultKind::Delay { millis: 5 }, true),
    ]
    .into_iter()
    .enumerate()
    {
        let before = world.tenant.report(START).scans_created;
        world.tenant.add_fault(Fault::once(on, kind.clone()));
        let request = world.request("POST", &world.scan_path(machine), r#"{"Comment":"a","ScanType":"Full"}"#);
        let delivery = world.tenant.exchange(START, &request);
        let as_ordered = match (&kind, &delivery) {
            (FaultKind::Status { .. }, Delivery::Answer(answer)) => answer.status == 503 && answer.body == b"busy",
            (FaultKind::Garbage, Delivery::Answer(answer)) => {
                answer.status == 201 && !answer.body.is_empty() && answer.value().is_null()
            }
            (FaultKind::Empty, Delivery::Answer(answer)) => answer.status == 201 && answer.body.is_empty(),
            (FaultKind::Truncated, Delivery::Truncated(answer))
            | (FaultKind::Delay { .. }, Delivery::Late(_, answer)) => answer.status == 201,
            (kind, Delivery::Never) => matches!(kind, FaultKind::Hang { .. }),
            (kind, Delivery::Reset) => {
                matches!(kind, FaultKind::ResetBeforeEffect | FaultKind::ResetAfterEffect)
            }
            _ => false,
        };
        assert!(as_ordered, "{kind:?}: {delivery:?}");
        let after = world.tenant.report(START);
        assert_eq!(after.scans_created - before, usize::from(effect), "{kind:?}");
        assert_eq!(after.calls["scan"].arrivals, machine + 1, "{kind:?}");
    }
    assert_eq!(world.tenant.report(START).scans_per_machine.len(), 7);
}

#[test]
fn a_call_that_is_refused_anyway_uses_no_fault_up() {
    let mut world = World::new(|options| options.limits = limits(1, 1));
    world.scan(0);
    world.tenant.add_fault(Fault::once(Target::Any, FaultKind::Empty));
    let request = world.request("POST", &world.scan_path(1), "");
    assert!(matches!(world.tenant.exchange(START, &request), Delivery::Answer(answer) if answer.status == 429));
    assert_eq!(world.tenant.report(START).faults_struck, 0);
}

#[test]
fn fates_follow_from_the_seed_whatever_the_order() {
    let run = |order: Vec<usize>| {
        let mut world = World::new(|options| options.all_succeed = false);
        for machine in order {
            world.scan(machine);
        }
        world.pass(Duration::from_secs(11));
        let mut fates: Vec<(String, String, String)> = world.get("/api/machineactions").value()["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| (a["machineId"].to_string(), a["id"].to_string(), a["status"].to_string()))
            .collect();
        fates.sort();
        fates
    };
    assert_eq!(run((0..20).collect()), run((0..20).rev().collect()));
}
