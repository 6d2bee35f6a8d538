//! A temporary folder with a configuration, secrets, and room for the daemon's state.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sweepd::domain::ledger::Limits;
use sweepd::simulator::{Simulator, TenantOptions};
use tempfile::TempDir;

/// A tenant as it is configured.
#[derive(Clone, Debug)]
pub struct Configured {
    /// Its name.
    pub name: String,
    /// Its directory's id.
    pub tenant_id: String,
    /// The application's id.
    pub client_id: String,
    /// What the secret file holds.
    pub secret: String,
    /// How it signs in, instead of with that.
    pub auth: Option<String>,
    /// The limits of the scan call.
    pub limits: Limits,
    /// Further keys of the tenant's section.
    pub keys: String,
    /// Where the API is, unless at the simulator.
    pub api_url: Option<String>,
    /// Where the sign-in is, unless at the simulator.
    pub authority_url: Option<String>,
}

impl Configured {
    /// A simulated tenant, configured as it is.
    pub fn of(name: &str, tenant: &TenantOptions) -> Self {
        Self {
            name: name.to_owned(),
            tenant_id: tenant.tenant_id.to_string(),
            client_id: tenant.client_id.clone(),
            secret: tenant.client_secret.clone(),
            auth: None,
            limits: tenant.limits,
            keys: String::new(),
            api_url: None,
            authority_url: None,
        }
    }
}

/// The folder. It is removed when this is dropped.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
}

impl Site {
    /// An empty one.
    pub fn empty() -> Self {
        Self { folder: tempfile::Builder::new().prefix("sweepd-test-").tempdir().unwrap() }
    }

    /// One that is configured for these tenants, with everything set to be quick. `intake` are
    /// further keys of that section.
    pub fn new(simulator: &Simulator, tenants: &[Configured], intake: &str) -> Self {
        let site = Self::empty();
        let mut text = format!(
            "[daemon]\nstate_dir = \"{}\"\nshutdown_grace = \"60s\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [log]\nformat = \"json\"\n[network]\nunknown_grace = \"2s\"\ncall_timeout = \"3s\"\n\
             [follow_up]\ninterval = \"1s\"\nlookup_horizon = \"4s\"\n\
             [intake]\nsettle = \"200ms\"\nrescan = \"1s\"\n{intake}\n",
            site.state().to_str().unwrap()
        );
        for tenant in tenants {
            site.write_secret(&tenant.name, &tenant.secret);
            let secret = || format!("client_id = \"{}\"\nsecret_file = \"{}-secret\"", tenant.client_id, tenant.name);
            write!(
                text,
                "[tenants.{name}]\ntenant_id = \"{id}\"\napi_url = \"{api}\"\nauthority_url = \"{authority}\"\n{keys}\n\
                 [tenants.{name}.auth]\n{auth}\n\
                 [tenants.{name}.limits]\nper_minute = {minute}\nper_hour = {hour}\n",
                name = tenant.name,
                id = tenant.tenant_id,
                api = tenant.api_url.clone().unwrap_or_else(|| simulator.url()),
                authority = tenant.authority_url.clone().unwrap_or_else(|| simulator.url()),
                keys = tenant.keys,
                auth = tenant.auth.clone().unwrap_or_else(secret),
                minute = tenant.limits.per_minute,
                hour = tenant.limits.per_hour,
            )
            .unwrap();
        }
        site.write_config(&text);
        site
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path().join("sweepd.toml")
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Something below the spool folder.
    pub fn spool(&self, relative: &str) -> PathBuf {
        self.state().join("spool").join(relative)
    }

    /// Replaces the configuration.
    pub fn write_config(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Replaces the secret of a tenant; with a line's end, as editors leave it.
    pub fn write_secret(&self, tenant: &str, secret: &str) {
        let path = self.path().join(format!("{tenant}-secret"));
        fs::write(&path, format!("{secret}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Puts a file into the drop folder: written beside it, then renamed into place.
    pub fn put(&self, relative: &str, content: impl AsRef<[u8]>) {
        let target = self.spool("incoming").join(relative);
        let unfinished = target.with_extension("tmp");
        fs::write(&unfinished, content).unwrap();
        fs::rename(unfinished, target).unwrap();
    }

    /// Everything that lies in a folder below the spool folder, by name.
    pub fn names_in(&self, relative: &str) -> Vec<String> {
        let entries = fs::read_dir(self.spool(relative)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The files, not the folders, that wait to be taken.
    pub fn waiting_files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.spool("incoming")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }
}
