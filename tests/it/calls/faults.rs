//! Whatever answers a scan call: nothing is scanned twice, and nothing is given up that could be
//! done.
//!
//! Owns *look before asking again* at the edge: lost answers, false answers, no answers.

use std::time::Duration;

use crate::support::{
    Configured, Daemon, Site, assert_scanned_once, assert_within_limits, eventually, limits, list, number,
    quick_tenant, scan_arrivals, seen, simulate, text,
};
use serde_json::Value;
use sweepd::domain::ledger::CallKind;
use sweepd::domain::time::Wall;
use sweepd::simulator::{Fault, FaultKind, Simulator, Target, TenantOptions, TenantReport, fleet};

const SCAN: Target = Target::Call(CallKind::Scan);
const MACHINES: usize = 5;

/// What a fault is expected to cost.
struct Cost {
    /// Calls beside one for each machine.
    calls: usize,
    /// Attempts that count, beside one for each machine.
    attempts: u64,
}

const NOTHING: Cost = Cost { calls: 0, attempts: 0 };

fn status(code: u16, body: &str, effect: bool, headers: &[(&str, &str)]) -> FaultKind {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    FaultKind::Status { code, body: body.to_owned(), effect, headers }
}

struct Scene {
    simulator: Simulator,
    daemon: Daemon,
    tenant: TenantOptions,
}

async fn scene(fault: Fault, change: impl FnOnce(&mut TenantOptions)) -> Scene {
    let mut tenant = quick_tenant(fleet(9, MACHINES, "faults"));
    change(&mut tenant);
    let simulator = simulate(9, vec![tenant.clone()]).await;
    simulator.add_fault(0, fault);
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("devices.txt", list(&tenant.machines));
    Scene { simulator, daemon, tenant }
}

/// An hour with room: after a 429 the calls are spread, by the limit of the hour.
fn roomy(tenant: &mut TenantOptions) {
    tenant.limits = limits(100, 36_000);
}

impl Scene {
    /// Waits for the end, and holds it against what was expected.
    async fn ends_well(&self, struck: u64, cost: Cost) -> TenantReport {
        let jobs = self.daemon.all_final(MACHINES).await;
        let report = seen(&self.simulator);
        assert_eq!(report.faults_struck, struck, "the fault has struck: {report:?}");
        for job in &jobs {
            assert_eq!(job["state"], "succeeded", "{job}");
        }
        assert_scanned_once(&report, &self.tenant.machines);
        assert_within_limits(&report);
        let attempts: u64 = jobs.iter().map(|job| number(job, "attempts")).sum();
        assert_eq!(attempts, MACHINES as u64 + cost.attempts, "{jobs:?}");
        assert_eq!(report.calls["scan"].arrivals, MACHINES + cost.calls, "{report:?}");
        // A read may be on its way at any moment: then it has been seen and is not counted as a call yet.
        let settled = || {
            let report = seen(&self.simulator);
            let calls: u64 = report.calls.values().map(|calls| calls.arrivals as u64).sum();
            (report.requests_on_wire == calls + report.sign_ins).then_some(())
        };
        eventually("a moment with no request beside the calls", settled).await;
        let receipt = self.daemon.receipt("processed/devices.txt").await;
        let results = self.daemon.results("", text(&receipt, "sweep_id")).await;
        assert_eq!(number(&results["states"], "succeeded"), MACHINES as u64, "{results}");
        report
    }
}

impl Scene {
    /// What is kept of the answers that nobody could read: so many. A job ends as soon as the list shows its action,
    /// while its call may still hang; what became of that call is written when it ends.
    async fn unknown_answers(&self, expected: usize) -> Vec<String> {
        let answers = || {
            let machines = self.tenant.machines.iter().map(|machine| machine.id.to_string());
            let jobs: Vec<Value> = machines.flat_map(|machine| self.daemon.history(&machine)).collect();
            let attempts = jobs.iter().flat_map(|job| job["attempts"].as_array().unwrap());
            let unknown = attempts.filter(|attempt| attempt["outcome"] == "unknown");
            let answers: Vec<_> = unknown.map(|attempt| text(attempt, "answer").to_owned()).collect();
            assert!(answers.len() <= expected, "{jobs:?}");
            (answers.len() == expected).then_some(answers)
        };
        eventually("end of every call without an answer", answers).await
    }
}

