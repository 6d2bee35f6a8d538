//! What is old is archived, then removed, and leaves nothing behind.

use super::*;
use crate::store::archives::{AT_ONCE, Archive, Kept, OTHERS, OTHERS_GO, Removal};
use crate::store::cancellations::Wish;
use crate::store::events::{Kind, Subject};

const ALL: Wall = Wall(i64::MAX);

/// Two sweeps that are over, of which the second had joined a job of the first, with an attempt, an action, a wish to
/// cancel and a machine that was left out; and a third that is not over.
async fn lived() -> (Bench, [SweepRow; 3]) {
    let bench = Bench::new().await;
    let first = bench.sweep(quick(&[1])).await;
    bench.accepted("a1", 1).await;
    let second = bench.sweep(quick(&[1])).await;
    let wish = Wish { comment: "enough".to_owned(), operator: operator(), at: at(2) };
    assert!(bench.store.ask_to_cancel(bench.tenant, "a1".to_owned(), wish).await.unwrap());
    bench.feed(&[scan("a1", machine(1), ActionStatus::Succeeded, "by hand", 20)], 21).await;
    bench.feed(&[scan("f1", machine(9), ActionStatus::Succeeded, "somebody else's", 22)], 23).await;
    let third = bench.sweep(quick(&[2])).await;
    for sweep in [first, second, third] {
        bench.store.sweep_filed(sweep).await.unwrap();
    }
    for sweep in [first, second] {
        bench.store.sweep_reported(sweep).await.unwrap();
    }
    (bench, [first, second, third])
}

fn kept(file: &str) -> Kept {
    Kept { file: file.to_owned(), sha256: "00".repeat(32) }
}

/// Puts the next segment on record, with these sweeps.
async fn archive(bench: &Bench, sweeps: Vec<SweepRow>) {
    let segment = bench.store.next_segment(ALL, ALL, i64::MAX).await.unwrap().expect("something is old");
    let archive = Archive { segment, cutoff: at(1000), events: kept("events"), rows: kept("rows") };
    bench.store.archive(archive, sweeps, at(1000)).await.unwrap();
}

async fn remove(bench: &Bench) {
    while bench.store.remove_archived(at(1001)).await.unwrap() == Removal::Some {}
}

#[tokio::test]
async fn a_sweep_that_another_one_joined_waits_for_that_one() {
    let (bench, [first, second, _]) = lived().await;
    assert_eq!(bench.store.old_sweeps(ALL).await.unwrap(), [second], "the first one's job counts in the second");
    archive(&bench, vec![second]).await;
    assert_eq!(bench.store.old_sweeps(ALL).await.unwrap(), [first]);
    remove(&bench).await;
    assert_eq!(bench.store.old_sweeps(ALL).await.unwrap(), [first]);
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_is_removed_leaves_no_row_behind_in_any_table() {
    let (bench, [first, second, third]) = lived().await;
    let tables = |column: &'static str| {
        let reader = bench.store.reader();
        async move {
            sqlx::query_scalar::<_, String>(
                "SELECT tables.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
                 WHERE tables.type = 'table' AND columns.name = ? AND tables.name <> 'events'",
            )
            .bind(column)
            .fetch_all(&mut *reader.await.unwrap())
            .await
            .unwrap()
        }
    };
    archive(&bench, vec![first, second]).await;
    remove(&bench).await;
    let count = async |table: &str, column: &str, keys: String| {
        let statement = format!("SELECT count(*) FROM {table} WHERE {column} NOT IN ({keys})");
        let mut reader = bench.store.reader().await.unwrap();
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(statement)).fetch_one(&mut *reader).await.unwrap()
    };
    let of_sweeps = tables("sweep_n").await;
    assert!(of_sweeps.len() >= 5, "{of_sweeps:?}");
    for table in of_sweeps {
        assert_eq!(count(&table, "sweep_n", third.to_string()).await, 0, "rows of sweeps that are gone in {table}");
    }
    let of_jobs = tables("job_id").await;
    assert!(of_jobs.len() >= 5, "{of_jobs:?}");
    for table in of_jobs {
        let left = "SELECT id FROM jobs UNION SELECT NULL".to_owned();
        assert_eq!(count(&table, "job_id", left).await, 0, "rows of jobs that are gone in {table}");
    }
    for table in ["actions", "cancellations", "attempts"] {
        assert_eq!(count(table, "rowid", "NULL, -1".to_owned()).await, 0);
        let rows = format!("SELECT count(*) FROM {table}");
        let mut reader = bench.store.reader().await.unwrap();
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(&mut *reader).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    let mut reader = bench.store.reader().await.unwrap();
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *reader).await.unwrap();
    assert!(broken.is_empty(), "{} rows refer to nothing", broken.len());
    drop(reader);
    assert_eq!(bench.number("SELECT count(*) FROM sweeps").await, 1);
    bench.assert_whole().await;
}

