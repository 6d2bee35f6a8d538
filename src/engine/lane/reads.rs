//! Reading calls: each takes a slot of its own budget before it is made.

use std::time::Duration;

use super::{Heard, Lane};
use crate::defender::{Read, Token};
use crate::domain::id::SlotId;
use crate::domain::ledger::{Admission, CallKind};
use crate::domain::refusals::Refusal;
use crate::domain::silence::Change;
use crate::domain::time::{Boot, seconds_left};
use crate::domain::trouble::Trouble;
use crate::store::StoreError;

/// A look at the feed that has to wait longer for its budget keeps no scan back.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why a read was not made.
#[derive(Debug)]
pub enum NotRead {
    /// The lane stops.
    Stopping,
    /// There is no token, or none that Defender accepts; tried again then.
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
    waited(lane, beat, kind, || {}, call).await
}

/// The same for the list that the feed is made of. While it waits long, scans go on without knowing what is
/// pending: they have a budget of their own, which must not stand unused.
pub async fn read_feed<T, F>(lane: &Lane, beat: &str, call: impl Fn(Token) -> F) -> Result<Read<T>, NotRead>
where
    F: Future<Output = Read<T>>,
{
    let blind = || {
        lane.feed_unreadable();
        lane.wake.notify_one();
    };
    waited(lane, beat, CallKind::ListActions, blind, call).await
}

/// The same for what can be left to another time: none when the budget does not admit it now.
pub async fn read_if_admitted<T, F>(
    lane: &Lane,
    kind: CallKind,
    call: impl Fn(Token) -> F,
) -> Result<Option<Read<T>>, NotRead>
where
    F: Future<Output = Read<T>>,
{
    let Ok(admitted) = admission(lane, kind).await? else { return Ok(None) };
    let answer = once(lane, kind, admitted, &call).await;
    if matches!(answer, Read::Unauthorized)
        && lane.refusals().until(lane.now()).is_none()
        && let Ok(admitted) = admission(lane, kind).await?
    {
        return Ok(Some(once(lane, kind, admitted, &call).await));
    }
    Ok(Some(answer))
}

/// Waits for the budget; `long` is what to do while that takes long.
async fn waited<T, F>(
    lane: &Lane,
    beat: &str,
    kind: CallKind,
    long: impl Fn(),
    call: impl Fn(Token) -> F,
) -> Result<Read<T>, NotRead>
where
    F: Future<Output = Read<T>>,
{
    let admitted = admitted(lane, beat, kind, &long).await?;
    let answer = once(lane, kind, admitted, &call).await;
    if !matches!(answer, Read::Unauthorized) || lane.refusals().until(lane.now()).is_some() {
        return Ok(answer);
    }
    let admitted = self::admitted(lane, beat, kind, &long).await?;
    Ok(once(lane, kind, admitted, &call).await)
}

/// Makes a call that has its token and its slot, and writes down what came of it.
async fn once<T, F>(lane: &Lane, kind: CallKind, (token, slot): (Token, SlotId), call: &impl Fn(Token) -> F) -> Read<T>
where
    F: Future<Output = Read<T>>,
{
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
    let settle = || lane.shared.store.settle_read(lane.row, slot, settles, at, body.clone(), silence.clone());
    lane.shared.until_it_holds("a reading call", settle).await;
    match &answer {
        Read::Unauthorized => refused(lane, kind, &token).await,
        Read::Throttled(told) if matches!(silence.change, Change::Began(_)) => {
            lane.learn(kind, *told).await;
            tell_throttled(lane, kind, ended);
        }
        Read::Got(_) | Read::Absent | Read::Forbidden { .. } | Read::Refused(_) => {
            lane.refusals().accepted(kind);
            lane.tokens_accepted().await;
            tell_answered(lane, kind);
        }
        Read::Throttled(_) | Read::Failed(_) | Read::NotSent(_) => {}
    }
    answer
}

