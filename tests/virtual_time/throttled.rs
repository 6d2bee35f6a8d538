//! What a 429 says is done, in whichever spelling; and a budget that others spend too is used, without
//! running into one 429 after the other. The real engine, in virtual time.

use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World};
use sweepd::domain::ledger::{CallKind, Limits};
use sweepd::simulator::{Fault, FaultKind, Target};

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

/// A 429 for the so many-th call of a kind, which asks for so many seconds of silence.
fn throttle(world: &World, kind: CallKind, after: u32, seconds: u32) {
    let headers = vec![("Retry-After".to_owned(), seconds.to_string())];
    let answer = FaultKind::Status { code: 429, body: String::new(), effect: false, headers };
    world.wire.with_tenant(|tenant| tenant.add_fault(Fault::once(Target::Call(kind), answer).skipping(after)));
}

/// The longest that no call of a kind arrived.
fn longest_silence(world: &World, kind: CallKind) -> Duration {
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(kind).to_vec());
    // What left before the 429 was read may arrive after it.
    arrivals.windows(2).map(|two| two[1].since(two[0])).max().unwrap() + LATENCY
}

#[test]
fn nor_does_a_boot_clock_that_jumps_before_the_next_start() {
    for (kind, after) in [(CallKind::Scan, 50), (CallKind::ListActions, 4)] {
        let mut world = World::new(Setup::backlog(1400, LATENCY));
        throttle(&world, kind, after, 3500);
        assert!(!world.live(BEGIN + Duration::from_mins(12), Death::Killed), "{}", world.status());
        world.clock.jump(86_400_000);
        assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
        let silence = longest_silence(&world, kind);
        assert!(silence >= Duration::from_secs(3500), "a {} was called in the pause: {silence:?}", kind.as_str());
        assert!(silence <= Duration::from_mins(63), "{} was not called for {silence:?}", kind.as_str());
    }
}

#[test]
fn a_kill_ends_no_silence_of_any_kind_of_call() {
    for (kind, after) in [(CallKind::Scan, 50), (CallKind::ListActions, 4)] {
        let mut world = World::new(Setup::backlog(1400, LATENCY));
        throttle(&world, kind, after, 3500);
        // Twice: what was restored is as good as what was met.
        for minutes in [12, 20] {
            assert!(!world.live(BEGIN + Duration::from_mins(minutes), Death::Killed), "{}", world.status());
        }
        assert!(world.live(BEGIN + Duration::from_hours(6), Death::Killed), "{}", world.status());
        let silence = longest_silence(&world, kind);
        assert!(silence >= Duration::from_secs(3500), "a {} was called in the pause: {silence:?}", kind.as_str());
        assert!(silence <= Duration::from_mins(63), "{} was not called for {silence:?}", kind.as_str());
    }
}

#[test]
fn a_429_on_single_reads_keeps_no_look_at_the_list_back() {
    let mut setup = Setup::backlog(5, LATENCY);
    setup.sections = "[follow_up]\ninterval = \"1m\"\n".to_owned();
    // An hour after it began everything pending is read anew: five are believed to be, and not in the list.
    setup.tenant.list_lag = Duration::from_mins(100);
    setup.tenant.action_duration = (Duration::from_hours(4), Duration::from_hours(1));
    let mut world = World::new(setup);
    throttle(&world, CallKind::GetAction, 0, 3500);
    assert!(!world.live(BEGIN + Duration::from_hours(3), Death::Killed), "{}", world.status());
    let singles = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::GetAction).len());
    assert!(singles > 0, "no single read was made");
    let silence = longest_silence(&world, CallKind::ListActions);
    assert!(silence <= Duration::from_mins(7), "the list was not read for {silence:?}");
}

/// Two sections with one app registration, half of the machines each.
fn two_sections(machines: usize) -> World {
    let mut setup = Setup::backlog(machines, LATENCY);
    let (directory, client) = (setup.tenant.tenant_id, setup.tenant.client_id.clone());
    setup.sections = format!(
        "[follow_up]\ninterval = \"1m\"\n[tenants.fabrikam]\ntenant_id = \"{directory}\"\napi_url = \"https://api.example\"\n\
         authority_url = \"https://login.example\"\n\
         [tenants.fabrikam.auth]\nclient_id = \"{client}\"\nsecret_file = \"secret\"\n",
    );
    World::new(setup)
}

#[test]
fn what_one_of_two_sections_with_one_registration_meets_silences_both() {
    for (kind, after, told) in [(CallKind::Scan, 30, 2), (CallKind::ListActions, 12, 0)] {
        let mut world = two_sections(600);
        throttle(&world, kind, after, 1000);
        assert!(!world.live(BEGIN + Duration::from_mins(4), Death::Killed), "{}", world.status());
        let status = world.status();
        assert_eq!(status.matches("throttled by Defender until").count(), told, "{status}");
        assert!(world.live(BEGIN + Duration::from_hours(3), Death::Killed), "{}", world.status());
        let silence = longest_silence(&world, kind);
        // What was on the wire when the answer came arrives within a moment of it.
        let least = Duration::from_millis(999_700);
        assert!(silence >= least, "a {} was called in the pause: {silence:?}", kind.as_str());
    }
}

/// The limits change at a time.
fn reloaded(at: Duration, latency: Duration) -> World {
    let reload = Some((BEGIN + at, Limits::DOCUMENTED.without_reserve(10)));
    World::new(Setup { reload, ..Setup::backlog(200, latency) })
}

#[test]
fn the_answers_to_calls_from_before_a_reload_let_the_next_go_out_at_once() {
    let mut world = reloaded(Duration::from_secs(10), LATENCY);
    let slow = FaultKind::Delay { millis: 20_000 };
    world.wire.with_tenant(|tenant| tenant.add_fault(Fault::always(Target::Call(CallKind::Scan), slow)));
    assert!(world.live(BEGIN + Duration::from_hours(3), Death::Killed), "{}", world.status());
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let next = arrivals.iter().map(|at| at.since(arrivals[0])).find(|time| *time > Duration::from_secs(10)).unwrap();
    assert!(next <= Duration::from_secs(22), "the lane stood for {next:?}");
}

#[test]
fn what_a_call_from_before_a_reload_meets_holds_under_the_other_limits_too() {
    // The sign-in and two or three lists come first, as two threads happen to end: the calls go out at 60 s or at
    // 80 s, and are answered 20 s later.
    let latency = Duration::from_secs(20);
    let lived = |reload| {
        let mut world = reloaded(reload, latency);
        throttle(&world, CallKind::Scan, 3, 60);
        assert!(world.live(BEGIN + Duration::from_hours(3), Death::Killed), "{}", world.status());
        let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
        let struck = arrivals[3];
        (struck < BEGIN + reload && BEGIN + reload < struck + latency / 2).then_some((arrivals, struck))
    };
    let mut between = [95, 75].into_iter().cycle().take(40).map(|seconds| lived(Duration::from_secs(seconds)));
    let between = between.find_map(|lived| lived);
    let (arrivals, struck) = between.expect("a reload between a call and its answer");
    let again = *arrivals.iter().find(|at| at.since(struck) > latency).unwrap();
    assert!(again.since(struck) >= Duration::from_mins(1), "a call was made in the pause: {:?}", again.since(struck));
    let minute = arrivals.iter().filter(|at| **at >= again && at.since(again) < Duration::from_mins(1)).count();
    assert!(minute <= 52, "{minute} calls in the minute after, though half were believed to be left");
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
