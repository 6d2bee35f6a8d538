//! A JSON document: an object with `machines` and what holds for all of them, or `machines` alone.
//!
//! Streamed: of a million machines one is in memory at a time. Two consequences show. Keys may
//! follow `machines`, so the header is complete only at the end. And an error may come after rows
//! have been handed out: then the whole file is unusable, and the caller takes them back.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::claim::Claim;
use super::entry::EntrySeed;
use super::fields::{self, Fault};
use super::lines::LINE_MAX;
use super::tape::{Hostile, Tape, Watched};
use super::{Header, Line, Options, Refusal, Sink, Unusable, printable};

/// The keys of a document.
const KEYS: &[&str] =
    &["tenant", "name", "scan_type", "comment", "priority", "not_before", "on_pending", "submitted_by", "machines"];

/// The longest name of a sweep, in characters.
pub const NAME_MAX: usize = 200;

/// What the visitors share.
struct Context<'a, 's> {
    tape: &'a RefCell<Tape>,
    options: Options,
    sink: &'a mut Sink<'s>,
    header: Header,
    count: u64,
    /// The key whose value is being read.
    field: Option<&'static str>,
    /// Why reading ended, when it was not the parser that ended it.
    failure: Option<Unusable>,
}

impl Context<'_, '_> {
    /// Ends the parser's work with an error that it does not know of.
    fn fail<E: Error>(&mut self, failure: Unusable) -> E {
        self.failure = Some(failure);
        E::custom("ended")
    }

    fn explain(&mut self, error: serde_json::Error) -> Unusable {
        if let Some(failure) = self.failure.take() {
            return failure;
        }
        let (line, column) = (error.line() as u64, error.column() as u64);
        let what = super::what(&error);
        match self.field {
            Some(field) if error.is_data() => return Unusable::field(field, what),
            _ if !error.is_io() => return Unusable::Syntax { line, column, what },
            _ => {}
        }
        let error = io::Error::from(error);
        let hostile = error.get_ref().and_then(|inner| inner.downcast_ref::<Hostile>()).copied();
        match (hostile, self.field) {
            (None, _) => Unusable::Read(error),
            (Some(hostile), Some(field)) if field != "machines" => Unusable::field(field, hostile.to_string()),
            (Some(hostile), _) => {
                let (line, column) = self.tape.borrow().place();
                Unusable::Syntax { line, column, what: hostile.to_string() }
            }
        }
    }
}

/// Reads a document to its end.
pub fn read(input: impl BufRead, options: Options, sink: &mut Sink<'_>) -> Result<Header, Unusable> {
    let tape = RefCell::new(Tape::default());
    let mut context =
        Context { tape: &tape, options, sink, header: Header::default(), count: 0, field: None, failure: None };
    let mut deserializer = serde_json::Deserializer::from_reader(Watched::new(input, &tape));
    let read = deserializer.deserialize_any(Document(&mut context)).and_then(|()| {
        context.field = None;
        deserializer.end()
    });
    match read {
        Ok(()) => Ok(context.header),
        Err(error) => Err(context.explain(error)),
    }
}

struct Document<'c, 'a, 's>(&'c mut Context<'a, 's>);

impl<'de> Visitor<'de> for Document<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `machines`, or an array of machines")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Machines(self.0).visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let context = self.0;
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(field) = KEYS.iter().copied().find(|known| *known == key) else {
                let key = printable(&key, 60);
                return Err(context.fail(Unusable::UnknownKey { key }));
            };
            if seen.contains(&field) {
                return Err(context.fail(Unusable::field(field, "is given twice".to_owned())));
            }
            seen.push(field);
            context.field = Some(field);
            if field == "machines" {
                map.next_value_seed(Machines(context))?;
            } else {
                context.tape.borrow_mut().fence();
                value(context, field, &mut map)?;
                context.tape.borrow_mut().open();
            }
            context.field = None;
        }
        if seen.contains(&"machines") { Ok(()) } else { Err(context.fail(Unusable::NoMachines)) }
    }
}

/// Reads the value of a key other than `machines` into the header; `null` is as good as absent.
fn value<'de, A: MapAccess<'de>>(
    context: &mut Context<'_, '_>,
    field: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    if field == "submitted_by" {
        context.header.submitted_by =
            map.next_value::<Option<serde_json::Value>>()?.map_or(Claim::None, |said| Claim::of(&said));
        return Ok(());
    }
    let Some(text) = map.next_value::<Option<String>>()? else {
        return Ok(());
    };
    match set(&mut context.header, field, &text) {
        Ok(()) => Ok(()),
        Err(reason) => Err(context.fail(Unusable::field(field, reason))),
    }
}

fn set(header: &mut Header, field: &str, text: &str) -> Result<(), Fault> {
    let trimmed = text.trim();
    match field {
        "tenant" => header.tenant = (!trimmed.is_empty()).then(|| trimmed.to_owned()),
        "name" => {
            let length = trimmed.chars().count();
            if length > NAME_MAX {
                return Err(format!("has {length} characters; at most {NAME_MAX} are accepted"));
            }
            header.name = (!trimmed.is_empty()).then(|| printable(trimmed, NAME_MAX));
        }
        "scan_type" => header.scan_type = fields::word(text)?,
        "comment" => header.comment = fields::comment(text)?,
        "priority" => header.priority = fields::word(text)?,
        "not_before" => header.not_before = fields::not_before(text)?,
        "on_pending" => header.on_pending = fields::word(text)?,
        _ => {}
    }
    Ok(())
}

struct Machines<'c, 'a, 's>(&'c mut Context<'a, 's>);

impl<'de> DeserializeSeed<'de> for Machines<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Machines<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of machines")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let context = self.0;
        while let Some((entry, length)) = seq.next_element_seed(Measured(context.tape))? {
            context.count += 1;
            let line = context.count;
            let shown = || context.tape.borrow().shown();
            let judged = if length > LINE_MAX as u64 {
                Line::Refused(Refusal::too_long(line, &shown()))
            } else {
                entry.judge(line, context.options, shown)
            };
            if (context.sink)(judged).is_err() {
                return Err(context.fail(Unusable::Stopped));
            }
        }
        Ok(())
    }
}

/// An entry with its length in the file, which tells whether its strings were cut.
struct Measured<'a>(&'a RefCell<Tape>);

impl<'de> DeserializeSeed<'de> for Measured<'_> {
    type Value = (super::entry::Entry, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let start = self.0.borrow().passed();
        self.0.borrow_mut().mark();
        let entry = EntrySeed.deserialize(deserializer)?;
        let length = self.0.borrow().passed().saturating_sub(start).saturating_add(1);
        Ok((entry, length))
    }
}
