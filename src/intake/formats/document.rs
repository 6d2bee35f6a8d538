//! A JSON document: an object with `machines` and what holds for all of them; an answer of Defender's API, whose machines
//! stand under `value` or `results`; an array of machines; or one machine.
//!
//! Streamed: of a million machines one is in memory at a time. Two consequences show. Keys may
//! follow the machines, so the header is complete only at the end. And an error may come after rows
//! have been handed out: then the whole file is unusable, and the caller takes them back.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::claim::Claim;
use super::entry::{Entry, EntrySeed, GivenSeed};
use super::fields::{self, Fault, Found};
use super::keys;
use super::lines::LINE_MAX;
use super::tape::{Hostile, Tape, Watched};
use super::{Header, Line, Options, Refusal, Sink, Unusable, printable};

/// The keys of a document that say something of all its machines: as messages show them, and without what does not count.
const KEYS: &[(&str, &str)] = &[
    ("tenant", "tenant"),
    ("name", "name"),
    ("scan_type", "scantype"),
    ("comment", "comment"),
    ("priority", "priority"),
    ("not_before", "notbefore"),
    ("on_pending", "onpending"),
    ("submitted_by", "submittedby"),
];

/// The keys that machines stand under: in a document of ours; in an answer of the API, and what PowerShell makes of it; in
/// a hunting result.
const LISTS: &[&str] = &[MACHINES, "value", "results"];
const MACHINES: &str = "machines";

/// Where an answer of the API names its next page.
const NEXT_PAGE: &str = "@odata.nextlink";

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
    /// The key that the machines stand under, as it is known and as it is written.
    list: Option<(&'static str, String)>,
    /// Keys of the document that were read: what each is, how it is written, and its value.
    said: Vec<(&'static str, String, String)>,
    /// What of one machine stands beside them.
    found: Found<'static>,
    /// The first key that no document of ours has.
    unknown: Option<String>,
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
            (Some(hostile), Some(field)) if !LISTS.contains(&field) => Unusable::field(field, hostile.to_string()),
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
    let mut context = Context {
        tape: &tape,
        options,
        sink,
        header: Header::default(),
        count: 0,
        field: None,
        list: None,
        said: Vec::new(),
        found: Found::default(),
        unknown: None,
        failure: None,
    };
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
        f.write_str("an object with `machines`, an answer of Defender's API, an array of machines, or a machine")
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<(), E> {
        self.0.take(&Entry::Text(id.to_owned()), false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Machines(self.0).visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let context = self.0;
        while let Some(key) = map.next_key::<String>()? {
            context.value(key, &mut map)?;
            context.field = None;
        }
        context.end()
    }
}

impl Context<'_, '_> {
    /// Reads the value of one key of the document.
    fn value<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        if let Some(list) = LISTS.iter().copied().find(|list| keys::is(&key, list)) {
            if let Some((_, before)) = self.list.take() {
                return Err(self.fail(Unusable::Name(both_lists(&before, &key))));
            }
            self.list = Some((list, key));
            self.field = Some(list);
            return map.next_value_seed(Machines(self));
        }
        let option = KEYS.iter().find(|(_, plain)| keys::is(&key, plain)).map(|(shown, _)| *shown);
        self.field = option;
        if option.is_some() || keys::known(&key).is_some() || keys::is(&key, NEXT_PAGE) {
            self.tape.borrow_mut().fence();
            match option {
                Some(option) => self.option(option, key, map)?,
                None => self.beside(key, map)?,
            }
            self.tape.borrow_mut().open();
            return Ok(());
        }
        if keys::near(&key).is_none() {
            map.next_value::<IgnoredAny>()?;
        } else if map.next_value_seed(GivenSeed)?.is_some_and(|given| !given.is_blank()) {
            self.found.add_unknown(&key);
        }
        self.unknown.get_or_insert(key);
        Ok(())
    }

    /// Reads what holds for all machines into the header; `null` is as good as absent.
    fn option<'de, A: MapAccess<'de>>(
        &mut self,
        option: &'static str,
        key: String,
        map: &mut A,
    ) -> Result<(), A::Error> {
        if option == "submitted_by" {
            let said = map.next_value::<Option<serde_json::Value>>()?;
            self.header.submitted_by = said.map_or(Claim::None, |said| Claim::of(&said));
            return Ok(());
        }
        let Some(text) = map.next_value::<Option<String>>()? else {
            return Ok(());
        };
        if let Some((_, before, value)) = self.said.iter().find(|(known, ..)| *known == option) {
            if *value == text {
                return Ok(());
            }
            let fault = fields::twice(before, &key);
            return Err(self.fail(Unusable::Name(fault)));
        }
        if let Err(reason) = set(&mut self.header, option, &text) {
            return Err(self.fail(Unusable::field(option, reason)));
        }
        self.said.push((option, key, text));
        Ok(())
    }

    /// Reads what an answer of the API or a single machine has beside the machines.
    fn beside<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        let given = map.next_value_seed(GivenSeed)?;
        let says = given.as_ref().is_some_and(|given| !given.is_blank());
        match (keys::known(&key), given) {
            (Some(known), _) if known.slot.is_unsupported() => {
                if says {
                    return Err(self.fail(Unusable::Name(fields::unsupported(&key))));
                }
                return Ok(());
            }
            (Some(known), Some(given)) => self.found.add(Cow::Owned(key.clone()), known, given),
            (None, _) if says => self.header.warnings.extend([NEXT_PAGE_WARNING]),
            (Some(_), None) | (None, _) => {}
        }
        self.unknown.get_or_insert(key);
        Ok(())
    }

    /// All of an object was read: what kind of document is it?
    fn end<E: Error>(&mut self) -> Result<(), E> {
        let is_ours = self.list.as_ref().is_some_and(|(list, _)| *list == MACHINES);
        if self.list.is_none() && self.found.is_machine() {
            let found = std::mem::take(&mut self.found);
            return self.take(&Entry::Object(found), false);
        }
        match self.unknown.take() {
            Some(key) if is_ours || self.list.is_none() => Err(self.fail(unknown(&key))),
            _ if self.list.is_none() => Err(self.fail(Unusable::NoMachines)),
            _ => {
                self.header.warnings.extend(self.found.aside());
                self.found.fault().map_or(Ok(()), |fault| Err(self.fail(Unusable::Name(fault))))
            }
        }
    }

    /// Hands over what the next entry comes to.
    fn take<E: Error>(&mut self, entry: &Entry, is_too_long: bool) -> Result<(), E> {
        self.count += 1;
        let (line, tape) = (self.count, self.tape);
        let shown = || tape.borrow().shown();
        let judged = if is_too_long {
            Line::Refused(Refusal::too_long(line, &shown()))
        } else {
            entry.judge(line, self.options, &mut self.header.warnings, shown)
        };
        if (self.sink)(judged).is_err() {
            return Err(self.fail(Unusable::Stopped));
        }
        Ok(())
    }
}

