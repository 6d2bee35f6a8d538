//! What becomes of calls on the wire whose sweep an operator cancels.

use super::*;
use crate::store::attempts::Looked;
use crate::store::cancellations::Wish;
use crate::store::settle::Look;

/// One machine, whose call got no answer, and whose sweep is cancelled while it is being looked up.
async fn cancelled(actions: bool) -> (Bench, Claim) {
    let bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    bench.settle(&claim, Outcome::Unknown, 61).await;
    let wish = Wish { comment: "a mistake".to_owned(), operator: operator(), at: at(70) };
    assert_eq!(bench.store.cancel_sweep(1, bench.tenant, wish, actions).await.unwrap(), 0);
    (bench, claim)
}

async fn look(bench: &Bench, seen: Vec<Seen>, seconds: i64) -> State {
    let (asked, _) = bench.store.next_question(bench.tenant).await.unwrap().unwrap();
    let (tenant, began, look) = (bench.tenant, boot(seconds), Look::Read(seen));
    let looked = Looked { tenant, asked, began, at: at(seconds), boot: began, look };
    bench.store.take_look(looked, policy()).await.unwrap()
}

#[tokio::test]
async fn a_call_that_had_no_effect_is_not_made_again() {
    for actions in [true, false] {
        let (bench, _) = cancelled(actions).await;
        assert_eq!(look(&bench, Vec::new(), 700).await, State::Cancelled);
        assert_eq!(bench.job_of(machine(1)).await.reason.as_deref(), Some("withdrawn"));
        assert!(matches!(bench.claim(701).await, Claimed::Nothing));
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn what_it_did_is_cancelled_if_that_was_asked_for() {
    for actions in [true, false] {
        let (bench, claim) = cancelled(actions).await;
        let ours = scan("a1", machine(1), ActionStatus::Pending, &claim.attempt.mark("weekly"), 2);
        assert_eq!(look(&bench, vec![ours], 80).await, State::Accepted);
        let wish = bench.store.next_cancellation(bench.tenant, 0).await.unwrap();
        let asked = wish.as_ref().map(|wish| (wish.action.as_str(), wish.comment.as_str()));
        assert_eq!(asked, actions.then_some(("a1", "a mistake")));
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn what_another_sweep_asks_for_meanwhile_goes_on() {
    let (bench, _) = cancelled(true).await;
    bench.sweep(vec![job(1, machine(1))]).await;
    assert_eq!(look(&bench, Vec::new(), 700).await, State::Queued);
    bench.call(701).await;
    bench.assert_whole().await;
}
