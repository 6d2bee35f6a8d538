//! Puts the parts together: the only place that knows them all.

mod readiness;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, boot_id};
use crate::config::{Config, Http, Problem};
use crate::defender::HttpWire;
use crate::defender::http::Options;
use crate::domain::forecast::Terms;
use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;
use crate::engine::{Engine, RandomIds, Shared, Signals};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::store::incarnations::{Birth, StateLock};
use crate::store::tenants::{Operator, Waiting};
use crate::store::{Store, StoreError, View};
use crate::web::report::DISABLED;
use crate::web::{Burndown, Server, Shown};

/// What a process ends with. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// It was called wrongly.
    Usage = 2,
    /// The input holds nothing usable.
    Input = 65,
    /// The API or the sign-in cannot be reached.
    Unavailable = 69,
    /// Another daemon holds this state folder.
    Locked = 75,
    /// Not permitted.
    NotPermitted = 77,
    /// The configuration is wrong; or the database is damaged, another program's, or of another version.
    Config = 78,
}

/// Why a command ends early: for the operator, with what to do.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A file or folder that could not be used.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            let now = nix::unistd::geteuid();
            let remedy = if operator().uid == 0 && !now.is_root() {
                format!(
                    "a command of root's works as the owner of the state folder (user {now}), who may not use it: give that \
                     user the right, or name a path that only root can change"
                )
            } else {
                "run this as the service user or as root".to_owned()
            };
            let message = format!("{}: {error}; {remedy}", ShownPath::new(&path));
            return Self::new(Exit::NotPermitted, message);
        }
        Self::new(Exit::Failed, format!("{}: {error}", ShownPath::new(&path)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::File { path, source } => Self::file(path, source),
            // What is installed does not fit what it finds: starting it again does not change that.
            StoreError::Version(why) => Self::new(Exit::Config, format!("the database: {why}")),
            _ => {
                let remedy = error.remedy().map(|remedy| format!("; {remedy}")).unwrap_or_default();
                // Nor does it mend a damaged file.
                let exit = if error.is_damage() { Exit::Config } else { Exit::Failed };
                Self::new(exit, format!("the database: {error}{remedy}"))
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        // What is wrong with the database is told, and ends the process, in one way wherever it is met.
        match error.downcast::<StoreError>() {
            Ok(error) => error.into(),
            Err(error) => Self::new(Exit::Failed, format!("{error:#}")),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// Who started this process, as it was when this was asked first: a process of root's becomes somebody else.
pub fn operator() -> Operator {
    static OPERATOR: OnceLock<Operator> = OnceLock::new();
    OPERATOR.get_or_init(observed_operator).clone()
}

fn observed_operator() -> Operator {
    let login_uid = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    Operator {
        uid: nix::unistd::getuid().as_raw(),
        // The audit subsystem's "not set".
        login_uid: login_uid.filter(|uid| *uid != u32::MAX),
        host: nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned()),
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct App {
    engine: Engine,
    store: Store,
    health: Health,
    clock: Arc<dyn Clock + 'static>,
    epoch: crate::domain::id::Epoch,
    terms: Arc<RwLock<BTreeMap<TenantName, Terms>>>,
    disabled: Arc<RwLock<BTreeMap<TenantName, String>>>,
    address: Option<SocketAddr>,
    web: CancellationToken,
    view: View,
    served: TaskTracker,
    lock: StateLock,
}

impl fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A command that looks at the lock holds it for an instant: tried so often, so far apart.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// What decides order and speed, for each configured tenant.
pub fn terms_of(config: &Config) -> BTreeMap<TenantName, Terms> {
    config.tenants.iter().map(|(name, tenant)| (name.clone(), tenant.terms())).collect()
}

/// The tenants that are configured and cannot be used, with the first reason of each.
pub fn disabled_of(config: &Config) -> BTreeMap<TenantName, String> {
    let why = |problems: &Vec<Problem>| problems.first().map(Problem::to_string).unwrap_or_default();
    config.disabled.iter().map(|(name, problems)| (name.clone(), why(problems))).collect()
}

/// Writes down what they wait for: commands that read no secret cannot see what is wrong with one.
async fn note_disabled(store: &Store, disabled: &BTreeMap<TenantName, String>) -> Result<(), StoreError> {
    for (name, why) in disabled {
        let row = store.tenant(name).await?;
        store.set_waiting(row, Waiting { what: format!("{DISABLED}{why}"), until: None }).await?;
    }
    Ok(())
}

/// Has the tenants wait if this database is not the one that ran here last.
async fn expect_its_history(store: &Store, config: &Config, clock: &dyn Clock) -> Result<(), StoreError> {
    let (state_dir, lag) = (&config.daemon.state_dir, config.follow_up.lookup_horizon);
    let at = clock.wall();
    if store.keep_landmark(state_dir, config.tenants.keys(), &operator(), at, lag).await? {
        tracing::error!(
            until = (at + lag).rfc3339(),
            "the database is older than what ran here last (a copy was put in its place?): every tenant is paused \
             until Defender's list has shown what is missing here, or `sweepd resume`; \
             use `sweepd restore` to put a backup back"
        );
    }
    Ok(())
}

/// What carries calls and sign-ins, as the configuration has it.
pub fn wire(config: &Config) -> anyhow::Result<Arc<HttpWire>> {
    let network = &config.network;
    let wire = HttpWire::new(&Options {
        proxy: network.proxy.as_ref(),
        ca_file: network.ca_file.as_deref(),
        connect_timeout: network.connect_timeout,
        call_timeout: network.call_timeout,
        unknown_grace: network.unknown_grace,
    })?;
    Ok(Arc::new(wire))
}

async fn lock(state_dir: &Path, clock: &dyn Clock) -> Result<StateLock, Failure> {
    if !state_dir.exists() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(state_dir)
            .map_err(|error| Failure::file(state_dir, &error))?;
    }
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = StateLock::take(state_dir)? {
            return Ok(lock);
        }
        clock.sleep_until(clock.boot() + LOCK_PAUSE).await;
    }
    let message = format!(
        "another sweepd holds {}; stop it first, or give this one a state folder of its own",
        ShownPath::new(&state_dir)
    );
    Err(Failure::new(Exit::Locked, message))
}

impl App {
    /// Takes the lock, opens the database, finishes what the last incarnation left, and starts every
    /// loop. When this returns, files may be dropped.
    pub async fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let lock = lock(&config.daemon.state_dir, &*clock).await?;
        let store = Store::open(&config.daemon.state_dir, clock.wall()).await?;
        let boot_id = boot_id()?;
        let birth = Birth {
            at: clock.wall(),
            boot: clock.boot(),
            boot_id: boot_id.clone(),
            unknown_grace: config.network.unknown_grace,
            lookup_horizon: config.follow_up.lookup_horizon,
            version: env!("CARGO_PKG_VERSION"),
        };
        expect_its_history(&store, config, &*clock).await?;
        let inherited = store.begin_incarnation(birth).await?;
        if inherited.lost_calls > 0 {
            tracing::warn!(
                calls = inherited.lost_calls,
                "the last run ended with calls on the wire; they are looked up before anything is sent again"
            );
        }
        let wire = wire(config)?;
        let (health, metrics) = (Health::new(Arc::clone(&clock), config.network.call_timeout), Metrics::default());
        let shared = Shared {
            store: store.clone(),
            clock: Arc::clone(&clock),
            ids: Arc::new(RandomIds),
            wire,
            epoch: inherited.epoch,
            boot_id,
            health: health.clone(),
            metrics: metrics.clone(),
            signals: Signals::default(),
        };
        let terms = Arc::new(RwLock::new(terms_of(config)));
        let disabled = disabled_of(config);
        note_disabled(&store, &disabled).await?;
        let disabled = Arc::new(RwLock::new(disabled));
        let (web, served) = (CancellationToken::new(), TaskTracker::new());
        let view = store.view();
        let shown = Shown {
            view: view.clone(),
            terms: Arc::clone(&terms),
            disabled: Arc::clone(&disabled),
            health: health.clone(),
            metrics,
            burndown: Burndown::default(),
            clock: Arc::clone(&clock),
        };
        let address = serve(&config.http, shown, &web, &served).await?;
        let engine = Engine::start(shared, config).await?;
        Ok(Self {
            engine,
            store,
            health,
            clock,
            epoch: inherited.epoch,
            terms,
            disabled,
            address,
            web,
            view,
            served,
            lock,
        })
    }

    /// Where health, metrics and dashboard are, if they are on.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Goes on with another configuration. What cannot change while it runs is told.
    pub async fn reload(&self, config: &Config) -> Result<(), Failure> {
        self.engine.reload(wire(config)?, config).await?;
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms_of(config);
        let disabled = disabled_of(config);
        if let Err(error) = note_disabled(&self.store, &disabled).await {
            tracing::warn!(%error, "what disabled tenants wait for could not be written");
        }
        *self.disabled.write().unwrap_or_else(PoisonError::into_inner) = disabled;
        Ok(())
    }

    /// Stops sending and taking, waits for what is on the wire, and closes the database.
    pub async fn stop(self, grace: Duration) -> Result<(), Failure> {
        let on_the_wire = self.engine.on_the_wire();
        if on_the_wire > 0 {
            tracing::info!(
                calls = on_the_wire,
                grace_seconds = grace.as_secs(),
                "stopping: waiting for calls on the wire"
            );
        }
        let lost = self.engine.stop(grace).await;
        if lost > 0 {
            tracing::warn!(calls = lost, "calls were not answered in time; the next start looks them up");
        }
        self.web.cancel();
        self.served.close();
        self.served.wait().await;
        self.view.close().await;
        self.store.end_incarnation(self.epoch, self.clock.wall()).await?;
        self.engine.tell_last_head().await;
        self.store.close().await;
        drop(self.lock);
        Ok(())
    }
}

async fn serve(
    http: &Http,
    shown: Shown,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Option<SocketAddr>, Failure> {
    let Some(listen) = http.listen else { return Ok(None) };
    let server = Server::bind(listen, &http.hosts).await.map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("http.listen = \"{listen}\": {error}; choose another port, 0 for any, or \"\""),
        )
    })?;
    let address = server.address()?;
    tracing::info!(%address, "health, metrics and dashboard at http://{address}/");
    tasks.spawn(Burndown::watch(shown.clone(), stop.clone()));
    tasks.spawn(server.serve(shown, stop.clone()));
    Ok(Some(address))
}

