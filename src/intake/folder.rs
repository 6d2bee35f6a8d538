//! The drop folder: what is ready to be taken, and where it goes afterwards.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::listing::{Candidate, list};
use super::moved::Moved;
use crate::domain::id::TenantName;
use crate::domain::time::Boot;

/// A file that is whole and may be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where it is.
    pub path: PathBuf,
    /// The tenant's folder that it lies in, where there are any.
    pub folder: Option<TenantName>,
    /// Its name.
    pub name: OsString,
    /// How long it is, in bytes.
    pub size: u64,
}

impl Ready {
    /// Its path below `incoming/`, as it is recorded.
    pub fn relative(&self) -> String {
        let name = self.name.to_string_lossy();
        match &self.folder {
            Some(tenant) => format!("{tenant}/{name}"),
            None => name.into_owned(),
        }
    }
}

/// What one look at the folder has shown.
#[derive(Debug, Default)]
pub struct Found {
    /// Files to take, oldest first.
    pub ready: Vec<Ready>,
    /// Whether some have not settled yet, or there are more: look again soon.
    pub unsettled: bool,
    /// Things that are no regular files, seen for the first time.
    pub odd: Vec<PathBuf>,
    /// Folders that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    size: u64,
    modified: Option<SystemTime>,
}

/// The four folders below the spool folder.
#[derive(Clone, Debug)]
pub struct Folder {
    spool: PathBuf,
    /// The only tenant: what is left in its folder, from when there were several, is its own.
    only: Option<TenantName>,
    /// The tenants' folders; empty when there is one tenant.
    tenants: Vec<TenantName>,
    seen: HashMap<PathBuf, Settling>,
    warned: HashSet<PathBuf>,
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

impl Folder {
    /// The spool folder of these tenants. With one tenant there are no tenant folders.
    pub fn new(spool: &Path, tenants: &[TenantName]) -> Self {
        let only = if let [only] = tenants { Some(only.clone()) } else { None };
        let tenants = if tenants.len() > 1 { tenants.to_vec() } else { Vec::new() };
        Self { spool: spool.to_owned(), only, tenants, seen: HashMap::new(), warned: HashSet::new() }
    }

    /// Makes what is missing of the folders.
    pub fn create(&self) -> io::Result<()> {
        self.all().into_iter().try_for_each(fs::create_dir_all)
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
        let mut folders = self.folders("incoming");
        let linked = self.linked();
        folders.retain(|folder| !linked.contains(folder));
        let left = self.only.as_ref().map(|only| self.spool.join("incoming").join(only.as_str()));
        folders.extend(left.filter(|left| fs::symlink_metadata(left).is_ok_and(|found| found.is_dir())));
        folders
    }

    /// Tenants' folders in whose place a link lies. Whoever may drop files can put one there, to our own database for
    /// instance: it is not followed.
    fn linked(&self) -> Vec<PathBuf> {
        let is_link = |folder: &PathBuf| fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink());
        self.folders("incoming").into_iter().skip(1).filter(is_link).collect()
    }

    /// Whether files lie in tenants' folders.
    pub fn has_tenant_folders(&self) -> bool {
        !self.tenants.is_empty()
    }

