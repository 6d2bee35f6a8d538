//! A machine with the real engine on it, in virtual time: lane, dispatcher, follow-up, look-up and
//! SQLite on disk are those of the daemon; the clock and the network are simulated.
//!
//! An incarnation of the daemon is a runtime. Dropping that is `kill -9`: nothing of it runs on, and
//! what has left the machine arrives all the same.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "compiled into every user, none of which uses all of it; a harness fails loudly"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sweepd::clock::{Clock, VirtualClock};
use sweepd::config::{self, Config, Environment};
use sweepd::domain::budgets::CallBudget;
use sweepd::domain::id::{AttemptId, SweepId};
use sweepd::domain::ledger::{CallKind, HOUR, Limits, MINUTE};
use sweepd::domain::sweep::{OnPending, Priority, ScanType, Source};
use sweepd::domain::time::{BootId, Wall};
use sweepd::engine::{Engine, Ids, Shared, Signals};
use sweepd::health::Health;
use sweepd::metrics::Metrics;
use sweepd::simulator::{Chance, InProcess, Network, SimulatedMachine, Tenant, TenantOptions, fleet};
use sweepd::store::Store;
use sweepd::store::incarnations::Birth;
use sweepd::store::lists::{AttemptLine, JobLine, Wanted};
use sweepd::store::status::TenantStatus;
use sweepd::store::sweeps::{CHUNK, Chunk, Completion, NewJob, NewSweep};
use tempfile::TempDir;
use tokio::sync::Notify;

/// When every world begins: Monday, 12 October 2026, 09:46:40.
pub const BEGIN: Wall = Wall(1_791_798_400_000);

/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_secs(30);

/// A network on which nothing goes wrong.
pub fn good_network(latency: Duration) -> Network {
    Network {
        latency: (latency, latency),
        refused: 0.0,
        lost: 0.0,
        stalls: Vec::new(),
        connect_timeout: Duration::from_secs(10),
        call_timeout: Duration::from_mins(1),
        unknown_grace: Duration::from_mins(1),
    }
}

/// What a world is made of.
pub struct Setup {
    /// Everything random follows from it.
    pub seed: u64,
    /// The simulated tenant.
    pub tenant: TenantOptions,
    /// The limits that sweepd is configured with.
    pub limits: Limits,
    /// The way between them.
    pub network: Network,
    /// Further keys of the tenant's section.
    pub keys: String,
    /// Further keys of its limits.
    pub limit_keys: String,
    /// Further sections of the configuration.
    pub sections: String,
    /// When the daemon reads its configuration again, and finds other limits for scans in it.
    pub reload: Option<(Wall, Limits)>,
    /// How long the machine has been up when it all begins.
    pub uptime: Duration,
}

impl Setup {
    /// So many machines at the documented limits, a call taking so long, and nothing that goes wrong.
    pub fn backlog(machines: usize, latency: Duration) -> Self {
        let mut tenant = TenantOptions::new(fleet(1, machines, "contoso"));
        tenant.all_succeed = true;
        Self {
            seed: 1,
            tenant,
            limits: Limits::DOCUMENTED,
            network: good_network(latency),
            keys: String::new(),
            limit_keys: String::new(),
            // Each look takes in the last five minutes again, which costs a test more than the calls do.
            sections: "[follow_up]\ninterval = \"5m\"\n".to_owned(),
            reload: None,
            uptime: Duration::from_hours(1),
        }
    }
}

/// From the first of so many calls to the last, as fast as the limits allow.
pub fn fastest(calls: usize, limits: Limits) -> Duration {
    let last = u32::try_from(calls.saturating_sub(1)).unwrap();
    let (minute, hour) = (limits.per_minute.get(), limits.per_hour.get());
    HOUR * (last / hour) + MINUTE * (last % hour / minute)
}

/// How an incarnation ends that is not let finish.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// Killed while nothing is being written.
    Killed,
    /// Killed while SQLite is at work, the n-th time that it is.
    KilledWriting(u16),
    /// Killed just after the next call has left.
    KilledCalling,
    /// Told to stop, and given so long.
    Stopped(Duration),
}

