//! The drop folder: what is ready to be taken, and where it goes afterwards.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::dir::{Dir, Kind, Stat};
use super::incoming::{ACCESS, Incoming, MODE, TOP};
use super::left::{self, Known, Stray, Why};
use super::listing::{Candidate, list};
use super::moved::Moved;
use crate::domain::id::TenantName;
use crate::domain::time::{Boot, Wall};

/// A file that is whole and may be taken.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The folder that it lies in, as it was opened.
    pub dir: Arc<Dir>,
    /// Where it is: to show and to compare; it is reached through `dir` alone.
    pub path: PathBuf,
    /// The tenant's folder that it lies in, where there are any.
    pub folder: Option<TenantName>,
    /// Its name.
    pub name: OsString,
    /// What it was when it was listed.
    pub found: Stat,
}

impl Ready {
    /// Where it lies.
    pub fn dropped(&self) -> Dropped {
        Dropped { dir: Arc::clone(&self.dir), name: self.name.clone() }
    }

    /// Its path below `incoming/`, as it is recorded.
    pub fn relative(&self) -> String {
        let name = self.name.to_string_lossy();
        match &self.folder {
            Some(tenant) => format!("{tenant}/{name}"),
            None => name.into_owned(),
        }
    }
}

/// A file in the drop folder.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// The folder that it lies in, as it was opened.
    pub dir: Arc<Dir>,
    /// Its name there.
    pub name: OsString,
}

/// What one look at the folder has shown.
#[derive(Debug, Default)]
pub struct Found {
    /// Files to take, oldest first.
    pub ready: Vec<Ready>,
    /// Whether some have not settled yet, or there are more: look again soon.
    pub unsettled: bool,
    /// Whether `incoming/` itself can be read.
    pub is_watched: bool,
    /// What is left in place, and was not there at the last look.
    pub left: Vec<Stray>,
    /// Folders that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    size: u64,
    modified: Option<SystemTime>,
}

/// After so long a file with the name of an unfinished one is forgotten by whoever wrote it.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// When a look is made, and how long a file has to stay the same.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The clock that nobody can set.
    pub now: Boot,
    /// What file times are compared with.
    pub wall: Wall,
    /// How long size and time of a file have to stay the same, on the first of these.
    pub settle: Duration,
}

/// The four folders below the spool folder.
#[derive(Clone, Debug)]
pub struct Folder {
    pub(super) spool: PathBuf,
    /// The only tenant: what is left in its folder, from when there were several, is its own.
    only: Option<TenantName>,
    /// The tenants' folders; empty when there is one tenant.
    pub(super) tenants: Vec<TenantName>,
    pub(super) opened: Incoming,
    seen: HashMap<PathBuf, Settling>,
    left: Known,
}

#[derive(Clone, Copy)]
struct Settling {
    shape: Shape,
    since: Boot,
}

impl std::fmt::Debug for Settling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "since {:?}", self.since)
    }
}

/// Where a file ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It was taken.
    Processed,
    /// It could not be used.
    Rejected,
}

impl Place {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Rejected => "rejected",
        }
    }
}

impl Candidate {
    /// Whether a file with the name of an unfinished one, which has stayed the same for so long, is a day old: by our
    /// clock, or by its own time if it is not just being renamed.
    fn is_forgotten(&self, same_for: Option<Duration>, at: Moment) -> bool {
        let Some(same_for) = same_for else { return false };
        let (seconds, _) = self.found.modified;
        let age = at.wall.since(Wall(seconds.saturating_mul(1000)));
        same_for >= FORGOTTEN || same_for >= at.settle && age >= FORGOTTEN
    }
}

impl Folder {
    /// The spool folder of these tenants. With one tenant there are no tenant folders.
    pub fn new(spool: &Path, tenants: &[TenantName]) -> Self {
        let only = if let [only] = tenants { Some(only.clone()) } else { None };
        let tenants = if tenants.len() > 1 { tenants.to_vec() } else { Vec::new() };
        let opened = Incoming::new(spool);
        Self { spool: spool.to_owned(), only, tenants, opened, seen: HashMap::new(), left: Known::default() }
    }

