//! Text with one kind of line end, whichever kinds the file has.
//!
//! CRLF, LF and a lone CR each end a line, in every format and in one file too: the readers behind this see LF alone,
//! so that no format counts its lines in a way of its own. What programs leave at the ends of files that others glue
//! together is dropped here for the same reason: a byte order mark at the beginning of a line, and a Ctrl-Z at either
//! end of one.

use std::io::{self, BufRead, Read};

/// The byte order mark in UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Ctrl-Z, the end of a file for DOS and for `copy a+b`.
const CTRL_Z: u8 = 0x1a;

/// The longest run of Ctrl-Z that may be such an end: CP/M fills a sector of 128 bytes. A longer one is content.
const MAX_CTRL_Z: usize = 128;

/// Reads text, and counts its lines.
#[derive(Debug)]
pub struct PlainText<R> {
    input: R,
    line: Line,
    used: usize,
}

/// The line that is being read.
#[derive(Debug)]
struct Line {
    /// What has been read and not been asked for.
    ready: Vec<u8>,
    place: Place,
    /// How much of a byte order mark has passed at the beginning.
    mark: usize,
    /// Ctrl-Z that passed: dropped if the line ends here.
    ctrl_z: usize,
    /// How many lines ended before it.
    before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first byte that is kept of a line.
    Start,
    /// The same, after a CR: an LF belongs to it.
    AfterReturn,
    Within,
}

impl<R: BufRead> PlainText<R> {
    /// Reads `input`, which is UTF-8.
    pub const fn new(input: R) -> Self {
        let line = Line { ready: Vec::new(), place: Place::Start, mark: 0, ctrl_z: 0, before: 0 };
        Self { input, line, used: 0 }
    }

    /// How many lines have passed, blank ones included, and a last one without an end.
    pub fn passed_lines(&self) -> u64 {
        self.line.before + u64::from(self.line.place == Place::Within)
    }

    /// Reads on; nothing is ready after it at the end of the input alone.
    fn fill(&mut self) -> io::Result<()> {
        self.line.ready.clear();
        self.used = 0;
        while self.line.ready.is_empty() {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let length = chunk.len();
            if length == 0 {
                self.line.end();
                return Ok(());
            }
            self.line.pass(chunk);
            self.input.consume(length);
        }
        Ok(())
    }
}

impl Line {
    fn pass(&mut self, mut chunk: &[u8]) {
        while let Some((byte, rest)) = chunk.split_first() {
            if self.place != Place::Within {
                self.begin(*byte);
                chunk = rest;
                continue;
            }
            let plain = chunk.iter().position(|byte| matches!(*byte, b'\n' | b'\r' | CTRL_Z)).unwrap_or(chunk.len());
            let (text, rest) = chunk.split_at(plain);
            if !text.is_empty() {
                self.keep(text);
            }
            if let Some((byte, rest)) = rest.split_first() {
                self.special(*byte);
                chunk = rest;
            } else {
                chunk = rest;
            }
        }
    }

    /// Takes the end of the input: half a mark is none, and a Ctrl-Z that is left was the end.
    fn end(&mut self) {
        if self.mark > 0 {
            self.place = Place::Within;
            self.ready.extend(MARK.iter().take(std::mem::take(&mut self.mark)));
        }
        self.ctrl_z = 0;
    }

    /// Takes a byte before which nothing of its line was kept.
    fn begin(&mut self, byte: u8) {
        let after_return = std::mem::replace(&mut self.place, Place::Start) == Place::AfterReturn;
        if self.mark == 0 && after_return && byte == b'\n' {
            return;
        }
        if MARK.get(self.mark) == Some(&byte) {
            self.mark += 1;
            if self.mark == MARK.len() {
                self.mark = 0;
            }
            return;
        }
        let mark = std::mem::take(&mut self.mark);
        if mark > 0 {
            self.place = Place::Within;
            self.ready.extend(MARK.iter().take(mark));
        }
        match byte {
            b'\n' | b'\r' => self.special(byte),
            CTRL_Z if mark == 0 => {}
            CTRL_Z => self.special(byte),
            _ => {
                self.place = Place::Within;
                self.ready.push(byte);
            }
        }
    }

    /// Takes a byte that may end the line.
    fn special(&mut self, byte: u8) {
        if byte == CTRL_Z {
            self.ctrl_z += 1;
            if self.ctrl_z > MAX_CTRL_Z {
                self.keep(&[]);
            }
            return;
        }
        self.ctrl_z = 0;
        self.ready.push(b'\n');
        self.before += 1;
        self.place = if byte == b'\r' { Place::AfterReturn } else { Place::Start };
    }

    /// Keeps text within a line, and what was held back before it.
    fn keep(&mut self, text: &[u8]) {
        self.ready.extend(std::iter::repeat_n(CTRL_Z, std::mem::take(&mut self.ctrl_z)));
        self.ready.extend_from_slice(text);
    }
}

impl<R: BufRead> BufRead for PlainText<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used >= self.line.ready.len() {
            self.fill()?;
        }
        Ok(self.line.ready.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.used = self.used.saturating_add(amount).min(self.line.ready.len());
    }
}

impl<R: BufRead> Read for PlainText<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn plain(input: &str, buffer: usize) -> (String, u64) {
        let mut text = PlainText::new(BufReader::with_capacity(buffer, input.as_bytes()));
        let mut all = String::new();
        text.read_to_string(&mut all).unwrap();
        (all, text.passed_lines())
    }

    #[test]
    fn every_line_end_is_one_whatever_the_buffer() {
        for (input, text, lines) in [
            ("a\nb\r\nc\rd", "a\nb\nc\nd", 4),
            ("a\rb\r", "a\nb\n", 2),
            ("\r\r\n\n\r", "\n\n\n\n", 4),
            ("a\r\r\nb", "a\n\nb", 3),
            ("", "", 0),
            (" ", " ", 1),
        ] {
            for buffer in [1, 2, 3, 64] {
                assert_eq!(plain(input, buffer), (text.to_owned(), lines), "{input:?} by {buffer}");
            }
        }
    }

    #[test]
    fn marks_and_ends_of_glued_files_are_dropped_and_other_content_stays() {
        let long = "\u{1a}".repeat(MAX_CTRL_Z + 1);
        for (input, text, lines) in [
            ("\u{feff}\u{feff}a\r\u{feff}b", "a\nb", 2),
            ("a\u{feff}b\n", "a\u{feff}b\n", 1),
            ("\u{fefe}\n\u{fec0}", "\u{fefe}\n\u{fec0}", 2),
            ("a\n\u{1a}", "a\n", 1),
            ("a\u{1a}\u{1a}", "a", 1),
            ("a\u{1a}\r\n\u{1a}b\u{1a}c", "a\nb\u{1a}c", 2),
            (&format!("a{long}"), &format!("a{long}"), 1),
        ] {
            for buffer in [1, 2, 3, 64] {
                assert_eq!(plain(input, buffer), (text.to_owned(), lines), "{input:?} by {buffer}");
            }
        }
    }

    #[test]
    fn half_a_mark_at_the_end_is_content() {
        let mut all = Vec::new();
        PlainText::new(&MARK[..2]).read_to_end(&mut all).unwrap();
        assert_eq!(all, MARK[..2]);
    }
}