/// What there is when all is over.
pub struct Ledger {
    /// Every job.
    pub jobs: Vec<JobLine>,
    /// Every attempt.
    pub attempts: Vec<AttemptLine>,
}

/// The world.
pub struct World {
    pub clock: Arc<VirtualClock>,
    pub wire: InProcess,
    pub incarnations: u64,
    config: Config,
    reload: Option<(Wall, Limits)>,
    machines: Vec<SimulatedMachine>,
    seed: u64,
    boots: u32,
    folder: TempDir,
}

/// Ids that follow from a seed, and are others in each incarnation.
struct SeededIds(Mutex<Chance>);

impl Ids for SeededIds {
    fn attempt(&self) -> AttemptId {
        AttemptId(self.0.lock().unwrap().uuid())
    }

    fn sweep(&self) -> SweepId {
        SweepId(self.0.lock().unwrap().uuid())
    }
}

/// What kills an incarnation between two rests of its runtime.
struct Blow {
    /// Rests while SQLite is at work that are still survived; negative when that is not how it falls.
    rests: AtomicI64,
    /// Calls that may have left; negative in the same way.
    calls: AtomicI64,
    falls: Notify,
}

impl Blow {
    fn new() -> Self {
        Self { rests: AtomicI64::new(-1), calls: AtomicI64::new(-1), falls: Notify::new() }
    }

    /// The runtime rests, and SQLite may be at work, after so many calls have left.
    fn at_rest(&self, is_idle: bool, calls: impl Fn() -> i64) {
        let writing = !is_idle && self.rests.load(SeqCst) >= 0 && self.rests.fetch_sub(1, SeqCst) == 0;
        let before = self.calls.load(SeqCst);
        if writing || before >= 0 && calls() > before {
            self.falls.notify_one();
        }
    }
}

fn folder() -> TempDir {
    // The memory of this machine, where it is a folder: SQLite waits for the disk with each commit.
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("sweepd-virtual-");
    if memory.is_dir() { builder.tempdir_in(memory).or_else(|_| builder.tempdir()) } else { builder.tempdir() }.unwrap()
}

#[allow(clippy::disallowed_methods, reason = "a test may change files of its own by path")]
fn configuration(folder: &Path, setup: &Setup) -> Config {
    let (tenant, limits) = (&setup.tenant, setup.limits);
    let secret = folder.join("secret");
    std::fs::write(&secret, &tenant.client_secret).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[daemon]\nstate_dir = \"{}\"\n[http]\nlisten = \"\"\n{}\n[tenants.contoso]\ntenant_id = \"{}\"\n\
         api_url = \"https://api.example\"\nauthority_url = \"https://login.example\"\n{}\n\
         [tenants.contoso.auth]\nclient_id = \"{}\"\nsecret_file = \"secret\"\n\
         [tenants.contoso.limits]\nper_minute = {}\nper_hour = {}\n{}",
        folder.to_str().unwrap(),
        setup.sections,
        tenant.tenant_id,
        setup.keys,
        tenant.client_id,
        limits.per_minute,
        limits.per_hour,
        setup.limit_keys,
    );
    let path = folder.join("sweepd.toml");
    std::fs::write(&path, text).unwrap();
    config::load(Some(&path), &Environment::new(BTreeMap::new(), "/"), &[]).unwrap()
}

impl World {
    /// A world in which nothing has happened yet. All machines are queued by the first incarnation.
    pub fn new(setup: Setup) -> Self {
        let folder = folder();
        let config = configuration(folder.path(), &setup);
        let clock = Arc::new(VirtualClock::new(BEGIN, setup.uptime));
        let (machines, reload) = (setup.tenant.machines.clone(), setup.reload);
        let tenant = Tenant::new(setup.tenant, setup.seed, BEGIN, "https://api.example");
        let wire = InProcess::new(Arc::clone(&clock), tenant, setup.network, setup.seed);
        Self { clock, wire, incarnations: 0, config, reload, machines, seed: setup.seed, boots: 1, folder }
    }

