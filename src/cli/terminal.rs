//! What standard output and standard error are: a terminal or not, how wide, and whether it shows colours. The one
//! place that decides about colour: it is given to words that say the same without it.

use std::ffi::OsString;
use std::fmt;
use std::io::{IsTerminal, stdout};

use terminal_size::{Height, Width, terminal_size_of};

use crate::domain::shown::is_shapeless;

/// What is assumed of a terminal that does not tell its size.
const USUAL: Size = Size { columns: 80, lines: 24 };

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub lines: usize,
}

/// The size of the terminal that standard output is; none where it is none. Standard error does not count: its
/// width is nothing to what goes into a pipe.
pub fn size() -> Option<Size> {
    let out = stdout();
    if !out.is_terminal() {
        return None;
    }
    let told = terminal_size_of(&out).map(|(Width(columns), Height(lines))| (columns.into(), lines.into()));
    Some(size_from(told, |name| std::env::var(name).ok()))
}

/// The kernel knows of a resize, the environment does not: it is asked where the kernel knows nothing.
fn size_from(told: Option<(usize, usize)>, variable: impl Fn(&str) -> Option<String>) -> Size {
    let number = |name: &str| variable(name).and_then(|text| text.parse().ok()).filter(|n: &usize| *n > 0);
    told.map_or_else(
        || Size { columns: number("COLUMNS").unwrap_or(USUAL.columns), lines: number("LINES").unwrap_or(USUAL.lines) },
        |(columns, lines)| Size { columns, lines },
    )
}

/// Whether the terminal obeys sequences that move the cursor and choose colours.
pub fn obeys(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && is_able(|name| std::env::var_os(name))
}

fn is_able(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|name| !name.is_empty() && name != "dumb")
}

/// Whether what goes there is coloured: on a terminal that is able to, unless `NO_COLOR` is set to anything.
pub fn is_coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && is_wanted(|name| std::env::var_os(name))
}

fn is_wanted(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    is_able(&variable) && variable("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What a colour stands for; never alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Plain,
    Heading,
    Good,
    Attention,
    Bad,
}

impl Ink {
    /// The ink of a state of a job or a sweep, or of a status of Defender's.
    pub fn of_state(word: &str) -> Self {
        match word {
            "succeeded" | "Succeeded" | "granted" => Self::Good,
            "failed" | "Failed" | "timed_out" | "TimeOut" | "rejected" | "needs_review" | "missing" | "refused" => {
                Self::Bad
            }
            "held" | "skipped" | "cancelled" | "Cancelled" | "unreachable" | "unknown" => Self::Attention,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "1",
            Self::Good => "32",
            Self::Attention => "33",
            Self::Bad => "31",
        }
    }
}

/// Paints, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// For standard output.
    pub fn of_stdout() -> Self {
        Self(is_coloured(&stdout()))
    }

    /// None at all.
    pub const NONE: Self = Self(false);

    #[cfg(test)]
    pub const ALL: Self = Self(true);

    /// The text in this ink.
    pub fn ink<T: fmt::Display>(self, ink: Ink, text: T) -> Inked<T> {
        Inked { code: if self.0 { ink.code() } else { "" }, text }
    }
}

/// A text and its colour.
#[derive(Clone, Copy, Debug)]
pub struct Inked<T> {
    code: &'static str,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Inked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            return self.text.fmt(f);
        }
        write!(f, "\x1b[{}m{}\x1b[0m", self.code, self.text)
    }
}

/// The text without what a terminal would obey: names come from files and from Defender.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if is_shapeless(c) { '\u{fffd}' } else { c }).collect()
}

/// The same of a text of several lines, which may be painted: only line ends and the inks of this module are left.
pub fn tame_text(text: &str) -> String {
    const INKS: [&str; 5] = ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let ink = INKS.iter().find_map(|ink| Some((*ink, rest.strip_prefix(ink)?)));
        let (_, after) = rest.split_at(c.len_utf8());
        match ink {
            Some((ink, after)) => {
                tamed.push_str(ink);
                rest = after;
                continue;
            }
            None => tamed.push(if c != '\n' && is_shapeless(c) { '\u{fffd}' } else { c }),
        }
        rest = after;
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wanted_with(term: Option<&str>, no_color: Option<&str>) -> bool {
        is_wanted(|name| if name == "TERM" { term } else { no_color }.map(OsString::from))
    }

    #[test]
    fn colour_is_for_terminals_that_can_and_people_who_want() {
        assert!(is_wanted_with(Some("xterm-256color"), None));
        assert!(is_wanted_with(Some("xterm"), Some("")), "an empty NO_COLOR is none");
        assert!(!is_wanted_with(Some("xterm"), Some("1")));
        assert!(!is_wanted_with(Some("xterm"), Some("0")), "whatever it is set to");
        assert!(!is_wanted_with(Some("dumb"), None));
        assert!(!is_wanted_with(None, None));
    }

    #[test]
    fn the_kernel_tells_the_size_else_the_environment_else_it_is_the_usual() {
        let none = |_: &str| None;
        let some = |name: &str| (name == "COLUMNS").then(|| "132".to_owned());
        assert_eq!(size_from(Some((100, 40)), some), Size { columns: 100, lines: 40 });
        assert_eq!(size_from(None, some), Size { columns: 132, lines: 24 });
        assert_eq!(size_from(None, none), USUAL);
        assert_eq!(size_from(None, |_| Some("none".to_owned())), USUAL);
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(tame("a\x1b[2Jb\u{9b}c\td"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(tame("exe.\u{202e}txt\u{2066}"), "exe.\u{fffd}txt\u{fffd}", "nor what is read first");
        assert_eq!(
            tame_text("\x1b[31mbad\x1b[0m\r\n\x1b]0;title\x07ä"),
            "\x1b[31mbad\x1b[0m\u{fffd}\n\u{fffd}]0;title\u{fffd}ä"
        );
        for ink in [Ink::Heading, Ink::Good, Ink::Attention, Ink::Bad] {
            let painted = Paint::ALL.ink(ink, "word").to_string();
            assert_eq!(tame_text(&painted), painted, "{ink:?}");
        }
    }

    #[test]
    fn every_ink_leaves_the_words_as_they_are() {
        let (plain, red) = (Paint::NONE.ink(Ink::Bad, "failed"), Paint::ALL.ink(Ink::Bad, "failed"));
        assert_eq!((plain.to_string(), red.to_string()), ("failed".to_owned(), "\x1b[31mfailed\x1b[0m".to_owned()));
    }
}
