//! What moves: a lane for each tenant, with its dispatcher, its follow-up and its look-up; the
//! taking of files; the results; the housekeeping.
//!
//! The engine introduces the rooms below it to each other. Its decisions are the domain's, its
//! waiting is the clock's, and everything it does is written down by the store before and after.

mod files;
mod lane;
pub mod online;
pub mod steps;
pub mod upkeep;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::{Config, Tenant};
use crate::defender::{Authority, Client, Credential, SignIn, Wire};
use crate::domain::id::{AttemptId, Epoch, SweepId, TenantName};
use crate::domain::ledger::CallKind;
use crate::domain::time::{Boot, BootId, ServerTime, Wall, Witness};
use crate::domain::trouble::Trouble;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::store::slots::BudgetRow;
use crate::store::tenants::{LaneMemory, TenantRow};
use crate::store::throttles::Learnt;
use crate::store::{Store, StoreError};

use files::{drop_folder, taking};
use lane::spending::Spending;
use lane::{Lane, cancel, dispatch, follow, inventory, lookup};
use upkeep::{control, expiry, results, retention};

/// Where ids come from: an argument, so that a seed replays.
pub trait Ids: Send + Sync {
    /// The id of an attempt, unguessable and never given before.
    fn attempt(&self) -> AttemptId;
    /// The id of a sweep.
    fn sweep(&self) -> SweepId;
    /// An id of anything else, never given before.
    fn guid(&self) -> Uuid {
        self.attempt().0
    }
}

/// Ids from the operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    fn attempt(&self) -> AttemptId {
        AttemptId(Uuid::new_v4())
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    fn sweep(&self) -> SweepId {
        SweepId(Uuid::now_v7())
    }
}

/// What calls a tenant and signs in to it; `server_time` is the clock of its sign-in server, if it is known.
fn client_of(
    tenant: &Tenant,
    wire: &Arc<dyn Wire>,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn Ids>,
    server_time: Option<ServerTime>,
) -> Client {
    let authority = Authority { url: &tenant.authority_url, tenant_id: tenant.tenant_id, scope: &tenant.scope };
    let ids = Arc::clone(ids);
    let credential = Credential::new(&tenant.auth, authority);
    let sign_in = SignIn::new(Arc::clone(wire), Arc::clone(clock), Arc::new(move || ids.guid()), credential);
    Client::new(Arc::clone(wire), &tenant.api_base(), Arc::new(sign_in.knowing(server_time)))
}

/// What every loop of the engine shares.
#[derive(Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
    /// What carries the calls.
    pub wire: Arc<dyn Wire>,
    /// This incarnation.
    pub epoch: Epoch,
    /// This boot.
    pub boot_id: BootId,
    /// What the loops say of themselves.
    pub health: Health,
    /// What the loops count.
    pub metrics: Metrics,
    /// What one loop tells the others.
    pub signals: Signals,
}

/// What one loop tells the others.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Answers that are in memory and not on disk: while there are any, nothing new is sent.
    unwritten: Arc<AtomicUsize>,
    /// Something may have finished: the results are looked at.
    finished: Arc<Notify>,
    /// Who has told the time last, beside this machine's clock.
    witness: Arc<Mutex<Witness>>,
}

impl Signals {
    /// Somebody tells the time, or is found not to be able to.
    fn told_time(&self, witness: Witness) {
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = witness;
    }

    /// Somebody answers who tells no time.
    fn told_no_time(&self) {
        let mut witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        if *witness == Witness::Nobody {
            *witness = Witness::Mute;
        }
    }
}

impl Shared {
    /// The time by which it is told what is old enough to be removed, for a loop that `began` then; `None` while
    /// nobody has confirmed this machine's clock ([`Witness::surely`]).
    fn time_for_removal(&self, began: Boot) -> Option<Wall> {
        let witness = *self.signals.witness.lock().unwrap_or_else(PoisonError::into_inner);
        witness.surely(self.clock.wall(), began, self.clock.boot())
    }

