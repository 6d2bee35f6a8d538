//! A second reader of dropped files, which keeps all of a file in memory and knows nothing of the first. What the two
//! say of the same bytes has to be the same. Shared by `tests/it/files/parsers.rs` and the targets in `fuzz/`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::option_option,
    reason = "a test fails loudly; not all of it is used everywhere"
)]

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use sweepd::intake::formats::{self, Line, Options};

/// What becomes of a line: where, and whose scan, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A machine to scan.
    Row(u64, String),
    /// A machine that is left out.
    LeftOut(u64, String),
    /// A line that cannot be used.
    Refused(u64),
    /// A line of which a naive reader says nothing.
    Unsaid,
}

/// The formats, by the ending that asks for each.
pub const ENDINGS: [&str; 4] = ["txt", "csv", "json", "jsonl"];

/// The two readers' words on a file; `None`: it cannot be used at all.
pub fn both(ending: &str, bytes: &[u8]) -> (Option<Vec<Fate>>, Option<Vec<Fate>>) {
    let mut fates = Vec::new();
    let options = Options { only_onboarded: true };
    let read = formats::read(&format!("file.{ending}"), bytes, &options, &mut |line| {
        fates.push(match line {
            Line::Row(row) => Fate::Row(row.line, row.machine.to_string()),
            Line::NotEligible { line, machine, .. } => Fate::LeftOut(line, machine.to_string()),
            Line::Refused(refusal) => {
                assert!(!refusal.reason.is_empty() && refusal.text.chars().count() <= 200, "{refusal:?}");
                assert!(!refusal.text.chars().any(char::is_control), "{refusal:?}");
                Fate::Refused(refusal.line)
            }
        });
        Ok(())
    });
    let mut ours = read.is_ok().then_some(fates);
    let Some(naive) = naive(ending, bytes) else { return (None, None) };
    if let (Some(ours), Some(naive)) = (&mut ours, &naive) {
        for (fate, _) in ours.iter_mut().zip(naive).filter(|(_, naive)| **naive == Fate::Unsaid) {
            *fate = Fate::Unsaid;
        }
    }
    (ours, naive)
}

/// `None`: nothing can be said of this file.
fn naive(ending: &str, bytes: &[u8]) -> Option<Option<Vec<Fate>>> {
    let text = decoded(bytes);
    if text.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n')) {
        return Some(None);
    }
    match ending {
        "txt" => Some(table(&text).or_else(|| Some(list(&text)))),
        "csv" => Some(table(&text)),
        _ if is_beyond(&text) => None,
        "json" => document(&text),
        _ => {
            let read = |(n, line)| serde_json::from_str(line).map_or(Fate::Refused(n), |value| entry(n, &value));
            Some(Some(lines(&text).map(read).collect()))
        }
    }
}

fn decoded(bytes: &[u8]) -> String {
    let units = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks::<2>();
        let text = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).map(|c| c.unwrap_or('\u{fffd}'));
        text.chain((!odd.is_empty()).then_some('\u{fffd}')).collect()
    };
    let text: String = match bytes {
        [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => return String::from_utf8_lossy(bytes).into_owned(),
    };
    // A program that marks what is marked already does no harm.
    text.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(text)
}

/// Lines with their numbers, without those that hold nothing.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let held = |line: &str| !line.chars().all(|c| matches!(c, ' ' | '\t'));
    (1..).zip(text.split('\n')).map(|(n, line)| (n, line.trim_end_matches('\r'))).filter(move |(_, line)| held(line))
}

fn id(text: &str) -> Option<String> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || "\"'\u{feff}".contains(c));
    (text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

fn row(n: u64, id: Option<String>) -> Fate {
    id.map_or(Fate::Refused(n), |id| Fate::Row(n, id))
}

fn list(text: &str) -> Vec<Fate> {
    let judged = lines(text).filter_map(|(n, line)| {
        let mut end = line.len();
        let mut before = ' ';
        for (at, c) in line.char_indices() {
            if c == '#' && matches!(before, ' ' | '\t') {
                end = at;
                break;
            }
            before = c;
        }
        let line = line[..end].trim_matches([' ', '\t']);
        (!line.is_empty()).then(|| row(n, id(line)))
    });
    judged.collect()
}

/// Records with the lines they start on; the last may have a quote that nobody closes.
fn records(text: &str, separator: char) -> Vec<(u64, Vec<String>, bool)> {
    let mut records = Vec::new();
    let mut rest: std::iter::Peekable<std::str::Chars<'_>> = text.chars().peekable();
    let mut n = 1;
    while rest.peek().is_some() {
        let (start, mut fields, mut raw, mut open) = (n, Vec::new(), String::new(), false);
        'record: loop {
            // One field.
            let (mut field, mut quoted) = (String::new(), false);
            if rest.peek() == Some(&'"') {
                raw.extend(rest.next());
                quoted = true;
                open = true;
                while let Some(c) = rest.next() {
                    raw.push(c);
                    n += u64::from(c == '\n');
                    if c != '"' {
                        field.push(c);
                    } else if rest.peek() == Some(&'"') {
                        raw.extend(rest.next());
                        field.push('"');
                    } else {
                        open = false;
                        break;
                    }
                }
            }
            let mut plain = false;
            loop {
                match rest.next() {
                    Some(c) if c == separator => {
                        raw.push(c);
                        without_return(&mut field, quoted && !plain);
                        fields.push(field);
                        continue 'record;
                    }
                    end @ (Some('\n') | None) => {
                        n += u64::from(end.is_some());
                        without_return(&mut field, quoted && !plain);
                        fields.push(field);
                        break 'record;
                    }
                    Some(c) => {
                        raw.push(c);
                        field.push(c);
                        plain = true;
                    }
                }
            }
        }
        if raw.chars().any(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')) {
            records.push((start, fields, open));
        }
    }
    records
}

