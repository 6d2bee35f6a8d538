//! CSV records, cut out of a stream in bounded memory.
//!
//! RFC 4180 as the `csv` crate reads it (a test holds the two together), with two differences that a drop folder needs.
//! A record has a longest length and knows its physical lines. And a quote that is opened by mistake swallows no
//! machine: what runs over several lines is a record only if none of these lines, read alone, holds another machine, and
//! no quoted cell of it has a device between separators. Else its lines are read alone, and a quote that is not closed on
//! its line is text.
//!
//! A line is read at most three times, however quotes stand: as part of a record, alone, and once more from the next
//! line with a machine on.

use std::io::{self, BufRead};

use super::lines::{LINE_MAX, Lines, is_blank};
use super::machine::{Named, named};
use super::record::{Record, State};

/// What the columns of a table say of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The one with the machine.
    pub machine: usize,
    /// How many there are.
    pub count: usize,
}

/// What stands on the lines of a record, each read alone.
#[derive(Default)]
struct Seen {
    /// Lines with a machine where machines stand, of all lines but the first: the first of them.
    next_machine: Option<usize>,
    /// The only machine there; `None` as long as there is none.
    machine: Option<Named>,
    /// Whether there are several.
    has_several: bool,
    /// All devices, in any place.
    devices: Vec<Named>,
    /// Whether one of them is on a line after the first.
    is_behind_first: bool,
}

/// As many devices as a record of several lines may have on them: each is looked for among its cells.
const MAX_DEVICES: usize = 64;

/// Reads records whose lines end in LF; the last one may lack its end.
pub struct Records<R> {
    lines: Lines<R>,
    separator: u8,
    columns: Option<Columns>,
    /// Lines that were read ahead, each with an LF; the next one begins at `at` and has this number.
    ahead: Vec<u8>,
    at: usize,
    number: u64,
    /// Whether the last line in `ahead` is the beginning of one that is too long.
    ends_too_long: bool,
    /// How far lines are to be read alone.
    alone: usize,
    probe: Record,
}

impl<R: BufRead> Records<R> {
    /// Starts at the line after `skipped` lines.
    pub fn new(input: R, separator: u8, skipped: u64) -> io::Result<Self> {
        let mut lines = Lines::new(input);
        for _ in 0..skipped {
            lines.advance()?;
        }
        Ok(Self {
            lines,
            separator,
            columns: None,
            ahead: Vec::new(),
            at: 0,
            number: skipped + 1,
            ends_too_long: false,
            alone: 0,
            probe: Record::default(),
        })
    }

    /// What holds for the records that follow. Before it is said, a device anywhere is a machine.
    pub const fn set(&mut self, separator: u8, columns: Columns) {
        self.separator = separator;
        self.columns = Some(columns);
    }

    /// The next record that holds more than blanks and tabs; `false` at the end.
    pub fn next(&mut self, record: &mut Record) -> io::Result<bool> {
        loop {
            if self.at >= LINE_MAX {
                self.ahead.drain(..self.at);
                self.alone = self.alone.saturating_sub(self.at);
                self.at = 0;
            }
            if self.at == self.ahead.len() && !self.read_ahead()? {
                return Ok(false);
            }
            let end = self.end_of(self.at);
            let line = self.ahead.get(self.at..end).unwrap_or_default();
            if is_blank(line) {
                self.go_to(end + 1, 1);
                continue;
            }
            if self.ends_too_long && end + 1 == self.ahead.len() {
                record.read_alone(self.number, line, self.separator);
                record.is_too_long = true;
                self.go_to(end + 1, 1);
                return Ok(true);
            }
            if self.at < self.alone || !self.read_whole(record)? {
                self.read_one(record);
            }
            return Ok(true);
        }
    }

    /// Reads the next line alone.
    fn read_one(&mut self, record: &mut Record) {
        let end = self.end_of(self.at);
        record.read_alone(self.number, self.ahead.get(self.at..end).unwrap_or_default(), self.separator);
        self.go_to(end + 1, 1);
    }

