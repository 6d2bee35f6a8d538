//! A wrong configuration is told whole and changes nothing; a state folder has one daemon.

use std::fs;

use crate::support::{
    Configured, Daemon, Output, Site, assert_scanned_once, eventually, list, number, quick_tenant, seen,
};
use serde_json::{Value, json};
use sweepd::simulator::{SimulatedMachine, Simulator, TenantOptions, fleet};

/// Six mistakes, each of its own kind.
const SIX_MISTAKES: &str = r#"
[daemon]
state_dir = "STATE"
[network]
call_timout = "3s"
[tenants.contoso]
tenant_id = "contoso.example"
api_url = "http://defender.example"
[tenants.contoso.auth]
client_id = "66666666-7777-8888-9999-000000000000"
secret_file = "nowhere"
[tenants.contoso.limits]
per_minute = 0
[tenants.fabrikam]
tenant_id = "11111111-2222-3333-4444-555555555555"
[tenants.fabrikam.auth]
client_id = "66666666-7777-8888-9999-000000000000"
secret_file = "fabrikam-secret"
[tenants.fabrikam.limits]
per_minute = 60
per_hour = 59
"#;

const TOLD: [&[&str]; 6] = [
    &["network.call_timout", "call_timeout"],
    &["tenants.contoso.tenant_id", "not a GUID"],
    &["tenants.contoso.api_url", "loopback"],
    &["tenants.contoso.auth.secret_file"],
    &["tenants.contoso.limits.per_minute", "0"],
    &["tenants.fabrikam.limits.per_hour", "59", "60"],
];

struct Scene {
    simulator: Simulator,
    machines: Vec<SimulatedMachine>,
    site: Site,
}

