//! TX2: what each answer makes of its job.

use super::*;
use crate::domain::job::Reason;
use crate::domain::lookup::Question;
use crate::store::StoreError;
use crate::store::attempts::Looked;
use crate::store::settle::Look;

/// The state, the reason and the attempts that count of machine 1's job.
async fn told(bench: &Bench) -> (String, Option<String>, i64) {
    let job = bench.job_of(machine(1)).await;
    (job.state, job.reason, job.attempts)
}

fn expected(state: &str, reason: Option<&str>, attempts: i64) -> (String, Option<String>, i64) {
    (state.to_owned(), reason.map(str::to_owned), attempts)
}

#[tokio::test]
async fn an_action_with_our_mark_is_followed() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.accepted("a1", 1).await;
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.action_id.as_deref()), ("accepted", Some("a1")));
    assert_eq!(bench.text("SELECT attempt_id FROM actions WHERE origin = 'ours'").await, claim.attempt.to_string());
    assert_eq!(bench.last_events(3).await, ["attempt_answered", "action_seen", "job_moved"]);
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_answer_that_shows_the_end_ends_the_job_at_once() {
    for (status, state) in [
        (ActionStatus::Succeeded, State::Succeeded),
        (ActionStatus::Failed, State::Failed),
        (ActionStatus::TimeOut, State::TimedOut),
        (ActionStatus::Cancelled, State::Cancelled),
    ] {
        let bench = Bench::with_machines(&[1]).await;
        let claim = bench.call(1).await;
        let action = scan("a1", machine(1), status, &claim.attempt.mark("weekly"), 2).action;
        assert_eq!(bench.settle(&claim, Outcome::Created(action), 2).await, state);
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn a_machine_that_somebody_else_keeps_busy_is_skipped_and_the_action_is_theirs() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    let theirs = scan("theirs", machine(1), ActionStatus::Pending, "by hand", 1).action;
    assert_eq!(bench.settle(&claim, Outcome::Busy(Some(theirs)), 2).await, State::Skipped);
    assert_eq!(told(&bench).await, expected("skipped", Some("pending_action"), 0));
    assert_eq!(bench.text("SELECT origin FROM actions").await, "foreign");
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_busy_machine_is_waited_for_where_the_sweep_says_so() {
    let bench = Bench::new().await;
    bench.sweep(vec![NewJob { on_pending: OnPending::Wait, ..job(1, machine(1)) }]).await;
    let claim = bench.call(1).await;
    let theirs = scan("theirs", machine(1), ActionStatus::Pending, "by hand", 1).action;
    assert_eq!(bench.settle(&claim, Outcome::Busy(Some(theirs)), 2).await, State::Queued);
    assert_eq!(bench.job_of(machine(1)).await.blocked_by.unwrap().action_id, "theirs");
    assert!(matches!(bench.claim(3).await, Claimed::Nothing));
    bench.feed(&[scan("theirs", machine(1), ActionStatus::Failed, "by hand", 9)], 10).await;
    bench.call(11).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_sweep_that_waits_does_so_though_the_blocking_action_has_just_ended() {
    let bench = Bench::new().await;
    bench.sweep(vec![NewJob { on_pending: OnPending::Wait, ..job(1, machine(1)) }]).await;
    let claim = bench.call(1).await;
    let ended = scan("theirs", machine(1), ActionStatus::Succeeded, "by hand", 1).action;
    assert_eq!(bench.settle(&claim, Outcome::Busy(Some(ended)), 2).await, State::Queued);
    assert!(bench.store.next_parked(bench.tenant).await.unwrap().is_some());
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_action_of_an_earlier_attempt_of_the_same_job_is_its_own() {
    let bench = Bench::with_machines(&[1]).await;
    let first = bench.call(1).await;
    // Said to have had no effect; but it had one, and the second call is told so.
    bench.settle(&first, Outcome::Throttled(Told::default()), 2).await;
    let second = bench.call(3).await;
    let ours = scan("a1", machine(1), ActionStatus::Pending, &first.attempt.mark("weekly"), 3).action;
    assert_eq!(bench.settle(&second, Outcome::Busy(Some(ours)), 4).await, State::Accepted);
    assert_eq!(bench.job_of(machine(1)).await.action_id.as_deref(), Some("a1"));
    assert_eq!(bench.text("SELECT attempt_id FROM actions").await, first.attempt.to_string());
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_refusal_ends_the_job_with_its_reason() {
    for reason in [Reason::UnknownMachine, Reason::UnsupportedPlatform, Reason::UnsupportedClient] {
        let bench = Bench::with_machines(&[1]).await;
        let claim = bench.call(1).await;
        assert_eq!(bench.settle(&claim, Outcome::Refused(reason), 2).await, State::Rejected);
        assert_eq!(told(&bench).await, expected("rejected", Some(reason.as_str()), 1));
        bench.assert_whole().await;
    }
}

/// A no in words to machine 1; returns what became of its job.
async fn refused(bench: &Bench, claim: &Claim, outcome: Outcome, seconds: i64) -> (String, Option<String>, i64) {
    assert_eq!(claim.job.machine, machine(1));
    let said = Some("InvalidInput: words.".to_owned());
    let refused = Settlement { said, ..bench.settlement(claim, outcome, seconds) };
    bench.store.settle(refused, policy()).await.unwrap();
    told(bench).await
}

#[tokio::test]
async fn a_readable_no_is_asked_once_more_then_rejects_the_job() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let no = || Outcome::Refused(Reason::Refused);
    assert_eq!(refused(&bench, &bench.call(1).await, no(), 2).await, expected("queued", None, 1));
    assert_eq!(bench.job_of(machine(1)).await.detail.as_deref(), Some("InvalidInput: words."));
    assert_eq!(bench.call(3).await.job.machine, machine(2), "the others go on at once");
    bench.store.unpark_due(bench.tenant, at(31)).await.unwrap();
    assert!(matches!(bench.claim(31).await, Claimed::Nothing), "it rests for half a minute");
    assert_eq!(refused(&bench, &bench.call_parked(32).await, no(), 33).await, expected("rejected", Some("refused"), 2));
    assert_eq!(bench.job_of(machine(1)).await.detail.as_deref(), Some("InvalidInput: words."));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_refused_machine_is_called_again_only_after_a_look_at_the_list() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    refused(&bench, &claim, Outcome::Refused(Reason::Refused), 10).await;
    bench.store.unpark_due(bench.tenant, at(40)).await.unwrap();
    let before = Ask { looked: boot(9), ..bench.ask(40) };
    assert!(matches!(bench.store.claim(before).await.unwrap(), Claimed::Nothing), "the last look was before the no");
    // The no was not true: the look finds the scan.
    bench.feed(&[scan("a1", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 10)], 41).await;
    assert_eq!(told(&bench).await, expected("accepted", None, 1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_no_after_a_forbidden_call_is_final() {
    let bench = Bench::with_machines(&[1]).await;
    let forbidden = Outcome::Forbidden(Denial::Unnamed);
    assert_eq!(refused(&bench, &bench.call(1).await, forbidden, 2).await, expected("queued", None, 0));
    let again = bench.call(3).await;
    let no = Outcome::Refused(Reason::Refused);
    assert_eq!(refused(&bench, &again, no, 4).await, expected("rejected", Some("refused"), 1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_job_that_goes_back_again_and_again_rests_longer_each_time() {
    for outcome in [Outcome::Unauthorized, Outcome::Forbidden(Denial::Feature), Outcome::Malformed] {
        let bench = Bench::with_machines(&[1]).await;
        bench.settle(&bench.call(1).await, outcome.clone(), 2).await;
        bench.settle(&bench.call(3).await, outcome.clone(), 4).await;
        assert!(matches!(bench.claim(4).await, Claimed::Nothing), "{outcome:?}");
        bench.settle(&bench.call_parked(9).await, outcome.clone(), 10).await;
        bench.store.unpark_due(bench.tenant, at(19)).await.unwrap();
        assert!(matches!(bench.claim(19).await, Claimed::Nothing), "{outcome:?}");
        bench.call_parked(20).await;
    }
}

#[tokio::test]
async fn what_is_not_the_jobs_fault_does_not_count_against_it() {
    let bench = Bench::with_machines(&[1]).await;
    let outcomes = [Outcome::Unauthorized, Outcome::Throttled(Told::default()), Outcome::NotSent];
    for (n, outcome) in (0..).zip(outcomes.iter().cycle().take(12)) {
        let claim = bench.call_parked(n * 100).await;
        assert_eq!(bench.settle(&claim, outcome.clone(), n * 100 + 1).await, State::Queued);
        assert_eq!(told(&bench).await, expected("queued", None, 0));
    }
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_a_question_and_counts() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    assert_eq!(bench.settle(&claim, Outcome::Unknown, 61).await, State::Sending);
    assert_eq!(told(&bench).await, expected("sending", None, 1));
    let (asked, due) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    assert_eq!((asked.question, asked.since, due), (Question::Effect, boot(61), boot(66)));
    assert_eq!(bench.number("SELECT settles_boot FROM slots").await, (boot(61) + GRACE).0);
    assert!(matches!(bench.claim(62).await, Claimed::Nothing));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_busy_answer_without_a_name_asks_which_action_it_is() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    assert_eq!(bench.settle(&claim, Outcome::Busy(None), 2).await, State::Sending);
    let (asked, due) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    assert_eq!((asked.question, due), (Question::Blocker, boot(2)));
    assert_eq!(bench.number("SELECT settles_boot FROM slots").await, boot(2).0, "the answer was read");
}

#[tokio::test]
async fn a_machine_that_is_refused_while_others_are_not_is_its_own_trouble() {
    for outcome in [Outcome::Malformed, Outcome::Forbidden(Denial::Unnamed)] {
        let bench = Bench::with_machines(&[1, 2]).await;
        let refused = async |claim: &Claim, seconds: i64| {
            bench.settle(claim, outcome.clone(), seconds).await;
            told(&bench).await
        };
        // What the first one means is not known: the lane is held, and probed.
        assert_eq!(refused(&bench.call(10).await, 11).await, expected("queued", None, 0));
        let other = bench.probe(20).await;
        assert_eq!(other.job.machine, machine(2));
        bench.settle(&other, outcome.clone(), 21).await;
        assert_eq!(refused(&bench.probe(30).await, 31).await, expected("queued", None, 0), "all are refused");
        let other = bench.probe(40).await;
        let busy = scan("b", machine(2), ActionStatus::Pending, "by hand", 39).action;
        bench.settle(&other, Outcome::Busy(Some(busy)), 41).await;
        assert_eq!(refused(&bench.call(50).await, 51).await, expected("queued", None, 1), "others are not");
        assert!(matches!(bench.claim(80).await, Claimed::Nothing), "it rests for half a minute");
        assert_eq!(refused(&bench.call_parked(81).await, 82).await, expected("queued", None, 2), "it alone is left");
        let last = bench.call_parked(142).await;
        assert_eq!(refused(&last, 143).await, expected("failed", Some("attempts_exhausted"), 3));
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn a_probe_that_finds_the_machine_busy_takes_no_attempt_back() {
    let bench = Bench::new().await;
    bench.sweep(vec![NewJob { on_pending: OnPending::Wait, ..job(1, machine(1)) }]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Unknown, 2).await;
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    let (tenant, seconds) = (bench.tenant, 900);
    let look = Look::Read(Vec::new());
    let looked = Looked { tenant, asked, began: boot(seconds), at: at(seconds), boot: boot(seconds), look };
    bench.store.take_look(looked, policy()).await.unwrap();
    assert_eq!(told(&bench).await, expected("queued", None, 1));
    let probe = bench.probe(901).await;
    let theirs = scan("theirs", machine(1), ActionStatus::Pending, "by hand", 3).action;
    bench.settle(&probe, Outcome::Busy(Some(theirs)), 902).await;
    assert_eq!(told(&bench).await, expected("queued", None, 1));
}

#[tokio::test]
async fn a_mark_that_was_copied_to_another_action_owns_nothing() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Unknown, 2).await;
    let copied = |id, n| scan(id, machine(n), ActionStatus::Succeeded, &claim.attempt.mark("copied"), 3);
    let mut isolated = copied("i1", 1);
    isolated.action.action_type = "Isolate".to_owned();
    bench.feed(&[isolated, copied("a2", 2)], 4).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "sending");
    assert_eq!(bench.number("SELECT count(*) FROM actions WHERE origin = 'ours'").await, 0);
    bench.feed(&[copied("a1", 1)], 5).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    bench.assert_whole().await;
}

#[tokio::test]
async fn the_answer_to_our_own_call_is_ours_whatever_it_says_of_its_machine() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    let mut answer = scan("a1", machine(9), ActionStatus::Pending, &claim.attempt.mark("weekly"), 2).action;
    answer.action_type = String::new();
    assert_eq!(bench.settle(&claim, Outcome::Created(answer), 3).await, State::Accepted);
    bench.feed(&[scan("a1", machine(9), ActionStatus::Succeeded, &claim.attempt.mark("weekly"), 4)], 5).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_answer_is_taken_once() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Throttled(Told::default()), 2).await;
    let before = bench.number("SELECT count(*) FROM events").await;
    let again = bench.settlement(&claim, Outcome::Refused(Reason::UnknownMachine), 3);
    assert!(matches!(bench.store.settle(again, policy()).await, Err(StoreError::Guard(_))));
    assert_eq!(told(&bench).await, expected("queued", None, 0));
    assert_eq!(bench.number("SELECT count(*) FROM events").await, before);
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_answer_for_another_epoch_is_refused_whole() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    let foreign = Settlement { epoch: Epoch(99), ..bench.settlement(&claim, Outcome::Throttled(Told::default()), 2) };
    assert!(matches!(bench.store.settle(foreign, policy()).await, Err(StoreError::Guard(_))));
    assert_eq!(bench.number("SELECT count(*) FROM slots WHERE settles_boot < 9223372036854775807").await, 0);
    assert_eq!(told(&bench).await, expected("sending", None, 1));
    assert_eq!(bench.settle(&claim, Outcome::Throttled(Told::default()), 3).await, State::Queued);
}

#[tokio::test]
async fn the_feed_may_be_faster_than_the_answer() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.feed(&[scan("a1", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 1)], 2).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "accepted");
    // The answer itself is lost: there is nothing left to ask.
    assert_eq!(bench.settle(&claim, Outcome::Unknown, 61).await, State::Accepted);
    assert_eq!(bench.store.questions(bench.tenant).await.unwrap(), 0);
    bench.assert_whole().await;
}
