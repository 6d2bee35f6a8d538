//! What Defender's list of actions makes of the jobs.

use super::*;
use crate::store::attempts::Looked;
use crate::store::settle::Look;

#[tokio::test]
async fn accepted_jobs_end_as_their_actions_do() {
    for (status, state) in [
        (ActionStatus::Succeeded, "succeeded"),
        (ActionStatus::Failed, "failed"),
        (ActionStatus::TimeOut, "timed_out"),
        (ActionStatus::Cancelled, "cancelled"),
    ] {
        let bench = Bench::with_machines(&[1]).await;
        let claim = bench.accepted("a1", 1).await;
        let shown = |status, updated| scan("a1", machine(1), status, &claim.attempt.mark("weekly"), updated);
        bench.feed(&[shown(ActionStatus::InProgress, 10)], 11).await;
        assert_eq!(bench.job_of(machine(1)).await.state, "accepted");
        bench.feed(&[shown(status, 20)], 21).await;
        assert_eq!(bench.job_of(machine(1)).await.state, state);
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn what_an_action_says_of_its_error_is_shown_as_people_look_it_up() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.accepted("a1", 1).await;
    let mut ended = scan("a1", machine(1), ActionStatus::TimeOut, &claim.attempt.mark("weekly"), 20);
    ended.raw = ended.raw.replacen('{', "{\"errorHResult\":-2145844840,", 1);
    bench.feed(&[ended, scan("b", machine(2), ActionStatus::Failed, "by hand", 20)], 21).await;
    let told = Some("0x80190198 (HTTP 408: request timeout)");
    assert_eq!(bench.job_of(machine(1)).await.error.as_deref(), told);
    let mut errors = Vec::new();
    let each = |line: crate::store::lists::ActionLine| {
        errors.push((line.action_id, line.error));
        Ok(())
    };
    bench.store.actions(&Wanted::default(), each).await.unwrap().unwrap();
    errors.sort();
    assert_eq!(errors, [("a1".to_owned(), told.map(str::to_owned)), ("b".to_owned(), None)]);
}

#[tokio::test]
async fn actions_of_others_are_kept_and_move_no_job() {
    let bench = Bench::with_machines(&[1]).await;
    let stranger = AttemptId(Uuid::from_u128(0xdead)).mark("another sweepd");
    bench
        .feed(
            &[
                scan("hand", machine(1), ActionStatus::Succeeded, "by hand", 1),
                scan("other", machine(2), ActionStatus::Pending, &stranger, 1),
            ],
            2,
        )
        .await;
    assert_eq!(bench.number("SELECT count(*) FROM actions WHERE origin = 'foreign'").await, 2);
    assert_eq!(bench.job_of(machine(1)).await.state, "queued");
    assert_eq!(bench.open().await, ["other"]);
    bench.assert_whole().await;
}

#[tokio::test]
async fn the_object_is_kept_as_it_came_and_told_once() {
    let bench = Bench::with_machines(&[1]).await;
    let theirs = scan("a", machine(1), ActionStatus::Pending, "by hand", 1);
    bench.feed(std::slice::from_ref(&theirs), 2).await;
    let events = bench.number("SELECT count(*) FROM events").await;
    bench.feed(std::slice::from_ref(&theirs), 3).await;
    assert_eq!(bench.number("SELECT count(*) FROM events").await, events, "nothing new was said");
    assert_eq!(bench.text("SELECT raw FROM actions").await, theirs.raw);
}

#[tokio::test]
async fn what_is_known_already_costs_no_write() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.accepted("a", 1).await;
    let other = Store::open_existing(bench.folder.path()).await.unwrap().unwrap();
    // 450 of others, and ours: more than one transaction takes.
    let mut page: Vec<Seen> =
        (0..450).map(|n| scan(&format!("b{n}"), machine(9), ActionStatus::Succeeded, "by hand", 2)).collect();
    page.push(scan("a", machine(1), ActionStatus::InProgress, &claim.attempt.mark("weekly"), 5));
    let feed = async |page: &[Seen], seconds| {
        bench.store.see_actions(bench.tenant, page.to_vec(), Some(at(5)), at(seconds)).await.unwrap()
    };
    assert_eq!(feed(&page, 10).await, 451);
    let before = other.data_version().await.unwrap();
    // Read singly, an action has an envelope.
    page[7].raw = page[7].raw.replacen('{', "{\"@odata.context\":\"x\",", 1);
    assert_eq!(feed(&page, 11).await, 0);
    assert_eq!(other.data_version().await.unwrap(), before, "nothing was written");
    page[8] = scan("b8", machine(9), ActionStatus::Failed, "by hand", 11);
    page[450] = scan("a", machine(1), ActionStatus::Succeeded, &claim.attempt.mark("weekly"), 12);
    assert_eq!(feed(&page, 13).await, 2);
    assert_ne!(other.data_version().await.unwrap(), before);
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_list_that_lags_is_believed_about_whose_an_action_is() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    let mut nameless = scan("a", machine(1), ActionStatus::Succeeded, "", 9);
    nameless.action.comment = None;
    bench.feed(&[nameless], 10).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "sending");
    bench.feed(&[scan("a", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 2)], 11).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_list_that_lags_takes_nothing_back() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.accepted("a1", 1).await;
    let shown = |status, updated| scan("a1", machine(1), status, &claim.attempt.mark("weekly"), updated);
    bench.feed(&[shown(ActionStatus::Succeeded, 50)], 51).await;
    bench.feed(&[shown(ActionStatus::InProgress, 20)], 52).await;
    assert_eq!(bench.text("SELECT status FROM actions").await, "Succeeded");
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    bench.assert_whole().await;
}

