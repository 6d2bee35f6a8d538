//! What is set once for the whole daemon.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;
use crate::domain::sweep::HoldAbove;
use crate::domain::sweep::words;

use super::Around;
use super::proxy::Proxy;
use super::reader::Section;
use super::values::{self, Wrong};

/// `[daemon]`
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The folder of the database and its lock; absolute.
    pub state_dir: PathBuf,
    /// The folder of the drop folders; absolute.
    pub spool_dir: PathBuf,
    /// How long a stop waits for calls on the wire.
    pub shutdown_grace: Duration,
}

impl Daemon {
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Self> {
        // systemd separates several with colons; the first is ours.
        let given = around.environment.get("STATE_DIRECTORY");
        let default = given
            .and_then(|folders| folders.split(':').next())
            .filter(|folder| !folder.is_empty())
            .unwrap_or("/var/lib/sweepd");
        let state_dir = section.key("state_dir", default, values::path);
        let spool_dir = section.key("spool_dir", "", values::optional(values::path));
        let shutdown_grace = section.key("shutdown_grace", "30s", values::duration);
        let state_dir = around.environment.absolute(&state_dir?);
        Some(Self {
            spool_dir: spool_dir?
                .map_or_else(|| state_dir.join("spool"), |folder| around.environment.absolute(&folder)),
            state_dir,
            shutdown_grace: shutdown_grace?,
        })
    }
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where health, metrics and the dashboard are served; none turns them off, port 0 takes any.
    pub listen: Option<SocketAddr>,
    /// Names under which it may be asked beside its addresses and `localhost`; lower case, without port.
    pub hosts: Vec<String>,
}

impl Http {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let listen = section.key("listen", "127.0.0.1:9464", values::optional(values::socket));
        let hosts = section.list("hosts", "", host_names);
        let listen = listen?;
        if let Some(address) = listen.filter(|address| !address.ip().to_canonical().is_loopback()) {
            section.warn(
                "listen",
                &format!(
                    "{address} is not loopback: every machine that reaches it may read the dashboard, the metrics and the \
                     names of your machines, because the listener has no login and no TLS; listen on 127.0.0.1 and put a \
                     proxy with both in front, or let a firewall admit only those who may read them"
                ),
            );
        }
        Some(Self { listen, hosts: hosts? })
    }
}

fn host_names(names: &[String]) -> Result<Vec<String>, Wrong> {
    let name = |name: &String| {
        let name = name.trim().trim_end_matches('.').to_ascii_lowercase();
        let is_one =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if is_one(&name) {
            return Ok(name);
        }
        Err(Wrong::new(
            format!("`{name}` is no host name"),
            "write names as browsers ask for them, without scheme and port",
        ))
    };
    names.iter().map(name).collect()
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Journald when standard error is connected to it, else text.
    Auto,
    /// A line of text an event.
    Text,
    /// A JSON object a line.
    Json,
    /// Fields in the journal.
    Journald,
}

words!(LogFormat { Auto = "auto", Text = "text", Json = "json", Journald = "journald" });

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// A level or directives; `tracing-subscriber` accepts it as an `EnvFilter`.
    pub level: String,
}

impl Log {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let format = section.key("format", "auto", values::word::<LogFormat>);
        let level = section.key("level", "info", values::log_level);
        Some(Self { format: format?, level: level? })
    }
}

/// `[network]`
#[derive(Clone, Debug)]
pub struct Network {
    /// The proxy for all calls to other machines. None: the usual proxy variables.
    pub proxy: Option<Proxy>,
    /// Certificates that are trusted beside the system's: PEM, at least one was in the file.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How long a call may take, its answer included.
    pub call_timeout: Duration,
    /// How long a call without an answer may still arrive.
    pub unknown_grace: Duration,
}

impl Network {
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Self> {
        let proxy = Proxy::read(section, around);
        let certificates = |text: &str| ca_file(&around.dir.join(values::path(text)?));
        let ca_file = section.key("ca_file", "", values::optional(certificates));
        let connect_timeout = section.key("connect_timeout", "10s", values::positive_duration);
        let call_timeout = section.key("call_timeout", "60s", values::positive_duration);
        let unknown_grace = section.key("unknown_grace", "60s", values::positive_duration);
        Some(Self {
            proxy: proxy?,
            ca_file: ca_file?,
            connect_timeout: connect_timeout?,
            call_timeout: call_timeout?,
            unknown_grace: unknown_grace?,
        })
    }
}

/// The file, when it holds certificates and nothing that only looks like one.
fn ca_file(path: &Path) -> Result<PathBuf, Wrong> {
    const HOW: &str = "name a file of PEM certificates, or \"\" for none";
    let shown = ShownPath::new(path);
    let bytes = fs::read(path).map_err(|error| Wrong::new(format!("cannot read {shown}: {error}"), HOW))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        certificate.map_err(|_| Wrong::new(format!("{shown} holds PEM that cannot be read"), HOW))?;
        count += 1;
    }
    if count == 0 {
        return Err(Wrong::new(format!("{shown} holds no PEM certificate"), HOW));
    }
    Ok(path.to_path_buf())
}

