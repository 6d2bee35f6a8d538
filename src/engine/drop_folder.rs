//! The loop that watches the drop folder.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::taking::{Taking, Took};
use crate::domain::time::Boot;
use crate::intake::Watch;
use crate::intake::folder::Ready;

/// After a file could not be taken for a reason that may pass.
const AGAIN: Duration = Duration::from_secs(30);

pub async fn run(mut taking: Taking, stop: CancellationToken) {
    let (settle, rescan) = (taking.intake.settle, taking.intake.rescan);
    let mut watch = Watch::new(Arc::new(Notify::new()));
    watch.folders(&taking.folder().incoming());
    taking.finish_half_done().await;
    let clock = Arc::clone(&taking.shared.clock);
    let mut moved: HashSet<PathBuf> = HashSet::new();
    let mut later: HashMap<PathBuf, Boot> = HashMap::new();
    let mut told: HashMap<PathBuf, String> = HashMap::new();
    while !stop.is_cancelled() {
        taking.shared.health.beat("intake");
        moved.extend(watch.moved_in());
        let found = taking.look(&moved, settle, clock.boot());
        for (folder, why) in &found.unreadable {
            tracing::error!(folder = %folder.display(), why, "the drop folder cannot be read; it is made again if it is gone");
        }
        if !found.unreadable.is_empty() && taking.folder().create().is_ok() {
            watch.folders(&taking.folder().incoming());
        }
        taking.shared.health.watching(found.unreadable.is_empty());
        for odd in &found.odd {
            taking.shared.metrics.left_in_place();
            tracing::warn!(path = %odd.display(), "left in place: it is no regular file");
        }
        later.retain(|path, until| path.exists() && *until > clock.boot());
        let ready: Vec<Ready> = found.ready.into_iter().filter(|ready| !later.contains_key(&ready.path)).collect();
        let busy = !ready.is_empty();
        for ready in ready {
            if stop.is_cancelled() {
                break;
            }
            taking.shared.health.beat("intake");
            moved.remove(&ready.path);
            if let Took::Later(why) = taking.take(&ready).await {
                // Told once for each file and reason, not at every try.
                if told.insert(ready.path.clone(), why.clone()).as_ref() != Some(&why) {
                    tracing::error!(file = %ready.path.display(), why, "the file stays where it is and is tried again every {} s", AGAIN.as_secs());
                }
                later.insert(ready.path, clock.boot() + AGAIN);
            }
        }
        moved.retain(|path| path.exists());
        told.retain(|path, _| path.exists());
        if busy && later.is_empty() {
            continue;
        }
        let pause = if found.unsettled { settle.max(Duration::from_millis(50)) } else { rescan };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watch.changed() => continue,
            () = clock.sleep_until(clock.boot() + pause.min(Duration::from_mins(1))) => {}
        }
        // A folder that was made anew is another one to the kernel.
        watch.folders(&taking.folder().incoming());
    }
    taking.shared.health.ended("intake");
}