    /// Makes what is missing of the folders.
    pub fn create(&self) -> io::Result<()> {
        for kind in ["processed", "rejected", "results"] {
            self.folders(kind).into_iter().try_for_each(fs::create_dir_all)?;
        }
        let spool = Dir::trusted(&self.spool)?;
        spool.make_folder(OsStr::new(TOP), MODE)?;
        if self.tenants.is_empty() {
            return Ok(());
        }
        // What is made here keeps no tenant apart: it has the group and mode of `incoming/` itself.
        let incoming = spool.folder(OsStr::new(TOP))?;
        let top = incoming.stat()?;
        let mode = MODE & !ACCESS | top.mode & ACCESS;
        self.tenants.iter().try_for_each(|tenant| {
            let name = OsStr::new(tenant.as_str());
            if !incoming.make_folder(name, mode)? {
                return Ok(());
            }
            match incoming.folder(name)?.share_with(top.gid, mode) {
                // The service is no member of that group: the folder has a group of its own.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                shared => shared,
            }
        })
    }

    /// Every folder that there should be.
    pub fn all(&self) -> Vec<PathBuf> {
        ["incoming", "processed", "rejected", "results"].iter().flat_map(|kind| self.folders(kind)).collect()
    }

    fn folders(&self, kind: &str) -> Vec<PathBuf> {
        let top = self.spool.join(kind);
        let mut folders: Vec<_> = self.tenants.iter().map(|tenant| top.join(tenant.as_str())).collect();
        folders.insert(0, top);
        folders
    }

    /// The folders to watch.
    pub fn incoming(&self) -> Vec<PathBuf> {
        let mut folders = self.folders(TOP);
        let is_folder = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        folders.extend(self.only.as_ref().map(|only| self.spool.join(TOP).join(only.as_str())));
        folders.retain(is_folder);
        folders
    }

    /// Whose folders there are below `incoming/`, itself included: `None`.
    fn whose(&self) -> impl Iterator<Item = Option<&TenantName>> {
        std::iter::once(None).chain(self.tenants.iter().chain(&self.only).map(Some))
    }

    /// Whether files lie in tenants' folders.
    pub fn has_tenant_folders(&self) -> bool {
        !self.tenants.is_empty()
    }

    /// Looks at the whole folder: the truth, whatever events were or were not seen. Of each folder the oldest files
    /// are told, a few thousand at most; those for which `is_put_off` are left out.
    ///
    /// A file in `moved` was renamed into place and is whole; any other is once its size and time have stayed the same
    /// for `at.settle`, on our clock. What is there no more is forgotten in `moved`.
    pub fn look(&mut self, moved: &mut Moved, at: Moment, mut is_put_off: impl FnMut(&Path, &Stat) -> bool) -> Found {
        let mut found = Found::default();
        let before = std::mem::take(&mut self.seen);
        let [mut no_files, mut endings, mut unfinished] = [const { left::Found::new() }; 3];
        let whose: Vec<_> = self.whose().map(Option::<&TenantName>::cloned).collect();
        for tenant in whose {
            let shown = tenant.iter().fold(self.spool.join(TOP), |top, tenant| top.join(tenant.as_str()));
            let opened = self.opened.open(tenant.as_ref());
            // What is left of a time with several tenants may be gone.
            let is_left = tenant.is_some() && tenant == self.only;
            let dir = match opened {
                Err(error) if is_left && error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened,
            };
            let is_expected = |name: &OsStr, kind| self.is_expected(name, tenant.as_ref(), kind);
            let listed = dir.and_then(|dir| Ok((list(&dir, moved, &mut is_put_off, is_expected)?, dir)));
            let (listed, dir) = match listed {
                Ok(listed) => listed,
                Err(error) => {
                    found.unreadable.push((shown, error.to_string()));
                    // The tenants' folders lie in it.
                    if tenant.is_none() {
                        break;
                    }
                    continue;
                }
            };
            found.unsettled |= listed.more;
            found.is_watched |= tenant.is_none();
            let mut watched = 0;
            for (why, candidate) in listed.left {
                let path = shown.join(&candidate.name);
                match why {
                    Why::NoFile => no_files.add(path),
                    Why::Ending => endings.add(path),
                    Why::Unfinished if watched < left::MOST => {
                        watched += 1;
                        let same_for = self.same_for(&before, &path, &candidate, at.now);
                        if candidate.is_forgotten(same_for, at) {
                            unfinished.add(path);
                        }
                    }
                    // The others have their turn when these are gone.
                    Why::Unfinished => {}
                }
            }
            for candidate in listed.oldest {
                let path = shown.join(&candidate.name);
                let same_for = self.same_for(&before, &path, &candidate, at.now);
                let is_whole = moved.contains(&path) || same_for.is_some_and(|same_for| same_for >= at.settle);
                let Candidate { name, found: stat, .. } = candidate;
                if is_whole {
                    let (dir, folder) = (Arc::clone(&dir), tenant.clone());
                    found.ready.push(Ready { dir, path, folder, name, found: stat });
                } else {
                    found.unsettled = true;
                }
            }
        }
        let all = [(Why::NoFile, no_files), (Why::Ending, endings), (Why::Unfinished, unfinished)];
        found.left = self.left.new_ones(all);
        found
    }

