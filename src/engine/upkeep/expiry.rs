//! The loop that empties the spool folder of what has lain there for long enough (`retention.spool`).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::shown::ShownPath;
use crate::domain::time::Wall;
use crate::domain::trouble::Trouble;
use crate::engine::Shared;
use crate::intake::expiry::{Removed, remove};

/// Between two rounds; less where files are kept for less than ten hours.
const ROUND: Duration = Duration::from_hours(1);
const AT_LEAST: Duration = Duration::from_mins(1);

/// A clock that nobody has confirmed is looked at again after this.
pub const UNCONFIRMED: Duration = Duration::from_secs(5);

pub struct Expiry {
    shared: Shared,
    spool: PathBuf,
    keep: Duration,
}

impl Expiry {
    pub fn new(shared: Shared, config: &Config) -> Self {
        Self { shared, spool: config.daemon.spool_dir.clone(), keep: config.retention.spool }
    }

    async fn round(&self, now: Wall, stop: &CancellationToken) -> anyhow::Result<Removed> {
        let (spool, keep, stop) = (self.spool.clone(), self.keep, stop.clone());
        // A folder of a hundred thousand files takes seconds.
        Ok(tokio::task::spawn_blocking(move || remove(&spool, keep, now, &|| stop.is_cancelled())).await?)
    }

    fn tell(&self, round: anyhow::Result<Removed>) {
        match round {
            Ok(removed) => {
                if removed.files > 0 {
                    let (files, mib) = (removed.files, removed.bytes >> 20);
                    tracing::info!(files, mib, "removed files of the spool folder that are older than retention.spool");
                }
                self.tell_left(removed.left.as_ref());
            }
            Err(error) => tracing::error!("the spool folder cannot be looked through: {error:#}"),
        }
    }

    /// Tells of what could not be removed, the first of it by name, and when all could again.
    fn tell_left(&self, left: Option<&(PathBuf, io::Error)>) {
        let health = &self.shared.health;
        if let Some((path, error)) = left {
            if let Some(told) = health.met(Trouble::Spool, "") {
                tracing::warn!(path = %ShownPath::new(path), %error, times = told.times, "what is older than retention.spool cannot be removed; tried again{told}");
            }
        } else if let Some(told) = health.over(Trouble::Spool, "") {
            tracing::info!(times = told.times, "what is older than retention.spool can be removed again{told}");
        }
    }
}

/// Runs until it is told to stop. Files that are kept for no time are kept for ever.
pub async fn run(expiry: Expiry, stop: CancellationToken) {
    let clock = &expiry.shared.clock;
    let began = clock.boot();
    while !stop.is_cancelled() && !expiry.keep.is_zero() {
        let mut pause = (expiry.keep / 10).clamp(AT_LEAST, ROUND);
        if let Some(now) = expiry.shared.time_for_removal(began) {
            expiry.tell(expiry.round(now, &stop).await);
        } else {
            pause = pause.min(UNCONFIRMED);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep_until(clock.boot() + pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use futures_util::FutureExt;

    use super::*;
    use crate::clock::Clock;
    use crate::domain::time::{ServerTime, Witness};
    use crate::engine::upkeep::still;

    const DAY: Duration = Duration::from_hours(24);

    /// A file of results, and when it came to lie there.
    fn lies_in(spool: &std::path::Path) -> (PathBuf, Wall) {
        fs::create_dir_all(spool.join("results")).unwrap();
        for folder in ["processed", "rejected"] {
            fs::create_dir_all(spool.join(folder)).unwrap();
        }
        let file = spool.join("results/1.csv");
        fs::write(&file, "").unwrap();
        let since = Wall(fs::metadata(&file).unwrap().ctime() * 1000);
        (file, since)
    }

    #[tokio::test]
    async fn what_is_old_by_a_clock_that_jumped_ahead_of_the_servers_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, since) = lies_in(folder.path());
        let (shared, clock, _database) = still::shared(since).await;
        let (asked, stop) = (clock.boot(), CancellationToken::new());
        let expiry = Expiry { shared: shared.clone(), spool: folder.path().to_owned(), keep: DAY * 90 };
        let removed = async || match shared.time_for_removal(asked) {
            Some(now) => Some(expiry.round(now, &stop).await.unwrap().files),
            None => None,
        };
        assert_eq!(removed().await, None, "nobody has told the time");
        shared.signals.told_time(Witness::Server(ServerTime { asked, answered: asked, date: since }));
        clock.jump(DAY * 365);
        assert_eq!((removed().await, file.exists()), (Some(0), true));
        clock.pass(DAY * 91);
        assert_eq!((removed().await, file.exists()), (Some(1), false), "old by the server's clock too");
    }

    #[tokio::test]
    async fn files_that_are_kept_for_no_time_are_kept_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let (file, since) = lies_in(folder.path());
        let (shared, _clock, _database) = still::shared(since + DAY).await;
        let expiry = Expiry { shared, spool: folder.path().to_owned(), keep: Duration::ZERO };
        let ended = run(expiry, CancellationToken::new()).now_or_never();
        assert!(ended.is_some() && file.exists(), "nobody looks");
    }
}
