//! The list of machines: which of them need not be asked. A loop of its own, since a large fleet's list takes
//! minutes; there is none where `inactive` says that nobody wants to know: every machine is asked then, and
//! Defender's answer decides.

use std::sync::Arc;
use std::time::Duration;

use super::Lane;
use super::reads::{NotRead, read};
use crate::defender::Read;
use crate::domain::eligibility::Inactive;
use crate::domain::feed::{PAGE, Row, Step, Walk};
use crate::domain::ledger::CallKind;
use crate::domain::time::{Boot, Wall};
use crate::domain::trouble::Trouble;
use crate::engine::online::one_line;

/// A machine is inactive after seven days (documented), so the list need not be younger.
const EVERY: Duration = Duration::from_hours(6);
/// After a list that could not be read.
const AGAIN: Duration = Duration::from_mins(15);
/// So long jobs wait for a list; then they are sent without.
const PATIENCE: Duration = Duration::from_mins(10);

/// What a lane has of the list.
#[derive(Debug, Default)]
pub struct AtHand {
    /// Whether it was whole when it was read last.
    known: bool,
    /// When it is to be read again; none: it never was.
    due: Option<Boot>,
    /// Since when jobs would be sent by one that is younger.
    wanted: Option<Boot>,
}

impl AtHand {
    /// Whether machines are judged by it.
    pub const fn is_known(&self) -> bool {
        self.known
    }

    /// A job is about to be sent. Returns whether the list is to be read first: by one that is a few hours too
    /// old sending goes on meanwhile, and without one too if it takes very long.
    pub fn want(&mut self, now: Boot) -> bool {
        if self.due.is_some_and(|due| now < due) {
            return false;
        }
        let since = *self.wanted.get_or_insert(now);
        self.due.is_none_or(|due| now.since(due) >= EVERY) && now.since(since) < PATIENCE
    }

    /// Whether somebody waits for it to be read.
    pub const fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// It was read, and was whole or not.
    pub fn was_read(&mut self, is_whole: bool, now: Boot) {
        *self = Self { known: is_whole, due: Some(now + if is_whole { EVERY } else { AGAIN }), wanted: None };
    }
}

pub async fn run(lane: Arc<Lane>) {
    if lane.tenant.inactive == Inactive::Send {
        return;
    }
    let beat = format!("machines {}", lane.name);
    while !lane.stop.is_cancelled() {
        lane.shared.health.beat(&beat);
        let is_wanted = lane.machines().is_wanted();
        let mut until = lane.now() + Duration::from_secs(30);
        if is_wanted {
            match whole(&lane, &beat).await {
                Ok(is_whole) => {
                    let now = lane.now();
                    lane.machines().was_read(is_whole, now);
                    lane.wake.notify_one();
                }
                Err(NotRead::Stopping) => break,
                Err(NotRead::SignedOut(again)) => until = until.min(again),
                Err(NotRead::Store(error)) => {
                    lane.database_fails("what the list of machines shows", &error);
                }
            }
        }
        lane.wait(&lane.machines_soon, Some(until.max(lane.now() + Duration::from_secs(1)))).await;
    }
    lane.shared.health.ended(&beat);
}

/// Reads the list. Returns whether all of it could be read.
async fn whole(lane: &Lane, beat: &str) -> Result<bool, NotRead> {
    let store = &lane.shared.store;
    let at = lane.wall();
    // Nothing leaves it while it is read, but by a merger: it may be counted through.
    let mut walk = Walk::counting(PAGE);
    let mut machines = 0;
    loop {
        let turn = walk.turn();
        let call = |token| async move { lane.client.list_machines(&token, turn).await };
        let page = match read(lane, beat, CallKind::ListMachines, call).await? {
            Read::Got(page) => page,
            // So an empty list is documented.
            Read::Absent if machines == 0 => crate::defender::Machines::default(),
            // It may have been too long for its time, or for our bound.
            Read::Failed(_) if walk.shorten() => continue,
            other => {
                unreadable(lane, &other);
                return Ok(false);
            }
        };
        machines += page.entries;
        let rows = page.ids.iter().map(|id| Row { id, created: Wall(0), updated: Wall(0) });
        let step = walk.take(rows, page.entries, page.more);
        store.note_ineligible(lane.row, page.ineligible, at).await?;
        match step {
            Step::Next => {}
            Step::Circles => {
                if let Some(told) = lane.met(Trouble::Machines) {
                    tracing::warn!(tenant = %lane.name, machines, times = told.times, "the list of machines repeats its pages and does not end: inactive machines are asked like any other{told}");
                }
                return Ok(false);
            }
            Step::Done => {
                let n = store.end_ineligible(lane.row, at).await?;
                if let Some(told) = lane.over(Trouble::Machines) {
                    tracing::info!(tenant = %lane.name, times = told.times, "the list of machines can be read again{told}");
                }
                tracing::debug!(tenant = %lane.name, machines, ineligible = n, "read the list of machines");
                return Ok(true);
            }
        }
    }
}

fn unreadable<T>(lane: &Lane, answer: &Read<T>) {
    let Some(told) = lane.met(Trouble::Machines) else { return };
    let (tenant, said, times) = (&lane.name, one_line(answer.why()), told.times);
    if matches!(answer, Read::Forbidden { .. }) {
        tracing::warn!(%tenant, said, times, "the app may not list machines (403): grant Machine.Read.All or Machine.ReadWrite.All, with admin consent; until then inactive machines are asked like any other{told}");
    } else {
        tracing::warn!(%tenant, said, times, "the list of machines cannot be read; inactive machines are asked like any other, and it is tried again in {} minutes{told}", AGAIN.as_secs() / 60);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_wait_for_the_first_list_and_for_one_that_is_very_old_and_not_for_ever() {
        let mut list = AtHand::default();
        let at = |minutes: u64| Boot(0) + Duration::from_mins(minutes);
        assert!(list.want(at(0)) && list.want(at(9)) && list.is_wanted());
        assert!(!list.want(at(10)), "it takes too long");
        list.was_read(true, at(12));
        assert!(!list.want(at(13)) && !list.is_wanted() && list.is_known());
        assert!(!list.want(at(12 + 360)) && list.is_wanted(), "it is read again, and nobody waits");
        list.was_read(false, at(380));
        assert!(!list.want(at(390)) && !list.is_wanted() && !list.is_known());
        assert!(!list.want(at(395)) && list.is_wanted(), "it is tried again, and nobody waits");
        list.was_read(true, at(400));
        assert!(list.want(at(400 + 720)), "nothing was sent for long");
    }
}