/// What the operating system asks of a daemon.
enum Asked {
    Stop(&'static str),
    Reload,
}

/// Runs until it is told to stop. `read` reads the configuration anew, for SIGHUP.
pub async fn run(
    config: Config,
    clock: Arc<dyn Clock>,
    read: impl Fn() -> Result<Config, Failure>,
) -> Result<(), Failure> {
    // Before anything else: a signal that comes while we start must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tell_troubles(&config);
    let app = App::start(&config, Arc::clone(&clock)).await?;
    let watchdog = tokio::spawn(readiness::feed_watchdog(app.health.clone(), Arc::clone(&clock)));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), tenants = config.tenants.len(), state_dir = %ShownPath::new(&config.daemon.state_dir),
        incoming = %ShownPath::new(&config.daemon.spool_dir.join("incoming")), "ready");
    readiness::tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
    let mut config = config;
    let why = loop {
        let asked = tokio::select! {
            _ = terminate.recv() => Asked::Stop("SIGTERM"),
            _ = interrupt.recv() => Asked::Stop("SIGINT"),
            _ = hangup.recv() => Asked::Reload,
        };
        match asked {
            Asked::Stop(why) => break why,
            Asked::Reload => config = reload(&app, config, &read).await,
        }
    };
    tracing::info!(signal = why, "stopping");
    readiness::tell(&[NotifyState::Stopping]);
    watchdog.abort();
    let grace = config.daemon.shutdown_grace;
    tokio::select! {
        stopped = app.stop(grace) => stopped?,
        _ = terminate.recv() => tracing::warn!("told twice to stop; what is on the wire is looked up at the next start"),
        _ = interrupt.recv() => tracing::warn!("told twice to stop; what is on the wire is looked up at the next start"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// What works and should not stay so, and what does not work.
fn tell_troubles(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("configuration: {warning}");
    }
    for (tenant, problems) in &config.disabled {
        for problem in problems {
            tracing::error!(%tenant, "the tenant is disabled: {problem}");
        }
    }
}

/// Reads the configuration again. A wrong one changes nothing.
async fn reload(app: &App, old: Config, read: &impl Fn() -> Result<Config, Failure>) -> Config {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        readiness::tell(&[NotifyState::Reloading, now]);
    }
    let config = match read() {
        Err(error) => {
            tracing::error!("SIGHUP: the configuration is wrong, the old one stays in force: {error}");
            old
        }
        Ok(new) => {
            tell_troubles(&new);
            if new.daemon.state_dir != old.daemon.state_dir || new.http != old.http {
                tracing::warn!("SIGHUP: state_dir and [http] change at the next start only");
            }
            match app.reload(&new).await {
                Ok(()) => {
                    tracing::info!(
                        tenants = new.tenants.len(),
                        "SIGHUP: the configuration and its secrets were read again"
                    );
                    new
                }
                Err(error) => {
                    tracing::error!(
                        "SIGHUP: the new configuration could not be put into force, the old one stays: {error}"
                    );
                    old
                }
            }
        }
    };
    readiness::tell(&[NotifyState::Ready]);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_database_ends_the_process_in_one_way_wherever_it_is_met() {
        let wrong = StoreError::Version("marker".to_owned());
        let direct = Failure::from(wrong.clone());
        assert_eq!(direct.exit, Exit::Config);
        let through = Failure::from(anyhow::Error::from(wrong).context("start the engine"));
        assert_eq!((through.exit, through.message), (direct.exit, direct.message));
    }
}