#[tokio::test]
async fn two_actions_of_one_job_are_both_on_record() {
    let bench = Bench::with_machines(&[1]).await;
    let first = bench.call(1).await;
    bench.settle(&first, Outcome::Throttled(Told::default()), 2).await;
    let second = bench.accepted("a2", 3).await;
    bench
        .feed(
            &[
                scan("a1", machine(1), ActionStatus::Succeeded, &first.attempt.mark("weekly"), 10),
                scan("a2", machine(1), ActionStatus::InProgress, &second.attempt.mark("weekly"), 10),
            ],
            11,
        )
        .await;
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.action_id.as_deref()), ("accepted", Some("a2")), "it follows its own");
    assert_eq!(bench.number("SELECT count(*) FROM actions WHERE origin = 'ours' AND job_id IS NOT NULL").await, 2);
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_action_called_absent_that_shows_up_late_saves_the_second_call() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Unknown, 61).await;
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    let looked = Looked {
        tenant: bench.tenant,
        asked,
        began: boot(661),
        at: at(661),
        boot: boot(661),
        look: Look::Read(Vec::new()),
    };
    assert_eq!(bench.store.take_look(looked, policy()).await.unwrap(), State::Queued);
    bench.feed(&[scan("a1", machine(1), ActionStatus::InProgress, &claim.attempt.mark("weekly"), 700)], 701).await;
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.action_id.as_deref()), ("accepted", Some("a1")));
    assert!(matches!(bench.claim(702).await, Claimed::Nothing));
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_action_of_a_finished_job_changes_nothing_but_is_known() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Refused(crate::domain::job::Reason::UnknownMachine), 2).await;
    bench.feed(&[scan("a1", machine(1), ActionStatus::Succeeded, &claim.attempt.mark("weekly"), 9)], 10).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "rejected");
    assert_eq!(bench.text("SELECT origin FROM actions").await, "ours");
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_action_stays_ours_when_a_list_leaves_its_comment_out() {
    let bench = Bench::with_machines(&[1]).await;
    bench.accepted("a1", 1).await;
    bench.feed(&[scan("a1", machine(1), ActionStatus::Succeeded, "", 20)], 21).await;
    assert_eq!(bench.text("SELECT origin FROM actions").await, "ours");
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_status_that_nobody_documents_is_kept_and_ends_nothing() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.accepted("a1", 1).await;
    let odd = scan("a1", machine(1), ActionStatus::parse("Paused"), &claim.attempt.mark("weekly"), 20);
    bench.feed(&[odd], 21).await;
    assert_eq!(bench.text("SELECT status FROM actions").await, "Paused");
    assert_eq!(bench.job_of(machine(1)).await.state, "accepted");
}

#[tokio::test]
async fn the_cursor_of_the_feed_never_goes_back() {
    let bench = Bench::new().await;
    let cursor = async |to| {
        bench.store.see_actions(bench.tenant, Vec::new(), to, at(1)).await.unwrap();
        bench.store.lane_memory(bench.tenant).await.unwrap().feed_cursor
    };
    assert_eq!(cursor(None).await, None);
    assert_eq!(cursor(Some(at(9))).await, Some(at(9)));
    assert_eq!(cursor(Some(at(5))).await, Some(at(9)));
    assert_eq!(cursor(None).await, Some(at(9)));
}