    /// How long a file has stayed the same, as far as the looks have shown: `None` if it is new or has changed.
    fn same_for(
        &mut self,
        before: &HashMap<PathBuf, Settling>,
        path: &Path,
        file: &Candidate,
        now: Boot,
    ) -> Option<Duration> {
        let shape = Shape { size: file.found.size, modified: file.modified };
        let same = before.get(path).filter(|before| before.shape == shape);
        let since = same.map_or(now, |before| before.since);
        self.seen.insert(path.to_owned(), Settling { shape, since });
        same.map(|_| now.since(since))
    }

    /// Whether this is a tenant's folder, where those lie.
    fn is_expected(&self, name: &OsStr, folder: Option<&TenantName>, kind: Kind) -> bool {
        kind == Kind::Folder
            && folder.is_none()
            && self.tenants.iter().chain(&self.only).any(|tenant| OsStr::new(tenant.as_str()) == name)
    }

    /// A free name for a file that is put away: its own, else with a number before its ending; as text, which the
    /// record can keep; cut where a receipt's name would become longer than file systems allow. `is_promised` tells
    /// of paths that are another's, though nothing is there yet.
    pub fn free_name(
        &self,
        place: Place,
        folder: Option<&TenantName>,
        name: &OsStr,
        is_promised: impl Fn(&Path) -> bool,
    ) -> OsString {
        let name: &OsStr = &OsString::from(shortened(&name.to_string_lossy()));
        let at = self.place(place, folder);
        let is_there = |path: PathBuf| is_promised(&path) || path.exists();
        let taken = |name: &OsStr| is_there(at.join(name)) || is_there(at.join(receipt_name(name)));
        if !taken(name) {
            return name.to_owned();
        }
        (1..=u64::MAX).map(|n| numbered(name, n)).find(|name| !taken(name)).unwrap_or_else(|| name.to_owned())
    }

    /// The folder that files of this tenant folder are put away to.
    pub fn place(&self, place: Place, folder: Option<&TenantName>) -> PathBuf {
        self.below(place.as_str(), folder.and_then(|tenant| self.of(tenant)))
    }

    /// The folder for this tenant's results.
    pub fn results(&self, tenant: &TenantName) -> PathBuf {
        self.below("results", self.of(tenant))
    }

