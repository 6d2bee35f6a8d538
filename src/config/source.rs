//! Where values come from, and which of them holds: the file, then the tenants' own files, then the
//! environment, then the command line. What comes later wins, key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use config::{Config, FileFormat, Format, Map, Value, ValueKind};

use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;
use crate::domain::time::Wall;

use super::ConfigError;
use super::reader::{KnownKey, Problem};

/// Where the file is unless somebody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/sweepd/sweepd.toml";

const ENVIRONMENT: &str = "environment";
pub(super) const COMMAND_LINE: &str = "command line";
/// The place of a value that a variable sets, before the variable's name.
const VARIABLE: &str = "environment variable ";
const PREFIX: &str = "SWEEPD";
const SEPARATOR: &str = "__";

/// The variable that set a value of this origin, if one did.
pub(super) fn variable_of(origin: &str) -> Option<&str> {
    origin.strip_prefix(VARIABLE)
}

/// The variable that sets the key of this path.
pub(super) fn variable_for(path: &str) -> String {
    format!("{PREFIX}{SEPARATOR}{}", path.replace('.', SEPARATOR)).to_uppercase()
}

/// The environment as it was at one moment: the variables, the folder that relative paths start
/// from, and what time it was.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    working_dir: PathBuf,
    pub(super) reads_secrets: bool,
    /// None: nothing is judged by its age.
    pub(super) now: Option<Wall>,
}

impl Environment {
    /// The environment of this process, now. What is not UTF-8 is replaced, and will be refused
    /// where it is read.
    pub fn of_process() -> Self {
        let readable = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            variables: std::env::vars_os().map(|(name, value)| (readable(name), readable(value))).collect(),
            working_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            reads_secrets: true,
            now: None,
        }
    }

    /// An environment of these variables, in this working folder.
    pub fn new(variables: BTreeMap<String, String>, working_dir: impl Into<PathBuf>) -> Self {
        Self { variables, working_dir: working_dir.into(), reads_secrets: true, now: None }
    }

    /// The same at this time, by which the age of certificates is judged.
    #[must_use]
    pub fn at(self, now: Wall) -> Self {
        Self { now: Some(now), ..self }
    }

    /// The same, for commands that only look at the database: they need no secret, and outside the
    /// service there may be none to read.
    #[must_use]
    pub fn without_secrets(self) -> Self {
        Self { reads_secrets: false, ..self }
    }

    /// A variable that is set, and not to nothing.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The path itself when it is absolute, else as seen from the working folder.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.working_dir.join(path)
    }

    /// The variables that set keys, those of longer names first: where one names a section and
    /// another a key in it, the section's wins, and is refused, rather than one of them by chance.
    fn settings(&self) -> Vec<Setting> {
        let prefix = format!("{PREFIX}{SEPARATOR}").to_lowercase();
        let setting = |(name, value): (&String, &String)| {
            let path = name.to_lowercase().strip_prefix(&prefix)?.split(SEPARATOR).map(str::to_owned).collect();
            Some(Setting { name: name.clone(), path, value: value.clone() })
        };
        let mut settings: Vec<_> = self.variables.iter().filter_map(setting).collect();
        settings.sort_by(|one, other| other.name.len().cmp(&one.name.len()).then_with(|| one.name.cmp(&other.name)));
        settings
    }

    /// Warnings of variables that set nothing, and would set a key if their underscores were doubled.
    pub(super) fn misspelt(&self, keys: &[KnownKey]) -> Vec<String> {
        let single = |name: &str| name.to_uppercase().replace(SEPARATOR, "_");
        let known: BTreeMap<_, _> =
            keys.iter().map(|key| variable_for(&key.path)).map(|name| (single(&name), name)).collect();
        let prefix = format!("{PREFIX}{SEPARATOR}");
        let unread = self.variables.keys().filter(|name| !name.to_uppercase().starts_with(&prefix));
        unread
            .filter_map(|name| Some((name, known.get(&single(name))?)))
            .map(|(name, meant)| format!("{VARIABLE}{name}: sets nothing; did you mean `{meant}`?"))
            .collect()
    }
}