    /// Looks at the whole folder: the truth, whatever events were or were not seen. Of each folder the oldest files
    /// are told, a few thousand at most; those for which `is_put_off` are left out.
    ///
    /// A file in `moved` was renamed into place and is whole; any other is once its size and time have stayed the same
    /// for `settle`, on our clock. What is there no more is forgotten in `moved`.
    pub fn look(
        &mut self,
        moved: &mut Moved,
        settle: Duration,
        now: Boot,
        is_put_off: impl Fn(&Path) -> bool,
    ) -> Found {
        let mut found = Found::default();
        let before = std::mem::take(&mut self.seen);
        let mut odd = HashSet::new();
        let top = self.spool.join("incoming");
        for folder in self.incoming() {
            let tenant = if folder == top {
                None
            } else {
                folder.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok())
            };
            let listed = match list(&folder, moved, &is_put_off) {
                Ok(listed) => listed,
                Err(error) => {
                    found.unreadable.push((folder, error.to_string()));
                    continue;
                }
            };
            found.unsettled |= listed.more;
            for (name, metadata) in listed.odd {
                let path = folder.join(&name);
                if !self.is_expected(&name, tenant.as_ref(), &metadata) && odd.insert(path.clone()) {
                    found.odd.extend((!self.warned.contains(&path)).then_some(path));
                }
            }
            for Candidate { name, size, modified } in listed.oldest {
                let path = folder.join(&name);
                let shape = Shape { size, modified };
                let same = before.get(&path).filter(|before| before.shape == shape);
                let since = same.map_or(now, |before| before.since);
                let is_whole = moved.contains(&path) || same.is_some() && now.since(since) >= settle;
                self.seen.insert(path.clone(), Settling { shape, since });
                if is_whole {
                    found.ready.push(Ready { path, folder: tenant.clone(), name, size });
                } else {
                    found.unsettled = true;
                }
            }
        }
        let why = "a link lies in its place, which is not followed; a folder elsewhere can be mounted there";
        found.unreadable.extend(self.linked().into_iter().map(|folder| (folder, why.to_owned())));
        self.warned = odd;
        found
    }

    /// Whether this is a tenant's folder, where those lie.
    fn is_expected(&self, name: &OsStr, folder: Option<&TenantName>, metadata: &Metadata) -> bool {
        metadata.is_dir()
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
        let path = Path::new(name);
        let stem = path.file_stem().unwrap_or(name);
        (1..=u64::MAX)
            .map(|n| {
                let mut numbered = stem.to_owned();
                numbered.push(format!(".{n}"));
                if let Some(ending) = path.extension() {
                    numbered.push(".");
                    numbered.push(ending);
                }
                numbered
            })
            .find(|name| !taken(name))
            .unwrap_or_else(|| name.to_owned())
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

    /// The incoming file that was recorded under this relative path: as text, in which a name that is none is not
    /// the same.
    pub fn incoming_file(&self, relative: &str) -> PathBuf {
        let path = self.spool.join("incoming").join(relative);
        if !relative.contains(char::REPLACEMENT_CHARACTER) || fs::symlink_metadata(&path).is_ok() {
            return path;
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return path };
        let same =
            |entry: fs::DirEntry| (entry.file_name().to_string_lossy() == name.to_string_lossy()).then(|| entry.path());
        fs::read_dir(folder).ok().and_then(|entries| entries.flatten().find_map(same)).unwrap_or(path)
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
fn shortened(name: &str) -> String {
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

/// The name of the receipt of a file.
pub fn receipt_name(name: &OsStr) -> OsString {
    let mut receipt = name.to_owned();
    receipt.push(".receipt.json");
    receipt
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::intake::listing::AT_ONCE;

    const SETTLE: Duration = Duration::from_secs(2);

    /// A look that knows of nothing but these that it was renamed into place.
    fn look(folder: &mut Folder, moved: &[&Path], settle: Duration, now: i64) -> Found {
        let mut moved = moved.iter().map(|path| path.to_path_buf()).collect();
        folder.look(&mut moved, settle, Boot(now), |_| false)
    }

    fn names(found: &Found) -> Vec<String> {
        found.ready.iter().map(Ready::relative).collect()
    }

    fn tenants(names: &[&str]) -> Vec<TenantName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_file_is_ready_when_it_was_moved_in_or_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), &tenants(&["contoso"]));
        folder.create().unwrap();
        let path = dir.path().join("incoming/list.txt");
        fs::write(&path, "one").unwrap();
        let first = look(&mut folder, &[], SETTLE, 0);
        assert!(names(&first).is_empty() && first.unsettled);
        assert!(names(&look(&mut folder, &[], SETTLE, 1999)).is_empty());
        fs::write(&path, "two lines").unwrap();
        assert!(names(&look(&mut folder, &[], SETTLE, 2500)).is_empty(), "it has grown");
        assert_eq!(names(&look(&mut folder, &[], SETTLE, 4500)), ["list.txt"]);
        let moved = dir.path().join("incoming/moved.csv");
        fs::write(&moved, "x").unwrap();
        assert_eq!(names(&look(&mut folder, &[&moved], SETTLE, 4501)), ["list.txt", "moved.csv"]);
    }

    #[test]
    fn unfinished_names_are_ignored_and_odd_things_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
        folder.create().unwrap();
        let incoming = dir.path().join("incoming");
        for name in [".hidden", "x.tmp", "x.PART", "x.crdownload", "x~", "x.swp"] {
            fs::write(incoming.join(name), "x").unwrap();
        }
        fs::create_dir(incoming.join("folder")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", incoming.join("link.txt")).unwrap();
        fs::write(incoming.join("b/list.txt"), "x").unwrap();
        let everything = look(&mut folder, &[], Duration::ZERO, 0);
        assert_eq!(everything.odd.len(), 2, "{everything:?}");
        let again = look(&mut folder, &[], Duration::ZERO, 1);
        assert!(again.odd.is_empty());
        assert_eq!(names(&again), ["b/list.txt"]);
    }

    #[test]
    fn a_tenants_folder_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
        folder.create().unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        fs::write(dir.path().join("state/sweepd.db"), "x").unwrap();
        fs::write(dir.path().join("incoming/b/list.txt"), "x").unwrap();
        fs::remove_dir(dir.path().join("incoming/a")).unwrap();
        std::os::unix::fs::symlink("../state", dir.path().join("incoming/a")).unwrap();
        look(&mut folder, &[], Duration::ZERO, 0);
        let found = look(&mut folder, &[], Duration::ZERO, 1);
        assert_eq!(names(&found), ["b/list.txt"], "the others go on");
        assert_eq!(found.unreadable.len(), 1, "{found:?}");
        assert!(!folder.incoming().contains(&dir.path().join("incoming/a")), "nor is it watched");
    }

    #[test]
    fn of_any_number_of_files_the_oldest_are_told_and_the_others_in_their_turn() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), &tenants(&["contoso"]));
        folder.create().unwrap();
        let incoming = dir.path().join("incoming");
        let age = |name: &str, seconds: u64| {
            let file = fs::File::create(incoming.join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        (0..AT_ONCE + 2).for_each(|n| age(&format!("{n}.txt"), 1_000_000 - n as u64));
        look(&mut folder, &[], SETTLE, 0);
        let found = look(&mut folder, &[], SETTLE, 2000);
        assert_eq!((found.ready.len(), folder.seen.len()), (AT_ONCE, AT_ONCE));
        assert!(found.unsettled, "there are more: they are looked for soon");
        assert_eq!(names(&found)[..2], [format!("{}.txt", AT_ONCE + 1), format!("{AT_ONCE}.txt")]);
        // What cannot be taken now makes way for the next.
        let put_off = |path: &Path| path.ends_with(format!("{AT_ONCE}.txt"));
        let found = folder.look(&mut Moved::default(), SETTLE, Boot(2000), put_off);
        assert_eq!((found.ready.len(), names(&found).contains(&format!("{AT_ONCE}.txt"))), (AT_ONCE - 1, false));
        fs::remove_file(incoming.join(format!("{}.txt", AT_ONCE + 1))).unwrap();
        let found = look(&mut folder, &[], SETTLE, 4000);
        assert_eq!(names(&found).first(), Some(&format!("{}.txt", AT_ONCE - 1)), "what was put off has to settle");
        assert_eq!(names(&found).last().map(String::as_str), Some("1.txt"), "it settled while it waited");
    }

    #[test]
    fn a_file_that_was_renamed_into_place_and_is_gone_says_nothing_of_the_next_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), &tenants(&["contoso"]));
        folder.create().unwrap();
        let path = dir.path().join("incoming/list.txt");
        let mut moved = Moved::from_iter([path.clone()]);
        folder.look(&mut moved, SETTLE, Boot(0), |_| false);
        fs::write(&path, "half of it").unwrap();
        assert!(names(&folder.look(&mut moved, SETTLE, Boot(1), |_| false)).is_empty());
    }

    #[test]
    fn what_is_left_in_the_folder_of_the_only_tenant_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        Folder::new(dir.path(), &tenants(&["a", "b"])).create().unwrap();
        for name in ["a/left.txt", "b/left.txt", "new.txt"] {
            fs::write(dir.path().join("incoming").join(name), "x").unwrap();
        }
        let mut folder = Folder::new(dir.path(), &tenants(&["a"]));
        look(&mut folder, &[], Duration::ZERO, 0);
        let found = look(&mut folder, &[], Duration::ZERO, 1);
        assert_eq!(names(&found), ["new.txt", "a/left.txt"]);
        let left = found.ready.last().unwrap();
        assert_eq!(folder.place(Place::Processed, left.folder.as_ref()), dir.path().join("processed"));
        assert!(folder.incoming().contains(&dir.path().join("incoming/a")));
    }

    #[test]
    fn a_repeated_name_gets_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &tenants(&["a"]));
        folder.create().unwrap();
        let free = |name: &str| folder.free_name(Place::Processed, None, OsStr::new(name), |_| false);
        assert_eq!(free("list.txt"), "list.txt");
        fs::write(dir.path().join("processed/list.txt"), "").unwrap();
        assert_eq!(free("list.txt"), "list.1.txt");
        fs::write(dir.path().join("processed/list.1.txt.receipt.json"), "").unwrap();
        assert_eq!(free("list.txt"), "list.2.txt");
        fs::write(dir.path().join("processed/plain"), "").unwrap();
        assert_eq!(free("plain"), "plain.1");
        let long = format!("{}.csv", "x".repeat(251));
        assert!(free(&long).len() <= 200 && free(&long).to_string_lossy().ends_with(".csv"));
        // Each of these becomes a character of three bytes.
        let noise = OsString::from_vec([vec![0xff; 200], b".csv".to_vec()].concat());
        let kept = folder.free_name(Place::Processed, None, &noise, |_| false).into_string().unwrap();
        assert!(kept.len() <= 200 && kept.ends_with("\u{fffd}.csv"), "{kept}");
    }

    #[test]
    fn a_name_that_is_no_text_is_found_by_what_is_recorded_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &tenants(&["a"]));
        folder.create().unwrap();
        let path = dir.path().join("incoming").join(OsString::from_vec(b"caf\xe9.txt".to_vec()));
        fs::write(&path, "x").unwrap();
        assert_eq!(folder.incoming_file("caf\u{fffd}.txt"), path);
        let gone = dir.path().join("incoming/th\u{fffd}.txt");
        assert_eq!(folder.incoming_file("th\u{fffd}.txt"), gone);
    }
}
