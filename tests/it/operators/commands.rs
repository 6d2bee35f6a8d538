//! Owns: what is told while scans are followed, how ids are written, and that no error leaves one without a remedy.

use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{Configured, Daemon, Site, eventually, list, number, quick_tenant, simulate, text};
use sweepd::domain::time::Wall;
use sweepd::simulator::{SimulatedMachine, Simulator, TenantOptions, fleet};

/// Scans that stay pending for as long as a test may last.
const LONG: (Duration, Duration) = (Duration::from_hours(2), Duration::from_hours(2));

async fn scene(seed: u64, machines: &[SimulatedMachine]) -> (Simulator, Daemon) {
    let options = TenantOptions { action_duration: LONG, ..quick_tenant(machines.to_vec()) };
    let simulator = simulate(seed, vec![options.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &options)], "");
    let config = std::fs::read_to_string(site.config()).unwrap();
    site.write_config(&config.replace("interval = \"1s\"", "interval = \"30s\""));
    (simulator, Daemon::started(site).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_scans_are_followed_it_is_told_how_many_and_when_the_next_look_is() {
    let machines = fleet(91, 3, "followed");
    let (_simulator, daemon) = scene(91, &machines).await;
    let tenant = || daemon.status()["tenants"]["contoso"].clone();
    eventually("an idle tenant", || (text(&tenant(), "waiting_for") == "nothing").then_some(())).await;
    daemon.site.put("devices.txt", list(&machines));
    let told = eventually("word of what is followed", || {
        let told = tenant();
        let is_told =
            text(&told, "waiting_for").starts_with("the end of 3 scans, which Defender has accepted; next look");
        is_told.then_some(told)
    })
    .await;
    let until = Wall::parse(text(&told, "waiting_until")).unwrap();
    let read = Wall::parse(text(&daemon.status(), "at")).unwrap();
    assert!(until + Duration::from_mins(3) > read && until < read + Duration::from_mins(3), "{told}");
    assert!(daemon.told(&["status"]).contains("  waits for the end of 3 scans"));
    let offset = text(&told, "waiting_for").rsplit(' ').next().unwrap();
    assert!(offset.starts_with(['+', '-']) && offset.len() == "+00:00".len(), "whose hour is it? {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_tenant_that_there_is_not_is_an_error_and_no_empty_list() {
    let (_simulator, daemon) = scene(94, &fleet(94, 1, "misspelt")).await;
    for command in [["job", "list"], ["action", "list"], ["action", "export"]] {
        let [noun, verb] = command;
        let told = daemon.command(&[noun, verb, "--tenant", "contosso"]);
        assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{told:?}");
        assert!(told.stderr.contains("the configuration has: contoso"), "{told:?}");
        assert_eq!(daemon.command(&[noun, verb, "--tenant", "contoso"]).code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_names_the_way_back() {
    let tenant = quick_tenant(fleet(95, 1, "damaged"));
    let simulator = simulate(95, vec![tenant.clone()]).await;
    let daemon = Daemon::new(Site::new(&simulator, &[Configured::of("contoso", &tenant)], ""));
    std::fs::create_dir_all(daemon.site.state()).unwrap();
    std::fs::write(daemon.site.state().join("sweepd.db"), "what is this\n".repeat(1000)).unwrap();
    for command in [&["status"][..], &["sweep", "list"], &["audit", "verify"]] {
        let told = daemon.command(command);
        assert_eq!((told.code, told.stdout.as_str()), (78, ""), "{told:?}");
        assert!(told.stderr.contains("`sweepd restore`"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_may_be_shortened_wherever_one_is_taken_and_an_empty_one_means_nothing() {
    let machines = fleet(92, 3, "shortened");
    let (_simulator, daemon) = scene(92, &machines).await;
    for (name, machine) in ["one.txt", "two.txt"].into_iter().zip(&machines) {
        daemon.site.put(name, list([machine]));
        daemon.receipt(&format!("processed/{name}")).await;
    }
    eventually("two accepted scans", || {
        (number(&daemon.status()["tenants"]["contoso"]["jobs"], "accepted") == 2).then_some(())
    })
    .await;
    let job = &daemon.jobs()[0];
    let (machine, action) = (text(job, "machine_id"), text(job, "action_id"));
    let short = machine[..12].to_uppercase();
    for command in [
        ["job", "show", &short],
        ["job", "show", &format!("{}…", &machine[..19])],
        ["job", "list", &format!("--machine={short}")],
        ["action", "list", &format!("--machine={short}")],
        ["action", "show", &action[..9]],
    ] {
        let told = daemon.lines(&command);
        assert_eq!(told.len(), 1, "{command:?}");
        assert!(told[0].to_string().contains(machine), "{command:?}: {told:?}");
    }

    let sweeps: Vec<_> = daemon.lines(&["sweep", "list"]).iter().map(|sweep| text(sweep, "id").to_owned()).collect();
    let alike = sweeps[0].chars().zip(sweeps[1].chars()).take_while(|(a, b)| a == b).count();
    let refused = daemon.command(&["sweep", "cancel", &sweeps[0][..alike], "--yes"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    for words in [&sweeps[0], &sweeps[1], "one.txt of contoso", "write more of the id"] {
        assert!(refused.stderr.contains(words), "no {words:?} in {}", refused.stderr);
    }
    for empty in ["", " ", "…"] {
        for command in
            [&["sweep", "cancel", empty, "--yes"][..], &["action", "cancel", empty, "--yes"], &["job", "show", empty]]
        {
            assert_eq!(daemon.command(command).code, 2, "{command:?}");
        }
    }
    for (command, code, remedy) in [
        (&["sweep", "show", "ffff"][..], 1, "`sweepd sweep list`"),
        (&["action", "show", "zzzz"], 1, "`sweepd action list`"),
        (&["job", "show", "ffffffff"], 1, "`sweepd job list`"),
        (&["job", "show", "999"], 1, "no machine whose id begins so"),
        (&["job", "show", "nothing"], 2, "40 hexadecimal digits"),
    ] {
        let refused = daemon.command(command);
        assert_eq!((refused.code, refused.stderr.contains(remedy)), (code, true), "{command:?}: {refused:?}");
    }
    assert_eq!(number(&daemon.status()["tenants"]["contoso"]["jobs"], "accepted"), 2, "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_asked_for_and_no_changes_nothing() {
    let machines = fleet(93, 1, "asked");
    let (_simulator, mut daemon) = scene(93, &machines).await;
    let file = daemon.site.path().join("backup.db");
    let name = file.to_str().unwrap().to_owned();
    daemon.told(&["backup", &name]);
    assert!(daemon.terminate().await.success());
    let files = || {
        let files = std::fs::read_dir(daemon.site.state()).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        // What readers leave behind.
        files.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
        files.sort();
        files
    };
    let before = files();
    for (answer, code) in [("n\n", Some(1)), ("\u{4}", Some(1)), ("\u{3}", Some(1))] {
        let mut asked = Terminal::run(&daemon.site, &["restore", &name], (100, 30), &[]);
        let question = eventually("a question", || Some(asked.shown()).filter(|shown| shown.contains("[y/N]"))).await;
        assert!(question.contains("every tenant is paused until"), "{question}");
        asked.types(answer);
        assert_eq!(asked.end().await.code(), code, "{answer:?}: {}", asked.shown());
        assert_eq!(files(), before, "{answer:?}");
    }
    assert_eq!(daemon.command(&["restore", &name]).code, 2, "nobody can be asked in a pipe");
    assert_eq!(files(), before);
    let mut asked = Terminal::run(&daemon.site, &["restore", &name], (100, 30), &[]);
    eventually("a question", || asked.shown().contains("[y/N]").then_some(())).await;
    asked.types("yes\n");
    assert!(asked.end().await.success(), "{}", asked.shown());
    assert_ne!(files(), before, "the old one is kept beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_and_no_word_of_others_steers_the_terminal() {
    const EVIL: &str = "x\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}y";
    let machines = fleet(93, 2, "evil");
    let (_simulator, daemon) = scene(93, &machines).await;
    let (first, second) = (machines[0].id.to_string(), machines[1].id.to_string());
    daemon.site.put("one.json", serde_json::json!({ "name": EVIL, "machines": [first] }).to_string());
    let receipt = daemon.receipt("processed/one.json").await;
    let sweep = text(&receipt, "sweep_id");
    daemon.site.put("two.csv", format!("Device ID,Device Name\n{second},\"{EVIL}\"\n"));
    daemon.receipt("processed/two.csv").await;
    eventually("two accepted scans", || {
        (number(&daemon.status()["tenants"]["contoso"]["jobs"], "accepted") == 2).then_some(())
    })
    .await;
    let list = daemon.site.path().join("evil.txt");
    std::fs::write(&list, format!("{EVIL}\n{first}\n")).unwrap();
    let list = list.to_str().unwrap();
    let action = text(&daemon.jobs()[0], "action_id").to_owned();
    for command in [
        &["pause", "--reason", EVIL][..],
        &["status"],
        &["sweep", "list"],
        &["sweep", "show", sweep],
        &["sweep", "retry", sweep, "--yes"],
        &["sweep", "show", EVIL],
        &["job", "list"],
        &["job", "show", &second],
        &["action", "show", &action],
        &["action", "show", EVIL],
        &["submit", "--dry-run", list],
        &["forecast", "--tenant", EVIL],
    ] {
        for json in [&[][..], &["--json"]] {
            let told = daemon.command(&[command, json].concat());
            for text in [&told.stdout, &told.stderr] {
                let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
                assert!(!text.contains(steers), "{command:?} {json:?}: {text:?}");
            }
        }
    }
    let tenant = &daemon.status()["tenants"]["contoso"];
    assert_eq!(text(tenant, "paused_reason"), EVIL, "in JSON it is what it is");
}
