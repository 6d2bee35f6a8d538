//! SIGTERM waits for what is on the wire; SIGHUP disturbs nothing; health and metrics answer.

use std::collections::BTreeSet;

use crate::support::{
    Configured, Daemon, Site, assert_adds_up, assert_scanned_once, eventually, first_state_of, limits, list, number,
    quick_tenant, scan_arrivals, seen, simulate, text,
};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, SimulatedMachine, Simulator, Target, fleet};

const MACHINES: usize = 8;

async fn scene() -> (Simulator, Daemon, Vec<SimulatedMachine>) {
    let machines = fleet(13, MACHINES, "signals");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(13, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "hold_above = 0");
    (simulator, Daemon::started(site).await, machines)
}

fn slow_scans(simulator: &Simulator, millis: u64) {
    simulator.add_fault(0, Fault::always(Target::Call(CallKind::Scan), FaultKind::Delay { millis }));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_the_answers_and_writes_them_down() {
    let (simulator, mut daemon, machines) = scene().await;
    // Nobody answers before the signal has come, however late it is sent; and no call is given up meanwhile.
    slow_scans(&simulator, 8000);
    let config = std::fs::read_to_string(daemon.site.config()).unwrap();
    daemon.site.write_config(&config.replace("call_timeout = \"3s\"", "call_timeout = \"50s\""));
    assert!(daemon.terminate().await.success());
    daemon.start().await;
    daemon.site.put("devices.txt", list(&machines));
    eventually("call on the wire", || (scan_arrivals(&simulator, 0) > 0).then_some(())).await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code(), Some(0), "{}", daemon.log_text());
    assert!(!daemon.has_logged("not answered in time"), "{}", daemon.log_text());

    let arrivals = scan_arrivals(&simulator, 0);
    assert!((1..MACHINES).contains(&arrivals), "some calls were on the wire, and the rest still to be made");
    let jobs = daemon.jobs();
    let answered = jobs.iter().filter(|job| job["action_id"].is_string()).count();
    assert_eq!(answered, arrivals, "each answer is written down: {jobs:?}");
    let queued = jobs.iter().filter(|job| job["state"] == "queued").count();
    assert_eq!(queued, MACHINES - arrivals, "and what was not sent is queued, not in between: {jobs:?}");

    simulator.with_tenant(0, sweepd::simulator::Tenant::clear_faults);
    daemon.start().await;
    assert!(!daemon.has_logged("ended with calls on the wire"), "nothing is to be looked up");
    let jobs = daemon.all_final(MACHINES).await;
    assert!(jobs.iter().all(|job| job["state"] == "succeeded" && job["attempts"] == 1), "{jobs:?}");
    let report = seen(&simulator);
    assert_scanned_once(&report, &machines);
    assert_eq!(report.calls["scan"].arrivals, MACHINES);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_with_calls_on_the_wire_loses_none_and_makes_none_twice() {
    let (simulator, daemon, machines) = scene().await;
    slow_scans(&simulator, 1000);
    daemon.site.put("devices.txt", list(&machines));
    for calls in [1, 4] {
        eventually("call on the wire", || (scan_arrivals(&simulator, 0) >= calls).then_some(())).await;
        daemon.hang_up();
    }
    let jobs = daemon.all_final(MACHINES).await;
    assert!(jobs.iter().all(|job| job["state"] == "succeeded" && job["attempts"] == 1), "{jobs:?}");
    let report = seen(&simulator);
    assert_scanned_once(&report, &machines);
    assert_eq!(report.calls["scan"].arrivals, MACHINES);
    assert!(daemon.has_logged("were read again"), "{}", daemon.log_text());
}

const LINES: usize = 60_000;

/// Drops a long file, and gives the daemon a blow as soon as a part of it is in the database.
async fn in_the_middle_of_a_long_file(blow: impl AsyncFnOnce(&mut Daemon)) {
    let (simulator, mut daemon, _) = scene().await;
    daemon.told(&["pause"]);
    let machines = fleet(40, LINES, "long");
    daemon.site.put("long.txt", list(&machines));
    let half = first_state_of(&daemon.site, "long.txt").await == "taking";
    assert!(half, "the file was taken too fast: this scenario shows nothing");
    blow(&mut daemon).await;
    let receipt = daemon.receipt("processed/long.txt").await;
    assert_adds_up(&receipt);
    assert_eq!(number(&receipt, "lines"), LINES as u64, "{receipt}");
    assert_eq!(number(&receipt, "queued"), LINES as u64, "{receipt}");
    let jobs = daemon.jobs();
    let distinct: BTreeSet<_> = jobs.iter().map(|job| text(job, "machine_id")).collect();
    assert_eq!((jobs.len(), distinct.len()), (LINES, LINES));
    assert_eq!(daemon.lines(&["sweep", "list"]).len(), 1);
    assert_eq!(scan_arrivals(&simulator, 0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_in_the_middle_of_a_long_file_counts_each_line_once() {
    in_the_middle_of_a_long_file(async |daemon| daemon.hang_up()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_the_middle_of_a_long_file_counts_each_line_once() {
    in_the_middle_of_a_long_file(async |daemon| {
        let ended = daemon.terminate().await;
        assert_eq!(ended.code(), Some(0), "{}", daemon.log_text());
        daemon.start().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_answer() {
    let (simulator, daemon, machines) = scene().await;
    eventually("readiness", || (daemon.get("/readyz").0 == 200).then_some(())).await;
    assert_eq!(daemon.get("/healthz").0, 200);
    daemon.site.put("devices.txt", format!("{}not an id\n", list(&machines)));
    daemon.all_final(MACHINES).await;

    let (status, metrics) = daemon.get("/metrics");
    assert_eq!(status, 200);
    let arrivals = seen(&simulator).calls["scan"].arrivals;
    for line in [
        "sweepd_build_info{version=".to_owned(),
        format!("sweepd_jobs{{tenant=\"contoso\",state=\"succeeded\"}} {MACHINES}\n"),
        "sweepd_jobs{tenant=\"contoso\",state=\"queued\"} 0\n".to_owned(),
        format!("sweepd_api_calls_total{{tenant=\"contoso\",call=\"scan\",outcome=\"created\"}} {arrivals}\n"),
        format!("sweepd_api_call_duration_seconds_count{{tenant=\"contoso\",call=\"scan\"}} {arrivals}\n"),
        format!("sweepd_budget_used{{tenant=\"contoso\",call=\"scan\",window=\"hour\"}} {arrivals}\n"),
        "sweepd_budget_limit{tenant=\"contoso\",call=\"scan\",window=\"minute\"} 100\n".to_owned(),
        "sweepd_budget_limit{tenant=\"contoso\",call=\"scan\",window=\"hour\"} 1500\n".to_owned(),
        "sweepd_oldest_queued_seconds{tenant=\"contoso\"} 0\n".to_owned(),
        "sweepd_intake_files_total{tenant=\"contoso\",result=\"taken\"} 1\n".to_owned(),
        format!("sweepd_intake_machines_total{{tenant=\"contoso\",result=\"queued\"}} {MACHINES}\n"),
        "sweepd_intake_machines_total{tenant=\"contoso\",result=\"refused\"} 1\n".to_owned(),
        "sweepd_tenant_paused{tenant=\"contoso\"} 0\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line} in:\n{metrics}");
    }
    let (status, body) = daemon.get("/api/status");
    assert_eq!(status, 200);
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["tenants"]["contoso"]["jobs"], daemon.status()["tenants"]["contoso"]["jobs"]);
    let (status, page) = daemon.get("/");
    assert!(status == 200 && page.contains("<html"), "{status} {page}");
    assert_eq!(daemon.get("/nothing").0, 404);
}

/// Under the same limits a reload changes nothing about the pace: no call comes early for it.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_does_not_make_an_even_pace_faster() {
    let machines = fleet(47, MACHINES, "even");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(47, vec![tenant.clone()]).await;
    let mut configured = Configured::of("contoso", &tenant);
    configured.limits = limits(30, 60);
    let site = Site::new(&simulator, &[configured], "");
    // The tenant's limits stand last: one call a minute.
    let text = std::fs::read_to_string(site.config()).unwrap();
    site.write_config(&format!("{text}pace = \"even\"\n"));
    let daemon = Daemon::started(site).await;
    let began = simulator.now();
    daemon.site.put("devices.txt", list(&machines));
    eventually("first call", || (scan_arrivals(&simulator, 0) >= 1).then_some(())).await;
    for reload in 1..=3 {
        let told = |daemon: &Daemon| daemon.log_text().matches("were read again").count();
        let read = seen(&simulator).calls["list_actions"].arrivals;
        daemon.hang_up();
        eventually("reload", || (told(&daemon) >= reload).then_some(())).await;
        // The new lane has read what is pending twice: it has had its chance to send.
        eventually("new lane", || (seen(&simulator).calls["list_actions"].arrivals >= read + 3).then_some(())).await;
    }
    let minutes = usize::try_from(simulator.now().since(began).as_secs() / 60).unwrap();
    let calls = scan_arrivals(&simulator, 0);
    assert!(calls <= 1 + minutes, "{calls} calls within {minutes} whole minutes and a part");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_manager_that_cannot_be_told_is_warned_of() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let (_simulator, mut daemon, _machines) = scene().await;
    assert!(daemon.terminate().await.success());
    assert!(!daemon.has_logged("service manager"), "nobody is to be told");
    let ready = |daemon: &Daemon| daemon.log().iter().any(|line| line["message"] == "ready").then_some(());
    let long = format!("/{}", "n".repeat(200));
    for socket in ["/nowhere/at-all", &long] {
        daemon.launch_with(&[("NOTIFY_SOCKET", socket)]);
        let warning = eventually("warning", || {
            daemon.log().into_iter().find(|line| line["level"] == "WARN" && line["state"] == "READY=1")
        });
        let warning = warning.await;
        assert!(
            text(&warning, "message").starts_with("the service manager could not be told: systemd ends"),
            "{warning}"
        );
        assert_eq!(warning["socket"], socket);
        assert!(daemon.terminate().await.success(), "it serves all the same");
    }

    let name = format!("sweepd-signals-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    daemon.launch_with(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
    eventually("word that the daemon is ready", || ready(&daemon)).await;
    assert!(daemon.terminate().await.success());
    let heard = || {
        let mut message = [0; 100];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert_eq!([heard(), heard()], ["READY=1\nSTATUS=ready\n", "STOPPING=1\n"]);
    assert!(!daemon.has_logged("could not be told"), "{}", daemon.log_text());
}
