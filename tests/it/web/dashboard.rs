//! The dashboard: who may ask for it and how, what it tells, and what a real browser makes of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::{Configured, Daemon, Site, eventually, list, number, quick_tenant, simulate};
use serde_json::Value;
use sweepd::domain::time::Wall;
use sweepd::simulator::{MachineKind, SimulatedMachine, Simulator, fleet};

const MACHINES: usize = 24;

/// A daemon whose tenant has machines that succeed, some that are busy, and two that are unknown.
async fn scene() -> (Simulator, Daemon, Vec<SimulatedMachine>) {
    let mut machines = fleet(61, MACHINES, "shown");
    for busy in machines.iter_mut().skip(3).step_by(7) {
        busy.kind = MachineKind::ForeignScanPending;
    }
    let tenant = quick_tenant(machines[..MACHINES - 2].to_vec());
    let simulator = simulate(61, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let text = std::fs::read_to_string(site.config()).unwrap();
    site.write_config(&text.replace("[http]\n", "[http]\nhosts = [\"sweepd.example\"]\n"));
    (simulator, Daemon::started(site).await, machines)
}

fn address(daemon: &Daemon) -> String {
    daemon.log().iter().find_map(|line| line["address"].as_str().map(str::to_owned)).unwrap()
}

/// Status, headers and body of a request, written as given.
fn asked(daemon: &Daemon, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address(daemon)).unwrap();
    stream.write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

fn status_of(daemon: &Daemon, request: &str) -> u16 {
    asked(daemon, request).0
}

const DATA: [&str; 5] = ["/", "/api/status", "/api/overview", "/api/machine?id=x", "/metrics"];

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_know_its_name_may_ask_and_only_to_read() {
    let (_simulator, daemon, _) = scene().await;
    let own = address(&daemon);
    for path in DATA {
        let fine = status_of(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {own}"));
        assert!(matches!(fine, 200 | 400), "{path} {fine}");
        for host in ["localhost:1", "[::1]", "sweepd.example", "SWEEPD.example:9464"] {
            assert_eq!(status_of(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {host}")), fine, "{path} {host}");
        }
        for host in ["evil.example", "evil.example:9464", "localhost.evil.example", "10.1.2.3", ""] {
            let (status, _, body) = asked(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {host}"));
            assert!(status == 421 && body.contains("http.hosts"), "{path} {host}: {status} {body}");
        }
        let two = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example");
        assert!(matches!(status_of(&daemon, &two), 400 | 421), "{path}");
        assert_eq!(status_of(&daemon, &format!("GET http://evil.example{path} HTTP/1.1\r\nHost: localhost")), 421);
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "SWEEP"] {
            let (status, head, _) =
                asked(&daemon, &format!("{method} {path} HTTP/1.1\r\nHost: {own}\r\nContent-Length: 0"));
            assert!(status == 405 && head.contains("allow: GET, HEAD"), "{method} {path}: {head}");
        }
        let (status, _, body) = asked(&daemon, &format!("HEAD {path} HTTP/1.1\r\nHost: {own}"));
        assert!(status == fine && body.is_empty(), "{path}: {status} {body}");
    }
    for path in ["/healthz", "/readyz"] {
        assert!(
            matches!(status_of(&daemon, &format!("GET {path} HTTP/1.0")), 200 | 503),
            "a probe has no name: {path}"
        );
        let (_, _, why) = asked(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {own}"));
        let (status, _, body) = asked(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: evil.example"));
        assert!(matches!(status, 200 | 503) && body.contains("by address") && body != why, "{path}: {status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_a_browser_what_it_need_not_do() {
    let (_simulator, daemon, _) = scene().await;
    for path in DATA.into_iter().chain(["/healthz", "/readyz", "/nothing"]) {
        for host in [address(&daemon), "evil.example".to_owned()] {
            let (_, head, _) = asked(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {host}"));
            for line in [
                "x-content-type-options: nosniff",
                "referrer-policy: no-referrer",
                "cross-origin-resource-policy: same-origin",
                "cache-control: no-",
                "content-security-policy: default-src 'none'",
                "frame-ancestors 'none'",
            ] {
                assert!(head.contains(line), "{path} has no {line}:\n{head}");
            }
            assert!(!head.contains("unsafe") && !head.contains("access-control-allow"), "{path}:\n{head}");
        }
    }
    let (_, head, body) = asked(&daemon, &format!("GET / HTTP/1.1\r\nHost: {}", address(&daemon)));
    assert!(head.contains("script-src 'sha256-") && head.contains("style-src 'sha256-"), "{head}");
    assert!(body.contains("<html") && !body.contains("http://1") && !body.contains("src="), "nothing is fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_fail_no_probe_and_no_other_client() {
    let (_simulator, daemon, _) = scene().await;
    eventually("readiness", || (daemon.get("/readyz").0 == 200).then_some(())).await;
    let own = address(&daemon);
    // Of one client, and more than all places.
    let flood: Vec<_> = (0..200).map(|_| TcpStream::connect(&own).unwrap()).collect();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status_of(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {own}")), 200, "{path}");
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(own.parse().unwrap()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut other, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut other, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(flood);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_asks_for_tells_calls_queue_and_failures() {
    let (_simulator, daemon, machines) = scene().await;
    daemon.site.put("weekly.txt", list(&machines));
    daemon.all_final(MACHINES).await;
    let own = address(&daemon);
    let overview = || asked(&daemon, &format!("GET /api/overview HTTP/1.1\r\nHost: {own}"));
    let told = eventually("all of it", || {
        let told: Value = serde_json::from_str(&overview().2).unwrap();
        (told["sweeps"] == serde_json::json!([])).then_some(told)
    });
    let told = told.await;
    let detail = &told["detail"]["contoso"];
    let jobs = &told["tenants"]["contoso"]["jobs"];
    assert_eq!(jobs, &daemon.status()["tenants"]["contoso"]["jobs"]);
    let minutes: Vec<u64> = detail["calls"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    let used = &told["tenants"]["contoso"]["budget"]["scan"]["hour"]["used"];
    assert_eq!((minutes.len(), minutes.iter().sum::<u64>()), (120, used.as_u64().unwrap()));
    let failures = detail["failures"].as_array().unwrap();
    let of = |reason: &str| failures.iter().find(|failure| failure["reason"] == reason).unwrap();
    assert_eq!(number(of("pending_action"), "jobs"), number(jobs, "skipped"));
    assert_eq!(number(of("unknown_machine"), "jobs"), 2);
    let message = of("unknown_machine")["message"].as_str().unwrap();
    assert!(message.starts_with("HTTP 404"), "{message}");
    assert!(of("pending_action")["message"].as_str().unwrap().contains("is pending"), "{failures:?}");

    // While nothing changes, it is not sent again. The running minute may end just now: then it has changed.
    eventually("an answer without content", || {
        let tag = asked(&daemon, &format!("HEAD /api/overview HTTP/1.1\r\nHost: {own}")).1;
        let tag = tag.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
        let request = format!("GET /api/overview HTTP/1.1\r\nHost: {own}\r\nIf-None-Match: {tag}");
        let (status, head, body) = asked(&daemon, &request);
        (status == 304 && body.is_empty() && head.contains("sweepd-time: ")).then_some(())
    })
    .await;

    // Nor is it another answer because it was read anew: it is kept for a second.
    let mut first: Option<(String, Wall)> = None;
    eventually("the same answer two seconds later", || {
        let head = asked(&daemon, &format!("HEAD /api/overview HTTP/1.1\r\nHost: {own}")).1;
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let (tag, at) = (header("etag: "), Wall::parse(&header("sweepd-time: ")).unwrap());
        match &first {
            Some((before, since)) if *before == tag => (at.since(*since) >= Duration::from_secs(2)).then_some(()),
            _ => {
                first = Some((tag, at));
                None
            }
        }
    })
    .await;

    // The whole history of a machine, and no word of what does not exist.
    let id = machines[0].id.to_string();
    let ask = |id: &str| asked(&daemon, &format!("GET /api/machine?id={id} HTTP/1.1\r\nHost: {own}"));
    let machine: Value = serde_json::from_str(&ask(&id.to_uppercase()).2).unwrap();
    assert_eq!(machine["machine_id"], id.as_str());
    assert_eq!(machine["jobs"][0]["state"], "succeeded");
    assert_eq!(machine["jobs"][0]["tries"][0]["outcome"], "created");
    assert_eq!(machine["actions"][0]["status"], "Succeeded");
    let history = daemon.history(&id);
    assert_eq!(machine["events"].as_array().unwrap().len(), history[0]["events"].as_array().unwrap().len());
    let nobody: Value = serde_json::from_str(&ask(&"0".repeat(40)).2).unwrap();
    assert!(nobody["jobs"].as_array().unwrap().is_empty() && nobody["events"].as_array().unwrap().is_empty());
    assert_eq!((ask("x").0, ask("").0), (400, 400));
}

/// Whether everything fits the width of the window.
const FITS: &str = "document.documentElement.scrollWidth <= window.innerWidth";

/// How often the page has asked, and what it has touched since it was told to watch itself.
const WATCH: &str = "window.touched = []; window.watch?.disconnect(); window.watch = new MutationObserver(all => window.touched.push(...all.map(one => one.target.nodeName)));
    window.watch.observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true });
    performance.clearResourceTimings()";
const ASKED: &str = "performance.getEntriesByType('resource').filter(one => one.name.includes('overview')).length";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_numbers_of_the_database_and_moves_with_the_daemon() {
    let Some(browser) = Browser::start(1280, 900) else { return };
    let (simulator, mut daemon, machines) = scene().await;
    browser.open(&format!("http://{}/", address(&daemon)));
    browser.until("word that it is live", "document.querySelector('#word').textContent === 'Live'").await;
    assert_eq!(browser.text("#tenants h3"), "contoso");
    assert!(
        browser.text(".facts").starts_with("Queued 0 On the wire 0 Scanning 0 Succeeded 0"),
        "{}",
        browser.text(".facts")
    );

    // It moves: nobody touches the page.
    daemon.site.put("weekly.txt", list(&machines));
    daemon.all_final(MACHINES).await;
    let jobs = daemon.status()["tenants"]["contoso"]["jobs"].clone();
    let lost = number(&jobs, "skipped") + number(&jobs, "rejected");
    let expected =
        format!("Queued 0 On the wire 0 Scanning 0 Succeeded {} Not succeeded {lost}", number(&jobs, "succeeded"));
    eventually("the numbers of the database", || browser.text(".facts").starts_with(&expected).then_some(())).await;
    let gauges = browser.text(".gauges");
    let calls = number(&daemon.status()["tenants"]["contoso"]["budget"]["scan"]["hour"], "used");
    assert!(gauges.contains(&format!("{calls} of 1,500")), "{gauges}");
    let failures = browser.text("#failures");
    assert!(failures.contains("pending action") && failures.contains("unknown machine"), "{failures}");

    // A machine is found by keyboard alone: the link skips to the content, Tab leads to the field.
    browser.press("\u{e004}");
    assert_eq!(browser.eval("document.activeElement.className"), "skip");
    browser.press("\u{e007}");
    for _ in 0..20 {
        if browser.eval("document.activeElement.id") == "machine" {
            break;
        }
        browser.press("\u{e004}");
    }
    let outline = browser.eval("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "one sees where the focus is");
    browser.press(&format!("{}\u{e007}", machines[0].id));
    browser
        .until("the machine's history", "/1 job, 1 action/.test(document.querySelector('#answer').textContent)")
        .await;
    assert!(browser.text("#lookup").contains("succeeded"), "{}", browser.text("#lookup"));

    // Calm: it asks and asks, and touches nothing while nothing changes.
    let mut tries = 0;
    loop {
        browser.run(WATCH);
        browser.until("three questions", &format!("{ASKED} >= 3")).await;
        let touched = browser.eval("window.touched");
        if touched == serde_json::json!([]) {
            break;
        }
        // The minute may have ended, and the chart moved on; or calls of the last minute, made slowly, leave the gauge.
        tries += 1;
        assert!(tries < 8, "the page touches what has not changed: {touched}");
    }

    for width in [1280, 360, 320] {
        browser.screen(width, 800, "light");
        assert_eq!(
            browser.eval(FITS),
            true,
            "{width} pixels are enough: {}",
            browser.eval("document.documentElement.scrollWidth")
        );
    }
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "nothing is in the console");

    daemon.terminate().await;
    browser
        .until(
            "word that nobody answers",
            "/does not answer since \\d\\d:\\d\\d:\\d\\d/.test(document.querySelector('#word').textContent)",
        )
        .await;
    assert!(browser.text(".facts").starts_with(&expected), "what was seen last stays");
    drop(simulator);
}