/// Shows the names only: values may be secrets, of others too.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("working_dir", &self.working_dir)
            .field("reads_secrets", &self.reads_secrets)
            .field("now", &self.now)
            .finish()
    }
}

/// All sources, one above the other.
pub(super) struct Layers {
    /// The file that was read; absent when everything comes from the environment.
    pub(super) file: Option<PathBuf>,
    /// The folder that file names start from.
    pub(super) dir: PathBuf,
    /// What holds.
    pub(super) tree: Value,
    /// Tenants that have a file of their own, whose problems are theirs alone.
    pub(super) separate: BTreeMap<TenantName, PathBuf>,
    /// Tenants whose own file cannot be used at all.
    pub(super) broken: BTreeMap<TenantName, Vec<Problem>>,
    /// Tenants' files that name no tenant.
    pub(super) stray: Vec<Problem>,
}

impl Layers {
    /// Where an operator would add what is missing.
    pub(super) fn place(&self) -> String {
        self.file.as_ref().map_or_else(|| ENVIRONMENT.to_owned(), |file| ShownPath::new(file).to_string())
    }

    /// Layers of nothing, as if an empty file had been read.
    pub(super) fn empty() -> Self {
        Self {
            file: None,
            dir: PathBuf::from("/"),
            tree: Value::new(None, Map::<String, Value>::new()),
            separate: BTreeMap::new(),
            broken: BTreeMap::new(),
            stray: Vec::new(),
        }
    }
}

/// Reads all sources. `overrides` are dotted paths with the text of their values.
///
/// The standard file may be absent when something is set in the environment or on the command
/// line; a file that was asked for may not.
pub(super) fn layers(
    path: Option<&Path>,
    environment: &Environment,
    overrides: &[(String, String)],
) -> Result<Layers, ConfigError> {
    let asked = path.map(Path::to_path_buf).or_else(|| environment.get("SWEEPD_CONFIG").map(PathBuf::from));
    let file = environment.absolute(asked.as_deref().unwrap_or(Path::new(DEFAULT_FILE)));
    let mut layers = Layers::empty();
    layers.dir = file.parent().unwrap_or(Path::new("/")).to_path_buf();

    let settings = environment.settings();
    let elsewhere = !settings.is_empty() || !overrides.is_empty();
    let mut document = Map::new();
    if asked.is_some() || file.exists() || !elsewhere {
        document = parse(&file)?;
        layers.file = Some(file);
    }
    layers.add_separate_tenants(&mut document)?;

    let mut builder = Config::builder().add_source(Document(document));
    for setting in settings {
        builder = builder.add_source(setting);
    }
    let origin = COMMAND_LINE.to_owned();
    for (key, text) in overrides {
        builder = builder
            .set_override(key, Value::new(Some(&origin), text.as_str()))
            .map_err(|_| problem(COMMAND_LINE, key, "is not a dotted key", "write one such as daemon.state_dir"))?;
    }
    let whole = |error: config::ConfigError| problem(ENVIRONMENT, "", &error.to_string(), "correct it");
    layers.tree = builder.build().map_err(whole)?.cache;
    Ok(layers)
}

impl Layers {
    /// Puts `tenants.d/*.toml` where `[tenants.X]` would be, and notes what cannot be put there.
    fn add_separate_tenants(&mut self, document: &mut Map<String, Value>) -> Result<(), Problem> {
        let folder = self.dir.join("tenants.d");
        for file in toml_files(&folder)? {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let place = ShownPath::new(&file).to_string();
            let name = match stem.parse::<TenantName>() {
                Ok(name) => name,
                Err(error) => {
                    let stray = problem(&place, "", &error.to_string(), "rename the file to <tenant>.toml");
                    self.stray.push(stray);
                    continue;
                }
            };
            let tenants =
                document.entry("tenants".to_owned()).or_insert_with(|| Value::new(None, Map::<String, Value>::new()));
            let ValueKind::Table(tenants) = &mut tenants.kind else {
                // Not a section: refused where it is read.
                return Ok(());
            };
            let table = parse(&file).and_then(|table| only_tenant(table, &name, &place));
            let table = table.and_then(|table| {
                if tenants.contains_key(name.as_str()) {
                    let what = format!("the tenant is also in the file beside {}", ShownPath::new(&folder));
                    return Err(problem(&place, "", &what, "keep one of the two"));
                }
                Ok(table)
            });
            match table {
                Ok(table) => {
                    tenants.insert(name.to_string(), Value::new(Some(&place), table));
                    self.separate.insert(name, file);
                }
                Err(problem) => {
                    self.broken.insert(name, vec![problem]);
                }
            }
        }
        Ok(())
    }
}

