//! `docs/LOGGING.md` lists every event that is logged at `info` or above, with its level and fields: neither more
//! nor less than the source does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// An event: its level, its message without the names of values, and its fields in order.
type Event = (String, String, Vec<String>);

/// What ends a message that is told of a run of trouble.
const RUN: &str = "{told}";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The source without comments and without what is compiled for tests alone.
fn shipped(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Values stand in a message by any name, or none.
fn nameless(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once('{') {
        let (_, behind) = after.split_once('}').unwrap();
        out.push_str(before);
        out.push_str("{}");
        rest = behind;
    }
    out + rest
}

/// The arguments of a macro that begins behind its bracket.
fn arguments(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut deep, mut quoted, mut escaped) = (0, false, false);
    for c in text.chars() {
        match c {
            _ if quoted => {
                quoted = escaped || c != '"';
                escaped = !escaped && c == '\\';
            }
            '"' => quoted = true,
            '(' | '[' | '{' => deep += 1,
            ')' if deep == 0 => return arguments,
            ')' | ']' | '}' => deep -= 1,
            ',' if deep == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(c);
    }
    arguments
}

fn event(level: &str, text: &str) -> Event {
    let arguments: Vec<_> = arguments(text).into_iter().map(|argument| argument.trim().to_owned()).collect();
    let message = arguments.iter().position(|argument| argument.starts_with('"')).unwrap();
    let name = |field: &String| field.split('=').next().unwrap().trim_matches(['%', '?', ' ']).to_owned();
    // A long message goes on in the next line.
    let lines: Vec<_> = arguments[message].trim_matches('"').split("\\\n").collect();
    let text = lines.iter().enumerate().map(|(n, line)| if n == 0 { line } else { line.trim_start() });
    let text = text.collect::<String>().replace(RUN, "");
    (level.to_owned(), nameless(&text), arguments[..message].iter().map(name).collect())
}

fn logged() -> BTreeSet<Event> {
    let mut paths = Vec::new();
    sources(&root().join("src"), &mut paths);
    let mut events = BTreeSet::new();
    for path in paths {
        let text = shipped(&fs::read_to_string(&path).unwrap());
        for level in ["info", "warn", "error"] {
            let begin = format!("tracing::{level}!(");
            events.extend(text.match_indices(&begin).map(|(at, _)| event(level, &text[at + begin.len()..])));
        }
    }
    assert!(events.len() > 50, "the source tree was not found");
    events
}

fn documented() -> BTreeSet<Event> {
    let text = fs::read_to_string(root().join("docs/LOGGING.md")).unwrap();
    let (_, list) = text.split_once("## Every event").unwrap();
    let rows =
        list.lines().filter(|line| ["| info |", "| warn |", "| error |"].iter().any(|row| line.starts_with(row)));
    let event = |row: &str| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 4 && !cells[3].is_empty(), "{row}: level, message, fields, meaning");
        let fields = cells[2].split(',').map(|field| field.trim().to_owned()).filter(|field| field != "–");
        (cells[0].to_owned(), nameless(cells[1]), fields.collect())
    };
    rows.map(event).collect()
}

#[test]
fn the_document_lists_every_event_that_is_logged_and_no_other() {
    let (logged, documented) = (logged(), documented());
    let missing: Vec<_> = logged.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&logged).collect();
    assert!(missing.is_empty(), "docs/LOGGING.md does not list: {missing:#?}");
    assert!(gone.is_empty(), "docs/LOGGING.md lists what the source does not log: {gone:#?}");
}

#[test]
fn who_logs_names_the_macros_of_the_list() {
    // Imported, a macro would stand in the source by another name than the one that is looked for.
    let mut paths = Vec::new();
    sources(&root().join("src"), &mut paths);
    for path in paths {
        let text = shipped(&fs::read_to_string(&path).unwrap());
        for level in ["info", "warn", "error", "debug", "trace"] {
            let bare = text.matches(&format!("{level}!(")).count();
            let named = text.matches(&format!("tracing::{level}!(")).count();
            assert!(bare == named, "{}: write tracing::{level}!", path.to_str().unwrap());
        }
    }
}
