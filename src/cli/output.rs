//! Standard output: tables for people, lines of JSON for pipes. A reader that has had enough
//! (`| head`) is no error.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::table::{Column, Table, cut};
use super::terminal::tame;
use crate::app::Failure;
use crate::intake::results::inert;

/// Gives `write` standard output.
pub fn print(write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>) -> Result<(), Failure> {
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

/// Writes one JSON object on a line of its own.
pub fn json_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
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
pub struct Rows {
    table: csv::Writer<io::Stdout>,
    broken: io::Result<()>,
}

impl Rows {
    /// The header.
    pub fn new(header: &[&str]) -> Self {
        let mut table = csv::Writer::from_writer(io::stdout());
        let broken = table.write_record(header).map_err(Into::into);
        Self { table, broken }
    }

    /// One more; a cell that a spreadsheet would run as a formula is made inert.
    pub fn add(&mut self, cells: &[&str]) -> io::Result<()> {
        Ok(self.table.write_record(cells.iter().map(|cell| inert(cell)))?)
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