    /// The folder of a tenant, where there are any.
    pub fn of<'a>(&self, tenant: &'a TenantName) -> Option<&'a TenantName> {
        self.tenants.contains(tenant).then_some(tenant)
    }

    /// The path of an incoming file by its relative one: for whoever puts it there.
    pub fn incoming_file(&self, relative: &str) -> PathBuf {
        self.spool.join(TOP).join(relative)
    }

    /// The incoming file that was recorded under this relative path: as text, in which a name that is none is not
    /// the same. `None` if it is not there, or not to be reached.
    pub fn recorded(&self, relative: &str) -> Option<Dropped> {
        let (tenant, name) = relative.split_once('/').map_or((None, relative), |(tenant, name)| (Some(tenant), name));
        let tenant = tenant.map(str::parse::<TenantName>).transpose().ok()?;
        let dir = self.opened.clone().open(tenant.as_ref()).ok()?;
        if dir.look(OsStr::new(name)).is_ok() {
            return Some(Dropped { dir, name: name.into() });
        }
        if !name.contains(char::REPLACEMENT_CHARACTER) {
            return None;
        }
        let same = dir.names().ok()?.into_iter().find(|found| found.to_string_lossy() == name)?;
        Some(Dropped { dir, name: same })
    }

    /// The modes of the folders that are dropped into, as far as they can be opened.
    pub fn modes(&self) -> Vec<(Option<TenantName>, u32)> {
        let mut opened = self.opened.clone();
        let mode = |whose: Option<&TenantName>| Some((whose.cloned(), opened.open(whose).ok()?.stat().ok()?.mode));
        self.whose().filter_map(mode).collect()
    }

    /// Below `incoming/`, where a file may lie that is put away to this tenant folder under its own name.
    pub fn relatives(&self, tenant: Option<&TenantName>, name: &str) -> Vec<String> {
        let below = |tenant: &TenantName| format!("{tenant}/{name}");
        match (tenant, &self.only) {
            (Some(tenant), _) => vec![below(tenant)],
            (None, Some(only)) => vec![name.to_owned(), below(only)],
            (None, None) => vec![name.to_owned()],
        }
    }

    /// The folder that files of this tenant folder are dropped into, if it can be reached.
    pub fn incoming_of(&self, tenant: Option<&TenantName>) -> Option<Arc<Dir>> {
        self.opened.clone().open(tenant).ok()
    }

    /// The tenant whose folder lies at this path among those that files are put away to.
    pub fn tenant_at(&self, path: &Path) -> Option<&TenantName> {
        let name = path.file_name()?;
        self.tenants.iter().find(|tenant| OsStr::new(tenant.as_str()) == name)
    }

    /// The folders that files are put away to.
    pub fn put_away_to(&self) -> Vec<PathBuf> {
        [Place::Processed, Place::Rejected].iter().flat_map(|place| self.folders(place.as_str())).collect()
    }

    fn below(&self, kind: &str, folder: Option<&TenantName>) -> PathBuf {
        let top = self.spool.join(kind);
        folder.map_or_else(|| top.clone(), |tenant| top.join(tenant.as_str()))
    }
}

/// A name that leaves room for a number, `.receipt.json` and `.tmp` within 255 bytes.
pub fn shortened(name: &str) -> String {
    const ROOM: usize = 200;
    if name.len() <= ROOM {
        return name.to_owned();
    }
    let ending = Path::new(name).extension().and_then(OsStr::to_str).filter(|ending| ending.len() <= 16);
    let mut short = name.get(..name.floor_char_boundary(ROOM - 17)).unwrap_or_default().to_owned();
    if let Some(ending) = ending {
        short.push('.');
        short.push_str(ending);
    }
    short
}

/// A name with a number before its ending.
pub fn numbered(name: &OsStr, n: u64) -> OsString {
    let path = Path::new(name);
    let mut numbered = path.file_stem().unwrap_or(name).to_owned();
    numbered.push(format!(".{n}"));
    if let Some(ending) = path.extension() {
        numbered.push(".");
        numbered.push(ending);
    }
    numbered
}

/// The name of the receipt of a file.
pub fn receipt_name(name: &OsStr) -> OsString {
    let mut receipt = name.to_owned();
    receipt.push(".receipt.json");
    receipt
}

#[cfg(test)]
mod tests;
