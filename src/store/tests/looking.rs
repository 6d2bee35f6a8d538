//! What a look decides about a call whose outcome is unknown.

use super::*;
use crate::domain::lookup::Known;
use crate::store::attempts::Looked;
use crate::store::settle::Look;

/// Makes the look that is due, at `seconds`, and has it show `seen`.
async fn look(bench: &Bench, look: Look, seconds: i64) -> State {
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    let looked =
        Looked { tenant: bench.tenant, asked, began: boot(seconds), at: at(seconds), boot: boot(seconds), look };
    bench.store.take_look(looked, policy()).await.unwrap()
}

/// A job whose call got no answer, known at second 61.
async fn lost() -> (Bench, Claim) {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Unknown, 61).await;
    (bench, claim)
}

fn nothing() -> Look {
    Look::Read(Vec::new())
}

#[tokio::test]
async fn what_is_found_is_accepted_and_not_sent_again() {
    let (bench, claim) = lost().await;
    let ours = scan("a1", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 2);
    assert_eq!(look(&bench, Look::Read(vec![ours]), 66).await, State::Accepted);
    assert_eq!(bench.text("SELECT resolved FROM attempts").await, "found");
    assert_eq!(bench.store.questions(bench.tenant).await.unwrap(), 0);
    assert!(matches!(bench.claim(67).await, Claimed::Nothing));
    bench.assert_whole().await;
}

#[tokio::test]
async fn nothing_seen_early_proves_nothing() {
    let (bench, _) = lost().await;
    for (seconds, next) in [(66, 76), (76, 106), (106, 181)] {
        assert_eq!(look(&bench, nothing(), seconds).await, State::Sending);
        let (_, due) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
        assert_eq!(due, boot(next));
    }
    assert!(matches!(bench.claim(200).await, Claimed::Nothing), "it must not be sent again");
}

#[tokio::test]
async fn absent_at_the_horizon_goes_back_to_the_queue() {
    let (bench, _) = lost().await;
    assert_eq!(look(&bench, nothing(), 661).await, State::Queued);
    assert_eq!(bench.text("SELECT resolved FROM attempts").await, "absent");
    assert_eq!(bench.job_of(machine(1)).await.attempts, 1);
    assert_eq!(bench.call(662).await.job.attempts, 2);
    bench.assert_whole().await;
}

#[tokio::test]
async fn absence_after_the_last_attempt_ends_the_job() {
    let bench = Bench::with_machines(&[1]).await;
    for n in 0..3 {
        let claim = bench.call(n * 1000).await;
        bench.settle(&claim, Outcome::Unknown, n * 1000 + 60).await;
        let expected = if n < 2 { State::Queued } else { State::Failed };
        assert_eq!(look(&bench, nothing(), n * 1000 + 660).await, expected);
    }
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.reason.as_deref(), job.attempts), (Some("attempts_exhausted"), 3));
    bench.assert_whole().await;
}

