//! CSV: a header with a machine id column, then a record for each machine.
//!
//! Above a header PowerShell writes a `#TYPE` line, and Excel understands a `sep=` line. Both, and headers, may stand
//! again in the middle of a file, where others were glued to it (`cat a.csv b.csv`): they are no lines of the receipt,
//! and what they say holds from there on.

use std::io::BufRead;

use super::fields::{self, Found, Given};
use super::keys::{self, Known, Near, Slot};
use super::lines::Lines;
use super::record::Record;
use super::records::{Columns, Records};
use super::{Line, Options, Refusal, Sink, Unusable, Warnings, printable};

/// A header that names the machine id.
#[derive(Debug)]
pub struct Layout {
    separator: u8,
    /// The columns that are known: what each means, where it stands, and its name.
    columns: Vec<(Known, usize, String)>,
    /// The columns that are one letter off a known one.
    near: Vec<(String, Near)>,
    id: usize,
    id_name: String,
    /// How many columns there are.
    width: usize,
    /// How many physical lines stand above the header.
    above: u64,
}

/// A line above a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Above {
    /// `#TYPE System.Object`: what `Export-Csv` of PowerShell writes.
    Type,
    /// `sep=;`: which separator Excel is to take.
    Separator(u8),
}

impl Above {
    fn of(line: &str) -> Option<Self> {
        let line = line.trim_matches([' ', '"']);
        let begins = |word: &str| line.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
        if begins("#type") && line.get(5..).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])) {
            return Some(Self::Type);
        }
        let separator = if begins("sep=") { line.get(4..)? } else { return None };
        match separator.as_bytes() {
            b"\\t" => Some(Self::Separator(b'\t')),
            [one] if one.is_ascii_punctuation() || *one == b'\t' => Some(Self::Separator(*one)),
            _ => None,
        }
    }
}

/// How many physical lines stand above the header in `head`, and the separator that they name.
fn above(head: &[u8]) -> (u64, Option<u8>) {
    let mut lines = Lines::new(head);
    let mut above = (0, None);
    // A slice cannot fail to be read.
    while let Ok(Some(line)) = lines.next() {
        match Above::of(&line.text) {
            Some(Above::Type) => above.0 = line.number,
            Some(Above::Separator(separator)) => above = (line.number, Some(separator)),
            None => break,
        }
    }
    above
}

/// Finds the machine id column in the first record of `head` that is a header, under each separator in turn unless
/// one is named that shows it. When there is none: the columns that the likeliest separator shows.
pub fn recognise(head: &[u8]) -> Result<Layout, Vec<String>> {
    let (above, named) = above(head);
    let mut columns = Vec::new();
    let mut found: Option<Layout> = None;
    for separator in named.into_iter().chain([b',', b';', b'\t']) {
        let Some(record) = first(head, separator, above) else { continue };
        let width = record.len();
        if let Some(layout) = layout(separator, &record)
            && found.as_ref().is_none_or(|best| width > best.width)
        {
            let is_named = named == Some(separator);
            found = Some(Layout { above, ..layout });
            if is_named {
                break;
            }
        }
        if width > columns.len() {
            columns = record.fields().map(|name| printable(name.trim(), 60)).collect();
        }
    }
    found.ok_or(columns)
}

fn first(head: &[u8], separator: u8, above: u64) -> Option<Record> {
    let mut record = Record::default();
    let mut records = Records::new(head, separator, above).ok()?;
    records.next(&mut record).is_ok_and(|is_there| is_there).then_some(record)
}

fn layout(separator: u8, record: &Record) -> Option<Layout> {
    let (mut columns, mut near) = (Vec::new(), Vec::new());
    for (index, name) in record.fields().enumerate() {
        // A quote that is not closed is text.
        let name = name.trim_matches(['"', ' ']);
        match keys::known(name) {
            Some(known) => columns.push((known, index, printable(name.trim(), 40))),
            None => near.extend(keys::near(name).map(|meant| (name.to_owned(), meant))),
        }
    }
    let ids = columns.iter().filter(|(known, ..)| known.slot == Slot::Machine);
    let (_, id, id_name) = ids.min_by_key(|(known, ..)| known.rank)?.clone();
    Some(Layout { separator, columns, near, id, id_name, width: record.len(), above: 0 })
}

/// Reads the records below a header; `head` is the beginning of `input`. Says in how many a quote that is not closed
/// was read as text.
pub fn read(
    head: &[u8],
    input: impl BufRead,
    options: Options,
    warnings: &mut Warnings,
    sink: &mut Sink<'_>,
) -> Result<u64, Unusable> {
    let no_id_column = |columns: &[String]| Unusable::NoIdColumn { columns: printable(&columns.join(", "), 500) };
    let Layout { separator, above, .. } = recognise(head).map_err(|columns| no_id_column(&columns))?;
    let mut records = Records::new(input, separator, above).map_err(Unusable::Read)?;
    let mut record = Record::default();
    if !records.next(&mut record).map_err(Unusable::Read)? || record.is_too_long {
        return Err(Unusable::BrokenHeader);
    }
    // A header of many lines may reach beyond `head`.
    let mut layout = layout(separator, &record).ok_or_else(|| no_id_column(&[]))?;
    layout.check_names(warnings)?;
    records.set(separator, layout.shape());
    let (mut loose_quotes, mut is_empty) = (0, true);
    while records.next(&mut record).map_err(Unusable::Read)? {
        if layout.replace(&record) {
            layout.check_names(warnings)?;
            records.set(layout.separator, layout.shape());
            continue;
        }
        is_empty = false;
        loose_quotes += u64::from(record.has_loose_quote && !record.is_too_long);
        sink(layout.line(&record, options))?;
    }
    if is_empty { Err(Unusable::HeaderAlone) } else { Ok(loose_quotes) }
}