/// The tenant's keys, which stand at the top or below `[tenants.<name>]`.
fn only_tenant(mut table: Map<String, Value>, name: &TenantName, place: &str) -> Result<Map<String, Value>, Problem> {
    let Some(tenants) = table.remove("tenants") else {
        return Ok(table);
    };
    let others: BTreeSet<String> = table.into_keys().collect();
    if let Some(other) = others.first() {
        return Err(problem(place, other, "stands beside the tenant's section", "move it into the section"));
    }
    let mut tenants = tenants.into_table().unwrap_or_default();
    match (tenants.remove(name.as_str()).map(|tenant| tenant.kind), tenants.is_empty()) {
        (Some(ValueKind::Table(tenant)), true) => Ok(tenant),
        _ => Err(problem(
            place,
            "tenants",
            "holds something else than the one tenant that the file is named after",
            &format!("write a single section [tenants.{name}]"),
        )),
    }
}

/// The folder's `*.toml`, in order of their names; none when there is no such folder. Hidden files
/// are left out.
fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: std::io::Error| {
        problem(
            &ShownPath::new(folder).to_string(),
            "",
            &format!("cannot be read: {error}"),
            "let the service user read it, or remove it",
        )
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(file: &Path) -> Result<Map<String, Value>, Problem> {
    let place = ShownPath::new(file).to_string();
    let bytes = fs::read(file).map_err(|error| {
        problem(
            &place,
            "",
            &format!("cannot be read: {error}"),
            "create it or make it readable, or name another with --config or $SWEEPD_CONFIG",
        )
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = good.split(|byte| *byte == b'\n').count();
        problem(&place, "", &format!("line {line}: is not UTF-8"), "save the file as UTF-8")
    })?;
    Format::parse(&FileFormat::Toml, Some(&place), text)
        .map_err(|error| problem(&place, "", &syntax_error(&error.to_string()), "correct the syntax"))
}

/// The parser's message on one line, without the line of the file that it quotes: a secret may
/// stand there.
fn syntax_error(message: &str) -> String {
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    match first.strip_prefix("TOML parse error at ") {
        Some(position) => {
            let rest: Vec<_> = lines.skip(3).map(str::trim).filter(|line| !line.is_empty()).collect();
            format!("{position}: {}", rest.join(", "))
        }
        None => first.to_owned(),
    }
}

fn problem(place: &str, key: &str, what: &str, remedy: &str) -> Problem {
    Problem { place: place.to_owned(), key: key.to_owned(), what: what.to_owned(), remedy: remedy.to_owned() }
}

/// A document that was parsed before, as a source.
#[derive(Clone, Debug)]
struct Document(Map<String, Value>);

impl config::Source for Document {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }

    /// As it is: the crate would read a quoted key such as `"log.level"` as a path.
    fn collect_to(&self, cache: &mut Value) -> Result<(), config::ConfigError> {
        *cache = Value::new(None, self.0.clone());
        Ok(())
    }
}

/// A variable of the environment, as a source: each value has its variable as its origin.
#[derive(Clone)]
struct Setting {
    name: String,
    path: Vec<String>,
    value: String,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

impl config::Source for Setting {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let mut tree = Value::new(None, Map::<String, Value>::new());
        self.collect_to(&mut tree)?;
        tree.into_table()
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), config::ConfigError> {
        let mut at = cache;
        for part in &self.path {
            if !matches!(at.kind, ValueKind::Table(_)) {
                *at = Value::new(None, Map::<String, Value>::new());
            }
            let ValueKind::Table(table) = &mut at.kind else { return Ok(()) };
            at = table.entry(part.clone()).or_insert_with(|| Value::new(None, ValueKind::Nil));
        }
        *at = Value::new(Some(&format!("{VARIABLE}{}", self.name)), self.value.as_str());
        Ok(())
    }
}