/// Before a separator and at the end of a line a carriage return is none of the field's, unless it is quoted.
fn without_return(field: &mut String, quoted: bool) {
    if !quoted && field.ends_with('\r') {
        field.pop();
    }
}

const IDS: [&str; 5] = ["machine_id", "machineid", "device id", "deviceid", "id"];
const ONBOARDING: [&str; 2] = ["onboarding status", "onboardingstatus"];

/// The place of the name that is preferred, of two alike the first.
fn column<'a>(names: &(impl Iterator<Item = &'a str> + Clone), known: &[&str]) -> Option<usize> {
    known.iter().find_map(|known| names.clone().position(|name| name.trim().eq_ignore_ascii_case(known)))
}

fn judge(n: u64, id: Option<String>, onboarding: Option<&str>, priority: Option<&str>) -> Fate {
    let words = ["", "low", "normal", "high", "urgent"];
    if !priority.is_none_or(|priority| words.contains(&priority.trim().to_ascii_lowercase().as_str())) {
        return Fate::Refused(n);
    }
    let onboarded = onboarding.is_none_or(|status| {
        let status = status.trim();
        status.is_empty() || status.eq_ignore_ascii_case("onboarded")
    });
    match id {
        Some(id) if !onboarded => Fate::LeftOut(n, id),
        id => row(n, id),
    }
}

fn table(text: &str) -> Option<Vec<Fate>> {
    let names = |record: &(u64, Vec<String>, bool)| column(&record.1.iter().map(String::as_str), &IDS);
    let cut = [',', ';', '\t'].map(|separator| records(text, separator));
    let mut best: Option<&Vec<(u64, Vec<String>, bool)>> = None;
    for records in &cut {
        let width = |records: &Vec<(u64, Vec<String>, bool)>| records.first().map_or(0, |header| header.1.len());
        if records.first().and_then(names).is_some() && best.is_none_or(|best| width(records) > width(best)) {
            best = Some(records);
        }
    }
    let (header, rest) = best?.split_first()?;
    if header.2 {
        return None;
    }
    let at = names(header)?;
    let of = |known: &[&str]| column(&header.1.iter().map(String::as_str), known);
    let (onboarding, priority) = (of(&ONBOARDING), of(&["priority"]));
    let judged = rest.iter().map(|(n, fields, open)| {
        let field = |index: Option<usize>| index.and_then(|index| fields.get(index)).map(String::as_str);
        if *open {
            Fate::Refused(*n)
        } else {
            judge(*n, fields.get(at).and_then(|f| id(f)), field(onboarding), field(priority))
        }
    });
    Some(judged.collect())
}

/// JSON with every key, in the order in which they stand.
enum Json {
    Null,
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
    Other,
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

/// What a reader may pass over without a look, where this one has to look: depth, numbers without an end, halves of
/// pairs. Nothing follows from such text.
fn is_beyond(text: &str) -> bool {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let text = text.to_ascii_lowercase();
    let exponent = text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1] == b'e');
    brackets > 100 || exponent || text.contains("\\ud") || text.len() > 60_000
}

fn entry(n: u64, value: &Json) -> Fate {
    let fields = match value {
        Json::Text(text) => return row(n, id(text)),
        Json::Object(fields) => fields,
        _ => return Fate::Refused(n),
    };
    // The preferred name counts; of two alike, the later.
    let given = |known: &[&str]| {
        known.iter().find_map(|known| {
            let same = |(name, value): &&(String, Json)| {
                name.trim().eq_ignore_ascii_case(known) && !matches!(value, Json::Null)
            };
            fields.iter().rev().find(same).map(|(_, value)| value)
        })
    };
    let text = |known: &[&str]| match given(known) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(()),
    };
    let wanted = [text(&["scan_type"]), text(&["comment"]), text(&["not_before"]), text(&["on_pending"])];
    if wanted.iter().any(|field| *field != Ok(None)) {
        return Fate::Unsaid;
    }
    let names = ["device name", "devicename", "computerdnsname"];
    match (text(&IDS), text(&ONBOARDING), text(&["priority"]), text(&names)) {
        (Ok(found), Ok(onboarding), Ok(priority), Ok(_)) => judge(n, found.and_then(id), onboarding, priority),
        _ => Fate::Refused(n),
    }
}

/// `None` where nothing can be said: keys that say something of all machines are not for a naive reader.
fn document(text: &str) -> Option<Option<Vec<Fate>>> {
    let machines = match serde_json::from_str(text) {
        Ok(Json::Array(machines)) => machines,
        Ok(Json::Object(mut fields)) if fields.len() == 1 && fields[0].0 == "machines" => match fields.remove(0).1 {
            Json::Array(machines) => machines,
            _ => return Some(None),
        },
        Ok(Json::Object(fields)) if !fields.is_empty() => return None,
        _ => return Some(None),
    };
    Some(Some((1..).zip(&machines).map(|(n, value)| entry(n, value)).collect()))
}
