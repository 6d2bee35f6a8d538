//! The fault matrix: every way in which a call can go wrong on the wire, with its effect and without, and what
//! becomes of it. A row is a fault; the daemon meets all of them at once, each in a tenant of its own.
//!
//! After each: the calls that arrived are the attempts on record, no machine was scanned twice, all jobs are
//! final, and every answer is kept on its attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::gate::{NoTls, Refusing};
use crate::support::{
    Configured, Daemon, Dice, PATIENCE, Site, assert_within_limits, eventually, is_final, limits, list, pause,
    quick_tenant, simulate, text, tls,
};
use serde_json::Value;
use sweepd::clock::{Clock, SystemClock};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, Report, Simulator, Target, TenantOptions, TenantReport, fleet};
use sweepd::store::Store;
use sweepd::store::lists::{AttemptLine, JobLine, Wanted};

const SCAN: Target = Target::Call(CallKind::Scan);

/// What the issue lists, in its words: with how much of (with effect, without effect) there is a row.
const LISTED: [(&str, bool, bool); 18] = [
    // A connection that never stood has no effect; these have a test of their own, at the end.
    ("refused", false, true),
    ("DNS", false, true),
    ("TLS", false, true),
    ("hang before headers", true, true),
    ("hang in body", true, true),
    ("one byte a second, from the first", true, true),
    ("one byte a second, in the body", true, true),
    ("reset before the effect", false, true),
    ("reset after the effect", true, false),
    ("truncated", true, true),
    ("empty", true, true),
    ("garbage", true, true),
    ("HTML", true, true),
    ("1 GiB", true, true),
    ("gzip bomb", true, true),
    ("307", true, true),
    ("308", true, true),
    ("stale pooled connection", true, true),
];
const STATUSES: [u16; 12] = [200, 201, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504];

/// A fault, and what becomes of the call that it strikes.
#[derive(Clone)]
struct Row {
    name: String,
    effect: bool,
    kind: FaultKind,
    /// On record of the attempt: its outcome, its status, and something that its answer contains.
    outcome: &'static str,
    status: Option<u16>,
    kept: &'static str,
    /// Calls for the machine that arrive in the end, and how many count against its job.
    calls: usize,
    counted: i64,
    /// How its job ends.
    end: &'static str,
    /// What its lane says it waits for, if it is held until an operator has said that the trouble is over.
    held: Option<&'static str>,
}

impl Row {
    /// An answer that does not tell. Without effect the call is made again; with it the action is found.
    fn unknown(name: &str, effect: bool, kind: FaultKind, status: Option<u16>, kept: &'static str) -> Self {
        let calls = if effect { 1 } else { 2 };
        let counted = if effect { 1 } else { 2 };
        let name = name.to_owned();
        Self { name, effect, kind, outcome: "unknown", status, kept, calls, counted, end: "succeeded", held: None }
    }

    /// A no to this machine, in words: the call is made once more, unless the list shows that it was not true.
    fn refused(name: &str, effect: bool, code: u16, word: &str) -> Self {
        let kind = error(code, word, "no", effect);
        Self { outcome: "refused", ..Self::unknown(name, effect, kind, Some(code), "[redacted]") }
    }

    /// An answer that says no, through no fault of the job.
    fn refusal(name: &str, effect: bool, kind: FaultKind, status: u16, outcome: &'static str) -> Self {
        // The answer itself does not count; a job that was accepted has one attempt on record all the same.
        Self { outcome, counted: 1, ..Self::unknown(name, effect, kind, Some(status), "[redacted]") }
    }
}

fn status(code: u16, body: &str, effect: bool, headers: &[(&str, &str)]) -> FaultKind {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    FaultKind::Status { code, body: body.to_owned(), effect, headers }
}

