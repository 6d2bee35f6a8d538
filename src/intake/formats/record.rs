//! One CSV record, and how a line of it is read.

use std::borrow::Cow;

use super::machine::{Named, named};

/// One record. Reused from record to record: a million rows should not be a million allocations.
#[derive(Debug, Default)]
pub struct Record {
    /// The physical line on which it starts, from 1.
    pub line: u64,
    /// The physical line on which it ends.
    pub last_line: u64,
    /// Longer than [`LINE_MAX`](super::lines::LINE_MAX): the fields are not to be trusted.
    pub is_too_long: bool,
    /// Whether a quote that is not closed on its line was read as text.
    pub has_loose_quote: bool,
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

    /// The device that the field at `index` names.
    pub fn device(&self, index: usize) -> Option<Named> {
        self.field(index).and_then(|field| named(&field))
    }

    /// Whether any field names a device.
    pub fn has_device(&self) -> bool {
        self.fields().any(|field| named(&field).is_some())
    }

    /// Begins a record on this line.
    pub fn clear(&mut self, line: u64) {
        self.line = line;
        self.last_line = line;
        self.is_too_long = false;
        self.has_loose_quote = false;
        self.bytes.clear();
        self.ends.clear();
    }

    /// Ends a field.
    pub fn end_field(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Goes on to the next line within a quoted field.
    pub fn go_on(&mut self) {
        self.bytes.push(b'\n');
        self.last_line += 1;
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads a line on from `state`, and returns the state at its end; `opened` is its last quote that opens a field.
    pub fn read(&mut self, line: &[u8], separator: u8, mut state: State, opened: &mut Option<Opened>) -> State {
        *opened = None;
        for (at, byte) in line.iter().copied().enumerate() {
            let (next, is_kept) = match (state, byte) {
                (State::Quoted, b'"') => (State::Closing, false),
                (State::Quoted, _) | (State::Closing, b'"') => (State::Quoted, true),
                (State::Start, b'"') => {
                    *opened = Some(Opened { at, bytes: self.bytes.len(), fields: self.ends.len() });
                    (State::Quoted, false)
                }
                _ if byte == separator => {
                    self.end_field();
                    (State::Start, false)
                }
                _ => (State::Plain, true),
            };
            if is_kept {
                self.bytes.push(byte);
            }
            state = next;
        }
        state
    }

    /// Reads a line by itself.
    pub fn read_alone(&mut self, number: u64, line: &[u8], separator: u8) {
        self.clear(number);
        let mut opened = None;
        if self.read(line, separator, State::Start, &mut opened) == State::Quoted
            && let Some(opened) = opened
        {
            self.has_loose_quote = true;
            self.bytes.truncate(opened.bytes);
            self.ends.truncate(opened.fields);
            for byte in line.get(opened.at..).unwrap_or_default() {
                if *byte == separator {
                    self.end_field();
                } else {
                    self.bytes.push(*byte);
                }
            }
        }
        self.end_field();
    }
}

/// Where in a field the reading stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Where a quote would open a quoted field.
    Start,
    Plain,
    Quoted,
    /// After a quote within a quoted field: the end of it, or the first half of a doubled one.
    Closing,
}

/// Where the last quoted field of a line was opened, and what had been read before it.
#[derive(Clone, Copy)]
pub struct Opened {
    /// Where in the line.
    pub at: usize,
    bytes: usize,
    fields: usize,
}
