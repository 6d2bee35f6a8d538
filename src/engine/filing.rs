//! The putting away of a file that was dealt with, and the receipt that comes to lie beside it.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::opening::open_plainly;
use super::steps::{Step, passed};
use crate::domain::id::TenantName;
use crate::domain::time::Wall;
use crate::intake::folder::{Ready, receipt_name};
use crate::intake::receipt::{Aside, Receipt, Refusals, Status, write_aside};
use crate::store::sweeps::Counts;

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
        lines: 0,
        queued: 0,
        joined: 0,
        duplicates: 0,
        not_eligible: 0,
        refused: 0,
        refusals: Vec::new(),
        refusals_not_listed: 0,
        status,
        reason: None,
    }
}

/// Says in a receipt what became of the lines.
pub fn count(receipt: &mut Receipt, counts: Counts, refusals: Refusals) {
    receipt.lines = counts.lines;
    receipt.queued = counts.queued;
    receipt.joined = counts.joined;
    receipt.duplicates = counts.duplicates;
    receipt.not_eligible = counts.not_eligible;
    receipt.refused = counts.refused;
    (receipt.refusals, receipt.refusals_not_listed) = refusals.into_listed();
}

/// Puts a file away, and its receipt beside it. Each step may have been done before a kill: none does
/// harm a second time. The receipt is on disk, under a name that nobody looks for, before the file
/// moves: with no room for it the file stays where it is.
pub fn move_and_receipt(from: Option<&Path>, target: &Path, receipt: &[u8]) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = receipt_name(target.file_name().unwrap_or_default());
    let written = write_aside(&folder.join(name), |out| {
        out.write_all(receipt)?;
        out.write_all(b"\n")
    })?;
    passed(Step::ReceiptAside);
    match from.map(|from| put(from, target)) {
        None | Some(Ok(())) => {}
        // Moved before a kill; or taken back by somebody after it was read: its receipt stands.
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Some(Err(error)) => {
            if error.kind() == io::ErrorKind::AlreadyExists {
                // What lies there must not get this receipt at the next start.
                written.withdraw()?;
            }
            return Err(error);
        }
    }
    passed(Step::Moved);
    written.reveal()?;
    passed(Step::Receipted);
    Ok(())
}

/// Moves a file, to another file system as well.
fn put(from: &Path, target: &Path) -> io::Result<()> {
    match rename_to_free(from, target) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => carry(from, target),
        renamed => renamed,
    }
}

/// Moves a file out of another file system, such as a share that is mounted at `incoming/`: the copy is on disk before the
/// file goes away. One that may be read and not removed stays where it is.
fn carry(from: &Path, target: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    is_free(target)?;
    let mut source = open_plainly(from)?;
    let before = source.metadata()?;
    let copy = write_aside(target, |out| io::copy(&mut source, out).map(drop))?;
    let now = std::fs::symlink_metadata(from)?;
    let state = |of: &std::fs::Metadata| (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec());
    if state(&before) != state(&now) {
        return Err(io::Error::other("it changed while it was being put away"));
    }
    // In this order a kill leaves it in one of both places, and never in both under its name.
    std::fs::remove_file(from)?;
    copy.reveal()
}

/// Renames, and never over what lies there by now: that would be lost. Where a file system cannot promise as much, it
/// is looked at just before.
fn rename_to_free(from: &Path, target: &Path) -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    {
        use nix::errno::Errno;
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        match renameat2(AT_FDCWD, from, AT_FDCWD, target, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            renamed => return renamed.map_err(io::Error::from),
        }
    }
    is_free(target)?;
    std::fs::rename(from, target)
}