/// An error of Defender's, which repeats the token of the call.
fn error(code: u16, word: &str, message: &str, effect: bool) -> FaultKind {
    let body = format!(r#"{{"error":{{"code":"{word}","message":"{message}","target":"Bearer {{bearer}}"}}}}"#);
    status(code, &body, effect, &[("Retry-After", "2")])
}

/// A page of a gateway's, which repeats the token too, and is long.
fn page(code: u16, effect: bool) -> FaultKind {
    let body = format!("<pre>authorization: Bearer {{bearer}}</pre>{}", "<br>".repeat(20_000));
    status(code, &body, effect, &[("Content-Type", "text/html")])
}

/// The wire. Redirects point at a call for the same scan: whoever follows them makes it twice.
fn wire(machine: &str) -> Vec<Row> {
    let elsewhere = format!("/api/machines/{machine}/runAntiVirusScan");
    let moved = |code, effect| status(code, "", effect, &[("Location", &elsewhere)]);
    let mut rows = vec![
        Row::unknown("reset before the effect", false, FaultKind::ResetBeforeEffect, None, "no answer: "),
        Row::unknown("reset after the effect", true, FaultKind::ResetAfterEffect, None, "no answer: "),
    ];
    let created = Some(201);
    for (name, kind, status, kept) in [
        ("hang in body", FaultKind::HangInBody, created, "[cut: timed out"),
        ("one byte a second, from the first", FaultKind::TrickleHead, None, "no answer: timed out"),
        ("one byte a second, in the body", FaultKind::TrickleBody, created, "[cut: timed out"),
        ("truncated", FaultKind::Truncated, created, "[cut: "),
        ("empty", FaultKind::Empty, created, ""),
        ("garbage", FaultKind::Noise, created, "\u{fffd}"),
        ("HTML", FaultKind::Garbage, created, "<html><body>The service says nothing of use.</body></html>"),
        ("1 GiB", FaultKind::Gigabyte, created, "[cut: the answer is larger than 1048576 bytes]"),
        ("gzip bomb", FaultKind::GzipBomb, created, "[cut: the answer is larger than 1048576 bytes]"),
    ] {
        rows.push(Row::unknown(name, true, kind.clone(), status, kept));
        rows.push(Row::unknown(name, false, kind.without_effect(), status, kept));
    }
    for effect in [true, false] {
        rows.push(Row::unknown(
            "hang before headers",
            effect,
            FaultKind::Hang { effect },
            None,
            "no answer: timed out",
        ));
        rows.push(Row::unknown("307", effect, moved(307, effect), Some(307), ""));
        rows.push(Row::unknown("308", effect, moved(308, effect), Some(308), ""));
    }
    // The answer itself is as it should be; what matters is that nothing else is sent where it came from.
    let stale = Row::unknown("stale pooled connection", true, FaultKind::Stale, created, "MachineActions/$entity");
    rows.push(Row { outcome: "created", ..stale });
    let stale = FaultKind::Stale.without_effect();
    rows.push(Row::unknown("stale pooled connection", false, stale, created, "gateway.example"));
    rows
}

/// The statuses.
fn answers() -> Vec<Row> {
    let mut rows = Vec::new();
    for effect in [true, false] {
        for code in STATUSES {
            let name = code.to_string();
            rows.push(match code {
                200 | 201 if effect => {
                    let told = FaultKind::Restated { code };
                    Row { outcome: "created", ..Row::unknown(&name, true, told, Some(code), "MachineActions/$entity") }
                }
                200 | 201 => {
                    let silent = FaultKind::Restated { code }.without_effect();
                    Row::unknown(&name, false, silent, Some(code), "gateway.example")
                }
                401 => Row::refusal(&name, effect, error(code, "Unauthorized", "", effect), code, "unauthorized"),
                403 => {
                    let forbidden = error(code, "Forbidden", "missing role", effect);
                    Row { held: Some("Machine.Scan"), ..Row::refusal(&name, effect, forbidden, code, "forbidden") }
                }
                // Observed in passing: the machine is asked for, and the call made again after a while.
                404 => {
                    let missing = error(code, "ResourceNotFound", "Machine was not found", effect);
                    let unknown = Row::unknown(&name, effect, missing, Some(code), "[redacted]");
                    Row { outcome: "missing", ..unknown }
                }
                429 => Row::refusal(&name, effect, error(code, "429", "quota exceeded", effect), code, "throttled"),
                400 => Row::refused(&name, effect, code, "BadRequest"),
                500 => {
                    let failed = error(code, "InternalServerError", "", effect);
                    Row::unknown(&name, effect, failed, Some(code), "[redacted]")
                }
                _ => Row::unknown(&name, effect, page(code, effect), Some(code), "bytes in all]"),
            });
        }
    }
    rows
}

/// What the issue does not list, and a 4xx can say.
fn more() -> Vec<Row> {
    let mut rows = Vec::new();
    for effect in [true, false] {
        let busy = error(400, "ActiveRequestAlreadyExists", "Action is already in progress", effect);
        let busy = Row::unknown("400: busy", effect, busy, Some(400), "[redacted]");
        // Defender's word is believed: whose action it is, is looked for; then it is ours, or nobody's.
        let end = if effect { "succeeded" } else { "skipped" };
        rows.push(Row { outcome: "busy", end, calls: 1, counted: i64::from(effect), ..busy });
        let malformed = error(400, "InvalidRequestBody", "Request body is incorrect", effect);
        let malformed = Row::unknown("400: malformed", effect, malformed, Some(400), "[redacted]");
        rows.push(Row { outcome: "malformed", held: Some("malformed"), ..malformed });
        rows.push(Row::refused("403: not allowed", effect, 403, "DisallowedOperation"));
        rows.push(Row::refused("409", effect, 409, "Conflict"));
        rows.push(Row::refused("410", effect, 410, "Gone"));
    }
    rows
}

/// What the database says of a tenant.
#[derive(Default)]
struct Recorded {
    /// Each machine's job and its attempts.
    jobs: BTreeMap<String, (JobLine, Vec<AttemptLine>)>,
    /// Calls on record that are no scans and were sent, by their kind, sign-ins included.
    reads: BTreeMap<String, u64>,
    /// How many of them were given up: on a machine that is busy enough, before they had left.
    given_up: BTreeMap<String, u64>,
}

/// The requests that a tenant saw, by their kind.
fn arrived(report: &TenantReport) -> BTreeMap<String, u64> {
    let calls = report.calls.iter().map(|(kind, calls)| (kind.clone(), calls.arrivals as u64));
    let mut arrived: BTreeMap<_, _> = calls.filter(|(_, n)| *n > 0).collect();
    arrived.insert("sign_in".to_owned(), report.requests_on_wire - arrived.values().sum::<u64>());
    arrived
}

impl Recorded {
    /// The requests that are on record, by their kind.
    fn on_record(&self) -> BTreeMap<String, u64> {
        let mut on_record = self.reads.clone();
        on_record.insert("scan".to_owned(), self.jobs.keys().map(|machine| self.sent(machine) as u64).sum());
        on_record
    }

    /// Whether so many requests of a kind are what is on record: every one, but for those that were given up.
    fn accounts_for(&self, seen: &BTreeMap<String, u64>) -> bool {
        let on_record = self.on_record();
        let given_up: usize = self.jobs.keys().map(|machine| self.given_up(machine)).sum();
        let fits = |kind: &String| {
            let count = |of: &BTreeMap<String, u64>| of.get(kind).copied().unwrap_or(0);
            let given_up = if kind == "scan" { given_up as u64 } else { count(&self.given_up) };
            (count(&on_record) - given_up..=count(&on_record)).contains(&count(seen))
        };
        on_record.keys().chain(seen.keys()).all(fits)
    }

    /// Attempts of a machine whose call was given up without an answer.
    fn given_up(&self, machine: &str) -> usize {
        let attempts = self.jobs.get(machine).map_or(&[][..], |(_, attempts)| attempts);
        let answers = attempts.iter().filter_map(|attempt| attempt.answer.as_deref());
        answers.filter(|answer| answer.starts_with("no answer: timed out")).count()
    }

    /// Attempts of a machine whose call was sent.
    fn sent(&self, machine: &str) -> usize {
        let attempts = self.jobs.get(machine).map_or(&[][..], |(_, attempts)| attempts);
        attempts.iter().filter(|attempt| attempt.outcome.as_deref() != Some("not_sent")).count()
    }
}

/// What is on record of each tenant, by its name.
async fn recorded(daemon: &Daemon) -> BTreeMap<String, Recorded> {
    let store = Store::open_existing(&daemon.site.state()).await.unwrap().unwrap();
    store.verify_record().await.unwrap().expect("the chain of the record is whole");
    let mut jobs = Vec::new();
    let each = |job| {
        jobs.push(job);
        Ok(())
    };
    store.jobs(&Wanted::default(), each).await.unwrap().unwrap();
    let mut all: BTreeMap<String, Recorded> = BTreeMap::new();
    for job in jobs {
        let attempts = store.attempts_of(job.id).await.unwrap();
        let recorded = all.entry(job.tenant.clone()).or_default();
        let before = recorded.jobs.insert(job.machine_id.clone(), (job, attempts));
        assert!(before.is_none(), "a job for each machine, and no other");
    }
    let names: BTreeMap<_, _> =
        store.tenants_status().await.unwrap().iter().map(|tenant| (tenant.row, tenant.name.to_string())).collect();
    let each = |event: sweepd::store::events::Exported| {
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let name = event.tenant_id.and_then(|row| names.get(&row));
        if let (Some(name), "call_made", true) = (name, event.kind.as_str(), body["outcome"] != "not_sent") {
            let reads = &mut all.entry(name.clone()).or_default().reads;
            *reads.entry(text(&body, "call").to_owned()).or_default() += 1;
            if body["answer"].as_str().is_some_and(|answer| answer.contains("timed out")) {
                let given_up = &mut all.entry(name.clone()).or_default().given_up;
                *given_up.entry(text(&body, "call").to_owned()).or_default() += 1;
            }
        }
        Ok(())
    };
    store.export_record(0, None, each).await.unwrap().unwrap();
    store.close().await;
    all
}

/// What was seen and what is on record, once nothing is on its way any more: an answer is on record a moment after
/// its call was seen.
async fn at_rest(
    simulator: &Simulator,
    daemon: &Daemon,
    tenants: &[(Configured, TenantOptions)],
) -> (Report, BTreeMap<String, Recorded>) {
    let mut looks = 0;
    loop {
        let (report, recorded) = (simulator.report(), recorded(daemon).await);
        let mut pairs = report.tenants.iter().zip(tenants);
        let agree = pairs.all(|(report, (of, _))| recorded[&of.name].accounts_for(&arrived(report)));
        looks += 1;
        // Where they never agree, the row tells.
        if agree || looks == 50 {
            return (report, recorded);
        }
        pause(Duration::from_millis(100)).await;
    }
}

/// What must hold whatever went wrong: appends what does not.
fn judge(name: &str, tenant: &TenantOptions, report: &TenantReport, recorded: &Recorded, wrong: &mut Vec<String>) {
    for machine in &tenant.machines {
        let id = machine.id.to_string();
        let arrived = report.scan_calls_per_machine.get(&id).copied().unwrap_or(0) as usize;
        if !(recorded.sent(&id) - recorded.given_up(&id)..=recorded.sent(&id)).contains(&arrived) {
            wrong.push(format!("{name}: {arrived} calls arrived for {id}, {} are on record", recorded.sent(&id)));
        }
        let scanned = report.scans_per_machine.get(&id).copied().unwrap_or(0);
        if scanned > 1 {
            wrong.push(format!("{name}: {id} was scanned {scanned} times"));
        }
        if recorded.jobs.get(&id).is_none_or(|(job, _)| ["queued", "sending", "accepted"].contains(&&*job.state)) {
            wrong.push(format!("{name}: the job of {id} is not final"));
        }
    }
    let (seen, on_record) = (arrived(report), recorded.on_record());
    if !recorded.accounts_for(&seen) {
        wrong.push(format!("{name}: on the wire {seen:?}, on record {on_record:?}"));
    }
}

/// Holds a row against what its machine has met.
fn judge_row(row: &Row, machine: &str, report: &TenantReport, recorded: &Recorded, wrong: &mut Vec<String>) {
    let name = format!("{} ({})", row.name, if row.effect { "with effect" } else { "without effect" });
    let Some((job, attempts)) = recorded.jobs.get(machine) else { return };
    let first = &attempts[0];
    let answer = first.answer.as_deref().unwrap_or_default();
    let start: String = answer.chars().take(200).collect();
    let told = (first.outcome.as_deref(), first.http_status);
    if told != (Some(row.outcome), row.status.map(i64::from)) {
        wrong.push(format!("{name}: the attempt is {told:?}: {start}"));
    }
    if !answer.contains(row.kept) || answer.len() > 17_000 {
        wrong.push(format!("{name}: of its answer is kept, in {} bytes: {start}", answer.len()));
    }
    // The probe of a lane that is held does not count.
    let counted = if row.held.is_some() { job.attempts <= row.counted } else { job.attempts == row.counted };
    if recorded.sent(machine) != row.calls || !counted {
        let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome.as_deref()).collect();
        wrong.push(format!("{name}: {} calls count, of {outcomes:?}", job.attempts));
    }
    if job.state != row.end {
        wrong.push(format!("{name}: the job is {} {:?}", job.state, job.reason));
    }
    let scanned = report.scans_per_machine.get(machine).copied().unwrap_or(0);
    if u32::from(row.end == "succeeded") != scanned {
        wrong.push(format!("{name}: scanned {scanned} times"));
    }
    if report.faults_struck != 1 {
        wrong.push(format!("{name}: the fault struck {} times", report.faults_struck));
    }
}

