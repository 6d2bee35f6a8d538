//! inotify as a hint: it wakes the look at the folder early, and tells which files were renamed
//! into place, and which somebody still holds open for writing. What it misses (overflow, NFS, SMB)
//! the next look finds.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::moved::Moved;
use super::open_files;
use crate::domain::shown::ShownPath;

/// Watches folders until dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    moved_in: Arc<Mutex<Moved>>,
    writers: Arc<Mutex<Writers>>,
    wake: Arc<Notify>,
    /// Folders that could not be watched at the last try: told once.
    refused: HashSet<PathBuf>,
}

/// Files that somebody writes to, as far as the kernel has told.
#[derive(Debug, Default)]
struct Writers(HashMap<PathBuf, Writer>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// The file was made, which a link does as well.
    Made,
    /// It was opened thereafter, mostly by whoever made it.
    Opened,
    /// It was written to.
    Wrote,
}

impl Writers {
    /// Alike events in a row come as one, so nothing is counted here: each says all by itself.
    fn heard(&mut self, event: &notify::Event) {
        for path in &event.paths {
            match event.kind {
                EventKind::Create(_) => {
                    self.0.insert(path.clone(), Writer::Made);
                }
                EventKind::Access(AccessKind::Open(_)) => {
                    if let Some(writer) = self.0.get_mut(path).filter(|writer| **writer == Writer::Made) {
                        *writer = Writer::Opened;
                    }
                }
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.0.insert(path.clone(), Writer::Wrote);
                }
                // A reader's closing tells nothing of who writes.
                EventKind::Access(AccessKind::Close(AccessMode::Read)) if self.0.get(path) == Some(&Writer::Wrote) => {}
                EventKind::Access(AccessKind::Close(_))
                | EventKind::Modify(ModifyKind::Name(_))
                | EventKind::Remove(_) => {
                    self.0.remove(path);
                }
                _ => {}
            }
        }
        if event.need_rescan() {
            // Endings may be among what was lost: nobody is waited for whose end would never be told.
            self.0.clear();
        }
    }

    fn are_at(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|writer| *writer != Writer::Made)
    }
}

impl Watch {
    /// Watches nothing yet. Without inotify, the regular look has to do.
    pub fn new(wake: Arc<Notify>) -> Self {
        let moved_in = Arc::new(Mutex::new(Moved::default()));
        let writers = Arc::new(Mutex::new(Writers::default()));
        let (moved, writing, waker) = (Arc::clone(&moved_in), Arc::clone(&writers), Arc::clone(&wake));
        let watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            let Ok(event) = event else { return waker.notify_one() };
            writing.lock().unwrap_or_else(PoisonError::into_inner).heard(&event);
            match event.kind {
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                    let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
                    event.paths.iter().for_each(|path| moved.note(path));
                    drop(moved);
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
        Self { watcher, moved_in, writers, wake, refused: HashSet::new() }
    }

    /// Watches these folders, again if they were made anew.
    pub fn folders(&mut self, folders: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in folders {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.refused.remove(folder)),
                Err(error) if self.refused.insert(folder.clone()) => {
                    tracing::warn!(folder = %ShownPath::new(folder), %error, "the folder cannot be watched; files are found by looking");
                }
                Err(_) => {}
            }
        }
    }

    /// To be called once, when these folders are watched: who has begun to write there before is waited for too, as far
    /// as `/proc` tells.
    pub fn writers_of_before(&mut self, folders: &[PathBuf]) {
        if self.watcher.is_none() {
            return;
        }
        let open = || folders.iter().flat_map(|folder| open_files::written_to(folder)).collect::<HashSet<_>>();
        let before = open();
        if before.is_empty() {
            return;
        }
        let lock = || self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        lock().0.extend(before.iter().map(|path| (path.clone(), Writer::Wrote)));
        // Who has closed meanwhile may have been heard before they were known; who does from here on is heard.
        let still = open();
        lock().0.retain(|path, _| still.contains(path) || !before.contains(path));
    }

    /// What was renamed into place since the last call.
    pub fn moved_in(&self) -> Moved {
        std::mem::take(&mut self.moved_in.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether somebody holds this file open and writes to it, or made it and has not begun. Without inotify nobody
    /// can tell, and it has settled when it has not changed for a while.
    pub fn is_written_to(&self, path: &Path) -> bool {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).are_at(path)
    }

    /// Returns when something may have happened.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::Event;
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind};

    const MADE: EventKind = EventKind::Create(CreateKind::File);
    const OPENED: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));
    const WROTE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const READ: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Read));
    const MOVED: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    const GONE: EventKind = EventKind::Remove(RemoveKind::File);

    #[test]
    fn a_file_is_written_to_until_its_writer_closes_it() {
        let path = Path::new("/spool/incoming/list.txt");
        for (what, events, expected) in [
            ("made and opened, nothing written yet", &[MADE, OPENED][..], true),
            ("in the middle", &[MADE, OPENED, WROTE], true),
            ("closed", &[MADE, OPENED, WROTE, CLOSED], false),
            ("made empty", &[MADE, OPENED, CLOSED], false),
            ("an older one is appended to", &[OPENED, WROTE], true),
            ("somebody looked into it meanwhile", &[MADE, OPENED, WROTE, OPENED, READ], true),
            ("a link to a file, which we read", &[MADE, OPENED, READ], false),
            ("a link", &[MADE], false),
            ("only read", &[OPENED, READ], false),
            ("once more", &[WROTE, CLOSED, WROTE], true),
            ("put away under the writer's hands", &[WROTE, MOVED], false),
            ("deleted", &[WROTE, GONE], false),
        ] {
            let mut writers = Writers::default();
            for kind in events {
                writers.heard(&Event::new(*kind).add_path(path.to_owned()));
            }
            assert_eq!(writers.are_at(path), expected, "{what}");
            assert!(!writers.are_at(Path::new("/spool/incoming/other.txt")));
        }
    }

    #[test]
    fn nobody_is_waited_for_whose_end_may_have_been_missed() {
        let path = Path::new("/spool/incoming/list.txt");
        let mut writers = Writers::default();
        writers.heard(&Event::new(WROTE).add_path(path.to_owned()));
        writers.heard(&Event::new(EventKind::Other).set_flag(Flag::Rescan));
        assert!(!writers.are_at(path));
    }
}
