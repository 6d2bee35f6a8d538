//! The follow-up: what is pending in a tenant, and how our actions fare. One list call serves the whole
//! fleet; single reads only for what the list does not show.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Lane;
use super::feed::{Look, Pages};
use super::reads::NotRead;
use crate::domain::cadence::{self, Cadence, Rest};
use crate::domain::feed::Feed;
use crate::domain::ledger::{CallKind, HOUR};
use crate::domain::time::Boot;
use crate::domain::trouble::Trouble;
use crate::engine::online::one_line;
use crate::store::StoreError;
use crate::store::actions::GIVE_UP_AT_ONCE;

/// Failed first looks after which sending begins without: a busy machine then costs a call.
const FIRST_LOOKS: u32 = 3;

#[derive(Default)]
struct Follow {
    feed: Feed,
    failures: u32,
    cadence: Cadence,
    /// Whether a sign-in has told the time, should ours be wrong: nothing is given up before.
    knows_the_time: bool,
    /// When it is looked next for what does not end.
    give_up_at: Option<Boot>,
    /// Marks that this database did not write, when that was told last.
    marks_told: u64,
}

/// What a look came to.
enum Looked {
    /// The list was read.
    Read,
    /// Nobody needs it now.
    Idle,
    /// Defender does not show it to us, and says this: what is open was asked for singly.
    Denied(Trouble, String),
    /// It could not be read, for this reason.
    Failed(String),
}

pub async fn run(lane: Arc<Lane>) {
    let beat = format!("follow {}", lane.name);
    let mut follow = Follow::default();
    while !lane.stop.is_cancelled() {
        lane.shared.health.beat(&beat);
        let rest = follow.round(&lane, &beat).await;
        let rested = lane.now();
        lane.rests(rest);
        // Long pauses in short steps, so that the watchdog sees the loop alive, and what was sent shortens them.
        loop {
            let until = rested + if lane.sent.load(Ordering::SeqCst) { rest.once_sent } else { rest.usual };
            if lane.now() >= until || lane.stop.is_cancelled() {
                break;
            }
            lane.shared.health.beat(&beat);
            let step = until.min(lane.now() + Duration::from_secs(30));
            tokio::select! {
                () = lane.stop.cancelled() => {}
                () = lane.follow_soon.notified() => break,
                () = lane.shared.clock.sleep_until(step) => {}
            }
        }
    }
    lane.shared.health.ended(&beat);
}

impl Follow {
    /// One round; returns how long to rest.
    async fn round(&mut self, lane: &Lane, beat: &str) -> Rest {
        let (began, interval) = (lane.now(), lane.follow_up.interval);
        let mut look = Look { lane, beat, cost: cadence::Looked::default() };
        look.cost.moved = lane.sent.swap(false, Ordering::SeqCst);
        let looked = self.look(&mut look).await;
        self.knows_the_time |= matches!(looked, Ok(Looked::Read | Looked::Denied(..) | Looked::Failed(_)));
        // Whatever the list said: what does not end is not followed for ever.
        if let Err(error) = self.give_up(lane).await {
            lane.database_fails("what to give up", &error);
        }
        match looked {
            Ok(looked) => self.after(looked, began, look.cost, lane).await,
            Err(NotRead::Stopping) => Rest::of(Duration::ZERO),
            Err(NotRead::SignedOut(until)) => {
                // Where Defender refuses the list's tokens alone, scans still go on without it.
                if self.failures >= FIRST_LOOKS {
                    lane.feed_unreadable();
                }
                Rest::of(until.since(lane.now()).clamp(Duration::from_secs(1), interval.max(Duration::from_secs(1))))
            }
            Err(NotRead::Store(error)) => {
                lane.database_fails("what Defender's list shows", &error);
                Rest::of(interval)
            }
        }
    }

    /// Tells the others what a look came to that began then. Returns how long to rest.
    async fn after(&mut self, looked: Looked, began: Boot, mut cost: cadence::Looked, lane: &Lane) -> Rest {
        let interval = lane.follow_up.interval;
        match looked {
            Looked::Idle => {
                lane.feed_idle();
                tracing::debug!(tenant = %lane.name, "nobody needs the list of actions");
                Rest::of(interval)
            }
            Looked::Denied(trouble, said) => {
                self.failures = 0;
                tell(lane, trouble, &said);
                lane.feed_unreadable();
                lane.wake.notify_one();
                lane.shared.signals.finished.notify_one();
                Rest::of(interval)
            }
            Looked::Read => {
                self.failures = 0;
                tell_end(lane);
                lane.feed_read(began);
                lane.wake.notify_one();
                lane.shared.signals.finished.notify_one();
                cost.sending = lane.shared.store.has_ready(lane.row).await.unwrap_or(true);
                self.cadence.rest(cost, interval, lane.limits(CallKind::ListActions).per_hour, lane.now())
            }
            Looked::Failed(why) => {
                self.failures += 1;
                tracing::debug!(tenant = %lane.name, failures = self.failures, why = one_line(&why), "the list of actions could not be read");
                if self.failures >= FIRST_LOOKS {
                    // Of a 429 whoever made the call has told.
                    if lane.silent_until(CallKind::ListActions).is_none() {
                        tell(lane, Trouble::ListFails, &why);
                    }
                    lane.feed_unreadable();
                    lane.wake.notify_one();
                }
                Rest::of(interval.min(Duration::from_secs(5) * 2_u32.saturating_pow(self.failures.min(8))))
            }
        }
    }