const NEXT_PAGE_WARNING: &str = "the file holds one page of several (it has an `@odata.nextLink`): the machines on the \
    other pages are not in it; drop those pages too";

fn both_lists(first: &str, second: &str) -> Fault {
    let (first, second) = (printable(first, 60), printable(second, 60));
    format!("`{first}` and `{second}` both hold machines; keep one of them")
}

/// A key that no document of ours has, and which may be meant.
fn unknown(key: &str) -> Unusable {
    let options = KEYS.iter().map(|(shown, plain)| (*shown, *plain, ()));
    let near = keys::nearest(key, options.chain(LISTS.iter().map(|list| (*list, *list, ()))));
    let hint = near.map_or_else(String::new, |(meant, ())| format!(" (did you mean {meant}?)"));
    Unusable::UnknownKey { key: printable(key, 60), hint }
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
        "scan_type" => header.scan_type = fields::scan_type(text)?,
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
            context.take(&entry, length > LINE_MAX as u64)?;
        }
        Ok(())
    }
}

/// An entry with its length in the file, which tells whether its strings were cut.
struct Measured<'a>(&'a RefCell<Tape>);

impl<'de> DeserializeSeed<'de> for Measured<'_> {
    type Value = (Entry, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let start = self.0.borrow().passed();
        self.0.borrow_mut().mark();
        let entry = EntrySeed.deserialize(deserializer)?;
        let length = self.0.borrow().passed().saturating_sub(start).saturating_add(1);
        Ok((entry, length))
    }
}
