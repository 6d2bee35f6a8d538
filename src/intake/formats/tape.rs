//! The bytes of a JSON document on their way into the parser, with a watch on their size.
//!
//! The parser keeps each string, and one byte for each open bracket, however many there are. So
//! that a hostile document cannot fill the memory, strings are cut here while they pass, and what
//! is nested too deeply ends the reading.

use std::cell::RefCell;
use std::io::{self, BufRead, Read};

use super::lines::LINE_MAX;

/// Deeper than any document that anybody means; the parser itself gives up at 128.
const DEPTH_MAX: u32 = 100;

/// As much of an entry as is kept to show it in a refusal.
const SHOWN_MAX: usize = 1024;

/// Why a document is not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hostile {
    #[error("it is nested deeper than {DEPTH_MAX} levels")]
    Deep,
    #[error("it is longer than {} KiB", LINE_MAX / 1024)]
    Long,
}

/// What has passed. Shared between the reader, which writes it, and the visitors, which ask.
#[derive(Debug)]
pub struct Tape {
    passed: u64,
    line: u64,
    column: u64,
    fence: u64,
    depth: u32,
    string: Option<Text>,
    last: u8,
    shown: Vec<u8>,
}

impl Default for Tape {
    fn default() -> Self {
        Self { passed: 0, line: 1, column: 0, fence: u64::MAX, depth: 0, string: None, last: b' ', shown: Vec::new() }
    }
}

impl Tape {
    /// How many bytes have passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Where in the document that is: line and column, both from 1.
    pub fn place(&self) -> (u64, u64) {
        (self.line, self.column)
    }

    /// Nothing longer than a record may pass from here on.
    pub fn fence(&mut self) {
        self.fence = self.passed.saturating_add(LINE_MAX as u64);
    }

    /// Takes the fence away.
    pub fn open(&mut self) {
        self.fence = u64::MAX;
    }

    /// Shows from here on, the byte that passed last included: the parser looks one byte ahead.
    pub fn mark(&mut self) {
        self.shown.clear();
        self.shown.push(self.last);
    }

    /// What passed since the mark; the beginning of it, when it is long.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Lets a byte pass; `false` when it belongs to the cut part of a string.
    fn pass(&mut self, byte: u8) -> Result<bool, Hostile> {
        self.passed += 1;
        if byte == b'\n' {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
        if self.passed > self.fence {
            return Err(Hostile::Long);
        }
        let keep = match self.string.as_mut().map(|text| text.step(byte)) {
            Some(Step::Keep) => true,
            Some(Step::Drop) => false,
            Some(Step::End) => {
                self.string = None;
                true
            }
            None => {
                match byte {
                    b'"' => self.string = Some(Text::default()),
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                true
            }
        };
        if self.depth > DEPTH_MAX {
            return Err(Hostile::Deep);
        }
        if keep {
            self.last = byte;
            if self.shown.len() < SHOWN_MAX {
                self.shown.push(byte);
            }
        }
        Ok(keep)
    }
}

/// A string that is open.
#[derive(Debug, Default)]
struct Text {
    kept: usize,
    escape: Escape,
    /// The last character was the first half of a surrogate pair, which must not be torn.
    half: bool,
    cut: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Backslash,
    /// Digits seen, and their value.
    Unicode(u8, u16),
}

enum Step {
    Keep,
    Drop,
    End,
}

impl Text {
    /// Cuts between characters only, so that what is left is still a string.
    fn step(&mut self, byte: u8) -> Step {
        let within = self.escape != Escape::None || self.half || byte & 0xC0 == 0x80;
        self.cut |= self.kept >= LINE_MAX && !within && byte != b'"';
        match self.escape {
            Escape::None => match byte {
                b'"' => return Step::End,
                b'\\' => self.escape = Escape::Backslash,
                _ => self.half = false,
            },
            Escape::Backslash if byte == b'u' && !self.cut => self.escape = Escape::Unicode(0, 0),
            Escape::Backslash => {
                self.escape = Escape::None;
                self.half = false;
            }
            Escape::Unicode(seen, value) => {
                let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
                let value = value << 4 | digit.unwrap_or(0);
                self.escape = Escape::Unicode(seen + 1, value);
                if seen == 3 || digit.is_none() {
                    self.escape = Escape::None;
                    self.half = (0xD800..0xDC00).contains(&value);
                }
            }
        }
        if self.cut {
            return Step::Drop;
        }
        self.kept += 1;
        Step::Keep
    }
}

/// Reads through a [`Tape`].
pub struct Watched<'a, R> {
    input: R,
    tape: &'a RefCell<Tape>,
}

impl<'a, R: BufRead> Watched<'a, R> {
    /// Everything that is read from `input` passes `tape`.
    pub fn new(input: R, tape: &'a RefCell<Tape>) -> Self {
        Self { input, tape }
    }
}

impl<R: BufRead> Read for Watched<'_, R> {
    /// One byte at a time, which is how the parser asks: what it has not asked for has not passed.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(slot) = buffer.first_mut() else {
            return Ok(0);
        };
        let mut tape = self.tape.borrow_mut();
        loop {
            let Some(byte) = self.input.fill_buf()?.first().copied() else {
                return Ok(0);
            };
            self.input.consume(1);
            if tape.pass(byte).map_err(|hostile| io::Error::new(io::ErrorKind::InvalidData, hostile))? {
                *slot = byte;
                return Ok(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(input: &[u8]) -> Vec<u8> {
        let tape = RefCell::new(Tape::default());
        let mut all = Vec::new();
        Watched::new(input, &tape).read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn ordinary_documents_pass_untouched() {
        let text = r#"{"a\"}\\":["\ud83d\ude00 é",1,{"b":null}]} "#.as_bytes();
        assert_eq!(through(text), text);
    }

    #[test]
    fn long_strings_are_cut_between_characters() {
        for unit in ["x", "é", "😀", "\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00"] {
            for shift in ["", "y", "yy", "yyy"] {
                let text = format!("[\"{shift}{}\",\"next\"]", unit.repeat(LINE_MAX));
                let passed = through(text.as_bytes());
                assert!(passed.len() < LINE_MAX + 64, "{unit}");
                let read: Vec<String> = serde_json::from_slice(&passed).unwrap();
                assert_eq!(read[1], "next");
            }
        }
    }

    #[test]
    fn half_a_pair_keeps_nothing_from_being_cut() {
        let passed = through(format!("[\"\\ud83d{}\",\"next\"]", "x".repeat(1 << 20)).as_bytes());
        assert!(passed.len() < LINE_MAX + 64 && passed.ends_with(b"\",\"next\"]"));
    }

    #[test]
    fn what_was_closed_is_no_depth() {
        let text = format!("[{}[]]", "[{}],".repeat(1000));
        assert_eq!(through(text.as_bytes()), text.as_bytes());
    }

    #[test]
    fn a_fence_lets_the_longest_pass_and_no_more() {
        for (length, passes) in [(LINE_MAX, true), (LINE_MAX + 1, false)] {
            let tape = RefCell::new(Tape::default());
            tape.borrow_mut().fence();
            let read = Watched::new("1".repeat(length).as_bytes(), &tape).read_to_end(&mut Vec::new());
            assert_eq!(read.is_ok(), passes, "{length}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let tape = RefCell::new(Tape::default());
        let error = Watched::new("[".repeat(1000).as_bytes(), &tape).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.get_ref().unwrap().is::<Hostile>());
        assert_eq!(tape.borrow().passed(), u64::from(DEPTH_MAX) + 1);
    }
}
