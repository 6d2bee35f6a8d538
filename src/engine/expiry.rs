//! The loop that empties the spool folder of what has lain there for long enough (`retention.spool`).

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::config::Config;
use crate::domain::trouble::Trouble;
use crate::intake::expiry::{Removed, remove};

/// Between two rounds; less where files are kept for less than ten hours.
const ROUND: Duration = Duration::from_hours(1);
const AT_LEAST: Duration = Duration::from_mins(1);

pub struct Expiry {
    shared: Shared,
    spool: PathBuf,
    keep: Duration,
}

impl Expiry {
    pub fn new(shared: Shared, config: &Config) -> Self {
        Self { shared, spool: config.daemon.spool_dir.clone(), keep: config.retention.spool }
    }

    async fn round(&self, stop: &CancellationToken) -> anyhow::Result<Removed> {
        let (spool, keep, now, stop) = (self.spool.clone(), self.keep, self.shared.clock.wall(), stop.clone());
        // A folder of a hundred thousand files takes seconds.
        Ok(tokio::task::spawn_blocking(move || remove(&spool, keep, now, &|| stop.is_cancelled())).await?)
    }

    /// Tells of what could not be removed, the first of it by name, and when all could again.
    fn tell_left(&self, left: Option<&(PathBuf, std::io::Error)>) {
        let health = &self.shared.health;
        if let Some((path, error)) = left {
            if let Some(told) = health.met(Trouble::Spool, "") {
                tracing::warn!(path = %path.display(), %error, times = told.times, "what is older than retention.spool cannot be removed; tried again{told}");
            }
        } else if let Some(told) = health.over(Trouble::Spool, "") {
            tracing::info!(times = told.times, "what is older than retention.spool can be removed again{told}");
        }
    }
}

/// Runs until it is told to stop. Files that are kept for no time are kept for ever.
pub async fn run(expiry: Expiry, stop: CancellationToken) {
    let pause = (expiry.keep / 10).clamp(AT_LEAST, ROUND);
    let clock = &expiry.shared.clock;
    while !stop.is_cancelled() && !expiry.keep.is_zero() {
        match expiry.round(&stop).await {
            Ok(removed) => {
                if removed.files > 0 {
                    let (files, mib) = (removed.files, removed.bytes >> 20);
                    tracing::info!(files, mib, "removed files of the spool folder that are older than retention.spool");
                }
                expiry.tell_left(removed.left.as_ref());
            }
            Err(error) => tracing::error!("the spool folder cannot be looked through: {error:#}"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep_until(clock.boot() + pause) => {}
        }
    }
}
