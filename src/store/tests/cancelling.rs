//! Wishes to cancel: what of their calls counts, and when none is made any more.

use super::*;
use crate::store::cancellations::{CancelCall, CancelOutcome, Cancellation, Wish};

/// A wish for the accepted scan of a machine.
async fn wished(bench: &Bench) -> Cancellation {
    bench.accepted("a1", 1).await;
    let wish = Wish { comment: "enough".to_owned(), operator: operator(), at: at(2) };
    assert!(bench.store.ask_to_cancel(bench.tenant, "a1".to_owned(), wish).await.unwrap());
    next(bench).await.unwrap()
}

async fn next(bench: &Bench) -> Option<Cancellation> {
    bench.store.next_cancellation(bench.tenant, 0).await.unwrap()
}

#[tokio::test]
async fn what_was_written_down_and_had_no_effect_does_not_count_and_nothing_else_is_taken_back() {
    let bench = Bench::with_machines(&[1]).await;
    let wish = wished(&bench).await;
    let settle =
        |wish: Cancellation, call, without_effect| bench.store.cancel_settled(wish, call, without_effect, at(3));
    // One with an answer that was lost: it counts, and is in doubt.
    assert!(bench.store.cancel_written(wish.clone(), at(3)).await.unwrap());
    settle(wish, CancelCall::Doubt(None), 0).await.unwrap();
    // Silence: nothing was written down, and nothing is settled by it.
    let wish = next(&bench).await.unwrap();
    settle(wish, CancelCall::Returned, 0).await.unwrap();
    let wish = next(&bench).await.unwrap();
    assert_eq!((wish.calls, wish.in_doubt), (1, true));
    // Two that were refused with their tokens.
    for _ in 0..2 {
        assert!(bench.store.cancel_written(wish.clone(), at(4)).await.unwrap());
    }
    assert_eq!(next(&bench).await.unwrap().calls, 3);
    settle(wish, CancelCall::Returned, 2).await.unwrap();
    let wish = next(&bench).await.unwrap();
    assert_eq!((wish.calls, wish.in_doubt), (1, true));
    settle(wish, CancelCall::Over(CancelOutcome::Cancelled, None), 0).await.unwrap();
    assert!(next(&bench).await.is_none());
    bench.assert_whole().await;
}

#[tokio::test]
async fn no_call_is_written_down_for_an_action_that_has_ended() {
    let bench = Bench::with_machines(&[1]).await;
    let wish = wished(&bench).await;
    let written = bench.number("SELECT count(*) FROM events WHERE kind = 'cancel_written'").await;
    bench.feed(&[scan("a1", machine(1), ActionStatus::Succeeded, "by hand", 20)], 21).await;
    assert!(!bench.store.cancel_written(wish, at(22)).await.unwrap());
    let wish = next(&bench).await.unwrap();
    assert_eq!((wish.calls, wish.in_doubt, wish.status), (0, false, ActionStatus::Succeeded));
    assert_eq!(bench.number("SELECT count(*) FROM events WHERE kind = 'cancel_written'").await, written);
}
