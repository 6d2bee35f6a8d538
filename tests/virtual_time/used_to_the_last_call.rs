//! The budget is used: with a backlog, sweepd is about as fast as the limits allow, and as fast as its
//! forecast says.

use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World, fastest};
use sweepd::clock::{Clock, SystemClock};
use sweepd::domain::forecast::Terms;
use sweepd::domain::ledger::{CallKind, Limits};
use sweepd::domain::time::Wall;
use sweepd::simulator::MachineKind;
use sweepd::web::forecast;
use sweepd::web::report::Now;

/// Sends to so many machines, and holds the time from the first call to the last against the
/// promise: one per cent and a minute more than the fastest legal time.
fn assert_used(machines: usize, latency: Duration) {
    let began = SystemClock.boot();
    let mut world = World::new(Setup::backlog(machines, latency));
    assert!(world.live(BEGIN + Duration::from_hours(12), Death::Killed), "{}", world.status());
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let report = world.wire.with_tenant(|tenant| tenant.report(world.clock.world()));
    assert_eq!(arrivals.len(), machines);
    assert!(report.calls["scan"].within_limits(), "{report:?}");
    let took = arrivals.last().unwrap().since(arrivals[0]);
    let fastest = fastest(machines, Limits::DOCUMENTED);
    let real = SystemClock.boot().since(began);
    println!("{machines} machines, {latency:?} a call: {took:?}, fastest {fastest:?}; in {real:?}");
    let promised = fastest.mul_f64(1.01) + Duration::from_mins(1);
    assert!(took <= promised, "{machines} machines at {latency:?} took {took:?}, promised is {promised:?}");
}

const QUICK: Duration = Duration::from_millis(300);
const SLOW: Duration = Duration::from_secs(3);

#[test]
fn fifteen_hundred_machines_take_a_quarter_of_an_hour() {
    assert_eq!(fastest(1500, Limits::DOCUMENTED), Duration::from_mins(14));
    assert_used(1500, QUICK);
    assert_used(1500, SLOW);
}

#[test]
fn one_machine_more_takes_an_hour() {
    assert_eq!(fastest(1501, Limits::DOCUMENTED), Duration::from_hours(1));
    assert_used(1501, SLOW);
}

/// What `sweepd forecast --machines` would say now, as the time of the last answer.
fn forecast(world: &World, more: u64) -> Wall {
    let now = Now { at: world.clock.wall(), boot: world.clock.boot() };
    let ends = world.ask(async |store| {
        let tenant = store.tenants_status().await.unwrap().remove(0);
        forecast::read(&store, tenant.row, &Terms::default(), more, now, false).await.unwrap().ends
    });
    forecast::wall(ends.queue.unwrap(), now)
}

#[test]
fn five_thousand_machines_take_three_hours_and_four_minutes_as_was_forecast() {
    assert_eq!(fastest(5000, Limits::DOCUMENTED), Duration::from_mins(3 * 60 + 4));
    let mut world = World::new(Setup::backlog(5000, QUICK));
    let before = {
        let now = Now { at: BEGIN, boot: world.clock.boot() };
        let end = forecast::from_terms(&Terms::default(), 5000, now).ends.more.unwrap();
        forecast::wall(end, now)
    };
    // Half-way through the second hour somebody asks again. The daemon is stopped for that moment, since
    // this process has one thread.
    let half_way = BEGIN + Duration::from_mins(90);
    assert!(!world.live(half_way, Death::Stopped(Duration::from_secs(30))));
    let during = forecast(&world, 0);
    assert!(world.live(BEGIN + Duration::from_hours(12), Death::Killed), "{}", world.status());
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let (first, last) = (arrivals[0], *arrivals.last().unwrap());
    let promised = fastest(5000, Limits::DOCUMENTED).mul_f64(1.01) + Duration::from_mins(1);
    assert!(last.since(first) <= promised, "took {:?}, promised is {promised:?}", last.since(first));
    for (asked, told) in [(BEGIN, before), (half_way, during)] {
        let (told, took) = (told.since(asked), last.since(asked));
        let off = (told.as_secs_f64() / took.as_secs_f64() - 1.0).abs();
        println!("asked after {:?}: {told:?} were forecast, it took {took:?}", asked.since(BEGIN));
        assert!(off <= 0.02, "{told:?} were forecast, it took {took:?}");
    }
}

#[test]
fn machines_that_cost_no_call_keep_no_other_back() {
    let mut setup = Setup::backlog(4000, QUICK);
    setup.limit_keys = "pace = \"even\"\n".to_owned();
    // Twenty transactions decide on the busy ones without a call, before the last is reached.
    for machine in setup.tenant.machines.iter_mut().rev().skip(1) {
        machine.kind = MachineKind::ForeignScanPending;
    }
    let mut world = World::new(setup);
    assert!(world.live(BEGIN + Duration::from_hours(12), Death::Killed), "{}", world.status());
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    assert_eq!(arrivals.len(), 1);
    let waited = arrivals[0].since(BEGIN);
    assert!(waited < Duration::from_secs(5), "the only call that was to be made waited for {waited:?}");
}
