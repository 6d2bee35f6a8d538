//! What has to be noticed and told: commands that write to the same database, certificates that soon
//! end, the record's head.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;
use crate::domain::time::Boot;
use crate::domain::trouble::Trouble;
use crate::engine::{Running, Shared};
use crate::store::events::Head;
use crate::store::write_lock::Holder;

/// A command takes effect within this, and a second is promised. Nearly all that an idle daemon does is to look for one.
const NOTICE: Duration = Duration::from_millis(750);
const TIDY: Duration = Duration::from_mins(10);
const HEAD: Duration = Duration::from_hours(1);
const CREDENTIALS: Duration = Duration::from_hours(24);

/// Wakes the lanes when another process has written: pause, resume, release, cancel, a 429 that it met.
pub async fn notice(shared: Shared, lanes: Arc<Mutex<BTreeMap<TenantName, Running>>>, stop: CancellationToken) {
    let mut before = None;
    while pause(&shared, &stop, NOTICE).await {
        shared.health.beat("notice");
        match shared.store.data_version().await {
            Ok(version) => {
                // The first look tells too: a command may have come between the lanes' first round and it.
                if before.replace(version) != Some(version) {
                    let lanes: Vec<_> = {
                        let lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner);
                        lanes.values().map(|running| Arc::clone(&running.lane)).collect()
                    };
                    for lane in lanes {
                        lane.hear_of_silences().await;
                        lane.wake.notify_one();
                        lane.cancel_soon.notify_one();
                    }
                    shared.signals.finished.notify_one();
                    finish_releases(&shared).await;
                }
            }
            Err(error) => shared.database_fails("", "whether a command has changed it", &error),
        }
    }
    shared.health.ended("notice");
}

/// How long a write may wait to begin before it is told: a command of ours writes for less.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

/// Tells when writes wait for somebody else's, and when they go on. Asks the database nothing, which would wait too.
pub async fn watch_writer(shared: Shared, state_dir: PathBuf, stop: CancellationToken) {
    let mut waiting: Option<(u64, Boot)> = None;
    let mut is_told = false;
    let mut probed = shared.clock.boot();
    while pause(&shared, &stop, LOOK).await {
        let now = shared.clock.boot();
        // Also while a wait lasts: after SQLite's timeout nobody may ask again, and its end would not be seen.
        if now.since(probed) >= PATIENCE {
            shared.store.probe_writer();
            probed = now;
        }
        waiting = shared.store.waits_to_begin().map(|n| match waiting {
            Some((before, since)) if before == n => (n, since),
            _ => (n, now),
        });
        match waiting {
            Some((_, since)) if now.since(since) >= PATIENCE => {
                let why = held_by(&state_dir);
                if let Some(told) = (!is_told).then(|| shared.health.met(Trouble::Locked, "")).flatten() {
                    tracing::warn!(
                        times = told.times,
                        "the database cannot be written to: {why}; nothing is queued, sent or recorded until it lets go; end that process, or what it does{told}"
                    );
                }
                is_told = true;
                shared.health.database_locked(Some(why));
            }
            _ if is_told => {
                is_told = false;
                shared.health.database_locked(None);
                if let Some(told) = shared.health.over(Trouble::Locked, "") {
                    tracing::info!(times = told.times, "the database can be written to again{told}");
                }
            }
            _ => {}
        }
    }
}

/// Who holds the write lock, in words.
fn held_by(state_dir: &Path) -> String {
    Holder::of(state_dir).map_or_else(
        || {
            let name = state_dir.join(crate::store::FILE);
            format!("another process holds the write lock of {} (`fuser` tells which)", ShownPath::new(&name))
        },
        |holder| holder.to_string(),
    )
}

/// Finishes releases: a command that lets a long sweep go may be interrupted half-way.
async fn finish_releases(shared: &Shared) {
    let finished = async {
        for sweep in shared.store.unreleased_sweeps().await? {
            shared.store.release_sweep(sweep, shared.clock.wall()).await?;
        }
        Ok::<_, crate::store::StoreError>(())
    };
    if let Err(error) = finished.await {
        shared.database_fails("", "the release of a sweep", &error);
    }
}

/// Warns of credentials that soon end, and tells the record's head to the journal: whoever owns this
/// machine can rewrite a chain, but not what left it.
pub async fn keep_house(shared: Shared, lanes: Arc<Mutex<BTreeMap<TenantName, Running>>>, stop: CancellationToken) {
    let mut head_at = shared.clock.boot();
    // At the start and at a reload the configuration's warnings say it.
    let mut credentials_at = shared.clock.boot() + CREDENTIALS;
    loop {
        if shared.clock.boot() >= head_at {
            head_at = shared.clock.boot() + HEAD;
            shared.tell_head().await;
        }
        if shared.clock.boot() >= credentials_at {
            credentials_at = shared.clock.boot() + CREDENTIALS;
            for (tenant, running) in &*lanes.lock().unwrap_or_else(PoisonError::into_inner) {
                if let Some(warning) = running.lane.tenant.auth.soon_over(shared.clock.wall()) {
                    tracing::warn!(%tenant, "credentials: {warning}");
                }
            }
        }
        tell_ends(&shared);
        if !pause(&shared, &stop, TIDY).await {
            return;
        }
    }
}

/// Tells of trouble that has stayed away and whose end was not told: it came and went, or nobody could see it end.
fn tell_ends(shared: &Shared) {
    for ended in shared.health.troubles_ended() {
        let (tenant, told, over) = (ended.tenant, ended.told, ended.over);
        let trouble = ended.trouble;
        tracing::info!(tenant, times = told.times, "not again since {over}: {trouble}{told}");
    }
}

impl Shared {
    /// Tells where the record ends.
    pub async fn tell_head(&self) {
        match self.store.record_head().await {
            Ok(Head { seq, hash }) => tracing::info!(seq, head = hash, "the record's head: event {seq}, {hash}"),
            Err(error) => self.database_fails("", "the record's head", &error),
        }
    }
}

/// Waits; false when it is time to stop.
async fn pause(shared: &Shared, stop: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = shared.clock.sleep_until(shared.clock.boot() + time) => true,
    }
}
