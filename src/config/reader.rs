//! Walks the tree of values: sections are asked for keys, each with its default and its parser.
//!
//! Every problem is collected instead of ending the walk, and whatever nobody asked for is an error
//! that names the nearest known key. So a key, its default and its check stand in exactly one
//! place: where it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::{Map, Value, ValueKind};

use super::source::{variable_for, variable_of};
use super::values::Wrong;

/// One thing that is wrong with the configuration. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from: a file, an environment variable by its name, or `command line`.
    pub place: String,
    /// The dotted path of the key; empty when the place as a whole is meant.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let line = format!("{}: {key}{}; {}", self.place, self.what, self.remedy);
        // Names of files and quoted keys may hold anything; a problem stays one line.
        f.write_str(&line.replace(char::is_control, " "))
    }
}

/// A key that may be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its dotted path.
    pub path: String,
    /// What holds when it is not set, as an environment variable would say it; absent when the key
    /// is required.
    pub default: Option<String>,
}

/// Keys that people try to put a secret into.
const SECRET_KEYS: [&str; 5] = ["secret", "client_secret", "secret_value", "password", "client_secret_value"];

/// Below this likeness (1 is equal) a known key is no help as a suggestion.
const LIKE_ENOUGH: f64 = 0.6;

/// What a walk has found.
pub(super) struct Notes {
    /// The place of what is missing.
    place: String,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    keys: BTreeMap<String, Option<String>>,
    sections: BTreeSet<String>,
    /// Path and place of what nobody asked for.
    unknown: Vec<(String, String)>,
}

/// What a walk has found, once it is over.
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) keys: Vec<KnownKey>,
}

impl Notes {
    /// `place` is where the operator would add what is missing.
    pub(super) fn new(place: &str) -> Self {
        Self {
            place: place.to_owned(),
            problems: Vec::new(),
            warnings: Vec::new(),
            keys: BTreeMap::new(),
            sections: BTreeSet::new(),
            unknown: Vec::new(),
        }
    }

    /// Reads the section at `path` (empty: the whole tree) from its value.
    pub(super) fn read<'t, T>(
        &mut self,
        path: &str,
        value: Option<&'t Value>,
        read: impl FnOnce(&mut Section<'_, 't>) -> Option<T>,
    ) -> Option<T> {
        let table = match value.map(|value| &value.kind) {
            Some(ValueKind::Table(table)) => Some(table),
            Some(ValueKind::Nil) | None => None,
            Some(_) => {
                self.problems.push(Problem {
                    place: value.and_then(origin).unwrap_or(&self.place).to_owned(),
                    key: path.to_owned(),
                    what: "is a section, not a value".into(),
                    remedy: format!("write [{path}] and its keys below"),
                });
                None
            }
        };
        let mut section = Section { notes: self, path: path.to_owned(), table, asked: BTreeSet::new() };
        let result = read(&mut section);
        section.note_unknown();
        result
    }

    /// Ends the walk; only now all keys are known, and the nearest to an unknown one.
    pub(super) fn finish(mut self) -> Findings {
        for (path, place) in std::mem::take(&mut self.unknown) {
            let (what, remedy) = self.explain_unknown(&path, &place);
            self.problems.push(Problem { place, key: path, what, remedy });
        }
        let keys = self.keys.into_iter().map(|(path, default)| KnownKey { path, default }).collect();
        Findings { problems: self.problems, warnings: self.warnings, keys }
    }

    fn explain_unknown(&self, path: &str, place: &str) -> (String, String) {
        let (parent, leaf) = split(path);
        if SECRET_KEYS.contains(&leaf) {
            return (
                "is not a known key: a secret does not belong into the configuration".into(),
                "write it to a file of its own and name that file in `secret_file`".into(),
            );
        }
        let known = || self.keys.keys().chain(&self.sections).map(|path| split(path));
        let sibling = nearest(leaf, known().filter(|(section, _)| *section == parent).map(|(_, name)| name));
        let elsewhere = known().find(|(_, name)| *name == leaf);
        if variable_of(place).is_some() {
            let near = match (sibling, elsewhere) {
                (Some(name), _) => Some(variable_for(&join(parent, name))),
                (None, Some((section, name))) => Some(variable_for(&join(section, name))),
                (None, None) => {
                    // The words may be right, and one underscore stand where two do.
                    let flat = |path: &str| path.replace('.', "_");
                    self.keys.keys().find(|known| flat(known) == flat(path)).map(|known| variable_for(known))
                }
            };
            let remedy = near.map_or_else(|| "unset it".to_owned(), |near| format!("did you mean `{near}`?"));
            return ("is not a known key".into(), remedy);
        }
        let remedy = match (sibling, elsewhere) {
            (Some(name), _) => format!("did you mean `{name}`?"),
            (None, Some((section, name))) => format!("did you mean `{}`?", join(section, name)),
            (None, None) => {
                let here: BTreeSet<_> =
                    known().filter(|(section, _)| *section == parent).map(|(_, name)| format!("`{name}`")).collect();
                let known = here.into_iter().collect::<Vec<_>>().join(", ");
                if known.is_empty() { "remove it".into() } else { format!("remove it, or write one of {known}") }
            }
        };
        ("is not a known key".into(), remedy)
    }
}

