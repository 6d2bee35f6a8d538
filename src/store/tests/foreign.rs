//! Files in the database's place that are not sweepd's, or not as sweepd made them: refused, and left as they are.

use std::fs;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, Row};

use super::super::schema::MIGRATIONS;
use super::super::{FILE, View};
use super::*;
use crate::store::backups::{Copy, Restoring};

/// Somebody who edits the file, by whatever means.
async fn edited(path: &Path, statements: &str) {
    let file = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = file.journal_mode(SqliteJournalMode::Delete).connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The bytes of a database that nobody has open, with an event.
async fn of_sweepd() -> Vec<u8> {
    let bench = Bench::with_machines(&[1]).await;
    let path = bench.folder.path().join("copy.db");
    bench.store.back_up(&path, operator(), at(1)).await.map(drop).unwrap();
    bench.store.close().await;
    fs::read(path).unwrap()
}

fn refusal<T: std::fmt::Debug>(opened: Result<T, StoreError>) -> String {
    match opened {
        Err(StoreError::Version(why)) => why,
        other => panic!("it was not refused: {other:?}"),
    }
}

/// Whoever opens this file refuses it, names the file and what to do, and leaves it as it is. Returns why.
async fn refused(file: &Path) -> String {
    let folder = file.parent().unwrap();
    let before = fs::read(file).unwrap();
    let why = refusal(Store::open(folder, at(60)).await);
    assert_eq!(refusal(Store::open_existing(folder).await), why, "commands refuse it too");
    assert_eq!(refusal(View::open_existing(folder).await), why, "and what only looks");
    assert!(why.starts_with(file.to_str().unwrap()), "{why}");
    assert!(why.contains("`sweepd restore`") && why.contains("move the file away"), "{why}");
    assert_eq!(fs::read(file).unwrap(), before, "nothing was written to it");

    let elsewhere = tempfile::tempdir().unwrap();
    let copy = Copy { path: file.to_owned(), file: fs::File::open(file).unwrap(), log: None };
    let restored = refusal(Restoring::check(copy, elsewhere.path()).await);
    assert!(restored.starts_with(file.to_str().unwrap()) && restored.contains("another backup"), "{restored}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nor is it restored");
    why
}

#[tokio::test]
async fn each_object_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bytes) = (folder.path().join(FILE), of_sweepd().await);
    fs::write(&file, &bytes).unwrap();
    let mut connection = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    let objects =
        sqlx::query("SELECT type, name FROM sqlite_schema WHERE sql IS NOT NULL AND name <> '_sqlx_migrations'")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    connection.close().await.unwrap();
    assert!(objects.len() > 40, "{}", objects.len());
    for object in objects {
        let (kind, name): (String, String) = (object.get(0), object.get(1));
        fs::write(&file, &bytes).unwrap();
        edited(
            &file,
            &format!(
                "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE type = '{kind}' AND name = '{name}'"
            ),
        )
        .await;
        let why = refused(&file).await;
        // The indexes of a table that is gone have no table: SQLite calls that damaged.
        let is_orphaned = kind == "table" && why.contains("malformed database schema");
        assert!(why.contains(&format!("the {kind} `{name}` is missing")) || is_orphaned, "{why}");
    }
}

#[tokio::test]
async fn an_object_that_is_too_many_or_differs_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bytes) = (folder.path().join(FILE), of_sweepd().await);
    for (edit, named) in [
        ("CREATE TABLE notes (a)", "the table `notes` is not sweepd's"),
        ("CREATE VIEW notes AS SELECT 1", "the view `notes` is not sweepd's"),
        ("CREATE INDEX notes ON jobs (comment)", "the index `notes` is not sweepd's"),
        ("CREATE TRIGGER notes AFTER INSERT ON events BEGIN SELECT 1; END", "the trigger `notes` is not sweepd's"),
        ("CREATE TRIGGER notes AFTER INSERT ON _sqlx_migrations BEGIN SELECT 1; END", "the trigger `notes`"),
        ("ALTER TABLE jobs ADD COLUMN note TEXT", "the table `jobs` is not as sweepd made it"),
        (
            "DROP TRIGGER events_are_not_changed; CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events BEGIN SELECT 1; END",
            "the trigger `events_are_not_changed` is not as sweepd made it",
        ),
        (
            "DROP TRIGGER events_are_not_deleted; DROP TRIGGER events_are_not_changed",
            "the trigger `events_are_not_changed` is missing",
        ),
    ] {
        fs::write(&file, &bytes).unwrap();
        edited(&file, edit).await;
        let why = refused(&file).await;
        assert!(why.contains(named), "{edit}: {why}");
    }
}

