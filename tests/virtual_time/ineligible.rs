//! Machines that Defender's own list shows as not worth asking.

use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, MachineKind, Target};

const MACHINES: usize = 12;
const INACTIVE: usize = 5;

/// Twelve machines, the first five of which are inactive; the list has pages of four.
fn world(keys: &str) -> World {
    World::new(setup(keys))
}

fn setup(keys: &str) -> Setup {
    let mut setup = Setup::backlog(MACHINES, Duration::from_millis(200));
    for machine in &mut setup.tenant.machines[..INACTIVE] {
        machine.kind = MachineKind::Inactive;
    }
    setup.tenant.page_size = 4;
    setup.tenant.absent_for = Duration::from_hours(2);
    keys.clone_into(&mut setup.keys);
    setup
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
    // A page that cannot be read is asked for in halves, in case it is too long.
    assert_eq!(seen(&blind, "timed_out", None), (MACHINES, 5, INACTIVE));
}

#[test]
fn a_list_that_takes_minutes_keeps_neither_the_feed_nor_what_follows_it_waiting() {
    let mut setup = setup("inactive = \"wait\"");
    setup.tenant.page_size = 1;
    setup.sections = "[follow_up]\ninterval = \"60s\"\n".to_owned();
    let mut world = World::new(setup);
    let slow = Fault::always(Target::Call(CallKind::ListMachines), FaultKind::Delay { millis: 30_000 });
    world.wire.with_tenant(|tenant| tenant.add_fault(slow));
    assert!(!world.live(BEGIN + Duration::from_hours(1), Death::Killed));
    let arrivals = |kind| world.wire.with_tenant(|tenant| tenant.arrivals(kind).to_vec());
    let (pages, lists) = (arrivals(CallKind::ListMachines), arrivals(CallKind::ListActions));
    assert_eq!(pages.len(), MACHINES);
    let meanwhile = lists.iter().filter(|at| (pages[0]..*pages.last().unwrap()).contains(at)).count();
    assert!(meanwhile >= 4, "{meanwhile} looks at the actions in {:?}", pages.last().unwrap().since(pages[0]));
    let scans = arrivals(CallKind::Scan);
    assert!(scans[0] > *pages.last().unwrap(), "the first jobs wait for the first list");
    assert_eq!(seen(&world, "queued", None).2, INACTIVE);
}

#[test]
fn after_a_restart_the_list_is_read_before_anything_is_sent() {
    let mut setup = setup("inactive = \"wait\"");
    // While they are followed the feed is fresh, and nothing is ready until the inactive ones are looked at again.
    setup.tenant.action_duration = (Duration::from_hours(2), Duration::from_hours(2));
    let mut world = World::new(setup);
    assert!(!world.live(BEGIN + Duration::from_mins(30), Death::Killed));
    assert_eq!(seen(&world, "queued", None), (MACHINES - INACTIVE, 3, INACTIVE));
    assert!(!world.live(BEGIN + Duration::from_mins(90), Death::Killed));
    assert_eq!(seen(&world, "queued", None), (MACHINES - INACTIVE, 6, INACTIVE));
}

#[test]
fn a_new_database_knows_the_scans_of_as_long_as_the_rules_ask() {
    let setup = setup("skip_if_scanned_within = \"7d\"");
    let (scanned, long_ago) = (setup.tenant.machines[7].id, setup.tenant.machines[8].id);
    let mut world = World::new(setup);
    world.wire.with_tenant(|tenant| {
        tenant.start_foreign_scan(BEGIN - Duration::from_hours(8 * 24), long_ago);
        tenant.start_foreign_scan(BEGIN - Duration::from_hours(3 * 24), scanned);
    });
    assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
    assert_eq!(seen(&world, "skipped", Some("recently_scanned")), (MACHINES - 1, 0, 1));
}

#[test]
fn how_long_ago_a_scan_was_is_told_by_defenders_clock() {
    let setup = setup("skip_if_scanned_within = \"4h\"");
    let scanned = setup.tenant.machines[7].id;
    let mut world = World::new(setup);
    world.clock.set_wall(BEGIN + Duration::from_hours(6));
    world.wire.with_tenant(|tenant| tenant.start_foreign_scan(BEGIN - Duration::from_hours(1), scanned));
    assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
    assert_eq!(seen(&world, "skipped", Some("recently_scanned")), (MACHINES - 1, 0, 1));
}
