//! `forecast` and the ends that `status` tells: before a run, during it, and with the daemon down.

use std::cell::Cell;

use crate::support::{Configured, Daemon, Site, eventually, limits, list, number, quick_tenant, simulate, text};
use serde_json::Value;
use sweepd::domain::ledger::CallKind;
use sweepd::domain::time::Wall;
use sweepd::simulator::{Fault, FaultKind, SimulatedMachine, Simulator, Target, TenantOptions, fleet};

/// Nothing more is sent for an hour, however slow the machine is.
const PER_HOUR: usize = 5;
const ROUTINE: usize = 12;
const URGENT: usize = 3;

async fn scene(per_hour: u32) -> (Simulator, Daemon, Vec<SimulatedMachine>) {
    let machines = fleet(31, ROUTINE + URGENT, "forecast");
    let tenant = TenantOptions { limits: limits(5, per_hour), ..quick_tenant(machines.clone()) };
    let simulator = simulate(31, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    (simulator, Daemon::new(site), machines)
}

fn forecast(daemon: &Daemon, machines: &str) -> Value {
    let mut lines = daemon.lines(&["forecast", "--machines", machines]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

fn time(value: &Value) -> Wall {
    Wall::parse(value.as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn before_any_run_the_limits_tell() {
    let (_simulator, daemon, _) = scene(60).await;
    let none = forecast(&daemon, "0");
    assert_eq!((number(&none, "queued"), number(&none, "seconds")), (0, 0), "{none}");
    assert_eq!((&none["queued_done_at"], &none["paused"]), (&Value::Null, &Value::Bool(false)), "{none}");
    let hour = forecast(&daemon, "61");
    assert_eq!((text(&hour, "tenant"), text(&hour, "bound_by")), ("contoso", "hour"), "{hour}");
    assert_eq!((number(&hour, "machines"), number(&hour, "seconds")), (61, 3600), "{hour}");
    let people = daemon.told(&["forecast", "--machines", "61"]);
    assert!(people.contains("61 more") && people.contains("1 h 00 min"), "{people}");
    assert!(!daemon.site.state().exists(), "looking makes no state");

    let unknown = daemon.command(&["forecast", "--tenant", "fabrikam"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (2, ""), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("fabrikam") && unknown.stderr.contains("contoso"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_run_status_and_forecast_tell_the_same_end() {
    let (_simulator, mut daemon, machines) = scene(5).await;
    daemon.start().await;
    let (routine, urgent) = machines.split_at(ROUTINE);
    daemon.site.put("weekly.txt", list(routine));
    let queued = |daemon: &Daemon| number(&daemon.status()["tenants"]["contoso"]["jobs"], "queued");
    eventually("an hour's calls", || (queued(&daemon) == (ROUTINE - PER_HOUR) as u64).then_some(())).await;
    let ids: Vec<_> = urgent.iter().map(|machine| machine.id.to_string()).collect();
    let mut submit = vec!["submit", "--wait", "--priority", "urgent", "--name", "incident"];
    submit.extend(ids.iter().map(String::as_str));
    daemon.told(&submit);

    let status = daemon.status();
    let told = forecast(&daemon, "100");
    assert_eq!(number(&told, "queued"), (ROUTINE - PER_HOUR + URGENT) as u64, "{told}");
    let all = time(&status["tenants"]["contoso"]["eta"]);
    let same = time(&told["queued_done_at"]);
    assert!(all.since(same).as_secs() < 5 && same.since(all).as_secs() < 5, "{status} and {told}");
    assert!(time(&told["done_at"]) > same && text(&told, "bound_by") == "hour", "{told}");
    let end = |name: &str| {
        let sweeps = status["sweeps"].as_array().unwrap();
        time(&sweeps.iter().find(|sweep| sweep["name"] == name).unwrap()["eta"])
    };
    assert!(end("incident") < end("weekly.txt"), "the urgent ones are next: {status}");

    daemon.told(&["pause"]);
    let paused = forecast(&daemon, "0");
    assert_eq!((&paused["paused"], &paused["running"]), (&true.into(), &true.into()), "{paused}");
    assert!(paused["queued_done_at"].is_string(), "it counts as if it were resumed: {paused}");
    assert!(daemon.told(&["forecast"]).contains("contoso is paused"));
    assert!(daemon.terminate().await.success());
    let down = forecast(&daemon, "1");
    assert_eq!((&down["running"], number(&down, "queued")), (&false.into(), number(&told, "queued")), "{down}");
    assert!(daemon.told(&["forecast"]).contains("The daemon is not running"));
}

/// What the only tenant is told, once `is_told` is satisfied with it.
async fn told_of_the_tenant(daemon: &Daemon, what: &str, is_told: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(daemon.status()["tenants"]["contoso"].clone()).filter(&is_told)).await
}

fn says(tenant: &Value, key: &str, words: &str) -> bool {
    tenant[key].as_str().is_some_and(|text| text.contains(words))
}

/// Since when, by the time of day, a lane says that its sign-in fails.
fn since(tenant: &Value) -> String {
    let (head, _) = text(tenant, "waiting_for").split_once(": ").unwrap();
    head.chars().skip(head.chars().count() - 8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end_is_promised_while_the_sign_in_fails_and_since_when_outlives_a_restart() {
    let (_simulator, mut daemon, machines) = scene(60).await;
    let good = std::fs::read_to_string(daemon.site.path().join("contoso-secret")).unwrap();
    daemon.site.write_secret("contoso", "wrong");
    daemon.start().await;
    daemon.site.put("weekly.txt", list(&machines));
    let fails = |tenant: &Value| {
        says(tenant, "eta_unknown", "the sign-in fails since") && says(tenant, "waiting_for", "sign-in fails since")
    };
    let before = told_of_the_tenant(&daemon, "word of the sign-in", fails).await;
    assert_eq!(before["eta"], Value::Null, "{before}");
    let told = forecast(&daemon, "3");
    assert_eq!(
        (&told["done_at"], &told["queued_done_at"], &told["seconds"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert!(says(&told, "unknown", "the sign-in fails since"), "{told}");
    assert!(daemon.told(&["status"]).contains("unknown: the sign-in fails since"));
    assert!(daemon.told(&["forecast"]).contains("is unknown: the sign-in fails since"));

    daemon.kill();
    daemon.start().await;
    eventually("another sign-in that fails", || daemon.has_logged("the sign-in failed").then_some(())).await;
    let after = told_of_the_tenant(&daemon, "word of the sign-in", fails).await;
    assert_eq!((&after["eta_unknown"], since(&after)), (&before["eta_unknown"], since(&before)), "{after}");

    daemon.site.write_secret("contoso", good.trim());
    daemon.hang_up();
    told_of_the_tenant(&daemon, "an end", |tenant| tenant["eta_unknown"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end_is_promised_while_defender_refuses_fresh_tokens() {
    let (simulator, mut daemon, machines) = scene(60).await;
    let kind = FaultKind::Status { code: 401, body: String::new(), effect: false, headers: Vec::new() };
    simulator.add_fault(0, Fault::always(Target::Any, kind));
    daemon.start().await;
    // At its start the daemon reads the list, and has met the 401 twice.
    let fails = |tenant: &Value| !tenant["sign_in_fails_since"].is_null();
    told_of_the_tenant(&daemon, "word of the 401", fails).await;
    daemon.site.put("weekly.txt", list(&machines));
    // From the first moment on at which something is queued, until scans are tried, and are refused too.
    let looks = Cell::new(0);
    let held = |tenant: &Value| {
        if tenant["jobs"]["queued"] != 0 {
            looks.set(looks.get() + 1);
            assert_eq!(tenant["eta"], Value::Null, "{tenant}");
            assert!(says(tenant, "eta_unknown", "the sign-in fails since"), "{tenant}");
        }
        simulator.report().tenants[0].calls["scan"].arrivals > 1
            && says(tenant, "waiting_for", "sign-in fails: Defender answers 401")
    };
    told_of_the_tenant(&daemon, "word of the sign-in", held).await;
    assert!(looks.get() > 1);
    simulator.clear_faults(0);
    daemon.hang_up();
    told_of_the_tenant(&daemon, "an end", |tenant| tenant["eta_unknown"].is_null() && !fails(tenant)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end_is_promised_while_calls_are_forbidden_or_paused() {
    let (simulator, mut daemon, machines) = scene(60).await;
    let kind = FaultKind::Status { code: 403, body: String::new(), effect: false, headers: Vec::new() };
    simulator.add_fault(0, Fault::always(Target::Call(CallKind::Scan), kind));
    daemon.start().await;
    daemon.site.put("weekly.txt", list(&machines));
    let tenant = told_of_the_tenant(&daemon, "word of the 403", |tenant| says(tenant, "eta_unknown", "403")).await;
    assert_eq!(tenant["eta"], Value::Null, "{tenant}");
    assert!(says(&forecast(&daemon, "3"), "unknown", "403"));
    daemon.told(&["pause"]);
    let tenant = told_of_the_tenant(&daemon, "word of the pause", |tenant| says(tenant, "eta_unknown", "paused")).await;
    assert_eq!(tenant["eta"], Value::Null, "{tenant}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_the_wire_are_something_to_wait_for() {
    let (simulator, mut daemon, machines) = scene(60).await;
    // On the wire for as long as this may last; without effect: what took effect is found in the list, and settles
    // the job while its call still hangs.
    let config = std::fs::read_to_string(daemon.site.config()).unwrap();
    daemon.site.write_config(&config.replace("call_timeout = \"3s\"", "call_timeout = \"10m\""));
    simulator.add_fault(0, Fault::always(Target::Call(CallKind::Scan), FaultKind::Hang { effect: false }));
    daemon.start().await;
    daemon.site.put("weekly.txt", list(&machines[..2]));
    let waits = |tenant: &Value| text(tenant, "waiting_for") == "the answers to 2 calls on the wire";
    told_of_the_tenant(&daemon, "word of the calls", waits).await;
}
