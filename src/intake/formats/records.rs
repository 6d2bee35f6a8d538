//! CSV records, cut out of a stream in bounded memory.
//!
//! RFC 4180 as the `csv` crate reads it (a test holds the two together), with three differences
//! that a drop folder needs: a record has a longest length, a quote that nobody closes is noticed,
//! and each record knows the physical line it starts on.

use std::borrow::Cow;
use std::io::{self, BufRead};

use super::lines::LINE_MAX;

/// Why a record cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Longer than [`LINE_MAX`].
    TooLong,
    /// A quoted field that the end of the file closes.
    OpenQuote,
}

/// One record. Reused from record to record: a million rows should not be a million allocations.
#[derive(Debug, Default)]
pub struct Record {
    /// The physical line on which it starts, from 1.
    pub line: u64,
    /// The physical line on which it ends.
    pub last_line: u64,
    /// Set when the fields are not to be trusted.
    pub broken: Option<Broken>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Record {
    /// The field at `index`, without its quotes.
    pub fn field(&self, index: usize) -> Option<Cow<'_, str>> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..end).map(String::from_utf8_lossy)
    }

    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = Cow<'_, str>> {
        (0..self.ends.len()).filter_map(|index| self.field(index))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn clear(&mut self, line: u64) {
        self.line = line;
        self.last_line = line;
        self.broken = None;
        self.bytes.clear();
        self.ends.clear();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Where a quote would open a quoted field.
    Start,
    Plain,
    Quoted,
    /// After a quote within a quoted field: the end of it, or the first half of a doubled one.
    Closing,
}

/// Reads records that end in LF or CRLF; the last one may lack its end.
pub struct Records<R> {
    input: R,
    separator: u8,
    line: u64,
    state: State,
    /// Bytes of the record so far, as they stand in the file.
    raw: usize,
    /// Whether any of them is more than a blank, a tab or a line's end.
    content: bool,
}

impl<R: BufRead> Records<R> {
    /// Starts at line 1.
    pub fn new(input: R, separator: u8) -> Self {
        Self { input, separator, line: 1, state: State::Start, raw: 0, content: false }
    }

    /// The next record that holds more than blanks and tabs; `false` at the end.
    pub fn next(&mut self, record: &mut Record) -> io::Result<bool> {
        loop {
            record.clear(self.line);
            self.state = State::Start;
            self.raw = 0;
            self.content = false;
            self.cut(record)?;
            if self.content {
                return Ok(true);
            }
            if self.raw == 0 {
                return Ok(false);
            }
        }
    }

    /// Reads up to the end of one record.
    fn cut(&mut self, record: &mut Record) -> io::Result<()> {
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                if self.state == State::Quoted {
                    record.broken = Some(Broken::OpenQuote);
                }
                if self.raw > 0 {
                    end_field(self.state, record);
                }
                return Ok(());
            }
            let mut used = 0;
            let mut done = false;
            for byte in chunk {
                used += 1;
                self.raw += 1;
                record.last_line = self.line;
                self.content |= !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
                if *byte == b'\n' {
                    self.line += 1;
                }
                let keep = self.raw <= LINE_MAX + 1;
                if step(&mut self.state, *byte, self.separator, record, keep) {
                    done = true;
                    break;
                }
            }
            self.input.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

/// Takes one byte; `true` when the record has ended. What is not to be kept still moves the state,
/// so that the end of a record that is too long is found.
fn step(state: &mut State, byte: u8, separator: u8, record: &mut Record, keep: bool) -> bool {
    let quoted = *state == State::Quoted;
    if byte == b'\n' && !quoted {
        end_field(*state, record);
        return true;
    }
    if !keep {
        record.broken = Some(Broken::TooLong);
    }
    let (next, kept) = match (*state, byte) {
        (State::Quoted, b'"') => (State::Closing, false),
        (State::Quoted, _) | (State::Closing, b'"') => (State::Quoted, true),
        (State::Start, b'"') => (State::Quoted, false),
        _ if byte == separator => {
            if keep {
                end_field(*state, record);
            }
            (State::Start, false)
        }
        _ => (State::Plain, true),
    };
    if kept && keep {
        record.bytes.push(byte);
    }
    *state = next;
    false
}

fn end_field(state: State, record: &mut Record) {
    let start = record.ends.last().copied().unwrap_or(0);
    if state == State::Plain && record.bytes.len() > start && record.bytes.last() == Some(&b'\r') {
        record.bytes.pop();
    }
    record.ends.push(record.bytes.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    type Plain = (u64, Option<Broken>, Vec<String>);

    fn records(input: &[u8], separator: u8, buffer: usize) -> Vec<Plain> {
        let mut records = Records::new(BufReader::with_capacity(buffer, input), separator);
        let mut record = Record::default();
        let mut all = Vec::new();
        while records.next(&mut record).unwrap() {
            all.push((record.line, record.broken, record.fields().map(Cow::into_owned).collect()));
            assert!(record.bytes.capacity() <= 4 * LINE_MAX);
        }
        all
    }

    fn plain(input: &str) -> Vec<Plain> {
        records(input.as_bytes(), b',', 4096)
    }

    fn record(line: u64, fields: &[&str]) -> Plain {
        (line, None, fields.iter().map(|field| (*field).to_owned()).collect())
    }

    #[test]
    fn records_know_their_first_line_whatever_the_buffer() {
        let text = "a,b\r\n\r\n\"x\r\ny\",\"say \"\"hi\"\"\"\r\n  \t\nlast,\"\"";
        let expected = [record(1, &["a", "b"]), record(3, &["x\r\ny", "say \"hi\""]), record(6, &["last", ""])];
        for buffer in [1, 2, 5, 512] {
            assert_eq!(records(text.as_bytes(), b',', buffer), expected);
        }
    }

    #[test]
    fn separators_alone_are_content_unless_they_are_tabs() {
        assert_eq!(plain(",,\n"), [record(1, &["", "", ""])]);
        assert!(records(b"\t\t\n", b'\t', 8).is_empty());
        assert_eq!(plain("\"\"\n"), [record(1, &[""])]);
        assert_eq!(plain("\0\n").len(), 1);
    }

    #[test]
    fn an_open_quote_is_noticed() {
        let all = plain("a\n\"b\nc\n");
        assert_eq!(all[1], (2, Some(Broken::OpenQuote), vec!["b\nc\n".to_owned()]));
    }

    #[test]
    fn a_carriage_return_within_quotes_is_content() {
        assert_eq!(plain("\"x\r\",y\r\n\"z\r\"\r\n"), [record(1, &["x\r", "y"]), record(2, &["z\r"])]);
    }

    #[test]
    fn the_longest_record_is_taken_whatever_ends_it() {
        for end in ["\n", "\r\n", ""] {
            let all = plain(&format!("{}{end}", "x".repeat(LINE_MAX)));
            assert_eq!((all[0].1, all[0].2[0].len()), (None, LINE_MAX), "{end:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_one_record() {
        let long = "x".repeat(1 << 20);
        for text in
            [format!("{long}\nnext"), format!("\"{long}\n{long}\"\nnext"), format!("{}\nnext", ",".repeat(1 << 20))]
        {
            let all = plain(&text);
            assert_eq!(all.len(), 2);
            assert_eq!(all[0].1, Some(Broken::TooLong));
            assert_eq!((all[1].1, &all[1].2), (None, &vec!["next".to_owned()]));
        }
    }

    proptest! {
        #[test]
        fn the_csv_crate_reads_the_same(text in "[ab,\" ]{0,6}(\r?\n[ab,\"\n ]{0,8}){0,6}") {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
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
