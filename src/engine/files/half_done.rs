//! What a kill left between two steps of taking a file: a start finishes it.

use super::filing::finish_folder;
use super::opening::{Copied, Copying, remove_left_copies};
use super::taking::{Refuse, Taking};
use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;
use crate::domain::trouble::Trouble;
use crate::intake::dir::Kind;
use crate::intake::folder::Dropped;
use crate::store::StoreError;

impl Taking {
    /// Finishes what an earlier incarnation left between two steps.
    pub async fn finish_half_done(&self) {
        if let Err(error) = self.try_finish_half_done().await {
            tracing::error!(%error, "files that were half taken cannot be finished now; they are at the next start");
        }
    }

    /// Warns of a drop folder in which everybody of a group may replace what another dropped.
    pub fn warn_of_open_folders(&self) {
        for (whose, mode) in self.folder().modes() {
            if mode & 0o1000 == 0 && mode & 0o022 != 0 {
                let folder = whose.as_ref().map_or("incoming", TenantName::as_str);
                tracing::warn!(
                    folder,
                    mode = format!("{mode:04o}"),
                    "the drop folder is not sticky: everybody who may write to it can replace what others drop: run chmod +t on it, and correct its line in tmpfiles.d"
                );
            }
        }
    }

    /// Lets the droppers of each tenant read what comes back to them.
    pub fn share_folders(&self) {
        let (failed, health) = (self.folder().share(), &self.shared.health);
        if let Some((folder, error)) = failed.first() {
            if let Some(told) = health.met(Trouble::Group, "") {
                tracing::warn!(
                    folder = %ShownPath::new(folder), %error, folders = failed.len(), times = told.times,
                    "folders cannot get the group of their tenant's drop folder: its droppers cannot read receipts and results there; add the service user to that group, or make the folder with a line in tmpfiles.d, mode 2750{told}"
                );
            }
        } else if let Some(told) = health.over(Trouble::Group, "") {
            tracing::info!(times = told.times, "every tenant's folders have the group of its drop folder again{told}");
        }
    }

    async fn try_finish_half_done(&self) -> Result<(), StoreError> {
        self.finish_receipts().await;
        let store = &self.shared.store;
        for (known, _) in store.half_done_sweeps().await? {
            if known.state == "taking" {
                // Present, it is taken up again where it was left; gone, somebody took it back.
                if self.folder.recorded(&known.file).is_none() {
                    self.abandon(known.n, &known.file, "it vanished while it was being taken").await?;
                }
                continue;
            }
            if !known.filed
                && let Err(Refuse::Later(why) | Refuse::Reject(why, ..)) = self.file_away(&known, None).await
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
        let (folder, copying) = (self.folder.clone(), self.copying(None));
        let finish = move || {
            let mut failed = Vec::new();
            for path in folder.put_away_to() {
                failed.extend(remove_left_copies(&path).err().map(|error| (path.clone(), error)));
                let tenant = folder.tenant_at(&path);
                let waits = |file: &str, sha256: &str| {
                    let is_there = |relative: &String| {
                        folder.recorded(relative).is_some_and(|dropped| copying.is_there(&dropped, sha256))
                    };
                    folder.relatives(tenant, file).iter().any(is_there)
                };
                let incoming = folder.incoming_of(tenant);
                let finished = finish_folder(&path, incoming.as_deref(), &waits);
                failed.extend(finished.err().map(|error| (path, error)));
            }
            failed
        };
        for (folder, error) in tokio::task::spawn_blocking(finish).await.unwrap_or_default() {
            tracing::warn!(folder = %ShownPath::new(&folder), %error, "receipts that were written before a kill cannot be finished");
        }
    }
}

/// Copies a file once more, if it is there and has this SHA-256.
pub fn copy_again(copying: &Copying, dropped: Option<Dropped>, sha256: &str) -> Result<Option<Copied>, Refuse> {
    // A link or a folder that has its name by now is none that was taken.
    let is_file = |dropped: &Dropped| dropped.dir.look(&dropped.name).is_ok_and(|found| found.kind == Kind::File);
    let Some(dropped) = dropped.filter(is_file) else { return Ok(None) };
    match copying.copy(&dropped, None) {
        Ok(copied) => Ok(Some(copied).filter(|copied| copied.sha256 == sha256)),
        // Another one by now: that one is still to be taken.
        Err(Refuse::Reject(..)) => Ok(None),
        Err(later) => Err(later),
    }
}
