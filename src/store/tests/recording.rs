//! The record is append-only, and shows when it was not.

use super::*;
use crate::store::events::{Kind, Subject};

/// Some calls, answers and commands.
async fn lived() -> Bench {
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    bench.accepted("a1", 1).await;
    bench.settle(&bench.call(3).await, Outcome::Unknown, 63).await;
    bench
        .store
        .set_paused(&"contoso".parse().unwrap(), super::Sending::Paused(None, None), operator(), at(70))
        .await
        .unwrap();
    bench
}

/// Runs a statement as somebody who owns the machine would.
async fn tamper(bench: &Bench, statement: &'static str) -> Result<u64, crate::store::StoreError> {
    bench
        .store
        .write(move |connection| {
            Box::pin(async move {
                use crate::store::Doing;
                let done = sqlx::query(statement).execute(connection).await.doing("tamper")?;
                Ok(done.rows_affected())
            })
        })
        .await
}

#[tokio::test]
async fn the_chain_verifies_and_ends_at_its_head() {
    let bench = lived().await;
    let head = bench.store.record_head().await.unwrap();
    assert_eq!(bench.store.verify_record().await.unwrap(), Ok(head.clone()));
    assert_eq!(head.seq, bench.number("SELECT count(*) FROM events").await);
    assert_eq!(head.hash.len(), 64);
}

#[tokio::test]
async fn an_auditor_can_recompute_a_link_by_hand() {
    use sha2::Digest;
    let bench = Bench::new().await;
    let subject = Subject { tenant: Some(1), job: None, machine: Some(machine(0xab)) };
    bench.store.record(at(0), Kind::CallMade, subject, serde_json::json!({ "a": 1 })).await.unwrap();
    let before = bench.text("SELECT lower(hex(hash)) FROM events WHERE seq = 1").await;
    let text = format!("{before}\n2\n1700000000000\ncall_made\n1\n\n{}\n{{\"a\":1}}", "ab".repeat(20));
    let hash: Vec<u8> = sqlx::query_scalar("SELECT hash FROM events WHERE seq = 2")
        .fetch_one(&mut *bench.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(hash, sha2::Sha256::digest(text).to_vec());
}

#[tokio::test]
async fn events_are_neither_changed_nor_deleted() {
    let bench = lived().await;
    for statement in ["UPDATE events SET at = at + 1 WHERE seq = 2", "DELETE FROM events WHERE seq = 2"] {
        let error = tamper(&bench, statement).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    assert!(bench.store.verify_record().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_changed_event_is_found_whatever_was_changed() {
    for (change, seq) in [
        ("UPDATE events SET at = at + 1 WHERE seq = 3", 3),
        ("UPDATE events SET kind = 'paused' WHERE seq = 3", 3),
        ("UPDATE events SET tenant_id = 7 WHERE seq = 3", 3),
        ("UPDATE events SET job_id = 7 WHERE seq = 3", 3),
        ("UPDATE events SET machine = zeroblob(20) WHERE seq = 3", 3),
        ("UPDATE events SET body = '{}' WHERE seq = 3", 3),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 3", 3),
        ("UPDATE events SET seq = 1000 WHERE seq = 3", 4),
        ("DELETE FROM events WHERE seq = 3", 4),
        ("DELETE FROM events WHERE seq = 1", 2),
    ] {
        let bench = lived().await;
        tamper(&bench, "DROP TRIGGER events_are_not_changed").await.unwrap();
        tamper(&bench, "DROP TRIGGER events_are_not_deleted").await.unwrap();
        assert_eq!(tamper(&bench, change).await.unwrap(), 1, "{change}");
        assert_eq!(bench.store.verify_record().await.unwrap(), Err(seq), "{change}");
    }
}

#[tokio::test]
async fn a_machine_has_its_whole_history() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.accepted("a1", 1).await;
    let mark = claim.attempt.mark("weekly");
    bench.feed(&[scan("a1", machine(1), ActionStatus::Succeeded, &mark, 20)], 21).await;
    let events = bench.store.events_of_machine(bench.tenant, machine(1), None).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["attempt_written", "attempt_answered", "action_seen", "job_moved", "action_seen", "job_moved"]);
}

#[tokio::test]
async fn commands_are_recorded_with_who_gave_them() {
    let bench = lived().await;
    let body = bench.text("SELECT body FROM events ORDER BY seq DESC LIMIT 1").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["by"], serde_json::json!({ "uid": 0, "login_uid": 1000, "host": "console" }));
}

/// The longest name, a thousand refusals with the longest texts: the record stays, and the file goes after 90 days.
#[tokio::test]
async fn the_event_of_a_file_keeps_counts_and_the_hash_of_its_receipt() {
    use sha2::Digest;
    let bench = Bench::new().await;
    let refusals: Vec<_> = (1..=1000)
        .map(|line| serde_json::json!({ "line": line, "text": "\u{1f600}".repeat(200), "reason": "why ".repeat(40) }))
        .collect();
    let receipt = serde_json::json!({
        "file": "\u{fffd}".repeat(255), "sha256": "ab".repeat(32), "lines": 2000, "refused": 1500, "refusals": refusals,
        "refusals_not_listed": 500, "observed": { "uid": 1001, "size": 7 },
        "claimed": { "uid": 0, "login_uid": null, "host": "\u{1f600}".repeat(253) }, "reason": "marker",
    });
    let text = serde_json::to_string_pretty(&receipt).unwrap();
    let sha256 =
        sha2::Sha256::digest(format!("{text}\n")).iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
    let new = NewSweep { source: Source::Submit, ..bench.new_sweep() };
    let decide = move |_, _| Completion { receipt: text, ..completion(false) };
    bench
        .store
        .take_sweep(new, Chunk { jobs: quick(&[1]), ..Chunk::default() }, at(0), decide)
        .await
        .map(drop)
        .unwrap();
    let body = bench.text("SELECT body FROM events WHERE kind = 'file_taken'").await;
    assert!(body.len() <= 4096, "{} bytes: {body}", body.len());
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["receipt_sha256"], sha256, "of the file that lies beside it");
    assert_eq!(
        (&body["source"], &body["observed"]["uid"], &body["claimed"]["uid"]),
        (&"submit".into(), &1001.into(), &0.into())
    );
    let kept = &body["receipt"];
    assert_eq!((&kept["lines"], &kept["refused"], &kept["sha256"]), (&2000.into(), &1500.into(), &receipt["sha256"]));
    assert_eq!((kept["refusals"].as_array().unwrap().len(), &kept["refusals_not_listed"]), (5, &1495.into()));
    assert!(kept["refusals"][0]["text"].is_null(), "what stood in the file is in its receipt: {body}");
}

/// Whoever writes to the record, by whatever way: an operator with a long reason, for one.
#[tokio::test]
async fn no_event_in_the_record_is_longer_than_its_kind_may_be() {
    let bench = Bench::new().await;
    let long = "\u{7}\u{1f600}".repeat(20_000);
    for kind in Kind::ALL {
        let body = serde_json::json!({ "reason": long, "list": vec![&long; 9], "id": "a1" });
        bench.store.record(at(1), *kind, Subject::default(), body).await.unwrap();
        let text = bench.text("SELECT body FROM events ORDER BY seq DESC LIMIT 1").await;
        assert!(text.len() <= kind.longest_body(), "{kind}: {} bytes", text.len());
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&kept["id"], &kept["cut"]["sha256"].as_str().unwrap().len()),
            (&"a1".into(), &64),
            "{kind}: {text}"
        );
    }
    assert!(bench.store.verify_record().await.unwrap().is_ok());
}
