//! Databases of other versions: brought up, with a way back, or left as they are.

#![allow(clippy::disallowed_methods, reason = "a test may change files of its own by path")]

use std::fs;
use std::path::PathBuf;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::super::FILE;
use super::super::schema::MIGRATIONS;
use super::*;

/// The schema of a later version: this one's, and another step.
pub(super) fn later(step: &'static str) -> Migrator {
    let next = MIGRATIONS.iter().map(|step| step.version).max().unwrap() + 1;
    let mut steps: Vec<_> = MIGRATIONS.iter().cloned().collect();
    steps.push(Migration::new(next, "later".into(), MigrationType::Simple, step.into_sql_str(), false));
    Migrator::with_migrations(steps)
}

pub(super) const STEP: &str = "ALTER TABLE tenants ADD COLUMN colour TEXT";

/// How a refusal names the schema of a later version.
fn later_schema() -> String {
    format!("schema {}", MIGRATIONS.iter().map(|step| step.version).max().unwrap() + 1)
}

/// What a migration kept in the bench's folder.
fn kept(bench: &Bench) -> Vec<PathBuf> {
    let names = fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut kept: Vec<_> = names.filter(|path| path.to_str().unwrap().contains(".schema")).collect();
    kept.sort();
    kept
}

fn refusal(opened: Result<Store, StoreError>) -> String {
    match opened {
        Err(StoreError::Version(why)) => why,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn an_older_database_is_copied_then_migrated_and_that_is_on_record() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let head = bench.store.record_head().await.unwrap();
    bench.store.close().await;
    let store = Store::open_with(bench.folder.path(), &later(STEP), at(60)).await.unwrap();
    let colours: i64 = sqlx::query_scalar("SELECT count(colour) FROM tenants")
        .fetch_one(&mut *store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(colours, 0, "it has the new column");
    let jobs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM jobs").fetch_one(&mut *store.reader().await.unwrap()).await.unwrap();
    assert_eq!(jobs, 2, "and every job");
    assert_eq!(store.record_head().await.unwrap().seq, head.seq + 1, "it is on record");
    assert!(store.verify_record().await.unwrap().is_ok());
    store.close().await;

    let kept = kept(&bench);
    assert_eq!(kept.len(), 1, "one copy, and nothing half done: {kept:?}");
    let copy = Store::open_copy(&kept[0], &kept[0], &MIGRATIONS).await.unwrap().unwrap();
    assert_eq!(copy.record_head().await.unwrap(), head, "the copy is what was there");
    copy.close().await;
    // Once is enough.
    Store::open_with(bench.folder.path(), &later(STEP), at(120)).await.unwrap().close().await;
    assert_eq!(self::kept(&bench), kept);
}

#[tokio::test]
async fn a_newer_database_is_refused_with_the_way_back_and_stays_as_it_is() {
    let bench = Bench::with_machines(&[1]).await;
    bench.store.close().await;
    Store::open_with(bench.folder.path(), &later(STEP), at(60)).await.unwrap().close().await;
    let before = fs::read(bench.folder.path().join(FILE)).unwrap();
    let kept = kept(&bench);
    let why = refusal(Store::open(bench.folder.path(), at(120)).await);
    assert!(why.contains(&later_schema()) && why.contains("newer"), "{why}");
    assert!(why.contains(kept[0].to_str().unwrap()), "it names the copy that fits: {why}");
    let why = refusal(Store::open_existing(bench.folder.path()).await.map(Option::unwrap));
    assert!(why.contains(&later_schema()), "commands refuse it too: {why}");
    assert_eq!(fs::read(bench.folder.path().join(FILE)).unwrap(), before);
    assert_eq!(self::kept(&bench), kept);
}

#[tokio::test]
async fn a_copy_of_an_older_database_is_migrated_and_of_a_newer_one_refused() {
    let bench = Bench::with_machines(&[1]).await;
    bench.store.close().await;
    let copy = bench.folder.path().join("copy.db");
    fs::copy(bench.folder.path().join(FILE), &copy).unwrap();
    let store = Store::open_copy(&copy, &copy, &later(STEP)).await.unwrap().unwrap();
    assert!(store.verify_record().await.unwrap().is_ok());
    store.close().await;
    let why = refusal(Store::open_copy(&copy, &copy, &MIGRATIONS).await.map(Option::unwrap));
    assert!(why.contains(&later_schema()), "{why}");
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing_and_leaves_the_copy() {
    let bench = Bench::with_machines(&[1]).await;
    bench.store.close().await;
    let broken = later("ALTER TABLE tenants ADD COLUMN colour TEXT; SELECT nonsense FROM nowhere");
    let failed = Store::open_with(bench.folder.path(), &broken, at(60)).await;
    assert!(matches!(failed, Err(StoreError::Database { doing: "migrate the database", .. })), "{failed:?}");
    assert_eq!(kept(&bench).len(), 1);
    // The version before goes on with it as if nothing had happened.
    let store = Store::open(bench.folder.path(), at(120)).await.unwrap();
    assert!(store.verify_record().await.unwrap().is_ok());
    store.close().await;
}

#[tokio::test]
async fn no_copy_no_migration() {
    let bench = Bench::with_machines(&[1]).await;
    bench.store.close().await;
    // Nobody can write a file where a folder is.
    let folder = bench.folder.path().join(format!("{FILE}.schema.unfinished"));
    fs::create_dir(&folder).unwrap();
    let failed = Store::open_with(bench.folder.path(), &later(STEP), at(60)).await;
    assert!(matches!(&failed, Err(StoreError::File { path, .. }) if *path == folder), "{failed:?}");
    Store::open(bench.folder.path(), at(120)).await.unwrap().close().await;
}

#[tokio::test]
async fn a_database_with_steps_of_nobody_is_refused() {
    let bench = Bench::new().await;
    bench.store.close().await;
    let mut steps: Vec<_> = MIGRATIONS.iter().cloned().collect();
    steps[0] = Migration::new(1, "another first".into(), MigrationType::Simple, "SELECT 1".into_sql_str(), false);
    let why = refusal(Store::open_with(bench.folder.path(), &Migrator::with_migrations(steps), at(60)).await);
    assert!(why.contains("never released"), "{why}");
}
