//! Tables. On a terminal they fit its width: long names and ids end in `…`, columns that matter least are left out
//! by name, and where even that is too much each row is a block. Elsewhere nothing is cut and no line ends in blanks.
//!
//! Rows are written as they come. The first of them tell the widths, so a list of a million takes no more memory
//! than one of a thousand, and begins at once.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::terminal::{self, Ink, Paint, tame};

/// So many rows tell the widths.
const MEASURED: usize = 500;
/// Between two columns.
const GAP: usize = 2;
/// What ends a text that goes on.
const MARK: &str = "…";
/// How wide what is wrapped may make a table where no terminal tells.
const READABLE: usize = 110;

/// What may be done to a column so that the table fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Nothing.
    Whole,
    /// Nothing; aligned at its right end.
    Number,
    /// Nothing; coloured by what it says.
    State,
    /// It may be cut to so many characters, its mark among them.
    Cut(usize),
    /// It goes on in the next line, at blanks.
    Wrapped,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    fit: Fit,
    /// Columns with a rank may be left out, the highest first.
    rank: u8,
}

/// A column that is shown as it is.
pub const fn whole(head: &'static str) -> Column {
    Column { head, fit: Fit::Whole, rank: 0 }
}

/// A column of numbers.
pub const fn number(head: &'static str) -> Column {
    Column { head, fit: Fit::Number, rank: 0 }
}

/// A column of states, or other words that are good or bad.
pub const fn state(head: &'static str) -> Column {
    Column { head, fit: Fit::State, rank: 0 }
}

/// A column of names.
pub const fn name(head: &'static str) -> Column {
    Column { head, fit: Fit::Cut(10), rank: 0 }
}

/// A column of ids, whose beginning is enough for every command.
pub const fn id(head: &'static str) -> Column {
    Column { head, fit: Fit::Cut(14), rank: 0 }
}

/// A column of sentences.
pub const fn words(head: &'static str) -> Column {
    Column { head, fit: Fit::Wrapped, rank: 0 }
}

impl Column {
    /// May be left out on a narrow terminal; a higher rank goes first.
    pub const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    /// What it may be narrowed to from `natural`.
    fn least(&self, natural: usize) -> usize {
        match self.fit {
            Fit::Cut(least) => natural.min(least.max(self.head.width())),
            Fit::Wrapped => natural.min(16.max(self.head.width())),
            Fit::Whole | Fit::Number | Fit::State => natural,
        }
    }
}

/// How the rows are written.
#[derive(Debug)]
enum Layout {
    /// Not known yet.
    Measuring(Vec<Vec<String>>),
    /// The columns that are shown, each with its width.
    Columns(Vec<(usize, usize)>),
    /// A block for each row.
    Blocks,
}

/// A table that is being written.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    layout: Layout,
    /// How wide it may be; none: as wide as it is.
    width: Option<usize>,
    paint: Paint,
}

impl Table {
    /// For standard output.
    pub fn new(columns: &[Column]) -> Self {
        Self::with(columns, terminal::size().map(|size| size.columns), Paint::of_stdout())
    }

    /// For a screen so wide, or for none.
    pub fn with(columns: &[Column], width: Option<usize>, paint: Paint) -> Self {
        let width = width.or_else(|| columns.iter().any(|column| column.fit == Fit::Wrapped).then_some(READABLE));
        Self { columns: columns.to_vec(), layout: Layout::Measuring(Vec::new()), width, paint }
    }

