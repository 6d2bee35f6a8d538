//! Marks on Defender's actions that this database did not write.

use super::*;
use crate::domain::ledger::{Admission, CallKind};

/// A scan that a lost history asked for, created at that second.
fn lost(id: &str, machine: MachineId, status: ActionStatus, n: u128, created: i64) -> Seen {
    let comment = AttemptId(Uuid::from_u128(0xdead_0000 + n)).mark("weekly");
    let mut seen = scan(id, machine, status, &comment, created + 1);
    seen.action.created_at = at(created);
    seen
}

fn asked_by(requestor: &str, mut seen: Seen) -> Seen {
    seen.raw = seen.raw.replacen('{', &format!("{{\"requestor\":\"{requestor}\","), 1);
    seen
}

async fn unknown(bench: &Bench) -> u64 {
    bench.store.unknown_marks(bench.tenant).await.unwrap()
}

async fn reconcile(bench: &Bench, seconds: i64) -> (usize, usize) {
    let done = bench.store.reconcile(&"contoso".parse().unwrap(), operator(), at(seconds)).await.unwrap();
    (done.actions, done.jobs)
}

#[tokio::test]
async fn an_unknown_mark_holds_the_lane_until_an_operator_has_accepted_it() {
    let mut bench = Bench::with_machines(&[1, 2]).await;
    let seen = lost("a", machine(9), ActionStatus::Succeeded, 1, 5);
    bench.feed(std::slice::from_ref(&seen), 10).await;
    assert_eq!(unknown(&bench).await, 1);
    assert_eq!(bench.last_events(1).await, ["mark_unknown"]);
    assert!(matches!(bench.claim(11).await, Claimed::Paused));
    bench.restart(birth(20)).await;
    assert!(matches!(bench.claim(21).await, Claimed::Paused), "a restart changes nothing");
    let deaf = Ask { minds_marks: false, ..bench.ask(21) };
    assert!(matches!(bench.store.claim(deaf).await.unwrap(), Claimed::Call(_)), "unless they are ignored");
    assert_eq!(reconcile(&bench, 30).await, (1, 0));
    assert_eq!(unknown(&bench).await, 0);
    assert_eq!(bench.last_events(1).await, ["reconciled"]);
    bench.call(31).await;
    // The list shows it again, and changed: it is accepted once and for all.
    let mut again = seen;
    again.action.updated_at = at(40);
    again.raw = again.raw.replace("Succeeded", "Failed");
    bench.feed(&[again], 41).await;
    assert_eq!((unknown(&bench).await, reconcile(&bench, 42).await), (0, (0, 0)));
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_the_lost_history_has_scanned_is_not_scanned_again() {
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    let ended = lost("a1", machine(1), ActionStatus::Succeeded, 1, 50);
    let pending = lost("a2", machine(2), ActionStatus::Pending, 2, 51);
    let mut other = lost("a3", machine(3), ActionStatus::Succeeded, 3, 52);
    other.action.scope = Some(ScanType::Full);
    bench.feed(&[ended, pending, other], 60).await;
    assert_eq!(reconcile(&bench, 61).await, (3, 2));
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    let job = bench.job_of(machine(2)).await;
    assert_eq!((job.state.as_str(), job.action_id.as_deref()), ("accepted", Some("a2")));
    assert_eq!(bench.job_of(machine(3)).await.state, "queued", "a full scan is not the quick one that was asked for");
    assert_eq!(bench.call(62).await.job.machine, machine(3));
    bench.feed(&[lost("a2", machine(2), ActionStatus::Succeeded, 2, 70)], 80).await;
    assert_eq!(bench.job_of(machine(2)).await.state, "succeeded");
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_was_asked_for_afterwards_is_scanned_all_the_same() {
    let bench = Bench::with_machines(&[1]).await;
    // Made at second 0, an hour after the action.
    bench.feed(&[lost("a1", machine(1), ActionStatus::Succeeded, 1, -3600)], 60).await;
    assert_eq!(reconcile(&bench, 61).await, (1, 0));
    assert_eq!(bench.call(62).await.job.machine, machine(1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn marks_of_ours_and_of_another_registration_hold_nothing() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let claim = bench.call(1).await;
    let ours = scan("a1", machine(1), ActionStatus::Succeeded, &claim.attempt.mark("weekly"), 2);
    bench.feed(&[asked_by("sweepd", ours)], 3).await;
    bench.feed(&[asked_by("another app", lost("b", machine(8), ActionStatus::Pending, 1, 2))], 4).await;
    let mut isolated = lost("c", machine(8), ActionStatus::Pending, 2, 2);
    isolated.action.action_type = "Isolate".to_owned();
    bench.feed(&[isolated, scan("d", machine(8), ActionStatus::Pending, "by hand", 2)], 4).await;
    assert_eq!(unknown(&bench).await, 0);
    bench.feed(&[asked_by("sweepd", lost("e", machine(8), ActionStatus::Pending, 3, 2))], 5).await;
    assert_eq!(unknown(&bench).await, 1, "of the same registration");
}

#[tokio::test]
async fn calls_of_a_lost_history_count_against_the_hour_once_and_by_their_age() {
    let bench = Bench::new().await;
    let old = lost("a", machine(7), ActionStatus::Succeeded, 1, 0);
    let late = lost("b", machine(8), ActionStatus::Succeeded, 2, 4000);
    bench.feed(&[old, late], 4100).await;
    let charge = async |seconds| {
        let (stamp, now) = (bench.stamp(seconds), at(seconds));
        bench.store.charge_unknown_marks(bench.tenant, bench.budget, stamp, now).await.unwrap()
    };
    assert_eq!((charge(4100).await, charge(4101).await), (1, 0));
    let admission =
        async |seconds| bench.store.admission(bench.budget, CallKind::Scan, limits(1, 1), boot(seconds)).await.unwrap();
    // Created at 4000, and a minute for the clocks.
    assert!(matches!(admission(7650).await, Admission::NotBefore(..)));
    assert_eq!(admission(7661).await, Admission::Open);
}