    /// How long the world has existed.
    pub fn age(&self) -> Duration {
        self.clock.world().since(BEGIN)
    }

    /// The machine boots, with its wall clock set to this.
    pub fn reboot(&mut self, wall: Wall) {
        self.boots += 1;
        self.clock.reboot();
        self.clock.set_wall(wall);
    }

    /// Nobody lives here for a while.
    pub fn rest(&self, time: Duration) {
        let over = Arc::new(AtomicBool::new(false));
        let rings = Arc::clone(&over);
        self.clock.at(self.clock.world() + time, move || rings.store(true, SeqCst));
        while !over.load(SeqCst) && self.clock.move_on() {}
    }

    /// An incarnation lives until all is done, or until then. Returns whether all is done.
    pub fn live(&mut self, until: Wall, death: Death) -> bool {
        let opened: Arc<OnceLock<Store>> = Arc::default();
        let blow = Arc::new(Blow::new());
        let wire = self.wire.clone();
        let calls = move || i64::try_from(wire.traffic(CallKind::Scan).sent).unwrap();
        let (store, falling, left) = (Arc::clone(&opened), Arc::clone(&blow), calls.clone());
        let is_idle = move || {
            // Time stands still until the database is open.
            let is_idle = store.get().is_some_and(|store| store.is_idle());
            falling.at_rest(is_idle, &left);
            is_idle
        };
        let runtime = self.clock.runtime(is_idle).unwrap();
        let struck = Arc::clone(&blow);
        self.clock.at(until, move || match death {
            Death::KilledWriting(rests) => struck.rests.store(i64::from(rests), SeqCst),
            Death::KilledCalling => struck.calls.store(calls(), SeqCst),
            Death::Killed | Death::Stopped(_) => struck.falls.notify_one(),
        });
        self.incarnations += 1;
        runtime.block_on(self.incarnation(&opened, &blow, death))
    }

    async fn incarnation(&self, opened: &OnceLock<Store>, blow: &Blow, death: Death) -> bool {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let store = Store::open(self.folder.path(), clock.wall()).await.unwrap();
        opened.set(store.clone()).unwrap();
        let boot_id = BootId(format!("boot-{}", self.boots));
        let birth = Birth {
            at: clock.wall(),
            boot: clock.boot(),
            boot_id: boot_id.clone(),
            unknown_grace: self.config.network.unknown_grace,
            lookup_horizon: self.config.follow_up.lookup_horizon,
            version: "virtual",
        };
        let epoch = store.begin_incarnation(birth).await.unwrap().epoch;
        let chance = Chance::of(self.seed, &self.incarnations.to_be_bytes());
        let ids: Arc<dyn Ids> = Arc::new(SeededIds(Mutex::new(chance)));
        if self.incarnations == 1 {
            self.queue(&store, &*ids, 0).await;
        }
        let shared = Shared {
            store: store.clone(),
            clock: Arc::clone(&clock),
            ids,
            wire: Arc::new(self.wire.clone()),
            epoch,
            boot_id,
            health: Health::new(Arc::clone(&clock), self.config.network.call_timeout),
            metrics: Metrics::default(),
            signals: Signals::default(),
        };
        let engine = Engine::start_sending(shared, &self.config).await.unwrap();
        let finished = tokio::select! {
            () = done(&store, &*clock) => true,
            () = blow.falls.notified() => false,
            never = self.reload(&engine) => never,
        };
        if let (false, Death::Stopped(grace)) = (finished, death) {
            engine.stop(grace).await;
            store.end_incarnation(epoch, clock.wall()).await.unwrap();
            store.close().await;
        }
        finished
    }

