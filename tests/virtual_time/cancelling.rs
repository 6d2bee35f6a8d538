//! What operators want cancelled is asked of Defender once, by the budget of its own, and keeps nothing else
//! back. The real engine, in virtual time.

use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, MachineKind, Target};
use sweepd::store::cancellations::{CancelOutcome, Wish};
use sweepd::store::tenants::Operator;

const MACHINES: usize = 5;

/// Scans that are pending for as long as a test may last.
fn setup(limit_keys: &str) -> Setup {
    let mut setup = Setup::backlog(MACHINES, Duration::from_millis(300));
    setup.tenant.action_duration = (Duration::from_hours(48), Duration::from_hours(1));
    limit_keys.clone_into(&mut setup.limit_keys);
    setup
}

/// Five minutes after they were asked for.
fn world(limit_keys: &str) -> World {
    let mut world = World::new(setup(limit_keys));
    live(&mut world, 5);
    world
}

/// Lives on until so many minutes after the beginning.
fn live(world: &mut World, minutes: u64) {
    assert!(!world.live(BEGIN + Duration::from_mins(minutes), Death::Killed), "{}", world.status());
}

/// Somebody wants every scan cancelled.
fn cancel_all(world: &World) {
    let actions: Vec<_> = world.ledger().jobs.into_iter().filter_map(|job| job.action_id).collect();
    assert_eq!(actions.len(), MACHINES);
    let operator = Operator { uid: 0, login_uid: None, host: "here".to_owned() };
    let wish = Wish { comment: "enough".to_owned(), operator, at: BEGIN };
    world.ask(async |store| {
        let tenant = store.tenants_status().await.unwrap()[0].row;
        for action in actions {
            assert!(store.ask_to_cancel(tenant, action, wish.clone()).await.unwrap());
        }
    });
}

fn arrivals(world: &World, kind: CallKind) -> usize {
    world.wire.with_tenant(|tenant| tenant.arrivals(kind).len())
}

#[test]
fn who_waits_for_this_budget_does_not_make_the_list_of_actions_unreadable() {
    let mut world = world("[tenants.contoso.limits.cancel_action]\nper_minute = 1\nper_hour = 1\n");
    cancel_all(&world);
    for minutes in [30, 33, 37] {
        live(&mut world, minutes);
        assert!(!world.status().contains("cannot be read"), "{}", world.status());
    }
    assert_eq!(arrivals(&world, CallKind::CancelAction), 1, "the others wait for their hour");
}

/// Strikes so many calls of this kind with a status.
fn strike(world: &World, kind: CallKind, code: u16, body: &str, times: u32) {
    let answer = FaultKind::Status { code, body: body.to_owned(), effect: false, headers: Vec::new() };
    let fault = Fault::always(Target::Call(kind), answer).times(times);
    world.wire.with_tenant(|tenant| tenant.add_fault(fault));
}

#[test]
fn a_page_404_is_not_believed_of_an_action() {
    let mut world = world("");
    cancel_all(&world);
    let page = "<html><body><h1>404 Not Found</h1></body></html>";
    strike(&world, CallKind::CancelAction, 404, page, 2);
    strike(&world, CallKind::GetAction, 404, page, 2);
    assert!(world.live(BEGIN + Duration::from_mins(30), Death::Killed), "{}", world.status());
    assert!(world.ledger().jobs.iter().all(|job| job.state == "cancelled"), "{}", world.status());
}

/// What became of the wishes, each with the machine's job.
fn outcomes(world: &World) -> Vec<Option<CancelOutcome>> {
    let actions: Vec<_> = world.ledger().jobs.into_iter().filter_map(|job| job.action_id).collect();
    world.ask(async |store| {
        let tenant = store.tenants_status().await.unwrap()[0].row;
        let mut outcomes = Vec::new();
        for action in actions {
            outcomes.push(store.cancel_outcome(tenant, &action).await.unwrap().map(|(outcome, _)| outcome));
        }
        outcomes
    })
}

#[test]
fn what_the_app_may_not_cancel_costs_one_call_however_much_it_is() {
    let mut world = world("");
    cancel_all(&world);
    strike(&world, CallKind::CancelAction, 403, "", 1);
    live(&mut world, 30);
    assert_eq!(arrivals(&world, CallKind::CancelAction), 1);
    assert_eq!(outcomes(&world), [Some(CancelOutcome::Forbidden); MACHINES]);
}

#[test]
fn a_no_to_one_action_cancels_the_others_all_the_same() {
    let mut world = world("");
    cancel_all(&world);
    let body = "{\"error\":{\"code\":\"DisallowedOperation\",\"message\":\"Not this one.\"}}";
    strike(&world, CallKind::CancelAction, 403, body, 1);
    live(&mut world, 30);
    let cancelled = Some(CancelOutcome::Cancelled);
    assert_eq!(outcomes(&world), [Some(CancelOutcome::Refused), cancelled, cancelled, cancelled, cancelled]);
}

#[test]
fn actions_that_end_while_their_turn_is_waited_for_cost_no_call() {
    let mut setup = setup("[tenants.contoso.limits.cancel_action]\nper_minute = 1\nper_hour = 1\n");
    // All of them end within the hour, but the last.
    setup.tenant.action_duration = (Duration::from_mins(20), Duration::from_mins(10));
    setup.tenant.machines[MACHINES - 1].kind = MachineKind::Inactive;
    let mut world = World::new(setup);
    live(&mut world, 5);
    cancel_all(&world);
    assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
    let (ended, cancelled) = (Some(CancelOutcome::Ended), Some(CancelOutcome::Cancelled));
    assert_eq!(outcomes(&world), [cancelled, ended, ended, ended, cancelled]);
    assert_eq!(arrivals(&world, CallKind::CancelAction), 2);
}
