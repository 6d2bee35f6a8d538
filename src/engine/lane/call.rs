//! One call of `runAntiVirusScan`, from its attempt to its answer on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Heard, Lane};
use crate::defender::{Scanned, Token};
use crate::domain::job::State;
use crate::domain::lane::{Change, Gate, Hold};
use crate::domain::ledger::CallKind;
use crate::domain::outcome::{Denial, Outcome};
use crate::domain::silence;
use crate::domain::time::{Boot, seconds_left};
use crate::domain::trouble::Trouble;
use crate::store::claims::Claim;
use crate::store::settle::Settlement;
use crate::store::tenants::Held;
use crate::store::throttles::SilenceNote;

pub async fn make(lane: Arc<Lane>, claim: Claim, token: Token) {
    let began = lane.now();
    let job = &claim.job;
    // A 429 or another refusal may have been read, or the daemon told to stop, while the attempt was written down.
    let silent = lane.silent_until(CallKind::Scan).is_some();
    if silent
        || !lane.feed_is_fresh()
        || lane.stop.is_cancelled()
        || matches!(lane.breakers().gate(began), Gate::Held(..))
    {
        return keep_back(&lane, &claim).await;
    }
    let comment = if job.comment.is_empty() { &lane.tenant.comment } else { &job.comment };
    let mut scanned = lane.client.scan(&token, claim.attempt, job.machine, job.scan, comment).await;
    scanned.outcome = scanned.outcome.knowing(token.was_accepted(), claim.suspect);
    let ended = lane.now();
    let took = ended.since(began);
    lane.shared.metrics.call(lane.name.as_str(), CallKind::Scan.as_str(), scanned.outcome.word().as_str(), took);
    tracing::debug!(tenant = %lane.name, job = %job.id, machine = %job.machine, attempt = %claim.attempt,
        outcome = scanned.outcome.word().as_str(), status = scanned.status, "asked for a scan");

    let current = match scanned.outcome {
        Outcome::Unauthorized => lane.client.refused(&token).await,
        _ => true,
    };
    match &scanned.outcome {
        Outcome::Created(_) => {
            token.note_accepted();
            lane.sent.store(true, Ordering::SeqCst);
        }
        Outcome::Busy(_) => token.note_accepted(),
        // Nobody promises that a no had no effect. This machine waits until the list was looked at, and no other.
        Outcome::Refused(_) => lane.sent.store(true, Ordering::SeqCst),
        Outcome::Forbidden(denial) => {
            lane.note_denial(denial, scanned.said.as_deref());
            lane.was_refused();
        }
        Outcome::Unauthorized | Outcome::Throttled(_) | Outcome::Malformed => lane.was_refused(),
        Outcome::Missing | Outcome::Unknown | Outcome::NotSent => {}
    }
    let silence = lane.heard(CallKind::Scan, heard(&scanned.outcome, began));
    if let Some(date) = scanned.date {
        lane.server_answered(ended, date).await;
    }
    if !matches!(scanned.outcome, Outcome::Unauthorized | Outcome::Throttled(_) | Outcome::Unknown | Outcome::NotSent) {
        lane.tokens_accepted().await;
    }
    let change = lane.breakers().settled(ended, scanned.outcome.word(), took, current, claim.suspect);
    if matches!(change, Change::Stopped(Hold::SignedOut, _)) {
        lane.tokens_refused().await;
    }
    if let (silence::Change::Began(_), Outcome::Throttled(told)) = (silence.change, &scanned.outcome) {
        lane.learn(CallKind::Scan, *told).await;
    }
    tell_silence(&lane, &silence, &scanned);
    tell(&lane, change, &scanned, ended);
    let settlement = Settlement { silence: Some(silence), ..settlement(&lane, &claim, scanned, change) };
    let state = lane
        .shared
        .until_it_holds("the answer to a call", || lane.shared.store.settle(settlement.clone(), lane.policy()))
        .await;
    match state {
        Some(State::Sending) => lane.look_soon.notify_one(),
        Some(state) if state.is_final() => lane.shared.signals.finished.notify_one(),
        _ => {}
    }
    lane.wake.notify_one();
}

fn heard(outcome: &Outcome, began: Boot) -> Heard {
    match outcome {
        Outcome::Throttled(told) => Heard::Throttled(*told),
        Outcome::Unknown | Outcome::NotSent => Heard::Nothing,
        Outcome::Created(_)
        | Outcome::Busy(_)
        | Outcome::Refused(_)
        | Outcome::Missing
        | Outcome::Malformed
        | Outcome::Unauthorized
        | Outcome::Forbidden(_) => Heard::Answer(began),
    }
}

/// The call does not go out: its slot is free, its job goes back, and nothing is learnt.
async fn keep_back(lane: &Lane, claim: &Claim) {
    lane.breakers().kept_back();
    let text = "not sent: a 429, or the end of the lane, came before".to_owned();
    let kept = Scanned::unanswered(Outcome::NotSent, text);
    let settlement = settlement(lane, claim, kept, Change::None);
    let settle = || lane.shared.store.settle(settlement.clone(), lane.policy());
    lane.shared.until_it_holds("a call that was kept back", settle).await;
    lane.wake.notify_one();
}

