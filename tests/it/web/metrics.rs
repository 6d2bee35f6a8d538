//! What `/metrics` exposes, and that dashboard, alerts and handbook speak of nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::credentials::{VALID, key_pem, trust};
use crate::support::{Configured, Daemon, Site, eventually, list, quick_tenant, simulate};
use serde_json::Value;
use sweepd::domain::job::State;
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{MachineKind, fleet};

const MACHINES: usize = 12;

/// A family of metrics as it is exposed.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// The values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Everything that a daemon exposes, by the names that queries use. It has a tenant with a certificate and
/// one with a secret; it has taken a file, rejected another, and one thing lies in the folder that is none.
async fn exposed() -> (BTreeMap<String, Family>, String) {
    let mut machines = fleet(71, MACHINES, "measured");
    machines[1].kind = MachineKind::ForeignScanPending;
    let mut first = quick_tenant(machines.clone());
    first.trust = trust(&first.client_id);
    let second = quick_tenant(fleet(72, 1, "other"));
    let simulator = simulate(71, vec![first.clone(), second.clone()]).await;
    let mut contoso = Configured::of("contoso", &first);
    contoso.auth = Some(format!(
        "method = \"client_certificate\"\nclient_id = \"{}\"\ncertificate_file = \"pair.pem\"",
        first.client_id
    ));
    let site = Site::new(&simulator, &[contoso, Configured::of("fabrikam", &second)], "");
    let pair = site.path().join("pair.pem");
    fs::write(&pair, format!("{VALID}{}", key_pem())).unwrap();
    fs::set_permissions(&pair, fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = Daemon::started(site).await;
    daemon.site.put("contoso/weekly.txt", format!("{}{}\n", list(&machines), "e".repeat(40)));
    daemon.site.put("of nobody.txt", list(&machines));
    daemon.site.put("contoso/nothing.txt", "no machine\n");
    daemon.all_final(MACHINES + 1).await;
    let text = eventually("both rejected files", || {
        let text = daemon.get("/metrics").1;
        let rejected = text.lines().filter(|line| line.contains("result=\"rejected\"") && line.ends_with(" 1"));
        (rejected.count() == 2).then_some(text)
    });
    let text = text.await;
    (families(&text), text)
}

/// Reads the text format; series that a family makes stand under their own names, as queries have them.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut found: BTreeMap<String, Family> = BTreeMap::new();
    let mut now = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            now = (name.to_owned(), help.to_owned(), String::new());
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert_eq!(name, now.0, "HELP stands before TYPE");
            kind.clone_into(&mut now.2);
        } else if !line.starts_with('#') {
            let (name, rest) = line.split_once(['{', ' ']).unwrap();
            // Whoever reads the older format knows a counter by the very name that stands in its TYPE.
            let own = if now.2 == "histogram" { name.rsplit_once('_').unwrap().0 } else { name };
            assert_eq!(own, now.0, "{line} has no HELP and TYPE");
            assert!(matches!(now.2.as_str(), "counter" | "gauge" | "histogram"), "promtool knows no {}", now.2);
            let family = found.entry(name.to_owned()).or_default();
            (family.help, family.kind) = (now.1.clone(), now.2.clone());
            for (label, value) in labels(rest.split_once('}').map_or("", |(labels, _)| labels)) {
                family.labels.entry(label).or_default().insert(value);
            }
        }
    }
    found
}

/// The labels between two braces; no value of ours holds a comma or a quotation mark.
fn labels(text: &str) -> Vec<(String, String)> {
    let one = |pair: &str| {
        let (label, value) = pair.split_once('=').unwrap_or_else(|| panic!("{pair} in {text}"));
        (label.trim().to_owned(), value.trim().trim_matches('"').to_owned())
    };
    text.split("\",").filter(|pair| !pair.is_empty()).map(one).collect()
}

fn words(label: &str) -> Vec<&'static str> {
    let calls = CallKind::ALL.iter().map(|kind| kind.as_str());
    match label {
        "tenant" => vec!["", "contoso", "fabrikam"],
        "call" => calls.chain(["sign_in"]).collect(),
        "state" => State::ALL.iter().map(|state| state.as_str()).chain(["taking", "held", "open"]).collect(),
        "window" => vec!["minute", "hour"],
        "outcome" => vec![
            "created",
            "busy",
            "refused",
            "missing",
            "unauthorized",
            "forbidden",
            "throttled",
            "malformed",
            "unknown",
            "not_sent",
            "ok",
            "absent",
            "failed",
        ],
        "result" => vec![
            "taken",
            "held",
            "already_taken",
            "rejected",
            "queued",
            "joined",
            "duplicates",
            "not_eligible",
            "refused",
        ],
        "le" => vec!["0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "+Inf"],
        "version" => vec![env!("CARGO_PKG_VERSION")],
        other => panic!("the label {other} is new: is what it holds bounded?"),
    }
}

