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
        "txt" => Some(table(&text).unwrap_or_else(|| Some(list(&text)))),
        "csv" => Some(table(&text).flatten()),
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

/// Names, without what does not count in them; the preferred first.
const IDS: [&str; 4] = ["machineid", "deviceid", "mdatpdeviceid", "id"];
const NAMES: [&str; 3] = ["devicename", "computerdnsname", "name"];
const ONBOARDING: [&str; 1] = ["onboardingstatus"];
const MERGED: [&str; 3] = ["mergedintomachineid", "mergedtodeviceid", "mergedinto"];
const PRIORITY: [&str; 1] = ["priority"];
/// What a naive reader says nothing about.
const UNSAID: [&str; 8] = ["scantype", "comment", "notbefore", "onpending", "tenant", "window", "expires", "select"];
/// What nothing may be one letter off.
const OPTIONS: [&str; 4] = ["scantype", "priority", "notbefore", "onpending"];

/// A name without what does not count in it.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace() && !"_-\u{feff}".contains(*c)).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether it is one letter off an option: by the table that everybody knows, with exchanged neighbours.
fn is_slip(name: &str) -> bool {
    let a: Vec<char> = plain(name).chars().collect();
    let off = |b: &str| {
        let b: Vec<char> = b.chars().collect();
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                table[i][j] = if i == 0 || j == 0 {
                    i + j
                } else {
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let changed = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let least = changed.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                    if swapped { least.min(table[i - 2][j - 2] + 1) } else { least }
                }
            }
        }
        table[a.len()][b.len()]
    };
    OPTIONS.iter().any(|option| off(option) == 1)
}

/// The one value of those that stand under names that are the same; none of them has to say anything. `None`: they say two
/// things.
fn one_of<'a>(values: &[&'a str]) -> Option<&'a str> {
    let mut said = values.iter().copied().filter(|text| !text.trim().is_empty());
    let first = said.next().or(values.first().copied()).unwrap_or_default();
    said.all(|other| other.trim().eq_ignore_ascii_case(first.trim())).then_some(first)
}

fn judge(n: u64, id: Option<String>, merged: Option<&str>, onboarding: Option<&str>, priority: Option<&str>) -> Fate {
    let words = ["", "low", "normal", "high", "urgent"];
    if !priority.is_none_or(|priority| words.contains(&priority.trim().to_ascii_lowercase().as_str())) {
        return Fate::Refused(n);
    }
    let onboarded = onboarding.is_none_or(|status| {
        let status = status.trim();
        status.is_empty() || status.eq_ignore_ascii_case("onboarded")
    });
    match id {
        Some(id) if !onboarded || merged.is_some_and(|into| !into.trim().is_empty()) => Fate::LeftOut(n, id),
        id => row(n, id),
    }
}

