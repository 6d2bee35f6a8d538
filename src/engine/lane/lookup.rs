//! The look-up: what became of a call whose answer was lost? Asked before it is made again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Lane;
use super::feed;
use super::reads::{NotRead, read};
use crate::defender::{ActionQuery, Read};
use crate::domain::action::Seen;
use crate::domain::feed::{PAGE, Step, Walk};
use crate::domain::job::State;
use crate::domain::ledger::CallKind;
use crate::domain::lookup::{Known, Question};
use crate::domain::outcome::mark;
use crate::domain::time::Boot;
use crate::store::attempts::Looked;
use crate::store::settle::{Asked, Look};

/// After a look that could not be made.
const AGAIN: Duration = Duration::from_secs(30);
/// So long one question may fail to be answered while others are: then an operator decides.
const UNREADABLE: Duration = Duration::from_hours(24);

pub async fn run(lane: Arc<Lane>) {
    let beat = beat(&lane);
    while !lane.stop.is_cancelled() {
        lane.shared.health.beat(&beat);
        let due = match lane.shared.store.next_question(lane.row).await {
            Ok(None) => None,
            Ok(Some((asked, due))) if due <= lane.now() => match look(&lane, &asked).await {
                Ok(()) | Err(NotRead::Stopping) => continue,
                Err(NotRead::SignedOut(until)) => Some(until),
                Err(NotRead::Store(error)) => {
                    lane.database_fails("a look-up", &error);
                    Some(lane.now() + AGAIN)
                }
            },
            Ok(Some((_, due))) => Some(due),
            Err(error) => {
                lane.database_fails("open questions", &error);
                Some(lane.now() + AGAIN)
            }
        };
        let longest = lane.now() + Duration::from_secs(30);
        lane.wait(&lane.look_soon, Some(due.map_or(longest, |due: Boot| due.min(longest)))).await;
    }
    lane.shared.health.ended(&beat);
}

fn beat(lane: &Lane) -> String {
    format!("look {}", lane.name)
}

async fn look(lane: &Lane, asked: &Asked) -> Result<(), NotRead> {
    let began = lane.now();
    let look = match asked.question {
        Question::Machine => machine(lane, asked).await?,
        Question::Effect | Question::Blocker => actions(lane, asked, began).await?,
    };
    let look = look.or_else(|| unreadable(lane, asked, began));
    let Some(look) = look else {
        lane.shared.store.postpone_look(asked, lane.now() + AGAIN).await?;
        return Ok(());
    };
    let looked = Looked { tenant: lane.row, asked: asked.clone(), began, at: lane.wall(), boot: lane.now(), look };
    let state = match lane.shared.store.take_look(looked, lane.policy()).await {
        Ok(state) => state,
        Err(error) => {
            // One question that cannot be taken must not stand before all others.
            lane.shared.store.postpone_look(asked, lane.now() + AGAIN).await?;
            return Err(error.into());
        }
    };
    if asked.question == Question::Machine && state == State::Queued {
        lane.was_refused();
    }
    tracing::debug!(tenant = %lane.name, job = %asked.job, machine = %asked.machine, attempt = %asked.attempt, %state, "looked up a lost call");
    lane.wake.notify_one();
    lane.shared.signals.finished.notify_one();
    Ok(())
}

/// What a look comes to that could not be made, for a day, though the tenant's list can be read all the time:
/// it is about this machine, and will not be made tomorrow either.
fn unreadable(lane: &Lane, asked: &Asked, began: Boot) -> Option<Look> {
    let reads = lane.feed_was_read() && !lane.feed_is_blind.load(Ordering::SeqCst);
    if !reads || began < asked.since + UNREADABLE {
        return None;
    }
    tracing::warn!(tenant = %lane.name, job = %asked.job, machine = %asked.machine, attempt = %asked.attempt, "this machine cannot be looked up, for a day now, though others can; an operator decides");
    Some(match asked.question {
        Question::Machine => Look::Machine(Known::NotPermitted),
        Question::Effect | Question::Blocker => Look::NotPermitted,
    })
}

/// The actions of the machine, all of them; nothing when they could not be read now.
async fn actions(lane: &Lane, asked: &Asked, began: Boot) -> Result<Option<Look>, NotRead> {
    // By machine alone, or machine and type: a filter by time would trust a clock.
    let wanted = match asked.question {
        Question::Blocker => ActionQuery::OfMachine(asked.machine),
        Question::Effect | Question::Machine => ActionQuery::ScansOf(asked.machine),
    };
    let mut seen = Vec::new();
    let mut is_whole = true;
    let mut walk = Walk::counting(PAGE);
    loop {
        let (wanted, turn) = (&wanted, walk.turn());
        let answer = read(lane, &beat(lane), CallKind::ListActions, |token| async move {
            lane.client.list_actions(&token, wanted, turn).await
        })
        .await?;
        match answer {
            Read::Got(listed) => {
                let step = walk.take(listed.seen.iter().map(feed::row), listed.entries, listed.more);
                is_whole &= listed.seen.len() == listed.entries;
                seen.extend(listed.seen);
                match step {
                    Step::Next => {}
                    // What cannot be read may be what is looked for: then its absence shows nothing.
                    Step::Done => return Ok((is_whole || decides(asked, &seen)).then_some(Look::Read(seen))),
                    Step::Circles => return Ok(None),
                }
            }
            // Only the name of what is in the way stays unknown.
            Read::Forbidden { .. } if asked.question == Question::Blocker => return Ok(Some(Look::NotPermitted)),
            // A 403 may pass; a list that has not taken the question for so long will not answer it later either.
            Read::Forbidden { .. } | Read::Absent | Read::Refused(_)
                if began >= asked.since + lane.follow_up.lookup_horizon =>
            {
                return Ok(Some(Look::NotPermitted));
            }
            Read::Forbidden { .. }
            | Read::Absent
            | Read::Unauthorized
            | Read::Throttled(_)
            | Read::Refused(_)
            | Read::Failed(_)
            | Read::NotSent(_) => return Ok(None),
        }
    }
}

/// Whether what was seen answers the question, whatever was not.
fn decides(asked: &Asked, seen: &[Seen]) -> bool {
    seen.iter().any(|seen| match asked.question {
        Question::Blocker => seen.action.status.is_open(),
        Question::Effect | Question::Machine => mark(&seen.action) == Some(asked.attempt),
    })
}

/// Whether Defender knows the machine; nothing when that could not be read now.
async fn machine(lane: &Lane, asked: &Asked) -> Result<Option<Look>, NotRead> {
    let answer = read(lane, &beat(lane), CallKind::GetMachine, |token| async move {
        lane.client.get_machine(&token, asked.machine).await
    })
    .await?;
    Ok(match answer {
        Read::Got(()) => Some(Look::Machine(Known::Yes)),
        // An address that is not the API's answers so to every question.
        Read::Absent if !lane.breakers().is_there() => None,
        Read::Absent => Some(Look::Machine(Known::No)),
        // Whoever calls the id wrong cannot be asked about it; the next 404 decides.
        Read::Forbidden { .. } | Read::Refused(_) => Some(Look::Machine(Known::NotPermitted)),
        Read::Unauthorized | Read::Throttled(_) | Read::Failed(_) | Read::NotSent(_) => None,
    })
}