fn settlement(lane: &Lane, claim: &Claim, scanned: Scanned, change: Change) -> Settlement {
    let held = match change {
        Change::Stopped(why, until) => Some(Held { why, until }),
        _ => None,
    };
    Settlement {
        tenant: lane.row,
        epoch: lane.shared.epoch,
        attempt: claim.attempt,
        slot: claim.slot,
        job: claim.job.id,
        probe: claim.probe,
        outcome: scanned.outcome,
        http_status: scanned.status,
        answer: scanned.text,
        said: scanned.said,
        raw: scanned.raw,
        silence: None,
        held,
        resumed: match change {
            Change::Resumed(_, stood) => Some(stood),
            _ => None,
        },
        at: lane.wall(),
        boot: lane.now(),
    }
}

fn beginning(answer: &str) -> String {
    answer.chars().take(300).collect()
}

/// Tells that scans are silent, or go on.
fn tell_silence(lane: &Lane, silence: &SilenceNote, scanned: &Scanned) {
    let tenant = lane.name.as_str();
    match silence.change {
        silence::Change::None | silence::Change::Prolonged(_) => {}
        silence::Change::Began(began) => {
            let Some(told) = lane.met(Trouble::Throttled(CallKind::Scan)) else { return };
            let (seconds, answer) = (seconds_left(began.noted().0.since(silence.boot)), beginning(&scanned.text));
            tracing::warn!(
                tenant,
                seconds,
                answer,
                times = told.times,
                "Defender throttles (429): somebody else uses the same app registration; no call for {seconds} s, then slower{told}"
            );
        }
        silence::Change::Over(stood) => {
            if let Some(told) = lane.over(Trouble::Throttled(CallKind::Scan)) {
                tracing::info!(
                    tenant,
                    times = told.times,
                    "calls go on after {} s (was: throttled){told}",
                    stood.as_secs()
                );
            }
        }
    }
}

/// Logs what changed for the lane; the single call is in the record.
fn tell(lane: &Lane, change: Change, scanned: &Scanned, ended: Boot) {
    match change {
        Change::None => {}
        Change::Stopped(hold, until) => tell_stopped(lane, hold, seconds_left(until.since(ended)), scanned),
        Change::Resumed(hold, stood) => {
            // One hold may have followed another.
            let ends: Vec<_> = Hold::ALL.iter().filter_map(|hold| lane.over(Trouble::Held(*hold))).collect();
            if let Some(told) = ends.first() {
                tracing::info!(
                    tenant = lane.name.as_str(),
                    times = told.times,
                    "calls go on after {} s (was: {hold}){told}",
                    stood.as_secs()
                );
            }
        }
    }
}

/// Logs that the lane has stopped for so many seconds, and what to do.
fn tell_stopped(lane: &Lane, hold: Hold, seconds: u64, scanned: &Scanned) {
    let Some(told) = lane.met(Trouble::Held(hold)) else { return };
    let (tenant, answer, times) = (lane.name.as_str(), beginning(&scanned.text), told.times);
    match hold {
        Hold::Forbidden if names_a_role(&scanned.outcome) => tracing::error!(
            tenant,
            seconds,
            answer,
            times,
            "Defender forbids the scan call (403): grant the app registration Machine.Scan, with admin consent; the queue waits, next try in {seconds} s or on SIGHUP{told}"
        ),
        Hold::Forbidden => tracing::error!(
            tenant,
            seconds,
            answer,
            times,
            "Defender forbids the scan call (403) and names no missing role: check Machine.Scan, the tenant's licence and features, and proxies on the way; the queue waits, next try in {seconds} s or on SIGHUP{told}"
        ),
        Hold::Malformed => tracing::error!(
            tenant,
            seconds,
            answer,
            times,
            "Defender calls our request malformed (400): please report this; the queue waits, next try in {seconds} s{told}"
        ),
        Hold::SignedOut => tracing::error!(
            tenant,
            seconds,
            answer,
            times,
            "Defender refuses fresh tokens (401): check cloud, tenant_id and the app registration; next try in {seconds} s{told}"
        ),
        Hold::NotThere => tracing::error!(
            tenant,
            seconds,
            answer,
            times,
            "nothing but 404 was ever answered here: check api_url, cloud and region; no machine is rejected for it, and the queue waits, next try in {seconds} s or on SIGHUP{told}"
        ),
        Hold::Down => tracing::error!(
            tenant,
            seconds,
            answer,
            times,
            "no answer that can be read, again and again: Defender or the way to it is down; one call probes it in {seconds} s{told}"
        ),
    }
}

const fn names_a_role(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Forbidden(Denial::Roles(_)))
}
