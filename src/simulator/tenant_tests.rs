//! Each answer of the documents, on the pure tenant.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::{Value, json};

use super::exchange::form_pairs;
use super::{MachineKind, Request, Response, Tenant, TenantOptions, fleet};
use crate::domain::ledger::Limits;
use crate::domain::time::Wall;

/// Monday, 12 October 2026, 09:46:40.
pub(super) const START: Wall = Wall(1_791_798_400_000);

pub(super) struct World {
    pub(super) tenant: Tenant,
    token: String,
    pub(super) now: Wall,
}

impl World {
    pub(super) fn new(change: impl FnOnce(&mut TenantOptions)) -> Self {
        let mut options = TenantOptions::new(fleet(1, 20, "contoso"));
        options.all_succeed = true;
        change(&mut options);
        let mut world =
            Self { tenant: Tenant::new(options, 7, START, "http://127.0.0.1:1"), token: String::new(), now: START };
        world.sign_in();
        world
    }

    fn sign_in(&mut self) {
        let options = &self.tenant.options;
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope=x/.default",
            options.client_id, options.client_secret
        );
        let request = Request {
            method: "POST".to_owned(),
            path: format!("/{}/oauth2/v2.0/token", options.tenant_id),
            content_type: Some("application/x-www-form-urlencoded".to_owned()),
            body: form.into_bytes(),
            ..Request::default()
        };
        let response = self.tenant.handle(self.now, &request);
        assert_eq!(response.status, 200);
        self.token = response.value()["access_token"].as_str().unwrap().to_owned();
    }

    pub(super) fn request(&self, method: &str, target: &str, body: &str) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: form_pairs(query),
            authorization: Some(format!("Bearer {}", self.token)),
            content_type: (method == "POST").then(|| "application/json".to_owned()),
            body: body.as_bytes().to_vec(),
            ..Request::default()
        }
    }

    pub(super) fn get(&mut self, target: &str) -> Response {
        let request = self.request("GET", target, "");
        self.tenant.handle(self.now, &request)
    }

    fn post(&mut self, target: &str, body: &str) -> Response {
        let request = self.request("POST", target, body);
        self.tenant.handle(self.now, &request)
    }

    pub(super) fn scan_path(&self, machine: usize) -> String {
        format!("/api/machines/{}/runAntiVirusScan", self.tenant.options.machines[machine].id)
    }

    pub(super) fn scan(&mut self, machine: usize) -> Response {
        self.post(&self.scan_path(machine), r#"{"Comment":"weekly","ScanType":"Quick"}"#)
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }
}

fn code(response: &Response) -> (u16, String) {
    let code = response.value()["error"]["code"].as_str().unwrap_or("none").to_owned();
    (response.status, code)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

pub(super) fn limits(per_minute: u32, per_hour: u32) -> Limits {
    Limits::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(per_hour).unwrap()).unwrap()
}

#[test]
fn a_scan_is_created_and_read_back() {
    let mut world = World::new(|_| {});
    let response = world.scan(0);
    let created = response.value();
    assert_eq!(response.status, 201);
    assert_eq!(created.as_object().unwrap().len(), 21);
    assert_eq!(created["status"], "Pending");
    assert_eq!(created["scope"], Value::Null);
    assert_eq!(created["requestSource"], "PublicApi");
    assert_eq!(created["requestorComment"], "weekly");
    assert!(created["creationDateTimeUtc"].as_str().unwrap().starts_with("2026-10-12T09:46:40"));
    let id = created["id"].as_str().unwrap();
    world.pass(Duration::from_mins(1));
    let read = world.get(&format!("/api/machineactions/{id}"));
    assert_eq!((read.status, &read.value()["status"]), (200, &json!("Succeeded")));
    assert_eq!(read.value()["scope"], "Quick");
    let listed = world.get("/api/v1.0/machineactions?$filter=status eq 'Succeeded'").value();
    assert_eq!(listed["value"][0]["id"], id);
    assert_eq!(listed["value"][0].as_object().unwrap().len(), 20);
    assert_eq!(code(&world.get("/api/machineactions/none")), refused(404, "ResourceNotFound"));
}

