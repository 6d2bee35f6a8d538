//! Cancelling: what operators want cancelled is asked of Defender, an action at a time.
//!
//! It goes by the record: an action that has ended by now costs no call. Each call takes a slot of its own
//! budget and is written down before it leaves; one without an answer has its action read before anything else.
//! What the app may not do (403) it may do with no action: nothing else that is wanted by then is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Lane;
use super::reads::{NotRead, read};
use crate::defender::Read;
use crate::domain::action::ActionStatus;
use crate::domain::ledger::CallKind;
use crate::store::cancellations::{CancelCall, CancelOutcome, Cancellation};

/// Calls for one action, before it is left to itself.
const AT_MOST: u32 = 5;
/// How long to rest before what is still open is looked at again, at most.
const AGAIN: Duration = Duration::from_secs(30);

pub async fn run(lane: Arc<Lane>) {
    let beat = format!("cancel {}", lane.name);
    while !lane.stop.is_cancelled() {
        lane.shared.health.beat(&beat);
        let until = match round(&lane, &beat).await {
            Ok(0) | Err(NotRead::Stopping) => lane.now() + Duration::from_mins(1),
            Ok(_) => lane.now() + lane.follow_up.interval.min(AGAIN),
            Err(NotRead::SignedOut(until)) => until.min(lane.now() + AGAIN),
            Err(NotRead::Store(error)) => {
                lane.database_fails("what is to be cancelled", &error);
                lane.now() + AGAIN
            }
        };
        lane.wait(&lane.cancel_soon, Some(until)).await;
    }
    lane.shared.health.ended(&beat);
}

/// Goes through what is to be cancelled once, reading each wish when its turn has come: one before it may have
/// waited for an hour. Returns how much of it stays open.
async fn round(lane: &Lane, beat: &str) -> Result<usize, NotRead> {
    let store = &lane.shared.store;
    let (mut open, mut after) = (0, 0);
    // Once Defender has forbidden a call: in which words.
    let mut forbidden: Option<CancelCall> = None;
    while let Some(wish) = store.next_cancellation(lane.row, after).await? {
        after = wish.id;
        let written = AtomicU32::new(0);
        let call = match (&forbidden, end(&wish.status)) {
            (_, Some(end)) => end,
            (Some(forbidden), None) => forbidden.clone(),
            (None, None) => step(lane, beat, &wish, &written).await?,
        };
        let (at, written) = (lane.wall(), written.into_inner());
        let without_effect = match &call {
            // The last of them may have had one.
            CancelCall::Doubt(_) => written.saturating_sub(1),
            CancelCall::Returned | CancelCall::Over(..) => written,
        };
        if let CancelCall::Over(outcome, answer) = &call {
            let answer = answer.as_deref().unwrap_or_default();
            tracing::debug!(tenant = %lane.name, action = wish.action, outcome = outcome.as_str(), answer, "cancelling an action has ended");
            lane.shared.signals.finished.notify_one();
            lane.wake.notify_one();
        } else {
            open += 1;
        }
        if let CancelCall::Over(CancelOutcome::Forbidden, answer) = &call
            && forbidden.is_none()
        {
            let answer = answer.as_deref().unwrap_or_default();
            tracing::error!(tenant = %lane.name, answer, "Defender forbids the app to cancel actions (403): grant Machine.Scan, with admin consent; everything that is to be cancelled now ends as forbidden, without a call");
            forbidden = Some(call.clone());
        }
        let settle = || store.cancel_settled(wish.clone(), call.clone(), without_effect, at);
        lane.shared.until_it_holds("what came of a cancelling call", settle).await;
    }
    Ok(open)
}

/// How an action has ended, if it has.
fn end(status: &ActionStatus) -> Option<CancelCall> {
    let outcome = if *status == ActionStatus::Cancelled { CancelOutcome::Cancelled } else { CancelOutcome::Ended };
    (!status.is_open()).then_some(CancelCall::Over(outcome, None))
}

/// Asks for one action to be cancelled; `written` counts the calls that are on record.
async fn step(lane: &Lane, beat: &str, wish: &Cancellation, written: &AtomicU32) -> Result<CancelCall, NotRead> {
    if wish.in_doubt
        && let Some(known) = look(lane, beat, wish).await?
    {
        return Ok(known);
    }
    let store = &lane.shared.store;
    let answer = read(lane, beat, CallKind::CancelAction, |token| async move {
        match store.cancel_written(wish.clone(), lane.wall()).await {
            Ok(true) => {
                written.fetch_add(1, Ordering::SeqCst);
                lane.client.cancel_action(&token, &wish.action, &wish.comment).await
            }
            Ok(false) => Read::NotSent("not sent: the action has ended, or the wish".to_owned()),
            Err(error) => Read::NotSent(format!("not sent, since it could not be written down: {error}")),
        }
    })
    .await?;
    Ok(match answer {
        Read::Got(seen) => {
            let status = seen.action.status.clone();
            store.see_actions(lane.row, vec![seen], None, lane.wall()).await?;
            end(&status).unwrap_or(CancelCall::Doubt(None))
        }
        Read::Absent => CancelCall::Over(CancelOutcome::Unknown, None),
        Read::Forbidden { said, .. } => CancelCall::Over(CancelOutcome::Forbidden, Some(said)),
        // What has ended is refused, too.
        Read::Refused(said) => CancelCall::Doubt(Some(said)),
        Read::Failed(_) => CancelCall::Doubt(None),
        Read::Unauthorized | Read::Throttled(_) | Read::NotSent(_) => {
            let now = store.next_cancellation(lane.row, wish.id - 1).await?.filter(|now| now.id == wish.id);
            // It may have ended while its turn was waited for.
            now.and_then(|now| end(&now.status)).unwrap_or(CancelCall::Returned)
        }
    })
}

/// What the action itself tells; none when it is open, and may be asked again.
async fn look(lane: &Lane, beat: &str, wish: &Cancellation) -> Result<Option<CancelCall>, NotRead> {
    let answer =
        read(
            lane,
            beat,
            CallKind::GetAction,
            |token| async move { lane.client.get_action(&token, &wish.action).await },
        )
        .await?;
    let status = match answer {
        Read::Got(seen) => {
            let status = seen.action.status.clone();
            lane.shared.store.see_actions(lane.row, vec![seen], None, lane.wall()).await?;
            Some(status)
        }
        Read::Absent => return Ok(Some(CancelCall::Over(CancelOutcome::Unknown, None))),
        // Not readable: asking a second time is safe, and the answer tells.
        Read::Forbidden { .. } | Read::Refused(_) => None,
        Read::Unauthorized | Read::Throttled(_) | Read::Failed(_) | Read::NotSent(_) => {
            return Ok(Some(CancelCall::Doubt(wish.answer.clone())));
        }
    };
    Ok(match (status.as_ref().and_then(end), &wish.answer) {
        (Some(end), _) => Some(end),
        (None, Some(said)) => Some(CancelCall::Over(CancelOutcome::Refused, Some(said.clone()))),
        (None, None) if wish.calls >= AT_MOST => Some(CancelCall::Over(CancelOutcome::GaveUp, None)),
        (None, None) => None,
    })
}
