//! The taking of one file: opened, routed to its tenant, written down, put away, receipted.
//!
//! The order makes a kill at any moment harmless: jobs and receipt are committed first, then the
//! file is moved, then the receipt is written. A start finishes what it finds half done.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::filing::{blank, count, finish_receipts, move_and_receipt};
use super::occupied::{Held, Occupied, Thing};
use super::opening::{Opened, open, sha256_of};
use super::position::Position;
use super::reading::Work;
use super::steps::{Step, passed};
pub use super::took::{Refuse, Took, reject};
use super::turns::{Length, Turn};
use super::{Running, Shared};
use crate::config::{Config, Intake, Tenant};
use crate::domain::id::TenantName;
use crate::domain::time::Wall;
use crate::intake::folder::{Folder, Place, Ready};
use crate::intake::formats::{Header, Options};
use crate::intake::names::{Names, Promise};
use crate::intake::receipt::{Receipt, Refusals, Status};
use crate::intake::room::shortage;
use crate::store::StoreError;
use crate::store::events::{Kind, Subject};
use crate::store::sweeps::{Counts, KnownSweep};

/// What taking files needs.
pub struct Taking {
    pub shared: Shared,
    pub intake: Intake,
    pub folder: Folder,
    names: Names,
    tenants: BTreeMap<TenantName, Tenant>,
    /// Configured, but broken: their files wait.
    disabled: Vec<TenantName>,
    lanes: Arc<Mutex<BTreeMap<TenantName, Running>>>,
    /// What the files under way keep for themselves.
    pub occupied: Occupied,
    /// Whether a file is held depends on what others brought within the hour: while that is decided for a long one,
    /// no other is counted. Short ones decide it where they are committed.
    pub deciding: BTreeMap<TenantName, RwLock<()>>,
    /// Ends the taking of long files between two chunks, and goes on where it was left at the next start.
    pub stop: CancellationToken,
    /// Where there has to be room: the state folder and the spool folder.
    room: [PathBuf; 2],
}

impl Taking {
    pub fn new(
        shared: Shared,
        config: &Config,
        lanes: Arc<Mutex<BTreeMap<TenantName, Running>>>,
        stop: CancellationToken,
    ) -> Self {
        let names: Vec<_> = config.tenants.keys().chain(config.disabled.keys()).cloned().collect();
        Self {
            shared,
            intake: config.intake.clone(),
            folder: Folder::new(&config.daemon.spool_dir, &names),
            names: Names::default(),
            tenants: config.tenants.clone(),
            disabled: config.disabled.keys().cloned().collect(),
            lanes,
            stop,
            occupied: Occupied::default(),
            deciding: config.tenants.keys().map(|name| (name.clone(), RwLock::default())).collect(),
            room: [config.daemon.state_dir.clone(), config.daemon.spool_dir.clone()],
        }
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The name under which a file is put away, until this is dropped or kept.
    pub fn choose(&self, place: Place, ready: &Ready) -> Promise<'_> {
        self.names.choose(&self.folder, place, ready.folder.as_ref(), &ready.name)
    }

    /// The only tenant, where there are no tenants' folders.
    pub fn only(&self) -> Option<&TenantName> {
        (!self.folder.has_tenant_folders()).then(|| self.tenants.keys().next()).flatten()
    }

    /// Whether files of this tenant and length are being taken.
    pub fn is_busy(&self, whose: &TenantName, length: Length) -> bool {
        self.occupied.is_taken(&Thing::Turn(whose.clone(), length))
    }

