//! What a 429 says is done, in whichever spelling; and a budget that others spend too is used, without
//! running into one 429 after the other. The real engine, in virtual time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a scenario fails loudly")]

#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, Target};
use world::{BEGIN, Death, Setup, World};

const LATENCY: Duration = Duration::from_millis(300);

/// What an answer says, and how long it asks for silence.
struct Spelling {
    status: u16,
    body: &'static str,
    header: &'static str,
    retry_after: Option<String>,
    silence: Duration,
}

fn spellings() -> Vec<Spelling> {
    let minute = Duration::from_mins(1);
    let bounded = Duration::from_mins(61);
    let case = |retry_after: Option<&str>, body, silence| Spelling {
        status: 429,
        body,
        header: "Retry-After",
        retry_after: retry_after.map(ToOwned::to_owned),
        silence,
    };
    let quota = r#"{"error":{"code":"429","message":"API calls quota exceeded! maximum allowed 1500 per 01:00:00"}}"#;
    let soon = r#"{"error":{"code":"TooManyRequests","message":"You can send requests again in 90 seconds."}}"#;
    let volume = r#"{"error":{"code":"429","message":"Quota will be replenished in 00:03:20."}}"#;
    vec![
        case(Some("30"), "", Duration::from_secs(30)),
        case(Some("30.2"), quota, Duration::from_secs(31)),
        // By the server's own clock, which its `Date` tells: a date in ten minutes from the beginning.
        case(Some("Mon, 12 Oct 2026 09:56:40 GMT"), "", Duration::from_mins(9)),
        case(Some("0"), "", minute),
        case(Some("-5"), "", minute),
        case(Some("soon"), quota, minute),
        case(Some("99999999999999999999"), "", bounded),
        case(None, "<html>Too many requests</html>", minute),
        case(None, soon, Duration::from_secs(90)),
        case(Some("0"), soon, Duration::from_secs(90)),
        case(None, volume, Duration::from_secs(200)),
        Spelling { header: "x-ms-retry-after-ms", ..case(Some("100500"), "", Duration::from_millis(100_500)) },
        Spelling { header: "Retry-After-Ms", ..case(Some("90000"), volume, Duration::from_secs(90)) },
        Spelling { status: 400, ..case(None, soon, Duration::from_secs(90)) },
        Spelling { status: 503, ..case(Some("45"), quota, Duration::from_secs(45)) },
    ]
}

#[test]
fn the_lane_is_silent_for_as_long_as_a_429_says_and_then_goes_on() {
    for Spelling { status, body, header, retry_after, silence } in spellings() {
        let mut world = World::new(Setup::backlog(40, LATENCY));
        let headers = retry_after.iter().map(|value| (header.to_owned(), value.clone())).collect();
        let kind = FaultKind::Status { code: status, body: body.to_owned(), effect: false, headers };
        let fault = Fault::once(Target::Call(CallKind::Scan), kind).skipping(10);
        world.wire.with_tenant(|tenant| tenant.add_fault(fault));
        let what = format!("{status} {header} {retry_after:?} {body:?}");
        assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{what}: {}", world.status());
        let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
        assert_eq!(arrivals.len(), 41, "{what}");
        // What was on the wire when the answer came arrives within a moment of it.
        let struck = arrivals[10];
        let next = arrivals.iter().find(|at| at.since(struck) > LATENCY * 2).unwrap();
        let pause = next.since(struck);
        assert!(pause >= silence && pause <= silence + Duration::from_mins(2), "{what}: silent for {pause:?}");
    }
}

#[test]
fn a_bound_of_the_operator_ends_the_longest_silence() {
    let mut setup = Setup::backlog(20, LATENCY);
    setup.limit_keys = "longest_pause = \"5m\"\n".to_owned();
    let mut world = World::new(setup);
    let headers = vec![("Retry-After".to_owned(), "86400".to_owned())];
    let kind = FaultKind::Status { code: 429, body: String::new(), effect: false, headers };
    world.wire.with_tenant(|tenant| tenant.add_fault(Fault::once(Target::Call(CallKind::Scan), kind)));
    assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let pause = arrivals.iter().map(|at| at.since(arrivals[0])).find(|pause| *pause > LATENCY * 2).unwrap();
    assert!(pause >= Duration::from_mins(5) && pause < Duration::from_mins(6), "{pause:?}");
}

#[test]
fn a_429_on_the_list_of_actions_keeps_no_scan_back() {
    let mut world = World::new(Setup::backlog(1400, LATENCY));
    let headers = vec![("Retry-After".to_owned(), "3500".to_owned())];
    let kind = FaultKind::Status { code: 429, body: String::new(), effect: false, headers };
    world
        .wire
        .with_tenant(|tenant| tenant.add_fault(Fault::once(Target::Call(CallKind::ListActions), kind).skipping(4)));
    assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
    let arrivals = |kind| world.wire.with_tenant(|tenant| tenant.arrivals(kind).to_vec());
    let scans = arrivals(CallKind::Scan);
    let took = scans.last().unwrap().since(scans[0]);
    assert!(took <= Duration::from_mins(17), "{took:?} instead of 13 min");
    let lists = arrivals(CallKind::ListActions);
    let silence = lists.windows(2).map(|two| two[1].since(two[0])).max().unwrap();
    assert!(silence >= Duration::from_secs(3500), "a list was asked for in the pause: {silence:?}");
}

/// The fastest that 3,000 calls can be made with 60 a minute and 900 an hour: three hours and 300 calls.
const FASTEST_BESIDE: Duration = Duration::from_mins(3 * 60 + 4);

/// Others make 600 calls an hour with the same app registration, two fifths of the limit.
fn with_a_stranger(evenly: bool) {
    let machines = 3000;
    let mut world = World::new(Setup::backlog(machines, LATENCY));
    world.wire.add_stranger(CallKind::Scan, 600, evenly);
    // He was there before.
    world.rest(Duration::from_hours(1));
    assert!(world.live(BEGIN + Duration::from_hours(13), Death::Killed), "{}", world.status());
    let report = world.wire.with_tenant(|tenant| tenant.report(world.clock.world()));
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let calls = &report.calls["scan"];
    let met = arrivals.len() - machines;
    let took = arrivals.last().unwrap().since(arrivals[0]);
    println!("{met} of {} met a 429; {machines} machines in {took:?}; {calls:?}", arrivals.len());
    assert!(met * 100 <= arrivals.len() * 3, "{met} of {} met a 429", arrivals.len());
    assert!(took <= FASTEST_BESIDE.div_f64(0.9), "it took {took:?}");
    let foreign = world.ask(async |store| {
        let budget = store.tenants_status().await.unwrap()[0].budget.unwrap();
        store.foreign(budget).await.unwrap()[&CallKind::Scan]
    });
    assert!((300..=900).contains(&foreign.hour), "others are believed to make {foreign:?}, and make 600 an hour");
    assert!(calls.within_limits(), "{calls:?}");
}

#[test]
fn what_a_stranger_leaves_is_used() {
    with_a_stranger(true);
}

#[test]
fn what_a_stranger_who_calls_at_random_leaves_is_used() {
    with_a_stranger(false);
}
