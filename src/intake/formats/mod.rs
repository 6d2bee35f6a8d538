//! From the bytes of a dropped file to its lines: lists, CSV, JSON documents, JSON lines.
//!
//! A file is streamed, and nothing of it is kept beyond one line. Whatever a line holds, it ends as
//! exactly one [`Line`]; only what makes the rest meaningless (a JSON syntax error, a CSV without a
//! machine id column) makes the whole file [`Unusable`]. That may turn out after lines have been
//! handed out: a caller that stores them does so in a transaction.
//!
//! Values that a JSON document gives for all its machines are returned as the [`Header`], and are
//! not applied to its rows: they may follow the rows in the file.

mod binary;
mod claim;
mod document;
mod entry;
mod fields;
mod keys;
mod lines;
mod list;
mod machine;
mod plain_text;
mod record;
mod records;
mod table;
mod tape;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use encoding_rs_io::DecodeReaderBytesBuilder;

use crate::domain::id::MachineId;
use crate::domain::shown::is_shapeless;
use crate::domain::sweep::{OnPending, Priority, ScanType};
use crate::domain::time::Wall;
pub use binary::Binary;
pub use claim::{Claim, Submitter};
pub use document::NAME_MAX;
pub use fields::LeftOutFor;
use lines::LINE_MAX;
pub use machine::{Named, WHERE_IDS_ARE, machines, named};
use plain_text::PlainText;

/// What a JSON document says about all its machines; other formats say nothing. And the warnings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// As written: whether there is such a tenant is for the caller to say.
    pub tenant: Option<String>,
    pub name: Option<String>,
    pub scan_type: Option<ScanType>,
    pub comment: Option<String>,
    pub priority: Option<Priority>,
    pub not_before: Option<Wall>,
    pub on_pending: Option<OnPending>,
    /// Who submitted it, as it says.
    pub submitted_by: Claim,
    /// What was read otherwise than may be meant. Every format has some.
    pub warnings: Warnings,
}

/// What is worth a word and no refusal: each once, and the first of them only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Vec<String>);

impl Warnings {
    /// So many are kept: the names of a file's columns or keys are few, unless somebody means harm.
    const MOST: usize = 20;

    fn extend<'a>(&mut self, said: impl IntoIterator<Item = &'a str>) {
        for text in said {
            if self.0.len() < Self::MOST && !self.0.iter().any(|known| known == text) {
                self.0.push(text.to_owned());
            }
        }
    }

    /// Them, in the order in which they came up.
    pub fn into_texts(self) -> Vec<String> {
        self.0
    }
}

/// A file that was read to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// What it says about all its machines.
    pub header: Header,
    /// How many lines an editor shows: blank ones, comments and headers included, and a last one without an end.
    pub physical_lines: u64,
    /// In how many of them a quote that is not closed was read as text.
    pub loose_quotes: u64,
}

/// A machine to scan, with what the file says about this one alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Physical line (list, JSON lines), line on which the record starts (CSV), place in
    /// `machines`; all from 1.
    pub line: u64,
    pub machine: MachineId,
    /// The device's name, to show.
    pub name: Option<Box<str>>,
    pub scan_type: Option<ScanType>,
    pub comment: Option<Box<str>>,
    pub priority: Option<Priority>,
    pub not_before: Option<Wall>,
    pub on_pending: Option<OnPending>,
    /// As written: whether it is another tenant than the file's is for the caller to say.
    pub tenant: Option<Box<str>>,
}

impl Row {
    /// A machine of which nothing but the id is said.
    const fn of(line: u64, machine: MachineId) -> Self {
        Self {
            line,
            machine,
            name: None,
            scan_type: None,
            comment: None,
            priority: None,
            not_before: None,
            on_pending: None,
            tenant: None,
        }
    }
}

/// What one line of a file comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A machine to scan.
    Row(Row),
    /// A machine that is left out.
    NotEligible { line: u64, machine: MachineId, name: Option<Box<str>>, why: LeftOutFor },
    /// A line that cannot be used.
    Refused(Refusal),
}