    /// Looks once, if there is anything to look for.
    async fn look(&mut self, look: &mut Look<'_>) -> Result<Looked, NotRead> {
        let lane = look.lane;
        let store = &lane.shared.store;
        let following = store.to_follow(lane.row).await? > 0;
        let began = lane.now();
        // A new lane knows nothing of what is pending.
        let is_whole = self.feed.is_due(began) || !lane.feed_was_read();
        if !is_whole && !following && !store.has_ready(lane.row).await? {
            return Ok(Looked::Idle);
        }
        self.feed.begin(began);
        let mut pages = look.changes(&mut self.feed).await?;
        if is_whole && matches!(pages, Pages::Whole) {
            pages = look.everything_pending(&mut self.feed).await?;
        }
        let (trouble, said) = match pages {
            Pages::Whole => {
                if is_whole {
                    self.feed.whole(began);
                }
                mind_marks(lane, &mut self.marks_told).await?;
                return Ok(Looked::Read);
            }
            Pages::Failed(why) => {
                self.feed.failed();
                return Ok(Looked::Failed(why));
            }
            Pages::Forbidden(said) => (Trouble::ListForbidden, said),
            Pages::Refused(said) => (Trouble::ListRefused, said),
        };
        look.all_singly(&mut self.feed).await?;
        Ok(Looked::Denied(trouble, said))
    }

    /// Gives up what has not ended in time, every hour or so.
    async fn give_up(&mut self, lane: &Lane) -> Result<(), StoreError> {
        let now = lane.now();
        if !self.knows_the_time || self.give_up_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        let (pending, in_progress) = (lane.follow_up.give_up_after, lane.follow_up.give_up_in_progress);
        let at = lane.wall();
        let n = lane.shared.store.give_up(lane.row, at - pending, at - in_progress, at).await?;
        let patience = HOUR.min(pending.min(in_progress) / 10);
        self.give_up_at = Some(if n < GIVE_UP_AT_ONCE { now + patience } else { now });
        if n > 0 {
            tracing::warn!(tenant = %lane.name, jobs = n, "stopped following actions that did not end in time (timed_out: gave_up)");
            lane.shared.signals.finished.notify_one();
        }
        Ok(())
    }
}

/// Says what keeps the list from being read, and what to do.
fn tell(lane: &Lane, trouble: Trouble, said: &str) {
    let Some(told) = lane.met(trouble) else { return };
    let (tenant, said, times) = (&lane.name, one_line(said), told.times);
    match trouble {
        Trouble::ListForbidden => {
            tracing::error!(%tenant, said, times, "the app may not list machine actions (403): grant Machine.Read.All or Machine.ReadWrite.All, with admin consent; until then a busy machine costs a call, and scans are followed by single reads, where those are permitted{told}");
        }
        Trouble::ListRefused => {
            tracing::error!(%tenant, said, times, "Defender understands no list of actions that sweepd knows to ask for (400): please report this; until then a busy machine costs a call, and scans are followed by single reads{told}");
        }
        _ => {
            tracing::warn!(%tenant, said, times, "the list of actions cannot be read; sending goes on without, and a busy machine costs a call{told}");
        }
    }
}

/// Says that the list can be read again, if it could not be.
fn tell_end(lane: &Lane) {
    let ends = [Trouble::ListForbidden, Trouble::ListRefused, Trouble::ListFails].map(|trouble| lane.over(trouble));
    if let Some(told) = ends.into_iter().flatten().next() {
        tracing::info!(tenant = %lane.name, times = told.times, "the list of actions can be read again{told}");
    }
}

/// Charges the budget with calls that a lost history made, before another one is made; and says so.
async fn mind_marks(lane: &Lane, told: &mut u64) -> Result<(), NotRead> {
    let store = &lane.shared.store;
    store.charge_unknown_marks(lane.row, lane.budget, lane.stamp(), lane.server_wall()).await?;
    let unknown = store.unknown_marks(lane.row).await?;
    let is_news = std::mem::replace(told, unknown) < unknown;
    if is_news && lane.minds_marks() {
        tracing::error!(tenant = %lane.name, unknown, "Defender lists {unknown} scans that sweepd asked for and this database does not know of: it was restored from an older copy, made anew, or runs twice; nothing is sent until the other one is stopped and `sweepd reconcile` has taken them over");
    }
    Ok(())
}