/// The known name that is most like this one, if any is like it.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(known, name), known))
        .filter(|(likeness, _)| *likeness >= LIKE_ENOUGH)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

/// A section that is being read.
pub(super) struct Section<'n, 't> {
    notes: &'n mut Notes,
    path: String,
    table: Option<&'t Map<String, Value>>,
    asked: BTreeSet<String>,
}

impl<'t> Section<'_, 't> {
    /// The value of a key that has a default, written as the environment would write it. None: it
    /// is wrong, and that is noted.
    pub(super) fn key<T>(
        &mut self,
        name: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let parsed = match self.ask(name, Some(default)) {
            Some(value) => one(value).and_then(|text| parse(&text)),
            None => parse(default),
        };
        self.judge(name, parsed)
    }

    /// The value of a key that must be set.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        remedy: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let parsed = match self.ask(name, None) {
            Some(value) => one(value).and_then(|text| parse(&text)),
            None => Err(Wrong::new("is missing", remedy)),
        };
        self.judge(name, parsed)
    }

    /// The values of a key that is a list; as text, they are separated by commas.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        default: &str,
        parse: impl FnOnce(&[String]) -> Result<T, Wrong>,
    ) -> Option<T> {
        let parsed = match self.ask(name, Some(default)) {
            Some(value) => many(value).and_then(|texts| parse(&texts)),
            None => parse(&separated(default)),
        };
        self.judge(name, parsed)
    }

    /// A section within this one.
    pub(super) fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Section<'_, '_>) -> Option<T>) -> Option<T> {
        self.asked.insert(name.to_owned());
        let path = join(&self.path, name);
        self.notes.sections.insert(path.clone());
        let value = self.table.and_then(|table| table.get(name));
        self.notes.read(&path, value, read)
    }

    /// The sections that a section of freely named ones holds, by name.
    pub(super) fn named(&mut self, name: &str) -> BTreeMap<&'t str, &'t Value> {
        let mut found = BTreeMap::new();
        self.asked.insert(name.to_owned());
        let path = join(&self.path, name);
        self.notes.sections.insert(path.clone());
        let value: Option<&'t Value> = self.table.and_then(|table| table.get(name));
        if let Some(ValueKind::Table(table)) = value.map(|value| &value.kind) {
            found.extend(table.iter().map(|(name, value)| (name.as_str(), value)));
        } else {
            // Says what is wrong when it is no section at all.
            self.notes.read(&path, value, |_| Some(()));
        }
        found
    }

    /// A section within this one that may be a single word instead, which then is its `key`.
    pub(super) fn within_or_word<T>(
        &mut self,
        name: &str,
        key: &str,
        read: impl FnOnce(&mut Section<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let Some((value, word)) = self.table.and_then(|table| {
            let value = table.get(name)?;
            if let ValueKind::String(word) = &value.kind { Some((value, word)) } else { None }
        }) else {
            return self.within(name, read);
        };
        self.asked.insert(name.to_owned());
        let origin = value.origin().map(str::to_owned);
        let word = Value::new(origin.as_ref(), word.as_str());
        let table = Value::new(origin.as_ref(), Map::from([(key.to_owned(), word)]));
        self.notes.read(&join(&self.path, name), Some(&table), read)
    }

    /// What stands here that nobody has asked for yet, in order.
    pub(super) fn not_asked(&self) -> Vec<String> {
        let present = self.table.into_iter().flat_map(|table| table.keys());
        let mut names: Vec<_> = present.filter(|name| !self.asked.contains(*name)).cloned().collect();
        names.sort();
        names
    }

    /// Notes problems of another section, which are this one's too.
    pub(super) fn adopt(&mut self, problems: &[Problem]) {
        self.notes.problems.extend_from_slice(problems);
    }

    /// Takes whatever else stands here as known: another problem makes it pointless to judge.
    pub(super) fn ignore_rest(&mut self) {
        self.asked.extend(self.table.into_iter().flat_map(|table| table.keys().cloned()));
    }

    /// Notes a problem with a key, or with what it says beside others.
    pub(super) fn complain(&mut self, name: &str, wrong: Wrong) {
        let value = self.table.and_then(|table| table.get(name));
        let place = value.and_then(origin).or_else(|| self.origin()).unwrap_or(&self.notes.place).to_owned();
        let mut what = wrong.what;
        let beside = self.variables();
        if variable_of(&place).is_none() && !beside.is_empty() {
            // What stands in the file may be right but for them.
            what.push_str(&format!(" (this section also has what {} sets)", beside.join(" and ")));
        }
        self.notes.problems.push(Problem { place, key: join(&self.path, name), what, remedy: wrong.remedy });
    }

    /// The variables that set keys right in this section, in order.
    fn variables(&self) -> Vec<&str> {
        let values = self.table.into_iter().flat_map(|table| table.values());
        let mut found: Vec<_> = values.filter_map(Value::origin).filter_map(variable_of).collect();
        found.sort_unstable();
        found
    }

    /// Where the whole section is from, if variables alone set it.
    fn origin(&self) -> Option<&str> {
        self.table.and_then(|table| from_variables(table.values()))
    }

    /// Notes what works, and should not stay so.
    pub(super) fn warn(&mut self, name: &str, text: &str) {
        self.notes.warnings.push(format!("{}: {text}", join(&self.path, name)));
    }

    /// Where the value of a key came from, if one is set.
    pub(super) fn place_of(&self, name: &str) -> Option<&str> {
        self.table.and_then(|table| table.get(name)).and_then(origin)
    }

    fn ask(&mut self, name: &str, default: Option<&str>) -> Option<&'t Value> {
        self.asked.insert(name.to_owned());
        self.notes.keys.insert(join(&self.path, name), default.map(str::to_owned));
        self.table.and_then(|table| table.get(name))
    }

    fn judge<T>(&mut self, name: &str, parsed: Result<T, Wrong>) -> Option<T> {
        parsed.map_err(|wrong| self.complain(name, wrong)).ok()
    }

    fn note_unknown(self) {
        let mut unknown: Vec<_> = self
            .table
            .into_iter()
            .flatten()
            .filter(|(name, _)| !self.asked.contains(*name))
            .map(|(name, value)| {
                let place = origin(value).unwrap_or(&self.notes.place).to_owned();
                (join(&self.path, name), place)
            })
            .collect();
        unknown.sort();
        self.notes.unknown.append(&mut unknown);
    }
}