/// A line that cannot be used, as the receipt lists it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    pub line: u64,
    /// The line, printable and cut.
    pub text: String,
    pub reason: String,
}

impl Refusal {
    /// How much of a line is shown, in characters.
    pub const TEXT_MAX: usize = 200;

    fn new(line: u64, text: &str, reason: String) -> Self {
        Self { line, text: printable(text, Self::TEXT_MAX), reason }
    }

    fn too_long(line: u64, text: &str) -> Self {
        Self::new(line, text, format!("longer than {} KiB", LINE_MAX / 1024))
    }
}

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Leave out machines whose onboarding status is given and is not `Onboarded`.
    pub only_onboarded: bool,
}

/// Why a file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("there is nothing in it; put one machine id on a line")]
    Empty,
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("{0}")]
    Binary(Binary),
    #[error("line {line}, column {column}: not the JSON that is expected: {what}; correct it and drop the file again")]
    Syntax { line: u64, column: u64, what: String },
    #[error("`{field}`: {reason}; correct it and drop the file again")]
    Field { field: &'static str, reason: String },
    #[error(
        "unknown key `{key}`{hint}; known are tenant, name, scan_type, comment, priority, not_before, on_pending, \
         submitted_by, machines; correct or remove it and drop the file again"
    )]
    UnknownKey {
        key: String,
        /// Which one may be meant, in words.
        hint: String,
    },
    /// A name that is refused, in words.
    #[error("{0}, and drop the file again")]
    Name(String),
    #[error(
        "the JSON object has no `machines`, and is neither an answer of Defender's API (`value`, `results`) nor a \
         machine; list the machine ids under `machines`"
    )]
    NoMachines,
    #[error(
        "no column holds machine ids; the first line must name one of {ids}, and names: {columns}",
        ids = keys::ID_NAMES
    )]
    NoIdColumn { columns: String },
    #[error("the header line cannot be read: it is longer than {} KiB", LINE_MAX / 1024)]
    BrokenHeader,
    #[error(
        "the file has a header line and no rows below it: there is no machine to scan; put a row for each machine below"
    )]
    HeaderAlone,
    #[error("reading was stopped")]
    Stopped,
}

impl Unusable {
    const fn field(field: &'static str, reason: String) -> Self {
        Self::Field { field, reason }
    }
}

/// By which the receiver of lines ends the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

impl From<Stop> for Unusable {
    fn from(_: Stop) -> Self {
        Self::Stopped
    }
}

/// The receiver of lines.
type Sink<'a> = dyn FnMut(Line) -> Result<(), Stop> + 'a;

/// Reads a file called `name`, handing each line to `sink` in order.
pub fn read(
    name: &str,
    input: impl Read,
    options: &Options,
    sink: &mut dyn FnMut(Line) -> Result<(), Stop>,
) -> Result<Whole, Unusable> {
    let (format, head, mut rest) = open(name, input)?;
    let (header, loose_quotes) = parse(format, &head, &mut rest, *options, sink)?;
    Ok(Whole { header, physical_lines: rest.passed_lines(), loose_quotes })
}

/// The header alone: only a JSON document is read to its end for it, other formats up to their
/// first line.
pub fn header(name: &str, input: impl Read, options: &Options) -> Result<Header, Unusable> {
    let (format, head, mut rest) = open(name, input)?;
    let all = format == Format::Document;
    match parse(format, &head, &mut rest, *options, &mut |_| {
        if all { Ok(()) } else { Err(Stop) }
    }) {
        Err(Unusable::Stopped) => Ok(Header::default()),
        read => read.map(|(header, _)| header),
    }
}