    /// One more row, with a cell for each column.
    pub fn row(&mut self, out: &mut dyn Write, cells: Vec<String>) -> io::Result<()> {
        let cells = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { tame(&cell) }).collect();
        if let Layout::Measuring(rows) = &mut self.layout {
            rows.push(cells);
            return if rows.len() < MEASURED { Ok(()) } else { self.begin(out) };
        }
        self.write(out, &cells)
    }

    /// Sees the last row out.
    pub fn end(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.begin(out)?;
        let Layout::Columns(shown) = &self.layout else { return Ok(()) };
        let is_shown = |n: usize| shown.iter().any(|(column, _)| *column == n);
        let left_out: Vec<_> =
            self.columns.iter().enumerate().filter(|(n, _)| !is_shown(*n)).map(|(_, column)| column.head).collect();
        if left_out.is_empty() {
            return Ok(());
        }
        let note = format!("({} left out: the terminal is narrow; --json has them)", left_out.join(", "));
        wrapped(&note, self.width.unwrap_or(READABLE)).iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Writes what was measured.
    fn begin(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Layout::Measuring(rows) = &mut self.layout else { return Ok(()) };
        let rows = std::mem::take(rows);
        let mut natural: Vec<usize> = self.columns.iter().map(|column| column.head.width()).collect();
        for row in &rows {
            for (width, cell) in natural.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        self.layout = layout(&self.columns, &natural, self.width);
        if matches!(self.layout, Layout::Columns(_)) {
            let heads: Vec<_> = self.columns.iter().map(|column| column.head.to_owned()).collect();
            self.line(out, &heads, Some(Ink::Heading))?;
        }
        rows.iter().try_for_each(|row| self.write(out, row))
    }

    fn write(&self, out: &mut dyn Write, row: &[String]) -> io::Result<()> {
        if !matches!(self.layout, Layout::Blocks) {
            return self.line(out, row, None);
        }
        let widest = self.columns.iter().map(|column| column.head.width()).max().unwrap_or(0);
        let room = self.width.map_or(usize::MAX, |width| width.saturating_sub(widest + GAP).max(1));
        for (column, cell) in self.columns.iter().zip(row) {
            for (n, part) in wrapped(cell, room).iter().enumerate() {
                let head = padded(if n == 0 { column.head } else { "" }, widest, false);
                writeln!(out, "{}  {}", self.paint.ink(Ink::Heading, head), self.paint.ink(ink(*column, cell), part))?;
            }
        }
        writeln!(out)
    }

    /// A row, in as many lines as its longest wrapped cell takes.
    fn line(&self, out: &mut dyn Write, row: &[String], all: Option<Ink>) -> io::Result<()> {
        let Layout::Columns(shown) = &self.layout else { return Ok(()) };
        let mut cells: Vec<(Column, usize, Ink, Vec<String>)> = Vec::new();
        for (n, width) in shown {
            let (Some(column), Some(text)) = (self.columns.get(*n), row.get(*n)) else { continue };
            let parts = match column.fit {
                Fit::Wrapped => wrapped(text, *width),
                // A later row may be longer than those that were measured.
                Fit::Cut(_) if self.width.is_some() => vec![cut(text, *width)],
                _ => vec![text.clone()],
            };
            cells.push((*column, *width, all.unwrap_or_else(|| ink(*column, text)), parts));
        }
        let lines = cells.iter().map(|(.., parts)| parts.len()).max().unwrap_or(0);
        for n in 0..lines {
            let last = cells.iter().rposition(|(.., parts)| parts.get(n).is_some_and(|part| !part.is_empty()));
            for (at, (column, width, ink, parts)) in cells.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
                let text = parts.get(n).map_or("", String::as_str);
                let gap = if at > 0 { GAP } else { 0 };
                let is_number = column.fit == Fit::Number;
                let fill = width.saturating_sub(text.width());
                let (before, after) = if is_number { (fill, 0) } else { (0, fill) };
                let after = if last == Some(at) { 0 } else { after };
                let painted = self.paint.ink(if text.is_empty() { Ink::Plain } else { *ink }, text);
                write!(out, "{:gap$}{:before$}{painted}{:after$}", "", "", "")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

fn ink(column: Column, cell: &str) -> Ink {
    if column.fit == Fit::State { Ink::of_state(cell) } else { Ink::Plain }
}

/// Chooses columns and widths.
fn layout(columns: &[Column], natural: &[usize], width: Option<usize>) -> Layout {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(most) = width else {
        return Layout::Columns(shown.into_iter().zip(natural.iter().copied()).collect());
    };
    let wide = |n: usize| natural.get(n).copied().unwrap_or(0);
    let least = |n: usize| columns.get(n).map_or(0, |column| column.least(wide(n)));
    loop {
        let gaps = GAP * shown.len().saturating_sub(1);
        let mut widths: Vec<usize> = shown.iter().map(|n| wide(*n)).collect();
        let mut surplus = (widths.iter().sum::<usize>() + gaps).saturating_sub(most);
        // A character at a time from what can spare most: long ones become alike before short ones suffer.
        while surplus > 0 {
            let spare = widths.iter_mut().zip(&shown).filter(|(width, n)| **width > least(**n));
            let widest = spare.map(|(width, _)| width).max();
            let Some(widest) = widest else { break };
            *widest -= 1;
            surplus -= 1;
        }
        if surplus == 0 {
            return Layout::Columns(shown.into_iter().zip(widths).collect());
        }
        let rank = |n: &usize| columns.get(*n).map_or(0, |column| column.rank);
        let Some(first) = shown.iter().map(rank).max().filter(|rank| *rank > 0) else { return Layout::Blocks };
        shown.retain(|n| rank(n) != first);
    }
}

/// The text, or its beginning and a mark.
pub fn cut(text: &str, most: usize) -> String {
    if text.width() <= most {
        return text.to_owned();
    }
    let mut left = most.saturating_sub(MARK.width());
    let mut short: String = text
        .chars()
        .take_while(|c| {
            let wide = c.width().unwrap_or(0);
            let fits = wide <= left;
            left = left.saturating_sub(wide);
            fits
        })
        .collect();
    short.push_str(if most == 0 { "" } else { MARK });
    short
}

/// The text with blanks up to this width.
pub fn padded(text: &str, width: usize, right: bool) -> String {
    let fill = " ".repeat(width.saturating_sub(text.width()));
    if right { fill + text } else { text.to_owned() + &fill }
}

/// The text in lines of at most this width, broken at blanks; a longer word within itself.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest = word.to_owned();
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(&rest);
        } else if line.width() + 1 + rest.width() <= width {
            line.push(' ');
            line.push_str(&rest);
        } else {
            lines.push(std::mem::take(&mut rest));
        }
        while let Some(long) = lines.last().filter(|line| line.width() > width).cloned() {
            let mut room = width;
            let at = long.char_indices().find(|(at, c)| {
                let wide = c.width().unwrap_or(0);
                let full = wide > room && *at > 0;
                room = room.saturating_sub(wide);
                full
            });
            let Some((at, _)) = at else { break };
            let (head, tail) = long.split_at(at);
            lines.pop();
            lines.push(head.to_owned());
            lines.push(tail.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 5] = [id("SWEEP"), name("NAME"), state("STATE"), number("OPEN"), whole("RECEIVED").rank(1)];

    fn rows() -> Vec<Vec<String>> {
        [
            [
                "01a2033c-9c6b-739e-8aa6-28b6b12e4ab5",
                "büro-機械-ワークステーション",
                "open",
                "7",
                "2026-11-22 12:30:33 +00:00",
            ],
            ["01a2033c-9c6b-739e-8aa6-28b6b12e4ab6", "", "succeeded", "12345", "2026-11-22 12:30:33 +00:00"],
        ]
        .map(|row| row.map(str::to_owned).to_vec())
        .to_vec()
    }

    fn told(columns: &[Column], rows: Vec<Vec<String>>, width: Option<usize>) -> String {
        let mut table = Table::with(columns, width, Paint::NONE);
        let mut out = Vec::new();
        for row in rows {
            table.row(&mut out, row).unwrap();
        }
        table.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn in_a_pipe_nothing_is_cut_and_no_line_begins_or_ends_with_blanks() {
        let told = told(&COLUMNS, rows(), None);
        for line in told.lines() {
            assert_eq!(line, line.trim(), "{told}");
            assert_eq!(line.split("  ").filter(|cell| !cell.trim().is_empty()).count(), 5, "an empty cell is a dash");
        }
        assert!(told.contains("ワークステーション") && told.contains("28b6b12e4ab6"), "{told}");
    }

    #[test]
    fn wide_characters_take_two_columns_and_what_follows_stands_in_line() {
        let told = told(&COLUMNS, rows(), None);
        let before = |line: &str, word: &str| line.split(word).next().unwrap().width();
        let lines: Vec<_> = told.lines().collect();
        let at = [before(lines[0], "STATE"), before(lines[1], "open"), before(lines[2], "succeeded")];
        assert!(at.iter().all(|other| *other == at[0]), "{at:?} in\n{told}");
        let end = |line: &str, word: &str| before(line, word) + word.len();
        assert_eq!(end(lines[1], "7 "), end(lines[2], "12345 "), "numbers end in line:\n{told}");
    }

    #[test]
    fn at_any_width_no_line_is_longer_and_what_is_cut_or_left_out_is_marked() {
        for width in 40..160 {
            let told = told(&COLUMNS, rows(), Some(width));
            let is_block = told.starts_with("SWEEP  ") && told.lines().nth(1).unwrap().starts_with("NAME");
            for line in told.lines() {
                assert!(line.width() <= width || is_block, "{} > {width}:\n{told}", line.width());
            }
            // Of a block's cells that go on in the next line nothing is lost.
            let whole = told.replace([' ', '\n'], "");
            assert!(whole.contains("28b6b12e4ab5") || told.contains('…'), "{width}:\n{told}");
            assert!(told.contains("12:30:33") || told.contains("(RECEIVED left"), "{width}:\n{told}");
            assert!(told.contains("succeeded") && told.contains("12345"), "{width}:\n{told}");
        }
        let block = told(&COLUMNS, rows(), Some(20));
        assert!(block.lines().all(|line| line.width() <= 20), "{block}");
        let whole = block.replace([' ', '\n'], "");
        assert!(whole.contains("01a2033c-9c6b-739e-8aa6-28b6b12e4ab5"), "{block}");
    }

    #[test]
    fn what_matters_least_is_left_out_first() {
        let columns = [whole("FIRST"), whole("SECOND").rank(2), whole("THIRD").rank(1)];
        let left_out = |width| {
            let told = told(&columns, vec![vec!["x".repeat(20); 3]], Some(width));
            ["FIRST", "SECOND", "THIRD"].map(|head| told.lines().next().unwrap().contains(head))
        };
        assert_eq!(left_out(64), [true, true, true]);
        assert_eq!(left_out(63), [true, false, true]);
        assert_eq!(left_out(41), [true, false, false]);
    }

    #[test]
    fn a_list_of_any_length_is_written_as_it_comes() {
        let mut table = Table::with(&[number("N"), name("NAME")], None, Paint::NONE);
        let mut out = Vec::new();
        for n in 0..MEASURED * 3 {
            table.row(&mut out, vec![n.to_string(), "x".repeat(3 + n / MEASURED * 20)]).unwrap();
            assert!(matches!(&table.layout, Layout::Measuring(rows) if rows.len() < MEASURED) || n >= MEASURED - 1);
            assert_eq!(out.is_empty(), n < MEASURED - 1);
        }
        table.end(&mut out).unwrap();
        let told = String::from_utf8(out).unwrap();
        assert_eq!(told.lines().count(), 1 + MEASURED * 3);
        assert!(told.ends_with(&format!("1499  {}\n", "x".repeat(43))), "a longer one is not cut in a pipe");
    }

    #[test]
    fn sentences_are_wrapped_and_lose_no_word() {
        let columns = [whole("FOR"), state(""), words("BECAUSE")];
        let long = "the token does not have it, and a read of the list was refused by Defender with 403 Forbidden";
        let row = vec!["cancelling scans".to_owned(), "missing".to_owned(), long.to_owned()];
        for width in [Some(50), Some(72), None] {
            let told = told(&columns, vec![row.clone()], width);
            assert!(told.lines().all(|line| line.width() <= width.unwrap_or(READABLE)), "{told}");
            let words: Vec<_> = told.split_whitespace().collect();
            assert!(long.split(' ').all(|word| words.contains(&word)), "{told}");
        }
        assert_eq!(wrapped("aaaaaaa bb 機械機", 4), ["aaaa", "aaa", "bb", "機械", "機"]);
    }

    #[test]
    fn states_are_coloured_and_say_the_same_without() {
        let mut table = Table::with(&[state("STATE")], Some(80), Paint::ALL);
        let mut out = Vec::new();
        table.row(&mut out, vec!["failed".to_owned()]).unwrap();
        table.end(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[1mSTATE\x1b[0m\n\x1b[31mfailed\x1b[0m\n");
    }
}