/// Where a value came from; a section that has no place of its own has that of its first key.
pub(super) fn origin(value: &Value) -> Option<&str> {
    match (value.origin(), &value.kind) {
        (Some(place), _) => Some(place),
        (None, ValueKind::Table(table)) => {
            let sorted: BTreeMap<_, _> = table.iter().collect();
            sorted.into_values().find_map(origin)
        }
        (None, _) => None,
    }
}

/// Where these values are from, if variables of the environment have set all of them: the first in order.
pub(super) fn from_variables<'t>(values: impl Iterator<Item = &'t Value>) -> Option<&'t str> {
    let mut first = None;
    for value in values {
        let origin = match &value.kind {
            ValueKind::Table(table) => from_variables(table.values())?,
            _ => value.origin().filter(|origin| variable_of(origin).is_some())?,
        };
        first = Some(first.map_or(origin, |first: &str| first.min(origin)));
    }
    first
}

fn one(value: &Value) -> Result<String, Wrong> {
    const HOW: &str = "write a single value";
    match &value.kind {
        ValueKind::Table(_) => Err(Wrong::new("is a value, not a section", HOW)),
        ValueKind::Array(_) => Err(Wrong::new("is a single value, not a list", HOW)),
        ValueKind::Float(_) => Err(Wrong::new("has a decimal point", "write a whole number")),
        ValueKind::Nil => Ok(String::new()),
        kind => Ok(kind.to_string()),
    }
}

