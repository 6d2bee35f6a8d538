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
    let kinds: [&[u8]; 7] = [
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1f\x8b",
        b"7z\xbc\xaf\x27\x1c",
        b"\x28\xb5\x2f\xfd",
        b"%PDF-",
        b"\xfd7zXZ\0",
    ];
    if kinds.iter().any(|kind| bytes.starts_with(kind)) {
        return Some(None);
    }
    let text = plain(&decoded(bytes));
    if text.chars().all(|c| matches!(c, ' ' | '\t' | '\n')) {
        return Some(None);
    }
    match ending {
        "txt" | "csv" if text.len() > 60_000 => None,
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

/// The text with one kind of line end, and without what is left at the ends of files that were glued together.
fn plain(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = text.split('\n').map(|line| {
        let line = line.trim_start_matches(['\u{feff}', '\u{1a}']);
        let ends = line.bytes().rev().take_while(|byte| *byte == 0x1a).count();
        // A long run of them is content.
        &line[..line.len() - ends % 129]
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_blank(line: &str) -> bool {
    line.chars().all(|c| matches!(c, ' ' | '\t'))
}

/// Lines with their numbers, without those that hold nothing.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..).zip(text.split('\n')).filter(|(_, line)| !is_blank(line))
}

fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || "\"'\u{feff}".contains(c))
}

fn id(text: &str) -> Option<String> {
    let text = bare(text).to_ascii_lowercase();
    let is_id = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id(&text) {
        return Some(text);
    }
    // The address of a page in the portal.
    let (host, path) = text.split_once("/machines/")?;
    let host = host.trim_start_matches("https://");
    let id: String = path.strip_prefix("v2/").unwrap_or(path).split(['/', '?', '#']).next()?.to_owned();
    (host.contains('.') && !host.contains(char::is_whitespace) && is_id(&id)).then_some(id)
}

/// An id of Defender's, or a GUID.
fn device(text: &str) -> Option<String> {
    let guid = || {
        let text = bare(text).to_ascii_lowercase();
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(&text).to_owned();
        let fits = |(at, byte): (usize, u8)| {
            if [8, 13, 18, 23].contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
        };
        (text.len() == 36 && text.bytes().enumerate().all(fits)).then_some(text)
    };
    id(text).or_else(guid)
}

fn row(n: u64, id: Option<String>) -> Fate {
    id.map_or(Fate::Refused(n), |id| Fate::Row(n, id))
}

fn list(text: &str) -> Vec<Fate> {
    let mut fates = Vec::new();
    for (n, line) in lines(text) {
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
        let words = || line.split([',', ';', ' ', '\t', '\u{feff}']).filter(|word| !bare(word).is_empty());
        if line.is_empty() {
        } else if let Some(id) = id(line) {
            fates.push(Fate::Row(n, id));
        } else if words().next().is_some() && words().all(|word| id(word).is_some()) {
            fates.extend(words().map(|word| row(n, id(word))));
        } else {
            fates.push(Fate::Refused(n));
        }
    }
    fates
}

/// The fields of a record, and where a quote opens that nobody closes.
fn cut(text: &str, separator: char) -> (Vec<String>, Option<usize>) {
    let (mut fields, mut rest) = (Vec::new(), text.char_indices().peekable());
    loop {
        let mut field = String::new();
        if let Some((open, _)) = rest.next_if(|(_, c)| *c == '"') {
            loop {
                match rest.next() {
                    None => {
                        fields.push(field);
                        return (fields, Some(open));
                    }
                    Some((_, '"')) if rest.next_if(|(_, c)| *c == '"').is_none() => break,
                    Some((_, c)) => field.push(c),
                }
            }
        }
        loop {
            match rest.next() {
                None => {
                    fields.push(field);
                    return (fields, None);
                }
                Some((_, c)) if c == separator => break,
                Some((_, c)) => field.push(c),
            }
        }
        fields.push(field);
    }
}

/// The fields of a line by itself: a quote that nobody closes on it is text, and so is all behind it.
fn alone(line: &str, separator: char) -> Vec<String> {
    let (mut fields, open) = cut(line, separator);
    if let Some(open) = open {
        fields.pop();
        fields.extend(line[open..].split(separator).map(str::to_owned));
    }
    fields
}

/// What holds for the records of a table; nothing is known of a header before it was read.
#[derive(Clone, Copy)]
struct Shape {
    separator: char,
    /// The machine's column, and how many there are.
    columns: Option<(usize, usize)>,
}

/// The record that begins these lines, and how many they are; else up to which line each stands alone.
fn whole(lines: &[&str], shape: Shape) -> Result<(Vec<String>, usize), usize> {
    let Shape { separator, columns } = shape;
    let merely_cut = |line: &str| line.split(separator).map(str::to_owned).collect::<Vec<_>>();
    let anywhere =
        |line: &&str| [alone(line, separator), merely_cut(line)].iter().flatten().any(|field| device(field).is_some());
    let machine = |fields: &[String]| columns.and_then(|(at, _)| device(fields.get(at)?));
    for end in 1..=lines.len() {
        let text = lines[..end].join("\n");
        let (fields, open) = cut(&text, separator);
        if open.is_none() && end == 1 {
            return Ok((fields, 1));
        }
        let found = |line| machine(&alone(line, separator)).or_else(|| machine(&merely_cut(line)));
        let machines: Vec<_> = (0..end).filter_map(|n| Some((n, found(lines[n])?))).collect();
        let others = lines[1..end].iter().any(anywhere);
        let devices: Vec<_> = lines[..end]
            .iter()
            .flat_map(|line| [alone(line, separator), merely_cut(line)].concat())
            .filter_map(|field| device(&field))
            .collect();
        let is_none = machines.len() > 1 || devices.len() > 64 || columns.is_none() && others;
        if open.is_none() && !is_none {
            let own = machine(&fields);
            let is_own = machines.first().is_none_or(|(_, machine)| Some(machine) == own.as_ref());
            let count = columns.map_or(0, |(_, count)| count);
            let is_cell = |found: &String| fields.iter().take(count).any(|field| device(field).as_ref() == Some(found));
            let is_sound = is_own && !(others && own.is_none()) && devices.iter().all(is_cell);
            if columns.is_none() || is_sound {
                return Ok((fields, end));
            }
        }
        if open.is_none() || is_none || end == lines.len() {
            let next = machines.iter().map(|(n, _)| *n).find(|n| *n > 0);
            let next = next.or_else(|| (1..end).find(|n| columns.is_none() && anywhere(&lines[*n])));
            return Err(next.unwrap_or(end));
        }
    }
    Err(lines.len())
}

/// The records of a table one by one.
struct Records<'a> {
    lines: Vec<&'a str>,
    at: usize,
    alone: usize,
    shape: Shape,
}

