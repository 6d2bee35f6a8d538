//! What may be set: read from its sources, checked, all errors at once.
//!
//! Nothing else in sweepd reads configuration, and nothing else reads secrets. What comes out is
//! complete: every default is filled in, every path absolute, every secret read.

mod auth;
mod certificate;
mod der;
mod limits;
mod profiles;
mod proxy;
mod reader;
mod secret_file;
mod sections;
mod source;
mod tenant;
#[cfg(test)]
mod tests;
mod urls;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use crate::domain::budgets::Budgets;
use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;

pub use auth::Auth;
pub use certificate::Certificate;
pub use proxy::Proxy;
pub use reader::{KnownKey, Problem};
pub use secret_file::read_to_be_wiped;
pub use sections::{Daemon, FollowUp, Http, Intake, Log, LogFormat, Network, Retention};
pub use source::{DEFAULT_FILE, Environment};
pub use tenant::{Tenant, UnknownMarks};
pub use urls::{LOOPBACK, is_localhost, is_loopback};

use reader::{Findings, Notes, Section};
use source::{Layers, variable_for};

/// Reads a duration of the command line, written as in the configuration and above zero.
pub fn duration_of(text: &str) -> Result<std::time::Duration, String> {
    values::positive_duration(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))
}

/// Everything that is set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folders and shutdown.
    pub daemon: Daemon,
    /// Health, metrics, dashboard.
    pub http: Http,
    /// The log.
    pub log: Log,
    /// How calls leave this machine.
    pub network: Network,
    /// The drop folder.
    pub intake: Intake,
    /// How actions are followed.
    pub follow_up: FollowUp,
    /// How long what is kept.
    pub retention: Retention,
    /// The tenants that work; at least one.
    pub tenants: BTreeMap<TenantName, Tenant>,
    /// The tenants whose own file in `tenants.d` is broken, or their secret, and why.
    pub disabled: BTreeMap<TenantName, Vec<Problem>>,
    /// The file that was read; none when everything came from elsewhere.
    pub file: Option<PathBuf>,
    /// What works, and should not stay so: to be logged.
    pub warnings: Vec<String>,
}

/// Why there is no configuration: everything that is wrong with it, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// All that is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// What values are read in the light of.
struct Around<'a> {
    environment: &'a Environment,
    /// The folder of the configuration file.
    dir: &'a Path,
    /// The configuration file, if there is one.
    file: Option<&'a Path>,
    profiles: Profiles,
}

/// The ways to sign in that tenants share, by name.
type Profiles = BTreeMap<String, profiles::Profile>;

/// What holds for the whole daemon.
struct Settings {
    daemon: Daemon,
    http: Http,
    log: Log,
    network: Network,
    intake: Intake,
    follow_up: FollowUp,
    retention: Retention,
}

/// Reads and checks the configuration and its secrets.
///
/// The file is `path`, else `$SWEEPD_CONFIG`, else [`DEFAULT_FILE`]; then `tenants.d/*.toml` beside
/// it, `SWEEPD__SECTION__KEY` of the environment, and `overrides` by dotted path, the later over
/// the earlier.
pub fn load(
    path: Option<&Path>,
    environment: &Environment,
    overrides: &[(String, String)],
) -> Result<Config, ConfigError> {
    let layers = source::layers(path, environment, overrides)?;
    read(layers, environment).0
}

/// Every key that may be set, in order, with its default; those of a tenant as of `tenants.NAME`, those of
/// a profile as of `auth_profiles.NAME`.
pub fn known_keys() -> Vec<KnownKey> {
    let mut layers = Layers::empty();
    let nothing = Value::new(None, Map::<String, Value>::new());
    let named = |kind: &str| (kind.to_owned(), Value::new(None, Map::from([("NAME".to_owned(), nothing.clone())])));
    layers.tree = Value::new(None, Map::from(["auth_profiles", "tenants"].map(named)));
    read(layers, &Environment::new(BTreeMap::new(), "/")).1
}

fn read(layers: Layers, environment: &Environment) -> (Result<Config, ConfigError>, Vec<KnownKey>) {
    let place = layers.place();
    let mut around = Around { environment, dir: &layers.dir, file: layers.file.as_deref(), profiles: Profiles::new() };
    let mut notes = Notes::new(&place);
    let (mut sections, mut shared) = (BTreeMap::new(), BTreeMap::new());
    let settings = notes.read("", Some(&layers.tree), |root| {
        shared = root.named("auth_profiles");
        sections = root.named("tenants");
        sections.retain(|name, _| layers.broken.keys().all(|broken| broken.as_str() != *name));
        let names = sections.keys().filter_map(|name| name.parse().ok());
        Settings::read(root, &around, &names.chain(layers.broken.keys().cloned()).collect())
    });
    let Findings { mut problems, mut warnings, mut keys } = notes.finish();
    let (profiles, mut told, mut known) = profiles::read(&shared, &place, &around);
    around.profiles = profiles;
    warnings.append(&mut told);
    keys.append(&mut known);

    let mut tenants = BTreeMap::new();
    let mut disabled = layers.broken;
    warnings.extend(layers.stray.iter().map(Problem::to_string));
    for (name, value) in &sections {
        let own = name.parse::<TenantName>();
        let file = own.as_ref().ok().and_then(|own| layers.separate.get(own));
        let place = file.map_or_else(|| place.clone(), |file| ShownPath::new(file).to_string());
        if let Some(problem) = only_of_variables(name, value, sections.keys()) {
            problems.push(problem);
            continue;
        }
        let (tenant, mut findings) = read_tenant(name, value, &place, &around);
        warnings.append(&mut findings.warnings);
        keys.append(&mut findings.keys);
        match (own, tenant) {
            (Ok(own), Some(tenant)) if findings.problems.is_empty() => {
                tenants.insert(own, tenant);
            }
            (Ok(own), _) if file.is_some() => {
                disabled.insert(own, findings.problems);
            }
            (Ok(_), _) => problems.append(&mut findings.problems),
            (Err(error), _) => problems.push(misnamed(name, value, &place, &error.to_string())),
        }
    }
    warnings.extend(environment.misspelt(&keys));
    warnings.extend(profiles::unused(&around.profiles));
    warnings.extend(shared_registrations(&mut tenants));
    if sections.len() <= layers.separate.len() && tenants.is_empty() {
        problems.push(no_tenant(place, &disabled));
    }
    let config = match settings {
        Some(settings) if problems.is_empty() => Ok(settings.with(tenants, disabled, layers.file, warnings)),
        _ => {
            problems.extend(disabled.into_values().flatten());
            problems.extend(layers.stray);
            // Tenants that share a broken profile each have its problems.
            let mut told = Vec::new();
            problems.retain(|problem| {
                !told.contains(problem) && {
                    told.push(problem.clone());
                    true
                }
            });
            Err(ConfigError { problems })
        }
    };
    (config, keys)
}

