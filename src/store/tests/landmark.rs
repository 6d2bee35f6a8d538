//! A database that is not the one that ran in its folder last.

#![allow(clippy::disallowed_methods, reason = "a test may change files of its own by path")]

use std::fs;
use std::path::Path;

use super::*;
use crate::store::landmark::FILE as NOTE;

const LAG: Duration = Duration::from_mins(10);

/// Opens the database of a folder as the daemon does; returns whether its history is lost.
async fn opened(folder: &Path, seconds: i64) -> (Store, bool) {
    let store = Store::open(folder, at(seconds)).await.unwrap();
    let tenants = ["contoso".parse().unwrap()];
    let lost = store.keep_landmark(folder, tenants.iter(), &operator(), at(seconds), LAG).await.unwrap();
    (store, lost)
}

async fn paused_until(store: &Store) -> Option<Wall> {
    let tenant = store.tenant(&"contoso".parse().unwrap()).await.unwrap();
    store.pause_of(tenant).await.unwrap().and_then(|pause| pause.until)
}

/// Something that is on record.
async fn resume(store: &Store, seconds: i64) {
    let name = "contoso".parse().unwrap();
    store.set_paused(&name, Sending::Resumed, operator(), at(seconds)).await.map(drop).unwrap();
}

#[tokio::test]
async fn an_older_copy_another_database_and_a_new_one_are_told_from_the_one_that_ran_here() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (store, lost) = opened(here, 0).await;
    assert!(!lost, "the first has no history");
    resume(&store, 1).await;
    store.back_up(&here.join("older"), operator(), at(2)).await.map(drop).unwrap();
    resume(&store, 3).await;
    store.close().await;

    let (store, lost) = opened(here, 4).await;
    assert!(!lost && paused_until(&store).await.is_none());
    store.close().await;
    // A command writes without noting it.
    let command = Store::open_existing(here).await.unwrap().unwrap();
    resume(&command, 5).await;
    command.close().await;
    let (store, lost) = opened(here, 6).await;
    assert!(!lost);
    store.close().await;

    fs::copy(here.join("older"), here.join(crate::store::FILE)).map(drop).unwrap();
    // More is on record in the meantime than was before: numbers alone would not tell.
    let command = Store::open_existing(here).await.unwrap().unwrap();
    for seconds in 7..20 {
        resume(&command, seconds).await;
    }
    command.close().await;
    let (store, lost) = opened(here, 20).await;
    assert!(lost);
    assert_eq!(paused_until(&store).await, Some(at(20) + LAG));
    store.close().await;
    let (store, lost) = opened(here, 21).await;
    assert!(!lost, "it is what ran here last now");
    store.close().await;

    fs::remove_file(here.join(crate::store::FILE)).unwrap();
    let (store, lost) = opened(here, 22).await;
    assert!(lost, "a new one where another was");
    assert_eq!(paused_until(&store).await, Some(at(22) + LAG));
    store.close().await;
}

#[tokio::test]
async fn a_note_that_says_nothing_is_none_and_a_restore_takes_it_away() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (store, _) = opened(here, 0).await;
    resume(&store, 1).await;
    store.back_up(&here.join("older"), operator(), at(2)).await.map(drop).unwrap();
    store.close().await;
    for nothing in ["", "00000000000000000001 short\n", &"x".repeat(86), &format!("{:020} {}\n", 0, "0".repeat(64))] {
        fs::write(here.join(NOTE), nothing).unwrap();
        let (store, lost) = opened(here, 3).await;
        assert!(!lost, "{nothing}");
        resume(&store, 4).await;
        store.close().await;
        assert_ne!(fs::read_to_string(here.join(NOTE)).unwrap(), nothing, "it is written again");
    }
    let path = here.join("older");
    let copy = crate::store::backups::Copy { file: std::fs::File::open(&path).unwrap(), path, log: None };
    let (restoring, _) = crate::store::backups::Restoring::check(copy, here).await.unwrap();
    restoring.finish(operator(), at(5)).await.map(drop).unwrap();
    let (store, lost) = opened(here, 6).await;
    assert!(!lost, "whoever restored knows");
    assert!(paused_until(&store).await.is_some_and(|until| until > at(6) + LAG), "and has paused it for longer");
    store.close().await;
}