#[test]
fn tokens_expire_and_roles_are_checked() {
    let mut world = World::new(|options| options.roles = vec!["Machine.Scan".to_owned()]);
    assert_eq!(world.scan(0).status, 201);
    let forbidden = world.get("/api/machineactions");
    assert_eq!(code(&forbidden), refused(403, "Forbidden"));
    let message = forbidden.value()["error"]["message"].to_string();
    assert!(message.contains("(Machine.Read.All, Machine.ReadWrite.All)"), "{message}");
    world.pass(Duration::from_millis(3_599_000 - 1));
    assert_eq!(world.scan(1).status, 201);
    world.pass(Duration::from_millis(1));
    assert_eq!(code(&world.scan(2)), refused(401, "Unauthorized"));
    world.sign_in();
    assert_eq!(world.scan(2).status, 201);
    world.tenant.revoke_tokens();
    assert_eq!(code(&world.scan(3)), refused(401, "Unauthorized"));

    let mut reader = World::new(|options| options.roles = vec!["Machine.ReadWrite.All".to_owned()]);
    assert_eq!(code(&reader.scan(0)), refused(403, "Forbidden"));
    assert_eq!(reader.get("/api/machineactions").status, 200);
    assert_eq!(reader.get("/api/machines").status, 200);
    let report = reader.tenant.report(reader.now);
    assert_eq!((report.calls["scan"].arrivals, report.calls["scan"].admitted), (1, 0));
    assert_eq!(report.rejected["Forbidden"], 1);
}

