//! The dispatcher of a lane: one loop owns the decision, and hands calls out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::call;
use super::{Lane, SignedOut};
use crate::clock::local;
use crate::domain::eligibility::Inactive;
use crate::domain::lane::{Gate, Hold};
use crate::domain::ledger::{Admission, CallKind, Window};
use crate::domain::time::Boot;
use crate::store::StoreError;
use crate::store::claims::{Ask, Claimed};
use crate::store::marks;

/// What a round of the loop came to.
enum Round {
    /// Something moved: go on at once.
    Moved,
    /// Wait for this, until then or until something happens.
    Wait(String, Option<Boot>),
    /// Wait for the next answer: too short to tell.
    Answer,
}

pub async fn run(lane: Arc<Lane>) {
    let beat = format!("dispatch {}", lane.name);
    while !lane.stop.is_cancelled() {
        lane.shared.health.beat(&beat);
        lane.mind_the_gap().await;
        let round = round(&lane).await;
        if round.is_ok() && !lane.shared.is_blocked_by_disk() {
            lane.shared.database_works();
        }
        match round {
            Ok(Round::Moved) => {}
            Ok(Round::Answer) => lane.wait(&lane.wake, None).await,
            Ok(Round::Wait(what, until)) => {
                lane.tell(what, until).await;
                lane.wait(&lane.wake, Some(next_round(until, lane.now()))).await;
            }
            // The beat stays and grows old: the watchdog ends a process that has lost its database.
            Err(StoreError::Closed) if !lane.stop.is_cancelled() => {
                tracing::error!(tenant = %lane.name, "the database is closed though nobody stopped it; this process has to be restarted");
                return;
            }
            Err(error) => {
                lane.database_fails("the queue", &error);
                lane.shared.health.database(Some(error.to_string()));
                lane.wait(&lane.wake, Some(lane.now() + Duration::from_secs(5))).await;
            }
        }
    }
    lane.shared.health.ended(&beat);
}

/// So long at least lies between two rounds that nobody woke.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
/// And so long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// When the next round is, though nobody wakes the loop. Never at once: what is waited for may be over by now, and be
/// waited for all the same.
fn next_round(until: Option<Boot>, now: Boot) -> Boot {
    let (soonest, latest) = (now + SHORTEST_WAIT, now + LONGEST_WAIT);
    until.map_or(latest, |until| until.clamp(soonest, latest))
}

async fn round(lane: &Arc<Lane>) -> Result<Round, StoreError> {
    let store = &lane.shared.store;
    if lane.shared.is_blocked_by_disk() {
        return Ok(Round::Wait("the database to take writes again (is the disk full?)".to_owned(), None));
    }
    // Before a pause: it is longer, and wants somebody.
    if lane.minds_marks() && store.unknown_marks(lane.row).await? > 0 {
        return Ok(Round::Wait(marks::WAITING.to_owned(), None));
    }
    if let Some(pause) = store.pause_of(lane.row).await? {
        let now = lane.wall();
        let reason = pause.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        return Ok(match pause.until {
            // By a clock that may be years ahead: the server's is asked first, without which no call is made either.
            Some(until) if until <= now && !lane.has_signed_in() => match lane.token().await {
                Ok(_) => Round::Moved,
                Err(error) => Round::Wait(
                    format!(
                        "a sign-in, which tells whether the pause is over; next try at {{until}}: {}",
                        error.message
                    ),
                    Some(error.until),
                ),
            },
            Some(until) if until <= now => {
                store.end_pause(lane.row, now).await?;
                tracing::info!(tenant = %lane.name, "the time of the pause is over: calls go on");
                Round::Moved
            }
            Some(until) => Round::Wait(
                format!("`sweepd resume`, or {{until}}: paused{reason}"),
                Some(lane.now() + until.since(now)),
            ),
            None => Round::Wait(format!("`sweepd resume`: paused{reason}"), None),
        });
    }
    if let Some(SignedOut { since, why, until }) = lane.signed_out() {
        let since = local(since, lane.wall());
        return Ok(Round::Wait(format!("sign-in fails since {since}: {why}; next try at {{until}}"), Some(until)));
    }
    let parked = unpark(lane).await?;
    if !store.has_ready(lane.row).await? {
        return nothing_ready(lane, parked).await;
    }
    if let Some(until) = lane.silent_until(CallKind::Scan) {
        return Ok(Round::Wait("throttled by Defender until {until} (429)".to_owned(), Some(until)));
    }
    let probe = match lane.breakers().gate(lane.now()) {
        Gate::Open => None,
        Gate::Probe(hold) => Some(hold),
        Gate::Full => return Ok(Round::Answer),
        Gate::Held(hold, until) => return Ok(Round::Wait(held(lane, hold), Some(until))),
    };
    if !lane.feed_is_fresh() {
        lane.follow_soon.notify_one();
        return Ok(waits_for_list(lane));
    }
    if waits_for_machines(lane) {
        return Ok(Round::Wait("the list of machines, which is being read".to_owned(), None));
    }
    match store.admission(lane.budget, CallKind::Scan, lane.limits(CallKind::Scan), lane.now()).await? {
        Admission::Open => {}
        wait => {
            lane.bound(CallKind::Scan, wait).await;
            return Ok(wait_for_budget(wait));
        }
    }
    if let Err(at) = lane.paced(CallKind::Scan) {
        return Ok(Round::Wait("pace: next call at {until}".to_owned(), Some(at)));
    }
    send(lane, probe).await
}

