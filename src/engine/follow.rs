//! The feed: what is pending in a tenant, and how our actions fare. One list call serves the whole
//! fleet; single reads only for what the list does not show.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::lane::Lane;
use super::machines::Machines;
use super::reads::{NotRead, read_feed, read_if_admitted};
use crate::defender::{ActionQuery, Listed, PAGE, Read};
use crate::domain::action::Seen;
use crate::domain::cadence::{self, Cadence, Rest};
use crate::domain::ledger::CallKind;
use crate::domain::time::{Boot, Wall};
use crate::store::StoreError;

/// Looked at again before the last update that was seen: lists lag, clocks differ, times tie.
const OVERLAP: Duration = Duration::from_mins(5);
/// Everything that is pending is read anew so often, whatever the changes said.
const WHOLE: Duration = Duration::from_hours(1);
/// Without a cursor the feed starts so long ago: a scan of sweepd in it that the database does not know
/// was made by a history that it has lost.
const RECENT: Duration = Duration::from_hours(24);
/// Single reads in one look: the budget is for what the list does show.
const SINGLES: usize = 50;
/// Failed first looks after which sending begins without: a busy machine then costs a call.
const FIRST_LOOKS: u32 = 3;

struct Follow {
    whole_at: Option<Boot>,
    failures: u32,
    /// Where the single reads go on: not always with the same.
    rotation: usize,
    cadence: Cadence,
    machines: Machines,
    /// Marks that this database did not write, when that was told last.
    marks_told: u64,
}

/// One look: what it has shown and cost so far.
struct Look<'a> {
    lane: &'a Lane,
    cost: cadence::Looked,
}

/// What a look came to.
enum Looked {
    /// The list was read.
    Read,
    /// Nobody needs it now.
    Idle,
    /// The app may not read it.
    Forbidden,
    /// It could not be read.
    Failed,
}