/// A good configuration, and nothing running.
async fn scene() -> Scene {
    let machines = fleet(7, 4, "configured");
    let tenant = quick_tenant(machines.clone());
    let simulator = crate::support::simulate(7, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    Scene { simulator, machines, site }
}

fn assert_all_told(output: &Output) {
    assert_eq!(output.code, 78, "{}", output.stderr);
    assert_eq!(output.stdout, "", "errors are no data");
    for words in TOLD {
        let found = output.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line has {words:?}:\n{}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_told_at_once() {
    let daemon = Daemon::new(Site::empty());
    daemon.site.write_config(&SIX_MISTAKES.replace("STATE", daemon.site.state().to_str().unwrap()));
    daemon.site.write_secret("fabrikam", "s3cret");
    assert_all_told(&daemon.command(&["check"]));
    let run = daemon.command(&["run"]);
    assert_all_told(&run);
    assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    assert!(!daemon.site.state().exists(), "a wrong configuration leaves no trace");

    daemon.site.write_config("[daemon]\nstate_dir = \"/nowhere\"\n");
    let none = daemon.command(&["run"]);
    assert_eq!((none.code, none.stdout.as_str()), (78, ""), "no tenant is no configuration");
    daemon.site.write_config("[daemon\n");
    assert_eq!(daemon.command(&["check"]).code, 78);
    fs::remove_file(daemon.site.config()).unwrap();
    let missing = daemon.command(&["check"]);
    assert_eq!(missing.code, 78, "{}", missing.stderr);
    assert!(missing.stderr.contains("sweepd.toml"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_is_called_right_without_a_state_folder_or_a_network() {
    let scene = scene().await;
    let daemon = Daemon::new(scene.site);
    let told = daemon.told(&["check"]);
    assert!(told.contains("contoso"), "{told}");
    let lines = daemon.lines(&["check"]);
    assert_eq!(lines[0]["tenants"], json!(["contoso"]));
    assert!(!daemon.site.state().exists());
    assert_eq!(seen(&scene.simulator).requests_on_wire, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_status_has_zeros_and_lists_are_empty() {
    let scene = scene().await;
    let daemon = Daemon::new(scene.site);
    let status = daemon.status();
    let tenant = &status["tenants"]["contoso"];
    assert_eq!(tenant["paused"], false);
    let jobs = tenant["jobs"].as_object().unwrap();
    assert_eq!(jobs.len(), 10, "every state: {status}");
    assert!(jobs.values().all(|count| *count == 0), "{status}");
    for (window, limit) in [("minute", 100), ("hour", 1500)] {
        assert_eq!(tenant["budget"]["scan"][window], json!({ "limit": limit, "used": 0 }), "{status}");
    }
    assert!(tenant["waiting_for"].is_string(), "{status}");
    assert_eq!((&tenant["eta"], &status["sweeps"]), (&Value::Null, &json!([])), "{status}");
    for list in [["job", "list"], ["action", "list"], ["sweep", "list"]] {
        assert_eq!(daemon.lines(&list), Vec::<Value>::new());
    }
    assert!(!daemon.site.state().exists(), "looking makes no state");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_has_one_daemon() {
    let scene = scene().await;
    let daemon = Daemon::started(scene.site).await;
    let second = daemon.command(&["run"]);
    assert_eq!(second.code, 75, "{}", second.stderr);
    assert_eq!(second.stdout, "");
    daemon.site.put("devices.txt", list(&scene.machines));
    daemon.all_final(scene.machines.len()).await;
    assert_scanned_once(&seen(&scene.simulator), &scene.machines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_at_sighup_changes_nothing() {
    let scene = scene().await;
    let mut daemon = Daemon::started(scene.site).await;
    let good = fs::read_to_string(daemon.site.config()).unwrap();
    daemon.site.write_config(&good.replace("per_minute = 100", "per_minute = 0"));
    daemon.hang_up();
    eventually("word of the broken file", || {
        let log = daemon.log();
        let told = |line: &&Value| line["level"] == "ERROR" && line["message"].to_string().contains("per_minute");
        log.iter().find(told).map(|_| ())
    })
    .await;
    // Commands read the file themselves; the daemon goes on with what it had.
    daemon.site.write_config(&good);
    daemon.site.put("devices.txt", list(&scene.machines));
    daemon.all_final(scene.machines.len()).await;

    daemon.site.write_config(&good.replace("per_minute = 100", "per_minute = 77"));
    daemon.hang_up();
    eventually("new limit", || {
        let (_, body) = daemon.get("/api/status");
        let status: Value = serde_json::from_str(&body).unwrap();
        (number(&status["tenants"]["contoso"]["budget"]["scan"]["minute"], "limit") == 77).then_some(())
    })
    .await;
    assert!(daemon.terminate().await.success());
    assert_scanned_once(&seen(&scene.simulator), &scene.machines);
}

#[tokio::test(flavor = "multi_thread")]
async fn listener_that_is_not_loopback_is_told_by_check_and_at_the_start() {
    let scene = scene().await;
    let text = fs::read_to_string(scene.site.config()).unwrap();
    scene.site.write_config(&text.replace("127.0.0.1:0", "0.0.0.0:0"));
    let daemon = Daemon::started(scene.site).await;
    let output = daemon.command(&["check"]);
    assert!(
        output.code == 0 && output.stderr.contains("warning: http.listen: 0.0.0.0:0 is not loopback"),
        "{output:?}"
    );
    let told =
        |line: &Value| line["level"] == "WARN" && line["message"].to_string().contains("0.0.0.0:0 is not loopback");
    assert!(daemon.log().iter().any(told), "{}", daemon.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_of_one_tenant_disables_that_tenant_only() {
    let scene = scene().await;
    let folder = scene.site.path().join("tenants.d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("fabrikam.toml"), "[tenants.fabrikam]\ntenant_id = \"fabrikam.example\"\n").unwrap();
    let daemon = Daemon::started(scene.site).await;
    let log = daemon.log();
    let loud = |line: &&Value| line["level"] == "ERROR" && line["tenant"] == "fabrikam";
    assert!(log.iter().any(|line| loud(&line)), "{}", daemon.log_text());
    daemon.site.put("contoso/devices.txt", list(&scene.machines));
    daemon.all_final(scene.machines.len()).await;
    assert_scanned_once(&seen(&scene.simulator), &scene.machines);
    assert_eq!(daemon.command(&["check"]).code, 78, "`check` calls it wrong");
}

/// The file of fabrikam in `tenants.d`.
fn own_file(url: &str, tenant: &TenantOptions) -> String {
    let TenantOptions { tenant_id, client_id, .. } = tenant;
    format!(
        "tenant_id = \"{tenant_id}\"\napi_url = \"{url}\"\nauthority_url = \"{url}\"\n\
         auth = {{ client_id = \"{client_id}\", secret_file = \"fabrikam-secret\" }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_tenant_is_told_wherever_one_looks_until_a_reload_finds_it_right() {
    let tenants = [quick_tenant(fleet(7, 4, "contoso")), quick_tenant(fleet(7, 3, "fabrikam"))];
    let simulator = crate::support::simulate(7, tenants.to_vec()).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenants[0])], "");
    let folder = site.path().join("tenants.d");
    fs::create_dir(&folder).unwrap();
    // Two kinds of trouble: a secret that is not there, which no command sees that reads none, and a file.
    fs::write(folder.join("fabrikam.toml"), own_file(&simulator.url(), &tenants[1])).unwrap();
    fs::write(folder.join("northwind.toml"), "tenant_id = \"x\"\n").unwrap();
    let daemon = Daemon::started(site).await;
    daemon.site.put("fabrikam/devices.txt", list(&tenants[1].machines));
    daemon.site.put("contoso/devices.txt", list(&tenants[0].machines));
    daemon.receipt("processed/contoso/devices.txt").await;
    eventually("readiness", || (daemon.get("/readyz").0 == 200).then_some(())).await;

    for (name, why) in
        [("fabrikam", "auth.secret_file: no file of this name"), ("northwind", "tenant_id: is not a GUID")]
    {
        let told = format!("the tenant is disabled: {}", daemon.site.path().to_str().unwrap());
        let loud = |line: &&Value| line["level"] == "ERROR" && line["tenant"] == name;
        let lines: Vec<_> = daemon.log().iter().filter(loud).map(|line| line["message"].to_string()).collect();
        assert!(lines.iter().all(|line| line.contains(&told)), "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.contains(why)).count(), 1, "told once: {lines:?}");
        let status = daemon.status();
        let waiting = status["tenants"][name]["waiting_for"].as_str().unwrap();
        assert!(waiting.starts_with("a correct configuration: ") && waiting.contains(why), "{name}: {status}");
        let (code, ready) = daemon.get("/readyz");
        assert!(
            code == 200 && ready.starts_with("ready\n") && ready.contains(&format!("tenant {name} is disabled: ")),
            "{ready}"
        );
        let (_, metrics) = daemon.get("/metrics");
        assert!(metrics.contains(&format!("sweepd_tenant_disabled{{tenant=\"{name}\"}} 1\n")), "{metrics}");
        let (_, shown) = daemon.get("/api/status");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert!(shown["tenants"][name]["disabled"].as_str().unwrap().contains(why), "{shown}");
    }
    assert!(daemon.get("/metrics").1.contains("sweepd_tenant_disabled{tenant=\"contoso\"} 0\n"));
    assert!(daemon.site.spool("incoming/fabrikam/devices.txt").is_file(), "its files wait");

    daemon.site.write_secret("fabrikam", &tenants[1].client_secret);
    daemon.hang_up();
    daemon.all_final(7).await;
    assert!(daemon.get("/metrics").1.contains("sweepd_tenant_disabled{tenant=\"fabrikam\"} 0\n"));
    let report = simulator.report();
    assert_scanned_once(&report.tenants[0], &tenants[0].machines);
    assert_scanned_once(&report.tenants[1], &tenants[1].machines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_loses_its_secret_is_promised_no_end() {
    let tenants = [quick_tenant(fleet(7, 1, "contoso")), quick_tenant(fleet(7, 3, "fabrikam"))];
    let simulator = crate::support::simulate(7, tenants.to_vec()).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenants[0])], "");
    let folder = site.path().join("tenants.d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("fabrikam.toml"), own_file(&simulator.url(), &tenants[1])).unwrap();
    site.write_secret("fabrikam", &tenants[1].client_secret);
    let daemon = Daemon::started(site).await;
    daemon.told(&["pause", "--tenant", "fabrikam"]);
    daemon.site.put("fabrikam/devices.txt", list(&tenants[1].machines));
    daemon.receipt("processed/fabrikam/devices.txt").await;
    fs::remove_file(daemon.site.path().join("fabrikam-secret")).unwrap();
    daemon.hang_up();
    eventually("the end of the reload", || daemon.has_logged("read again").then_some(())).await;
    daemon.told(&["resume", "--tenant", "fabrikam"]);

    let (_, shown) = daemon.get("/api/status");
    for status in [daemon.status(), serde_json::from_str(&shown).unwrap()] {
        let told = &status["tenants"]["fabrikam"];
        assert_eq!((&told["jobs"]["queued"], &told["eta"]), (&3.into(), &Value::Null), "{told}");
        assert!(told["disabled"].as_str().unwrap().contains("auth.secret_file: no file of this name"), "{told}");
        assert_eq!((&status["sweeps"][0]["tenant"], &status["sweeps"][0]["eta"]), (&"fabrikam".into(), &Value::Null));
    }
    let forecast = daemon.command(&["forecast", "--machines", "5"]);
    assert!(forecast.stderr.contains("tenant fabrikam is disabled: ") && !forecast.stdout.contains("fabrikam"));
    assert_eq!(daemon.command(&["forecast", "--tenant", "fabrikam"]).code, 78);
}