/// What is waited for while the list of pending actions is not at hand.
fn waits_for_list(lane: &Lane) -> Round {
    let now = lane.now();
    let refused = lane.refusals().next_try(now);
    match refused {
        Some(until) if until > now => Round::Wait(held(lane, Hold::SignedOut), Some(until)),
        // The list is being read, and its reader wakes this loop.
        Some(_) => Round::Answer,
        None => Round::Wait("the list of pending actions, which is being read".to_owned(), None),
    }
}

/// Whether the list of machines is to be read before the next job is taken.
fn waits_for_machines(lane: &Lane) -> bool {
    if lane.tenant.inactive == Inactive::Send {
        return false;
    }
    let now = lane.now();
    let (waits, is_wanted) = {
        let mut machines = lane.machines();
        (machines.want(now), machines.is_wanted())
    };
    if is_wanted {
        lane.machines_soon.notify_one();
    }
    waits
}

/// Takes the next job and hands out its call, which ledger and pace admit.
async fn send(lane: &Arc<Lane>, probe: Option<Hold>) -> Result<Round, StoreError> {
    // The token before the slot: a failing sign-in costs no budget.
    let Ok(token) = lane.token().await else {
        lane.give_back(CallKind::Scan);
        return Ok(Round::Moved);
    };
    let ask = Ask {
        tenant: lane.row,
        budget: lane.budget,
        stamp: lane.stamp(),
        limits: lane.limits(CallKind::Scan),
        rules: lane.rules(),
        rise_after: lane.tenant.rise_after,
        attempt: lane.shared.ids.attempt(),
        probe: probe.is_some(),
        blind: lane.feed_is_blind.load(Ordering::SeqCst),
        minds_marks: lane.minds_marks(),
        looked: lane.feed_began(),
    };
    let claimed = lane.shared.store.claim(ask).await;
    // No call comes of it, and none that comes later is slower for it.
    if !matches!(claimed, Ok(Claimed::Call(_))) {
        lane.give_back(CallKind::Scan);
    }
    match claimed? {
        Claimed::Call(claim) => {
            lane.tell("nothing".to_owned(), None).await;
            lane.breakers().sent();
            lane.calls.spawn(call::make(Arc::clone(lane), *claim, token));
            Ok(Round::Moved)
        }
        Claimed::Wait(admission) => Ok(wait_for_budget(admission)),
        Claimed::Nothing | Claimed::More | Claimed::Paused => {
            // Jobs may have been decided without a call.
            lane.shared.signals.finished.notify_one();
            Ok(Round::Moved)
        }
    }
}

