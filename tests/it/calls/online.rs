//! `check --online`: what it tells of each tenant, what it costs, and how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Configured, Daemon, Output, Site, eventually, list, number, quick_tenant, seen, simulate, text};
use serde_json::{Value, json};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, Simulator, Target, TenantOptions, fleet};

struct Scene {
    simulator: Simulator,
    daemon: Daemon,
}

/// A tenant, changed by `change`, and a daemon that does not run.
async fn scene(change: impl FnOnce(&mut TenantOptions, &mut Configured)) -> Scene {
    let mut tenant = quick_tenant(fleet(11, 3, "online"));
    let mut configured = Configured::of("contoso", &tenant);
    change(&mut tenant, &mut configured);
    let simulator = simulate(11, vec![tenant]).await;
    let daemon = Daemon::new(Site::new(&simulator, &[configured], ""));
    Scene { simulator, daemon }
}

fn roles(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Runs it with `--json`; returns what it says of contoso, and how it ended.
fn checked(daemon: &Daemon) -> (Value, Output) {
    let output = daemon.command(&["check", "--online", "--json"]);
    assert!(!output.stdout.contains("eyJ") && !output.stderr.contains("eyJ"), "no token is shown: {output:?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (report["online"]["tenants"]["contoso"].clone(), output)
}

/// The verdicts by kind of call.
fn verdicts(tenant: &Value) -> Vec<(&str, &str)> {
    tenant["features"].as_array().unwrap().iter().map(|found| (text(found, "call"), text(found, "verdict"))).collect()
}

/// What arrived of each kind of call.
fn arrivals(simulator: &Simulator) -> [usize; 4] {
    let calls = seen(simulator).calls;
    ["scan", "list_actions", "get_action", "list_machines"].map(|kind| calls[kind].arrivals)
}

fn refuse(simulator: &Simulator, kind: CallKind, code: u16, body: &str) {
    let kind_of = FaultKind::Status { code, body: body.to_owned(), effect: false, headers: Vec::default() };
    simulator.add_fault(0, Fault::always(Target::Call(kind), kind_of));
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_run_everything_is_told_and_nothing_is_made() {
    let scene = scene(|_, _| {}).await;
    let output = scene.daemon.command(&["check", "--online"]);
    assert_eq!(output.code, 0, "{output:?}");
    let address = scene.simulator.addr().to_string();
    for words in [
        format!("A firewall has to let through: {address}\n"),
        "contoso: signed in with client_secret as ".to_owned(),
        "when the secret ends Entra alone knows".to_owned(),
        "Machine.Scan".to_owned(),
        "Machine.Read.All or".to_owned(),
        "Machine.ReadWrite.All".to_owned(),
        "these reads are in nobody's budget".to_owned(),
    ] {
        assert!(output.stdout.contains(&words), "{words}: {}", output.stdout);
    }
    let (tenant, _) = checked(&scene.daemon);
    let granted = ["scan", "list_actions", "get_action", "list_machines", "get_machine", "cancel_action"];
    let granted = granted.map(|kind| (kind, "granted"));
    assert_eq!(verdicts(&tenant), granted, "{tenant}");
    assert_eq!((&tenant["ok"], &tenant["roles"]), (&json!(true), &json!(["Machine.Scan", "Machine.Read.All"])));
    let because = |place: usize| text(&tenant["features"][place], "because");
    assert_eq!(because(4), "a read was answered", "of a machine, not of their list alone");
    assert!(because(5).contains("no action is cancelled to find out"), "{tenant}");
    assert_eq!(seen(&scene.simulator).calls["get_machine"].arrivals, 2);
    // There is no action yet: a made-up one is asked for.
    assert_eq!(arrivals(&scene.simulator), [0, 2, 2, 2], "and no scan");
    assert!(!scene.daemon.site.state().exists(), "it makes no state folder");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_permission_that_is_missing_is_told_with_what_is_lost() {
    for (held, missing, remedy) in [
        (roles(&["Machine.Read.All"]), vec!["scan", "cancel_action"], "grant Machine.Scan (WindowsDefenderATP"),
        (
            roles(&["Machine.Scan"]),
            vec!["list_actions", "get_action", "list_machines", "get_machine"],
            "grant Machine.Read.All (WindowsDefenderATP",
        ),
        (
            roles(&[]),
            vec!["scan", "list_actions", "get_action", "list_machines", "get_machine", "cancel_action"],
            "with admin consent",
        ),
    ] {
        let scene = scene(|tenant, _| tenant.roles.clone_from(&held)).await;
        let (tenant, output) = checked(&scene.daemon);
        assert_eq!(output.code, 77, "{output:?}");
        let lacking: Vec<_> =
            verdicts(&tenant).into_iter().filter(|(_, word)| *word == "missing").map(|(call, _)| call).collect();
        assert_eq!(lacking, missing, "{held:?}: {tenant}");
        let plain = scene.daemon.command(&["check", "--online"]);
        assert!(plain.stdout.contains(remedy) && plain.stdout.contains("Without: "), "{}", plain.stdout);
        assert!(plain.stderr.contains("something is missing for: contoso"), "{}", plain.stderr);
        assert_eq!(arrivals(&scene.simulator)[0], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defenders_answer_beats_the_token() {
    // As some of Microsoft's pages have it: the list wants more than the token has.
    let scene = scene(|_, _| {}).await;
    let body = r#"{"error":{"code":"Forbidden","message":"roles: Machine.ReadWrite.All","target":"1"}}"#;
    refuse(&scene.simulator, CallKind::ListActions, 403, body);
    let (tenant, output) = checked(&scene.daemon);
    let found = &tenant["features"][1];
    assert_eq!((text(found, "verdict"), output.code), ("missing", 77), "{tenant}");
    assert!(text(found, "because").contains("roles: Machine.ReadWrite.All"), "{found}");
    assert!(text(found, "remedy").contains("is not enough here: grant Machine.ReadWrite.All"), "{found}");
    assert_eq!(verdicts(&tenant)[3], ("list_machines", "granted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_conflict_is_told_from_the_live_answer() {
    let newer =
        "Missing application roles. API required roles: Machine.ReadWrite.All, application roles: Machine.Read.All.";
    let older = "The app has none of the required application permissions (Machine.ReadWrite.All).";
    for message in [newer, older] {
        let scene = scene(|_, _| {}).await;
        let body = json!({ "error": { "code": "Forbidden", "message": message } }).to_string();
        refuse(&scene.simulator, CallKind::GetMachine, 403, &body);
        let (tenant, output) = checked(&scene.daemon);
        let found = &tenant["features"][4];
        assert_eq!((text(found, "verdict"), output.code), ("missing", 77), "{tenant}");
        assert!(text(found, "because").contains("(403) although the token has Machine.Read.All: Forbidden"), "{found}");
        assert!(text(found, "remedy").contains("is not enough here: grant Machine.ReadWrite.All ("), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_below_the_configured_path() {
    for (keys, exit) in [("api_path = '/api/v1.0'", 0), ("api_path = '/'", 69)] {
        let scene = scene(|_, configured| keys.clone_into(&mut configured.keys)).await;
        let (tenant, output) = checked(&scene.daemon);
        assert_eq!(output.code, exit, "{keys}: {tenant}");
        assert_eq!(arrivals(&scene.simulator)[1], usize::from(exit == 0), "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenant_without_machines_is_judged_by_live_answers() {
    // Without an action and a machine, made-up ids are read: 404 is a yes, 403 a no.
    for machines in [Vec::new(), fleet(11, 1, "one")] {
        let scene = scene(|tenant, _| tenant.machines.clone_from(&machines)).await;
        let (tenant, output) = checked(&scene.daemon);
        assert_eq!(output.code, 0, "{tenant}");
        refuse(&scene.simulator, CallKind::GetMachine, 403, "");
        refuse(&scene.simulator, CallKind::GetAction, 403, "");
        let (tenant, output) = checked(&scene.daemon);
        assert_eq!(output.code, 77, "{tenant}");
        for (place, verdict) in [(1, "granted"), (2, "missing"), (3, "granted"), (4, "missing")] {
            let found = &tenant["features"][place];
            assert_eq!(text(found, "verdict"), verdict, "{found}");
            let live = if verdict == "missing" { "(403)" } else { "a read was answered" };
            assert!(text(found, "because").contains(live), "{found}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_ends_tells_scripts_what_is_wrong() {
    let with_secret = |secret: &'static str| scene(move |_, configured| secret.clone_into(&mut configured.secret));
    let wrong = with_secret("not-the-secret").await;
    let (tenant, output) = checked(&wrong.daemon);
    assert_eq!((output.code, &tenant["signed_in"]), (77, &json!(false)), "{output:?}");
    assert!(text(&tenant, "error").contains("AADSTS7000215"), "{tenant}");
    assert_eq!(arrivals(&wrong.simulator), [0; 4], "without a token nothing is read");
    assert!(!output.stdout.contains("not-the-secret"));

    let odata = r#"{"error":{"code":"ODataError","message":"No such option."}}"#;
    for (code, body, exit) in [(401, "", 77), (503, "<html>", 69), (429, "", 0), (400, "", 69), (400, odata, 0)] {
        let scene = scene(|_, _| {}).await;
        refuse(&scene.simulator, CallKind::ListMachines, code, body);
        let (tenant, output) = checked(&scene.daemon);
        assert_eq!(output.code, exit, "{code}: {output:?} {tenant}");
    }
    // A 404 that Defender did not write, and one for a list that is always there: another host answers.
    let page = "<html><h1>404 Not Found</h1></html>";
    let coded = r#"{"error":{"code":"NotFound","message":"Resource not found"}}"#;
    for (kind, place, body) in
        [(CallKind::ListMachines, 3, page), (CallKind::ListActions, 1, page), (CallKind::ListActions, 1, coded)]
    {
        let scene = scene(|_, _| {}).await;
        refuse(&scene.simulator, kind, 404, body);
        let (tenant, output) = checked(&scene.daemon);
        let found = &tenant["features"][place];
        assert_eq!((text(found, "verdict"), output.code), ("unreachable", 69), "{found}");
        assert!(text(found, "because").contains("is api_url right?"), "{found}");
    }
    let gone = scene(|_, _| {}).await;
    gone.simulator.stop().await;
    let (tenant, output) = checked(&gone.daemon);
    assert_eq!((output.code, &tenant["ok"]), (69, &json!(false)), "{output:?}");
    assert!(text(&tenant, "error").contains("cannot be reached"), "{tenant}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_another_directory_is_not_used_by_check_nor_by_the_daemon() {
    const OURS: &str = "99999999-8888-7777-6666-555555555555";
    let mut theirs = String::new();
    let mut scene = scene(|tenant, configured| {
        // The metadata service issues tokens for the directory of the machine, whatever is configured.
        tenant.trust = crate::support::credentials::trust(&tenant.client_id);
        theirs = tenant.tenant_id.to_string();
        OURS.clone_into(&mut configured.tenant_id);
        configured.auth = Some("method = \"managed_identity\"".to_owned());
    })
    .await;
    let expected = format!("the token is for the directory {theirs}, not for tenant_id {OURS}");
    let (tenant, output) = checked(&scene.daemon);
    assert_eq!((output.code, &tenant["signed_in"]), (77, &json!(false)), "{output:?}");
    assert!(text(&tenant, "error").starts_with(&expected), "{tenant}");
    scene.daemon.start().await;
    eventually("word of it", || scene.daemon.has_logged(&expected).then_some(())).await;
    assert_eq!(arrivals(&scene.simulator), [0; 4], "no call went out with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_the_daemon_every_read_is_in_its_ledger_and_on_record() {
    let machines = fleet(11, 3, "online");
    let mut scene = scene(|_, _| {}).await;
    scene.daemon.start().await;
    scene.daemon.site.put("devices.txt", list(&machines));
    scene.daemon.all_final(machines.len()).await;
    let used = |scene: &Scene, kind: &str| {
        number(&scene.daemon.status()["tenants"]["contoso"]["budget"][kind]["hour"], "used")
    };
    let single_reads = arrivals(&scene.simulator)[2];
    let (tenant, output) = checked(&scene.daemon);
    assert_eq!((output.code, &tenant["ok"]), (0, &json!(true)), "{output:?} {tenant}");
    assert_eq!(arrivals(&scene.simulator)[2..], [single_reads + 1, 1], "there is an action now, and it is read");
    assert_eq!(used(&scene, "list_machines"), 1);
    // Nothing of it keeps the daemon from going on.
    eventually("an idle lane", || {
        (scene.daemon.status()["tenants"]["contoso"]["waiting_for"] == "nothing").then_some(())
    })
    .await;
    assert!(scene.daemon.terminate().await.success());
    assert_eq!(scene.daemon.command(&["check", "--online"]).code, 0, "and with the daemon down");
    assert_eq!(used(&scene, "list_machines"), 2);
    let report = seen(&scene.simulator);
    for (kind, calls) in &report.calls {
        assert!(calls.within_limits(), "{kind}: {calls:?}");
        assert_eq!(used(&scene, kind), calls.arrivals as u64, "{kind}: no call is uncounted");
    }
    assert!(!scene.daemon.told(&["audit", "verify"]).is_empty(), "and the record is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_does_not_admit_is_not_asked() {
    let mut scene = scene(|_, _| {}).await;
    let text_of_it = fs::read_to_string(scene.daemon.site.config()).unwrap();
    let limits = "[tenants.contoso.limits.list_machines]\nper_minute = 1\nper_hour = 1\n";
    scene.daemon.site.write_config(&format!("{text_of_it}{limits}"));
    scene.daemon.start().await;
    assert!(scene.daemon.terminate().await.success());
    let look = || {
        let (tenant, output) = checked(&scene.daemon);
        (tenant["features"][3].clone(), output.code)
    };
    let (first, _) = look();
    assert_eq!(text(&first, "because"), "a read was answered");
    let (second, _) = look();
    assert!(text(&second, "because").contains("the budget of list_machines is used up until "), "{second}");
    assert_eq!(text(&second, "verdict"), "granted", "by the token");
    let machines = &seen(&scene.simulator).calls["list_machines"];
    assert_eq!((machines.arrivals, machines.throttled), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_silences_the_next_look_as_well() {
    let mut scene = scene(|_, _| {}).await;
    scene.daemon.start().await;
    assert!(scene.daemon.terminate().await.success());
    refuse(&scene.simulator, CallKind::ListMachines, 429, "");
    for because in ["Defender throttles the read", "Defender has asked for silence (429) until "] {
        let (tenant, output) = checked(&scene.daemon);
        assert!(text(&tenant["features"][3], "because").contains(because), "{tenant}");
        assert_eq!((verdicts(&tenant)[3], output.code), (("list_machines", "granted"), 0), "the token has it");
    }
    assert_eq!(arrivals(&scene.simulator)[3], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_defender_said_to_a_look_is_on_record() {
    let mut scene = scene(|_, _| {}).await;
    scene.daemon.start().await;
    assert!(scene.daemon.terminate().await.success());
    refuse(&scene.simulator, CallKind::ListMachines, 403, r#"{"error":{"code":"Forbidden","message":"words of it"}}"#);
    assert_eq!(checked(&scene.daemon).1.code, 77);
    // The record as it lies on disk: no command shows what a tenant's calls have met.
    let database = fs::read(scene.daemon.site.state().join("sweepd.db")).unwrap();
    let record = String::from_utf8_lossy(&database);
    let call = record.split("{\"answer\":").find(|event| event.contains("\"call\":\"list_machines\"")).unwrap();
    assert!(call.contains("words of it") && call.contains("\"by\":{") && call.contains("\"uid\":"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_interrupt_nothing_more_is_asked_and_no_slot_is_taken() {
    let mut scene = scene(|_, _| {}).await;
    scene.daemon.start().await;
    assert!(scene.daemon.terminate().await.success());
    let before = arrivals(&scene.simulator);
    let hang = FaultKind::Hang { effect: true };
    scene.simulator.add_fault(0, Fault::always(Target::Call(CallKind::ListActions), hang));
    let listing = || arrivals(&scene.simulator)[1] > before[1];
    let ended = scene.daemon.interrupted(&["check", "--online"], "the list on the wire", listing).await;
    assert_eq!(ended, Some(1));
    let budget = &scene.daemon.status()["tenants"]["contoso"]["budget"];
    let used = ["list_actions", "get_action", "list_machines"].map(|kind| number(&budget[kind]["hour"], "used"));
    assert_eq!((used, arrivals(&scene.simulator)[3]), ([before[1] as u64 + 1, 0, 0], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ledger_nothing_is_read() {
    let mut scene = scene(|_, _| {}).await;
    scene.daemon.start().await;
    assert!(scene.daemon.terminate().await.success());
    let before = arrivals(&scene.simulator);
    // What is no database root cannot read either.
    let database = scene.daemon.site.state().join("sweepd.db");
    fs::remove_file(&database).unwrap();
    fs::create_dir(&database).unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(database.join("x"), "x").unwrap();
    let (tenant, output) = checked(&scene.daemon);
    assert_eq!(output.code, 78, "{output:?}");
    assert!(output.stderr.contains("it is no regular file"), "{output:?}");
    assert_eq!(tenant["signed_in"], json!(true), "the token tells all the same");
    assert!(text(&tenant["features"][1], "because").contains("no read was made"), "{tenant}");
    assert_eq!(arrivals(&scene.simulator), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_may_be_asked_for_and_a_broken_one_is_told_beside_the_others() {
    let tenants = [quick_tenant(fleet(1, 1, "contoso")), quick_tenant(fleet(1, 1, "fabrikam"))];
    let simulator = simulate(5, tenants.to_vec()).await;
    let mut configured = [Configured::of("contoso", &tenants[0]), Configured::of("fabrikam", &tenants[1])];
    "not-the-secret".clone_into(&mut configured[1].secret);
    let daemon = Daemon::new(Site::new(&simulator, &configured, ""));
    let all = daemon.command(&["check", "--online"]);
    assert_eq!(all.code, 77, "{all:?}");
    assert!(all.stderr.contains("missing for: fabrikam\n"), "{}", all.stderr);
    assert_eq!(daemon.command(&["check", "--online", "--tenant", "contoso"]).code, 0);
    assert_eq!(daemon.command(&["check", "--online", "--tenant", "northwind"]).code, 2);
    assert_eq!(daemon.command(&["check", "--tenant", "contoso"]).code, 2, "offline all are checked");

    fs::create_dir(daemon.site.path().join("tenants.d")).unwrap();
    fs::write(daemon.site.path().join("tenants.d/northwind.toml"), "tenant_id = 'x'").unwrap();
    let (contoso, output) = checked(&daemon);
    assert_eq!((output.code, &contoso["ok"]), (78, &json!(true)), "{output:?}");
    assert!(output.stderr.contains("tenant northwind is disabled: "), "{}", output.stderr);
}
