//! `submit`: the same way as every file, with the daemon up or down; and what happens when the same
//! machines are asked for again.

use std::fs;
use std::time::Duration;

use crate::support::{
    Configured, Daemon, Site, assert_adds_up, assert_scanned_once, eventually, list, number, quick_tenant, seen,
    simulate, text,
};
use serde_json::{Value, json};
use sweepd::simulator::{MachineKind, SimulatedMachine, Simulator, TenantOptions, fleet};

const MACHINES: usize = 8;

/// Somebody else's scan that goes on until it is ended.
const LONG: Duration = Duration::from_hours(2);

async fn scene() -> (Simulator, Daemon, Vec<SimulatedMachine>) {
    let machines = fleet(17, MACHINES, "submitted");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(17, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    (simulator, daemon, machines)
}

fn waiting(daemon: &Daemon) -> usize {
    daemon.site.waiting_files().len()
}

/// The job of a machine.
fn job<'a>(jobs: &'a [Value], machine: &SimulatedMachine) -> &'a Value {
    let id = machine.id.to_string();
    jobs.iter().find(|job| job["machine_id"] == id.as_str()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_handed_over_while_the_daemon_is_down() {
    let (simulator, mut daemon, machines) = scene().await;
    assert!(daemon.terminate().await.success());
    let ids: Vec<_> = machines.iter().map(|machine| machine.id.to_string()).collect();
    daemon.told(&["submit", &ids[0], &ids[1].to_uppercase()]);
    let file = daemon.site.path().join("floor.csv");
    fs::write(&file, format!("machine_id,scan_type\n{},full\n{},\n", ids[2], ids[3])).unwrap();
    daemon.told(&["submit", file.to_str().unwrap(), "--name", "Third floor", "--comment", "by hand"]);
    let piped =
        daemon.command_with_input(&["submit", "-", "--scan", "full", "--priority", "low"], &list(&machines[4..6]));
    assert_eq!(piped.code, 0, "{}", piped.stderr);
    assert_eq!(waiting(&daemon), 3, "each is a file of its own");
    assert!(file.exists(), "what was submitted stays where it is");
    assert_eq!(daemon.jobs(), Vec::<Value>::new());

    daemon.start().await;
    let jobs = daemon.all_final(6).await;
    assert!(jobs.iter().all(|job| job["state"] == "succeeded"), "{jobs:?}");
    let scans: Vec<_> = machines[..6].iter().map(|machine| text(job(&jobs, machine), "scan_type")).collect();
    assert_eq!(scans, ["Quick", "Quick", "Full", "Quick", "Full", "Full"]);
    assert_eq!(job(&jobs, &machines[4])["priority"], "low");
    let action = daemon.lines(&["action", "list", "--machine", &ids[3]]).swap_remove(0);
    assert!(text(&action["raw"], "requestorComment").starts_with("by hand [sweepd "), "{action}");
    let sweeps = daemon.lines(&["sweep", "list"]);
    assert!(sweeps.iter().all(|sweep| sweep["source"] == "submit"), "{sweeps:?}");
    assert!(sweeps.iter().any(|sweep| sweep["name"] == "Third floor"), "{sweeps:?}");
    assert_scanned_once(&seen(&simulator), &machines[..6]);
    assert_eq!(waiting(&daemon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_prints_the_receipt() {
    let (_simulator, daemon, machines) = scene().await;
    let input = format!("{}1234\n{}", list(&machines), list(&machines[..1]));
    let output = daemon.command_with_input(&["submit", "-", "--wait", "--json"], &input);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let receipt: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_adds_up(&receipt);
    assert_eq!((number(&receipt, "lines"), number(&receipt, "queued")), (10, 8), "{receipt}");
    assert_eq!((number(&receipt, "duplicates"), number(&receipt, "refused")), (1, 1), "{receipt}");
    assert_eq!(receipt["status"], "taken");
    assert!(output.stderr.contains("1234"), "what is refused is told at once: {}", output.stderr);
    let results = daemon.results("", text(&receipt, "sweep_id")).await;
    assert_eq!(number(&results["states"], "succeeded"), MACHINES as u64, "{results}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_a_useless_input_queue_nothing() {
    let (simulator, daemon, machines) = scene().await;
    let dry = daemon.command_with_input(&["submit", "-", "--dry-run", "--json"], &(list(&machines) + "1234\n"));
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    let report: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((number(&report, "machines"), number(&report, "refused")), (8, 1), "{report}");
    assert_eq!((number(&report, "quick"), number(&report, "full"), number(&report, "waiting")), (8, 0, 0), "{report}");

    // Whatever a file is called that is named.
    let id = |n: usize| machines[n].id.to_string();
    for (name, content) in [
        ("fleet.csv.bak", format!("DeviceId,priority\n{},low\n{},high\n", id(0), id(1))),
        ("fleet.json~", serde_json::json!({ "machines": [id(0), id(1)] }).to_string()),
        ("hosts.2026-12-01", format!("{}\n{}\n", id(0), id(1))),
        (".hidden.part", format!("{}\n{}\n", id(0), id(1))),
    ] {
        let path = daemon.site.path().join(name);
        std::fs::write(&path, content).unwrap();
        let dry = daemon.command(&["submit", path.to_str().unwrap(), "--dry-run", "--json"]);
        assert_eq!(dry.code, 0, "{name}: {}", dry.stderr);
        let report: Value = serde_json::from_str(&dry.stdout).unwrap();
        assert_eq!((number(&report, "machines"), number(&report, "refused")), (2, 0), "{name}: {report}");
    }

    let useless = daemon.command_with_input(&["submit", "-"], "# nothing\n1234\nabcd\n");
    assert_eq!((useless.code, useless.stdout.as_str()), (65, ""), "{}", useless.stderr);
    let empty = daemon.command_with_input(&["submit", "-", "--wait"], "");
    assert_eq!(empty.code, 65, "{}", empty.stderr);
    let id = machines[0].id.to_string();
    for wrong in [
        &["submit"][..],
        &["submit", &id, "--scan", "deep"],
        &["submit", &id, "--priority", "asap"],
        &["submit", &id, "--tenant", "northwind"],
        &["submit", &id, "--not-before", "tomorrow"],
        &["submit", &id, "1234"],
        &["submit", &id, "--name", &"x".repeat(201)],
    ] {
        let output = daemon.command(wrong);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{wrong:?}: {}", output.stderr);
    }

    // A file that is taken after all of this shows that nothing went before it.
    daemon.site.put("last.txt", list(&machines[..1]));
    daemon.receipt("processed/last.txt").await;
    daemon.all_final(1).await;
    assert_eq!(daemon.site.names_in("processed"), ["last.txt", "last.txt.receipt.json"]);
    assert_eq!(daemon.site.names_in("rejected"), Vec::<String>::new());
    assert_scanned_once(&seen(&simulator), &machines[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_name_no_machine_are_explained() {
    let (_simulator, daemon, machines) = scene().await;
    let ids: Vec<_> = machines.iter().map(|machine| machine.id.to_string()).collect();
    let page = format!("https://security.microsoft.com/machines/v2/{}?tid=1", ids[2]);
    let both = format!("{},{}", ids[0], ids[1]);
    let dry = daemon.lines(&["submit", &both, &page, "--dry-run"]).swap_remove(0);
    let counts = ["machines", "lines", "physical_lines"].map(|key| number(&dry, key));
    assert_eq!(counts, [3, 3, 2], "{dry}");
    let told = daemon.told(&["submit", &ids[0], "--dry-run"]);
    assert!(told.starts_with("1 lines of 1 physical line: 1 machines"), "{told}");

    let guid = "2f3a6d0e-8f0c-4a52-9c39-0a5f0f3a9b1c";
    for (words, code, parts) in [
        (&["PC-0042"][..], 1, &["there is no such file", "no machine id", "names of devices", "`Device ID`"][..]),
        (&[guid], 1, &["there is no such file", "Entra or Intune", "`Device ID`"]),
        (&[&ids[0], guid], 2, &["several files", "Entra or Intune"]),
        (&[&ids[0], "pc.contoso.example"], 2, &["several files", "names of devices"]),
    ] {
        let output = daemon.command(&[&["submit"], words].concat());
        assert_eq!(output.code, code, "{words:?}: {}", output.stderr);
        assert!(parts.iter().all(|part| output.stderr.contains(part)), "{words:?}: {}", output.stderr);
    }
    let book = daemon.site.path().join("fleet.csv");
    fs::write(&book, b"PK\x03\x04 marker").unwrap();
    for (words, input, part) in [
        (&["submit", "-"][..], "Device ID,Device Name\r\n", "a header line and no rows"),
        (&["submit", book.to_str().unwrap()], "", "a zip archive"),
    ] {
        let output = daemon.command_with_input(words, input);
        assert_eq!(output.code, 65, "{words:?}: {}", output.stderr);
        assert!(output.stderr.contains(part), "{words:?}: {}", output.stderr);
    }
    let stray = daemon.command_with_input(&["submit", "-", "--dry-run"], &format!("id,x\n{},\"24\n", ids[0]));
    assert!(stray.code == 0 && stray.stderr.contains("1 lines have a quote"), "{}", stray.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_document_says_of_its_machines_is_handed_over_with_them() {
    let (_simulator, daemon, machines) = scene().await;
    let document = json!({
        "name": "servers", "scan_type": "Full", "priority": "high", "comment": "as agreed",
        "not_before": "2099-01-01T00:00:00Z", "on_pending": "wait", "machines": [machines[0].id.to_string()],
    });
    let path = daemon.site.path().join("servers.json");
    fs::write(&path, document.to_string()).unwrap();
    let path = path.to_str().unwrap();
    daemon.told(&["submit", path]);
    // What is asked for counts more.
    daemon.told(&["submit", path, "--scan", "quick", "--priority", "low"]);
    let elsewhere = daemon.site.path().join("elsewhere.json");
    fs::write(&elsewhere, document.to_string().replacen('{', "{\"tenant\":\"northwind\",", 1)).unwrap();
    for wrong in
        [&["submit", elsewhere.to_str().unwrap()][..], &["submit", elsewhere.to_str().unwrap(), "--tenant", "contoso"]]
    {
        let output = daemon.command(wrong);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{wrong:?}: {}", output.stderr);
    }
    let jobs = eventually("jobs", || Some(daemon.jobs()).filter(|jobs| jobs.len() == 2)).await;
    let mut asked: Vec<_> = jobs.iter().map(|job| (text(job, "scan_type"), text(job, "priority"))).collect();
    asked.sort_unstable();
    assert_eq!(asked, [("Full", "high"), ("Quick", "low")]);
    assert!(jobs.iter().all(|job| text(job, "state") == "queued"), "each waits for its time: {jobs:?}");
    let shown = daemon.told(&["sweep", "list", "--json"]);
    assert_eq!(shown.matches("\"servers\"").count(), 2, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_taken_once_while_its_sweep_is_open() {
    let (simulator, daemon, machines) = scene().await;
    daemon.told(&["pause"]);
    let content = list(&machines);
    daemon.site.put("devices.txt", &content);
    let first = daemon.receipt("processed/devices.txt").await;
    assert_eq!((text(&first, "status"), number(&first, "queued")), ("taken", MACHINES as u64));
    daemon.site.put("copy.txt", &content);
    daemon.site.put("devices.txt", &content);
    for name in ["copy.txt", "devices.1.txt"] {
        let again = daemon.receipt(&format!("processed/{name}")).await;
        assert_eq!(again["status"], "already_taken", "{again}");
        assert_eq!((&again["sweep_id"], &again["sha256"]), (&first["sweep_id"], &first["sha256"]), "{again}");
        assert_eq!((number(&again, "lines"), number(&again, "queued")), (0, 0), "{again}");
        assert_adds_up(&again);
    }
    assert_eq!(daemon.jobs().len(), MACHINES);
    daemon.told(&["resume"]);
    daemon.results("", text(&first, "sweep_id")).await;

    // Once it is done, the same content is a new wish.
    daemon.site.put("devices.txt", &content);
    let later = daemon.receipt("processed/devices.2.txt").await;
    assert_eq!((text(&later, "status"), number(&later, "queued")), ("taken", MACHINES as u64));
    assert_ne!(later["sweep_id"], first["sweep_id"]);
    daemon.results("", text(&later, "sweep_id")).await;
    let report = seen(&simulator);
    assert_eq!(report.scans_created, 2 * MACHINES, "{report:?}");
    assert!(report.scans_per_machine.values().all(|scans| *scans == 2), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_asked_for_twice_is_scanned_once_for_both() {
    let (simulator, daemon, machines) = scene().await;
    daemon.told(&["pause"]);
    let submit = |arguments: &[&str], machines: &[SimulatedMachine]| -> Value {
        let mut all = vec!["submit", "-", "--wait", "--json"];
        all.extend(arguments);
        let output = daemon.command_with_input(&all, &list(machines));
        assert_eq!(output.code, 0, "{}", output.stderr);
        serde_json::from_str(&output.stdout).unwrap()
    };
    let first = submit(&[], &machines[..5]);
    let second = submit(&["--priority", "urgent", "--name", "urgent"], &machines[3..7]);
    assert_eq!((number(&second, "queued"), number(&second, "joined")), (2, 2), "{second}");
    assert_adds_up(&second);
    let third = submit(&["--priority", "low", "--name", "low"], &machines[4..5]);
    assert_eq!((number(&third, "queued"), number(&third, "joined")), (0, 1), "{third}");

    let jobs = daemon.jobs();
    assert_eq!(jobs.len(), 7, "7 machines, 10 wishes");
    let ids = |receipts: &[&Value]| json!(receipts.iter().map(|receipt| &receipt["sweep_id"]).collect::<Vec<_>>());
    for (at, priority, sweeps) in [
        (1, "normal", ids(&[&first])),
        (3, "urgent", ids(&[&first, &second])),
        (4, "urgent", ids(&[&first, &second, &third])),
        (5, "urgent", ids(&[&second])),
    ] {
        let job = job(&jobs, &machines[at]);
        assert_eq!((text(job, "priority"), &job["sweep_ids"]), (priority, &sweeps), "{job}");
    }
    let withdrawn = daemon.lines(&["pause"]);
    assert_eq!(withdrawn[0]["changed"], false, "it was paused all the time");

    daemon.told(&["resume"]);
    for (receipt, machines) in [(&first, 5), (&second, 4), (&third, 1)] {
        let results = daemon.results("", text(receipt, "sweep_id")).await;
        assert_eq!(number(&results, "machines"), machines, "{results}");
        assert_eq!(results["results"].as_array().unwrap().len() as u64, machines, "{results}");
    }
    assert_scanned_once(&seen(&simulator), &machines[..7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_scan_waits_for_our_own_quick_one_and_is_not_skipped_for_it() {
    let (simulator, daemon, machines) = scene().await;
    daemon.told(&["pause"]);
    // The other machines come between the two, so that the first is pending when the last has its turn.
    daemon.site.put("quick.txt", list(&machines));
    daemon.receipt("processed/quick.txt").await;
    let full = json!({ "scan_type": "Full", "machines": [machines[0].id.to_string()] });
    daemon.site.put("full.json", full.to_string());
    let receipt = daemon.receipt("processed/full.json").await;
    assert_eq!((number(&receipt, "queued"), number(&receipt, "joined")), (1, 0), "they never merge: {receipt}");
    daemon.told(&["resume"]);
    let jobs = daemon.all_final(MACHINES + 1).await;
    for job in &jobs {
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    let scans = seen(&simulator).scans_per_machine;
    assert_eq!(scans[&machines[0].id.to_string()], 2, "quick, then full");
    assert!(machines[1..].iter().all(|machine| scans[&machine.id.to_string()] == 1), "{scans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_scan_is_waited_for_if_the_sweep_says_so() {
    let mut machines = fleet(19, 2, "busy");
    for machine in &mut machines {
        machine.kind = MachineKind::ForeignScanPending;
    }
    let tenant = TenantOptions { foreign_scan_duration: LONG, ..quick_tenant(machines.clone()) };
    let simulator = simulate(19, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let id = machines[0].id.to_string();
    daemon.told(&["submit", &id, "--on-pending", "wait", "--wait"]);
    eventually("job that waits for an action", || {
        let job = daemon.jobs().swap_remove(0);
        assert_ne!(job["state"], "skipped", "{job}");
        (job["state"] == "queued" && job["blocked_by"]["action_id"].is_string()).then_some(())
    })
    .await;
    simulator.cancel_foreign_scans(0);
    let job = daemon.all_final(1).await.swap_remove(0);
    assert_eq!((text(&job, "state"), number(&job, "attempts")), ("succeeded", 1), "{job}");
    let report = seen(&simulator);
    assert_scanned_once(&report, &machines[..1]);
    assert_eq!(report.calls["scan"].arrivals, 1, "no call is spent while it is known to be busy");
}

/// What is pending is read again before it decides: a scan of somebody else's that ended while there
/// was nothing to do is in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_scan_that_ended_while_the_daemon_was_idle_is_not_in_the_way() {
    let mut machines = fleet(31, 2, "idle");
    machines[0].kind = MachineKind::ForeignScanPending;
    let tenant = TenantOptions { foreign_scan_duration: LONG, ..quick_tenant(machines.clone()) };
    let simulator = simulate(31, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let config = fs::read_to_string(site.config()).unwrap();
    site.write_config(&config.replace("[log]\n", "[log]\nlevel = \"debug\"\n"));
    let daemon = Daemon::started(site).await;
    daemon.site.put("both.txt", list(&machines));
    let jobs = daemon.all_final(2).await;
    assert_eq!(job(&jobs, &machines[0])["reason"], "pending_action");
    // What was read just before would still be believed.
    let idle = || daemon.log_text().matches("nobody needs the list of actions").count();
    let before = idle();
    eventually("an idle lane", || (idle() > before).then_some(())).await;
    simulator.cancel_foreign_scans(0);
    let open: usize =
        ["Pending", "InProgress"].iter().filter_map(|status| seen(&simulator).actions.get(*status).copied()).sum();
    assert_eq!(open, 0, "the foreign scan has ended");
    let known = daemon.lines(&["action", "list", "--machine", &machines[0].id.to_string()]);
    assert_eq!(known[0]["status"], "Pending", "nobody has looked meanwhile: {known:?}");
    daemon.site.put("again.txt", list(&machines[..1]));
    let jobs = daemon.all_final(3).await;
    assert_eq!(jobs.iter().filter(|job| job["state"] == "succeeded").count(), 2, "{jobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_machines_are_scanned_and_until_when_they_wait_is_said() {
    let (_simulator, daemon, machines) = scene().await;
    let ids: Vec<_> = machines.iter().map(|machine| machine.id.to_string()).collect();
    let (soon, late) = ("2098-01-01T00:00:00Z", "2099-01-01T00:00:00Z");
    let csv = format!(
        "DeviceId,Not-Before,SCAN TYPE,MergedToDeviceId,Comments\n{},{late},Full,,x\n{},{soon},quickscan,,x\n\
         {},2001-01-01T00:00:00Z,full scan,,x\n{},,,{},x\n",
        ids[0], ids[1], ids[2], ids[3], ids[0]
    );
    let dry = daemon.command_with_input(&["submit", "-", "--dry-run", "--json"], &csv);
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    assert!(dry.stderr.contains("did you mean comment?"), "{}", dry.stderr);
    let report: Value = serde_json::from_str(&dry.stdout).unwrap();
    let times = |report: &Value| {
        ["earliest_not_before", "latest_not_before"].map(|time| text(report, time).replace(".000", ""))
    };
    let counts = |report: &Value| ["quick", "full", "waiting", "not_eligible"].map(|count| number(report, count));
    assert_eq!((counts(&report), times(&report)), ([1, 2, 2, 1], [soon, late].map(str::to_owned)), "{report}");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");
    let words = daemon.command_with_input(&["submit", "-", "--dry-run"], &csv).stdout;
    assert!(words.contains("1 Quick and 2 Full scans; 2 not before 209"), "{words}");

    daemon.site.put("devices.csv", &csv);
    let receipt = daemon.receipt("processed/devices.csv").await;
    assert_adds_up(&receipt);
    assert_eq!((counts(&receipt), times(&receipt)), ([1, 2, 2, 1], [soon, late].map(str::to_owned)), "{receipt}");
    assert!(receipt["warnings"][0].as_str().unwrap().contains("column `Comments`"), "{receipt}");
    let shown = daemon.lines(&["sweep", "show", text(&receipt, "sweep_id")]).swap_remove(0);
    assert_eq!(["quick", "full", "waiting"].map(|count| number(&shown, count)), [1, 2, 2], "{shown}");
    let export = daemon.told(&["sweep", "export", text(&receipt, "sweep_id")]);
    assert!(export.contains(&format!("merged into `{}`", ids[0])), "{export}");

    // A slip is no scan of another kind.
    let slip = format!("DeviceId,ScanTyp\n{},Full\n", ids[4]);
    let dry = daemon.command_with_input(&["submit", "-", "--dry-run"], &slip);
    assert_eq!(dry.code, 65, "{}", dry.stderr);
    daemon.site.put("slip.csv", &slip);
    let receipt = daemon.receipt("rejected/slip.csv").await;
    assert!(text(&receipt, "reason").contains("unknown column `ScanTyp`: did you mean scan_type?"), "{receipt}");
    assert!(daemon.jobs().iter().all(|job| job["machine_id"] != ids[4].as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_of_the_api_is_taken_from_the_folder_and_by_submit() {
    let (simulator, daemon, machines) = scene().await;
    let answer = |machines: &[SimulatedMachine], key: &str| {
        let machines = machines.iter().map(|machine| {
            json!({ "id": machine.id.to_string(), "computerDnsName": machine.name, "onboardingStatus": "Onboarded",
                "mergedIntoMachineId": null })
        });
        json!({ "@odata.context": "https://localhost/api/$metadata#Machines", key: machines.collect::<Vec<_>>(),
            "@odata.nextLink": "https://localhost/api/machines?$skip=4" })
        .to_string()
    };
    daemon.site.put("machines.json", answer(&machines[..4], "value"));
    let receipt = daemon.receipt("processed/machines.json").await;
    assert_adds_up(&receipt);
    assert_eq!((number(&receipt, "lines"), number(&receipt, "queued")), (4, 4), "{receipt}");
    assert!(receipt["warnings"][0].as_str().unwrap().contains("one page of several"), "{receipt}");
    let output = daemon.command_with_input(&["submit", "-", "--wait", "--json"], &answer(&machines[4..], "Results"));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.contains("one page of several"), "{}", output.stderr);
    daemon.all_final(MACHINES).await;
    assert_scanned_once(&seen(&simulator), &machines);
}

#[tokio::test(flavor = "multi_thread")]
async fn line_that_names_another_tenant_is_refused() {
    let machines = fleet(18, 2, "tenants");
    let tenants = [quick_tenant(machines.clone()), quick_tenant(fleet(19, 1, "other"))];
    let simulator = simulate(18, tenants.to_vec()).await;
    let configured = [Configured::of("contoso", &tenants[0]), Configured::of("fabrikam", &tenants[1])];
    let daemon = Daemon::started(Site::new(&simulator, &configured, "")).await;
    let csv = format!("machine_id,Tenant\n{},Fabrikam\n{},Some Customer Ltd\n", machines[0].id, machines[1].id);
    daemon.site.put("contoso/mixed.csv", csv);
    let receipt = daemon.receipt("processed/contoso/mixed.csv").await;
    assert_adds_up(&receipt);
    assert_eq!((number(&receipt, "queued"), number(&receipt, "refused")), (1, 1), "{receipt}");
    assert!(text(&receipt["refusals"][0], "reason").contains("it names `fabrikam`"), "{receipt}");
}
