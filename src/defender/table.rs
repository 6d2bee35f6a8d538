//! The table of `domain::outcome`, row by row: each answer that it names is made, read as it would be
//! from the wire, and judged.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Reply, wire};
use crate::domain::id::AttemptId;
use crate::domain::outcome::{OutcomeWord, judge};
use crate::domain::time::Wall;

const SOURCE: &str = include_str!("../domain/outcome.rs");
const ACTION: &str = include_str!("../../tests/fixtures/api/scan_created.json");
/// The mark in the fixture.
const OURS: AttemptId = AttemptId(Uuid::from_u128(0x6a2f_41a1_8a39_4b6f_8d1e_0c6a_3a9d_2b11));

/// The rows below the heading: statuses, bodies, outcome.
fn rows() -> Vec<[&'static str; 3]> {
    let lines = SOURCE.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let rows = lines.filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [statuses, bodies, outcome, why] = cells[..] else { panic!("four cells, not {row}") };
        assert!(!why.is_empty(), "a reason: {row}");
        [statuses, bodies, outcome]
    })
    .collect()
}

/// The statuses that a cell names; `4xx` are all that begin with 4.
fn statuses(cell: &str) -> Vec<u16> {
    let of = |word: &str| match word.strip_suffix("xx") {
        Some(hundred) => {
            let first = hundred.parse::<u16>().unwrap() * 100;
            (first..first + 100).collect()
        }
        None => vec![word.parse().unwrap()],
    };
    cell.split(", ").flat_map(of).collect()
}

/// The bodies that a cell names.
fn bodies(cell: &str) -> Vec<String> {
    let names = ["our action, in the documentation's field names"];
    if let Some(whole) = names.iter().find(|name| **name == cell) {
        return vec![body(whole)];
    }
    cell.split(", ").map(body).collect()
}

fn body(name: &str) -> String {
    let error = |code: &str, message: &str| {
        serde_json::json!({ "error": { "code": code, "message": message, "target": "|3b.1" } }).to_string()
    };
    let whole = error("ResourceNotFound", "Machine was not found");
    if let Some(code) = name.strip_prefix("code `") {
        return error(code.trim_end_matches('`'), "Something was wrong.");
    }
    if let Some(message) = name.strip_prefix("message `") {
        return error("BadRequest", message.trim_end_matches('`'));
    }
    match name {
        "our action" => ACTION.to_owned(),
        "our action, in the documentation's field names" => {
            ACTION.replace("lastUpdateDateTimeUtc", "lastUpdateTimeUtc").replace("\"title\":null,", "")
        }
        "the action of another attempt" => ACTION.replace("6a2f41a1", "6a2f41a2"),
        "an action without a mark" => ACTION.replace("weekly [sweepd", "[other"),
        "half an action" => ACTION[..ACTION.len() / 2].to_owned(),
        "an action without an id" => ACTION.replace("5f0c3c2e-0d0a-4f7b-9f5e-3f1a52f0c001", ""),
        "another object" => "{\"value\":[]}".to_owned(),
        "half an error" => whole[..whole.len() - 4].to_owned(),
        "an error without a code" => error("", "An error occurred."),
        "an error without a message" => error("InvalidInput", " "),
        "a page" => "<html><body><h1>Sorry</h1> ResourceNotFound, already in progress</body></html>".to_owned(),
        "noise" => "\u{1f}\u{fffd}\u{8}\u{0}\u{fffd}".to_owned(),
        "nothing" => String::new(),
        unknown => panic!("nobody knows how to make `{unknown}`"),
    }
}

fn judged(status: u16, text: &str) -> OutcomeWord {
    let reply = Reply { status, text: text.to_owned(), ..Reply::default() };
    judge(OURS, &wire::answer(&reply, Wall(0)).0).word()
}

#[test]
fn every_answer_of_the_table_means_what_the_table_says() {
    let mut said = BTreeSet::new();
    let rows = rows();
    assert!(rows.len() > 20, "the table was not found");
    for [codes, texts, outcome] in rows {
        let expected: OutcomeWord = outcome.parse().unwrap();
        said.insert(expected);
        for status in statuses(codes) {
            for text in bodies(texts) {
                assert_eq!(judged(status, &text), expected, "{status} {text}");
            }
        }
    }
    let all: BTreeSet<_> = OutcomeWord::ALL.iter().copied().filter(|word| *word != OutcomeWord::NotSent).collect();
    assert_eq!(said, all, "every outcome has a row");
}

#[test]
fn an_answer_that_breaks_off_created_nothing_that_is_known() {
    let reply = Reply { status: 201, text: ACTION.to_owned(), cut: Some("reset".to_owned()), ..Reply::default() };
    assert_eq!(judge(OURS, &wire::answer(&reply, Wall(0)).0).word(), OutcomeWord::Unknown);
}

#[test]
fn no_status_that_the_table_leaves_out_is_final() {
    let named: BTreeSet<u16> = rows().iter().flat_map(|[codes, ..]| statuses(codes)).collect();
    for status in (100..600).filter(|status| !named.contains(status)) {
        for text in ["", "<html>", ACTION] {
            assert_eq!(judged(status, text), OutcomeWord::Unknown, "{status} {text}");
        }
    }
}
