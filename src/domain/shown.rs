//! What may be shown of words that others wrote: names of files and devices, comments, answers.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a character has no shape: a terminal obeys it, or it hides, or turns the direction of, what stands beside it.
pub fn is_shapeless(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Words of others on one line: at most so many characters, none that a terminal obeys.
pub fn on_one_line(words: &str, most: usize) -> String {
    let plain: String = words.chars().map(|c| if is_shapeless(c) { ' ' } else { c }).collect();
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        None => line,
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default().trim_end()),
    }
}

/// A path as log lines and messages show it: always one line, and no two paths look the same.
///
/// A dropper chooses the names of files. A line break in a name would forge a log line; an escape sequence would steer
/// the terminal of the operator who reads it. Both are written as Rust writes them (`\n`, `\u{1b}`), bytes that are no
/// UTF-8 as `\xff`, and a backslash as two. `Path::display` escapes nothing, so clippy.toml forbids it.
#[derive(Clone, Copy)]
pub struct ShownPath<'a>(&'a OsStr);

impl<'a> ShownPath<'a> {
    /// The path, or the name of a file, to be shown.
    pub fn new(path: &'a (impl AsRef<Path> + ?Sized)) -> Self {
        Self(path.as_ref().as_os_str())
    }
}

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '\\' || is_shapeless(c) { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// As it is displayed: `?` in a log field must not show more than `%`.
impl fmt::Debug for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        ShownPath::new(OsStr::from_bytes(bytes)).to_string()
    }

    #[test]
    fn usual_path_is_shown_as_it_is() {
        for path in ["/var/lib/sweepd/spool/incoming", "weekly list (2).csv", "Größe/北京.txt", ""] {
            assert_eq!(shown(path.as_bytes()), path);
        }
    }

    #[test]
    fn path_that_would_steer_a_terminal_is_escaped() {
        for (path, expected) in [
            (&b"a\nb\rc\td"[..], r"a\nb\rc\td"),
            (b"\x1b[2Jx\x7f", r"\u{1b}[2Jx\u{7f}"),
            ("exe.\u{202e}txt\u{200b}\u{9b}".as_bytes(), r"exe.\u{202e}txt\u{200b}\u{9b}"),
            (b"caf\xe9.txt\xff", r"caf\xe9.txt\xff"),
        ] {
            let shown = shown(path);
            assert_eq!(shown, expected);
            assert!(!shown.chars().any(is_shapeless), "{shown}");
        }
    }

    #[test]
    fn two_different_paths_never_look_the_same() {
        assert_ne!(shown(b"a\nb"), shown(br"a\nb"));
        assert_ne!(shown(b"a\xff"), shown(br"a\xff"));
        assert_ne!(shown(b"\x1b"), shown(br"\u{1b}"));
    }
}
