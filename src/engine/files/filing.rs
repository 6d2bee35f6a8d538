//! The putting away of a file that was dealt with, and the receipt that comes to lie beside it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::opening::Original;
use crate::domain::id::TenantName;
use crate::domain::time::Wall;
use crate::engine::steps::{Step, passed};
use crate::intake::dir::Dir;
use crate::intake::folder::{Dropped, Ready, numbered, receipt_name, shortened};
use crate::intake::receipt::{Aside, Findings, Receipt, Status, write_aside, write_whole};
use crate::store::sweeps::Counts;
use crate::store::unasked::Asked;

/// A receipt, but for what became of the lines.
pub fn blank(ready: &Ready, sha256: &str, tenant: Option<&TenantName>, at: Wall, status: Status) -> Receipt {
    Receipt {
        file: ready.name.to_string_lossy().into_owned(),
        sha256: sha256.to_owned(),
        sweep_id: None,
        tenant: tenant.map(ToString::to_string),
        received_at: at.rfc3339(),
        observed: None,
        claimed: None,
        physical_lines: None,
        lines: 0,
        queued: 0,
        joined: 0,
        duplicates: 0,
        not_eligible: 0,
        refused: 0,
        quick: 0,
        full: 0,
        waiting: 0,
        earliest_not_before: None,
        latest_not_before: None,
        refusals: Vec::new(),
        refusals_not_listed: 0,
        status,
        reason: None,
        warnings: Vec::new(),
    }
}

/// Says in a receipt what became of the lines.
pub fn count(receipt: &mut Receipt, counts: Counts, findings: Findings) {
    receipt.physical_lines = findings.physical_lines;
    receipt.lines = counts.lines;
    receipt.queued = counts.queued;
    receipt.joined = counts.joined;
    receipt.duplicates = counts.duplicates;
    receipt.not_eligible = counts.not_eligible;
    receipt.refused = counts.refused;
    receipt.warnings = findings.warnings;
    (receipt.refusals, receipt.refusals_not_listed) = findings.refusals.into_listed();
}

/// Says in a receipt how the machines will be scanned, and how many of them wait.
pub fn tell_scans(receipt: &mut Receipt, asked: &Asked) {
    (receipt.quick, receipt.full) = (asked.alone.quick, asked.alone.full);
    receipt.waiting = asked.waiting.machines;
    receipt.earliest_not_before = asked.waiting.earliest.map(Wall::rfc3339);
    receipt.latest_not_before = asked.waiting.latest.map(Wall::rfc3339);
}

/// What gets the name that a file is put away under.
#[derive(Debug)]
pub enum Content {
    /// Our own copy, which lies here; the file goes away.
    Copy(PathBuf),
    /// The file itself: it is too long to be copied.
    Original,
    /// Nothing: the copy has it already, or the file was taken back before there was one.
    Nothing,
}

/// Puts a file away, and its receipt beside it. Each step may have been done before a kill: none does harm a second
/// time, and `finish_folder` ends what was begun. The receipt is on disk, under a name that nobody looks for, before
/// the file goes away: with no room for it the file stays where it is.
pub fn put_away(original: Option<&Original>, content: Content, target: &Path, receipt: &[u8]) -> io::Result<()> {
    let folder = folder_of(target);
    std::fs::create_dir_all(folder)?;
    let name = target.file_name().unwrap_or_default();
    let written = write_aside(&folder.join(receipt_name(name)), |out| {
        out.write_all(receipt)?;
        out.write_all(b"\n")
    })?;
    passed(Step::ReceiptAside);
    let filed = match content {
        Content::Copy(copy) => file_copy(original, &copy, target),
        Content::Original => original.map_or(Ok(()), |original| original.move_to(target)),
        Content::Nothing => original.map_or(Ok(()), |original| original.remove(folder)),
    };
    if let Err(error) = filed {
        // Whatever lies there must not get this receipt at the next start.
        if let Err(left) = written.withdraw() {
            tracing::debug!(error = %left, "a hidden receipt stays behind");
        }
        return Err(error);
    }
    passed(Step::Moved);
    written.reveal()?;
    passed(Step::Receipted);
    Ok(())
}