#[tokio::test]
async fn an_action_that_does_not_end_is_given_up_in_time() {
    let bench = Bench::with_machines(&[1, 2]).await;
    bench.accepted("a1", 1).await;
    let second = bench.accepted("a2", 3).await;
    let works = scan("a2", machine(2), ActionStatus::InProgress, &second.attempt.mark("weekly"), 20);
    bench.feed(&[works], 21).await;
    let given_up = bench.store.give_up(bench.tenant, at(100), at(0), at(200)).await.unwrap();
    assert_eq!(given_up, 1);
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.reason.as_deref()), ("timed_out", Some("gave_up")));
    assert_eq!(bench.job_of(machine(2)).await.state, "accepted", "what is in progress has its own patience");
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_was_given_up_is_waited_for_no_longer() {
    let bench = Bench::with_machines(&[1]).await;
    bench.accepted("a1", 1).await;
    bench.sweep(vec![NewJob { scan: ScanType::Full, ..job(1, machine(1)) }]).await;
    assert!(matches!(bench.claim(3).await, Claimed::Nothing), "our own Quick has to end first");
    assert_eq!(bench.store.give_up(bench.tenant, at(100), at(0), at(200)).await.unwrap(), 1);
    let parked = bench.store.next_parked(bench.tenant).await.unwrap().unwrap();
    bench.store.unpark_due(bench.tenant, parked).await.unwrap();
    assert!(matches!(bench.claim(8000).await, Claimed::Nothing));
    let full = "SELECT state || ' ' || reason FROM jobs WHERE scan_type = 'Full'";
    assert_eq!(bench.text(full).await, "skipped pending_action");
    bench.assert_whole().await;
}

#[tokio::test]
async fn looking_for_what_to_give_up_reads_no_more_than_there_is_to_give_up() {
    let bench = Bench::with_machines(&[1]).await;
    bench.accepted("a1", 1).await;
    let explain = format!("EXPLAIN QUERY PLAN {}", crate::store::actions::OVERDUE);
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(explain))
        .bind(bench.tenant)
        .bind(0)
        .bind(0)
        .bind(1)
        .fetch_all(&mut *bench.store.reader().await.unwrap())
        .await
        .unwrap();
    let steps: Vec<_> = plan.iter().map(|step| step.3.as_str()).collect();
    assert!(steps.len() == 2 && steps[0].contains("actions_not_ended (tenant_id=? AND first_seen_at<?)"), "{steps:?}");
    assert!(steps[1].contains("INTEGER PRIMARY KEY"), "{steps:?}");
}

#[tokio::test]
async fn what_defender_does_not_know_any_more_keeps_no_machine_busy() {
    let bench = Bench::with_machines(&[1]).await;
    bench.feed(&[scan("purged", machine(1), ActionStatus::Pending, "somebody's", 1)], 2).await;
    let gone = async |seconds| bench.store.action_gone(bench.tenant, "purged".to_owned(), at(seconds)).await.unwrap();
    gone(60).await;
    assert_eq!(bench.open().await, ["purged"], "an index may lag");
    gone(3600).await;
    assert!(bench.open().await.is_empty());
    bench.call(3601).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn while_the_list_cannot_be_read_nothing_is_skipped_for_what_it_once_showed() {
    let bench = Bench::with_machines(&[1]).await;
    bench.feed(&[scan("old", machine(1), ActionStatus::Pending, "somebody's", 1)], 2).await;
    let Claimed::Call(claim) = bench.store.claim(Ask { blind: true, ..bench.ask(9) }).await.unwrap() else {
        panic!("Defender's answer decides");
    };
    assert_eq!(claim.job.machine, machine(1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_answer_that_comes_after_the_list_has_told_the_end_ends_the_job() {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    // The list shows it first, without its comment and already ended.
    let mut ended = scan("a", machine(1), ActionStatus::Succeeded, "", 9);
    ended.action.comment = None;
    bench.feed(&[ended], 10).await;
    let answer = scan("a", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 2);
    assert_eq!(bench.settle(&claim, Outcome::Created(answer.action), 11).await, State::Succeeded);
    bench.assert_whole().await;
}

#[tokio::test]
async fn an_end_that_is_dated_before_the_beginning_is_an_end() {
    let bench = Bench::with_machines(&[1]).await;
    let mark = bench.accepted("a1", 100).await.attempt.mark("weekly");
    bench.feed(&[scan("a1", machine(1), ActionStatus::Succeeded, &mark, 20)], 30).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    bench.feed(&[scan("a1", machine(1), ActionStatus::Pending, &mark, 19)], 40).await;
    assert_eq!(bench.text("SELECT status FROM actions").await, "Succeeded");
    bench.assert_whole().await;
}