    /// Takes a tenant's turn; `None` while another has it.
    pub fn begin(&self, whose: &TenantName, length: Length) -> Option<Held<'_>> {
        self.occupied.take(Thing::Turn(whose.clone(), length))
    }

    /// Why there is no room for more, if there is none.
    pub fn shortage(&self) -> Option<String> {
        let [state, spool] = &self.room;
        shortage(&[state, spool], self.intake.min_free)
    }

    /// Takes the files of a turn, which `held` is until the last of them has been dealt with. Each is taken as by
    /// itself; what waits for the disk waits together.
    pub async fn take_all(&self, turn: Turn, held: Option<Held<'_>>) -> Vec<(Took, Ready)> {
        let positions = Position::in_a_row(turn.files.len());
        let is_held = held.is_some();
        let took =
            turn.files.into_iter().zip(positions).map(|(ready, position)| async move {
                (self.take(&ready, turn.length, is_held, position).await, ready)
            });
        let took = join_all(took).await;
        drop(held);
        took
    }

    /// Takes a file, whole or not at all. `is_held` says whether this is its tenant's turn.
    async fn take(&self, ready: &Ready, length: Length, is_held: bool, position: Position) -> Took {
        let received_at = self.shared.clock.wall();
        passed(Step::Seen);
        let opened = match self.open(ready).await {
            Ok(opened) => opened,
            Err(Refuse::Later(why)) => return Took::Later(why),
            Err(Refuse::Reject(why, ..)) => {
                drop(position);
                let tenant = self.tenant_of(ready, &Header::default()).ok();
                return self
                    .put_away_rejected(
                        ready,
                        String::new(),
                        tenant,
                        why,
                        Refusals::default(),
                        Counts::default(),
                        received_at,
                    )
                    .await;
            }
        };
        passed(Step::Hashed);
        let sha256 = opened.sha256.clone();
        let tenant = self.tenant_of(ready, &opened.header);
        let name = tenant.as_ref().ok().cloned();
        let _held = match &name {
            None => None,
            Some(name) => {
                let turn = if is_held { None } else { self.begin(name, length) };
                let content = self.occupied.take(Thing::Content(name.clone(), sha256.clone()));
                if !is_held && turn.is_none() || content.is_none() {
                    return Took::Busy(name.clone());
                }
                Some((turn, content))
            }
        };
        let outcome = match tenant {
            Ok(tenant) => self.take_for(ready, opened, &tenant, received_at, position).await,
            Err(refuse) => Err(refuse),
        };
        match outcome {
            Ok(()) => Took::Done,
            Err(Refuse::Later(why)) => Took::Later(why),
            Err(Refuse::Reject(why, refusals, counts)) => {
                self.put_away_rejected(ready, sha256, name, why, refusals, counts, received_at).await
            }
        }
    }

    async fn open(&self, ready: &Ready) -> Result<Opened, Refuse> {
        let (path, name) = (ready.path.clone(), ready.name.to_string_lossy().into_owned());
        let (at_most, options) = (self.intake.max_file_size, self.options());
        tokio::task::spawn_blocking(move || open(&path, &name, at_most, options))
            .await
            .map_err(|error| Refuse::Later(error.to_string()))?
    }

    pub const fn options(&self) -> Options {
        Options { only_onboarded: self.intake.only_onboarded }
    }

    /// Whose file it is: its folder's, or the one it names, or the default.
    fn tenant_of(&self, ready: &Ready, header: &Header) -> Result<TenantName, Refuse> {
        let named = header
            .tenant
            .as_deref()
            .map(str::parse::<TenantName>)
            .transpose()
            .map_err(|error| reject(format!("the tenant that the file names is none: {error}")))?;
        let only = self.only();
        let place = ready.folder.as_ref().or(only);
        let tenant = match (place, named) {
            (Some(place), Some(named)) if *place != named => {
                return Err(reject(format!(
                    "the file names the tenant `{named}`, but lies in the folder of `{place}`"
                )));
            }
            (Some(place), _) => place.clone(),
            (None, Some(named)) => named,
            (None, None) => self.intake.default_tenant.clone().ok_or_else(|| {
                if let Some(broken) = self.disabled.first() {
                    return Refuse::Later(format!(
                        "whose it is cannot be told while the configuration of tenant `{broken}` is broken"
                    ));
                }
                reject("the file names no tenant, and there is no default_tenant; put it into incoming/<tenant>/")
            })?,
        };
        if self.tenants.contains_key(&tenant) {
            Ok(tenant)
        } else if ready.folder.is_some() || only.is_some() || self.disabled.contains(&tenant) {
            Err(Refuse::Later(format!("the configuration of tenant `{tenant}` is broken; see the log at the start")))
        } else {
            Err(reject(format!("there is no tenant `{tenant}` in the configuration")))
        }
    }

    async fn take_for(
        &self,
        ready: &Ready,
        opened: Opened,
        name: &TenantName,
        received_at: Wall,
        position: Position,
    ) -> Result<(), Refuse> {
        let Some(tenant) = self.tenants.get(name) else { return Err(Refuse::Later("no such tenant".to_owned())) };
        let store = &self.shared.store;
        let row = store.tenant(name).await?;
        for sweep in store.overwritten_sweeps(row, &ready.relative(), &opened.sha256).await? {
            self.abandon(sweep, &ready.relative(), "it was replaced while it was being taken").await?;
        }
        let known = store.known_sweep(row, &opened.sha256).await?;
        let resume = match known {
            Some(known) if known.state == "taking" => Some(known),
            Some(known) if !known.filed && known.file == ready.relative() => {
                return self.finish(ready, name, &known).await;
            }
            Some(known) => {
                drop(position);
                return self.already_taken(ready, &opened.sha256, name, &known, received_at).await;
            }
            None => None,
        };
        let work = Work {
            taking: self,
            ready,
            name,
            tenant,
            row,
            sha256: opened.sha256.clone(),
            received_at,
            header: opened.header.clone(),
            uid: opened.uid,
            about: opened.about,
        };
        work.run(opened.file, resume, position).await
    }

    async fn already_taken(
        &self,
        ready: &Ready,
        sha256: &str,
        tenant: &TenantName,
        known: &KnownSweep,
        received_at: Wall,
    ) -> Result<(), Refuse> {
        let mut receipt = blank(ready, sha256, Some(tenant), received_at, Status::AlreadyTaken);
        receipt.sweep_id = Some(known.id.to_string());
        receipt.reason = Some(format!("the same content is being worked on as sweep {}", known.id));
        let promise = self.choose(Place::Processed, ready);
        self.put_away(&ready.path, promise.target(), &receipt).await?;
        self.shared.metrics.file(tenant.as_str(), "already_taken");
        tracing::info!(%tenant, file = ready.relative(), sweep = %known.id, "already taken: the same content is being worked on");
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "everything that a receipt tells of a rejected file")]
    async fn put_away_rejected(
        &self,
        ready: &Ready,
        sha256: String,
        tenant: Option<TenantName>,
        why: String,
        refusals: Refusals,
        counts: Counts,
        received_at: Wall,
    ) -> Took {
        let mut receipt = blank(ready, &sha256, tenant.as_ref(), received_at, Status::Rejected);
        count(&mut receipt, counts, refusals);
        receipt.reason = Some(why.clone());
        let label = tenant.as_ref().map_or("", TenantName::as_str).to_owned();
        let at = self.shared.clock.wall();
        let body = serde_json::json!({ "file": ready.relative(), "sha256": sha256, "tenant": label, "reason": why });
        if let Err(error) = self.shared.store.record(at, Kind::FileRejected, Subject::default(), body).await {
            return Took::Later(error.to_string());
        }
        passed(Step::Recorded);
        let promise = self.choose(Place::Rejected, ready);
        if let Err(error) = self.put_away(&ready.path, promise.target(), &receipt).await {
            return Took::Later(error.to_string());
        }
        self.shared.metrics.file(&label, "rejected");
        self.shared.metrics.machines(&label, "refused", receipt.refused);
        tracing::warn!(tenant = label, file = ready.relative(), why, "rejected");
        Took::Done
    }

    /// Moves the file, then writes its receipt: whoever waits for the receipt finds the file moved.
    async fn put_away(&self, from: &Path, target: &Path, receipt: &Receipt) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(receipt)?;
        let (from, target, sha256) = (from.to_owned(), target.to_owned(), receipt.sha256.clone());
        let put_away = move || {
            // Another may have taken its name since it was read: that one is still to be taken.
            let same = sha256.is_empty() || sha256_of(&from).is_ok_and(|found| found == sha256);
            move_and_receipt(same.then_some(&*from), &target, &text)
        };
        tokio::task::spawn_blocking(put_away).await.map_err(io::Error::other)?
    }

    /// The file is in the database: it is put away, its jobs are made ready, and the lanes told.
    pub async fn finish(&self, ready: &Ready, tenant: &TenantName, known: &KnownSweep) -> Result<(), Refuse> {
        self.file_away(known, &ready.path).await?;
        self.release(known).await?;
        let tenant = tenant.as_str();
        let Counts { lines, queued, joined, duplicates, not_eligible, refused } = known.counts;
        let result = if known.state == "held" { "held" } else { "taken" };
        self.shared.metrics.file(tenant, result);
        for (result, lines) in [
            ("queued", queued),
            ("joined", joined),
            ("duplicates", duplicates),
            ("not_eligible", not_eligible),
            ("refused", refused),
        ] {
            self.shared.metrics.machines(tenant, result, lines);
        }
        let said = match result {
            "held" => "more machines than are let go unasked; see `sweepd sweep release`",
            _ => "its machines are in the queue",
        };
        tracing::info!(
            tenant, sweep = %known.id, file = ready.relative(), lines, queued, joined, duplicates, not_eligible, refused,
            "{result}: {said}"
        );
        self.wake_lanes();
        Ok(())
    }

    /// Finishes the putting away of a sweep's file, however far it got.
    pub async fn file_away(&self, known: &KnownSweep, from: &Path) -> Result<(), Refuse> {
        let (Some(filed_as), Some(receipt)) = (&known.filed_as, &known.receipt) else {
            return Err(Refuse::Later(format!("sweep {} has no receipt yet", known.id)));
        };
        let (from, target) = (from.to_owned(), self.spool_path(filed_as));
        // On record: until the file has it, the name is nobody else's.
        self.names.reserve(&target);
        let named = target.clone();
        let (text, sha256) = (receipt.clone().into_bytes(), known.sha256.clone());
        let put_away = move || {
            // A new file of the same name may lie there by now: that one is still to be taken.
            let same = !target.exists() && sha256_of(&from).is_ok_and(|found| found == sha256);
            move_and_receipt(same.then_some(&*from), &target, &text)
        };
        tokio::task::spawn_blocking(put_away).await.map_err(io::Error::other)??;
        self.shared.store.sweep_filed(known.n).await?;
        self.names.release(&named);
        passed(Step::Filed);
        self.shared.signals.finished.notify_one();
        Ok(())
    }

    fn spool_path(&self, relative: &str) -> PathBuf {
        self.folder.place(Place::Processed, None).join(relative)
    }

    /// Gives a half-taken sweep up, which may take a while: its jobs are withdrawn one by one, since
    /// others may have joined them.
    pub async fn abandon(&self, sweep: i64, file: &str, why: &str) -> Result<(), StoreError> {
        let id = self.shared.store.id_of_sweep(sweep).await?;
        tracing::debug!(sweep = id, file, why, "giving the file up: what was queued of it is withdrawn");
        let abandoning = self.beating(self.shared.store.abandon_sweep(sweep, self.shared.clock.wall()));
        let withdrawn = tokio::select! {
            withdrawn = abandoning => withdrawn?,
            // Given up again at the next start, it goes on where it was left.
            () = self.stop.cancelled() => return Err(StoreError::Closed),
        };
        tracing::warn!(
            sweep = id,
            file,
            why,
            jobs = withdrawn,
            "the file was given up, and what was queued of it withdrawn"
        );
        Ok(())
    }

    /// Makes ready what is let go, its file being put away.
    pub async fn release(&self, known: &KnownSweep) -> Result<(), StoreError> {
        if known.state != "open" || known.released {
            return Ok(());
        }
        // The first of it may be sent while the rest is made ready.
        self.wake_lanes();
        self.beating(self.shared.store.release_sweep(known.n, self.shared.clock.wall())).await?;
        passed(Step::Released);
        Ok(())
    }

    /// Waits for what may take a while, and says meanwhile that the loop is alive.
    pub async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let clock = &self.shared.clock;
        let mut work = std::pin::pin!(work);
        loop {
            self.shared.health.beat("intake");
            tokio::select! {
                done = &mut work => return done,
                () = clock.sleep_until(clock.boot() + Duration::from_secs(10)) => {}
            }
        }
    }

    /// Finishes what an earlier incarnation left between two steps.
    pub async fn finish_half_done(&self) {
        if let Err(error) = self.try_finish_half_done().await {
            tracing::error!(%error, "files that were half taken cannot be finished now; they are at the next start");
        }
    }

    async fn try_finish_half_done(&self) -> Result<(), StoreError> {
        self.finish_receipts().await;
        let store = &self.shared.store;
        for (known, _) in store.half_done_sweeps().await? {
            let from = self.folder.incoming_file(&known.file);
            if known.state == "taking" {
                // Present, it is taken up again where it was left; gone, somebody took it back.
                if !from.exists() {
                    self.abandon(known.n, &known.file, "it vanished while it was being taken").await?;
                }
                continue;
            }
            if !known.filed
                && let Err(Refuse::Later(why) | Refuse::Reject(why, ..)) = self.file_away(&known, &from).await
            {
                tracing::warn!(sweep = %known.id, file = known.file, why, "a taken file cannot be put away");
            }
            self.release(&known).await?;
        }
        self.wake_lanes();
        Ok(())
    }

    /// Files that no sweep tells of, rejected and repeated ones, may lack their receipts.
    async fn finish_receipts(&self) {
        let folders = self.folder.put_away_to();
        let finish = move || folders.into_iter().map(|folder| (finish_receipts(&folder), folder)).collect::<Vec<_>>();
        for (finished, folder) in tokio::task::spawn_blocking(finish).await.unwrap_or_default() {
            if let Err(error) = finished {
                tracing::warn!(folder = %folder.display(), %error, "receipts that were written before a kill cannot be finished");
            }
        }
    }

    pub fn wake_lanes(&self) {
        for running in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            running.lane.wake.notify_one();
        }
    }
}