pub async fn run(lane: Arc<Lane>) {
    let beat = beat(&lane);
    let mut follow = Follow {
        whole_at: None,
        failures: 0,
        rotation: 0,
        cadence: Cadence::default(),
        machines: Machines::default(),
        marks_told: 0,
    };
    while !lane.stop.is_cancelled() {
        lane.shared.health.beat(&beat);
        let rest = follow.round(&lane).await;
        let rested = lane.now();
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

fn beat(lane: &Lane) -> String {
    format!("follow {}", lane.name)
}

impl Follow {
    /// One round; returns how long to rest.
    async fn round(&mut self, lane: &Lane) -> Rest {
        let (interval, began) = (lane.follow_up.interval, lane.now());
        let mut look = Look { lane, cost: cadence::Looked::default() };
        look.cost.moved = lane.sent.swap(false, Ordering::SeqCst);
        match self.look(&mut look).await {
            Ok(Looked::Idle) => {
                lane.feed_idle();
                Rest::of(interval)
            }
            Ok(Looked::Forbidden) => {
                self.failures = 0;
                lane.feed_unreadable();
                lane.wake.notify_one();
                Rest::of(interval)
            }
            Ok(Looked::Read) => {
                self.failures = 0;
                lane.feed_read(began);
                lane.wake.notify_one();
                lane.shared.signals.finished.notify_one();
                look.cost.sending = lane.shared.store.has_ready(lane.row).await.unwrap_or(true);
                self.cadence.rest(look.cost, interval, lane.limits(CallKind::ListActions).per_hour, lane.now())
            }
            Ok(Looked::Failed) => {
                self.failures += 1;
                if self.failures >= FIRST_LOOKS {
                    lane.feed_unreadable();
                    lane.wake.notify_one();
                }
                if self.failures == FIRST_LOOKS {
                    tracing::warn!(tenant = %lane.name, "pending actions cannot be read; sending begins without, and a busy machine costs a call");
                }
                Rest::of(interval.min(Duration::from_secs(5) * 2_u32.saturating_pow(self.failures.min(8))))
            }
            Err(NotRead::Stopping) => Rest::of(Duration::ZERO),
            Err(NotRead::SignedOut(until)) => {
                // Where Defender refuses the list's tokens alone, scans still go on without it.
                if self.failures >= FIRST_LOOKS {
                    lane.feed_unreadable();
                }
                Rest::of(until.since(lane.now()).clamp(Duration::from_secs(1), interval.max(Duration::from_secs(1))))
            }
            Err(NotRead::Store(error)) => {
                tracing::error!(tenant = %lane.name, %error, "what Defender's list shows cannot be written; trying again");
                Rest::of(interval)
            }
        }
    }

    /// Looks once, if there is anything to look for.
    async fn look(&mut self, look: &mut Look<'_>) -> Result<Looked, NotRead> {
        let lane = look.lane;
        let store = &lane.shared.store;
        let first = !lane.feed_was_read();
        let following = store.to_follow(lane.row).await? > 0;
        let now = lane.now();
        let is_due = self.whole_at.is_none_or(|at| now.since(at) >= WHOLE);
        if !is_due && !following && !store.has_ready(lane.row).await? {
            return Ok(Looked::Idle);
        }
        let refused = lane.feed_refused.load(Ordering::SeqCst);
        let mut whole = first || refused || is_due;
        if !refused {
            let since = since(lane).await?;
            match changes(look, since).await? {
                Pages::Whole => {}
                Pages::Failed => return Ok(Looked::Failed),
                Pages::Forbidden => return Ok(forbidden(lane)),
                Pages::Refused => {
                    tracing::warn!(tenant = %lane.name, "Defender does not list actions by their last update here; they are listed by status instead");
                    lane.feed_refused.store(true, Ordering::SeqCst);
                    whole = true;
                }
            }
        }
        if whole {
            self.rotation = self.rotation.wrapping_add(1);
            match everything_pending(look, self.rotation).await? {
                Pages::Whole => self.whole_at = Some(now),
                Pages::Forbidden => return Ok(forbidden(lane)),
                Pages::Failed | Pages::Refused => return Ok(Looked::Failed),
            }
        }
        mind_marks(lane, &mut self.marks_told).await?;
        self.machines.look(lane, &beat(lane)).await?;
        give_up(lane).await?;
        Ok(Looked::Read)
    }
}

/// How the reading of a list ended.
enum Pages {
    Whole,
    Failed,
    Refused,
    Forbidden,
}

/// Without the permission to list, sending goes on: a busy machine costs a call, and a lost call
/// ends in `needs_review`.
fn forbidden(lane: &Lane) -> Looked {
    if !lane.feed_was_read() {
        tracing::error!(tenant = %lane.name, "the app may not list machine actions (403): grant Machine.Read.All or Machine.ReadWrite.All, with admin consent; until then scans are sent but not followed");
    }
    Looked::Forbidden
}

/// Where the changes to be read begin.
async fn since(lane: &Lane) -> Result<Wall, NotRead> {
    let store = &lane.shared.store;
    if let Some(cursor) = store.lane_memory(lane.row).await?.feed_cursor {
        return Ok(cursor);
    }
    // The first sign-in tells the time, should ours be wrong.
    lane.token().await.map_err(|error| NotRead::SignedOut(error.until))?;
    let recent = lane.server_wall() - RECENT;
    Ok(store.oldest_open_action(lane.row).await?.map_or(recent, |oldest| oldest.min(recent)))
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

async fn page(look: &mut Look<'_>, wanted: &ActionQuery, skip: usize) -> Result<Result<Listed, Pages>, NotRead> {
    let lane = look.lane;
    look.cost.calls = look.cost.calls.saturating_add(1);
    let answer =
        read_feed(lane, &beat(lane), |token| async move { lane.client.list_actions(&token, wanted, skip).await })
            .await?;
    if matches!(answer, Read::Got(_) | Read::Forbidden(_)) {
        let now = lane.now();
        lane.breakers().shown(now);
        lane.wake.notify_one();
    }
    Ok(Err(match answer {
        Read::Got(listed) => return Ok(Ok(listed)),
        Read::Forbidden(_) => Pages::Forbidden,
        Read::Refused(_) => Pages::Refused,
        Read::Absent | Read::Unauthorized | Read::Throttled(_) | Read::Failed(_) | Read::NotSent(_) => Pages::Failed,
    }))
}

/// Takes in what changed since `since`, page by page. Goes on from the last time seen, not by
/// counting: the list moves while it is read.
async fn changes(look: &mut Look<'_>, since: Wall) -> Result<Pages, NotRead> {
    let mut after = since - OVERLAP;
    let mut skip = 0;
    loop {
        let wanted = ActionQuery::ChangedAfter(after);
        let listed = match page(look, &wanted, skip).await? {
            Ok(listed) => listed,
            Err(end) => return Ok(end),
        };
        let last = listed.seen.iter().map(|seen| seen.action.updated_at).max();
        look.keep(listed.seen, last).await?;
        if !listed.more {
            return Ok(Pages::Whole);
        }
        // Ties of one millisecond over a whole page: then by counting after all.
        match last.map(|last| last - Duration::from_millis(1)).filter(|last| *last > after) {
            Some(last) => (after, skip) = (last, 0),
            None => skip += listed.entries,
        }
    }
}

/// Takes in everything that is pending, and asks singly for what we believe open and it does not
/// show.
async fn everything_pending(look: &mut Look<'_>, rotation: usize) -> Result<Pages, NotRead> {
    let lane = look.lane;
    let mut open = HashSet::new();
    let mut newest = None;
    for status in ["Pending", "InProgress"] {
        let mut skip = 0;
        loop {
            let wanted = ActionQuery::WithStatus(status);
            let listed = match page(look, &wanted, skip).await? {
                Ok(listed) => listed,
                Err(end) => return Ok(end),
            };
            open.extend(listed.seen.iter().map(|seen| seen.action.id.clone()));
            newest = newest.max(listed.seen.iter().map(|seen| seen.action.updated_at).max());
            look.keep(listed.seen, None).await?;
            if !listed.more {
                break;
            }
            skip += listed.entries.min(PAGE);
        }
    }
    let store = &lane.shared.store;
    if store.lane_memory(lane.row).await?.feed_cursor.is_none() {
        look.keep(Vec::new(), newest).await?;
    }
    let believed = store.open_actions(lane.row, 1_000_000).await?;
    let hidden: Vec<_> = believed.iter().filter(|id| !open.contains(*id)).collect();
    let from = rotation.wrapping_mul(SINGLES).checked_rem(hidden.len()).unwrap_or(0);
    for id in hidden.iter().cycle().skip(from).take(SINGLES.min(hidden.len())).copied() {
        let asked =
            read_if_admitted(
                lane,
                CallKind::GetAction,
                |token| async move { lane.client.get_action(&token, id).await },
            )
            .await?;
        // Without a budget of their own they wait for the next look, and the list does not wait for them.
        let Some(answer) = asked else { break };
        match answer {
            Read::Got(seen) => look.keep(vec![seen], None).await?,
            Read::Forbidden(_) => break,
            Read::Absent => store.action_gone(lane.row, id.clone(), lane.wall()).await?,
            // Lists lag, and a single read may too: the next whole look asks again.
            _ => {}
        }
    }
    Ok(Pages::Whole)
}

impl Look<'_> {
    async fn keep(&mut self, seen: Vec<Seen>, cursor: Option<Wall>) -> Result<(), StoreError> {
        let lane = self.lane;
        let news = lane.shared.store.see_actions(lane.row, seen, cursor, lane.wall()).await?;
        self.cost.moved |= news > 0;
        Ok(())
    }
}

async fn give_up(lane: &Lane) -> Result<(), StoreError> {
    let at = lane.wall();
    let pending = at - lane.follow_up.give_up_after;
    let in_progress = at - lane.follow_up.give_up_in_progress;
    let n = lane.shared.store.give_up(lane.row, pending, in_progress, at).await?;
    if n > 0 {
        tracing::warn!(tenant = %lane.name, jobs = n, "stopped following actions that did not end in time (timed_out: gave_up)");
    }
    Ok(())
}