    /// Reads a record with as many lines as it has; `false` when it is none, and its lines are to be read alone.
    fn read_whole(&mut self, record: &mut Record) -> io::Result<bool> {
        record.clear(self.number);
        let (mut start, mut state, mut opened) = (self.at, State::Start, None);
        let mut seen = Seen::default();
        loop {
            let end = self.end_of(start);
            let line = self.ahead.get(start..end).unwrap_or_default();
            state = record.read(line, self.separator, state, &mut opened);
            let is_first = start == self.at;
            if state != State::Quoted && is_first {
                record.end_field();
                self.go_to(end + 1, 1);
                return Ok(true);
            }
            self.look_at(start, end, &mut seen);
            if state != State::Quoted && !seen.has_several {
                record.end_field();
                if self.is_sound(record, &seen) {
                    self.go_to(end + 1, record.last_line - record.line + 1);
                    return Ok(true);
                }
            }
            let is_open = state == State::Quoted && !seen.has_several && end + 1 - self.at <= LINE_MAX;
            let has_next = end + 1 < self.ahead.len() || (is_open && self.read_ahead()?);
            let is_next_too_long = self.ends_too_long && self.end_of(end + 1) + 1 == self.ahead.len();
            if !is_open || !has_next || is_next_too_long {
                // Where the next machine begins, records begin anew.
                self.alone = seen.next_machine.unwrap_or(end + 1);
                return Ok(false);
            }
            record.go_on();
            start = end + 1;
        }
    }

    /// Takes note of the line at `start`, read alone, and merely cut at its separators: quotes may be anywhere.
    fn look_at(&mut self, start: usize, end: usize, seen: &mut Seen) {
        let line = self.ahead.get(start..end).unwrap_or_default();
        self.probe.read_alone(0, line, self.separator);
        let text = String::from_utf8_lossy(line);
        let mut cells = text.split(char::from(self.separator));
        let before = seen.devices.len();
        seen.devices.extend(self.probe.fields().filter_map(|field| named(&field)));
        seen.devices.extend(cells.clone().filter_map(named));
        let is_first = start == self.at;
        let has_any = !is_first && seen.devices.len() > before;
        seen.is_behind_first |= has_any;
        seen.has_several |= seen.devices.len() > MAX_DEVICES;
        // A header names no machine.
        seen.has_several |= self.columns.is_none() && has_any;
        let machine = self.columns.and_then(|Columns { machine, .. }| {
            self.probe.device(machine).or_else(|| cells.nth(machine).and_then(named))
        });
        if machine.is_some() {
            seen.has_several |= seen.machine.is_some();
            seen.machine = machine;
        }
        if (machine.is_some() || seen.has_several) && !is_first && seen.next_machine.is_none() {
            seen.next_machine = Some(start);
        }
    }

    /// Whether a record of several lines can be one: the devices on its lines are cells of it, in a place where there
    /// is a column, and the machine that a line holds is its own.
    fn is_sound(&self, record: &Record, seen: &Seen) -> bool {
        let Some(columns) = self.columns else { return true };
        let own = record.device(columns.machine);
        if seen.machine.is_some_and(|machine| Some(machine) != own) || own.is_none() && seen.is_behind_first {
            return false;
        }
        let cells: Vec<_> = record.fields().take(columns.count).filter_map(|field| named(&field)).collect();
        seen.devices.iter().all(|device| cells.contains(device))
    }

    /// Reads one more line ahead; `false` at the end.
    fn read_ahead(&mut self) -> io::Result<bool> {
        if self.at == self.ahead.len() {
            self.ahead.clear();
            self.at = 0;
            self.alone = 0;
            self.ends_too_long = false;
        }
        if !self.lines.advance()? {
            return Ok(false);
        }
        self.ahead.extend_from_slice(self.lines.kept());
        self.ahead.push(b'\n');
        self.ends_too_long = self.lines.is_too_long();
        Ok(true)
    }

    /// Where the line that begins at `start` ends.
    fn end_of(&self, start: usize) -> usize {
        let rest = self.ahead.get(start..).unwrap_or_default();
        rest.iter().position(|byte| *byte == b'\n').map_or(self.ahead.len(), |length| start + length)
    }

