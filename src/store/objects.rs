//! What a database is made of, object by object: the tables, indexes, triggers and views that it has, against those
//! that the migrations make.
//!
//! The version of a schema is a number in a table, and says nothing about a trigger that was dropped. The objects are
//! compared with those of an empty database in memory that the same migrations were run on, step by step: what
//! `ALTER TABLE` leaves in the schema is other text than what `CREATE TABLE` does.

use std::collections::BTreeMap;
use std::fmt;

use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::{Doing, StoreError};

/// The table in which the migrator notes its steps: its text is the migrator's business.
const STEPS: &str = "_sqlx_migrations";

/// Tables that SQLite makes by itself.
const OF_SQLITE: [&str; 4] = ["sqlite_sequence", "sqlite_stat1", "sqlite_stat3", "sqlite_stat4"];

/// An object of a schema by its kind and name, with its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects(BTreeMap<(String, String), String>);

/// The first object by which two schemas differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    kind: String,
    name: String,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Missing,
    TooMany,
    Differs,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, how } = self;
        let how = match how {
            How::Missing => "is missing",
            How::TooMany => "is not sweepd's",
            How::Differs => "is not as sweepd made it",
        };
        write!(f, "the {kind} `{}` {how}", super::body::short(name, 100))
    }
}

impl Objects {
    /// Those of the database of a connection.
    pub(super) async fn of(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        const DOING: &str = "read the database's schema";
        let rows = sqlx::query("SELECT type, name, sql FROM sqlite_schema").fetch_all(connection).await.doing(DOING)?;
        let mut objects = BTreeMap::new();
        for row in rows {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            let (kind, name, sql): (String, String, Option<String>) = read().doing(DOING)?;
            let is_known = match kind.as_str() {
                "table" => name == STEPS || OF_SQLITE.contains(&name.as_str()),
                // Of a UNIQUE or a PRIMARY KEY, which is in the text of its table.
                "index" => sql.is_none(),
                _ => false,
            };
            if !is_known {
                objects.insert((kind, name), normalized(sql.as_deref().unwrap_or_default()));
            }
        }
        Ok(Self(objects))
    }

    /// Those that the steps up to this version make.
    pub(super) async fn made_by(migrations: &Migrator, version: i64) -> Result<Self, StoreError> {
        let steps = migrations.iter().filter(|step| step.version <= version).cloned().collect();
        let memory = "sqlite::memory:".parse().map(SqliteConnectOptions::disable_statement_logging);
        let mut memory = match memory {
            Ok(options) => options.connect().await,
            Err(error) => Err(error),
        }
        .doing("open a database in memory to compare with")?;
        super::schema::run(&mut memory, &Migrator::with_migrations(steps)).await?;
        let objects = Self::of(&mut memory).await?;
        memory.close().await.doing("close the database in memory")?;
        Ok(objects)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first object, by kind and name, that is missing in `self`, that is too many, or that has another text than
    /// in `expected`.
    pub(super) fn difference(&self, expected: &Self) -> Option<Difference> {
        let differs = |(key, text): (&(String, String), &String)| {
            let how = match self.0.get(key) {
                None => How::Missing,
                Some(found) if found != text => How::Differs,
                Some(_) => return None,
            };
            Some((key.clone(), how))
        };
        let missing = expected.0.iter().find_map(differs);
        let too_many = self.0.keys().find(|key| !expected.0.contains_key(*key)).map(|key| (key.clone(), How::TooMany));
        missing.or(too_many).map(|((kind, name), how)| Difference { kind, name, how })
    }
}

/// The text of an object without its comments, and with one blank where there is blank space outside of quotes.
fn normalized(sql: &str) -> String {
    if sql.contains('\0') {
        // SQLite reads no further: none of ours has one.
        return sql.to_owned();
    }
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' | '`' => closed(rest, first),
            '[' => closed(rest, ']'),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => {
                rest.match_indices("*/").find(|(at, _)| *at > 1).map_or(rest.len(), |(at, _)| at + 2)
            }
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let is_comment = token.starts_with("--") || token.starts_with("/*");
        if is_comment || first.is_ascii_whitespace() {
            if !out.ends_with(' ') {
                out.push(' ');
            }
        } else {
            out.push_str(token);
        }
        rest = after;
    }
    out.trim().to_owned()
}

/// The length of what stands in quotes at the start of `text`, up to and with this one. One that is doubled ends it, and
/// what follows begins another: together they are the same text.
fn closed(text: &str, quote: char) -> usize {
    text.char_indices().skip(1).find(|(_, c)| *c == quote).map_or(text.len(), |(at, _)| at + quote.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_space_and_comments_make_no_difference_outside_of_quotes() {
        for (one, other, is_same) in [
            ("CREATE TABLE a (b)", "CREATE  TABLE\n\ta (b)  ", true),
            ("CREATE TABLE a (b -- why\n, c)", "CREATE TABLE a (b , c)", true),
            ("CREATE TABLE a (b /* why */ , c)", "CREATE TABLE a (b , c)", true),
            // What a comment has swallowed is gone.
            ("CREATE TABLE a (b -- why\n, c)", "CREATE TABLE a (b -- why , c)", false),
            ("CREATE TABLE a (b , c)", "CREATE TABLE a (b /*/ , c --*/)\n)", false),
            ("CREATE INDEX a ON b (c) -- \0\n WHERE d", "CREATE INDEX a ON b (c) WHERE d", false),
            ("CREATE TABLE a (b CHECK (b <> ' -- '))", "CREATE TABLE a (b CHECK (b <> ' '))", false),
            ("CREATE TABLE a (b CHECK (b <> 'x  y'))", "CREATE TABLE a (b CHECK (b <> 'x y'))", false),
            ("CREATE TABLE a (b CHECK (b <> 'it''s  x'))", "CREATE TABLE a (b CHECK (b <> 'it''s x'))", false),
            ("CREATE TABLE \"a  b\" (c)", "CREATE TABLE \"a b\" (c)", false),
            ("CREATE TABLE [a  b] (c)", "CREATE TABLE [a b] (c)", false),
            ("CREATE TABLE `ä  b` (c)", "CREATE TABLE `ä b` (c)", false),
        ] {
            assert_eq!(normalized(one) == normalized(other), is_same, "{one} | {other}");
        }
    }

    #[test]
    fn a_text_that_ends_in_quotes_or_in_a_comment_has_an_end() {
        for text in ["", "'", "'a", "[", "--", "/*", "/", "-", "a -- b", "'ä"] {
            assert!(normalized(text).len() <= text.len(), "{text}");
        }
    }
}
