//! Reading calls: each takes a slot of its own budget before it is made.

use std::time::Duration;

use super::lane::Lane;
use crate::defender::{Read, Token};
use crate::domain::id::SlotId;
use crate::domain::ledger::{Admission, CallKind};
use crate::domain::time::{Boot, seconds_left};
use crate::store::StoreError;

/// A read that has to wait longer for its budget keeps no scan back.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why a read was not made.
#[derive(Debug)]
pub enum NotRead {
    /// The lane stops.
    Stopping,
    /// There is no token; tried again then.
    SignedOut(Boot),
    /// The database failed.
    Store(StoreError),
}

impl From<StoreError> for NotRead {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Makes a reading call once the budget admits it; with a fresh token a second time, should the
/// first be refused.
///
/// `beat` is the loop that waits: however long the budget makes it wait, it is alive.
pub async fn read<T, F>(lane: &Lane, beat: &str, kind: CallKind, call: impl Fn(Token) -> F) -> Result<Read<T>, NotRead>
where
    F: Future<Output = Read<T>>,
{
    let mut again = true;
    loop {
        let token = lane.token().await.map_err(|error| NotRead::SignedOut(error.until))?;
        let slot = slot(lane, beat, kind).await?;
        let began = lane.now();
        let answer = call(token.clone()).await;
        let ended = lane.now();
        let took = ended.since(began);
        // At once: the other loop that reads must not go on while this is written down.
        let hold = match &answer {
            Read::Throttled(told) => Some(lane.hold_reads(kind, *told)),
            _ => None,
        };
        lane.shared.metrics.call(lane.name.as_str(), kind.as_str(), answer.word(), took);
        // A read that failed on the way may still arrive.
        let settles = if matches!(answer, Read::Failed(_)) { ended + lane.unknown_grace } else { ended };
        let body = body(kind, &answer, took);
        let at = lane.wall();
        lane.shared
            .until_it_holds("a reading call", || {
                lane.shared.store.settle_read(lane.row, slot, settles, at, body.clone())
            })
            .await;
        match &answer {
            Read::Unauthorized => {
                lane.client.refused(&token).await;
                if again {
                    again = false;
                    continue;
                }
            }
            Read::Throttled(told) => {
                lane.learn(kind, *told).await;
                let seconds = seconds_left(hold.unwrap_or(ended).since(lane.now()));
                tracing::warn!(tenant = %lane.name, call = kind.as_str(), seconds, "Defender throttles a reading call (429); scans go on, and a busy machine costs a call meanwhile");
            }
            _ => lane.release_reads(kind),
        }
        return Ok(answer);
    }
}

fn body<T>(kind: CallKind, answer: &Read<T>, took: Duration) -> serde_json::Value {
    let said = match answer {
        Read::Forbidden(said) | Read::Refused(said) | Read::Failed(said) | Read::NotSent(said) => Some(said),
        Read::Got(_) | Read::Absent | Read::Unauthorized | Read::Throttled(_) => None,
    };
    serde_json::json!({
        "call": kind.as_str(), "outcome": answer.word(), "answer": said,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

async fn slot(lane: &Lane, beat: &str, kind: CallKind) -> Result<SlotId, NotRead> {
    let began = lane.now();
    loop {
        if lane.stop.is_cancelled() {
            return Err(NotRead::Stopping);
        }
        lane.shared.health.beat(beat);
        if lane.now().since(began) >= PATIENCE {
            // The scan has a budget of its own, which must not stand unused.
            lane.feed_unreadable();
            lane.wake.notify_one();
        }
        let hold = lane.read_hold(kind);
        let until = match hold {
            Some(until) => until,
            None => match take(lane, kind).await? {
                Ok(slot) => return Ok(slot),
                Err(until) => until,
            },
        };
        tokio::select! {
            () = lane.stop.cancelled() => {}
            () = lane.shared.clock.sleep_until(until.min(lane.now() + Duration::from_secs(30))) => {}
        }
    }
}

/// Takes a slot now, or says when to ask again. The ledger is asked before the pace: what it refuses
/// costs no admission.
async fn take(lane: &Lane, kind: CallKind) -> Result<Result<SlotId, Boot>, StoreError> {
    let store = &lane.shared.store;
    let mut admission = store.admission(lane.budget, kind, lane.limits(kind), lane.now()).await?;
    if admission == Admission::Open {
        if let Err(until) = lane.paced(kind) {
            return Ok(Err(until));
        }
        let taken = store.take_slot(lane.budget, kind, lane.limits(kind), lane.stamp()).await;
        if !matches!(taken, Ok(Ok(_))) {
            lane.give_back(kind);
        }
        match taken? {
            Ok(slot) => return Ok(Ok(slot)),
            // Another loop was faster.
            Err(wait) => admission = wait,
        }
    }
    lane.bound(kind, admission).await;
    Ok(Err(match admission {
        Admission::NotBefore(at, _) => at,
        Admission::Open | Admission::WhenSettled(_) => lane.now() + Duration::from_secs(1),
    }))
}
