//! `$filter`: the part of `OData` that the documents and shipped clients use.
//!
//! `eq ne gt ge lt le`, `and`, `or`, parentheses, `in (…)` and `startswith(…)`
//! (API/exposed-apis-odata-samples.md; `in` and an upper-case `AND` are observed in Kibana and
//! `MDEAutomator`). Strings stand in single quotes, doubled to mean one; times stand bare. Names of
//! fields are case-sensitive. Everything else is an error, as it is at Defender.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::ticks::Ticks;

/// A field that may be filtered and ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) is_time: bool,
}

/// A field's value in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell<'row> {
    Null,
    Text(&'row str),
    Time(Ticks),
}

/// What can be filtered and ordered.
pub(super) trait Row {
    /// The value of a column; the name is one of the columns that the query was parsed with.
    fn cell(&self, column: &'static str) -> Cell<'_>;
}

/// Why a query option is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake(pub(super) String);

/// A condition on a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Compare(&'static str, Comparison, Literal),
    In(&'static str, Vec<Literal>),
    StartsWith(&'static str, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    Time(Ticks),
}

/// Deeper nesting is refused rather than followed.
const DEPTH: u32 = 64;

impl Filter {
    pub(super) fn parse(text: &str, columns: &'static [Column]) -> Result<Self, Mistake> {
        let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), columns, depth: 0 };
        let filter = parser.any_of()?;
        match parser.tokens.next() {
            None => Ok(filter),
            Some(token) => Err(unexpected(Some(&token))),
        }
    }

    pub(super) fn holds(&self, row: &impl Row) -> bool {
        match self {
            Self::And(left, right) => left.holds(row) && right.holds(row),
            Self::Or(left, right) => left.holds(row) || right.holds(row),
            Self::Compare(column, comparison, literal) => comparison.holds(row.cell(column), literal.cell()),
            Self::In(column, literals) => literals.iter().any(|literal| literal.cell() == row.cell(column)),
            Self::StartsWith(column, prefix) => {
                matches!(row.cell(column), Cell::Text(text) if text.starts_with(prefix.as_str()))
            }
        }
    }
}

impl Comparison {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "lt" => Self::Lt,
            "le" => Self::Le,
            _ => return None,
        })
    }

    /// Nothing is larger or smaller than null.
    fn holds(self, cell: Cell<'_>, literal: Cell<'_>) -> bool {
        let ordering = cell.cmp(&literal);
        match self {
            Self::Eq => ordering == Ordering::Equal,
            Self::Ne => ordering != Ordering::Equal,
            _ if cell == Cell::Null => false,
            Self::Gt => ordering == Ordering::Greater,
            Self::Ge => ordering != Ordering::Less,
            Self::Lt => ordering == Ordering::Less,
            Self::Le => ordering != Ordering::Greater,
        }
    }
}

impl Literal {
    const fn cell(&self) -> Cell<'_> {
        match self {
            Self::Text(text) => Cell::Text(text.as_str()),
            Self::Time(at) => Cell::Time(*at),
        }
    }
}

/// The column of this very name.
pub(super) fn column(name: &str, columns: &'static [Column]) -> Result<Column, Mistake> {
    columns.iter().find(|column| column.name == name).copied().ok_or_else(|| {
        Mistake(format!("The query specified in the URI is not valid. Could not find a property named '{name}'."))
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Comma,
    Text(String),
    Word(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, Mistake> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        tokens.push(match first {
            blank if blank.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '\'' => Token::Text(quoted(&mut rest)?),
            first => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|c| !c.is_whitespace() && !"(),'".contains(*c)) {
                    word.push(next);
                }
                Token::Word(word)
            }
        });
    }
    Ok(tokens)
}

/// The rest of a string whose opening quote was read.
fn quoted(rest: &mut Peekable<std::str::Chars<'_>>) -> Result<String, Mistake> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('\'') if rest.next_if_eq(&'\'').is_some() => text.push('\''),
            Some('\'') => return Ok(text),
            Some(other) => text.push(other),
            None => {
                return Err(Mistake("There is an unterminated string literal in the query.".to_owned()));
            }
        }
    }
}

fn unexpected(token: Option<&Token>) -> Mistake {
    let found = match token {
        None => "the end".to_owned(),
        Some(Token::Open) => "'('".to_owned(),
        Some(Token::Close) => "')'".to_owned(),
        Some(Token::Comma) => "','".to_owned(),
        Some(Token::Text(text) | Token::Word(text)) => format!("'{text}'"),
    };
    Mistake(format!("The query specified in the URI is not valid. Syntax error at {found} in '$filter'."))
}

struct Parser {
    tokens: Peekable<IntoIter<Token>>,
    columns: &'static [Column],
    depth: u32,
}

impl Parser {
    /// Conditions joined by `or`, which binds weakest.
    fn any_of(&mut self) -> Result<Filter, Mistake> {
        let mut left = self.all_of()?;
        while self.joined_by("or") {
            left = Filter::Or(Box::new(left), Box::new(self.all_of()?));
        }
        Ok(left)
    }

    fn all_of(&mut self) -> Result<Filter, Mistake> {
        let mut left = self.condition()?;
        while self.joined_by("and") {
            left = Filter::And(Box::new(left), Box::new(self.condition()?));
        }
        Ok(left)
    }