    /// Tries a write until it holds: it tells of something that has happened and cannot be taken
    /// back. Only a refusal of the store itself (a guard) ends it, told loudly.
    async fn until_it_holds<T, F>(&self, what: &str, write: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = Duration::from_secs(1);
        let mut failed = false;
        let outcome = loop {
            match write().await {
                Ok(value) => {
                    self.database_works();
                    break Some(value);
                }
                Err(error) if !error.may_pass() => {
                    tracing::error!(%error, "{what} was not taken by the database: please report this; the next start looks the call up");
                    break None;
                }
                Err(error) => {
                    if let Some(told) = self.health.met(Trouble::Unwritten, "") {
                        tracing::error!(%error, times = told.times, "{what} cannot be written; it is kept in memory and tried again, and nothing new is sent; is the disk full?{told}");
                    }
                    self.health.database(Some(error.to_string()));
                    if !std::mem::replace(&mut failed, true) {
                        self.signals.unwritten.fetch_add(1, Ordering::SeqCst);
                    }
                    self.clock.sleep_until(self.clock.boot() + pause).await;
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        };
        if failed {
            self.signals.unwritten.fetch_sub(1, Ordering::SeqCst);
        }
        outcome
    }

    /// The database failed in what a loop was about, which it tries again. Told once for all loops and tenants:
    /// they meet the same.
    fn database_fails(&self, tenant: &str, what: &str, error: &StoreError) {
        // While it stops, that is no trouble; otherwise the dispatcher tells of it.
        let is_closed = matches!(error, StoreError::Closed);
        if let Some(told) = (!is_closed).then(|| self.health.met(Trouble::Database, "")).flatten() {
            tracing::error!(tenant, %error, times = told.times, "the database cannot be read or written: {what}; tried again{told}");
        }
    }

    /// The database works, as far as can be seen.
    fn database_works(&self) {
        self.health.database(None);
        let ends = [Trouble::Database, Trouble::Unwritten].map(|trouble| self.health.over(trouble, ""));
        if let Some(told) = ends.into_iter().flatten().next() {
            tracing::info!(times = told.times, "the database works again{told}");
        }
    }

    fn is_blocked_by_disk(&self) -> bool {
        self.signals.unwritten.load(Ordering::SeqCst) > 0
    }
}

/// What a tenant's lane has to know of what was before.
struct Known {
    row: TenantRow,
    budget: BudgetRow,
    memory: LaneMemory,
    learnt: BTreeMap<CallKind, Learnt>,
}

/// By the tenant's name.
type Memories = BTreeMap<TenantName, Known>;

struct Running {
    lane: Arc<Lane>,
    stop: CancellationToken,
}

/// The taking of files under one configuration.
#[derive(Default)]
struct Intake {
    stop: CancellationToken,
    taking: TaskTracker,
    archiving: TaskTracker,
}

/// The loops of one incarnation.
pub struct Engine {
    shared: Shared,
    lanes: Arc<Mutex<BTreeMap<TenantName, Running>>>,
    /// By app registration: lanes with the same one share it.
    spendings: Mutex<BTreeMap<BudgetRow, Arc<Spending>>>,
    intake: Mutex<Intake>,
    /// Ends what sends and takes; calls on the wire end by themselves.
    stop: CancellationToken,
    loops: TaskTracker,
    /// Calls on the wire, with the writing down of their answers.
    calls: TaskTracker,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// Starts every loop.
    pub async fn start(shared: Shared, config: &Config) -> anyhow::Result<Self> {
        let engine = Self::start_sending(shared, config).await?;
        engine.start_intake(config)?;
        let noticing = control::notice(engine.shared.clone(), Arc::clone(&engine.lanes), engine.stop.clone());
        engine.loops.spawn(noticing);
        let state_dir = config.daemon.state_dir.clone();
        engine.loops.spawn(control::watch_writer(engine.shared.clone(), state_dir, engine.stop.clone()));
        Ok(engine)
    }

    /// Starts the lanes and the housekeeping alone: what is queued is sent and followed, but no file
    /// is taken, no result written, and no command of another process noticed. None of these loops
    /// touches anything but the clock, the wire and the store: they may run in virtual time.
    pub async fn start_sending(shared: Shared, config: &Config) -> anyhow::Result<Self> {
        let engine = Self {
            shared,
            lanes: Arc::default(),
            spendings: Mutex::default(),
            intake: Mutex::default(),
            stop: CancellationToken::new(),
            loops: TaskTracker::new(),
            calls: TaskTracker::new(),
        };
        let memories = engine.memories(config).await?;
        engine.start_lanes(&engine.shared, config, &memories, &BTreeMap::new());
        let lanes = Arc::clone(&engine.lanes);
        engine.loops.spawn(control::keep_house(engine.shared.clone(), lanes, engine.stop.clone()));
        Ok(engine)
    }

    async fn memories(&self, config: &Config) -> Result<Memories, StoreError> {
        let mut memories = BTreeMap::new();
        let store = &self.shared.store;
        for (name, tenant) in &config.tenants {
            let row = store.tenant(name).await?;
            let budget = store.budget(row, &tenant.registration()).await?;
            let (memory, learnt) = (store.lane_memory(row).await?, store.learnt(budget).await?);
            memories.insert(name.clone(), Known { row, budget, memory, learnt });
        }
        Ok(memories)
    }

    /// What each app registration may spend from now on.
    fn spendings(&self, config: &Config, memories: &Memories) -> BTreeMap<BudgetRow, Arc<Spending>> {
        let mut spendings = self.spendings.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, Tenant { budgets, .. }) in &config.tenants {
            let Some(known) = memories.get(name) else { continue };
            let new = || Arc::new(Spending::new(&self.shared.clock, budgets, &known.learnt));
            spendings.entry(known.budget).or_insert_with(new).allow(budgets);
        }
        spendings.clone()
    }

    fn start_lanes(
        &self,
        shared: &Shared,
        config: &Config,
        memories: &Memories,
        before: &BTreeMap<TenantName, Running>,
    ) {
        let ends = config.tenants.iter().filter_map(|(name, tenant)| {
            let end = tenant.auth.expires()?;
            Some((name.as_str(), end.0.div_euclid(1000)))
        });
        shared.metrics.credentials(ends);
        let spendings = self.spendings(config, memories);
        for (name, tenant) in &config.tenants {
            let Some(known) = memories.get(name) else { continue };
            shared.metrics.tenant(name.as_str());
            let Some(spending) = spendings.get(&known.budget).map(Arc::clone) else { continue };
            let stop = self.stop.child_token();
            let before = before.get(name).map(|running| &*running.lane);
            let calls = self.calls.clone();
            let lane = Lane::new(shared.clone(), name, known, spending, tenant, config, before, calls, stop.clone());
            let lane = Arc::new(lane);
            self.loops.spawn(dispatch::run(Arc::clone(&lane)));
            self.loops.spawn(follow::run(Arc::clone(&lane)));
            self.loops.spawn(lookup::run(Arc::clone(&lane)));
            self.loops.spawn(cancel::run(Arc::clone(&lane)));
            self.loops.spawn(inventory::run(Arc::clone(&lane)));
            let running = Running { lane, stop };
            self.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), running);
        }
    }

    fn start_intake(&self, config: &Config) -> anyhow::Result<()> {
        let stop = self.stop.child_token();
        let taking = taking::Taking::new(self.shared.clone(), config, Arc::clone(&self.lanes), stop.clone());
        taking.folder().create()?;
        let results = results::Results::new(self.shared.clone(), config);
        let expiry = expiry::Expiry::new(self.shared.clone(), config);
        let retention = retention::Retention::new(self.shared.clone(), config);
        let turn = Intake { stop: stop.clone(), ..Intake::default() };
        let (taking_turn, archiving_turn) = (turn.taking.clone(), turn.archiving.clone());
        let before = std::mem::replace(&mut *self.intake.lock().unwrap_or_else(PoisonError::into_inner), turn);
        before.stop.cancel();
        before.taking.close();
        before.archiving.close();
        let over = stop.clone();
        self.loops.spawn(archiving_turn.track_future(async move {
            // On its own: a folder of archives that hangs keeps no file waiting, not over a reload either.
            before.archiving.wait().await;
            retention::run(retention, over).await;
        }));
        self.loops.spawn(taking_turn.track_future(async move {
            // What is being taken is taken to its end, or left between two chunks: two must never take the same.
            before.taking.wait().await;
            let (taken, ended) = (drop_folder::run(taking, stop.clone()), expiry::run(expiry, stop.clone()));
            tokio::join!(taken, ended, results::run(results, stop));
        }));
        Ok(())
    }

    /// Goes on with another configuration: what is on the wire ends under the old one, everything
    /// else starts anew under the new one. What failed is tried again at once. An error changes
    /// nothing.
    pub async fn reload(&self, wire: Arc<dyn Wire>, config: &Config) -> anyhow::Result<()> {
        // What can fail comes first: the old lanes stop when the new ones are sure to start.
        let memories = self.memories(config).await?;
        let nothing = CancellationToken::new();
        taking::Taking::new(self.shared.clone(), config, Arc::clone(&self.lanes), nothing).folder().create()?;
        self.replace_lanes(wire, config, &memories);
        self.start_intake(config)
    }

    /// The same for what [`Engine::start_sending`] has started.
    pub async fn reload_sending(&self, wire: Arc<dyn Wire>, config: &Config) -> anyhow::Result<()> {
        self.replace_lanes(wire, config, &self.memories(config).await?);
        Ok(())
    }

    fn replace_lanes(&self, wire: Arc<dyn Wire>, config: &Config, memories: &Memories) {
        let old = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        for running in old.values() {
            running.stop.cancel();
        }
        let shared = Shared { wire, ..self.shared.clone() };
        self.shared.health.forget_tokens();
        self.shared.health.forget_troubles();
        self.start_lanes(&shared, config, memories, &old);
    }

    /// Stops sending and taking, and waits up to `grace` for what is on the wire. Returns how many
    /// calls were not answered in time: the next start looks them up.
    pub async fn stop(&self, grace: Duration) -> usize {
        self.stop.cancel();
        self.loops.close();
        self.calls.close();
        // The loops first: a dispatcher in its last round may still hand out a call.
        let clock = &self.shared.clock;
        tokio::select! {
            () = async { self.loops.wait().await; self.calls.wait().await } => {}
            () = clock.sleep_until(clock.boot() + grace) => {}
        }
        self.calls.len()
    }

    /// Tells the record's last head to the log, the daemon's end included: to be called when that is written.
    pub async fn tell_last_head(&self) {
        self.shared.tell_head().await;
    }

    /// Calls on the wire.
    pub fn on_the_wire(&self) -> usize {
        self.calls.len()
    }
}