    /// Somebody sends SIGHUP, once.
    async fn reload(&self, engine: &Engine) -> bool {
        if let Some((at, limits)) = self.reload.filter(|(at, _)| *at > self.clock.world()) {
            self.clock.sleep_until(self.clock.boot() + at.since(self.clock.world())).await;
            let mut config = self.config.clone();
            for tenant in config.tenants.values_mut() {
                tenant.budgets.scan = CallBudget::of(limits);
            }
            engine.reload_sending(Arc::new(self.wire.clone()), &config).await.unwrap();
        }
        std::future::pending().await
    }

    /// Every machine is to be scanned once more.
    pub fn queue_again(&self) {
        let ids = SeededIds(Mutex::new(Chance::of(self.seed, b"again")));
        self.ask(async |store| self.queue(&store, &ids, 1000).await);
    }

    /// Queues every machine, in sweeps that one transaction can take: as many for each section. They are
    /// numbered from `first`.
    async fn queue(&self, store: &Store, ids: &dyn Ids, first: usize) {
        let now = self.clock.wall();
        let shares = self.machines.chunks(self.machines.len().div_ceil(self.config.tenants.len()).max(1));
        let sections = self.config.tenants.iter().zip(shares);
        let sweeps = sections.flat_map(|(section, share)| share.chunks(CHUNK).map(move |machines| (section, machines)));
        for (n, ((name, config), machines)) in (first..).zip(sweeps) {
            let tenant = store.tenant(name).await.unwrap();
            let new = NewSweep {
                id: ids.sweep(),
                tenant,
                name: format!("workstations-{}.csv", n + 1),
                source: Source::File,
                file: format!("{n}.txt"),
                sha256: format!("{n:064x}"),
                file_uid: None,
                received_at: now,
            };
            let jobs = (1..).zip(machines).map(|(line, machine)| job(line, machine, config.on_pending)).collect();
            let complete = |_, _| Completion {
                receipt: "{}".to_owned(),
                held: false,
                filed_as: "processed/x.txt".to_owned(),
                unasked: None,
            };
            store.take_sweep(new, Chunk { jobs, ..Chunk::default() }, now, complete).await.unwrap();
        }
    }

    /// The database, while no incarnation lives.
    pub async fn open(&self) -> Store {
        Store::open_existing(self.folder.path()).await.unwrap().unwrap()
    }

    /// Asks the database something, in no time.
    pub fn ask<T>(&self, question: impl AsyncFnOnce(Store) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open_existing(self.folder.path()).await.unwrap().unwrap();
            let answer = question(store.clone()).await;
            store.close().await;
            answer
        })
    }

    /// Everything that was written down. The chain of the record is whole.
    pub fn ledger(&self) -> Ledger {
        self.ask(async |store| {
            let mut jobs = Vec::new();
            let each = |line| {
                jobs.push(line);
                Ok(())
            };
            store.jobs(&Wanted::default(), each).await.unwrap().unwrap();
            let mut attempts = Vec::new();
            for job in &jobs {
                attempts.extend(store.attempts_of(job.id).await.unwrap());
            }
            store.verify_record().await.unwrap().expect("the chain of the record is whole");
            Ledger { jobs, attempts }
        })
    }

    /// What `status` would say.
    pub fn status(&self) -> String {
        let tenants = self.ask(async |store| store.tenants_status().await.unwrap());
        let line = |tenant: &TenantStatus| {
            format!("{:?}, waits for {} until {:?}", tenant.jobs, tenant.waiting.what, tenant.waiting.until)
        };
        tenants.iter().map(line).collect::<Vec<_>>().join("; ")
    }
}

fn job(line: u64, machine: &SimulatedMachine, on_pending: OnPending) -> NewJob {
    NewJob {
        line,
        machine: machine.id,
        name: None,
        scan: ScanType::Quick,
        priority: Priority::Normal,
        not_before: None,
        on_pending,
        comment: Arc::from("weekly"),
    }
}

async fn done(store: &Store, clock: &dyn Clock) {
    while !store.unfinished_sweeps().await.unwrap().is_empty() {
        clock.sleep_until(clock.boot() + LOOK).await;
    }
}
