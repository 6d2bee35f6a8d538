//! What the network does to calls, and what it can never do.

use std::sync::Arc;
use std::time::Duration;

use super::tenant_tests::START;
use super::{Fault, FaultKind, InProcess, Network, Stall, Target, Tenant, TenantOptions, fleet};
use crate::clock::{Clock, VirtualClock};
use crate::defender::{Body, Failure, Reply, Request, Wire};
use crate::domain::ledger::CallKind;
use crate::domain::time::Wall;

const GRACE: Duration = Duration::from_mins(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn network(latency: u64) -> Network {
    Network {
        latency: (seconds(latency), seconds(latency)),
        refused: 0.0,
        lost: 0.0,
        stalls: Vec::new(),
        connect_timeout: seconds(10),
        call_timeout: seconds(60),
        unknown_grace: GRACE,
    }
}

fn stall(from: u64, until: u64, connects: bool) -> Stall {
    Stall { from: START + seconds(from), until: START + seconds(until), connects }
}

fn world(network: Network) -> (Arc<VirtualClock>, InProcess) {
    let clock = Arc::new(VirtualClock::new(START, Duration::ZERO));
    let tenant = Tenant::new(TenantOptions::new(fleet(1, 3, "contoso")), 1, START, "https://api.example");
    (Arc::clone(&clock), InProcess::new(clock, tenant, network, 1))
}

/// Without a token: it arrives all the same.
fn call() -> Request {
    Request {
        post: true,
        url: "https://api.example/api/machines/0123456789012345678901234567890123456789/runAntiVirusScan".to_owned(),
        bearer: None,
        body: Body::Json("{}".to_owned()),
        metadata: false,
        at_most: 1 << 20,
    }
}

fn run<T>(clock: &Arc<VirtualClock>, what: impl Future<Output = T>) -> T {
    clock.runtime(|| true).unwrap().block_on(what)
}

fn rest(clock: &Arc<VirtualClock>) {
    while clock.move_on() {}
}

/// Seconds after the start at which calls arrived.
fn arrivals(wire: &InProcess) -> Vec<u64> {
    let since = |at: &Wall| at.since(START).as_secs();
    wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).iter().map(since).collect())
}

fn status(answer: Result<Reply, Failure>) -> u16 {
    answer.unwrap().status
}

#[test]
fn an_answer_takes_its_time_and_carries_the_server_s_date() {
    let (clock, wire) = world(network(20));
    clock.set_wall(Wall(0));
    let reply = run(&clock, wire.send(call())).unwrap();
    assert_eq!(reply.status, 401);
    assert_eq!(clock.world(), START + seconds(20));
    let date = httpdate::parse_http_date(&reply.date.unwrap()).unwrap();
    let date = Wall(0) + date.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(date >= START && date <= START + seconds(20), "{date}");
    assert_eq!(wire.traffic(CallKind::Scan).sent, 1);
}

#[test]
fn a_call_arrives_though_its_caller_was_killed() {
    let mut stalling = network(1);
    stalling.stalls = vec![stall(0, 40, true)];
    let (clock, wire) = world(stalling);
    run(&clock, async {
        tokio::select! {
            _ = wire.send(call()) => panic!("too early"),
            () = clock.sleep_until(clock.boot() + Duration::from_millis(1)) => {}
        }
    });
    assert!(arrivals(&wire).is_empty());
    rest(&clock);
    assert_eq!(arrivals(&wire), [40]);
}

#[test]
fn what_was_given_up_arrives_within_the_grace_or_not_at_all() {
    let mut slow = network(1);
    slow.stalls = vec![stall(0, 1000, true)];
    let (clock, wire) = world(slow);
    let answer = run(&clock, wire.send(call()));
    assert_eq!(answer.unwrap_err(), Failure::Lost("timed out".to_owned()));
    assert_eq!(clock.world(), START + seconds(60));
    rest(&clock);
    assert_eq!(arrivals(&wire), [120]);
}

#[test]
fn a_stall_lets_everything_go_at_once() {
    let mut stalling = network(2);
    stalling.stalls = vec![stall(0, 50, true)];
    let (clock, wire) = world(stalling);
    run(&clock, async {
        let mut calls = Vec::new();
        for _ in 0..5 {
            let wire = wire.clone();
            calls.push(tokio::spawn(async move { wire.send(call()).await }));
            clock.sleep_until(clock.boot() + seconds(7)).await;
        }
        for call in calls {
            assert_eq!(status(call.await.unwrap()), 401);
        }
    });
    assert_eq!(arrivals(&wire), [50; 5]);
}

#[test]
fn without_a_connection_nothing_leaves() {
    let mut closed = network(1);
    closed.stalls = vec![stall(0, 100, false)];
    let (clock, wire) = world(closed);
    assert!(matches!(run(&clock, wire.send(call())), Err(Failure::NotSent(_))));
    assert_eq!(clock.world(), START + seconds(10));
    rest(&clock);
    assert!(arrivals(&wire).is_empty());
    let traffic = wire.traffic(CallKind::Scan);
    assert_eq!((traffic.sent, traffic.not_sent), (0, 1));
}

#[test]
fn what_is_lost_never_arrives_and_its_caller_waits_in_vain() {
    let (clock, wire) = world(Network { lost: 1.0, ..network(1) });
    assert!(matches!(run(&clock, wire.send(call())), Err(Failure::Lost(_))));
    rest(&clock);
    assert!(arrivals(&wire).is_empty());
    assert_eq!(wire.traffic(CallKind::Scan).lost, 1);
}

#[test]
fn faults_travel_as_they_do_over_http() {
    let (clock, wire) = world(network(1));
    let sign_in = || {
        let options = TenantOptions::new(fleet(1, 3, "contoso"));
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &options.client_id),
            ("client_secret", &options.client_secret),
            ("scope", "x/.default"),
        ];
        Request {
            post: true,
            url: format!("https://api.example/{}/oauth2/v2.0/token", options.tenant_id),
            bearer: None,
            body: Body::Form(form.map(|(name, value)| (name, value.to_owned().into())).to_vec()),
            metadata: false,
            at_most: 1 << 20,
        }
    };
    assert_eq!(status(run(&clock, wire.send(sign_in()))), 200);
    let struck = |kind| {
        wire.with_tenant(|tenant| tenant.add_fault(Fault::once(Target::SignIn, kind)));
        let began = clock.world();
        (run(&clock, wire.send(sign_in())), clock.world().since(began).as_secs())
    };
    let (truncated, _) = struck(FaultKind::Truncated);
    assert!(truncated.unwrap().cut.is_some());
    let (late, took) = struck(FaultKind::Delay { millis: 5000 });
    assert_eq!((status(late), took), (200, 6));
    assert!(matches!(struck(FaultKind::ResetAfterEffect).0, Err(Failure::Lost(_))));
    let (hung, took) = struck(FaultKind::Hang { effect: false });
    assert_eq!((hung.unwrap_err(), took), (Failure::Lost("timed out".to_owned()), 60));
    let mut small = sign_in();
    small.at_most = 10;
    assert!(run(&clock, wire.send(small)).unwrap().cut.is_some());
}

#[test]
fn a_stranger_s_calls_are_counted_apart() {
    let (clock, wire) = world(network(1));
    wire.add_stranger(CallKind::Scan, 60, true);
    run(&clock, clock.sleep_until(clock.boot() + seconds(3600)));
    let report = wire.with_tenant(|tenant| tenant.report(clock.world()));
    assert_eq!(report.calls["scan"].foreign_arrivals, 60);
    assert_eq!(report.calls["scan"].arrivals, 0);
}
