//! Actions are followed to their end by a few list calls, however many there are; and the looks come as
//! quickly as something moves.

use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World, good_network};
use sweepd::domain::ledger::CallKind;
use sweepd::domain::time::Wall;
use sweepd::simulator::{Fault, FaultKind, Lists, Target};

const MINUTE: Duration = Duration::from_mins(1);

/// So many machines, sent to within two minutes, whose actions take so long; in pages of 500.
fn world(machines: usize, action_duration: (Duration, Duration), interval: &str) -> World {
    World::new(setup(machines, action_duration, interval))
}

fn setup(machines: usize, action_duration: (Duration, Duration), interval: &str) -> Setup {
    let mut setup = Setup::backlog(machines, Duration::from_millis(200));
    let limits = sweepd::domain::ledger::Limits::new(1500.try_into().unwrap(), 60_000.try_into().unwrap()).unwrap();
    setup.limits = limits;
    setup.tenant.limits = limits;
    setup.tenant.page_size = 500;
    setup.tenant.action_duration = action_duration;
    setup.sections = format!("[follow_up]\ninterval = \"{interval}\"\n");
    setup.network = good_network(Duration::from_millis(200));
    setup
}

/// Calls that have arrived of lists and of single actions.
fn reads(world: &World) -> (usize, usize) {
    (arrivals(world, CallKind::ListActions).len(), arrivals(world, CallKind::GetAction).len())
}

/// How many jobs ended so.
fn ended(world: &World, state: &str, reason: Option<&str>) -> usize {
    let jobs = world.ledger().jobs;
    jobs.iter().filter(|job| job.state == state && job.reason.as_deref() == reason).count()
}

fn status(code: u16, body: &str) -> FaultKind {
    FaultKind::Status { code, body: body.to_owned(), effect: false, headers: Vec::new() }
}

fn arrivals(world: &World, kind: CallKind) -> Vec<Wall> {
    world.wire.with_tenant(|tenant| tenant.arrivals(kind).to_vec())
}

#[test]
fn three_thousand_actions_are_followed_by_their_list_alone() {
    let mut world = world(3000, (10 * MINUTE, 20 * MINUTE), "60s");
    assert!(world.live(BEGIN + Duration::from_hours(4), Death::Killed), "{}", world.status());
    let (lists, singles) = (arrivals(&world, CallKind::ListActions).len(), arrivals(&world, CallKind::GetAction).len());
    println!("{lists} list calls in {:?}", world.age());
    assert_eq!(singles, 0, "every action is in the list");
    assert!(lists < 600, "{lists} list calls, of 1,500 that an hour has, in {:?}", world.age());
}

#[test]
fn looks_are_quick_after_sending_and_slow_while_nothing_moves() {
    // Nothing is taken up for an hour or more.
    let mut world = world(20, (120 * MINUTE, MINUTE), "60s");
    assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
    let looks = arrivals(&world, CallKind::ListActions);
    let within =
        |from: Duration, to: Duration| looks.iter().filter(|at| (BEGIN + from..BEGIN + to).contains(at)).count();
    let (first, quiet) = (within(Duration::ZERO, MINUTE), within(20 * MINUTE, 50 * MINUTE));
    assert!(first >= 3 + 2, "{first} looks in the first minute: {looks:?}");
    assert!((5..=7).contains(&quiet), "{quiet} looks in half an hour in which nothing moves: {looks:?}");
    assert_eq!(arrivals(&world, CallKind::GetAction).len(), 0);
}

/// All are sent to, and end while nobody looks; then somebody does. Returns the calls that it took to know.
fn known_again(setup: Setup) -> (usize, usize) {
    let machines = setup.tenant.machines.len();
    let mut world = World::new(setup);
    assert!(!world.live(BEGIN + 8 * MINUTE, Death::Killed), "none has ended");
    assert_eq!(arrivals(&world, CallKind::Scan).len(), machines);
    let before = reads(&world);
    world.rest(60 * MINUTE);
    assert!(world.live(BEGIN + 90 * MINUTE, Death::Killed), "{}", world.status());
    assert_eq!(ended(&world, "succeeded", None), machines);
    let after = reads(&world);
    println!("{} list calls for {machines} actions", after.0 - before.0);
    (after.0 - before.0, after.1 - before.1)
}

/// As a hundred thousand are to pages of ten thousand.
fn ten_pages() -> Setup {
    let mut setup = setup(3000, (16 * MINUTE, 20 * MINUTE), "60s");
    setup.tenant.page_size = 300;
    setup
}

#[test]
fn a_backlog_of_ten_pages_costs_tens_of_calls() {
    let (lists, singles) = known_again(ten_pages());
    assert!(lists <= 20 && singles == 0, "{lists} list calls, {singles} single ones");
}

#[test]
fn where_the_list_is_refused_by_last_update_it_costs_as_little() {
    let mut setup = ten_pages();
    setup.tenant.lists = Lists { by_update: false, ..Lists::default() };
    let (lists, singles) = known_again(setup);
    assert!(lists <= 25 && singles == 0, "{lists} list calls, {singles} single ones");
}