/// Makes ready what is due. Returns when the next is.
async fn unpark(lane: &Lane) -> Result<Option<Boot>, StoreError> {
    let store = &lane.shared.store;
    if lane.wall_went_back() {
        // What was to be looked at again in a moment would wait for the length of the step.
        store.release_parks(lane.row, lane.wall()).await?;
    }
    loop {
        let now = lane.wall();
        match store.next_parked(lane.row).await? {
            None => return Ok(None),
            Some(at) if at > now => return Ok(Some(lane.now() + at.since(now))),
            Some(_) => {
                store.unpark_due(lane.row, now).await?;
            }
        }
    }
}

async fn nothing_ready(lane: &Lane, parked: Option<Boot>) -> Result<Round, StoreError> {
    let store = &lane.shared.store;
    for kind in CallKind::ALL {
        lane.note_foreign(*kind).await;
    }
    let asked = store.questions(lane.row).await?;
    let held = store.held_sweeps(lane.row).await?;
    let following = store.to_follow(lane.row).await?;
    let blind = lane.feed_is_blind.load(Ordering::SeqCst) && following > 0;
    let what = match (asked, parked) {
        (0, None) if blind => "the list of actions, which cannot be read: what was sent is not followed".to_owned(),
        (0, None) if held > 0 => format!("`sweepd sweep release`: {held} sweeps are held"),
        (0, None) if following > 0 => {
            let next = lane.next_look();
            // While the list is being read, what was told last stands.
            if next.is_none() && lane.has_told(FOLLOWED) {
                return Ok(Round::Answer);
            }
            return Ok(Round::Wait(followed(following, next.is_some()), next));
        }
        (0, None) => "nothing".to_owned(),
        (0, Some(_)) => "the time of what is queued, or the end of what blocks it; next look at {until}".to_owned(),
        (asked, _) => format!("the outcome of {asked} calls, which is being looked up"),
    };
    Ok(Round::Wait(what, parked))
}

/// How the word begins that what was sent is followed.
const FOLLOWED: &str = "the end of ";

fn followed(scans: u64, is_known_when: bool) -> String {
    let scans = if scans == 1 { "1 scan".to_owned() } else { format!("{scans} scans") };
    let next = if is_known_when { "; next look at {until}" } else { "" };
    format!("{FOLLOWED}{scans}, which Defender has accepted{next}")
}

fn wait_for_budget(admission: Admission) -> Round {
    match admission {
        Admission::NotBefore(at, Window::Minute) => {
            Round::Wait("minute window: next call at {until}".to_owned(), Some(at))
        }
        Admission::NotBefore(at, Window::Hour) => Round::Wait("hour window: next call at {until}".to_owned(), Some(at)),
        Admission::Open | Admission::WhenSettled(_) => Round::Answer,
    }
}

fn held(lane: &Lane, hold: Hold) -> String {
    match hold {
        Hold::SignedOut => {
            "sign-in fails: Defender answers 401 to fresh tokens; check cloud, tenant_id and the app registration; next try at {until}"
                .to_owned()
        }
        Hold::Forbidden => lane.waits_for_permission(),
        Hold::Malformed => {
            "a fix: Defender calls our requests malformed (400); see the log; next try at {until}".to_owned()
        }
        Hold::NotThere => {
            "an API at this address, which answers 404 to everything; check api_url, cloud and region; next try at {until}"
                .to_owned()
        }
        Hold::Down => "Defender, which does not answer; one call probes it at {until}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_in_vain_is_looked_at_again_and_never_at_once() {
        let now = Boot(1_000_000);
        for (until, expected) in [
            (None, now + LONGEST_WAIT),
            (Some(Boot(0)), now + SHORTEST_WAIT),
            (Some(now), now + SHORTEST_WAIT),
            (Some(now + Duration::from_secs(7)), now + Duration::from_secs(7)),
            (Some(now + Duration::from_hours(7)), now + LONGEST_WAIT),
        ] {
            assert_eq!(next_round(until, now), expected, "{until:?}");
        }
    }
}
