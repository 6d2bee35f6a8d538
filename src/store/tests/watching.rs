//! What those who watch are told.

use super::*;
use crate::store::attempts::Looked;
use crate::store::recent::MINUTES;
use crate::store::settle::Look;

#[tokio::test]
async fn calls_by_the_minute_add_up_to_what_the_ledger_counts() {
    let bench = Bench::with_machines(&[1, 2, 3, 4]).await;
    for seconds in [5, 30, 130] {
        let claim = bench.call(seconds).await;
        bench.settle(&claim, Outcome::Missing, seconds + 1).await;
    }
    bench.call(150).await;
    for now in [151, 200, 3000] {
        let minutes = bench.store.calls_by_minute(bench.budget, CallKind::Scan, boot(now)).await.unwrap();
        let used = bench.store.used(bench.budget, CallKind::Scan, boot(now)).await.unwrap();
        assert_eq!((minutes.len(), minutes.iter().sum::<u32>()), (MINUTES, used.hour), "at {now}");
        assert_eq!(minutes.last(), Some(&1), "the call on the wire is one of now: {minutes:?}");
    }
    let later = bench.store.calls_by_minute(bench.budget, CallKind::Scan, boot(3 * 3600)).await.unwrap();
    assert_eq!(later.iter().sum::<u32>(), 1, "what has settled two hours ago is forgotten");
    let lists = bench.store.calls_by_minute(bench.budget, CallKind::ListActions, boot(151)).await.unwrap();
    assert_eq!(lists, vec![0; MINUTES]);
}

#[tokio::test]
async fn what_ended_is_told_by_state_and_reason_with_the_last_of_each() {
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    for seconds in [10, 20] {
        let claim = bench.call(seconds).await;
        let theirs = scan(&format!("theirs {seconds}"), claim.job.machine, ActionStatus::Pending, "by hand", 1).action;
        bench.settle(&claim, Outcome::Busy(Some(theirs)), seconds + 1).await;
    }
    let claim = bench.call(30).await;
    let action = scan("a1", claim.job.machine, ActionStatus::Succeeded, &claim.attempt.mark("weekly"), 31).action;
    bench.settle(&claim, Outcome::Created(action), 31).await;
    let told = async |states: &[State], since| bench.store.ended_since(bench.tenant, states, at(since)).await.unwrap();
    let skipped = told(&[State::Skipped, State::Failed], 0).await;
    let job = bench.job_of(machine(2)).await;
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    let of = &skipped[0];
    assert_eq!((of.state, of.reason.as_deref(), of.jobs), (State::Skipped, Some("pending_action"), 2));
    assert_eq!((of.last_at, of.last_job), (at(21), job.id));
    assert_eq!(told(&[State::Skipped], 15).await[0].jobs, 1);
    assert_eq!(told(State::ALL, 21).await.len(), 1, "only the scan that succeeded");
}

#[tokio::test]
async fn a_machine_needs_a_decision_until_somebody_asks_for_it_again() {
    let bench = Bench::with_machines(&[1]).await;
    let undecided = async || bench.store.undecided(bench.tenant).await.unwrap();
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Unknown, 61).await;
    assert_eq!(undecided().await, 0, "it is being looked up");
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    let (began, look) = (boot(661), Look::NotPermitted);
    let looked = Looked { tenant: bench.tenant, asked, began, at: at(661), boot: boot(661), look };
    assert_eq!(bench.store.take_look(looked, policy()).await.unwrap(), State::NeedsReview);
    assert_eq!(undecided().await, 1);
    bench.sweep(vec![NewJob { scan: ScanType::Full, ..job(1, machine(1)) }]).await;
    assert_eq!(undecided().await, 1, "a scan of another type decides nothing");
    bench.sweep(quick(&[1])).await;
    assert_eq!(undecided().await, 0, "it is asked for again");
    for seconds in [700, 710] {
        let claim = bench.call(seconds).await;
        let mark = claim.attempt.mark("weekly");
        let done = scan(&format!("a{seconds}"), machine(1), ActionStatus::Succeeded, &mark, seconds).action;
        bench.settle(&claim, Outcome::Created(done), seconds + 1).await;
    }
    assert_eq!(undecided().await, 0, "and stays decided when that has ended");
}

#[tokio::test]
async fn what_is_held_is_not_on_its_way() {
    let bench = Bench::with_machines(&[1, 2]).await;
    bench.take(Chunk { jobs: quick(&[2, 3, 4, 5]), ..Chunk::default() }, true).await;
    bench.call(1).await;
    let contoso = ("contoso".parse().unwrap(), 2);
    assert_eq!(bench.store.unsent_by_tenant().await.unwrap(), [contoso], "one on the wire, one queued");
}

#[tokio::test]
async fn what_needs_review_is_counted_by_machine_and_no_other_job_is_read() {
    let bench = Bench::new().await;
    let plan = bench.plan(crate::store::recent::UNDECIDED.to_owned()).await;
    let steps: Vec<_> = plan.lines().filter(|step| step.contains("jobs") || step.contains("again")).collect();
    assert!(steps.len() == 3 && steps.iter().all(|step| step.starts_with("SEARCH")), "{plan}");
    assert!(steps.iter().any(|step| step.contains("INDEX jobs_undecided")), "{plan}");
}

#[tokio::test]
async fn unknown_statuses_are_counted_while_they_are_followed() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let (first, second) = (bench.accepted("a1", 1).await, bench.accepted("a2", 3).await);
    let ours = |id: &str, n, claim: &Claim, status: &str, updated| {
        scan(id, machine(n), ActionStatus::parse(status), &claim.attempt.mark("weekly"), updated)
    };
    let long = "x".repeat(500);
    let theirs = |id: &str, status: &str| scan(id, machine(9), ActionStatus::parse(status), "by hand", 5);
    let page = [ours("a1", 1, &first, "Expired", 10), ours("a2", 2, &second, "Canceled", 10), theirs("b", &long)];
    bench.feed(&page, 11).await;
    let shown = async |since| bench.store.unknown_statuses(bench.tenant, at(since)).await.unwrap();
    assert_eq!(shown(0).await, [("Expired".to_owned(), 1), ("x".repeat(40), 1)].into());
    assert_eq!(shown(60).await, [("Expired".to_owned(), 1)].into(), "what others asked for is not followed");
    assert_eq!(bench.job_of(machine(2)).await.state, "cancelled", "Canceled is Cancelled");
    bench.feed(&[ours("a1", 1, &first, "Succeeded", 20)], 21).await;
    assert!(shown(60).await.is_empty());
    for n in 0..9 {
        bench.feed(&[theirs(&format!("c{n}"), &format!("odd{n}"))], 30).await;
    }
    assert_eq!(shown(0).await.len(), 5, "of many words some");
    let plan = bench.plan(crate::store::status::UNKNOWN_STATUSES.to_owned()).await;
    assert!(plan.contains("actions_of_unknown_status"), "however many actions there are: {plan}");
}
