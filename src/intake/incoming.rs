//! The folders below `incoming/`, opened once and kept.
//!
//! Droppers may write to them. A name there is looked at through the folder that was opened, and a folder is opened again
//! only if another one has taken its place, by the same rules.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir::{Dir, Kind};
use crate::domain::id::TenantName;

/// The folder that lists are dropped into, below the spool folder.
pub const TOP: &str = "incoming";

/// What the daemon makes there. The group may put files there; the set-group-id bit has them belong to it; the sticky
/// bit leaves each file, and each tenant's folder, to its owner: without it everybody in the group could put something
/// else in its place.
pub const MODE: u32 = 0o3770;

/// The part of a mode that says who may read and write.
pub const ACCESS: u32 = 0o777;

/// The folders that are open, by whose they are; `incoming/` itself is nobody's.
#[derive(Clone, Debug)]
pub struct Incoming {
    spool: PathBuf,
    open: BTreeMap<Option<TenantName>, Arc<Dir>>,
}

impl Incoming {
    /// None is open yet.
    pub fn new(spool: &Path) -> Self {
        Self { spool: spool.to_owned(), open: BTreeMap::new() }
    }

    /// A tenant's folder, or `incoming/` itself. The one that was opened before, unless another has taken its place.
    pub fn open(&mut self, whose: Option<&TenantName>) -> io::Result<Arc<Dir>> {
        let (parent, name) = match whose {
            // Nobody but the service and root may write to the spool folder.
            None => (Arc::new(Dir::trusted(&self.spool)?), TOP),
            Some(tenant) => (self.open(None)?, tenant.as_str()),
        };
        let (key, name) = (whose.cloned(), OsStr::new(name));
        if let Some(kept) = self.open.get(&key).filter(|kept| kept.is_still(&parent, name)) {
            return Ok(Arc::clone(kept));
        }
        self.open.remove(&key);
        let opened = parent.folder(name).map_err(|error| match parent.look(name) {
            Ok(found) if found.kind != Kind::Folder => {
                let why = "a link or a file lies in its place, which is not followed; a folder elsewhere can be mounted there";
                io::Error::new(io::ErrorKind::NotADirectory, why)
            }
            _ => error,
        })?;
        if whose.is_some() {
            belongs_to_us(&opened)?;
        }
        let opened = Arc::new(opened);
        self.open.insert(key, Arc::clone(&opened));
        Ok(opened)
    }
}

/// A tenant's folder decides whose machines are scanned: one that a dropper has put there decides nothing.
fn belongs_to_us(folder: &Dir) -> io::Result<()> {
    let (owner, ours) = (folder.stat()?.uid, nix::unistd::geteuid().as_raw());
    if owner == ours || owner == 0 {
        return Ok(());
    }
    let why = format!(
        "it belongs to the user {owner}, and only a folder of the service user ({ours}) or of root is read; \
         move it away, or give it to the service user"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}
