//! The taking of one file: opened, routed to its tenant, written down, put away, receipted.
//!
//! The order makes a kill at any moment harmless: jobs and receipt are committed first, then the
//! file is moved, then the receipt is written. A start finishes what it finds half done.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::reading::Work;
use super::{Running, Shared};
use crate::config::{Config, Intake, Tenant};
use crate::domain::id::TenantName;
use crate::domain::time::{Boot, Wall};
use crate::intake::folder::{Folder, Found, Place, Ready, receipt_name};
use crate::intake::formats::{self, Header, Options, Unusable};
use crate::intake::receipt::{Receipt, Refusals, Status, write_aside};
use crate::store::StoreError;
use crate::store::events::{Kind, Subject};
use crate::store::sweeps::{Counts, KnownSweep};
use sha2::{Digest, Sha256};

/// What came of a file.
#[derive(Debug)]
pub enum Took {
    /// It is put away, with its receipt.
    Done,
    /// It stays where it is, for this reason.
    Later(String),
}

/// Why a file is not taken.
pub enum Refuse {
    /// It never can be: it is put away as rejected, with this reason.
    Reject(String, Refusals, Counts),
    /// It may be, later.
    Later(String),
}

impl From<StoreError> for Refuse {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<io::Error> for Refuse {
    fn from(error: io::Error) -> Self {
        Self::Later(error.to_string())
    }
}

impl Refuse {
    pub fn why(&self) -> &str {
        match self {
            Self::Reject(why, ..) | Self::Later(why) => why,
        }
    }
}

pub fn reject(reason: impl Into<String>) -> Refuse {
    Refuse::Reject(reason.into(), Refusals::default(), Counts::default())
}

/// A file that has been opened and hashed.
struct Opened {
    file: File,
    sha256: String,
    uid: u32,
    header: Header,
}

/// What taking files needs.
pub struct Taking {
    pub shared: Shared,
    pub intake: Intake,
    pub folder: Folder,
    tenants: BTreeMap<TenantName, Tenant>,
    /// Configured, but broken: their files wait.
    disabled: Vec<TenantName>,
    lanes: Arc<Mutex<BTreeMap<TenantName, Running>>>,
}

impl Taking {
    pub fn new(shared: Shared, config: &Config, lanes: Arc<Mutex<BTreeMap<TenantName, Running>>>) -> Self {
        let names: Vec<_> = config.tenants.keys().chain(config.disabled.keys()).cloned().collect();
        Self {
            shared,
            intake: config.intake.clone(),
            folder: Folder::new(&config.daemon.spool_dir, &names),
            tenants: config.tenants.clone(),
            disabled: config.disabled.keys().cloned().collect(),
            lanes,
        }
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    pub fn look(&mut self, moved_in: &HashSet<PathBuf>, settle: Duration, now: Boot) -> Found {
        self.folder.look(moved_in, settle, now)
    }

    /// Takes a file, whole or not at all.
    pub async fn take(&self, ready: &Ready) -> Took {
        let received_at = self.shared.clock.wall();
        let opened = match self.open(ready).await {
            Ok(opened) => opened,
            Err(Refuse::Later(why)) => return Took::Later(why),
            Err(Refuse::Reject(why, ..)) => {
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
        let sha256 = opened.sha256.clone();
        let tenant = self.tenant_of(ready, &opened.header);
        let name = tenant.as_ref().ok().cloned();
        let outcome = match tenant {
            Ok(tenant) => self.take_for(ready, opened, &tenant, received_at).await,
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
        let only = (!self.folder.has_tenant_folders()).then(|| self.tenants.keys().next()).flatten();
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
                self.file_away(&known, &ready.path).await?;
                return Ok(());
            }
            Some(known) => return self.already_taken(ready, &opened.sha256, name, &known, received_at).await,
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
        };
        work.run(opened.file, resume).await
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
        let folder = ready.folder.as_ref();
        let kept = self.folder.free_name(Place::Processed, folder, &ready.name);
        let target = self.folder.place(Place::Processed, folder).join(kept);
        self.put_away(&ready.path, &target, &receipt).await?;
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
        let folder = ready.folder.as_ref();
        let kept = self.folder.free_name(Place::Rejected, folder, &ready.name);
        let target = self.folder.place(Place::Rejected, folder).join(kept);
        if let Err(error) = self.put_away(&ready.path, &target, &receipt).await {
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
        let (from, target) = (from.to_owned(), target.to_owned());
        tokio::task::spawn_blocking(move || move_and_receipt(Some(&from), &target, &text))
            .await
            .map_err(io::Error::other)?
    }

    /// Finishes the putting away of a sweep's file, however far it got.
    pub async fn file_away(&self, known: &KnownSweep, from: &Path) -> Result<(), Refuse> {
        let (Some(filed_as), Some(receipt)) = (&known.filed_as, &known.receipt) else {
            return Err(Refuse::Later(format!("sweep {} has no receipt yet", known.id)));
        };
        let (from, target) = (from.to_owned(), self.spool_path(filed_as));
        let (text, sha256) = (receipt.clone().into_bytes(), known.sha256.clone());
        let put_away = move || {
            // A new file of the same name may lie there by now: that one is still to be taken.
            let same = !target.exists() && sha256_of(&from).is_ok_and(|found| found == sha256);
            move_and_receipt(same.then_some(&*from), &target, &text)
        };
        tokio::task::spawn_blocking(put_away).await.map_err(io::Error::other)??;
        self.shared.store.sweep_filed(known.n).await?;
        self.shared.signals.finished.notify_one();
        Ok(())
    }

    fn spool_path(&self, relative: &str) -> PathBuf {
        self.folder.place(Place::Processed, None).join(relative)
    }

    /// Gives a half-taken sweep up, which may take a while: its jobs are withdrawn one by one, since
    /// others may have joined them.
    pub async fn abandon(&self, sweep: i64, file: &str, why: &str) -> Result<(), StoreError> {
        tracing::warn!(file, why, "giving the file up: what was queued of it is withdrawn");
        let clock = &self.shared.clock;
        let beating = async {
            loop {
                self.shared.health.beat("intake");
                clock.sleep_until(clock.boot() + Duration::from_secs(10)).await;
            }
        };
        let withdrawn = tokio::select! {
            withdrawn = self.shared.store.abandon_sweep(sweep, clock.wall()) => withdrawn?,
            () = beating => 0,
        };
        tracing::warn!(file, jobs = withdrawn, "the file was given up");
        Ok(())
    }

    /// Finishes what an earlier incarnation left between two steps.
    pub async fn finish_half_done(&self) {
        if let Err(error) = self.try_finish_half_done().await {
            tracing::error!(%error, "files that were half taken cannot be finished now; they are at the next start");
        }
    }

    async fn try_finish_half_done(&self) -> Result<(), StoreError> {
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
            if known.state == "open" {
                store.release_sweep(known.n, self.shared.clock.wall()).await?;
            }
        }
        self.wake_lanes();
        Ok(())
    }

    pub fn wake_lanes(&self) {
        for running in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            running.lane.wake.notify_one();
        }
    }
}

pub fn blank(ready: &Ready, sha256: &str, tenant: Option<&TenantName>, at: Wall, status: Status) -> Receipt {
    Receipt {
        file: ready.name.to_string_lossy().into_owned(),
        sha256: sha256.to_owned(),
        sweep_id: None,
        tenant: tenant.map(ToString::to_string),
        received_at: at.rfc3339(),
        lines: 0,
        queued: 0,
        joined: 0,
        duplicates: 0,
        not_eligible: 0,
        refused: 0,
        refusals: Vec::new(),
        refusals_not_listed: 0,
        status,
        reason: None,
    }
}

pub fn count(receipt: &mut Receipt, counts: Counts, refusals: Refusals) {
    receipt.lines = counts.lines;
    receipt.queued = counts.queued;
    receipt.joined = counts.joined;
    receipt.duplicates = counts.duplicates;
    receipt.not_eligible = counts.not_eligible;
    receipt.refused = counts.refused;
    (receipt.refusals, receipt.refusals_not_listed) = refusals.into_listed();
}

/// Puts a file away, and its receipt beside it. Each step may have been done before a kill: none does
/// harm a second time. The receipt is on disk, under a name that nobody looks for, before the file
/// moves: with no room for it the file stays where it is.
fn move_and_receipt(from: Option<&Path>, target: &Path, receipt: &[u8]) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = receipt_name(target.file_name().unwrap_or_default());
    let written = write_aside(&folder.join(name), |out| {
        out.write_all(receipt)?;
        out.write_all(b"\n")
    })?;
    match from.map(|from| std::fs::rename(from, target)) {
        None | Some(Ok(())) => {}
        // Moved before a kill; or taken back by somebody after it was read: its receipt stands.
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Some(Err(error)) => return Err(error),
    }
    written.reveal()
}

/// The SHA-256 of a file's content, in hexadecimal digits.
fn sha256_of(path: &Path) -> io::Result<String> {
    hash(&mut open_plainly(path)?)
}

/// Not followed, and not waited for: what was a file a moment ago may be a link or a pipe now.
fn open_plainly(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(format!("{:x}", hash.finalize()));
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

fn open(path: &Path, name: &str, at_most: u64, options: Options) -> Result<Opened, Refuse> {
    use std::os::unix::fs::MetadataExt;
    let mut file = open_plainly(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refuse::Later("it is no regular file any more".to_owned()));
    }
    if metadata.len() > at_most {
        return Err(reject(format!(
            "the file has {} bytes, more than max_file_size ({at_most}); split it, or raise the limit",
            metadata.len()
        )));
    }
    let sha256 = hash(&mut file)?;
    file.rewind()?;
    let header = match formats::header(name, &file, &options) {
        Ok(header) => header,
        Err(Unusable::Read(error)) => return Err(error.into()),
        // The full reading says it again, with the counts: here it is enough that it is no header.
        Err(_) => Header::default(),
    };
    file.rewind()?;
    Ok(Opened { file, sha256, uid: metadata.uid(), header })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_for_its_receipt_a_file_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, target) = (dir.path().join("list.txt"), dir.path().join("processed/list.txt"));
        std::fs::write(&from, "one").unwrap();
        // In the way of the receipt, as a full disk would be.
        let in_the_way = dir.path().join("processed/.list.txt.receipt.json.tmp");
        std::fs::create_dir_all(&in_the_way).unwrap();
        assert!(move_and_receipt(Some(&from), &target, b"{}").is_err());
        assert!(from.exists() && !target.exists());
        std::fs::remove_dir(in_the_way).unwrap();
        move_and_receipt(Some(&from), &target, b"{}").unwrap();
        assert!(!from.exists() && target.exists());
        let receipt = dir.path().join("processed/list.txt.receipt.json");
        assert_eq!(std::fs::read(&receipt).unwrap(), b"{}\n");
        // A second time, after a kill: the same.
        move_and_receipt(Some(&from), &target, b"{}").unwrap();
        assert!(target.exists() && receipt.exists());
    }
}
