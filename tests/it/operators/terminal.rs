//! Owns: what an operator sees and is asked on a terminal, and that a pipe gets none of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{Configured, Daemon, Site, eventually, limits, list, number, quick_tenant, simulate, text};
use nix::sys::signal::Signal;
use serde_json::Value;
use sweepd::domain::time::Wall;
use sweepd::simulator::{SimulatedMachine, Simulator, TenantOptions, fleet};
use unicode_width::UnicodeWidthStr;

/// Scans that stay pending for as long as a test may last.
const LONG: (Duration, Duration) = (Duration::from_hours(2), Duration::from_hours(2));
const LARGE: (u16, u16) = (120, 40);

/// A daemon with a sweep of these machines, of which three are sent.
async fn scene(seed: u64, machines: &[SimulatedMachine]) -> (Simulator, Daemon, String) {
    let options = TenantOptions { limits: limits(3, 3), action_duration: LONG, ..quick_tenant(machines.to_vec()) };
    let simulator = simulate(seed, vec![options.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &options)], "")).await;
    daemon.site.put("ワークステーション.txt", list(machines));
    let receipt = daemon.receipt("processed/ワークステーション.txt").await;
    eventually("three accepted scans", || (counts(&daemon)[1] == 3).then_some(())).await;
    (simulator, daemon, text(&receipt, "sweep_id").to_owned())
}

