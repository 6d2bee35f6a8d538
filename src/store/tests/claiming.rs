//! TX1: job, slot and attempt together, or nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::lane::Hold;
use crate::domain::ledger::{Admission, HOUR, MARGIN, MINUTE, Window};
use crate::store::tenants::Held;

#[tokio::test]
async fn job_slot_and_attempt_are_on_disk_before_the_call_may_leave() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let claim = bench.call(1).await;

    // As another process would see it: nothing of this is in memory only.
    let other = Store::open_existing(bench.folder.path()).await.unwrap().unwrap();
    let mut reader = other.reader().await.unwrap();
    let (attempt, job, slot, epoch): (String, i64, i64, i64) =
        sqlx::query_as("SELECT id, job_id, slot_id, epoch FROM attempts WHERE settled_at IS NULL")
            .fetch_one(&mut *reader)
            .await
            .unwrap();
    assert_eq!(attempt, claim.attempt.to_string());
    assert_eq!((job, slot, epoch), (claim.job.id.0, claim.slot.0, bench.epoch.0));
    let held: (String, i64, i64) =
        sqlx::query_as("SELECT kind, taken_boot, settles_boot FROM slots").fetch_one(&mut *reader).await.unwrap();
    assert_eq!(held, ("scan".to_owned(), boot(1).0, i64::MAX));

    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.attempts), ("sending", 1));
    assert_eq!(claim.job.attempts, 1);
    assert_eq!(bench.last_events(1).await, ["attempt_written"]);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_claim_that_fails_takes_nothing() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let first = bench.call(1).await;
    let before = bench.number("SELECT count(*) FROM events").await;
    // Attempt ids are never reused: the table refuses, and job and slot go back with it.
    let again = Ask { attempt: first.attempt, ..bench.ask(2) };
    assert!(bench.store.claim(again).await.is_err());
    assert_eq!(bench.job_of(machine(2)).await.state, "queued");
    assert_eq!(bench.number("SELECT count(*) FROM slots").await, 1);
    assert_eq!(bench.number("SELECT count(*) FROM events").await, before);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_full_ledger_refuses_and_says_until_when() {
    let mut bench = Bench::with_machines(&[1, 2, 3, 4]).await;
    bench.limits = limits(2, 3);
    for seconds in [1, 2] {
        bench.accepted(&format!("a{seconds}"), seconds).await;
    }
    let full = |claimed| match claimed {
        Claimed::Wait(admission) => admission,
        other => panic!("the ledger should be full: {other:?}"),
    };
    // The first call settled at second 2.
    let minute = Admission::NotBefore(boot(2) + MINUTE + MARGIN, Window::Minute);
    assert_eq!(full(bench.claim(10).await), minute);
    assert_eq!(full(bench.claim(62).await), minute, "the margin counts");
    bench.accepted("a3", 63).await;
    let hour = Admission::NotBefore(boot(2) + HOUR + MARGIN, Window::Hour);
    assert_eq!(full(bench.claim(600).await), hour);
    assert_eq!(full(bench.claim(3602).await), hour);
    bench.accepted("a4", 3603).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_call_on_the_wire_holds_its_slot_however_long_it_takes() {
    let mut bench = Bench::with_machines(&[1, 2]).await;
    bench.limits = limits(1, 10);
    let claim = bench.call(1).await;
    let claimed = bench.claim(1000).await;
    assert!(matches!(claimed, Claimed::Wait(Admission::WhenSettled(Window::Minute))), "{claimed:?}");
    bench.settle(&claim, Outcome::Throttled(Told::default()), 1000).await;
    assert!(matches!(bench.claim(1060).await, Claimed::Wait(Admission::NotBefore(..))));
    bench.call(1061).await;
}

#[tokio::test]
async fn other_kinds_of_call_have_a_ledger_of_their_own() {
    let mut bench = Bench::with_machines(&[1]).await;
    bench.limits = limits(1, 1);
    let take = async || {
        let stamp = bench.stamp(1);
        bench.store.take_slot(bench.budget, CallKind::ListActions, bench.limits, stamp).await.unwrap()
    };
    let slot = take().await.unwrap();
    assert_eq!(take().await, Err(Admission::WhenSettled(Window::Hour)));
    bench.settle_read(slot, boot(2), 2).await.unwrap();
    assert!(bench.settle_read(slot, boot(3), 3).await.is_err(), "settled once");
    bench.call(1).await;
    let used = bench.store.used(bench.budget, CallKind::Scan, boot(1)).await.unwrap();
    assert_eq!((used.minute, used.hour), (1, 1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn the_ledger_of_one_tenant_takes_nothing_from_another() {
    let mut bench = Bench::with_machines(&[1, 2]).await;
    bench.limits = limits(1, 1);
    bench.call(1).await;
    assert!(matches!(bench.claim(2).await, Claimed::Wait(_)));
    bench.tenant = bench.store.tenant(&"fabrikam".parse().unwrap()).await.unwrap();
    bench.budget = bench.store.budget(bench.tenant, "another directory/app").await.unwrap();
    bench.sweep(quick(&[1, 2])).await;
    bench.call(2).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_calls_took_is_read_from_their_slots() {
    let bench = Bench::with_machines(&[1, 2, 3, 4]).await;
    for (id, seconds, took) in [("a1", 1, 2), ("a2", 10, 5)] {
        let claim = bench.call(seconds).await;
        let ours = scan(id, claim.job.machine, ActionStatus::Pending, &claim.attempt.mark("weekly"), seconds);
        bench.settle(&claim, Outcome::Created(ours.action), seconds + took).await;
    }
    // Neither of these has settled: one is on the wire, one may still arrive.
    bench.call(20).await;
    let lost = bench.call(21).await;
    bench.settle(&lost, Outcome::Unknown, 22).await;
    let took = bench.store.latencies(bench.budget, CallKind::Scan, boot(30)).await.unwrap();
    assert_eq!(took, [5, 2].map(Duration::from_secs));
    let reads = bench.store.latencies(bench.budget, CallKind::ListActions, boot(30)).await.unwrap();
    assert_eq!(reads, []);
}

#[tokio::test]
async fn priority_goes_first_and_then_age() {
    let bench = Bench::new().await;
    let with = |line, n, priority| NewJob { priority, ..job(line, machine(n)) };
    bench
        .sweep(vec![
            with(1, 1, Priority::Low),
            with(2, 2, Priority::Normal),
            with(3, 3, Priority::Urgent),
            with(4, 4, Priority::Normal),
            with(5, 5, Priority::High),
        ])
        .await;
    let mut order = Vec::new();
    for seconds in 1..=5 {
        order.push(bench.call(seconds).await.job.machine);
    }
    assert_eq!(order, [3, 5, 2, 4, 1].map(machine));
    assert!(matches!(bench.claim(9).await, Claimed::Nothing));
}

#[tokio::test]
async fn the_oldest_queued_job_is_told_whatever_its_priority() {
    let bench = Bench::new().await;
    bench.sweep(vec![NewJob { priority: Priority::Low, ..job(1, machine(1)) }]).await;
    let urgent = Chunk { jobs: vec![NewJob { priority: Priority::Urgent, ..job(1, machine(2)) }], ..Chunk::default() };
    bench.store.take_sweep(bench.new_sweep(), urgent, at(500), |_, _| completion(false)).await.unwrap();
    let status = bench.store.tenants_status().await.unwrap();
    assert_eq!(status[0].oldest_queued, Some(at(0)));
}

#[tokio::test]
async fn the_other_scan_type_of_a_machine_waits_while_one_is_on_the_wire() {
    let bench = Bench::new().await;
    bench.sweep(vec![job(1, machine(1)), NewJob { scan: ScanType::Full, ..job(2, machine(1)) }]).await;
    let claim = bench.call(1).await;
    assert_eq!(claim.job.scan, ScanType::Quick);
    assert!(matches!(bench.claim(2).await, Claimed::Nothing));
    assert_eq!(bench.store.next_parked(bench.tenant).await.unwrap(), Some(at(7)));
    bench.settle(&claim, Outcome::Refused(crate::domain::job::Reason::UnknownMachine), 3).await;
    assert_eq!(bench.store.unpark_due(bench.tenant, at(6)).await.unwrap(), 0);
    assert_eq!(bench.store.unpark_due(bench.tenant, at(7)).await.unwrap(), 1);
    assert_eq!(bench.call(8).await.job.scan, ScanType::Full);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_machine_that_is_known_to_be_busy_costs_no_call() {
    let bench = Bench::with_machines(&[1]).await;
    bench.feed(&[scan("theirs", machine(1), ActionStatus::InProgress, "by hand", 1)], 1).await;
    assert!(matches!(bench.claim(2).await, Claimed::Nothing));
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.reason.as_deref()), ("skipped", Some("pending_action")));
    assert_eq!(job.blocked_by.unwrap().action_id, "theirs");
    assert_eq!(bench.number("SELECT count(*) FROM slots").await, 0);
    assert_eq!(bench.number("SELECT count(*) FROM attempts").await, 0);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_job_that_may_wait_goes_on_as_soon_as_the_action_ends() {
    let bench = Bench::new().await;
    bench.sweep(vec![NewJob { on_pending: OnPending::Wait, ..job(1, machine(1)) }]).await;
    bench.feed(&[scan("theirs", machine(1), ActionStatus::Pending, "by hand", 1)], 1).await;
    assert!(matches!(bench.claim(2).await, Claimed::Nothing));
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.attempts), ("queued", 0));
    assert_eq!(job.blocked_by.unwrap().action_id, "theirs");
    assert!(!bench.store.has_ready(bench.tenant).await.unwrap());

    bench.feed(&[scan("theirs", machine(1), ActionStatus::Succeeded, "by hand", 30)], 31).await;
    assert!(bench.store.has_ready(bench.tenant).await.unwrap());
    bench.call(32).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_full_scan_waits_for_our_own_quick_one() {
    let bench = Bench::new().await;
    bench.sweep(vec![job(1, machine(1)), NewJob { scan: ScanType::Full, ..job(2, machine(1)) }]).await;
    let claim = bench.accepted("quick", 1).await;
    assert!(matches!(bench.claim(3).await, Claimed::Nothing));
    let full = bench.job_of(machine(1)).await;
    assert_eq!((full.scan_type.as_str(), full.state.as_str()), ("Full", "queued"));
    let mark = claim.attempt.mark("weekly");
    bench.feed(&[scan("quick", machine(1), ActionStatus::Succeeded, &mark, 60)], 61).await;
    assert_eq!(bench.call(62).await.job.scan, ScanType::Full);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_pause_lets_nothing_out_and_loses_nothing() {
    let bench = Bench::with_machines(&[1]).await;
    let name = "contoso".parse().unwrap();
    let pause = async |pause, seconds| bench.store.set_paused(&name, pause, operator(), at(seconds)).await.unwrap();
    assert!(pause(super::Sending::Paused(Some("change freeze".to_owned()), None), 1).await);
    assert!(matches!(bench.claim(2).await, Claimed::Paused));
    assert_eq!(bench.job_of(machine(1)).await.state, "queued");
    let noted = bench.store.pause_of(bench.tenant).await.unwrap().unwrap();
    assert_eq!((noted.at, noted.reason.as_deref()), (at(1), Some("change freeze")));
    assert_eq!(noted.by.as_deref(), Some("uid 1000@console"));
    assert!(!pause(super::Sending::Paused(None, None), 3).await, "it is paused already");
    assert!(pause(super::Sending::Resumed, 4).await);
    bench.call(5).await;
    assert_eq!(bench.last_events(2).await, ["resumed", "attempt_written"]);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_probe_does_not_count_against_its_job() {
    let bench = Bench::with_machines(&[1]).await;
    let probe = bench.probe(1).await;
    assert_eq!(bench.job_of(machine(1)).await.attempts, 0);
    assert_eq!(bench.settle(&probe, Outcome::Forbidden(Denial::Unnamed), 2).await, State::Queued);
    assert_eq!(bench.job_of(machine(1)).await.attempts, 0);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_lane_is_probed_with_who_was_not_asked_yet_then_with_who_came_back_first() {
    let bench = Bench::with_machines(&[1, 2, 3, 4]).await;
    for seconds in [1, 2] {
        let claim = bench.call(seconds).await;
        assert_eq!(claim.job.machine, machine(1), "the order of the file");
        let held = Some(Held { why: Hold::Forbidden, until: boot(seconds) });
        let stopped = bench.settlement(&claim, Outcome::Forbidden(Denial::Unnamed), seconds);
        bench.store.settle(Settlement { held, ..stopped }, policy()).await.unwrap();
    }
    let mut probed = Vec::new();
    for seconds in 3..9 {
        let probe = bench.probe(seconds).await;
        bench.settle(&probe, Outcome::Forbidden(Denial::Unnamed), seconds).await;
        probed.push(probe.job.machine);
    }
    assert_eq!(probed, [4, 3, 2, 1, 4, 3].map(machine));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_machine_that_the_list_calls_ineligible_costs_no_call() {
    use crate::domain::eligibility::{Inactive, Ineligible};
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    let page = vec![(machine(1), Ineligible::Inactive), (machine(2), Ineligible::Merged)];
    bench.store.note_ineligible(bench.tenant, page, at(1)).await.unwrap();
    assert_eq!(bench.store.end_ineligible(bench.tenant, at(1)).await.unwrap(), 2);
    let ask = |inactive, seconds| Ask { rules: Rules { inactive, ..rules() }, ..bench.ask(seconds) };
    let Claimed::Call(claim) = bench.store.claim(ask(Inactive::Wait, 2)).await.unwrap() else { panic!("the third") };
    assert_eq!(claim.job.machine, machine(3));
    let job = bench.job_of(machine(2)).await;
    assert_eq!((job.state.as_str(), job.reason.as_deref(), job.attempts), ("skipped", Some("not_eligible"), 0));
    assert_eq!(job.detail.as_deref(), Some("merged into another record in Defender's list of machines"));
    let parked = bench.store.next_parked(bench.tenant).await.unwrap();
    assert_eq!(parked, Some(at(2) + Duration::from_hours(1)), "what is inactive may come back");
    // The next list does not show it as inactive any more.
    assert_eq!(bench.store.end_ineligible(bench.tenant, at(3)).await.unwrap(), 0);
    bench.store.unpark_due(bench.tenant, at(4000)).await.unwrap();
    assert!(matches!(bench.store.claim(ask(Inactive::Skip, 4001)).await.unwrap(), Claimed::Call(_)));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_pause_with_an_end_is_over_then_and_not_before() {
    let bench = Bench::with_machines(&[1]).await;
    let name = "contoso".parse().unwrap();
    let pause = async |until, seconds| {
        let pause = super::Sending::Paused(Some("backup".to_owned()), until);
        bench.store.set_paused(&name, pause, operator(), at(seconds)).await.unwrap()
    };
    let end = async |seconds| {
        bench.store.end_pause(bench.tenant, at(seconds)).await.unwrap();
        bench.store.pause_of(bench.tenant).await.unwrap()
    };
    assert!(pause(Some(at(10)), 1).await);
    assert_eq!(end(9).await.unwrap().until, Some(at(10)), "not before");
    assert!(!pause(Some(at(20)), 9).await, "it is prolonged");
    assert_eq!(end(19).await.unwrap().until, Some(at(20)), "the new end counts");
    assert!(matches!(bench.claim(19).await, Claimed::Paused));
    assert_eq!(end(20).await, None);
    bench.call(21).await;
    assert_eq!(bench.last_events(2).await, ["resumed", "attempt_written"]);
    assert!(pause(Some(at(30)), 22).await);
    assert!(!pause(None, 23).await, "it lasts until it is resumed");
    assert!(end(99).await.is_some(), "which nobody has done");
    bench.assert_whole().await;
}

/// The instructions that SQLite's machine runs to claim the next job of so many, behind as many done and parked ones,
/// and with none at all of one priority; with the index of the ready ones, or without it.
async fn cost_of_a_claim(queued: u32, indexed: bool) -> usize {
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    bench
        .store
        .write(move |connection| {
            Box::pin(async move {
                for (from, state) in [(0, "'failed', NULL, 5"), (1, "'queued', 9e15, NULL"), (2, "'queued', NULL, NULL")] {
                    sqlx::query(sqlx::AssertSqlSafe(format!(
                        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {queued})
                         INSERT INTO jobs (tenant_id, sweep_n, machine, scan_type, priority, on_pending, comment,
                                           created_at, updated_at, state, parked_until, finished_at)
                         SELECT tenant_id, sweep_n, unhex(format('%040x', n * 3 + {from} + 1000)), 'Quick', n % 3, 'skip', '',
                                created_at, updated_at, {state} FROM n, (SELECT * FROM jobs WHERE id = 1)"
                    )))
                    .execute(&mut *connection)
                    .await
                    .doing("fill the queue")?;
                }
                if !indexed {
                    sqlx::query("DROP INDEX jobs_ready").execute(&mut *connection).await.doing("drop the index")?;
                }
                sqlx::query("UPDATE job_counts SET n = n + 100000000").execute(connection).await.doing("count").map(drop)
            })
        })
        .await
        .unwrap();
    let ask = bench.ask(1);
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    };
    let claimed = bench.store.write(move |connection| {
        Box::pin(async move {
            connection.lock_handle().await.unwrap().set_progress_handler(1, count);
            let claimed = crate::store::claims::claim(connection, ask).await;
            connection.lock_handle().await.unwrap().remove_progress_handler();
            claimed
        })
    });
    assert!(matches!(claimed.await.unwrap(), Claimed::Call(_)));
    steps.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_claim_costs_the_same_however_long_the_queue_is() {
    let (short, long) = (cost_of_a_claim(1000, true).await, cost_of_a_claim(100_000, true).await);
    assert!(short > 100, "{short}: nothing was counted");
    assert_eq!(short, long, "instructions, with 1,000 and with 100,000 queued");
    let without = cost_of_a_claim(10_000, false).await;
    assert!(without > 10 * long, "{without} without the index and {long} with it: this shows nothing");
}