/// `None`: it is no table. `Some(None)`: it is one that cannot be used.
fn table(text: &str) -> Option<Option<Vec<Fate>>> {
    let is_named = |record: &(u64, Vec<String>, bool)| record.1.iter().any(|name| IDS.contains(&plain(name).as_str()));
    let cut = [',', ';', '\t'].map(|separator| records(text, separator));
    let mut best: Option<&Vec<(u64, Vec<String>, bool)>> = None;
    for records in &cut {
        let width = |records: &Vec<(u64, Vec<String>, bool)>| records.first().map_or(0, |header| header.1.len());
        if records.first().is_some_and(is_named) && best.is_none_or(|best| width(records) > width(best)) {
            best = Some(records);
        }
    }
    let (header, rest) = best?.split_first()?;
    if header.2 || header.1.iter().any(|name| is_slip(name)) {
        return Some(None);
    }
    let names: Vec<String> = header.1.iter().map(|name| plain(name)).collect();
    let at = IDS.iter().find_map(|known| names.iter().position(|name| name == known))?;
    let judged = rest.iter().map(|(n, fields, open)| {
        let judged = || {
            // Of each name that stands there: what it says.
            let of = |known: &[&str]| {
                let mut all = Vec::new();
                for known in known.iter().filter(|known| names.iter().any(|name| name == *known)) {
                    let here = names.iter().zip(fields).filter(|(name, _)| name == known);
                    all.push(one_of(&here.map(|(_, field)| field.as_str()).collect::<Vec<_>>())?);
                }
                Some(all)
            };
            let said = |all: Vec<&str>| all.into_iter().find(|text| !text.trim().is_empty()).map(ToOwned::to_owned);
            let (ids, merged, onboarding) = (of(&IDS)?, said(of(&MERGED)?), said(of(&ONBOARDING)?));
            of(&NAMES)?;
            of(&UNSAID)?;
            let priority = said(of(&PRIORITY)?);
            fields.get(at)?;
            Some(judge(*n, id(ids.first()?), merged.as_deref(), onboarding.as_deref(), priority.as_deref()))
        };
        if *open { Fate::Refused(*n) } else { judged().unwrap_or(Fate::Refused(*n)) }
    });
    Some(Some(judged.collect()))
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

fn text_of(value: &Json) -> Option<&str> {
    match value {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

fn entry(n: u64, value: &Json) -> Fate {
    let fields = match value {
        Json::Text(text) => return row(n, id(text)),
        Json::Object(fields) => fields,
        _ => return Fate::Refused(n),
    };
    let said: Vec<_> = fields
        .iter()
        .filter(|(_, value)| !matches!(value, Json::Null))
        .map(|(name, value)| (plain(name), value))
        .collect();
    if said.iter().any(|(name, _)| UNSAID.contains(&name.as_str())) {
        return Fate::Unsaid;
    }
    let is_blank = |value: &Json| matches!(value, Json::Text(text) if text.trim().is_empty());
    if said.iter().any(|(name, value)| is_slip(name) && !is_blank(value)) {
        return Fate::Refused(n);
    }
    // Of each name that stands there: what it says; `Err` if it says two things, or what is no text.
    let of = |known: &[&str]| {
        let mut all: Vec<Result<&str, ()>> = Vec::new();
        for known in known {
            let here: Vec<_> = said.iter().filter(|(name, _)| name == known).map(|(_, value)| *value).collect();
            let texts: Vec<&str> = here.iter().copied().filter_map(text_of).collect();
            let speaking = here.iter().filter(|value| !is_blank(value)).count();
            match (here.len() - texts.len(), speaking) {
                _ if here.is_empty() => {}
                (0, _) => all.push(one_of(&texts).ok_or(())),
                (1, 1) => all.push(Err(())),
                _ => return Err(()),
            }
        }
        Ok(all)
    };
    let judged = || {
        let (ids, names, merged) = (of(&IDS)?, of(&NAMES)?, of(&MERGED)?);
        let (onboarding, priority) = (of(&ONBOARDING)?, of(&PRIORITY)?);
        let said = |all: Vec<Result<&str, ()>>| {
            let speaking = all.into_iter().find(|text| text.is_err() || text.is_ok_and(|text| !text.trim().is_empty()));
            speaking.transpose().map(|text| text.map(ToOwned::to_owned))
        };
        let found = ids.first().copied().transpose()?.and_then(id);
        said(names)?;
        Ok::<_, ()>(judge(n, found, said(merged)?.as_deref(), said(onboarding)?.as_deref(), said(priority)?.as_deref()))
    };
    judged().unwrap_or(Fate::Refused(n))
}

/// `None` where nothing can be said: keys that say something of all machines are not for a naive reader.
fn document(text: &str) -> Option<Option<Vec<Fate>>> {
    let whole = serde_json::from_str(text);
    let entries = |machines: &[Json]| Some(Some((1..).zip(machines).map(|(n, value)| entry(n, value)).collect()));
    let fields = match &whole {
        Ok(Json::Array(machines)) => return entries(machines),
        Ok(Json::Text(_)) => return entries(&whole.into_iter().collect::<Vec<_>>()),
        Ok(Json::Object(fields)) => fields,
        _ => return Some(None),
    };
    let names: Vec<_> = fields.iter().map(|(name, _)| plain(name)).collect();
    let of_all = ["name", "priority", "submittedby", "@odata.nextlink"];
    if names.iter().any(|name| UNSAID.contains(&name.as_str()) || of_all.contains(&name.as_str())) {
        return None;
    }
    let is_list = |name: &String| ["machines", "value", "results"].contains(&name.as_str());
    let lists: Vec<_> = names.iter().zip(fields).filter(|(name, _)| is_list(name)).collect();
    match lists[..] {
        [] => {
            let is_id =
                |((name, _), plain): (&(String, Json), &String)| !name.is_empty() && IDS.contains(&plain.as_str());
            let has = fields.iter().zip(&names).any(|field| !matches!(field.0.1, Json::Null) && is_id(field));
            if has { entries(&whole.into_iter().collect::<Vec<_>>()) } else { Some(None) }
        }
        [(name, (_, Json::Array(machines)))] => {
            let says =
                |value: &Json| !matches!(value, Json::Null) && !matches!(value, Json::Text(t) if t.trim().is_empty());
            let slip = fields.iter().any(|(name, value)| is_slip(name) && says(value));
            if slip || name == "machines" && fields.len() > 1 { Some(None) } else { entries(machines) }
        }
        _ => Some(None),
    }
}