/// Also says in how many lines a quote that is not closed was read as text.
fn parse(
    format: Format,
    head: &[u8],
    rest: impl BufRead,
    options: Options,
    sink: &mut Sink<'_>,
) -> Result<(Header, u64), Unusable> {
    let input = head.chain(rest);
    let mut warnings = Warnings::default();
    let mut loose_quotes = 0;
    match format {
        Format::Document => return document::read(input, options, sink).map(|header| (header, 0)),
        Format::List => list::read(input, sink)?,
        Format::Table => loose_quotes = table::read(head, input, options, &mut warnings, sink)?,
        Format::JsonLines => entry::read_lines(input, options, &mut warnings, sink)?,
    }
    Ok((Header { warnings, ..Header::default() }, loose_quotes))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    List,
    Table,
    Document,
    JsonLines,
}

/// As much of a file as is looked at to recognise it: the longest header line.
const HEAD_MAX: u64 = LINE_MAX as u64 + 2;

/// Decodes `input`, takes its beginning and recognises the format.
fn open(name: &str, mut input: impl Read) -> Result<(Format, Vec<u8>, PlainText<impl BufRead>), Unusable> {
    let mut begin = Vec::new();
    input.by_ref().take(binary::LOOKED_AT as u64).read_to_end(&mut begin).map_err(Unusable::Read)?;
    if let Some(binary) = Binary::of(&begin) {
        return Err(Unusable::Binary(binary));
    }
    // UTF-8 unless a byte order mark says otherwise; what is neither becomes U+FFFD, so that it is
    // the line that is refused and not the file.
    let decoded = DecodeReaderBytesBuilder::new()
        .encoding(Some(encoding_rs::UTF_8))
        .bom_override(true)
        .bom_sniffing(true)
        .strip_bom(true)
        .build(Cursor::new(begin).chain(input));
    let mut rest = PlainText::new(BufReader::with_capacity(LINE_MAX, decoded));
    let mut head = Vec::new();
    rest.by_ref().take(HEAD_MAX).read_to_end(&mut head).map_err(Unusable::Read)?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n');
    if head.iter().all(blank) && (head.len() as u64) < HEAD_MAX {
        return Err(Unusable::Empty);
    }
    let format = match by_name(name) {
        // What Excel calls "Unicode Text": no id is the name of a column.
        Some(Format::List) if table::recognise(&head).is_ok() => Format::Table,
        Some(format) => format,
        None => by_content(&head),
    };
    Ok((format, head, rest))
}

/// Whether a file of this name is taken from the drop folder: it has one of the endings, or none.
pub fn is_taken_by_name(name: &OsStr) -> bool {
    let ending = Path::new(name).extension().filter(|ending| !ending.is_empty());
    ending.is_none_or(|ending| by_ending(ending).is_some())
}

fn by_name(name: &str) -> Option<Format> {
    by_ending(Path::new(name).extension()?)
}

fn by_ending(ending: &OsStr) -> Option<Format> {
    match ending.to_str()?.to_ascii_lowercase().as_str() {
        "txt" | "list" => Some(Format::List),
        "csv" | "tsv" => Some(Format::Table),
        "json" => Some(Format::Document),
        "jsonl" | "ndjson" => Some(Format::JsonLines),
        _ => None,
    }
}

fn by_content(head: &[u8]) -> Format {
    let text = head.trim_ascii_start();
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match first.first() {
        Some(b'{') if is_machine(first) => Format::JsonLines,
        Some(b'{' | b'[') => Format::Document,
        _ if table::recognise(head).is_ok() => Format::Table,
        _ => Format::List,
    }
}

/// Whether a line is a machine object by itself, which no document can begin with.
fn is_machine(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else {
        return false;
    };
    matches!(entry::parse(line), Ok(entry::Entry::Object(found)) if found.is_machine())
}

/// `text` as it may be shown on a terminal and in a receipt: what has no shape, or turns the
/// direction of writing, becomes U+FFFD, and at most `most` characters are left.
fn printable(text: &str, most: usize) -> String {
    let show = |c| {
        if is_shapeless(c) && c != '\t' {
            char::REPLACEMENT_CHARACTER
        } else if c == '\t' {
            ' '
        } else {
            c
        }
    };
    let mut shown: String = text.chars().take(most).map(show).collect();
    if text.chars().nth(most).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// What the JSON parser says, without the place, which is said elsewhere.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    printable(text, 200)
}
