//! inotify as a hint: it wakes the look at the folder early, and tells which files were renamed
//! into place. What it misses (overflow, NFS, SMB) the next look finds.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Watches folders until dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    moved_in: Arc<Mutex<HashSet<PathBuf>>>,
    wake: Arc<Notify>,
}

impl Watch {
    /// Watches nothing yet. Without inotify, the regular look has to do.
    pub fn new(wake: Arc<Notify>) -> Self {
        let moved_in = Arc::new(Mutex::new(HashSet::new()));
        let (moved, waker) = (Arc::clone(&moved_in), Arc::clone(&wake));
        let watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            let Ok(event) = event else { return waker.notify_one() };
            match event.kind {
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                    moved.lock().unwrap_or_else(PoisonError::into_inner).extend(event.paths);
                    waker.notify_one();
                }
                EventKind::Create(_) | EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Other => {
                    waker.notify_one();
                }
                _ => {}
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, "the drop folder cannot be watched; files are found by looking every `rescan`");
            })
            .ok();
        Self { watcher, moved_in, wake }
    }

    /// Watches these folders, again if they were made anew.
    pub fn folders(&mut self, folders: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in folders {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "the folder cannot be watched; files are found by looking");
            }
        }
    }

    /// Paths that were renamed into place since the last call.
    pub fn moved_in(&self) -> HashSet<PathBuf> {
        std::mem::take(&mut self.moved_in.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a path for the next look: it was moved in, but could not be taken yet.
    pub fn keep(&self, path: &Path) {
        self.moved_in.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    }

    /// Returns when something may have happened.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}
