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

use super::filing::{Content, blank, put_away};
use super::half_done::copy_again;
use super::occupied::{Held, Occupied, Thing};
use super::opening::{Copied, Copying, Opened, Original, open};
pub use super::outcome::{Refuse, Took, reject};
use super::position::Position;
use super::reading::Work;
use super::turns::{Length, Turn};
use crate::config::{Config, Intake, Tenant};
use crate::domain::id::TenantName;
use crate::domain::sparing::Sparing;
use crate::domain::time::Wall;
use crate::engine::steps::{Step, passed};
use crate::engine::{Running, Shared};
use crate::intake::folder::{Folder, Place, Ready};
use crate::intake::formats::{Header, Options};
use crate::intake::names::{Names, Promise};
use crate::intake::receipt::{Receipt, Status};
use crate::intake::room::shortage;
use crate::store::StoreError;
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
    /// Rejected files, by owner: which of them are reported one by one.
    pub rejected: Mutex<Sparing<u32>>,
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
            rejected: Mutex::default(),
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

    /// Whether the configuration has this tenant, be it a broken one.
    pub fn is_configured(&self, tenant: &TenantName) -> bool {
        self.tenants.contains_key(tenant) || self.disabled.contains(tenant)
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
            Err(Refuse::Reject(why, findings, counts)) => {
                drop(position);
                let tenant = self.tenant_of(ready, &Header::default()).ok();
                return self.put_away_rejected(ready, None, tenant, why, *findings, counts, received_at).await;
            }
        };
        passed(Step::Hashed);
        let tenant = self.tenant_of(ready, &opened.header);
        let name = tenant.as_ref().ok().cloned();
        let _held = match &name {
            None => None,
            Some(name) => {
                let turn = if is_held { None } else { self.begin(name, length) };
                let content = self.occupied.take(Thing::Content(name.clone(), opened.copied.sha256.clone()));
                if !is_held && turn.is_none() || content.is_none() {
                    return Took::Busy(name.clone());
                }
                Some((turn, content))
            }
        };
        let outcome = match tenant {
            Ok(tenant) => self.take_for(ready, &opened, &tenant, received_at, position).await,
            Err(refuse) => Err(refuse),
        };
        match outcome {
            Ok(()) => Took::Done,
            Err(Refuse::Later(why)) => Took::Later(why),
            Err(Refuse::Reject(why, findings, counts)) => {
                self.put_away_rejected(ready, Some(&opened), name, why, *findings, counts, received_at).await
            }
        }
    }

    /// Copies a file and reads its header. A folder that hangs does not keep a stop waiting.
    async fn open(&self, ready: &Ready) -> Result<Opened, Refuse> {
        let (dropped, listed) = (ready.dropped(), ready.found.identity);
        let (copying, options) = (self.copying(ready.folder.as_ref()), self.options());
        let opening = tokio::task::spawn_blocking(move || open(&dropped, listed, &copying, options));
        tokio::select! {
            opened = opening => opened.map_err(|error| Refuse::Later(error.to_string()))?,
            () = self.stop.cancelled() => Err(Refuse::Later("the taking of files is stopped".to_owned())),
        }
    }

    /// How a file of this tenant folder is copied: where its copy has the group that may read it.
    pub fn copying(&self, folder: Option<&TenantName>) -> Copying {
        let folder = self.folder.place(Place::Processed, folder);
        Copying { folder, at_most: self.intake.max_file_size, stop: self.stop.clone() }
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
            (None, Some(named)) => {
                self.may_be_named(&named)?;
                named
            }
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

    /// Refuses a file in `incoming/` itself that names a tenant whose droppers are kept apart from the others.
    fn may_be_named(&self, named: &TenantName) -> Result<(), Refuse> {
        let is_taken = match self.intake.named_tenants {
            Some(is_taken) => is_taken,
            None => !self
                .folder
                .are_apart()
                .map_err(|error| Refuse::Later(format!("whether it may name a tenant cannot be seen: {error}")))?,
        };
        if is_taken {
            return Ok(());
        }
        Err(reject(format!(
            "the file names the tenant `{named}` and lies in incoming/ itself, where only files that name none are taken \
             (intake.named_tenants); put it into incoming/{named}/, or ask the operator to set intake.named_tenants = true"
        )))
    }

    async fn take_for(
        &self,
        ready: &Ready,
        opened: &Opened,
        name: &TenantName,
        received_at: Wall,
        position: Position,
    ) -> Result<(), Refuse> {
        let Some(tenant) = self.tenants.get(name) else { return Err(Refuse::Later("no such tenant".to_owned())) };
        let store = &self.shared.store;
        let row = store.tenant(name).await?;
        let sha256 = &opened.copied.sha256;
        for sweep in store.overwritten_sweeps(row, &ready.relative(), sha256).await? {
            self.abandon(sweep, &ready.relative(), "it was replaced while it was being taken").await?;
        }
        let known = store.known_sweep(row, sha256).await?;
        let resume = match known {
            Some(known) if known.state == "taking" => Some(known),
            Some(known) if !known.filed && known.file == ready.relative() => {
                return self.finish(ready, name, &known, opened).await;
            }
            Some(known) => {
                drop(position);
                return self.already_taken(ready, opened, name, &known, received_at).await;
            }
            None => None,
        };
        let work = Work { taking: self, ready, name, tenant, row, received_at, opened };
        work.run(resume, position).await
    }

    async fn already_taken(
        &self,
        ready: &Ready,
        opened: &Opened,
        tenant: &TenantName,
        known: &KnownSweep,
        received_at: Wall,
    ) -> Result<(), Refuse> {
        let sha256 = &opened.copied.sha256;
        let mut receipt = blank(ready, sha256, Some(tenant), received_at, Status::AlreadyTaken);
        receipt.sweep_id = Some(known.id.to_string());
        receipt.reason = Some(format!("the same content is being worked on as sweep {}", known.id));
        let promise = self.choose(Place::Processed, ready);
        self.put_away(ready, Some(opened), promise.target(), &receipt).await?;
        self.shared.metrics.file(tenant.as_str(), "already_taken");
        tracing::info!(%tenant, file = ready.relative(), sweep = %known.id, "already taken: the same content is being worked on");
        Ok(())
    }

    /// Puts the file away, then shows its receipt: whoever waits for the receipt finds the file. One that was never
    /// copied is moved as it is.
    pub async fn put_away(
        &self,
        ready: &Ready,
        opened: Option<&Opened>,
        target: &Path,
        receipt: &Receipt,
    ) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(receipt)?;
        let target = target.to_owned();
        let (original, content) = match opened {
            Some(Opened { copied, .. }) => (copied.original.clone(), Content::Copy(copied.copy.path().to_owned())),
            None => (Original { dropped: ready.dropped(), found: ready.found }, Content::Original),
        };
        let put_away = move || put_away(Some(&original), content, &target, &text);
        tokio::task::spawn_blocking(put_away).await.map_err(io::Error::other)?
    }

    /// The file is in the database: it is put away, its jobs are made ready, and the lanes told.
    pub async fn finish(
        &self,
        ready: &Ready,
        tenant: &TenantName,
        known: &KnownSweep,
        opened: &Opened,
    ) -> Result<(), Refuse> {
        let Copied { original, copy, .. } = &opened.copied;
        self.file_away(known, Some((original.clone(), copy.path().to_owned()))).await?;
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

    /// Finishes the putting away of a sweep's file, however far it got. `copied` is the file and our copy of it; without
    /// them the file is looked for, and copied again if it still is the one that was taken.
    pub async fn file_away(&self, known: &KnownSweep, copied: Option<(Original, PathBuf)>) -> Result<(), Refuse> {
        let (Some(filed_as), Some(receipt)) = (&known.filed_as, &known.receipt) else {
            return Err(Refuse::Later(format!("sweep {} has no receipt yet", known.id)));
        };
        let target = self.spool_path(filed_as);
        // On record: until the file has it, the name is nobody else's.
        self.names.reserve(&target);
        let named = target.clone();
        let (text, sha256) = (receipt.clone().into_bytes(), known.sha256.clone());
        let tenant = target.parent().and_then(|folder| self.folder.tenant_at(folder));
        let (copying, folder, file) = (self.copying(tenant), self.folder.clone(), known.file.clone());
        let put_away = move || {
            // Kept until its copy has its name.
            let again = if copied.is_none() { copy_again(&copying, folder.recorded(&file), &sha256)? } else { None };
            let copied =
                copied.or_else(|| again.as_ref().map(|again| (again.original.clone(), again.copy.path().to_owned())));
            let (original, content) = match copied {
                // The copy got its name before a kill: the file alone may be left.
                Some((original, _)) if target.exists() => (Some(original), Content::Nothing),
                Some((original, copy)) => (Some(original), Content::Copy(copy)),
                None => (None, Content::Nothing),
            };
            Ok::<_, Refuse>(put_away(original.as_ref(), content, &target, &text)?)
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

    pub fn wake_lanes(&self) {
        for running in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            running.lane.wake.notify_one();
        }
    }
}