    const fn go_to(&mut self, at: usize, lines: u64) {
        self.at = at;
        self.number += lines;
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain_text::PlainText;
    use super::*;
    use proptest::prelude::*;
    use std::borrow::Cow;
    use std::io::BufReader;

    const A: &str = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07";
    const B: &str = "7B1F4967D9728E5AA3C06A9E617A22A4A5A17378";

    /// First line, whether it is too long, fields.
    type Plain = (u64, bool, Vec<String>);

    fn all(input: &[u8], separator: u8, buffer: usize, columns: Option<Columns>) -> Vec<Plain> {
        let text = PlainText::new(BufReader::with_capacity(buffer, input));
        let mut records = Records::new(text, separator, 0).unwrap();
        records.columns = columns;
        let mut record = Record::default();
        let mut all = Vec::new();
        while records.next(&mut record).unwrap() {
            all.push((record.line, record.is_too_long, record.fields().map(Cow::into_owned).collect()));
            assert!(record.capacity() <= 4 * LINE_MAX && records.ahead.capacity() <= 8 * LINE_MAX);
        }
        all
    }

    /// The records of a table whose machines stand in the second of three columns.
    fn plain(input: &str) -> Vec<Plain> {
        all(input.as_bytes(), b',', 4096, Some(Columns { machine: 1, count: 3 }))
    }

    fn record(line: u64, fields: &[&str]) -> Plain {
        (line, false, fields.iter().map(|field| (*field).to_owned()).collect())
    }

    #[test]
    fn records_know_their_first_line_whatever_the_buffer() {
        let text = "a,b\r\n\r\n\"x\r\ny\",\"say \"\"hi\"\"\"\r\n  \t\nlast,\"\"";
        let expected = [record(1, &["a", "b"]), record(3, &["x\ny", "say \"hi\""]), record(6, &["last", ""])];
        for buffer in [1, 2, 5, 512] {
            assert_eq!(all(text.as_bytes(), b',', buffer, None), expected);
            assert_eq!(all(text.replace("\r\n", "\r").as_bytes(), b',', buffer, None), expected);
        }
    }

    #[test]
    fn separators_alone_are_content_unless_they_are_tabs() {
        assert_eq!(plain(",,\n"), [record(1, &["", "", ""])]);
        assert!(all(b"\t\t\n", b'\t', 8, None).is_empty());
        assert_eq!(plain("\"\"\n"), [record(1, &[""])]);
        assert_eq!(plain("\0\n").len(), 1);
    }

    #[test]
    fn quote_that_is_never_closed_is_text() {
        assert_eq!(plain("a\n\"b\nc\n"), [record(1, &["a"]), record(2, &["\"b"]), record(3, &["c"])]);
        assert_eq!(plain("x,\"a,\"\"b\n"), [record(1, &["x", "\"a", "\"\"b"])]);
    }

    #[test]
    fn no_machine_is_swallowed_by_a_quote() {
        let text = format!("a,{A},\"24 inch\nb,{B},x\nc,{A},\"27 inch\nd,{B},y\n");
        let name = |line: usize| plain(&text)[line].2[2].clone();
        assert_eq!((plain(&text).len(), name(0), name(2)), (4, "\"24 inch".to_owned(), "\"27 inch".to_owned()));
        // Before the machine column; in it; and the quote that closes opens nothing.
        for text in [
            format!("\"24 inch,{A}\nb,{B}\n\"27 inch,{A}\n"),
            format!("a,\"{A}\nb,{B}\nc,{A}\"\n"),
            format!("a,{A},\"\nb,{B}\n\"c,d\",{A},x\n"),
            format!("a,{A},\"24\n\"b\", c\",{B},y\nd,{A}\n"),
        ] {
            let lines: Vec<_> = plain(&text).into_iter().map(|(line, ..)| line).collect();
            assert_eq!(lines, [1, 2, 3], "{text}");
        }
    }

    #[test]
    fn cells_of_several_lines_stay_one_record() {
        for text in [
            format!("a,{A},\"x\ny\n\nz\"\nb,{B},x\n"),
            format!("\"a\nroom 7\",{A},x\nb,{B},x\n"),
            format!("a,\"{A}\n\",x\nb,{B},x\n"),
            format!("a,{A},\"see\n{B} or not\"\nb,{B},x\n"),
            format!("\"a\nb\",none,\"x\ny\"\nb,{B},x\n"),
        ] {
            assert_eq!(plain(&text).len(), 2, "{text}: {:?}", plain(&text));
            assert_eq!(plain(&text)[1].2, ["b", B, "x"], "{text}");
        }
    }

    #[test]
    fn after_a_loose_quote_cells_of_several_lines_are_one_record_again() {
        let text = format!("x,\"\na,{A},\"x\ny\"\nb,{B},x\n");
        let lines: Vec<_> = plain(&text).into_iter().map(|(line, ..)| line).collect();
        assert_eq!(lines, [1, 2, 4]);
    }

    #[test]
    fn quotes_that_open_on_every_line_are_read_in_linear_time() {
        // Each line is open read alone and read on: 4 MiB would take hours if each began anew.
        let text = format!("{}a,{A}\n", "x\",\"y\n".repeat(1 << 19));
        let all = plain(&text);
        assert_eq!(all.len(), (1 << 19) + 1);
        assert_eq!(all.last().unwrap().2, ["a", A]);
    }

    #[test]
    fn the_longest_record_is_taken_whatever_ends_it() {
        for end in ["\n", "\r\n", "\r", ""] {
            let all = plain(&format!("{}{end}", "x".repeat(LINE_MAX)));
            assert_eq!((all[0].1, all[0].2[0].len()), (false, LINE_MAX), "{end:?}");
            let all = plain(&format!("\"{}\n\"{end}", "x".repeat(LINE_MAX - 4)));
            assert_eq!((all.len(), all[0].2[0].len()), (1, LINE_MAX - 3), "{end:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_one_record() {
        let long = "x".repeat(1 << 20);
        for (text, records) in [
            (format!("{long}\nnext"), 2),
            (format!("\"{long}\n{long}\"\nnext"), 3),
            (format!("{}\nnext", ",".repeat(1 << 20)), 2),
            (format!("{long}\n\"a\n{long}\nnext"), 4),
        ] {
            let all = plain(&text);
            assert_eq!(all.len(), records);
            assert!(all[0].1);
            assert_eq!(all.last().unwrap(), &record(records as u64, &["next"]));
        }
        // Lines that are not too long, in a record that is.
        let all = plain(&format!("\"{}\"\nnext", "x\n".repeat(LINE_MAX)));
        assert_eq!((all.len(), all[0].2[0].as_str(), all[0].1), (LINE_MAX + 2, "\"x", false));
    }

    /// Whether a quote is open at the end.
    fn is_open(text: &str) -> bool {
        let mut state = State::Start;
        let mut record = Record::default();
        for line in text.split('\n') {
            let begin = if state == State::Quoted { State::Quoted } else { State::Start };
            state = record.read(line.trim_end_matches('\r').as_bytes(), b',', begin, &mut None);
        }
        state == State::Quoted
    }

    proptest! {
        #[test]
        fn the_csv_crate_reads_the_same(text in "[ab,\" ]{0,6}(\r?\n[ab,\"\n ]{0,8}){0,6}") {
            // A quote that is never closed is text here, and swallows the rest there.
            prop_assume!(!is_open(&text));
            let unix = text.replace("\r\n", "\n");
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(unix.as_bytes());
            let theirs: Vec<Vec<String>> = reader
                .records()
                .map(|record| record.unwrap().iter().map(str::to_owned).collect())
                .filter(|fields: &Vec<String>| fields.len() != 1 || !fields[0].trim().is_empty())
                .collect();
            let ours: Vec<Vec<String>> = plain(&text)
                .into_iter()
                .map(|(_, _, fields)| fields)
                .filter(|fields| fields.len() != 1 || !fields[0].trim().is_empty())
                .collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}