fn read_tenant(name: &str, value: &Value, place: &str, around: &Around<'_>) -> (Option<Tenant>, Findings) {
    let mut notes = Notes::new(place);
    let path = format!("tenants.{name}");
    let tenant = notes.read(&path, Some(value), |section| Tenant::read(section, around));
    (tenant, notes.finish())
}

/// Tenants with one app registration: Defender counts their calls as one's, and so do we. Each comes out with
/// what all of them allow; returns the warnings.
fn shared_registrations(tenants: &mut BTreeMap<TenantName, Tenant>) -> Vec<String> {
    let mut allowed: BTreeMap<String, (TenantName, Budgets)> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (name, tenant) in &*tenants {
        let own = (name.clone(), tenant.budgets.clone());
        let (first, all) = allowed.entry(tenant.registration()).or_insert(own);
        if first != name {
            *all = all.stricter(&tenant.budgets);
            warnings.push(format!(
                "tenants.{first} and tenants.{name} are the same app registration in the same tenant: Defender gives both one \
                 budget, which they share, with its pauses, under the stricter limits of both; keep one of them"
            ));
            first.clone_from(name);
        }
    }
    for tenant in tenants.values_mut() {
        if let Some((_, all)) = allowed.get(&tenant.registration()) {
            tenant.budgets.clone_from(all);
        }
    }
    warnings
}

/// What is wrong with a tenant of which variables of the environment set some keys, and nothing the tenant's id: the
/// name in them is no tenant's.
fn only_of_variables<'a>(name: &str, value: &Value, names: impl Iterator<Item = &'a &'a str>) -> Option<Problem> {
    let ValueKind::Table(table) = &value.kind else { return None };
    let origin = reader::from_variables(table.values()).filter(|_| !table.contains_key("tenant_id"))?;
    let remedy = match reader::nearest(name, names.copied().filter(|other| *other != name)) {
        Some(near) => format!("did you mean `{}`?", variable_for(&format!("tenants.{near}"))),
        None => format!("add a section [tenants.{name}], or unset the variable"),
    };
    let what = "no such tenant is configured, and the variable alone makes none".to_owned();
    Some(Problem { place: origin.to_owned(), key: format!("tenants.{name}"), what, remedy })
}

fn misnamed(name: &str, value: &Value, place: &str, what: &str) -> Problem {
    Problem {
        place: reader::origin(value).unwrap_or(place).to_owned(),
        key: format!("tenants.{name}"),
        what: what.to_owned(),
        remedy: "rename the section".into(),
    }
}

fn no_tenant(place: String, disabled: &BTreeMap<TenantName, Vec<Problem>>) -> Problem {
    let (what, remedy) = if disabled.is_empty() {
        ("no tenant is configured", "add a section [tenants.NAME]")
    } else {
        ("no tenant remains: each has a broken file in tenants.d", "correct the files")
    };
    Problem { place, key: "tenants".into(), what: what.into(), remedy: remedy.into() }
}

impl Settings {
    fn read(root: &mut Section<'_, '_>, around: &Around<'_>, tenants: &BTreeSet<TenantName>) -> Option<Self> {
        let daemon = root.within("daemon", |section| Daemon::read(section, around));
        let http = root.within("http", Http::read);
        let log = root.within("log", Log::read);
        let network = root.within("network", |section| Network::read(section, around));
        let grace = network.as_ref().map(|network| network.unknown_grace);
        let intake = root.within("intake", |section| Intake::read(section, tenants));
        let follow_up = root.within("follow_up", |section| FollowUp::read(section, grace));
        let retention = root.within("retention", |section| Retention::read(section, around));
        Some(Self {
            daemon: daemon?,
            http: http?,
            log: log?,
            network: network?,
            intake: intake?,
            follow_up: follow_up?,
            retention: retention?,
        })
    }

    fn with(
        self,
        tenants: BTreeMap<TenantName, Tenant>,
        disabled: BTreeMap<TenantName, Vec<Problem>>,
        file: Option<PathBuf>,
        warnings: Vec<String>,
    ) -> Config {
        Config {
            daemon: self.daemon,
            http: self.http,
            log: self.log,
            network: self.network,
            intake: self.intake,
            follow_up: self.follow_up,
            retention: self.retention,
            tenants,
            disabled,
            file,
            warnings,
        }
    }
}