#[tokio::test]
async fn the_record_goes_on_from_where_a_segment_ends() {
    let (bench, [first, second, _]) = lived().await;
    let head = bench.store.record_head().await.unwrap();
    archive(&bench, vec![first, second]).await;
    let whole = bench.store.verify_record().await.unwrap().unwrap();
    assert_eq!(whole.seq, head.seq + 1, "that it was archived is an event");
    // Whatever of it is removed by now.
    for _ in 0..3 {
        bench.store.remove_archived(at(1001)).await.unwrap();
        assert_eq!(bench.store.verify_record().await.unwrap(), Ok(whole.clone()));
    }
    remove(&bench).await;
    assert_eq!(bench.store.verify_record().await.unwrap(), Ok(whole.clone()));
    let archives = bench.store.archives().await.unwrap();
    assert_eq!(archives.len(), 1);
    assert_eq!((archives[0].segment.first, archives[0].segment.last.seq), (1, head.seq - 1), "the last event stays");
    assert_eq!(bench.number("SELECT min(seq) FROM events").await, head.seq);
    archive(&bench, Vec::new()).await;
    remove(&bench).await;
    let archives = bench.store.archives().await.unwrap();
    assert_eq!(archives[1].segment.before, archives[0].segment.last.hash, "it joins the one before");
    bench.assert_whole().await;
}

#[tokio::test]
async fn nothing_is_removed_that_is_not_on_record_as_archived() {
    let (bench, _) = lived().await;
    assert_eq!(bench.store.remove_archived(at(1001)).await.unwrap(), Removal::Done);
    let segment = bench.store.next_segment(ALL, ALL, 3).await.unwrap().unwrap();
    assert_eq!((segment.first, segment.last.seq), (1, 3), "so many at the most");
    assert_eq!(bench.store.next_segment(ALL, Wall(0), 3).await.unwrap(), None, "nothing is worth it");
    let mut forged = Archive { segment, cutoff: at(1000), events: kept("events"), rows: kept("rows") };
    forged.segment.last.hash = "ab".repeat(32);
    bench.store.archive(forged, Vec::new(), at(1000)).await.unwrap_err();
    assert_eq!(bench.store.remove_archived(at(1001)).await.unwrap(), Removal::Done);
    let delete = "DELETE FROM events WHERE seq = 1";
    let refused = bench
        .store
        .write(move |connection| {
            Box::pin(async move { sqlx::query(delete).execute(connection).await.doing("tamper").map(drop) })
        })
        .await;
    assert!(refused.unwrap_err().to_string().contains("append-only"));
}

#[tokio::test]
async fn the_writer_is_held_for_so_many_rows_at_a_time_whatever_a_sweep_has() {
    let (bench, [first, second, _]) = lived().await;
    // All but a few of a list of a million may be left out, or joined.
    let rows = AT_ONCE * 2 + 1;
    bench
        .change(
            "WITH RECURSIVE lines (n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM lines LIMIT ?)
             INSERT INTO left_out (sweep_n, line, machine, reason) SELECT 2, n, zeroblob(20), 'not onboarded' FROM lines",
            rows,
        )
        .await;
    let left = "SELECT count(*) FROM left_out WHERE sweep_n = 2";
    archive(&bench, vec![first, second]).await;
    let mut before = bench.number(left).await;
    assert!(before >= rows, "{before}");
    while bench.store.remove_archived(at(1001)).await.unwrap() == Removal::Some {
        let now = bench.number(left).await;
        assert!(before - now <= AT_ONCE, "{} at once", before - now);
        before = now;
    }
    assert_eq!(before, 0);
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_is_old_is_found_without_looking_through_a_table() {
    let bench = Bench::new().await;
    for statement in [OTHERS, OTHERS_GO[0], OTHERS_GO[1]] {
        let plan = bench.plan(statement.replace("{OTHERS}", OTHERS)).await;
        assert!(plan.contains("actions USING INDEX actions_of_nobody (first_seen_at<?)"), "{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("B-TREE"), "{plan}");
    }
}

#[tokio::test]
async fn a_segment_ends_before_the_first_young_event_and_joins_the_one_before() {
    let bench = Bench::new().await;
    let first = bench.store.record_head().await.unwrap().seq + 1;
    // The wall clock was set back before the fourth.
    for seconds in [10, 20, 30, 15, 40, 50] {
        let body = serde_json::json!({});
        bench.store.record(at(seconds), Kind::Paused, Subject::default(), body).await.unwrap();
    }
    let last = async |cutoff: i64, most: i64| {
        let segment = bench.store.next_segment(at(cutoff), at(cutoff), most).await.unwrap();
        segment.map(|segment| segment.last.seq - first + 1)
    };
    assert_eq!(last(25, i64::MAX).await, Some(2), "the third is young, and the fourth stands behind it");
    assert_eq!(last(30, i64::MAX).await, Some(2), "what is as old as the cutoff is not older");
    assert_eq!(last(31, i64::MAX).await, Some(4));
    assert_eq!(last(100, i64::MAX).await, Some(5), "the last of all stays");
    assert_eq!(last(100, first + 1).await, Some(2), "no more than so many, whatever else is old");
    let segment = bench.store.next_segment(at(25), at(25), i64::MAX).await.unwrap().unwrap();
    let archive = Archive { segment, cutoff: at(25), events: kept("events"), rows: kept("rows") };
    bench.store.archive(archive.clone(), Vec::new(), at(60)).await.unwrap();
    let again = bench.store.archive(archive, Vec::new(), at(60)).await.unwrap_err().to_string();
    assert!(again.contains("meanwhile"), "{again}");
}
