//! Whole configurations, read as the daemon reads them.

#![allow(clippy::disallowed_methods, reason = "a test may change files of its own by path")]

mod auth;
mod checks;
mod example;
mod profiles;
mod secrets;
mod sources;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::domain::time::Wall;

const GUID: &str = "11111111-2222-3333-4444-555555555555";

/// A folder with a configuration and the secret of its tenants.
struct House {
    dir: TempDir,
    variables: BTreeMap<String, String>,
}

impl House {
    fn new(file: &str) -> Self {
        let house = Self { dir: tempfile::tempdir().unwrap(), variables: BTreeMap::new() };
        house.put("sweepd.toml", file).put("secret", "s3cret\n");
        house
    }

    /// With one good tenant, then the text.
    fn contoso(more: &str) -> Self {
        Self::new(&format!("{}\n{more}", tenant("contoso", "")))
    }

    fn put(&self, name: &str, content: &str) -> &Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn load_with(&self, overrides: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let environment = Environment::new(self.variables.clone(), "/srv");
        load(Some(&self.dir.path().join("sweepd.toml")), &environment, &overrides)
    }

    fn load_at(&self, now: &str) -> Result<Config, ConfigError> {
        let environment = Environment::new(self.variables.clone(), "/srv").at(Wall::parse(now).unwrap());
        load(Some(&self.dir.path().join("sweepd.toml")), &environment, &[])
    }

    fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(&[])
    }

    fn good(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The problems, a line each, without the folder's name.
    fn problems(&self) -> Vec<String> {
        let text = self.load().unwrap_err().to_string();
        self.lines(&text)
    }

    fn lines(&self, text: &str) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().to_str().unwrap());
        text.replace(&dir, "").lines().map(str::to_owned).collect()
    }
}

fn tenant(name: &str, more: &str) -> String {
    format!("[tenants.{name}]\ntenant_id = '{GUID}'\nauth = {{ client_id = 'app', secret_file = 'secret' }}\n{more}\n")
}

fn name(name: &str) -> TenantName {
    name.parse().unwrap()
}
#[test]
fn a_tenant_is_completed_from_defaults() {
    let config = House::contoso("").good();
    let tenant = &config.tenants[&name("contoso")];
    assert_eq!(tenant.tenant_id.to_string(), GUID);
    assert_eq!(tenant.api_url, "https://api.securitycenter.microsoft.com");
    assert_eq!(tenant.budgets.scan.most.per_hour.get(), 1500);
    let Auth::ClientSecret { client_id, secret, .. } = &tenant.auth else { panic!("another method") };
    assert_eq!((client_id.as_str(), secret.expose_secret()), ("app", "s3cret"));
    assert_eq!(config.daemon.state_dir, Path::new("/var/lib/sweepd"));
    assert_eq!(config.daemon.spool_dir, Path::new("/var/lib/sweepd/spool"));
    assert!(config.disabled.is_empty() && config.warnings.is_empty());
}
