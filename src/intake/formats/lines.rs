//! Physical lines, read in bounded memory.
//!
//! A dropped file is anybody's file: a line of it may be as long as the file is. What exceeds
//! [`LINE_MAX`] is skipped without being kept, and the reader goes on with the next line.

use std::borrow::Cow;
use std::io::{self, BufRead};

/// The longest line, CSV record or machine object that is read, in bytes. A row takes some hundred.
pub const LINE_MAX: usize = 64 * 1024;

/// One line without its end.
#[derive(Debug)]
pub struct Physical<'a> {
    /// Counted from 1, blank lines and comments included: what an editor shows.
    pub number: u64,
    /// What stands in it; only its beginning when it was too long.
    pub text: Cow<'a, str>,
    /// Whether it exceeded [`LINE_MAX`].
    pub too_long: bool,
}

/// Reads lines that end in LF, as [`PlainText`](super::plain_text::PlainText) has them; the last one may lack its end.
pub struct Lines<R> {
    input: R,
    kept: Vec<u8>,
    /// Whether the whole line, kept or not, is blanks and tabs.
    is_blank: bool,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Starts at line 1.
    pub fn new(input: R) -> Self {
        Self { input, kept: Vec::new(), is_blank: true, number: 0 }
    }

    /// The next line that holds more than blanks and tabs; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Physical<'_>>> {
        while self.advance()? {
            if !self.is_blank {
                let text = String::from_utf8_lossy(&self.kept);
                return Ok(Some(Physical { number: self.number, text, too_long: self.is_too_long() }));
            }
        }
        Ok(None)
    }

    /// The line that is kept, without its end: the beginning of one that is too long, and nothing if that is blank.
    pub fn kept(&self) -> &[u8] {
        if self.is_blank && self.kept.len() > LINE_MAX { &[] } else { &self.kept }
    }

    /// Whether the line that is kept exceeds [`LINE_MAX`].
    pub const fn is_too_long(&self) -> bool {
        !self.is_blank && self.kept.len() > LINE_MAX
    }

    /// Keeps the next line, at most one byte more than is allowed; `false` at the end.
    pub fn advance(&mut self) -> io::Result<bool> {
        self.kept.clear();
        self.is_blank = true;
        let mut any = false;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let (line, used) = match end {
                Some(end) => (chunk.get(..end).unwrap_or_default(), end + 1),
                None => (chunk, chunk.len()),
            };
            if used == 0 && !any {
                return Ok(false);
            }
            any = true;
            self.is_blank = self.is_blank && is_blank(line);
            // One more than allowed tells "too long".
            let room = (LINE_MAX + 1).saturating_sub(self.kept.len());
            self.kept.extend(line.iter().take(room));
            self.input.consume(used);
            if end.is_some() || used == 0 {
                self.number += 1;
                return Ok(true);
            }
        }
    }
}

/// Whether there is nothing but blanks and tabs. NULs and other control characters are content:
/// a line of them is wrong, and is said to be.
pub fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::super::plain_text::PlainText;
    use super::*;
    use std::io::BufReader;

    fn lines(input: &[u8], buffer: usize) -> Vec<(u64, String, bool)> {
        let mut lines = Lines::new(PlainText::new(BufReader::with_capacity(buffer, input)));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.text.into_owned(), line.too_long));
        }
        assert!(lines.kept.capacity() <= 2 * (LINE_MAX + 1));
        all
    }

    #[test]
    fn lines_keep_their_physical_number_whatever_the_buffer() {
        let expected = [(1, "a"), (3, "b\0"), (6, " c")].map(|(n, t)| (n, t.to_owned(), false));
        for buffer in [1, 2, 3, 64] {
            assert_eq!(lines(b"a\r\n\nb\0\n \t\n\r\n c", buffer), expected);
            assert_eq!(lines(b"a\n\nb\0\r\n \t\r\n\n c\n", buffer), expected);
            assert_eq!(lines(b"a\r\rb\0\r \t\r\r c\r", buffer), expected);
            assert_eq!(lines(b"a\r\n\rb\0\n \t\r\n\r c", buffer), expected);
            assert!(lines(b"", buffer).is_empty());
            assert!(lines(b"\n \r\n", buffer).is_empty());
        }
    }

    #[test]
    fn what_is_too_long_is_one_line_and_the_next_one_is_read() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("{}{end}{}{end}next", "x".repeat(1 << 20), "y".repeat(LINE_MAX));
            let lines = lines(text.as_bytes(), 4096);
            assert_eq!(lines.len(), 3);
            assert!(lines[0].2);
            assert_eq!((lines[1].1.len(), lines[1].2), (LINE_MAX, false));
            assert_eq!(lines[2], (3, "next".to_owned(), false));
        }
    }

    #[test]
    fn nothing_hides_behind_what_is_kept_of_a_line() {
        let full = "x".repeat(LINE_MAX);
        for (end, too_long, all) in
            [("\r\n", false, 1), ("\r\r\n", false, 1), ("\ry\n", false, 2), ("\r\ry\n", false, 2), ("y\r\n", true, 1)]
        {
            for buffer in [1, 4096] {
                let lines = lines(format!("{full}{end}").as_bytes(), buffer);
                assert_eq!((lines[0].2, lines.len()), (too_long, all), "{end:?}");
            }
        }
    }

    #[test]
    fn what_stands_behind_many_blanks_is_content() {
        let blanks = " ".repeat(2 * LINE_MAX);
        assert_eq!(lines(format!("{blanks}x\n{blanks}\ny").as_bytes(), 64).len(), 2);
    }

    #[test]
    fn nuls_are_content() {
        assert_eq!(lines(b"\0\0\n", 8).len(), 1);
    }
}