/// No token of anybody's, and no secret, is in the database or in the log.
fn assert_nothing_secret_is_kept(daemon: &Daemon) {
    let mut files: Vec<_> =
        std::fs::read_dir(daemon.site.state()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    let mut all: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    all.extend(daemon.log_text().into_bytes());
    assert!(all.len() > 100_000, "the database was not found: {files:?}");
    for secret in ["eyJ0eXAi", "simulated-secret"] {
        assert!(!all.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is kept");
    }
}

/// Two machines: one that is struck, and one that is not.
fn tenant_of(tag: &str) -> TenantOptions {
    TenantOptions { limits: limits(100, 36_000), ..quick_tenant(fleet(4, 2, tag)) }
}

/// A site for these tenants, with these keys of the network.
fn site_of(simulator: &Simulator, tenants: &[(Configured, TenantOptions)], network: &str) -> Site {
    let configured: Vec<_> = tenants.iter().map(|(configured, _)| configured.clone()).collect();
    let site = Site::new(simulator, &configured, "");
    let text = std::fs::read_to_string(site.config()).unwrap();
    // On a machine that has much else to do a call that should be answered takes its time.
    let text = text.replace("call_timeout = \"3s\"", "call_timeout = \"5s\"");
    site.write_config(&text.replace("[network]", &format!("[network]\n{network}")));
    site
}

/// Drops each tenant's machines.
fn drop_lists(daemon: &Daemon, tenants: &[(Configured, TenantOptions)]) {
    for (configured, tenant) in tenants {
        daemon.site.put(&format!("{}/devices.txt", configured.name), list(&tenant.machines));
    }
}

/// A daemon for these tenants, their machines dropped.
async fn daemon_of(simulator: &Simulator, tenants: &[(Configured, TenantOptions)], network: &str) -> Daemon {
    let daemon = Daemon::started(site_of(simulator, tenants, network)).await;
    drop_lists(&daemon, tenants);
    daemon
}

/// Waits until all jobs of the tenants whose name is `wanted` are final. Not for ever: the rows tell which are not.
async fn final_where(daemon: &Daemon, machines: usize, wanted: impl Fn(&str) -> bool) {
    let deadline = SystemClock.boot() + PATIENCE;
    while SystemClock.boot() < deadline {
        let mut jobs = daemon.jobs();
        jobs.retain(|job| wanted(text(job, "tenant")));
        if jobs.len() == machines && jobs.iter().all(is_final) {
            return;
        }
        // A command that lists so many jobs keeps the daemon from its work on a small machine.
        pause(Duration::from_millis(300)).await;
    }
}

/// Waits until the lanes of these tenants say that they wait for this.
async fn waits(daemon: &Daemon, names: &[(String, &'static str)]) {
    eventually("word of what is waited for", || {
        let status = daemon.status();
        let says = |name: &str| text(&status["tenants"][name], "waiting_for").to_owned();
        names.iter().all(|(name, what)| says(name).contains(what)).then_some(())
    })
    .await;
}

#[test]
fn the_matrix_has_a_row_for_every_fault_that_the_issue_lists_with_and_without_effect() {
    let wire: BTreeSet<_> = wire("").iter().map(|row| (row.name.clone(), row.effect)).collect();
    let both = |(name, with, without): (&str, bool, bool)| {
        [(with, true), (without, false)].map(|(there, effect)| there.then(|| (name.to_owned(), effect)))
    };
    // The first three are connections.
    let listed: BTreeSet<_> = LISTED[3..].iter().copied().flat_map(both).flatten().collect();
    assert_eq!(wire, listed);
    let answers: BTreeSet<_> = answers().iter().map(|row| (row.name.clone(), row.effect)).collect();
    let listed: BTreeSet<_> =
        STATUSES.iter().flat_map(|code| both((&code.to_string(), true, true))).flatten().collect();
    assert_eq!(answers, listed);
    let connections: Vec<_> = LISTED[..3].iter().map(|(name, ..)| *name).collect();
    assert_eq!(connections, CONNECTIONS.map(|(name, _)| name));
    assert_eq!((wire.len(), answers.len(), more().len()), (28, 24, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_scan_call_it_is_on_record_and_no_machine_is_scanned_twice() {
    let count = wire("").len() + answers().len() + more().len();
    let tenants: Vec<_> = (0..count).map(|n| tenant_of(&format!("row-{n}"))).collect();
    let mut rows = Vec::new();
    for (n, tenant) in tenants.iter().enumerate().take(wire("").len()) {
        rows.push(wire(&tenant.machines[0].id.to_string()).swap_remove(n));
    }
    rows.extend(answers());
    rows.extend(more());
    let tenants: Vec<_> = (0..)
        .zip(tenants)
        .zip(&rows)
        .map(|((n, mut tenant), row)| {
            // Lists lag behind, as they do at Defender; by less than a scan takes, where the call was refused.
            tenant.list_lag = Duration::from_secs(if row.outcome == "unknown" { 2 } else { 0 });
            (Configured::of(&format!("row-{n}"), &tenant), tenant)
        })
        .collect();
    let simulator = simulate(4, tenants.iter().map(|(_, tenant)| tenant.clone()).collect()).await;
    for (n, row) in rows.iter().enumerate() {
        simulator.add_fault(n, Fault::once(SCAN, row.kind.clone()).about(&tenants[n].1.machines[0].id));
    }
    let daemon = daemon_of(&simulator, &tenants, "").await;
    let held: Vec<_> =
        rows.iter().zip(&tenants).filter_map(|(row, (of, _))| Some((of.name.clone(), row.held?))).collect();
    let is_held = |name: &str| held.iter().any(|(held, _)| held == name);
    // What is forbidden stops the lane: the queue is not burnt on it.
    waits(&daemon, &held).await;
    for n in (0..count).filter(|n| rows[*n].held.is_some()) {
        let calls = &simulator.report().tenants[n].scan_calls_per_machine;
        assert!(calls.values().all(|calls| *calls == 1), "{}: {calls:?}", rows[n].name);
    }
    final_where(&daemon, 2 * (count - held.len()), |name| !is_held(name)).await;
    // The permission is there now.
    daemon.hang_up();
    final_where(&daemon, 2 * count, |_| true).await;
    let (report, recorded) = at_rest(&simulator, &daemon, &tenants).await;
    let mut wrong = Vec::new();
    for ((row, (of, tenant)), report) in rows.iter().zip(&tenants).zip(&report.tenants) {
        assert_within_limits(report);
        let name = format!("{} ({})", row.name, row.effect);
        judge(&name, tenant, report, &recorded[&of.name], &mut wrong);
        judge_row(row, &tenant.machines[0].id.to_string(), report, &recorded[&of.name], &mut wrong);
        let (witness, _) = &recorded[&of.name].jobs[&tenant.machines[1].id.to_string()];
        if witness.state != "succeeded" || witness.attempts != 1 {
            wrong.push(format!("{name}: what was not struck is {} after {} attempts", witness.state, witness.attempts));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((report.stray_requests, report.requests_on_used_connections), (0, 0));
    assert_nothing_secret_is_kept(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_together_in_one_lane_cost_no_scan_and_burn_no_job() {
    let rows = wire("").len() + answers().len();
    let mut tenant = TenantOptions { limits: limits(600, 36_000), ..quick_tenant(fleet(5, rows, "mixed")) };
    tenant.list_lag = Duration::from_millis(300);
    let simulator = simulate(5, vec![tenant.clone()]).await;
    let mut struck = 0;
    for (n, machine) in tenant.machines.iter().enumerate() {
        let id = machine.id.to_string();
        let row = wire(&id).into_iter().chain(answers()).nth(n).unwrap();
        // A 403 stops the lane for a minute; it has its row above.
        if row.held.is_none() {
            simulator.add_fault(0, Fault::once(SCAN, row.kind).about(&id));
            struck += 1;
        }
    }
    let tenants = [(Configured::of("mixed", &tenant), tenant)];
    let daemon = Daemon::started(site_of(&simulator, &tenants, "")).await;
    // In an order that has nothing to do with the rows.
    let mut order = tenants[0].1.machines.clone();
    let mut dice = Dice(5);
    order.sort_by_cached_key(|_| dice.below(1000));
    daemon.site.put("devices.txt", list(&order));
    final_where(&daemon, rows, |_| true).await;
    let (report, recorded) = at_rest(&simulator, &daemon, &tenants).await;
    let mut wrong = Vec::new();
    judge("mixed", &tenants[0].1, &report.tenants[0], &recorded["mixed"], &mut wrong);
    for (job, attempts) in recorded["mixed"].jobs.values() {
        if job.state != "succeeded" || job.attempts > 2 {
            wrong.push(format!("{} after {} attempts: {attempts:?}", job.state, job.attempts));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((report.tenants[0].scans_created, report.tenants[0].faults_struck), (rows, struck));
    assert_eq!((report.stray_requests, report.requests_on_used_connections), (0, 0));
    assert_within_limits(&report.tenants[0]);
    assert_nothing_secret_is_kept(&daemon);
}

/// The calls that are struck in each tenant, once each.
const READS: [Target; 4] = [
    Target::SignIn,
    Target::Call(CallKind::ListActions),
    Target::Call(CallKind::GetAction),
    Target::Call(CallKind::ListMachines),
];

/// What goes wrong with a read, which has no effect: the same faults. Redirects lead to a list that exists.
fn of_reads() -> Vec<(String, FaultKind)> {
    let elsewhere = [("Location", "/api/machines?$top=1"), ("Retry-After", "1")];
    let mut faults: Vec<_> = [
        ("hang before headers", FaultKind::Hang { effect: false }),
        ("hang in body", FaultKind::HangInBody),
        ("one byte a second, from the first", FaultKind::TrickleHead),
        ("one byte a second, in the body", FaultKind::TrickleBody),
        ("reset before the effect", FaultKind::ResetBeforeEffect),
        ("reset after the effect", FaultKind::ResetAfterEffect),
        ("truncated", FaultKind::Truncated),
        ("empty", FaultKind::Empty),
        ("garbage", FaultKind::Noise),
        ("HTML", FaultKind::Garbage),
        ("1 GiB", FaultKind::Gigabyte),
        ("gzip bomb", FaultKind::GzipBomb),
        ("307", status(307, "", false, &elsewhere)),
        ("308", status(308, "", false, &elsewhere)),
        ("stale pooled connection", FaultKind::Stale),
    ]
    .map(|(name, kind)| (name.to_owned(), kind))
    .to_vec();
    let error = |code: u16| match code {
        200 | 201 => status(code, "{}", false, &[]),
        408 | 502..=504 => page(code, false),
        400 => error(code, "BadRequest", "no", false),
        401 => error(code, "Unauthorized", "no", false),
        403 => error(code, "Forbidden", "no", false),
        404 => error(code, "ResourceNotFound", "no", false),
        429 => error(code, "429", "quota exceeded", false),
        _ => error(code, "InternalServerError", "no", false),
    };
    faults.extend(STATUSES.map(|code| (code.to_string(), error(code))));
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_read_no_scan_is_lost_or_doubled_and_the_daemon_goes_on() {
    let faults = of_reads();
    let listed: Vec<_> = LISTED[3..].iter().map(|(name, ..)| (*name).to_owned()).collect();
    let named: BTreeSet<_> = faults.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(named, listed.into_iter().chain(STATUSES.map(|code| code.to_string())).collect());
    assert_eq!(faults.len() * READS.len(), 27 * 4);
    let tenants: Vec<_> = (0..faults.len())
        .map(|n| {
            // The list does not show an action for longer than it takes: it is read singly.
            let tenant = TenantOptions {
                list_lag: Duration::from_secs(8),
                action_duration: (Duration::from_secs(2), Duration::from_secs(6)),
                ..tenant_of(&format!("read-{n}"))
            };
            let mut configured = Configured::of(&format!("read-{n}"), &tenant);
            // Then the list of machines is read.
            "inactive = \"skip\"".clone_into(&mut configured.keys);
            (configured, tenant)
        })
        .collect();
    let simulator = simulate(6, tenants.iter().map(|(_, tenant)| tenant.clone()).collect()).await;
    for (n, (_, kind)) in faults.iter().enumerate() {
        for on in READS {
            simulator.add_fault(n, Fault::once(on, kind.clone()));
        }
        // Once it has been read, the list is forbidden for good: then actions are followed by single reads.
        let forbidden = error(403, "Forbidden", "no such role", false);
        simulator.add_fault(n, Fault::always(Target::Call(CallKind::ListActions), forbidden).skipping(3));
    }
    let daemon = Daemon::started(site_of(&simulator, &tenants, "")).await;
    // The list of machines is read before anything is sent.
    drop_lists(&daemon, &tenants);
    eventually("list of machines for every tenant", || {
        let reports = simulator.report().tenants;
        reports.iter().all(|report| report.calls["list_machines"].arrivals > 0).then_some(())
    })
    .await;
    final_where(&daemon, 2 * faults.len(), |_| true).await;
    let (report, recorded) = at_rest(&simulator, &daemon, &tenants).await;
    let mut wrong = Vec::new();
    for (((name, _), (of, tenant)), report) in faults.iter().zip(&tenants).zip(&report.tenants) {
        assert_within_limits(report);
        judge(name, tenant, report, &recorded[&of.name], &mut wrong);
        for (job, attempts) in recorded[&of.name].jobs.values() {
            if (job.state.as_str(), job.attempts, attempts.len()) != ("succeeded", 1, 1) {
                wrong.push(format!("{name}: {} after {} attempts: {attempts:?}", job.state, job.attempts));
            }
        }
        // The first of each kind was struck.
        for kind in [CallKind::ListActions, CallKind::GetAction] {
            if report.calls[kind.as_str()].arrivals < 2 {
                wrong.push(format!("{name}: {kind} was not made again"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((report.stray_requests, report.requests_on_used_connections), (0, 0));
    assert_nothing_secret_is_kept(&daemon);
    let (health, said) = daemon.get("/healthz");
    assert_eq!(health, 200, "{said}");
}

/// Connections that never stand, and what is written down of them.
const CONNECTIONS: [(&str, &str); 3] = [("refused", "Connection refused"), ("DNS", "dns error"), ("TLS", "not sent: ")];

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_stands_costs_no_attempt_and_the_lane_goes_on_when_it_does() {
    let names = ["refused-api", "refused-sign-in", "dns-api", "dns-sign-in", "tls-api", "tls-sign-in"];
    let options: Vec<_> = names.iter().map(|name| tenant_of(name)).collect();
    let simulator = simulate(7, options.clone()).await;
    let refusing = [Refusing::new(), Refusing::new()];
    let no_tls = [NoTls::new(simulator.addr()), NoTls::new(simulator.addr())];
    let urls = [
        refusing.each_ref().map(Refusing::url),
        ["https://defender.invalid", "https://login.invalid"].map(str::to_owned),
        no_tls.each_ref().map(NoTls::url),
    ];
    let tenants: Vec<_> = (0..)
        .zip(names.iter().zip(options))
        .map(|(n, (name, tenant))| {
            let mut configured = Configured::of(name, &tenant);
            let url = Some(urls[n / 2][n % 2].clone());
            if usize::is_multiple_of(n, 2) {
                configured.api_url = url;
            } else {
                configured.authority_url = url;
            }
            (configured, tenant)
        })
        .collect();
    // A name server on a busy network takes its time to say that nobody has this name.
    let ca = format!("connect_timeout = \"4s\"\nca_file = \"{}/{}\"", env!("CARGO_MANIFEST_DIR"), tls::CA);
    let daemon = daemon_of(&simulator, &tenants, &ca).await;
    let says = |n: usize| if n.is_multiple_of(2) { "which does not answer" } else { "sign-in fails" };
    let waiting: Vec<_> = names.iter().enumerate().map(|(n, name)| ((*name).to_owned(), says(n))).collect();
    waits(&daemon, &waiting).await;
    // A call that probes whether it stands may be under way just now.
    eventually("all of them in the queue", || {
        daemon.jobs().iter().all(|job| job["state"] == "queued" && job["attempts"] == 0).then_some(())
    })
    .await;
    assert!(no_tls.iter().all(|gate| gate.spoiled() > 0));
    // The way is free again, and nobody tells the daemon.
    for gate in &refusing {
        gate.open(simulator.addr());
    }
    no_tls.iter().for_each(NoTls::open);
    final_where(&daemon, 8, |name| !name.starts_with("dns")).await;
    // A name that is known to nobody is somebody's to correct.
    let config = std::fs::read_to_string(daemon.site.config()).unwrap();
    let right = urls[1].iter().fold(config, |config, url| config.replace(url, &simulator.url()));
    daemon.site.write_config(&right);
    daemon.hang_up();
    final_where(&daemon, 12, |_| true).await;
    let (report, recorded) = at_rest(&simulator, &daemon, &tenants).await;
    for (n, ((of, tenant), report)) in tenants.iter().zip(&report.tenants).enumerate() {
        let recorded = &recorded[&of.name];
        assert_eq!(report.scan_calls_per_machine, report.scans_per_machine, "{}", of.name);
        for machine in &tenant.machines {
            let (job, attempts) = &recorded.jobs[&machine.id.to_string()];
            // The probe of a lane that stood does not count.
            assert_eq!((job.state.as_str(), job.attempts <= 1), ("succeeded", true), "{}: {attempts:?}", of.name);
            assert_eq!(recorded.sent(&machine.id.to_string()), 1, "{}: {attempts:?}", of.name);
        }
        // Ten before the lane stopped, and each on record with its reason.
        let attempts = recorded.jobs.values().flat_map(|(_, attempts)| attempts);
        let mut unsent: Vec<_> = attempts.filter(|attempt| attempt.outcome.as_deref() == Some("not_sent")).collect();
        // The lane stopped while this one was written down.
        unsent.retain(|attempt| !attempt.answer.as_deref().unwrap().contains("came before"));
        let (_, why) = CONNECTIONS[n / 2];
        assert_eq!(unsent.len() >= 10, n.is_multiple_of(2), "{}: {unsent:?}", of.name);
        assert!(unsent.iter().all(|attempt| attempt.answer.as_deref().unwrap().contains(why)), "{unsent:?}");
        assert_within_limits(report);
    }
    assert_eq!((report.stray_requests, report.requests_on_used_connections), (0, 0));
    assert!(daemon.has_logged("calls go on after"), "it says how long it stood");
}
