//! Files that another program has left open to others.

#![allow(clippy::disallowed_methods, reason = "a test may change files of its own by path")]

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use std::path::Path;

use super::*;
use crate::store::{FILE, HEAD_FILE};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn open_to_others(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

#[tokio::test]
async fn database_that_was_open_to_others_is_closed_with_what_is_beside() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = Store::open(folder.path(), Wall(0)).await.unwrap();
    store.close().await;
    let copies = ["sweepd.db.schema-1", HEAD_FILE, "sweepd.lock", "sweepd.db-wal", "sweepd.db-shm"];
    for name in copies {
        std::fs::write(at(name), "").unwrap();
    }
    std::fs::write(at("notes"), "marker").unwrap();
    std::fs::create_dir(at("sweepd.db.folder")).unwrap();
    for name in copies.iter().chain(&[FILE, "notes", "sweepd.db.folder"]) {
        open_to_others(&at(name));
    }
    let store = Store::open(folder.path(), Wall(0)).await.unwrap();
    for name in copies.iter().chain(&[FILE]) {
        assert_eq!(mode(&at(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&at("notes")), 0o644, "what is not the store's stays");
    store.close().await;

    // A database that is a link to another disk.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(at(FILE), elsewhere.path().join("moved.db")).unwrap();
    symlink(elsewhere.path().join("moved.db"), at(FILE)).unwrap();
    open_to_others(&elsewhere.path().join("moved.db"));
    std::fs::write(elsewhere.path().join("other"), "marker").unwrap();
    open_to_others(&elsewhere.path().join("other"));
    symlink(elsewhere.path().join("other"), at("sweepd.db.link")).unwrap();
    let store = Store::open(folder.path(), Wall(0)).await.unwrap();
    assert_eq!(mode(&elsewhere.path().join("moved.db")), 0o600);
    assert_eq!(mode(&elsewhere.path().join("other")), 0o644, "no other link is followed");
    store.close().await;
}

#[test]
fn database_of_another_user_that_is_open_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join(FILE);
    std::fs::write(&database, "marker").unwrap();
    open_to_others(&database);
    chown(folder.path(), Some(54_321), Some(54_321)).unwrap();
    // Only root may change a file of root's: a thread gives that right up for itself.
    let refused = std::thread::scope(|scope| {
        let close = || {
            nix::unistd::setfsuid(54_321.into());
            crate::store::privacy::close_to_others(folder.path())
        };
        scope.spawn(close).join().unwrap()
    });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("is open to other users (mode 0644) and belongs to the user 0, so"), "{refused}");
    assert!(refused.contains(&format!("run chown --reference={} ", folder.path().to_str().unwrap())), "{refused}");
    assert_eq!(mode(&database), 0o644);
}