    fn joined_by(&mut self, wanted: &str) -> bool {
        let found = |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted));
        self.tokens.next_if(found).is_some()
    }

    fn condition(&mut self) -> Result<Filter, Mistake> {
        match self.tokens.next() {
            Some(Token::Open) => {
                self.depth += 1;
                if self.depth > DEPTH {
                    return Err(Mistake("The query specified in the URI is nested too deeply.".to_owned()));
                }
                let inner = self.any_of()?;
                self.depth -= 1;
                self.expect(&Token::Close)?;
                Ok(inner)
            }
            Some(Token::Word(word)) if word == "startswith" && self.tokens.peek() == Some(&Token::Open) => {
                self.starts_with()
            }
            Some(Token::Word(name)) => {
                let column = column(&name, self.columns)?;
                match self.tokens.next() {
                    Some(Token::Word(word)) if word == "in" => self.one_of(column),
                    Some(Token::Word(word)) => {
                        let comparison =
                            Comparison::parse(&word).ok_or_else(|| unexpected(Some(&Token::Word(word))))?;
                        Ok(Filter::Compare(column.name, comparison, self.literal(column)?))
                    }
                    other => Err(unexpected(other.as_ref())),
                }
            }
            other => Err(unexpected(other.as_ref())),
        }
    }

    fn starts_with(&mut self) -> Result<Filter, Mistake> {
        self.expect(&Token::Open)?;
        let column = match self.tokens.next() {
            Some(Token::Word(name)) => column(&name, self.columns)?,
            other => return Err(unexpected(other.as_ref())),
        };
        self.expect(&Token::Comma)?;
        let Literal::Text(prefix) = self.literal(column)? else {
            return Err(Mistake(format!("'startswith' does not apply to '{}'.", column.name)));
        };
        self.expect(&Token::Close)?;
        Ok(Filter::StartsWith(column.name, prefix))
    }

    fn one_of(&mut self, column: Column) -> Result<Filter, Mistake> {
        self.expect(&Token::Open)?;
        let mut literals = vec![self.literal(column)?];
        loop {
            match self.tokens.next() {
                Some(Token::Comma) => literals.push(self.literal(column)?),
                Some(Token::Close) => return Ok(Filter::In(column.name, literals)),
                other => return Err(unexpected(other.as_ref())),
            }
        }
    }

    /// A literal of the column's type.
    fn literal(&mut self, column: Column) -> Result<Literal, Mistake> {
        match self.tokens.next() {
            Some(Token::Text(text)) if !column.is_time => Ok(Literal::Text(text)),
            Some(Token::Word(word)) if column.is_time => {
                Ticks::parse(&word).map(Literal::Time).ok_or_else(|| unexpected(Some(&Token::Word(word))))
            }
            Some(Token::Text(_) | Token::Word(_)) => Err(Mistake(format!(
                "The query specified in the URI is not valid. '{}' was compared with a value of another type.",
                column.name
            ))),
            other => Err(unexpected(other.as_ref())),
        }
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), Mistake> {
        match self.tokens.next() {
            Some(token) if token == *wanted => Ok(()),
            other => Err(unexpected(other.as_ref())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { name: "status", is_time: false },
        Column { name: "machineId", is_time: false },
        Column { name: "creationDateTimeUtc", is_time: true },
    ];

    struct Sample;

    impl Row for Sample {
        fn cell(&self, column: &'static str) -> Cell<'_> {
            match column {
                "status" => Cell::Text("it's Pending"),
                "creationDateTimeUtc" => Ticks::parse("2024-10-21T11:26:49.6894208Z").map_or(Cell::Null, Cell::Time),
                _ => Cell::Null,
            }
        }
    }

    #[test]
    fn conditions_are_judged_as_written() {
        for (text, holds) in [
            ("status eq 'it''s Pending'", true),
            ("status ne 'x'", true),
            ("status eq 'IT''S PENDING'", false),
            ("creationDateTimeUtc gt 2024-10-21T11:26:49.6894207Z", true),
            ("creationDateTimeUtc gt 2024-10-21T11:26:49.6894208Z", false),
            ("creationDateTimeUtc ge 2024-10-21T13:26:49.6894208+02:00", true),
            ("creationDateTimeUtc lt 2024-10-22T00:00:00Z", true),
            ("creationDateTimeUtc le 2024-10-21T11:26:49Z", false),
            ("status in ('a', 'it''s Pending')", true),
            ("status in ('a')", false),
            ("startswith(status,'it')", true),
            ("startswith(status, 'x')", false),
            ("machineId eq 'x'", false),
            ("machineId ne 'x'", true),
            ("machineId lt 'x'", false),
            // `and` binds before `or`.
            ("status eq 'it''s Pending' or status eq 'a' and status eq 'b'", true),
            ("(status eq 'it''s Pending' or status eq 'a') and status eq 'b'", false),
            ("status eq 'a' AND status eq 'b' Or status ne 'c'", true),
        ] {
            let filter = Filter::parse(text, COLUMNS).unwrap_or_else(|mistake| panic!("{text}: {mistake:?}"));
            assert_eq!(filter.holds(&Sample), holds, "{text}");
        }
    }

    #[test]
    fn what_defender_does_not_understand_is_an_error() {
        let deep = format!("{}status eq 'a'{}", "(".repeat(100), ")".repeat(100));
        for text in [
            "",
            "status",
            "status eq",
            "status eq Pending",
            "status EQ 'Pending'",
            "Status eq 'Pending'",
            "status eq 'Pending",
            "status eq 'a' and",
            "status eq 'a' status eq 'b'",
            "(status eq 'a'",
            "status eq 'a')",
            "status in 'a'",
            "status in ()",
            "creationDateTimeUtc gt '2024-10-21T11:26:49Z'",
            "creationDateTimeUtc gt 2024-10-21",
            "startswith(creationDateTimeUtc, 2024-10-21T11:26:49Z)",
            "title eq 'a'",
            "not status eq 'a'",
            &deep,
        ] {
            assert!(Filter::parse(text, COLUMNS).is_err(), "{text}");
        }
    }
}