#[tokio::test]
async fn without_permission_to_look_an_operator_decides() {
    let (bench, _) = lost().await;
    assert_eq!(look(&bench, Look::NotPermitted, 66).await, State::NeedsReview);
    let job = bench.job_of(machine(1)).await;
    assert_eq!(job.reason.as_deref(), Some("cannot_list_actions"));
    assert_eq!(bench.store.questions(bench.tenant).await.unwrap(), 0);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_blocker_that_is_found_is_named() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Busy(None), 2).await;
    let ended = scan("older", machine(1), ActionStatus::Succeeded, "by hand", 0);
    let theirs = scan("theirs", machine(1), ActionStatus::InProgress, "by hand", 1);
    assert_eq!(look(&bench, Look::Read(vec![ended, theirs]), 3).await, State::Skipped);
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.reason.as_deref(), job.attempts), (Some("pending_action"), 0));
    assert_eq!(job.blocked_by.unwrap().action_id, "theirs");
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_blocker_without_a_name_is_looked_for_a_while_and_then_believed() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Busy(None), 2).await;
    assert_eq!(look(&bench, nothing(), 3).await, State::Sending);
    assert_eq!(look(&bench, nothing(), 47).await, State::Skipped);
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.reason.as_deref(), job.attempts), (Some("pending_action"), 0));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_blocker_of_a_type_that_is_not_configured_is_named_once_no_other_turns_up() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Busy(None), 2).await;
    let mut isolated = scan("i1", machine(1), ActionStatus::InProgress, "by hand", 1);
    isolated.action.action_type = "Isolate".to_owned();
    let shows = || Look::Read(vec![isolated.clone()]);
    assert_eq!(look(&bench, shows(), 7).await, State::Sending, "the scan in the way may not be listed yet");
    assert_eq!(look(&bench, shows(), 47).await, State::Skipped);
    let job = bench.job_of(machine(1)).await;
    assert_eq!(job.reason.as_deref(), Some("pending_action"));
    let blocker = job.blocked_by.unwrap();
    assert_eq!((blocker.action_id.as_str(), blocker.r#type.as_deref()), ("i1", Some("Isolate")));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_sweep_that_waits_does_so_for_a_blocker_without_a_name_too() {
    for (answer, seconds) in [(nothing(), 47), (Look::NotPermitted, 3)] {
        let bench = Bench::new().await;
        bench.sweep(vec![NewJob { on_pending: OnPending::Wait, ..job(1, machine(1)) }]).await;
        let claim = bench.call(1).await;
        bench.settle(&claim, Outcome::Busy(None), 2).await;
        assert_eq!(look(&bench, answer, seconds).await, State::Queued);
        assert_eq!(bench.job_of(machine(1)).await.attempts, 0);
        let again = bench.store.next_parked(bench.tenant).await.unwrap().unwrap();
        assert_eq!(again, at(seconds) + Duration::from_mins(15));
        bench.store.unpark_due(bench.tenant, again).await.unwrap();
        let claim = bench.call(1000).await;
        bench.settle(&claim, Outcome::Busy(None), 1001).await;
        look(&bench, Look::NotPermitted, 1002).await;
        let again = bench.store.next_parked(bench.tenant).await.unwrap().unwrap();
        assert_eq!(again, at(1002) + Duration::from_mins(30), "nothing will show its end");
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn without_permission_a_blocker_is_believed_at_once() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Busy(None), 2).await;
    assert_eq!(look(&bench, Look::NotPermitted, 3).await, State::Skipped);
    assert_eq!(bench.job_of(machine(1)).await.reason.as_deref(), Some("pending_action"));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_late_look_does_not_take_back_what_the_feed_has_shown() {
    let (bench, claim) = lost().await;
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    bench.feed(&[scan("a1", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 2)], 65).await;
    let looked = Looked {
        tenant: bench.tenant,
        asked,
        began: boot(661),
        at: at(661),
        boot: boot(661),
        look: Look::NotPermitted,
    };
    assert_eq!(bench.store.take_look(looked, policy()).await.unwrap(), State::Accepted);
    assert_eq!(bench.text("SELECT resolved FROM attempts").await, "found");
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_look_that_could_not_be_made_is_made_later() {
    let (bench, _) = lost().await;
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    bench.store.postpone_look(&asked, boot(300)).await.unwrap();
    let (again, due) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    assert_eq!((again.attempt, again.looks, due), (asked.attempt, 0, boot(300)));
}

/// A job whose call was answered with 404 at this second; what reading the machine shows decides.
async fn missing(bench: &Bench, known: Known, seconds: i64) -> State {
    let claim = bench.call(seconds).await;
    assert_eq!(bench.settle(&claim, Outcome::Missing, seconds + 1).await, State::Sending, "not final yet");
    look(bench, Look::Machine(known), seconds + 2).await
}

#[tokio::test]
async fn a_machine_that_is_not_there_either_is_unknown() {
    let bench = Bench::with_machines(&[1]).await;
    assert_eq!(missing(&bench, Known::No, 1).await, State::Rejected);
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.reason.as_deref(), job.attempts), (Some("unknown_machine"), 1));
    assert_eq!(bench.text("SELECT resolved FROM attempts").await, "absent");
    assert_eq!(bench.store.questions(bench.tenant).await.unwrap(), 0);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_machine_that_is_there_is_asked_again_later_and_not_for_ever() {
    let bench = Bench::with_machines(&[1]).await;
    for (n, rest) in [(1, 30), (1000, 60)] {
        assert_eq!(missing(&bench, Known::Yes, n).await, State::Queued);
        assert!(matches!(bench.claim(n + 3).await, Claimed::Nothing), "not at once");
        let again = bench.store.next_parked(bench.tenant).await.unwrap().unwrap();
        assert_eq!(again, at(n + 2 + rest));
        bench.store.unpark_due(bench.tenant, again).await.unwrap();
    }
    assert_eq!(missing(&bench, Known::Yes, 2000).await, State::Failed);
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.reason.as_deref(), job.attempts), (Some("attempts_exhausted"), 3));
    bench.assert_whole().await;
}

#[tokio::test]
async fn where_machines_may_not_be_read_the_second_404_is_believed() {
    let bench = Bench::with_machines(&[1]).await;
    assert_eq!(missing(&bench, Known::NotPermitted, 1).await, State::Queued);
    assert_eq!(bench.store.unpark_due(bench.tenant, at(33)).await.unwrap(), 1);
    assert_eq!(missing(&bench, Known::NotPermitted, 40).await, State::Rejected);
    assert_eq!(bench.job_of(machine(1)).await.reason.as_deref(), Some("unknown_machine"));
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_action_that_shows_up_meanwhile_goes_before_a_404() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Missing, 2).await;
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    let ours = scan("a1", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 2);
    bench.store.see_actions(bench.tenant, vec![ours], None, at(3)).await.unwrap();
    let late = Look::Machine(Known::No);
    let looked = Looked { tenant: bench.tenant, asked, began: boot(4), at: at(4), boot: boot(4), look: late };
    assert_eq!(bench.store.take_look(looked, policy()).await.unwrap(), State::Accepted);
    bench.assert_whole().await;
}
