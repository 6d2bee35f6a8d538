//! A machine in JSON: its id as a string, or an object; as an entry of `machines` and as a line of
//! JSON lines.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::{self, Found, Given};
use super::keys::{self, Known};
use super::lines::Lines;
use super::{Line, Options, Refusal, Row, Sink, Unusable, Warnings};

/// One machine as the file has it.
pub enum Entry {
    Text(String),
    Object(Found<'static>),
    /// Neither: which kind of value, and the value when it is short.
    Other(&'static str, Option<String>),
}

impl Entry {
    /// What becomes of it; `raw` is how it reads in the file.
    pub fn judge(&self, line: u64, options: Options, warnings: &mut Warnings, raw: impl FnOnce() -> String) -> Line {
        match self {
            Self::Text(text) => match fields::machine(text) {
                Ok(machine) => Line::Row(Row::of(line, machine)),
                Err(reason) => Line::Refused(Refusal::new(line, text, reason)),
            },
            Self::Object(found) => {
                warnings.extend(found.aside());
                fields::judge(line, found, options, raw)
            }
            Self::Other(kind, value) => {
                let reason = format!("a machine id or an object with one is expected, not {kind}");
                let text = value.clone().unwrap_or_else(raw);
                Line::Refused(Refusal::new(line, &text, reason))
            }
        }
    }
}

/// Reads an [`Entry`]; nothing well-formed is an error.
pub struct EntrySeed;

impl<'de> DeserializeSeed<'de> for EntrySeed {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a machine")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut found = Found::default();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match key {
                Key::Known(name, known) => {
                    if let Some(given) = map.next_value_seed(GivenSeed)? {
                        found.add(Cow::Owned(name), known, given);
                    }
                }
                Key::Near(name) => {
                    if !map.next_value_seed(GivenSeed)?.is_none_or(|given| given.is_blank()) {
                        found.add_unknown(&name);
                    }
                }
                Key::Foreign => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Entry::Object(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entry::Other("an array", None))
    }

    fn visit_unit<E: Error>(self) -> Result<Entry, E> {
        Ok(Entry::Other("null", Some("null".to_owned())))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Entry, E> {
        Ok(Entry::Other("true or false", Some(value.to_string())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Entry, E> {
        Ok(Entry::Other("a number", Some(value.to_string())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Entry, E> {
        Ok(Entry::Other("a number", Some(value.to_string())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Entry, E> {
        Ok(Entry::Other("a number", Some(value.to_string())))
    }
}

/// A key of a machine.
enum Key {
    Known(String, Known),
    /// One letter off a known one.
    Near(String),
    /// Somebody else's: it is passed over.
    Foreign,
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        Ok(match keys::known(key) {
            Some(known) => Key::Known(key.to_owned(), known),
            None if keys::near(key).is_some() => Key::Near(key.to_owned()),
            None => Key::Foreign,
        })
    }
}

/// The value of a known key. `null` is as good as absent; another kind than a string is remembered
/// as such, since it refuses the row and not the file.
pub struct GivenSeed;

impl<'de> DeserializeSeed<'de> for GivenSeed {
    type Value = Option<Given<'static>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Ok(match EntrySeed.deserialize(deserializer)? {
            Entry::Text(text) => Some(Given::Text(Cow::Owned(text))),
            Entry::Object(_) => Some(Given::Other("an object")),
            Entry::Other("null", _) => None,
            Entry::Other(kind, _) => Some(Given::Other(kind)),
        })
    }
}

/// One machine from the text of a line.
pub fn parse(text: &str) -> Result<Entry, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let entry = EntrySeed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(entry)
}

/// Reads JSON lines. Each stands alone: one that is no JSON is refused and the next one is read.
pub fn read_lines(
    input: impl BufRead,
    options: Options,
    warnings: &mut Warnings,
    sink: &mut Sink<'_>,
) -> Result<(), Unusable> {
    let mut lines = Lines::new(input);
    while let Some(physical) = lines.next().map_err(Unusable::Read)? {
        let line = physical.number;
        let judged = if physical.too_long {
            Line::Refused(Refusal::too_long(line, &physical.text))
        } else {
            match parse(&physical.text) {
                Ok(entry) => entry.judge(line, options, warnings, || physical.text.clone().into_owned()),
                Err(error) => {
                    let reason = format!("not JSON: {} at column {}", super::what(&error), error.column());
                    Line::Refused(Refusal::new(line, &physical.text, reason))
                }
            }
        };
        sink(judged)?;
    }
    Ok(())
}
