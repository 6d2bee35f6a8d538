//! What a start finds, and what it makes of it.

use super::*;
use crate::domain::ledger::{Admission, HOUR, MARGIN, MINUTE, Window};
use crate::domain::lookup::Question;
use crate::domain::shown::ShownPath;
use crate::store::incarnations::StateLock;

#[tokio::test]
async fn a_call_that_a_crash_left_on_the_wire_is_looked_up_and_not_repeated() {
    let mut bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    let before = bench.epoch;

    let inheritance = bench.restart(birth(100)).await;
    assert_eq!(inheritance.epoch.0, before.0 + 1);
    assert_eq!(inheritance.lost_calls, 1);

    let (asked, due) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    assert_eq!(asked.attempt, claim.attempt);
    assert_eq!(asked.question, Question::Effect);
    assert_eq!(asked.since, boot(100));
    assert_eq!(due, boot(105));
    assert_eq!(bench.job_of(machine(1)).await.state, "sending");
    assert!(matches!(bench.claim(101).await, Claimed::Nothing), "it must not be sent again");
    let outcome = bench.text("SELECT outcome FROM attempts").await;
    assert_eq!(outcome, "unknown");
    bench.assert_whole().await;
}

#[tokio::test]
async fn the_slot_of_a_lost_call_counts_until_it_can_no_longer_arrive() {
    let mut bench = Bench::with_machines(&[1, 2]).await;
    bench.limits = limits(1, 10);
    bench.call(1).await;
    bench.restart(birth(100)).await;
    let free = boot(100) + GRACE + MINUTE + MARGIN;
    let admission = bench.store.admission(bench.budget, CallKind::Scan, bench.limits, boot(101)).await.unwrap();
    assert_eq!(admission, Admission::NotBefore(free, Window::Minute));
    let admission = bench.store.admission(bench.budget, CallKind::Scan, bench.limits, free).await.unwrap();
    assert_eq!(admission, Admission::Open);
}

#[tokio::test]
async fn a_calls_answer_of_an_older_incarnation_is_not_taken() {
    let mut bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    let late = bench.settlement(&claim, Outcome::Throttled(Told::default()), 101);
    bench.restart(birth(100)).await;
    assert!(matches!(bench.store.settle(late, policy()).await, Err(crate::store::StoreError::Guard(_))));
    assert_eq!(bench.job_of(machine(1)).await.state, "sending");
    bench.assert_whole().await;
}

#[tokio::test]
async fn slots_of_another_boot_or_machine_count_from_now() {
    let mut bench = Bench::with_machines(&[1, 2]).await;
    bench.limits = limits(2, 2);
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Refused(crate::domain::job::Reason::UnknownMachine), 2).await;
    bench.call(3).await;

    // The clock of the new boot is far behind the old one's.
    let born = Boot(20_000);
    bench.restart(Birth { boot: born, boot_id: BootId("boot-2".to_owned()), ..birth(60) }).await;
    let settles: Vec<i64> = sqlx::query_scalar("SELECT settles_boot FROM slots ORDER BY id")
        .fetch_all(&mut *bench.store.reader().await.unwrap())
        .await
        .unwrap();
    // Whoever made them may have been another machine, a moment ago: a grace from now.
    assert_eq!(settles, [80_000, 80_000]);
    assert_eq!(bench.number("SELECT count(*) FROM slots WHERE boot_id <> 'boot-2'").await, 0);
    let admission = bench.store.admission(bench.budget, CallKind::Scan, bench.limits, born).await.unwrap();
    assert_eq!(admission, Admission::NotBefore(Boot(80_000) + HOUR + MARGIN, Window::Hour));
}

#[tokio::test]
async fn a_clock_that_went_back_cannot_lock_the_budget_for_ever() {
    let mut bench = Bench::with_machines(&[1, 2]).await;
    let claim = bench.call(5000).await;
    bench.settle(&claim, Outcome::Throttled(Told::default()), 5001).await;
    bench.restart(birth(10)).await;
    let latest = bench.number("SELECT max(settles_boot) FROM slots").await;
    assert_eq!(latest, (boot(10) + GRACE).0);
}

#[tokio::test]
async fn open_questions_begin_anew_with_each_incarnation() {
    let mut bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Unknown, 61).await;
    bench.restart(Birth { boot: Boot(1000), boot_id: BootId("boot-2".to_owned()), ..birth(120) }).await;
    let (asked, due) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    assert_eq!((asked.since, asked.looks, due), (Boot(1000), 0, Boot(6000)));
    assert_eq!(bench.store.questions(bench.tenant).await.unwrap(), 1);
}

#[tokio::test]
async fn since_when_the_sign_in_fails_outlives_a_restart_and_ends_with_one_that_goes_well() {
    let mut bench = Bench::with_machines(&[1]).await;
    let failed = || Some("AADSTS7000215".to_owned());
    bench.store.record_sign_in(bench.tenant, failed(), false, Wall(3000)).await.unwrap();
    bench.restart(birth(10)).await;
    bench.store.record_sign_in(bench.tenant, failed(), false, Wall(12000)).await.unwrap();
    let memory = bench.store.lane_memory(bench.tenant).await.unwrap();
    assert_eq!(memory.sign_in_fails_since, Some(Wall(3000)));
    assert!(bench.store.standstill(bench.tenant).await.unwrap().without_end(true).is_some());
    bench.store.record_sign_in(bench.tenant, None, false, Wall(20000)).await.unwrap();
    assert_eq!(bench.store.lane_memory(bench.tenant).await.unwrap().sign_in_fails_since, None);
    bench.store.record_sign_in(bench.tenant, failed(), false, Wall(30000)).await.unwrap();
    assert_eq!(bench.store.lane_memory(bench.tenant).await.unwrap().sign_in_fails_since, Some(Wall(30000)));
}

#[tokio::test]
async fn no_sign_in_goes_well_while_defender_refuses_fresh_tokens() {
    let bench = Bench::with_machines(&[1]).await;
    let since = async || bench.store.lane_memory(bench.tenant).await.unwrap().sign_in_fails_since;
    bench.store.note_tokens(bench.tenant, true, Wall(3000)).await.unwrap();
    bench.store.record_sign_in(bench.tenant, None, true, Wall(8000)).await.unwrap();
    assert_eq!(since().await, Some(Wall(3000)), "Entra hands out tokens, and Defender refuses them");
    bench.store.note_tokens(bench.tenant, false, Wall(9000)).await.unwrap();
    assert_eq!(since().await, None);
}

#[tokio::test]
async fn one_daemon_at_a_time_holds_a_state_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!StateLock::is_held(folder.path()));
    let first = StateLock::take(folder.path()).unwrap();
    assert!(first.is_some());
    assert!(StateLock::take(folder.path()).unwrap().is_none());
    assert!(StateLock::is_held(folder.path()));
    drop(first);
    assert!(StateLock::take(folder.path()).unwrap().is_some());
}

#[tokio::test]
async fn the_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with_machines(&[1]).await;
    for file in std::fs::read_dir(bench.folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", ShownPath::new(&file.path()));
    }
    assert!(Store::open_existing(tempfile::tempdir().unwrap().path()).await.unwrap().is_none());
}
