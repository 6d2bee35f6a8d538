//! Reading calls: each takes a slot of its own budget before it is made.

use std::time::Duration;

use super::lane::{Heard, Lane};
use crate::defender::{Read, Token};
use crate::domain::id::SlotId;
use crate::domain::ledger::{Admission, CallKind};
use crate::domain::silence::Change;
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
        let (token, slot) = admitted(lane, beat, kind).await?;
        let began = lane.now();
        let answer = match lane.silent_until(kind) {
            // Another loop met a 429 while the slot was taken.
            Some(_) => Read::NotSent("not sent: Defender asked for silence before".to_owned()),
            None => call(token.clone()).await,
        };
        let ended = lane.now();
        let took = ended.since(began);
        let silence = lane.heard(kind, heard(&answer, began));
        lane.shared.metrics.call(lane.name.as_str(), kind.as_str(), answer.word(), took);
        // A read that failed on the way may still arrive.
        let settles = if matches!(answer, Read::Failed(_)) { ended + lane.unknown_grace } else { ended };
        let body = body(kind, &answer, took);
        let at = lane.wall();
        lane.shared
            .until_it_holds("a reading call", || {
                lane.shared.store.settle_read(lane.row, slot, settles, at, body.clone(), silence.clone())
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
            Read::Throttled(told) if matches!(silence.change, Change::Began(_)) => {
                lane.learn(kind, *told).await;
                let seconds = seconds_left(lane.silent_until(kind).unwrap_or(ended).since(ended));
                tracing::warn!(tenant = %lane.name, call = kind.as_str(), seconds, "Defender throttles a reading call (429); scans go on, and a busy machine costs a call meanwhile");
            }
            _ => {}
        }
        return Ok(answer);
    }
}

fn heard<T>(answer: &Read<T>, began: Boot) -> Heard {
    match answer {
        Read::Throttled(told) => Heard::Throttled(*told),
        Read::Failed(_) | Read::NotSent(_) => Heard::Nothing,
        Read::Got(_) | Read::Absent | Read::Unauthorized | Read::Forbidden(_) | Read::Refused(_) => {
            Heard::Answer(began)
        }
    }
}

/// What goes on record of a read.
pub fn body<T>(kind: CallKind, answer: &Read<T>, took: Duration) -> serde_json::Value {
    let said = match answer {
        Read::Forbidden(said) | Read::Refused(said) | Read::Failed(said) | Read::NotSent(said) => Some(said),
        Read::Got(_) | Read::Absent | Read::Unauthorized | Read::Throttled(_) => None,
    };
    serde_json::json!({
        "call": kind.as_str(), "outcome": answer.word(), "answer": said,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

/// A token and a slot. The token first: a failing sign-in costs no budget; and anew after each wait, which
/// may have been a long one.
async fn admitted(lane: &Lane, beat: &str, kind: CallKind) -> Result<(Token, SlotId), NotRead> {
    let began = lane.now();
    loop {
        if lane.stop.is_cancelled() {
            return Err(NotRead::Stopping);
        }
        lane.shared.health.beat(beat);
        let silence = lane.silent_until(kind);
        if lane.now().since(began) >= PATIENCE || silence.is_some_and(|until| until.since(began) >= PATIENCE) {
            // The scan has a budget of its own, which must not stand unused.
            lane.feed_unreadable();
            lane.wake.notify_one();
        }
        let until = if let Some(until) = silence {
            until
        } else {
            let token = lane.token().await.map_err(|error| NotRead::SignedOut(error.until))?;
            match take(lane, kind).await? {
                Ok(slot) => return Ok((token, slot)),
                Err(until) => until,
            }
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
