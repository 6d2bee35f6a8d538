//! Standard output: tables for people, lines of JSON for pipes. A reader that has had enough
//! (`| head`) is no error. Names come from files, from devices and from Defender: none of them steers a terminal.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::ser::Formatter;

use super::table::{Column, Table, cut};
use super::terminal::{tame, tame_text};
use crate::app::Failure;
use crate::domain::shown::is_shapeless;
use crate::intake::results::{inert, unwrapped};

/// Puts what `write` writes on standard output, tamed.
pub fn print(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<(), Failure> {
    let mut text = Vec::new();
    write(&mut text)?;
    print_as_it_is(|out| out.write_all(tame_text(&String::from_utf8_lossy(&text)).as_bytes()))
}

/// Gives `write` standard output: for what this program alone has written.
pub fn print_as_it_is(
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    quiet(write(&mut out).and_then(|()| out.flush()))
}

/// A pipe that closed is what its reader wanted.
pub fn quiet(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Says something on standard error, tamed. Where that cannot be written nobody is there to be told: the exit code
/// stays what it is.
pub fn say(what: impl std::fmt::Display) {
    let line = tame_text(&format!("{what}\n"));
    io::stderr().write_all(line.as_bytes()).ok();
}

/// Writes one JSON object on a line of its own.
pub fn json_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, Tame))?;
    out.write_all(b"\n")
}

/// JSON in one line that says the same on a terminal as in a file: what a terminal would obey is escaped, also what
/// JSON would let stand.
struct Tame;

impl Formatter for Tame {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_shapeless) {
            let (plain, from) = rest.split_at(at);
            let mut chars = from.chars();
            out.write_all(plain.as_bytes())?;
            // All of them have four digits at most.
            chars.next().map_or(Ok(()), |c| write!(out, "\\u{:04x}", u32::from(c)))?;
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn write_raw_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        // Line ends and tabs stand between its strings, never in them; all else without a shape in them alone.
        self.write_string_fragment(out, &fragment.replace(['\n', '\r', '\t'], " "))
    }
}

/// Lines of JSON on standard output, as a list hands them out.
pub struct Lines(BufWriter<io::Stdout>);

impl Lines {
    /// None yet.
    pub fn new() -> Self {
        Self(BufWriter::new(io::stdout()))
    }

    /// One more.
    pub fn add(&mut self, value: &impl Serialize) -> io::Result<()> {
        json_line(&mut self.0, value)
    }

    /// Sees the last of them out: what a full disk does not take is an error, not a short list.
    pub fn end(mut self, listed: io::Result<()>) -> Result<(), Failure> {
        quiet(listed.and_then(|()| self.0.flush()))
    }
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A header and a row for each
    #[default]
    Csv,
    /// A JSON object on a line for each
    Jsonl,
}

/// Rows of CSV on standard output, as a list hands them out.
pub struct Rows<W: Write = io::Stdout> {
    table: csv::Writer<W>,
    broken: io::Result<()>,
}

impl Rows {
    /// The header.
    pub fn new(header: &[&str]) -> Self {
        Self::to(io::stdout(), header)
    }
}

impl<W: Write> Rows<W> {
    fn to(out: W, header: &[&str]) -> Self {
        let mut table = csv::Writer::from_writer(out);
        let broken = table.write_record(header).map_err(unwrapped);
        Self { table, broken }
    }

    /// One more; a cell that a spreadsheet would run as a formula is made inert.
    pub fn add(&mut self, cells: &[&str]) -> io::Result<()> {
        self.table.write_record(cells.iter().map(|cell| inert(cell))).map_err(unwrapped)
    }

    /// Sees the last of them out.
    pub fn end(mut self, listed: io::Result<()>) -> Result<(), Failure> {
        quiet(self.broken.and(listed).and_then(|()| self.table.flush()))
    }
}

/// Rows of a table on standard output, as a list hands them out.
pub struct Listing {
    table: Table,
    out: BufWriter<io::Stdout>,
}

impl Listing {
    /// With these columns.
    pub fn new(columns: &[Column]) -> Self {
        Self { table: Table::new(columns), out: BufWriter::new(io::stdout()) }
    }

    /// One more.
    pub fn row(&mut self, cells: Vec<String>) -> io::Result<()> {
        self.table.row(&mut self.out, cells)
    }

    /// Sees the last of them out.
    pub fn end(mut self, listed: io::Result<()>) -> Result<(), Failure> {
        quiet(listed.and_then(|()| self.table.end(&mut self.out)).and_then(|()| self.out.flush()))
    }
}

/// A name as a sentence shows it: the start, when it is long.
pub fn short(name: &str) -> String {
    cut(&tame(name), 40)
}

/// A time of a JSON report in the local zone, with its offset.
pub fn local(text: &str) -> String {
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map_or_else(
        |_| text.to_owned(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
    )
}

/// The same, or a dash.
pub fn local_or_dash(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| local(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_run_by_a_spreadsheet() {
        let mut out = Vec::new();
        let mut rows = Rows::to(&mut out, &["one", "two"]);
        rows.add(&["=1+1", "a,\"b\"\n"]).unwrap();
        rows.end(Ok(())).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "one,two\n'=1+1,\"a,\"\"b\"\"\n\"\n");
    }

    #[test]
    fn json_says_what_it_says_and_steers_no_terminal() {
        let name = "pc\u{9b}2J \u{7f}\u{202e}\x1b[2J äöü \"\\ 機械";
        let raw = serde_json::value::RawValue::from_string(format!("{{\n\t\"a\": \"b{}\"}}", '\u{9b}')).unwrap();
        let mut line = Vec::new();
        json_line(&mut line, &serde_json::json!({ "name": name })).unwrap();
        json_line(&mut line, &raw).unwrap();
        let text = String::from_utf8(line).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "each has a line of its own: {text}");
        assert_eq!(tame_text(&text), text, "nothing is left to tame");
        let read: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(read["name"], name);
        assert_eq!(serde_json::from_str::<serde_json::Value>(lines[1]).unwrap()["a"], "b\u{9b}");
    }
}
