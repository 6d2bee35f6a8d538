//! Payloads after the published ones, each file of the folder read and judged. Those of the sign-in are read
//! beside its code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::{Reply, wire};
use crate::domain::id::AttemptId;
use crate::domain::outcome::{Denial, Outcome, OutcomeWord, is_missing, judge, told};
use crate::domain::time::Wall;

/// The mark in the fixtures.
const OURS: AttemptId = AttemptId(Uuid::from_u128(0x6a2f_41a1_8a39_4b6f_8d1e_0c6a_3a9d_2b11));

/// What a file is judged to be.
enum Judged {
    /// An action: its type, its status, whether it names its machine, what a scan that it answers came to.
    Action(&'static str, &'static str, bool, OutcomeWord),
    /// A list of actions: its entries, how many of them can be read, whether it goes on.
    Actions(usize, usize, bool),
    /// A list of machines: its entries, how many need not be asked.
    Machines(usize, usize),
    /// One machine.
    Machine,
    /// A refusal with this status, to a scan.
    Error(u16, OutcomeWord),
}

use Judged::{Action, Actions, Error, Machine, Machines};
use OutcomeWord::{Busy, Created, Forbidden, Malformed, Missing, Refused, Throttled, Unauthorized, Unknown};

const FILES: [(&str, Judged); 28] = [
    ("scan_created.json", Action("RunAntiVirusScan", "Pending", true, Created)),
    ("action_timed_out.json", Action("RunAntiVirusScan", "TimeOut", true, Created)),
    ("action_cancelled.json", Action("RunAntiVirusScan", "Cancelled", true, Created)),
    ("action_of_the_portal.json", Action("RunAntiVirusScan", "InProgress", true, Busy)),
    ("action_of_another_type_without_a_machine.json", Action("Offboard", "Pending", false, Busy)),
    ("action_with_commands.json", Action("LiveResponse", "Succeeded", true, Busy)),
    ("action_with_a_status_of_its_own.json", Action("RunAntiVirusScan", "Deferred", true, Created)),
    ("actions_as_documented.json", Actions(2, 2, false)),
    ("actions_none.json", Actions(0, 0, false)),
    ("actions_with_a_next_link.json", Actions(2, 1, true)),
    ("machines.json", Machines(6, 3)),
    ("machines_none.json", Machines(0, 0)),
    ("machine.json", Machine),
    ("error_400_pending.json", Error(400, Busy)),
    ("error_400_platform.json", Error(400, Refused)),
    ("error_400_client.json", Error(400, Refused)),
    ("error_400_body.json", Error(400, Malformed)),
    ("error_400_query.json", Error(400, Unknown)),
    ("error_400_input.json", Error(400, Refused)),
    ("error_401.json", Error(401, Unauthorized)),
    ("error_403_roles.json", Error(403, Forbidden)),
    ("error_403_missing_roles.json", Error(403, Forbidden)),
    ("error_403_operation.json", Error(403, Refused)),
    ("error_404_machine.json", Error(404, Missing)),
    ("error_429_word.json", Error(429, Throttled)),
    ("error_429_hour.json", Error(429, Throttled)),
    ("error_429_wait.json", Error(429, Throttled)),
    ("error_500.json", Error(500, Unknown)),
];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/api"))
}

fn reply(status: u16, name: &str) -> Reply {
    Reply { status, text: fs::read_to_string(folder().join(name)).unwrap(), ..Reply::default() }
}

/// What a scan that this is the answer to came to.
fn outcome(reply: &Reply) -> Outcome {
    judge(OURS, &wire::answer(reply, Wall(0)).0)
}

#[test]
fn every_file_is_in_the_table_and_the_other_way_round() {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<_> = names.filter(|name| !name.starts_with("sign_in_")).collect();
    let judged: BTreeSet<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there, judged);
}

#[test]
fn every_file_is_read_and_judged() {
    for (name, expected) in &FILES {
        match *expected {
            Action(kind, status, has_machine, came_to) => {
                let created = reply(201, name);
                let seen = wire::action(&created.text).unwrap_or_else(|| panic!("{name} cannot be read"));
                let action = &seen.action;
                assert_eq!((action.action_type.as_str(), action.status.as_str()), (kind, status), "{name}");
                assert_eq!(action.machine.is_some(), has_machine, "{name}");
                assert!(action.created_at > Wall(0) && action.updated_at >= action.created_at, "{name}");
                assert_eq!(seen.raw, created.text, "{name} is kept verbatim");
                assert_eq!(outcome(&created).word(), came_to, "{name}");
            }
            Actions(entries, readable, more) => {
                let page = wire::page(&reply(200, name)).unwrap_or_else(|| panic!("{name} cannot be read"));
                assert_eq!(
                    (page.entries, page.seen.len(), page.next_link.is_some()),
                    (entries, readable, more),
                    "{name}"
                );
            }
            Machines(entries, ineligible) => {
                let page = wire::machines(&reply(200, name), 10_000).unwrap_or_else(|| panic!("{name} cannot be read"));
                assert_eq!((page.entries, page.ineligible.len(), page.more), (entries, ineligible, false), "{name}");
                assert_eq!(wire::machine_ids(&reply(200, name)).unwrap().len(), entries, "{name}");
            }
            Machine => assert!(wire::machine(&reply(200, name)).is_some(), "{name}"),
            Error(status, came_to) => {
                let refused = reply(status, name);
                assert_eq!(outcome(&refused).word(), came_to, "{name}");
                let answer = wire::answer(&refused, Wall(0)).0;
                assert!(answer.message.is_some(), "{name}");
                assert_eq!(is_missing(&answer), status == 404, "{name}");
            }
        }
    }
}

#[test]
fn both_wordings_of_missing_roles_name_what_would_do() {
    for (name, roles) in [
        ("error_403_roles.json", &["Machine.Read.All", "Machine.ReadWrite.All"][..]),
        ("error_403_missing_roles.json", &["Machine.Scan"]),
    ] {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        assert_eq!(outcome(&reply(403, name)), Outcome::Forbidden(Denial::Roles(roles)), "{name}");
    }
}

#[test]
fn what_a_429_says_in_words_is_understood() {
    for (name, wait) in [("error_429_wait.json", Some(Duration::from_secs(8))), ("error_429_word.json", None)] {
        assert_eq!(told(&wire::answer(&reply(429, name), Wall(0)).0).wait, wait, "{name}");
    }
}