fn folder_of(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new("."))
}

/// Our copy gets the file's name; before that it is on disk under one that tells of a receipt to come, and the file is
/// removed.
fn file_copy(original: Option<&Original>, copy: &Path, target: &Path) -> io::Result<()> {
    is_free(target)?;
    let folder = folder_of(target);
    let hidden = folder.join(copy_name(target.file_name().unwrap_or_default()));
    match std::fs::rename(copy, &hidden) {
        // Processed and rejected files may lie on two file systems.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut from = std::fs::File::open(copy)?;
            write_whole(&hidden, |out| io::copy(&mut from, out).map(drop))?;
        }
        renamed => renamed?,
    }
    let folder_dir = Dir::trusted(folder)?;
    folder_dir.sync()?;
    passed(Step::CopyAside);
    if let Err(error) = original.map_or(Ok(()), |original| original.remove(folder)) {
        if let Err(left) = std::fs::remove_file(&hidden) {
            tracing::debug!(error = %left, "a hidden copy stays behind");
        }
        return Err(error);
    }
    passed(Step::Removed);
    reveal_copy(&folder_dir, target.file_name().unwrap_or_default())
}

fn reveal_copy(folder: &Dir, name: &OsStr) -> io::Result<()> {
    folder.rename(&copy_name(name), folder, name)
}

/// What a copy is called while the file that it is of may still lie where it was dropped.
fn copy_name(name: &OsStr) -> OsString {
    [OsStr::new("."), name, OsStr::new(".copy.tmp")].into_iter().collect()
}

/// What a file is called between its folder and its end: which one it is meant to be is in the name.
const REMOVED: &str = ".removed-";

/// So many numbers are tried for a file that goes back.
const BACK_AT_MOST: u64 = 1000;