#[test]
fn pages_that_are_too_long_are_asked_for_in_parts() {
    let mut setup = ten_pages();
    setup.tenant.page_size = 10_000;
    setup.tenant.lists = Lists { longest: 700, ..Lists::default() };
    let (lists, singles) = known_again(setup);
    assert!(lists <= 25 && singles == 0, "{lists} list calls, {singles} single ones");
}

#[test]
fn ends_that_an_index_learns_late_are_known_an_hour_later() {
    let mut setup = setup(600, (5 * MINUTE, 5 * MINUTE), "60s");
    setup.tenant.lists = Lists { late: Some((2, 30 * MINUTE)), ..Lists::default() };
    let mut world = World::new(setup);
    assert!(world.live(BEGIN + 70 * MINUTE, Death::Killed), "{}", world.status());
    assert_eq!(ended(&world, "succeeded", None), 600);
    assert!(reads(&world).1 <= 50, "{:?}", reads(&world));
}

#[test]
fn a_page_of_a_firewall_does_not_change_how_the_list_is_read() {
    let mut world = world(20, (10 * MINUTE, 10 * MINUTE), "60s");
    let waf = Fault::once(Target::Call(CallKind::ListActions), status(400, "<html>Blocked</html>"));
    world.wire.with_tenant(|tenant| tenant.add_fault(waf.skipping(8).times(2)));
    assert!(world.live(BEGIN + 60 * MINUTE, Death::Killed), "{}", world.status());
    assert_eq!((ended(&world, "succeeded", None), reads(&world).1), (20, 0));
}

#[test]
fn without_the_right_to_read_scans_are_given_up_and_the_next_sweep_scans_again() {
    let mut setup = setup(5, (10 * MINUTE, 10 * MINUTE), "10m");
    setup.tenant.roles = vec!["Machine.Scan".to_owned()];
    let mut world = World::new(setup);
    assert!(!world.live(BEGIN + Duration::from_hours(80), Death::Killed), "they are followed for so long");
    assert!(world.live(BEGIN + Duration::from_hours(82), Death::Killed), "{}", world.status());
    assert_eq!(ended(&world, "timed_out", Some("gave_up")), 5);
    world.queue_again();
    assert!(world.live(BEGIN + Duration::from_hours(164), Death::Killed), "{}", world.status());
    assert_eq!((ended(&world, "timed_out", Some("gave_up")), arrivals(&world, CallKind::Scan).len()), (10, 10));
}

#[test]
fn where_the_list_alone_is_forbidden_scans_are_followed_by_single_reads() {
    let mut world = world(40, (10 * MINUTE, 10 * MINUTE), "60s");
    let forbidden = status(403, "{\"error\":{\"code\":\"Forbidden\",\"message\":\"no\"}}");
    let forbidden = Fault::always(Target::Call(CallKind::ListActions), forbidden);
    world.wire.with_tenant(|tenant| tenant.add_fault(forbidden));
    assert!(world.live(BEGIN + 60 * MINUTE, Death::Killed), "{}", world.status());
    assert_eq!(ended(&world, "succeeded", None), 40);
    assert!(reads(&world).1 < 750, "half of an hour's single reads are left: {:?}", reads(&world));
}

#[test]
fn tokens_that_reading_calls_refuse_are_replaced_once_and_then_at_growing_intervals() {
    for times in [2, 10_000] {
        let mut world = world(20, (60 * MINUTE, 10 * MINUTE), "15s");
        let refused = FaultKind::Status { code: 401, body: String::new(), effect: false, headers: Vec::new() };
        let fault = |kind| Fault::always(Target::Call(kind), refused.clone()).times(times).skipping(4);
        world.wire.with_tenant(|tenant| tenant.add_fault(fault(CallKind::ListActions)));
        let finished = world.live(BEGIN + Duration::from_hours(3), Death::Killed);
        let sign_ins = world.wire.with_tenant(|tenant| tenant.report(world.clock.world()).sign_ins);
        // One an hour, two that were refused, and one every five minutes.
        let (least, most) = if times == 2 { (2, 8) } else { (3, 50) };
        assert_eq!(finished, times == 2, "{}", world.status());
        assert!((least..=most).contains(&sign_ins), "{sign_ins} sign-ins in three hours of 401");
    }
}

#[test]
fn a_list_whose_tokens_alone_are_refused_keeps_no_scan_back() {
    let mut setup = Setup::backlog(200, Duration::from_millis(200));
    setup.limits = sweepd::domain::ledger::Limits::new(10.try_into().unwrap(), 600.try_into().unwrap()).unwrap();
    setup.sections = "[follow_up]\ninterval = \"15s\"\n".to_owned();
    let mut world = World::new(setup);
    let refused = FaultKind::Status { code: 401, body: String::new(), effect: false, headers: Vec::new() };
    let fault = Fault::always(Target::Call(CallKind::ListActions), refused);
    world.wire.with_tenant(|tenant| tenant.add_fault(fault));
    assert!(!world.live(BEGIN + 40 * MINUTE, Death::Killed), "nothing is followed");
    let scans = arrivals(&world, CallKind::Scan);
    let took = scans.last().unwrap().since(scans[0]);
    assert!(scans.len() == 200 && took <= 22 * MINUTE, "{} scans in {took:?} instead of 20 min", scans.len());
}