#[test]
fn bodies_are_exact_to_the_letter() {
    let mut world = World::new(|_| {});
    let path = world.scan_path(0);
    for (body, expected) in [
        ("", "InvalidRequestBody"),
        ("[]", "InvalidRequestBody"),
        (r#"{"comment":"a","ScanType":"Quick"}"#, "InvalidRequestBody"),
        (r#"{"Comment":"a","ScanType":"quick"}"#, "InvalidRequestBody"),
        (r#"{"Comment":1,"ScanType":"Quick"}"#, "InvalidRequestBody"),
        (r#"{"Comment":"a","ScanType":"Quick","More":1}"#, "InvalidRequestBody"),
        (r#"{"Comment":"a"}"#, "MissingRequiredParameter"),
        (r#"{"ScanType":"Full"}"#, "MissingRequiredParameter"),
    ] {
        assert_eq!(code(&world.post(&path, body)), refused(400, expected), "{body}");
    }
    let mut untyped = world.request("POST", &path, r#"{"Comment":"a","ScanType":"Quick"}"#);
    untyped.content_type = Some("text/plain".to_owned());
    assert_eq!(code(&world.tenant.handle(START, &untyped)), refused(400, "InvalidRequestBody"));
    assert_eq!(world.tenant.report(START).scans_created, 0);
}

#[test]
fn machines_refuse_for_documented_reasons() {
    let mut world = World::new(|options| {
        options.machines[0].kind = MachineKind::UnsupportedPlatform;
        options.machines[1].kind = MachineKind::OldClient;
        options.machines[2].kind = MachineKind::Inactive;
    });
    assert_eq!(code(&world.scan(0)), refused(400, "OsPlatformNotSupported"));
    assert_eq!(code(&world.scan(1)), refused(400, "ClientVersionNotSupported"));
    let id = world.scan(2).value()["id"].as_str().unwrap().to_owned();
    let body = r#"{"Comment":"a","ScanType":"Full"}"#;
    for unknown in
        [fleet(9, 1, "other")[0].id.to_string(), "pc-0001".to_owned(), world.scan_path(3)[14..54].to_uppercase()]
    {
        let response = world.post(&format!("/api/machines/{unknown}/runAntiVirusScan"), body);
        assert_eq!(code(&response), refused(404, "ResourceNotFound"));
        assert_eq!(response.value()["error"]["message"], format!("Machine {unknown} was not found"));
    }
    for (method, path) in
        [("GET", world.scan_path(3)), ("POST", "/api/machines".to_owned()), ("GET", "/api/machineActions".to_owned())]
    {
        let request = world.request(method, &path, body);
        assert_eq!(world.tenant.handle(START, &request).status, 404, "{path}");
    }
    world.pass(Duration::from_hours(72));
    world.sign_in();
    assert_eq!(world.get(&format!("/api/machineactions/{id}")).value()["status"], "Pending");
    world.pass(Duration::from_mins(15));
    assert_eq!(world.get(&format!("/api/machineactions/{id}")).value()["status"], "TimeOut");
}

#[test]
fn a_busy_machine_answers_in_both_documented_ways() {
    let mut world = World::new(|options| {
        for machine in &mut options.machines {
            machine.kind = MachineKind::ForeignScanPending;
        }
    });
    let (mut errors, mut existing) = (0, 0);
    for machine in 0..20 {
        let response = world.scan(machine);
        if response.status == 201 {
            let action = response.value();
            assert_eq!(action["requestSource"], "Portal");
            assert_eq!(action["requestor"], "analyst@contoso.example");
            assert_eq!(action["scope"], "Full");
            existing += 1;
        } else {
            assert_eq!(code(&response), refused(400, "ActiveRequestAlreadyExists"));
            assert!(String::from_utf8(response.body).unwrap().contains(r#""message":"Action is already in progress""#));
            errors += 1;
        }
    }
    assert!(errors > 3 && existing > 3, "{errors} errors, {existing} existing actions");
    world.pass(Duration::from_mins(10) + Duration::from_millis(2));
    assert_eq!(world.scan(0).value()["requestSource"], "PublicApi");
    let report = world.tenant.report(world.now);
    assert_eq!((report.foreign_scans, report.scans_created), (20, 1));
    assert_eq!((report.actions["Succeeded"], report.actions["Pending"]), (20, 1));
}

#[test]
fn each_kind_of_call_has_windows_of_its_own() {
    let mut world = World::new(|options| {
        options.limits = limits(3, 5);
        options.other_limits = limits(2, 2);
    });
    for machine in 0..3 {
        assert_eq!(world.scan(machine).status, 201);
    }
    world.pass(Duration::from_millis(52_500));
    let throttled = world.scan(3);
    assert_eq!(code(&throttled), refused(429, "429"));
    assert!(throttled.headers.contains(&("Retry-After".to_owned(), "8".to_owned())));
    assert_eq!(
        throttled.value()["error"]["message"],
        "API calls quota exceeded! Maximum allowed 3 per 00:01:00 for the key \
         Destination+TenantID+AppID. You can send requests again in 8 seconds."
    );
    assert_eq!(world.get("/api/machineactions").status, 200);
    assert_eq!(world.get("/api/machines").status, 200);
    world.pass(Duration::from_secs(8));
    // What is refused for its content has arrived and counts.
    assert_eq!(code(&world.post(&world.scan_path(3), "")), refused(400, "InvalidRequestBody"));
    assert_eq!(world.scan(3).status, 201);
    let hour = world.scan(4);
    assert!(hour.value()["error"]["message"].as_str().unwrap().contains("Maximum allowed 5 per 01:00:00"));
    let report = world.tenant.report(world.now);
    let scan = &report.calls["scan"];
    assert_eq!((scan.arrivals, scan.admitted, scan.throttled), (7, 5, 2));
    assert_eq!((scan.worst_minute, scan.worst_hour, scan.within_limits()), (4, 7, false));
    assert!(report.calls["list_actions"].within_limits());
}

#[test]
fn lists_come_newest_first_in_pages_with_links() {
    let mut world = World::new(|options| options.page_size = 4);
    for machine in 0..10 {
        world.scan(machine);
        world.pass(Duration::from_millis(5));
    }
    let (mut ids, mut target) = (Vec::new(), "/api/machineactions?$count=true&$top=9".to_owned());
    loop {
        let page = world.get(&target).value();
        assert_eq!(page["@odata.count"], 10);
        ids.extend(page["value"].as_array().unwrap().iter().map(|action| action["machineId"].to_string()));
        match page["@odata.nextLink"].as_str() {
            Some(link) => target = link.strip_prefix("http://127.0.0.1:1").unwrap().to_owned(),
            None => break,
        }
    }
    let wanted: Vec<String> =
        (1..10).rev().map(|machine| format!("\"{}\"", world.tenant.options.machines[machine].id)).collect();
    assert_eq!(ids, wanted);
    let bad = world.get("/api/machineactions?$stop=2");
    assert_eq!((bad.status, bad.value()["error"]["details"].clone()), (400, json!([])));
    let machines = world.get("/api/machines?$top=2&$filter=healthStatus eq 'Active'").value();
    assert_eq!(machines["value"].as_array().unwrap().len(), 2);
    assert_eq!(machines["@odata.nextLink"], Value::Null);
}

#[test]
fn a_feed_by_last_update_sees_every_change() {
    let mut world = World::new(|_| {});
    let id = world.scan(0).value()["id"].as_str().unwrap().to_owned();
    let mut since = "2026-10-12T00:00:00Z".to_owned();
    let mut seen = Vec::new();
    for _ in 0..40 {
        let target =
            format!("/api/machineactions?$filter=lastUpdateDateTimeUtc gt {since}&$orderby=lastUpdateDateTimeUtc asc");
        for action in world.get(&target).value()["value"].as_array().unwrap() {
            assert_eq!(action["id"], *id);
            action["lastUpdateDateTimeUtc"].as_str().unwrap().clone_into(&mut since);
            seen.push(action["status"].as_str().unwrap().to_owned());
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(seen, ["Pending", "InProgress", "Succeeded"]);
}

#[test]
fn new_actions_may_be_missing_from_lists_for_a_while() {
    let mut world = World::new(|options| options.list_lag = Duration::from_secs(3));
    let id = world.scan(0).value()["id"].as_str().unwrap().to_owned();
    let listed = |world: &mut World| world.get("/api/machineactions").value()["value"].as_array().unwrap().len();
    assert_eq!(listed(&mut world), 0);
    assert_eq!(world.get(&format!("/api/machineactions/{id}")).status, 200);
    world.pass(Duration::from_secs(3));
    assert_eq!(listed(&mut world), 1);
}

#[test]
fn what_runs_is_cancelled_and_what_ended_is_not() {
    let mut world = World::new(|_| {});
    let path = |response: &Response| format!("/api/machineactions/{}/cancel", response.value()["id"].as_str().unwrap());
    let (first, second) = (path(&world.scan(0)), path(&world.scan(1)));
    assert_eq!(code(&world.post(&first, "{}")), refused(400, "MissingRequiredParameter"));
    let cancelled = world.post(&first, r#"{"Comment":"enough"}"#);
    assert_eq!((cancelled.status, &cancelled.value()["status"]), (200, &json!("Cancelled")));
    assert_eq!(cancelled.value()["cancellationComment"], "enough");
    assert_eq!(code(&world.post(&first, r#"{"Comment":"again"}"#)), refused(400, "BadRequest"));
    world.pass(Duration::from_mins(1));
    assert_eq!(code(&world.post(&second, r#"{"Comment":"late"}"#)), refused(400, "BadRequest"));
    let unknown = world.post("/api/machineactions/none/cancel", r#"{"Comment":"a"}"#);
    assert_eq!(code(&unknown), refused(404, "ResourceNotFound"));
    assert_eq!(world.scan(0).status, 201);
}
