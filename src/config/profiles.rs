//! `[auth_profiles.X]`: a way to sign in that several tenants share, as the customers of one provider do
//! who trust its one application.

use std::cell::Cell;
use std::collections::BTreeMap;

use config::Value;

use super::auth::Auth;
use super::reader::{self, Findings, KnownKey, Notes, Problem, Section};
use super::values::Wrong;
use super::{Around, Profiles};
use crate::domain::id::TenantName;

/// A profile that is configured.
pub(super) struct Profile {
    /// None: it is broken.
    auth: Option<Auth>,
    /// Why it is broken. They are the problems of those tenants that use it.
    problems: Vec<Problem>,
    used: Cell<bool>,
}

/// Reads every profile. What is right or wrong with one concerns its tenants alone, so problems stay
/// with it; warnings and keys come back.
pub(super) fn read(
    sections: &BTreeMap<&str, &Value>,
    place: &str,
    around: &Around<'_>,
) -> (Profiles, Vec<String>, Vec<KnownKey>) {
    let (mut profiles, mut warnings, mut keys) = (Profiles::new(), Vec::new(), Vec::new());
    for (name, value) in sections {
        let path = format!("auth_profiles.{name}");
        let mut notes = Notes::new(place);
        let auth = notes.read(&path, Some(value), |section| Auth::own(section, around));
        let Findings { mut problems, warnings: mut told, keys: mut known } = notes.finish();
        // As a tenant's: so that the environment, whose names know no case, can name it.
        if name.parse::<TenantName>().is_err() {
            problems.push(Problem {
                place: reader::origin(value).unwrap_or(place).to_owned(),
                key: path,
                what: "a profile's name has 1 to 64 lower-case letters, digits, - and _".to_owned(),
                remedy: "rename the section".to_owned(),
            });
        }
        warnings.append(&mut told);
        keys.append(&mut known);
        let auth = auth.filter(|_| problems.is_empty());
        profiles.insert((*name).to_owned(), Profile { auth, problems, used: Cell::new(false) });
    }
    (profiles, warnings, keys)
}

/// What is to be said of profiles that no tenant uses.
pub(super) fn unused(profiles: &Profiles) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, profile) in profiles.iter().filter(|(_, profile)| !profile.used.get()) {
        warnings.push(format!(
            "auth_profiles.{name}: no tenant uses it; write auth = \"{name}\" to a tenant, or remove it"
        ));
        warnings.extend(profile.problems.iter().map(Problem::to_string));
    }
    warnings
}

/// The profile of this name, for the tenant whose `auth` this is. None: it is not there, or broken, which
/// is noted.
pub(super) fn find(section: &mut Section<'_, '_>, around: &Around<'_>, name: &str) -> Option<Auth> {
    let Some(profile) = around.profiles.get(name) else {
        let known: Vec<_> = around.profiles.keys().map(String::as_str).collect();
        let remedy = match reader::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("add a section [auth_profiles.{name}]"),
            None => format!("add a section [auth_profiles.{name}], or name one that is there ({})", known.join(", ")),
        };
        section.complain("profile", Wrong::new(format!("there is no profile {}", super::values::shown(name)), remedy));
        return None;
    };
    profile.used.set(true);
    section.adopt(&profile.problems);
    profile.auth.clone()
}