fn is_free(target: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(target).is_ok() { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
}

/// What a kill left between the moving of a file and its receipt: the receipt gets its name. One whose file was not
/// moved goes away: it is written anew when the file is. Returns how many got their names.
pub fn finish_receipts(folder: &Path) -> io::Result<usize> {
    let mut finished = 0;
    for entry in std::fs::read_dir(folder)? {
        let hidden = entry?.file_name();
        let Some(name) = hidden.as_bytes().strip_prefix(b".").and_then(|name| name.strip_suffix(b".receipt.json.tmp"))
        else {
            continue;
        };
        let name = std::ffi::OsString::from_vec(name.to_vec());
        let receipt = folder.join(receipt_name(&name));
        if folder.join(&name).exists() && !receipt.exists() {
            Aside::left(folder.join(&hidden), receipt).reveal()?;
            finished += 1;
        } else {
            std::fs::remove_file(folder.join(&hidden))?;
        }
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_for_its_receipt_a_file_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, target) = (dir.path().join("list.txt"), dir.path().join("processed/list.txt"));
        std::fs::write(&from, "one").unwrap();
        // In the way of the receipt, as a full disk would be.
        let in_the_way = dir.path().join("processed/.list.txt.receipt.json.tmp");
        std::fs::create_dir_all(&in_the_way).unwrap();
        assert!(move_and_receipt(Some(&from), &target, b"{}").is_err());
        assert!(from.exists() && !target.exists());
        std::fs::remove_dir(in_the_way).unwrap();
        move_and_receipt(Some(&from), &target, b"{}").unwrap();
        assert!(!from.exists() && target.exists());
        let receipt = dir.path().join("processed/list.txt.receipt.json");
        assert_eq!(std::fs::read(&receipt).unwrap(), b"{}\n");
        // A second time, after a kill: the same.
        move_and_receipt(Some(&from), &target, b"{}").unwrap();
        assert!(target.exists() && receipt.exists());
    }

    #[test]
    fn a_file_is_put_away_to_another_file_system() {
        use std::os::unix::fs::MetadataExt;
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let device = |dir: &tempfile::TempDir| std::fs::metadata(dir.path()).unwrap().dev();
        if device(&here) == device(&there) {
            eprintln!("skipped: there is one file system only");
            return;
        }
        let (from, target) = (there.path().join("list.txt"), here.path().join("processed/list.txt"));
        std::fs::write(&from, "one").unwrap();
        move_and_receipt(Some(&from), &target, b"{}").unwrap();
        assert!(!from.exists());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "one");
        let mut names: Vec<_> =
            std::fs::read_dir(here.path().join("processed")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["list.txt", "list.txt.receipt.json"]);
    }

    #[test]
    fn no_file_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let (from, target) = (dir.path().join("new.txt"), dir.path().join("processed/list.txt"));
        std::fs::create_dir(dir.path().join("processed")).unwrap();
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&target, "put there by hand").unwrap();
        let error = move_and_receipt(Some(&from), &target, b"{}").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&from).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "put there by hand");
        assert_eq!(finish_receipts(&dir.path().join("processed")).unwrap(), 0, "nor has it the other's receipt");
        assert!(!dir.path().join("processed/list.txt.receipt.json").exists());
    }

    #[test]
    fn receipts_get_their_names_where_their_files_were_moved() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(dir.path().join(name), name).unwrap();
        for name in ["moved.txt", ".moved.txt.receipt.json.tmp", ".waits.txt.receipt.json.tmp", ".else.tmp"]
            .into_iter()
            .chain(["done.txt", "done.txt.receipt.json", ".done.txt.receipt.json.tmp"])
        {
            write(name);
        }
        assert_eq!(finish_receipts(dir.path()).unwrap(), 1);
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".else.tmp", "done.txt", "done.txt.receipt.json", "moved.txt", "moved.txt.receipt.json"]);
        let kept = std::fs::read_to_string(dir.path().join("done.txt.receipt.json")).unwrap();
        assert_eq!(kept, "done.txt.receipt.json", "what has its name keeps it");
        assert_eq!(finish_receipts(dir.path()).unwrap(), 0);
    }
}
