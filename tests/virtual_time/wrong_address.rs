//! An address that is not the API's answers 404 to everything, in Defender's own words if it is a
//! neighbour's: no machine is given up for that.

use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, Target};

const MACHINES: usize = 40;
const AN_HOUR: Duration = Duration::from_hours(1);

fn not_found() -> FaultKind {
    let body = r#"{"error":{"code":"ResourceNotFound","message":"No such resource.","target":"|3b.1"}}"#;
    FaultKind::Status { code: 404, body: body.to_owned(), effect: false, headers: Vec::new() }
}

fn states(world: &World) -> Vec<String> {
    let mut states: Vec<_> = world.ledger().jobs.into_iter().map(|job| job.state).collect();
    states.sort();
    states.dedup();
    states
}

#[test]
fn an_address_that_answers_404_to_everything_rejects_no_machine_and_is_told() {
    let mut world = World::new(Setup::backlog(MACHINES, Duration::from_millis(200)));
    world.wire.with_tenant(|tenant| tenant.add_fault(Fault::always(Target::Any, not_found())));
    assert!(!world.live(BEGIN + AN_HOUR, Death::Killed));
    let calls = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).len());
    // Seven may be on the wire before the first answer comes home.
    assert!((1..15).contains(&calls), "one call probes it at growing intervals: {calls}");
    assert!(!states(&world).contains(&"rejected".to_owned()), "{}", world.status());
    assert!(world.status().contains("check api_url, cloud and region"), "{}", world.status());

    world.wire.with_tenant(sweepd::simulator::Tenant::clear_faults);
    assert!(world.live(BEGIN + AN_HOUR * 4, Death::Killed), "{}", world.status());
    assert_eq!(states(&world), ["succeeded"], "{}", world.status());
    let calls_after = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).len());
    assert!(calls_after - calls <= MACHINES, "{calls_after} calls in all, {calls} of them to nobody");
}

#[test]
fn machines_that_are_gone_are_rejected_where_the_list_can_be_read() {
    let mut world = World::new(Setup::backlog(MACHINES, Duration::from_millis(200)));
    world.wire.with_tenant(|tenant| {
        tenant.add_fault(Fault::always(Target::Call(CallKind::Scan), not_found()));
        tenant.add_fault(Fault::always(Target::Call(CallKind::GetMachine), not_found()));
    });
    assert!(world.live(BEGIN + AN_HOUR, Death::Killed), "{}", world.status());
    assert_eq!(states(&world), ["rejected"], "{}", world.status());
    assert_eq!(world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).len()), MACHINES);
}