/// The names of the contract, and their labels.
const PROMISED: [(&str, &[&str]); 11] = [
    ("sweepd_build_info", &["version"]),
    ("sweepd_jobs", &["tenant", "state"]),
    ("sweepd_api_calls_total", &["tenant", "call", "outcome"]),
    ("sweepd_api_call_duration_seconds_bucket", &["tenant", "call", "le"]),
    ("sweepd_api_call_duration_seconds_count", &["tenant", "call"]),
    ("sweepd_budget_used", &["tenant", "call", "window"]),
    ("sweepd_budget_limit", &["tenant", "call", "window"]),
    ("sweepd_oldest_queued_seconds", &["tenant"]),
    ("sweepd_intake_files_total", &["tenant", "result"]),
    ("sweepd_intake_machines_total", &["tenant", "result"]),
    ("sweepd_tenant_paused", &["tenant"]),
];

fn check_exposed(found: &BTreeMap<String, Family>, text: &str) {
    for (name, labels) in PROMISED {
        let family = found.get(name).unwrap_or_else(|| panic!("no {name} in:\n{text}"));
        let has: BTreeSet<&str> = family.labels.keys().map(String::as_str).collect();
        assert_eq!(has, labels.iter().copied().collect(), "{name}");
    }
    for (name, family) in found {
        let says = family.help.split_whitespace().count() >= 3 && family.help.ends_with('.');
        assert!(says && !family.kind.is_empty(), "{name} does not say what it is: {family:?}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}: {family:?}");
        for (label, values) in &family.labels {
            let known = words(label);
            for value in values {
                assert!(known.contains(&value.as_str()), "{name}: {label}=\"{value}\" is no word of this program");
            }
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every metric that a query names, each with the labels that it is asked for.
fn named(query: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut all = Vec::new();
    for (at, _) in query.match_indices("sweepd_") {
        if query[..at].ends_with(is_word) {
            continue;
        }
        let rest = &query[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let within = rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = within.map_or("", |(within, _)| within).split(", ").filter(|matcher| !matcher.is_empty());
        let label = |matcher: &str| matcher.split(['=', '!']).next().unwrap().to_owned();
        all.push((rest[..end].to_owned(), matchers.map(label).collect()));
    }
    all
}

fn check_query(found: &BTreeMap<String, Family>, place: &str, query: &str) {
    for (name, labels) in named(query) {
        let family = found.get(&name).unwrap_or_else(|| panic!("{place} asks for {name}, which is not exposed"));
        for label in labels {
            // Prometheus adds `job` and `instance`.
            assert!(label == "job" || family.labels.contains_key(&label), "{place}: {name} has no label {label}");
        }
    }
}

/// The queries of the panels and of the variables.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "query" => found.push(text.to_owned()),
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_says_what_it_is_and_no_label_comes_from_outside() {
    let (found, text) = exposed().await;
    check_exposed(&found, &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_ask_for_what_is_exposed() {
    let (found, _) = exposed().await;
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/sweepd.json")).unwrap();
    let mut asked = Vec::new();
    queries(&dashboard, &mut asked);
    assert!(asked.len() > 20, "{asked:?}");
    let rules = read("packaging/prometheus/sweepd.rules.yaml");
    let rules: Vec<_> = rules.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for query in &asked {
        check_query(&found, "packaging/grafana/sweepd.json", query);
    }
    check_query(&found, "packaging/prometheus/sweepd.rules.yaml", &rules.join("\n"));
    // Whatever is exposed can be seen.
    let seen: BTreeSet<String> = asked.iter().flat_map(|query| named(query)).map(|(name, _)| name).collect();
    for name in found.keys().filter(|name| !name.contains("duration_seconds_") && !name.ends_with("_tenant_paused")) {
        assert!(seen.contains(name), "packaging/grafana/sweepd.json does not show {name}");
    }
}

#[test]
fn every_alert_has_its_page_in_the_handbook() {
    let rules = read("packaging/prometheus/sweepd.rules.yaml");
    let handbook = read("docs/OPERATIONS.md");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let pages: Vec<&str> =
        handbook.lines().filter_map(|line| line.strip_prefix("### Sweepd").map(|_| &line[4..])).collect();
    assert!(alerts.len() >= 11, "{alerts:?}");
    assert_eq!(pages, alerts, "docs/OPERATIONS.md has a heading for each alert, in their order");
    for alert in &alerts {
        let runbook = format!("runbook: docs/OPERATIONS.md#{}", alert.to_lowercase());
        assert!(rules.contains(&runbook), "{alert} does not say where its page is: {runbook}");
        let tested =
            read("packaging/prometheus/sweepd.rules.test.yaml").matches(&format!("alertname: {alert}\n")).count();
        assert!(tested >= 2, "{alert} is not tested for when it fires and when it does not");
        let page = handbook.split(&format!("### {alert}\n")).nth(1).unwrap().split("\n#").next().unwrap();
        assert!(page.split_whitespace().count() >= 25, "{alert}: what it means, and what to do: {page}");
    }
}