fn is_free(target: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(target).is_ok() { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
}

impl Original {
    /// Removes the file, if it still is the one that was read. Another one that has taken its name is still to be taken:
    /// it stays, also if it comes at this very moment. `folder` is where the file passes through, on its way.
    fn remove(&self, folder: &Path) -> io::Result<()> {
        let Dropped { dir, name } = &self.dropped;
        match dir.look(name) {
            // Somebody took it back after it was read, or it was removed before a kill.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(now) if !self.found.is_unchanged(&now) => return Ok(()),
            Ok(_) => {}
        }
        let through = Dir::trusted(folder)?;
        let inode = self.found.identity.inode();
        let hidden = OsString::from(format!("{REMOVED}{inode:x}-{}.tmp", shortened(&name.to_string_lossy())));
        match dir.rename(name, &through, &hidden) {
            // Its folder is a share that is mounted there: its name is all that there is.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return dir.remove(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        // Also one that somebody has written to since it was compared.
        if self.found.is_unchanged(&through.look(&hidden)?) {
            return through.remove(&hidden);
        }
        give_back(&through, &hidden, dir, name)
    }

    /// Moves the file itself, if it still is the one that was looked at.
    fn move_to(&self, target: &Path) -> io::Result<()> {
        let Dropped { dir, name } = &self.dropped;
        let (to, new) = (Dir::trusted(folder_of(target))?, target.file_name().unwrap_or_default());
        dir.rename(name, &to, new)?;
        if to.look(new)?.identity == self.found.identity {
            return Ok(());
        }
        give_back(&to, new, dir, name)?;
        Err(io::Error::other("another file has taken its place while it was put away"))
    }
}

/// A file goes back to where it was dropped: under its name, or with a number where that is another's by now.
fn give_back(from: &Dir, hidden: &OsStr, incoming: &Dir, name: &OsStr) -> io::Result<()> {
    let short = OsString::from(shortened(&name.to_string_lossy()));
    let names = std::iter::once(name.to_owned()).chain((1..=BACK_AT_MOST).map(|n| numbered(&short, n)));
    for name in names {
        match from.rename(hidden, incoming, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// What a kill left half done in a folder that files are put away to. A copy whose file is still to be taken goes away
/// with its receipt: both are made anew then. Any other gets its name, and its receipt too. `waits` tells whether a file
/// of this name and SHA-256 lies in the drop folder; `incoming` is where a file goes back to that was removed by
/// mistake. Returns how many receipts got their names.
pub fn finish_folder(folder: &Path, incoming: Option<&Dir>, waits: &dyn Fn(&str, &str) -> bool) -> io::Result<usize> {
    let dir = Dir::trusted(folder)?;
    let mut finished = 0;
    let names = dir.names()?;
    for hidden in &names {
        let Some(name) = between(hidden, b".", b".receipt.json.tmp") else { continue };
        let receipt = receipt_name(&name);
        if dir.look(&copy_name(&name)).is_ok() && dir.look(&name).is_err() {
            let written: Option<Receipt> = read_receipt(&folder.join(hidden));
            if written.is_some_and(|written| !waits(&written.file, &written.sha256)) {
                reveal_copy(&dir, &name)?;
            }
        }
        if dir.look(&name).is_ok() && dir.look(&receipt).is_err() {
            Aside::left(folder.join(hidden), folder.join(receipt)).reveal()?;
            finished += 1;
        } else {
            dir.remove(hidden)?;
        }
    }
    let mut failed = None;
    // What got its name above is there no more: a dropper may call a list as a removed file is called.
    for hidden in names.iter().filter(|hidden| dir.look(hidden).is_ok()) {
        let ended = if between(hidden, b".", b".copy.tmp").is_some() {
            dir.remove(hidden)
        } else if let Some(rest) = between(hidden, REMOVED.as_bytes(), b".tmp") {
            undo_or_end(&dir, hidden, &rest, incoming)
        } else {
            Ok(())
        };
        // One that cannot be ended keeps none of the others.
        failed = failed.or(ended.err());
    }
    failed.map_or(Ok(finished), Err)
}

/// Ends the removal of a file that a kill came into; one that only had its name goes back.
fn undo_or_end(dir: &Dir, hidden: &OsStr, rest: &OsStr, incoming: Option<&Dir>) -> io::Result<()> {
    let Some((inode, name)) = rest.to_str().and_then(|rest| rest.split_once('-')) else { return Ok(()) };
    let is_meant = u64::from_str_radix(inode, 16) == Ok(dir.look(hidden)?.identity.inode());
    match incoming {
        _ if is_meant => dir.remove(hidden),
        Some(incoming) => give_back(dir, hidden, incoming, OsStr::new(name)),
        None => Ok(()),
    }
}

/// What is between a name's beginning and its end.
fn between(name: &OsStr, begins: &[u8], ends: &[u8]) -> Option<OsString> {
    let name = name.as_bytes().strip_prefix(begins)?.strip_suffix(ends)?;
    Some(OsString::from_vec(name.to_vec()))
}

fn read_receipt(path: &Path) -> Option<Receipt> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;

    /// A drop folder, and one that files are put away to.
    struct Scene {
        dir: tempfile::TempDir,
        incoming: Arc<Dir>,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("incoming")).unwrap();
            fs::create_dir(dir.path().join("processed")).unwrap();
            let incoming = Arc::new(Dir::trusted(&dir.path().join("incoming")).unwrap());
            Self { dir, incoming }
        }

        fn processed(&self) -> PathBuf {
            self.dir.path().join("processed")
        }

        /// A file that was dropped.
        fn original(&self, name: &str, content: &str) -> Original {
            fs::write(self.incoming.path().join(name), content).unwrap();
            let dropped = Dropped { dir: Arc::clone(&self.incoming), name: name.into() };
            Original { found: self.incoming.look(OsStr::new(name)).unwrap(), dropped }
        }

        /// Our copy of one.
        fn copy(&self, content: &str) -> Content {
            let path = self.processed().join(".taking-1.tmp");
            fs::write(&path, content).unwrap();
            Content::Copy(path)
        }

        fn put_away(&self, original: &Original, content: &str, name: &str) -> io::Result<()> {
            put_away(Some(original), self.copy(content), &self.processed().join(name), b"{}")
        }

        fn names(&self, folder: &str) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.dir.path().join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    const RECEIPT: &str = r#"{"file":"list.txt","sha256":"one","sweep_id":null,"tenant":null,"received_at":"","lines":0,
        "queued":0,"joined":0,"duplicates":0,"not_eligible":0,"refused":0,"refusals":[],"status":"rejected"}"#;

    #[test]
    fn a_file_without_room_for_its_receipt_stays() {
        let scene = Scene::new();
        let original = scene.original("list.txt", "one");
        // In the way of the receipt, as a full disk would be.
        let in_the_way = scene.processed().join(".list.txt.receipt.json.tmp");
        fs::create_dir(&in_the_way).unwrap();
        assert!(scene.put_away(&original, "one", "list.txt").is_err());
        assert_eq!(scene.names("incoming"), ["list.txt"]);
        fs::remove_dir(in_the_way).unwrap();
        scene.put_away(&original, "one", "list.txt").unwrap();
        assert!(scene.names("incoming").is_empty());
        assert_eq!(scene.names("processed"), ["list.txt", "list.txt.receipt.json"]);
        // A second time, after a kill: the same.
        put_away(Some(&original), Content::Nothing, &scene.processed().join("list.txt"), b"{}").unwrap();
        assert_eq!(scene.names("processed"), ["list.txt", "list.txt.receipt.json"]);
        assert_eq!(fs::read_to_string(scene.processed().join("list.txt")).unwrap(), "one");
    }

    #[test]
    fn every_error_withdraws_the_hidden_receipt() {
        let scene = Scene::new();
        let original = scene.original("list.txt", "one");
        // The copy cannot get its hidden name.
        fs::create_dir_all(scene.processed().join(".list.txt.copy.tmp/full")).unwrap();
        assert!(scene.put_away(&original, "one", "list.txt").is_err());
        assert_eq!(scene.names("incoming"), ["list.txt"]);
        assert!(!scene.processed().join(".list.txt.receipt.json.tmp").exists());
    }

    #[test]
    fn a_file_on_another_file_system_is_put_away() {
        use std::os::unix::fs::MetadataExt;
        let (scene, there) = (Scene::new(), tempfile::tempdir_in("/dev/shm").unwrap());
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(scene.dir.path()) == device(there.path()) {
            eprintln!("skipped: there is one file system only");
            return;
        }
        fs::write(there.path().join("list.txt"), "one").unwrap();
        let dropped = Dropped { dir: Arc::new(Dir::trusted(there.path()).unwrap()), name: "list.txt".into() };
        let original = Original { found: dropped.dir.look(&dropped.name).unwrap(), dropped };
        scene.put_away(&original, "one", "list.txt").unwrap();
        assert!(!there.path().join("list.txt").exists());
        assert_eq!(scene.names("processed"), ["list.txt", "list.txt.receipt.json"]);
    }

    #[test]
    fn no_file_takes_the_place_of_another() {
        let scene = Scene::new();
        let original = scene.original("new.txt", "new");
        let target = scene.processed().join("list.txt");
        fs::write(&target, "put there by hand").unwrap();
        let error = scene.put_away(&original, "new", "list.txt").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(scene.names("incoming"), ["new.txt"]);
        assert_eq!(fs::read_to_string(&target).unwrap(), "put there by hand");
        assert_eq!(
            finish_folder(&scene.processed(), None, &|_, _| false).unwrap(),
            0,
            "nor has it the other's receipt"
        );
        assert!(!scene.processed().join("list.txt.receipt.json").exists());
    }

    #[test]
    fn a_new_file_of_the_same_name_is_still_to_be_taken() {
        let scene = Scene::new();
        let original = scene.original("list.txt", "one");
        fs::remove_file(scene.incoming.path().join("list.txt")).unwrap();
        scene.original("list.txt", "two");
        scene.put_away(&original, "one", "list.txt").unwrap();
        assert_eq!(fs::read_to_string(scene.incoming.path().join("list.txt")).unwrap(), "two");
        assert_eq!(fs::read_to_string(scene.processed().join("list.txt")).unwrap(), "one");
        // One that is too long to be copied is moved, and only itself.
        let long = scene.original("long.txt", "long");
        fs::rename(scene.incoming.path().join("list.txt"), scene.incoming.path().join("long.txt")).unwrap();
        assert!(put_away(Some(&long), Content::Original, &scene.processed().join("long.txt"), b"{}").is_err());
        assert_eq!(fs::read_to_string(scene.incoming.path().join("long.txt")).unwrap(), "two");
        assert_eq!(scene.names("processed"), ["list.txt", "list.txt.receipt.json"]);
    }

    #[test]
    fn a_kill_between_two_names_is_undone_or_ended() {
        // Killed with the file still there: both are made anew. Killed when it was gone: both get their names.
        for (waits, expected) in [(true, vec![]), (false, vec!["list.txt", "list.txt.receipt.json"])] {
            let scene = Scene::new();
            fs::write(scene.processed().join(".list.txt.receipt.json.tmp"), RECEIPT).unwrap();
            fs::write(scene.processed().join(".list.txt.copy.tmp"), "one").unwrap();
            let asked = |file: &str, sha256: &str| {
                assert_eq!((file, sha256), ("list.txt", "one"));
                waits
            };
            let finished = finish_folder(&scene.processed(), Some(&scene.incoming), &asked).unwrap();
            assert_eq!(
                (finished, scene.names("processed")),
                (expected.len() / 2, expected.iter().map(|name| (*name).to_owned()).collect())
            );
        }
        // Killed while a file was being removed: the right one ends, another one goes back.
        let scene = Scene::new();
        for (name, meant) in [("right.txt", true), ("other.txt", false)] {
            let inode = scene.original(name, name).found.identity.inode() + u64::from(!meant);
            let hidden = scene.processed().join(format!(".removed-{inode:x}-{name}.tmp"));
            fs::rename(scene.incoming.path().join(name), hidden).unwrap();
        }
        finish_folder(&scene.processed(), Some(&scene.incoming), &|_, _| false).unwrap();
        assert_eq!((scene.names("processed"), scene.names("incoming")), (vec![], vec!["other.txt".to_owned()]));
    }

    #[test]
    fn a_start_ends_what_it_can_whatever_droppers_call_their_files() {
        let scene = Scene::new();
        // Called as a removed file is, and as a copy.
        for name in ["removed-5-list.txt", "list.copy.tmp.txt"] {
            fs::write(scene.processed().join(format!(".{name}.receipt.json.tmp")), RECEIPT).unwrap();
            fs::write(scene.processed().join(format!(".{name}.copy.tmp")), "one").unwrap();
        }
        // Removed by mistake, and another has its name by now.
        scene.original("weekly.txt", "newer");
        fs::write(scene.processed().join(".removed-0-weekly.txt.tmp"), "newest").unwrap();
        assert_eq!(finish_folder(&scene.processed(), Some(&scene.incoming), &|_, _| false).unwrap(), 2);
        assert_eq!(
            scene.names("processed"),
            [
                "list.copy.tmp.txt",
                "list.copy.tmp.txt.receipt.json",
                "removed-5-list.txt",
                "removed-5-list.txt.receipt.json"
            ]
        );
        assert_eq!(scene.names("incoming"), ["weekly.1.txt", "weekly.txt"]);
        assert_eq!(fs::read_to_string(scene.incoming.path().join("weekly.1.txt")).unwrap(), "newest");
    }

    #[test]
    fn receipts_get_their_names_where_their_files_have_theirs() {
        let scene = Scene::new();
        let write = |name: &str| fs::write(scene.processed().join(name), name).unwrap();
        for name in ["moved.txt", ".moved.txt.receipt.json.tmp", ".waits.txt.receipt.json.tmp", ".else.tmp"]
            .into_iter()
            .chain(["done.txt", "done.txt.receipt.json", ".done.txt.receipt.json.tmp"])
        {
            write(name);
        }
        let finish = || finish_folder(&scene.processed(), None, &|_, _| false).unwrap();
        assert_eq!(finish(), 1);
        assert_eq!(
            scene.names("processed"),
            [".else.tmp", "done.txt", "done.txt.receipt.json", "moved.txt", "moved.txt.receipt.json"]
        );
        let kept = fs::read_to_string(scene.processed().join("done.txt.receipt.json")).unwrap();
        assert_eq!(kept, "done.txt.receipt.json", "what has its name keeps it");
        assert_eq!(finish(), 0);
    }
}
