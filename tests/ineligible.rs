//! Machines that Defender's own list shows as not worth asking.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a scenario fails loudly")]

#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, MachineKind, Target};
use world::{BEGIN, Death, Setup, World};

const MACHINES: usize = 12;
const INACTIVE: usize = 5;

/// Twelve machines, the first five of which are inactive; the list has pages of four.
fn world(keys: &str) -> World {
    let mut setup = Setup::backlog(MACHINES, Duration::from_millis(200));
    for machine in &mut setup.tenant.machines[..INACTIVE] {
        machine.kind = MachineKind::Inactive;
    }
    setup.tenant.page_size = 4;
    setup.tenant.absent_for = Duration::from_hours(2);
    keys.clone_into(&mut setup.keys);
    World::new(setup)
}

/// Scan calls, list calls, and jobs in this state with this reason.
fn seen(world: &World, state: &str, reason: Option<&str>) -> (usize, usize, usize) {
    let arrivals = |kind| world.wire.with_tenant(|tenant| tenant.arrivals(kind).len());
    let jobs = world.ledger().jobs;
    let such = jobs.iter().filter(|job| job.state == state && job.reason.as_deref() == reason);
    (arrivals(CallKind::Scan), arrivals(CallKind::ListMachines), such.count())
}

#[test]
fn inactive_machines_are_skipped_where_that_is_wanted() {
    let mut world = world("inactive = \"skip\"");
    assert!(world.live(BEGIN + Duration::from_hours(1), Death::Killed), "{}", world.status());
    assert_eq!(seen(&world, "skipped", Some("not_eligible")), (MACHINES - INACTIVE, 3, INACTIVE));
}

#[test]
fn inactive_machines_are_waited_for_where_that_is_wanted() {
    let mut world = world("inactive = \"wait\"");
    assert!(!world.live(BEGIN + Duration::from_hours(13), Death::Killed), "they never come back");
    let (scans, lists, queued) = seen(&world, "queued", None);
    assert_eq!((scans, queued), (MACHINES - INACTIVE, INACTIVE));
    assert!((6..=9).contains(&lists), "{lists} pages: the list is read anew while somebody waits");
}

#[test]
fn without_a_wish_or_a_list_every_machine_is_asked() {
    let mut sending = world("");
    assert!(sending.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", sending.status());
    assert_eq!(seen(&sending, "timed_out", None), (MACHINES, 0, INACTIVE));
    let mut blind = world("inactive = \"skip\"");
    let broken = Fault::always(Target::Call(CallKind::ListMachines), FaultKind::Garbage);
    blind.wire.with_tenant(|tenant| tenant.add_fault(broken));
    assert!(blind.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", blind.status());
    assert_eq!(seen(&blind, "timed_out", None), (MACHINES, 1, INACTIVE));
}