/// Twice a call goes wrong without having had its effect: it is made once more, and that counts.
async fn lost_without_effect(kind: FaultKind) -> Vec<String> {
    let scene = scene(Fault::once(SCAN, kind).times(2), |_| ()).await;
    scene.ends_well(2, Cost { calls: 2, attempts: 2 }).await;
    scene.unknown_answers(2).await
}

/// Twice a call has its effect and an answer that does not tell: the action is found, and no call
/// is made again. Lists lag behind as they do at Defender.
async fn lost_with_effect(kind: FaultKind) -> Vec<String> {
    let lagging = |tenant: &mut TenantOptions| tenant.list_lag = Duration::from_secs(2);
    let scene = scene(Fault::once(SCAN, kind).times(2), lagging).await;
    scene.ends_well(2, NOTHING).await;
    scene.unknown_answers(2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_500_without_effect() {
    lost_without_effect(status(500, "{\"error\":{\"code\":\"InternalServerError\"}}", false, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_500_with_effect() {
    lost_with_effect(status(500, "{\"error\":{\"code\":\"InternalServerError\"}}", true, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_503_of_a_gateway() {
    let page = "<html><body><h1>503 Service Unavailable</h1></body></html>";
    let kept = lost_without_effect(status(503, page, false, &[("Content-Type", "text/html")])).await;
    assert!(kept.iter().all(|answer| answer == page), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_repeats_the_request_is_kept_without_its_token_and_capped() {
    let token = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJodHRwcyJ9.c2lnbmF0dXJl";
    let page = format!("<pre>Authorization: Bearer {token}</pre>{}", "<br>".repeat(20_000));
    let kept = lost_without_effect(status(502, &page, false, &[("Content-Type", "text/html")])).await;
    for answer in kept {
        assert!(answer.starts_with("<pre>Authorization: Bearer [redacted]</pre><br>"), "{answer}");
        assert!(answer.ends_with(&format!("[{} bytes in all]", page.len())) && answer.len() < 17_000, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_404_of_a_gateway_says_nothing_of_the_machine() {
    let page = "<html><body><h1>404 Not Found</h1></body></html>";
    lost_with_effect(status(404, page, true, &[("Content-Type", "text/html")])).await;
}

const NOT_FOUND: &str = "{\"error\":{\"code\":\"ResourceNotFound\",\"message\":\"Machine was not found\"}}";

/// Struck by a 404 of Defender's own: the one machine, and what was seen of it in the end.
async fn not_found(scans: u32, machines: Option<FaultKind>) -> (Value, TenantReport) {
    let tenant = quick_tenant(fleet(9, 1, "faults"));
    let simulator = simulate(9, vec![tenant.clone()]).await;
    simulator.add_fault(0, Fault::once(SCAN, status(404, NOT_FOUND, false, &[])).times(scans));
    if let Some(kind) = machines {
        simulator.add_fault(0, Fault::always(Target::Call(CallKind::GetMachine), kind));
    }
    let mut configured = Configured::of("contoso", &tenant);
    "max_attempts = 2".clone_into(&mut configured.keys);
    let daemon = Daemon::started(Site::new(&simulator, &[configured], "")).await;
    daemon.site.put("devices.txt", list(&tenant.machines));
    let job = daemon.all_final(1).await.swap_remove(0);
    let report = seen(&simulator);
    assert_within_limits(&report);
    (job, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_in_passing_is_not_final_for_a_machine_that_defender_lists() {
    let (job, report) = not_found(1, None).await;
    assert_eq!((text(&job, "state"), number(&job, "attempts")), ("succeeded", 2), "{job}");
    assert_eq!((report.calls["scan"].arrivals, report.calls["get_machine"].arrivals), (2, 1), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_is_final_when_the_machine_is_not_there_either() {
    let (job, report) = not_found(1, Some(status(404, NOT_FOUND, false, &[]))).await;
    assert_eq!((text(&job, "state"), text(&job, "reason")), ("rejected", "unknown_machine"), "{job}");
    assert_eq!((report.calls["scan"].arrivals, report.calls["get_machine"].arrivals), (1, 1), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_404_is_final_where_machines_may_not_be_read() {
    let (job, report) = not_found(2, Some(status(403, "", false, &[]))).await;
    assert_eq!((text(&job, "state"), text(&job, "reason")), ("rejected", "unknown_machine"), "{job}");
    assert_eq!((report.calls["scan"].arrivals, report.calls["get_machine"].arrivals), (2, 2), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_408_with_effect() {
    lost_with_effect(status(408, "", true, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_before_the_effect() {
    lost_without_effect(FaultKind::ResetBeforeEffect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_the_effect() {
    lost_with_effect(FaultKind::ResetAfterEffect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_ever_and_no_effect() {
    lost_without_effect(FaultKind::Hang { effect: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_ever_and_an_effect() {
    lost_with_effect(FaultKind::Hang { effect: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_forbidden_for_a_moment_decides_nothing() {
    let tenant = TenantOptions { list_lag: Duration::from_secs(8), ..quick_tenant(fleet(9, 1, "faults")) };
    let simulator = simulate(9, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let config = std::fs::read_to_string(site.config()).unwrap();
    let config = config.replace("interval = \"1s\"", "interval = \"30s\"");
    site.write_config(&config.replace("lookup_horizon = \"4s\"", "lookup_horizon = \"2m\""));
    let daemon = Daemon::started(site).await;
    simulator.add_fault(0, Fault::once(SCAN, FaultKind::ResetAfterEffect));
    // The look-up, after 5 s, is the first to read the list since.
    simulator.add_fault(0, Fault::once(Target::Call(CallKind::ListActions), status(403, "", false, &[])));
    daemon.site.put("devices.txt", list(&tenant.machines));
    let job = daemon.all_final(1).await.swap_remove(0);
    assert_eq!((text(&job, "state"), number(&job, "attempts")), ("succeeded", 1), "{job}");
    assert_eq!(seen(&simulator).calls["scan"].arrivals, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off() {
    let kept = lost_with_effect(FaultKind::Truncated).await;
    assert!(kept.iter().all(|answer| answer.starts_with('{') && answer.contains("[cut: ")), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_json() {
    lost_with_effect(FaultKind::Garbage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body() {
    lost_with_effect(FaultKind::Empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    // It points at a call that exists: whoever follows it makes a request that is not in the ledger.
    let elsewhere = "/api/machineactions";
    lost_without_effect(status(302, "", false, &[("Location", elsewhere)])).await;
    lost_without_effect(status(307, "", false, &[("Location", elsewhere)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_is_answered_with_a_fresh_token_and_does_not_count() {
    let body = "{\"error\":{\"code\":\"Unauthorized\",\"message\":\"expired\"}}";
    let scene = scene(Fault::once(SCAN, status(401, body, false, &[])), |_| ()).await;
    let report = scene.ends_well(1, Cost { calls: 1, attempts: 0 }).await;
    assert_eq!(report.sign_ins, 2, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_stops_the_lane_and_costs_no_attempt() {
    let body = "{\"error\":{\"code\":\"429\",\"message\":\"API calls quota exceeded!\"}}";
    let fault = Fault::once(SCAN, status(429, body, false, &[("Retry-After", "2")]));
    let scene = scene(fault, roomy).await;
    scene.ends_well(1, Cost { calls: 1, attempts: 0 }).await;
    assert!(scene.daemon.has_logged("429"), "it is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_for_as_long_as_it_lasts() {
    // The first call and the probes after it: one call a pause, not the whole queue against a wall.
    let body = "{\"error\":{\"code\":\"TooManyRequests\",\"message\":\"quota exceeded\"}}";
    let fault = Fault::once(SCAN, status(429, body, false, &[("Retry-After", "1")])).times(3);
    let scene = scene(fault, roomy).await;
    scene.ends_well(3, Cost { calls: 3, attempts: 0 }).await;
}

/// A 429 that asks for a pause that is long enough to be seen on a busy machine, then `blow`; returns when the pause should have ended, and when
/// the next call was made.
async fn throttled(blow: impl AsyncFnOnce(&mut Daemon)) -> (Wall, Wall) {
    let tenant = quick_tenant(fleet(9, 1, "faults"));
    let simulator = simulate(9, vec![tenant.clone()]).await;
    simulator.add_fault(0, Fault::once(SCAN, status(429, "", false, &[("Retry-After", "12")])));
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("devices.txt", list(&tenant.machines));
    let until = eventually("word of the pause", || {
        let status = daemon.status();
        let waiting = &status["tenants"]["contoso"];
        text(waiting, "waiting_for").contains("429").then(|| Wall::parse(text(waiting, "waiting_until")).unwrap())
    })
    .await;
    blow(&mut daemon).await;
    let job = daemon.all_final(1).await.swap_remove(0);
    assert_eq!((text(&job, "state"), number(&job, "attempts")), ("succeeded", 1), "{job}");
    assert_eq!(scan_arrivals(&simulator, 0), 2);
    let history = daemon.history(text(&job, "machine_id")).swap_remove(0);
    (until, Wall::parse(text(&history["attempts"][1], "at")).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pause_of_a_429_outlives_a_kill_and_a_reload() {
    // Times are told with a resolution of milliseconds, by two clocks that differ by as much.
    let slack = Duration::from_millis(100);
    let (until, next) = throttled(async |daemon| {
        daemon.kill();
        daemon.start().await;
    })
    .await;
    assert!(next + slack >= until, "killed: the next call was at {next:?}, before {until:?}");
    let (until, next) = throttled(async |daemon| daemon.hang_up()).await;
    assert!(next + slack >= until, "reloaded: the next call was at {next:?}, before {until:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_is_tried_again_at_a_reload_and_costs_no_attempt() {
    // One machine: the answer to another call on the wire would show that the permission is there.
    let tenant = quick_tenant(fleet(9, 1, "faults"));
    let simulator = simulate(9, vec![tenant.clone()]).await;
    let body = "{\"error\":{\"code\":\"Forbidden\",\"message\":\"missing role\"}}";
    simulator.add_fault(0, Fault::once(SCAN, status(403, body, false, &[])));
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("devices.txt", list(&tenant.machines));
    let until = eventually("word of the missing permission", || {
        let status = daemon.status();
        let waiting = &status["tenants"]["contoso"];
        text(waiting, "waiting_for").contains("Machine.Scan").then(|| text(waiting, "waiting_until").to_owned())
    })
    .await;
    assert_eq!(scan_arrivals(&simulator, 0), 1);
    daemon.hang_up();
    let job = daemon.all_final(1).await.swap_remove(0);
    // The 403 does not count; what was accepted was asked for once.
    assert_eq!((text(&job, "state"), number(&job, "attempts")), ("succeeded", 1), "{job}");
    assert_scanned_once(&seen(&simulator), &tenant.machines);
    assert_eq!(scan_arrivals(&simulator, 0), 2);
    // The log says: "next try in 60 s or on SIGHUP".
    let ended = text(&job, "finished_at");
    assert!(ended < until.as_str(), "SIGHUP did not try again: the lane waited until {until} and ended at {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_fails_once_is_made_again() {
    let page = status(503, "<html></html>", false, &[]);
    let scene = scene(Fault::once(Target::SignIn, page), |_| ()).await;
    let jobs = scene.daemon.all_final(MACHINES).await;
    assert!(jobs.iter().all(|job| job["state"] == "succeeded" && job["attempts"] == 1), "{jobs:?}");
    let report = seen(&scene.simulator);
    assert_scanned_once(&report, &scene.tenant.machines);
    assert_eq!((report.sign_ins, report.faults_struck), (1, 1), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_is_read_again() {
    let lists = Target::Call(CallKind::ListActions);
    let scene = scene(Fault::once(lists, FaultKind::Garbage).times(3), |_| ()).await;
    scene.ends_well(3, NOTHING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_end_after_max_attempts_and_say_so() {
    let tenant = quick_tenant(fleet(9, 1, "faults"));
    let simulator = simulate(9, vec![tenant.clone()]).await;
    simulator.add_fault(0, Fault::always(SCAN, FaultKind::ResetBeforeEffect));
    let mut configured = Configured::of("contoso", &tenant);
    "max_attempts = 2".clone_into(&mut configured.keys);
    let daemon = Daemon::started(Site::new(&simulator, &[configured], "")).await;
    daemon.site.put("devices.txt", list(&tenant.machines));
    let job: Value = daemon.all_final(1).await.swap_remove(0);
    assert_eq!((text(&job, "state"), text(&job, "reason")), ("failed", "attempts_exhausted"), "{job}");
    assert_eq!(number(&job, "attempts"), 2, "{job}");
    assert_eq!(seen(&simulator).calls["scan"].arrivals, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_in_milliseconds_is_told_in_whole_seconds_and_never_too_short() {
    let headers: &[_] = &[("x-ms-retry-after-ms", "39001")];
    let scene = scene(Fault::once(SCAN, status(429, "", false, headers)), |_| ()).await;
    eventually("word of the pause", || scene.daemon.has_logged("no call for 40 s").then_some(())).await;
    let log = scene.daemon.log();
    let line = log.iter().find(|line| line.to_string().contains("no call for")).unwrap();
    assert_eq!(number(line, "seconds"), 40, "{line}");
}

/// Each of these machines is always answered so; what became of the others' and of their jobs, once all are final.
async fn refused_in_words(kind: FaultKind, refused: &[usize], machines: usize) -> (Scene, Vec<Value>) {
    let tenant = quick_tenant(fleet(9, machines, "faults"));
    let simulator = simulate(9, vec![tenant.clone()]).await;
    for n in refused {
        simulator.add_fault(0, Fault::always(SCAN, kind.clone()).about(&tenant.machines[*n].id));
    }
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("devices.txt", list(&tenant.machines));
    let jobs = daemon.all_final(machines).await;
    let scene = Scene { simulator, daemon, tenant };
    let is_refused =
        |job: &Value| refused.iter().any(|n| scene.tenant.machines[*n].id.to_string() == job["machine_id"]);
    for job in jobs.iter().filter(|job| !is_refused(job)) {
        assert_eq!((text(job, "state"), number(job, "attempts")), ("succeeded", 1), "{job}");
    }
    for held in ["forbids", "no answer that can be read", "calls go on"] {
        assert!(!scene.daemon.has_logged(held), "the lane was held: {held}");
    }
    let refused = jobs.iter().filter(|job| is_refused(job)).cloned().collect();
    assert_within_limits(&seen(&scene.simulator));
    (scene, refused)
}

fn no(code: u16, word: &str) -> FaultKind {
    let body = format!(r#"{{"error":{{"code":"{word}","message":"Not\u001b[2J this one.","target":"|3b.1"}}}}"#);
    status(code, &body, false, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_refused_machines_in_a_row_do_not_stop_the_lane() {
    let first: Vec<_> = (0..12).collect();
    let (scene, refused) = refused_in_words(no(400, "InvalidInput"), &first, 15).await;
    let words = "InvalidInput: Not [2J this one.";
    assert_eq!(refused.len(), 12);
    for job in &refused {
        let told = (text(job, "state"), text(job, "reason"), text(job, "detail"));
        assert_eq!(told, ("rejected", "refused", words), "{job}");
        assert!(number(job, "attempts") <= 2, "{job}");
    }
    let receipt = scene.daemon.receipt("processed/devices.txt").await;
    let sweep = text(&receipt, "sweep_id");
    let results = scene.daemon.results("", sweep).await;
    let rows = results["results"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["reason"] == "refused" && row["detail"] == words).count(), 12, "{results}");
    let csv = std::fs::read_to_string(scene.daemon.site.spool(&format!("results/{sweep}.csv"))).unwrap();
    let exported = scene.daemon.told(&["sweep", "export", sweep]);
    for table in [csv, exported, scene.daemon.told(&["job", "list"])] {
        assert_eq!(table.matches(words).count(), 12, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_that_is_refused_with_403_delays_no_other() {
    // The first of them, before any was accepted; and the last, when the token is known to do.
    for (word, n) in [("DisallowedOperation", 0), ("Forbidden", 29)] {
        let (scene, refused) = refused_in_words(no(403, word), &[n], 30).await;
        let [job] = &refused[..] else { panic!("one machine: {refused:?}") };
        assert_eq!((text(job, "state"), text(job, "reason")), ("rejected", "refused"), "{job}");
        assert!(text(job, "detail").starts_with(word), "{job}");
        let calls = seen(&scene.simulator).scan_calls_per_machine[text(job, "machine_id")];
        assert!(calls <= 2, "{word}: {calls} calls to one machine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_that_names_no_role_is_shown_in_defenders_words() {
    let tenant = quick_tenant(fleet(9, 1, "faults"));
    let simulator = simulate(9, vec![tenant.clone()]).await;
    simulator.add_fault(0, Fault::always(SCAN, no(403, "DisabledFeature")));
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("devices.txt", list(&tenant.machines));
    eventually("Defender's words", || {
        let status = daemon.status();
        let waits = text(&status["tenants"]["contoso"], "waiting_for").to_owned();
        waits.contains("403 (DisabledFeature: Not [2J this one.)").then_some(())
    })
    .await;
    assert!(daemon.has_logged("forbids the scan call (403) and names no missing role"), "and the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_status_is_shown_and_logged_once() {
    let tenant = quick_tenant(fleet(9, 2, "faults"));
    let simulator = simulate(9, vec![tenant.clone()]).await;
    let action = |id: &str, status: &str| {
        format!(
            r#"{{"id":"{id}","type":"RunAntiVirusScan","status":"{status}","requestorComment":"by hand","machineId":"{}",
                "creationDateTimeUtc":"2026-01-01T10:00:00Z","lastUpdateDateTimeUtc":"2026-01-01T10:00:00Z"}}"#,
            tenant.machines[0].id
        )
    };
    let page = format!(r#"{{"value":[{},{}]}}"#, action("a", "Expired"), action("b", "Expired"));
    simulator.add_fault(0, Fault::once(Target::Call(CallKind::ListActions), status(200, &page, false, &[])).times(2));
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let shown = || {
        let status = daemon.status();
        (status["tenants"]["contoso"]["unknown_statuses"]["Expired"] == 2).then_some(())
    };
    eventually("the unknown status", shown).await;
    assert!(daemon.told(&["status"]).contains("`Expired` of 2 actions"), "for people too");
    daemon.site.put("devices.txt", list(&tenant.machines));
    daemon.all_final(2).await;
    assert_eq!(daemon.log_text().matches("a status that sweepd does not know").count(), 1, "{}", daemon.log_text());
}
