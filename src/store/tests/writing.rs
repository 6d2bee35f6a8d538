//! The one writer, and a second one beside it.

use futures_util::future::join_all;

use super::*;
use crate::store::events::{Kind, Subject};
use crate::store::{Doing, StoreError};

/// Appends an event, and then fails if asked to.
async fn unit(store: &Store, n: i64, fails: bool) -> Result<(), StoreError> {
    store
        .write(move |connection| {
            Box::pin(async move {
                let body = serde_json::json!({ "n": n });
                crate::store::events::append(connection, at(n), Kind::CallMade, Subject::default(), &body).await?;
                if fails { Err(StoreError::Guard("on purpose".to_owned())) } else { Ok(()) }
            })
        })
        .await
}

#[tokio::test]
async fn a_unit_that_fails_takes_no_neighbour_with_it() {
    let bench = Bench::new().await;
    let before = bench.number("SELECT count(*) FROM events").await;
    // All at once, so that they share commits.
    let results = join_all((0..100).map(|n| unit(&bench.store, n, n % 3 == 0))).await;
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), n % 3 == 0, "unit {n}: {result:?}");
    }
    assert_eq!(bench.number("SELECT count(*) FROM events").await, before + 66);
    bench.assert_whole().await;
}

#[tokio::test]
async fn units_with_many_rows_do_not_share_a_commit() {
    let bench = Bench::new().await;
    let before = bench.number("SELECT count(*) FROM events").await;
    // What another process sees while a unit runs: what was committed before it.
    let seen = async |rows| {
        let units = (0..4).map(|n| {
            let reader = bench.store.view();
            bench.store.write_rows(rows, move |connection| {
                Box::pin(async move {
                    let mut committed = reader.reader().await?;
                    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM events")
                        .fetch_one(&mut *committed)
                        .await
                        .doing("look")?;
                    let body = serde_json::json!({ "n": n });
                    crate::store::events::append(connection, at(n), Kind::CallMade, Subject::default(), &body).await?;
                    Ok(seen - before)
                })
            })
        });
        join_all(units).await.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(seen(0).await, [0, 0, 0, 0]);
    assert_eq!(seen(1500).await, [4, 5, 6, 7]);
}

#[tokio::test]
async fn a_statement_that_sqlite_refuses_takes_no_neighbour_with_it() {
    let bench = Bench::new().await;
    let refused = bench.store.write(|connection| {
        Box::pin(async move {
            sqlx::query("INSERT INTO tenants (name) VALUES ('contoso')")
                .execute(connection)
                .await
                .doing("repeat")
                .map(drop)
        })
    });
    let (before, refused, after) = tokio::join!(unit(&bench.store, 1, false), refused, unit(&bench.store, 2, false));
    assert!(before.is_ok() && after.is_ok());
    assert!(matches!(refused, Err(StoreError::Database { doing: "repeat", .. })));
    bench.assert_whole().await;
}

#[tokio::test]
async fn the_store_is_idle_when_nothing_is_read_written_or_queued() {
    let bench = Bench::new().await;
    assert!(bench.store.is_idle());
    let reader = bench.store.reader().await.unwrap();
    assert!(!bench.store.is_idle(), "while somebody reads");
    drop(reader);
    assert!(bench.store.is_idle());
    let abandoned = {
        let mut write = Box::pin(unit(&bench.store, 1, false));
        futures_util::poll!(write.as_mut()).is_pending()
    };
    assert!(abandoned && !bench.store.is_idle(), "work that is queued is done, though nobody waits for it");
    unit(&bench.store, 2, true).await.unwrap_err();
    assert!(bench.store.is_idle());
    bench.store.close().await;
    unit(&bench.store, 3, false).await.unwrap_err();
    assert!(bench.store.is_idle(), "after the end");
}

#[tokio::test]
async fn whoever_gives_up_waiting_does_not_undo_the_work() {
    let bench = Bench::new().await;
    let before = bench.number("SELECT count(*) FROM events").await;
    let pending = unit(&bench.store, 1, false);
    let polled = {
        tokio::pin!(pending);
        futures_util::poll!(pending.as_mut()).is_pending()
    };
    assert!(polled, "the unit was ordered and then nobody waited for it");
    unit(&bench.store, 2, false).await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM events").await, before + 2);
}

#[tokio::test]
async fn a_second_process_writes_at_the_same_time_and_the_chain_stays_whole() {
    let bench = Bench::new().await;
    let second = Store::open_existing(bench.folder.path()).await.unwrap().unwrap();
    let before = bench.number("SELECT count(*) FROM events").await;
    let version = bench.store.data_version().await.unwrap();
    let write = async |store: &Store| {
        for n in 0..50 {
            unit(store, n, false).await.unwrap();
        }
    };
    tokio::join!(write(&bench.store), write(&second));
    assert_eq!(bench.number("SELECT count(*) FROM events").await, before + 100);
    assert_ne!(bench.store.data_version().await.unwrap(), version, "the other's writing is noticed");
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_was_ordered_before_closing_is_written_and_nothing_after() {
    let bench = Bench::new().await;
    let (written, ()) = tokio::join!(unit(&bench.store, 1, false), bench.store.close());
    assert!(written.is_ok());
    assert!(matches!(unit(&bench.store, 2, false).await, Err(StoreError::Closed)));
    let again = Store::open(bench.folder.path(), at(0)).await.unwrap();
    assert_eq!(again.record_head().await.unwrap().seq, 2);
    assert!(again.verify_record().await.unwrap().is_ok());
}

/// Lets the database have so many pages at most; it never shrinks by that.
async fn pages(store: &Store, limit: &'static str) {
    let set = store.writer.outside(move |connection| {
        Box::pin(async move { sqlx::query(limit).execute(connection).await.doing("limit the pages").map(drop) })
    });
    set.await.unwrap();
}

#[tokio::test]
async fn a_full_disk_takes_no_half_of_anything_and_lets_nothing_out() {
    let bench = Bench::with_machines(&[1]).await;
    pages(&bench.store, "PRAGMA max_page_count = 1").await;
    let mut n = 0;
    let error = loop {
        n += 1;
        assert!(n < 1000, "the database should be full");
        if let Err(error) = unit(&bench.store, n, false).await {
            break error;
        }
    };
    assert!(error.to_string().contains("full"), "{error}");
    let refused = bench.store.claim(bench.ask(1)).await.unwrap_err();
    assert!(refused.to_string().contains("full"), "{refused}");
    assert_eq!(bench.job_of(machine(1)).await.state, "queued");
    assert_eq!(bench.number("SELECT count(*) FROM slots").await, 0);
    bench.assert_whole().await;

    pages(&bench.store, "PRAGMA max_page_count = 1000000").await;
    bench.call(2).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_view_cannot_write() {
    let bench = Bench::with_machines(&[1]).await;
    let view = bench.store.view();
    let mut reader = view.reader().await.unwrap();
    let refused = sqlx::query("UPDATE jobs SET priority = 3").execute(&mut *reader).await.unwrap_err().to_string();
    assert!(refused.contains("readonly"), "{refused}");
    drop(reader);
    view.close().await;
    bench.store.close().await;
    let left: Vec<_> =
        std::fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name != "sweepd.db-wal"), "the last one out closes the journal: {left:?}");
}