fn many(value: &Value) -> Result<Vec<String>, Wrong> {
    match &value.kind {
        ValueKind::Array(values) => values.iter().map(one).collect(),
        _ => one(value).map(|text| separated(&text)),
    }
}

fn separated(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use config::{FileFormat, Format};

    use super::super::values;
    use super::*;

    fn walk(text: &str, read: impl FnOnce(&mut Section<'_, '_>) -> Option<()>) -> (Option<()>, Vec<String>) {
        let place = "f.toml".to_owned();
        let tree = Value::new(None, Format::parse(&FileFormat::Toml, Some(&place), text).unwrap());
        let mut notes = Notes::new(&place);
        let result = notes.read("", Some(&tree), read);
        let problems = notes.finish().problems;
        (result, problems.iter().map(Problem::to_string).collect())
    }

    fn network(root: &mut Section<'_, '_>) -> Option<()> {
        root.within("network", |s| {
            let call = s.key("call_timeout", "60s", values::duration);
            let types = s.list("types", "a,b", |types| Ok(types.len()));
            let name = s.required("name", "write a name", values::text);
            call.and(types).and(name).map(|_| ())
        })
    }

    #[test]
    fn what_is_right_is_read_and_defaults_fill_in() {
        let (read, problems) = walk("network = { name = 'x' }", network);
        assert_eq!((read, problems), (Some(()), vec![]));
    }

    #[test]
    fn every_problem_is_told_with_place_key_and_remedy() {
        let (read, problems) = walk(
            "[network]\ncall_timeout = ['1s']\ntypes = [['a']]\ncall_timout = '1s'\nzzz = 1\n[log]\ncall_timeout = 1",
            network,
        );
        assert_eq!(read, None);
        assert_eq!(
            problems,
            [
                "f.toml: network.call_timeout: is a single value, not a list; write a single value",
                "f.toml: network.types: is a single value, not a list; write a single value",
                "f.toml: network.name: is missing; write a name",
                "f.toml: network.call_timout: is not a known key; did you mean `call_timeout`?",
                "f.toml: network.zzz: is not a known key; remove it, or write one of `call_timeout`, `name`, `types`",
                "f.toml: log: is not a known key; remove it, or write one of `network`",
            ]
        );
    }

    #[test]
    fn a_key_in_the_wrong_section_is_pointed_to_the_right_one() {
        let (_, problems) = walk("call_timeout = '1s'\nnetwork.name = 'x'", network);
        assert_eq!(problems, ["f.toml: call_timeout: is not a known key; did you mean `network.call_timeout`?"]);
    }

    #[test]
    fn sections_and_values_are_not_mixed_up() {
        let (_, problems) = walk("network = 5", network);
        assert_eq!(problems[0], "f.toml: network: is a section, not a value; write [network] and its keys below");
        let (_, problems) = walk("[network]\nname = { a = 1 }", network);
        assert_eq!(problems, ["f.toml: network.name: is a value, not a section; write a single value"]);
    }

    #[test]
    fn a_problem_is_one_line() {
        let (_, problems) = walk("network.name = 'x'\n\"a\\nb\" = 1", network);
        assert_eq!(problems, ["f.toml: a b: is not a known key; remove it, or write one of `network`"]);
    }

    #[test]
    fn inline_secrets_are_refused_without_being_repeated() {
        let (_, problems) = walk("[network]\nname = 'x'\nsecret = 's3cret'", network);
        assert_eq!(
            problems,
            ["f.toml: network.secret: is not a known key: a secret does not belong into the configuration; \
              write it to a file of its own and name that file in `secret_file`"]
        );
    }
}