impl Layout {
    /// Refuses the file if a column is one letter off an option: its machines would be scanned otherwise than asked for.
    fn check_names(&self, warnings: &mut Warnings) -> Result<(), Unusable> {
        for (name, near) in &self.near {
            match near {
                Near::Option(_) => return Err(Unusable::Name(fields::slip("column", name, *near))),
                Near::Else(_) => warnings.extend([fields::passed_over("column", name, *near).as_str()]),
            }
        }
        Ok(())
    }

    const fn shape(&self) -> Columns {
        Columns { machine: self.id, count: self.width }
    }

    /// Whether this is no record but a header, or stands above one: what it says holds from here on.
    fn replace(&mut self, record: &Record) -> bool {
        if record.is_too_long || record.has_device() {
            return false;
        }
        match Above::of(&self.shown(record)) {
            Some(Above::Type) => return true,
            Some(Above::Separator(separator)) => {
                self.separator = separator;
                return true;
            }
            None => {}
        }
        // A name of a column is a word.
        let is_name = |field: &str| field.trim().is_empty() || field.chars().any(char::is_alphabetic);
        let header = layout(self.separator, record).filter(|_| record.fields().all(|field| is_name(&field)));
        let is_header = header.is_some();
        if let Some(header) = header {
            *self = header;
        }
        is_header
    }

    fn line(&self, record: &Record, options: Options) -> Line {
        let line = record.line;
        let shown = || self.shown(record);
        if record.is_too_long {
            return Line::Refused(Refusal::too_long(line, &shown()));
        }
        if record.len() <= self.id {
            let reason = format!(
                "too short: the machine id (`{}`) is field {}, the record ends with field {}",
                self.id_name,
                self.id + 1,
                record.len()
            );
            return Line::Refused(Refusal::new(line, &shown(), reason));
        }
        let mut found = Found::default();
        for (known, index, name) in &self.columns {
            if let Some(cell) = record.field(*index) {
                found.add(name.as_str().into(), *known, Given::Text(cell));
            }
        }
        let mut judged = fields::judge(line, &found, options, shown);
        if let Line::Refused(refusal) = &mut judged
            && record.last_line > line
        {
            refusal.reason += &format!(" (lines {line} to {} are one record)", record.last_line);
        }
        judged
    }

    /// The record about as it stands in the file.
    fn shown(&self, record: &Record) -> String {
        let mut text = String::new();
        for (index, field) in record.fields().enumerate() {
            if index > 0 {
                text.push(char::from(self.separator));
            }
            text.push_str(&field);
            if text.len() > Refusal::TEXT_MAX * 4 {
                break;
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_column(header: &str) -> Option<(u8, usize)> {
        recognise(header.as_bytes()).ok().map(|layout| (layout.separator, layout.id))
    }

    #[test]
    fn the_separator_is_the_one_that_shows_an_id_column() {
        assert_eq!(id_column("machine_id"), Some((b',', 0)));
        assert_eq!(id_column("name;id\n"), Some((b';', 1)));
        assert_eq!(id_column("name\tDEVICEID\tx,y\r\n"), Some((b'\t', 1)));
        assert_eq!(id_column("\"a;b\",\"Device ID\""), Some((b',', 1)));
        assert_eq!(id_column("\n \n\"Device\nName\",Device ID\n"), Some((b',', 1)));
    }

    #[test]
    fn the_preferred_spelling_counts() {
        assert_eq!(id_column("id,MdatpDeviceId,DeviceId,machine_id"), Some((b',', 3)));
        assert_eq!(id_column("id,MdatpDeviceId,Device ID"), Some((b',', 2)));
        assert_eq!(id_column("id,MdatpDeviceId"), Some((b',', 1)));
        assert_eq!(id_column("Id,id"), Some((b',', 0)), "of two alike the first");
    }

    #[test]
    fn lines_above_a_header_are_skipped_and_name_its_separator() {
        for (header, separator, id) in [
            ("#TYPE Selected.System.Object\nname,id\n", b',', 1),
            ("sep=;\nname,x;id\n", b';', 1),
            ("\"sep=;\"\n\n#type x\nid;name\n", b';', 0),
            ("SEP=\\t\nx,id\tid\n", b'\t', 1),
            ("sep=\t\nx,y\tid\n", b'\t', 1),
            ("sep=|\nid|name\n", b'|', 0),
            // It names one that shows no column.
            ("sep=;\nname,id\n", b',', 1),
        ] {
            assert_eq!(id_column(header), Some((separator, id)), "{header:?}");
        }
        for header in ["sep=\nid\n", "sep=a\nid\n", "#TYPES\nid\n", "sep=;;\nid\n"] {
            assert_eq!(id_column(header), None, "{header:?}");
        }
    }

    #[test]
    fn without_an_id_column_the_columns_are_named() {
        assert_eq!(recognise(b"a;b;c\n1;2;3\n").unwrap_err(), ["a", "b", "c"]);
        assert!(recognise(b"").unwrap_err().is_empty());
    }
}