/// Queued, accepted, cancelled.
fn counts(daemon: &Daemon) -> [u64; 3] {
    let jobs = &daemon.status()["tenants"]["contoso"]["jobs"];
    ["queued", "accepted", "cancelled"].map(|state| number(jobs, state))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_back_is_asked_on_a_terminal_and_only_yes_is_yes() {
    let (_simulator, daemon, sweep) = scene(81, &fleet(81, 8, "ask")).await;
    let ask = || Terminal::run(&daemon.site, &["sweep", "cancel", &sweep[..13]], LARGE, &[]);
    for answer in ["n\n", "\n", "yep\n", "\u{4}", "\u{3}"] {
        let mut asked = ask();
        let question = eventually("a question", || Some(asked.shown()).filter(|shown| shown.contains("[y/N]"))).await;
        assert!(question.contains("5 queued machines are withdrawn"), "it says what it will do: {question}");
        asked.types(answer);
        let end = asked.end().await;
        assert_eq!(end.code(), Some(1), "{answer:?}: {}", asked.shown());
        eventually("word of it", || asked.shown().contains("\nsweepd: nothing was done\n").then_some(())).await;
        assert_eq!(counts(&daemon), [5, 3, 0], "{answer:?}: nothing was done");
    }
    let mut asked = ask();
    eventually("a question", || asked.shown().contains("[y/N]").then_some(())).await;
    asked.types("y\n");
    assert!(asked.end().await.success(), "{}", asked.shown());
    assert_eq!(counts(&daemon), [0, 3, 5]);

    let unasked = daemon.command(&["sweep", "cancel", &sweep, "--actions"]);
    assert_eq!(unasked.code, 2, "nobody can be asked in a pipe: {unasked:?}");
    assert!(unasked.stderr.contains("--yes"), "{unasked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_watched_through_resizes_and_restarts_and_gives_the_terminal_back() {
    let (_simulator, mut daemon, sweep) = scene(82, &fleet(82, 8, "watch")).await;
    let watch = ["status", "--watch", "--interval", "100ms"];
    let mut watched = Terminal::run(&daemon.site, &watch, (100, 30), &[]);
    let page = watched.page_with("a page", |page| page.contains("3 of 3 calls")).await;
    for words in ["this minute", "this hour", "waits for", "5 queued", "3 accepted", "ワークス", "  0 %"] {
        assert!(page.contains(words), "no {words:?} in\n{page}");
    }
    assert!(page.contains(&sweep[..13]), "{page}");

    for (columns, lines) in [(48, 12), (132, 50), (70, 9)] {
        watched.resize(columns, lines);
        let fits = |page: &str| {
            let plain = unpainted(page);
            plain.lines().count() <= lines.into() && plain.lines().all(|line| line.width() <= columns.into())
        };
        // What is wide has room for the whole name, what is low for hardly anything.
        let is_full = |page: &str| (columns < 100) != page.contains("ワークステーション.txt");
        watched.page_with(&format!("a page of {columns} columns"), |page| fits(page) && is_full(page)).await;
    }

    watched.resize(100, 30);
    let down = "The daemon is not running";
    daemon.kill();
    watched.page_with("word that the daemon is gone", |page| page.contains(down)).await;
    daemon.start().await;
    watched.page_with("word that it is back", |page| !page.contains(down) && page.contains("3 accepted")).await;
    assert!(daemon.terminate().await.success());
    watched.page_with("word that it has stopped", |page| page.contains(down)).await;
    daemon.start().await;

    let before = Terminal::run(&daemon.site, &["status"], LARGE, &[]).settings();
    watched.types("q");
    assert_given_back(&mut watched, &before).await;
    let mut interrupted = Terminal::run(&daemon.site, &watch, LARGE, &[]);
    interrupted.page_with("a page", |_| true).await;
    assert_ne!(interrupted.settings(), before, "keys are read one by one");
    interrupted.types("\u{3}");
    assert_given_back(&mut interrupted, &before).await;
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut ended = Terminal::run(&daemon.site, &watch, LARGE, &[]);
        ended.page_with("a page", |_| true).await;
        ended.signal(signal);
        assert_given_back(&mut ended, &before).await;
    }
    let mut stopped = Terminal::run(&daemon.site, &watch, LARGE, &[]);
    stopped.page_with("a page", |_| true).await;
    stopped.types("\u{1a}");
    eventually("the terminal back for a while", || (stopped.settings() == before).then_some(())).await;
    stopped.signal(Signal::SIGCONT);
    eventually("the page back", || (stopped.settings() != before).then_some(())).await;
    stopped.types("q");
    assert_given_back(&mut stopped, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_goes_on_while_the_database_cannot_be_read_and_says_that_it_is_old() {
    let (_simulator, mut daemon, _) = scene(85, &fleet(85, 4, "unreadable")).await;
    assert!(daemon.terminate().await.success());
    let database = daemon.site.state().join("sweepd.db");
    let aside = database.with_extension("aside");
    let watch = ["status", "--watch", "--interval", "100ms"];
    let mut watched = Terminal::run(&daemon.site, &watch, (100, 30), &[]);
    watched.page_with("a page", |page| page.contains("3 accepted")).await;
    let mut piped = Command::new(env!("CARGO_BIN_EXE_sweepd"));
    piped.env_clear().arg("--config").arg(daemon.site.config()).args(watch).arg("--json");
    let mut piped = piped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(piped.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut errors = BufReader::new(piped.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.next().unwrap();

    std::fs::rename(&database, &aside).unwrap();
    std::fs::create_dir(&database).unwrap();
    let is_old = |page: &str| page.contains("This is old: ") && page.contains("3 accepted");
    watched.page_with("the last page, called old", is_old).await;
    assert!(errors.next().unwrap().ends_with("; trying again"));
    std::fs::remove_dir(&database).unwrap();
    std::fs::rename(&aside, &database).unwrap();
    watched.page_with("a new page", |page| !page.contains("This is old") && page.contains("3 accepted")).await;
    let back = Wall::parse(text(&daemon.status(), "at")).unwrap();
    let is_later = |line: String| {
        let told: Value = serde_json::from_str(&line).unwrap();
        Wall::parse(text(&told, "at")).unwrap() > back
    };
    assert!(lines.any(is_later), "a line of afterwards");
    drop(lines);
    watched.types("q");
    assert_eq!(watched.end().await.code(), Some(0));
    eventually("its end without a reader", || piped.try_wait().unwrap()).await;
}

async fn assert_given_back(watched: &mut Terminal, before: &str) {
    assert_eq!(watched.end().await.code(), Some(0), "{}", watched.shown());
    assert_eq!(watched.settings(), before, "it is set as it was");
    let put_back = |shown: &str| shown.ends_with("\x1b[?25h\x1b[?1049l");
    eventually("the old screen and the cursor", || put_back(&watched.shown()).then_some(())).await;
}

/// The words without their colours.
fn unpainted(text: &str) -> String {
    let mut plain = String::new();
    for (n, part) in text.split("\x1b[").enumerate() {
        plain += if n == 0 { part } else { part.split_once('m').map_or(part, |(_, rest)| rest) };
    }
    plain
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pipe_watching_is_a_line_of_json_or_a_block_of_text_at_a_time() {
    let (_simulator, mut daemon, _) = scene(83, &fleet(83, 4, "pipe")).await;
    let first = |arguments: &[&str], lines: usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sweepd"));
        command.env_clear().env("TERM", "xterm").arg("--config").arg(daemon.site.config());
        command.args(["status", "--watch", "--interval", "100ms"]).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(lines).map(Result::unwrap).collect();
        // Its reader is gone, which is no error.
        (child, lines)
    };
    let (mut child, lines): (_, Vec<String>) = first(&["--json"], 3);
    let told: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(told.iter().all(|told| number(&told["tenants"]["contoso"]["jobs"], "accepted") == 3), "{told:?}");
    assert!(text(&told[0], "at") < text(&told[2], "at") && text(&told[0], "at").ends_with('Z'), "{told:?}");
    assert!(told[0]["last_failures"].is_array(), "{told:?}");
    let end = eventually("its end without a reader", || child.try_wait().unwrap()).await;
    assert_eq!(end.code(), Some(0));
    let (mut child, lines) = first(&[], 40);
    eventually("its end without a reader", || child.try_wait().unwrap()).await;
    assert!(lines.iter().filter(|line| line.starts_with("sweepd at ")).count() > 1, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains('\x1b')), "{lines:?}");
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_and_say_nothing_alone() {
    let (_simulator, daemon, sweep) = scene(84, &fleet(84, 8, "colour")).await;
    daemon.told(&["sweep", "cancel", &sweep, "--yes"]);
    let command = ["job", "list", "--state", "cancelled"];
    let shown = async |environment: &[(&str, &str)]| {
        let mut terminal = Terminal::run(&daemon.site, &command, LARGE, environment);
        assert!(terminal.end().await.success());
        let whole = |shown: &String| shown.matches("cancelled").count() == 5 && shown.ends_with('\n');
        eventually("the list", || Some(terminal.shown()).filter(whole)).await
    };
    let coloured = shown(&[]).await;
    assert!(coloured.contains("\x1b[33mcancelled\x1b[0m"), "{coloured:?}");
    let plain = shown(&[("NO_COLOR", "1")]).await;
    assert_eq!(unpainted(&coloured), plain, "the same words");
    for without in [&plain, &shown(&[("TERM", "dumb")]).await, &daemon.told(&command)] {
        assert!(!without.contains('\x1b'), "{without:?}");
    }
    let mut dumb = Terminal::run(&daemon.site, &["status", "--watch"], LARGE, &[("TERM", "dumb")]);
    eventually("a block", || dumb.shown().contains("this minute").then_some(())).await;
    assert!(!dumb.shown().contains('\x1b'), "{}", dumb.shown());
    // Nothing was taken, so nothing catches a signal; and a test that is run in the background ignores Ctrl-C.
    dumb.signal(Signal::SIGTERM);
    dumb.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal_and_are_whole_in_a_pipe() {
    let machines = fleet(85, 8, "table");
    let (_simulator, daemon, sweep) = scene(85, &machines).await;
    let commands: [&[&str]; 5] =
        [&["job", "list"], &["action", "list"], &["sweep", "list"], &["status"], &["forecast"]];
    for command in commands {
        for (columns, environment) in [(80, None), (60, None), (0, Some(("COLUMNS", "72")))] {
            let mut terminal = Terminal::run(&daemon.site, command, (columns, 24), environment.as_slice());
            assert!(terminal.end().await.success());
            let shown =
                eventually("a table", || Some(unpainted(&terminal.shown())).filter(|s| s.ends_with('\n'))).await;
            let most = if columns == 0 { 72 } else { columns.into() };
            // Sentences are wrapped by the terminal itself.
            let is_sentence = |line: &&str| line.starts_with("Sent means") || line.starts_with("  ");
            for line in shown.lines().filter(|line| !is_sentence(line)) {
                assert!(line.width() <= most, "{command:?} at {most}: {} in\n{shown}", line.width());
            }
        }
        let piped = daemon.told(command);
        assert!(!piped.lines().any(|line| line.ends_with(' ')) && !piped.contains('…'), "{piped}");
    }
    let jobs = daemon.told(&["job", "list"]);
    assert!(jobs.contains(&machines[0].id.to_string()) && jobs.lines().nth(1).unwrap().split_whitespace().count() >= 8);
    assert!(daemon.told(&["sweep", "list"]).contains(&sweep));
}