impl Records<'_> {
    fn next(&mut self) -> Option<(u64, Vec<String>)> {
        while is_blank(self.lines.get(self.at)?) {
            self.at += 1;
        }
        let (line, first) = (self.at as u64 + 1, self.lines[self.at]);
        if self.at >= self.alone {
            match whole(&self.lines[self.at..], self.shape) {
                Ok((fields, count)) => {
                    self.at += count;
                    return Some((line, fields));
                }
                Err(until) => self.alone = self.at + until,
            }
        }
        self.at += 1;
        Some((line, alone(first, self.shape.separator)))
    }
}

/// Whether a line stands above a header; and the separator that it names.
fn above(line: &str) -> Option<Option<char>> {
    let line = line.trim_matches([' ', '"']);
    let lower = line.to_ascii_lowercase();
    if lower == "#type" || lower.starts_with("#type ") || lower.starts_with("#type\t") {
        return Some(None);
    }
    let named = lower.strip_prefix("sep=").map(|_| &line[4..])?;
    let mut chars = named.chars();
    match (chars.next(), chars.next()) {
        _ if named == "\\t" => Some(Some('\t')),
        (Some(c), None) if c.is_ascii_punctuation() || c == '\t' => Some(Some(c)),
        _ => None,
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
fn counting(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace() && !"_-\u{feff}".contains(*c)).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether it is one letter off an option: by the table that everybody knows, with exchanged neighbours.
fn is_slip(name: &str) -> bool {
    let a: Vec<char> = counting(name).chars().collect();
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

/// What is said of a record below a header with these names, without what does not count in them; `None`: it is refused.
fn cells(n: u64, at: usize, names: &[String], fields: &[String]) -> Option<Fate> {
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
    let unsaid = said(of(&UNSAID)?);
    let priority = said(of(&PRIORITY)?);
    fields.get(at)?;
    if unsaid.is_some() {
        return Some(Fate::Unsaid);
    }
    Some(judge(n, id(ids.first()?), merged.as_deref(), onboarding.as_deref(), priority.as_deref()))
}

/// What is said of a table, if it is one.
fn table(text: &str) -> Option<Option<Vec<Fate>>> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut begin = 0;
    let mut asked_for = None;
    for (n, line) in lines.iter().enumerate().filter(|(_, line)| !is_blank(line)) {
        let Some(separator) = above(line) else { break };
        asked_for = separator.or(asked_for);
        begin = n + 1;
    }
    let names = |header: &[String]| {
        let names: Vec<_> = header.iter().map(|name| counting(name.trim_matches(['"', ' ']))).collect();
        IDS.iter().find_map(|known| names.iter().position(|name| name == known))
    };
    let read = |separator| {
        let shape = Shape { separator, columns: None };
        let mut records = Records { lines: lines.clone(), at: begin, alone: 0, shape };
        let (_, header) = records.next()?;
        names(&header).is_some().then_some((records, header))
    };
    let mut best = asked_for.and_then(read);
    if best.is_none() {
        for found in [',', ';', '\t'].into_iter().filter_map(read) {
            if best.as_ref().is_none_or(|(_, header)| found.1.len() > header.len()) {
                best = Some(found);
            }
        }
    }
    let (mut records, mut header) = best?;
    let mut fates = Vec::new();
    loop {
        let at = names(&header)?;
        if header.iter().any(|name| is_slip(name.trim_matches(['"', ' ']))) {
            return Some(None);
        }
        let known_names: Vec<String> = header.iter().map(|name| counting(name.trim_matches(['"', ' ']))).collect();
        records.shape.columns = Some((at, header.len()));
        let Some((n, fields)) = records.next() else { break };
        if fields.iter().all(|field| device(field).is_none()) {
            let line = fields.join(&records.shape.separator.to_string());
            if let Some(separator) = above(&line) {
                records.shape.separator = separator.unwrap_or(records.shape.separator);
                continue;
            }
            let is_name = |field: &String| field.trim().is_empty() || field.chars().any(char::is_alphabetic);
            if names(&fields).is_some() && fields.iter().all(is_name) {
                header = fields;
                continue;
            }
        }
        fates.push(cells(n, at, &known_names, &fields).unwrap_or(Fate::Refused(n)));
    }
    Some((!fates.is_empty()).then_some(fates))
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
        .map(|(name, value)| (counting(name), value))
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
    let names: Vec<_> = fields.iter().map(|(name, _)| counting(name)).collect();
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
