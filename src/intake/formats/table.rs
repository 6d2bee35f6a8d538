//! CSV: a header with a machine id column, then a record for each machine.

use std::io::BufRead;

use super::fields::{self, Found, Given};
use super::keys::{self, Known, Near, Slot};
use super::records::{Broken, Record, Records};
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
}

/// Finds the machine id column in the first record of `head`, under each separator in turn. When
/// there is none: the columns that the likeliest separator shows.
pub fn recognise(head: &[u8]) -> Result<Layout, Vec<String>> {
    let mut columns = Vec::new();
    let mut found: Option<(usize, Layout)> = None;
    for separator in [b',', b';', b'\t'] {
        let mut record = Record::default();
        // A slice cannot fail to be read.
        if !Records::new(head, separator).next(&mut record).unwrap_or(false) {
            continue;
        }
        let width = record.len();
        if let Some(layout) = layout(separator, &record)
            && found.as_ref().is_none_or(|(best, _)| width > *best)
        {
            found = Some((width, layout));
        }
        if width > columns.len() {
            columns = record.fields().map(|name| printable(name.trim(), 60)).collect();
        }
    }
    found.map(|(_, layout)| layout).ok_or(columns)
}

fn layout(separator: u8, record: &Record) -> Option<Layout> {
    let (mut columns, mut near) = (Vec::new(), Vec::new());
    for (index, name) in record.fields().enumerate() {
        match keys::known(&name) {
            Some(known) => columns.push((known, index, printable(name.trim(), 40))),
            None => near.extend(keys::near(&name).map(|meant| (name.into_owned(), meant))),
        }
    }
    let ids = columns.iter().filter(|(known, ..)| known.slot == Slot::Machine);
    let (_, id, id_name) = ids.min_by_key(|(known, ..)| known.rank)?.clone();
    Some(Layout { separator, columns, near, id, id_name })
}

/// Reads the records below a header; `head` is the beginning of `input`.
pub fn read(
    head: &[u8],
    input: impl BufRead,
    options: Options,
    warnings: &mut Warnings,
    sink: &mut Sink<'_>,
) -> Result<(), Unusable> {
    let layout =
        recognise(head).map_err(|columns| Unusable::NoIdColumn { columns: printable(&columns.join(", "), 500) })?;
    let mut records = Records::new(input, layout.separator);
    let mut record = Record::default();
    if !records.next(&mut record).map_err(Unusable::Read)? || record.broken.is_some() {
        return Err(Unusable::BrokenHeader);
    }
    layout.check_names(warnings)?;
    while records.next(&mut record).map_err(Unusable::Read)? {
        sink(layout.line(&record, options))?;
    }
    Ok(())
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

    fn line(&self, record: &Record, options: Options) -> Line {
        let line = record.line;
        let shown = || self.shown(record);
        match record.broken {
            Some(Broken::TooLong) => return Line::Refused(Refusal::too_long(line, &shown())),
            Some(Broken::OpenQuote) => {
                let last = record.last_line;
                let reason = format!(
                    "a quote that opens in this record is never closed: lines {line} to {last} were read as one"
                );
                return Line::Refused(Refusal::new(line, &shown(), reason));
            }
            None => {}
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
        fields::judge(line, &found, options, shown)
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
    fn without_an_id_column_the_columns_are_named() {
        assert_eq!(recognise(b"a;b;c\n1;2;3\n").unwrap_err(), ["a", "b", "c"]);
        assert!(recognise(b"").unwrap_err().is_empty());
    }
}