#[tokio::test]
async fn what_sqlite_makes_by_itself_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    fs::write(&file, of_sweepd().await).unwrap();
    edited(&file, "ANALYZE; VACUUM").await;
    Store::open(folder.path(), at(60)).await.unwrap().close().await;
    Store::open_existing(folder.path()).await.unwrap().unwrap().close().await;
}

#[tokio::test]
async fn another_programs_database_gets_no_table_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    edited(&file, "CREATE TABLE notes (a); INSERT INTO notes VALUES ('marker')").await;
    assert!(refused(&file).await.contains("another program"));
    // Nor where it has tables of these names.
    edited(&file, "CREATE TABLE job_counts (a)").await;
    assert!(refused(&file).await.contains("another program"));
    let entries = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(entries, 1, "and nothing beside it");
}

#[tokio::test]
async fn garbage_in_the_databases_place_is_refused_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    let mut damaged = of_sweepd().await;
    damaged[100..4000].fill(0x5a);
    for garbage in [b"marker".to_vec(), vec![0x5a; 100_000], damaged] {
        fs::write(&file, &garbage).unwrap();
        assert!(refused(&file).await.contains("damaged, or no database"));
    }
    // An empty file is what a kill leaves of the first start.
    fs::write(&file, "").unwrap();
    Store::open(folder.path(), at(60)).await.unwrap().close().await;
}

#[tokio::test]
async fn every_connection_believes_no_schema_and_checks_each_cell() {
    let bench = Bench::new().await;
    let path = bench.folder.path().join(FILE);
    let of = async |connection: &mut sqlx::SqliteConnection| {
        let trusted: i64 = sqlx::query_scalar("PRAGMA trusted_schema").fetch_one(&mut *connection).await.unwrap();
        let checked: i64 = sqlx::query_scalar("PRAGMA cell_size_check").fetch_one(connection).await.unwrap();
        (trusted, checked)
    };
    let writer = bench.store.write(|connection| {
        Box::pin(async move {
            let trusted: i64 =
                sqlx::query_scalar("PRAGMA trusted_schema").fetch_one(&mut *connection).await.doing("ask")?;
            let checked: i64 = sqlx::query_scalar("PRAGMA cell_size_check").fetch_one(connection).await.doing("ask")?;
            Ok((trusted, checked))
        })
    });
    assert_eq!(writer.await.unwrap(), (0, 1));
    assert_eq!(of(&mut *bench.store.reader().await.unwrap()).await, (0, 1));
    let mut looking = super::super::looking(&path).connect().await.unwrap();
    assert_eq!(of(&mut looking).await, (0, 1));
    let written = sqlx::query("CREATE TABLE notes (a)").execute(&mut looking).await;
    assert!(written.is_err(), "what may be anybody's is not written to");
}

#[tokio::test]
async fn an_older_database_that_lacks_an_object_is_not_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    fs::write(&file, of_sweepd().await).unwrap();
    edited(&file, "DROP TRIGGER events_are_not_deleted").await;
    let before = fs::read(&file).unwrap();
    let later = super::migrating::later(super::migrating::STEP);
    let why = refusal(Store::open_with(folder.path(), &later, at(60)).await);
    assert!(why.contains("`events_are_not_deleted` is missing"), "{why}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no copy is left behind");
}

/// A database that was migrated step by step, at whatever version it began, is the one that all steps make at once.
#[tokio::test]
async fn a_database_that_was_migrated_is_as_good_as_a_new_one() {
    let later = super::migrating::later(super::migrating::STEP);
    let all: Vec<_> = later.iter().cloned().collect();
    for begun in 1..all.len() {
        let folder = tempfile::tempdir().unwrap();
        let older = sqlx::migrate::Migrator::with_migrations(all[..begun].to_vec());
        Store::open_with(folder.path(), &older, at(0)).await.unwrap().close().await;
        for now in 1..3 {
            Store::open_with(folder.path(), &later, at(now)).await.unwrap().close().await;
        }
    }
    assert_eq!(all.len(), MIGRATIONS.iter().count() + 1);
}