/// `[intake]`
#[derive(Clone, Debug)]
pub struct Intake {
    /// A file not renamed into place is taken when two looks this far apart saw the same.
    pub settle: Duration,
    /// How often the folders are looked through, whatever the kernel tells.
    pub rescan: Duration,
    /// Larger files are rejected; bytes.
    pub max_file_size: u64,
    /// With less room left in the state and spool folders, no file is taken; bytes. None: 64 MiB, or a tenth of the
    /// file system if that is less.
    pub min_free: Option<u64>,
    /// A sweep of more machines is held.
    pub hold_above: HoldAbove,
    /// Rows of a portal export that are not onboarded are not sent.
    pub only_onboarded: bool,
    /// Whose a file is that names no tenant.
    pub default_tenant: Option<TenantName>,
    /// Whether a file in `incoming/` itself goes to the tenant that it names; `None`: unless tenants are kept apart.
    pub named_tenants: Option<bool>,
    /// Files of one owner that are taken within an hour; 0: any number. The service user and root may always.
    pub max_files_per_hour: u64,
}

impl Intake {
    /// `tenants` are those that are configured, disabled ones included.
    pub(super) fn read(section: &mut Section<'_, '_>, tenants: &BTreeSet<TenantName>) -> Option<Self> {
        let settle = section.key("settle", "2s", values::duration);
        let rescan = section.key("rescan", "30s", values::positive_duration);
        let max_file_size = section.key("max_file_size", "256MiB", values::size);
        let min_free = section.key("min_free", "", values::optional(values::size));
        let hold_above = section.key("hold_above", "10000", values::count);
        let hold_full_above = section.key("hold_full_above", "1000", values::count);
        let only_onboarded = section.key("only_onboarded", "true", values::flag);
        let named_tenants = section.key("named_tenants", "", values::optional(values::flag));
        let max_files_per_hour = section.key("max_files_per_hour", "1000", values::count);
        let existing = |text: &str| {
            let name = values::word::<TenantName>(text.trim())?;
            if tenants.contains(&name) {
                return Ok(name);
            }
            let known: Vec<_> = tenants.iter().map(TenantName::as_str).collect();
            Err(Wrong::new(
                format!("there is no tenant `{name}`"),
                format!("name one that is configured ({}), or \"\" for none", known.join(", ")),
            ))
        };
        let default_tenant = section.key("default_tenant", "", values::optional(existing));
        Some(Self {
            settle: settle?,
            rescan: rescan?,
            max_file_size: max_file_size?,
            min_free: min_free?,
            hold_above: HoldAbove { all: hold_above?, full: hold_full_above? },
            only_onboarded: only_onboarded?,
            default_tenant: default_tenant?,
            named_tenants: named_tenants?,
            max_files_per_hour: max_files_per_hour?,
        })
    }
}

/// `[follow_up]`
#[derive(Clone, Debug)]
pub struct FollowUp {
    /// How often a tenant's actions are listed while there is work.
    pub interval: Duration,
    /// How long a Pending action is followed.
    pub give_up_after: Duration,
    /// How long an `InProgress` action is followed.
    pub give_up_in_progress: Duration,
    /// How long a lost call is looked for among the tenant's actions; at least `unknown_grace`.
    pub lookup_horizon: Duration,
}

impl FollowUp {
    pub(super) fn read(section: &mut Section<'_, '_>, unknown_grace: Option<Duration>) -> Option<Self> {
        let interval = section.key("interval", "60s", values::positive_duration);
        let give_up_after = section.key("give_up_after", "80h", values::positive_duration);
        let in_progress = section.key("give_up_in_progress_after", "14d", values::positive_duration);
        let lookup_horizon = section.key("lookup_horizon", "10m", values::duration);
        if lookup_horizon.zip(unknown_grace).is_some_and(|(horizon, grace)| horizon < grace) {
            section.complain(
                "lookup_horizon",
                Wrong::new(
                    "is shorter than network.unknown_grace: a call could arrive after the look-up ended",
                    "raise it to network.unknown_grace at least",
                ),
            );
            return None;
        }
        Some(Self {
            interval: interval?,
            give_up_after: give_up_after?,
            give_up_in_progress: in_progress?,
            lookup_horizon: lookup_horizon?,
        })
    }
}

/// The list of actions is read for so long back, at the most: after a start without a cursor, and for `skip_if_scanned_within`.
const LISTED: Duration = Duration::from_hours(24 * 30);

/// `[retention]`
#[derive(Clone, Debug)]
pub struct Retention {
    /// How long finished jobs and their record stay in the database.
    pub keep: Duration,
    /// Where older ones go; absolute. None: nothing is removed.
    pub archive_dir: Option<PathBuf>,
    /// How long processed, rejected and result files stay; zero: for ever.
    pub spool: Duration,
}

impl Retention {
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Self> {
        let keep = section.key("keep", "400d", values::duration);
        let archive_dir = section.key("archive_dir", "", values::optional(values::path));
        if archive_dir.as_ref().is_some_and(Option::is_some) && keep.is_some_and(|keep| keep < LISTED) {
            section.warn("keep", "is shorter than the 30 days for which Defender may list what was done: a scan of sweepd that was archived and is listed again is one that it does not know, and holds the tenant until `sweepd reconcile`; keep 30d or more");
        }
        let spool = section.key("spool", "90d", values::duration);
        Some(Self {
            keep: keep?,
            archive_dir: archive_dir?.map(|folder| around.environment.absolute(&folder)),
            spool: spool?,
        })
    }
}