fn tell_throttled(lane: &Lane, kind: CallKind, now: Boot) {
    let Some(told) = lane.met(Trouble::Throttled(kind)) else { return };
    let seconds = seconds_left(lane.silent_until(kind).unwrap_or(now).since(now));
    tracing::warn!(tenant = %lane.name, call = kind.as_str(), seconds, times = told.times, "Defender throttles a reading call (429): none of this kind for {seconds} s; scans go on, and a busy machine costs a call meanwhile{told}");
}

/// Says that calls of this kind are answered again, if they were not.
fn tell_answered(lane: &Lane, kind: CallKind) {
    let ends = [Trouble::Throttled(kind), Trouble::Refused(kind)].map(|trouble| lane.over(trouble));
    if let Some(told) = ends.into_iter().flatten().next() {
        tracing::info!(tenant = %lane.name, call = kind.as_str(), times = told.times, "a reading call is answered again{told}");
    }
}

/// Defender does not accept the token: another one is signed in for, unless it refuses fresh ones too.
async fn refused(lane: &Lane, kind: CallKind, token: &Token) {
    if !lane.client.refused(token).await {
        // Another loop has met the same.
        return;
    }
    let now = lane.now();
    let refusal = lane.refusals().refused(now, kind);
    if let Refusal::Wait { first, .. } = refusal {
        // Where scans go on all the same, they have shown since that tokens are accepted.
        if first {
            lane.tokens_refused().await;
        }
        // The dispatcher tells until when it waits.
        lane.wake.notify_one();
    }
    if let Refusal::Wait { until, first: true } = refusal
        && let Some(told) = lane.met(Trouble::Refused(kind))
    {
        let seconds = seconds_left(until.since(now));
        tracing::error!(tenant = %lane.name, call = kind.as_str(), seconds, times = told.times, "Defender refuses fresh tokens (401) to a reading call: check cloud, tenant_id and the app registration; next try in {seconds} s, then at growing intervals{told}");
    }
}

fn heard<T>(answer: &Read<T>, began: Boot) -> Heard {
    match answer {
        Read::Throttled(told) => Heard::Throttled(*told),
        Read::Failed(_) | Read::NotSent(_) => Heard::Nothing,
        Read::Got(_) | Read::Absent | Read::Unauthorized | Read::Forbidden { .. } | Read::Refused(_) => {
            Heard::Answer(began)
        }
    }
}

/// What goes on record of a read.
pub fn body<T>(kind: CallKind, answer: &Read<T>, took: Duration) -> serde_json::Value {
    let said = match answer {
        Read::Forbidden { said, .. } | Read::Refused(said) | Read::Failed(said) | Read::NotSent(said) => Some(said),
        Read::Got(_) | Read::Absent | Read::Unauthorized | Read::Throttled(_) => None,
    };
    serde_json::json!({
        "call": kind.as_str(), "outcome": answer.word(), "answer": said,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

/// A token and a slot, anew after each wait, which may have been a long one.
async fn admitted(lane: &Lane, beat: &str, kind: CallKind, long: &impl Fn()) -> Result<(Token, SlotId), NotRead> {
    let began = lane.now();
    loop {
        lane.shared.health.beat(beat);
        let until = match admission(lane, kind).await? {
            Ok(admitted) => return Ok(admitted),
            Err(until) => until,
        };
        if lane.now().since(began) >= PATIENCE || until.since(began) >= PATIENCE {
            long();
        }
        tokio::select! {
            () = lane.stop.cancelled() => {}
            () = lane.shared.clock.sleep_until(until.min(lane.now() + Duration::from_secs(30))) => {}
        }
    }
}

/// A token and a slot, or when to ask again. The token first: a failing sign-in costs no budget.
async fn admission(lane: &Lane, kind: CallKind) -> Result<Result<(Token, SlotId), Boot>, NotRead> {
    if lane.stop.is_cancelled() {
        return Err(NotRead::Stopping);
    }
    if let Some(until) = lane.silent_until(kind) {
        return Ok(Err(until));
    }
    if let Some(until) = lane.refusals().until(lane.now()) {
        return Err(NotRead::SignedOut(until));
    }
    let token = lane.token().await.map_err(|error| NotRead::SignedOut(error.until))?;
    Ok(take(lane, kind).await?.map(|slot| (token, slot)))
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
