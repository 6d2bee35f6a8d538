//! Reading a tenant's list of actions, page by page: the domain says which page, each is a call, and what it
//! shows is written down before the next one is asked for.

use std::collections::HashSet;

use super::Lane;
use super::reads::{NotRead, read_feed, read_if_admitted};
use crate::defender::{ActionQuery, Read};
use crate::domain::action::{Action, Seen};
use crate::domain::cadence;
use crate::domain::feed::{Feed, Known, OVERLAP, Row, SINGLES, Step, Walk};
use crate::domain::ledger::CallKind;
use crate::domain::shown::on_one_line;
use crate::domain::time::Wall;
use crate::store::StoreError;

/// The most of an unknown status that is logged, in characters.
const MAX_STATUS: usize = 40;

/// Actions that are believed open, at most: more than any tenant has.
const OPEN_AT_MOST: u32 = 1_000_000;

/// How the reading of a list ended.
pub enum Pages {
    /// All of it was read.
    Whole,
    /// A page could not be read, for this reason.
    Failed(String),
    /// Defender does not list so, and says this.
    Refused(String),
    /// The app may not read it, says this.
    Forbidden(String),
}

/// One look: what it has shown and cost so far.
pub struct Look<'a> {
    pub lane: &'a Lane,
    /// The loop that looks.
    pub beat: &'a str,
    pub cost: cadence::Looked,
}

/// A row as the domain goes by it.
pub fn row(seen: &Seen) -> Row<'_> {
    Row { id: &seen.action.id, created: seen.action.created_at, updated: seen.action.updated_at }
}

impl Look<'_> {
    /// Takes in what has changed.
    pub async fn changes(&mut self, feed: &mut Feed) -> Result<Pages, NotRead> {
        let (lane, store) = (self.lane, &self.lane.shared.store);
        // The first sign-in tells the time, should ours be wrong.
        lane.token().await.map_err(|error| NotRead::SignedOut(error.until))?;
        let known = Known {
            cursor: store.lane_memory(lane.row).await?.feed_cursor,
            oldest_open: store.oldest_open_action(lane.row).await?,
            history: lane.tenant.skip_if_scanned_within,
        };
        loop {
            let walk = feed.changes(known, !lane.feed_was_read(), lane.server_wall());
            match self.walked(&ActionQuery::Any, walk, &mut HashSet::new()).await? {
                Pages::Refused(said) if feed.refused() => {
                    tracing::warn!(tenant = %lane.name, said, "Defender does not list actions by their last update here; they are listed by their creation, and asked for by their last update again in an hour");
                }
                end => return Ok(end),
            }
        }
    }

    /// Takes in everything that is pending, and then what we believe open and that does not show: from where
    /// it changed last, or singly.
    pub async fn everything_pending(&mut self, feed: &mut Feed) -> Result<Pages, NotRead> {
        let began = self.lane.server_wall();
        let mut shown = HashSet::new();
        for status in ["Pending", "InProgress"] {
            match self.walked(&ActionQuery::WithStatus(status), feed.pending(began), &mut shown).await? {
                Pages::Whole => {}
                end => return Ok(end),
            }
        }
        // What was asked for meanwhile need not be shown yet.
        let hidden = self.hidden(&shown, began - OVERLAP).await?;
        let changed: Vec<_> = hidden.iter().map(|(_, changed)| *changed).collect();
        let hidden = match feed.rewound(&changed, began) {
            None => hidden,
            Some(walk) => match self.walked(&ActionQuery::Any, walk, &mut HashSet::new()).await? {
                Pages::Whole => self.hidden(&shown, began - OVERLAP).await?,
                end => return Ok(end),
            },
        };
        let hidden: Vec<_> = hidden.into_iter().map(|(id, _)| id).collect();
        self.singly(feed, &hidden, SINGLES).await?;
        Ok(Pages::Whole)
    }

    /// Asks singly for what we believe open, while there is no list: so much that half of what an hour has
    /// for such calls is left to others.
    pub async fn all_singly(&mut self, feed: &mut Feed) -> Result<(), NotRead> {
        let open = self.hidden(&HashSet::new(), Wall(i64::MAX)).await?;
        let open: Vec<_> = open.into_iter().map(|(id, _)| id).collect();
        let half = self.lane.limits(CallKind::GetAction).per_hour.get() / 2;
        let share = (self.lane.follow_up.interval * half).as_secs() / 3600;
        self.singly(feed, &open, usize::try_from(share).unwrap_or(SINGLES).clamp(1, SINGLES)).await
    }

    async fn singly(&mut self, feed: &mut Feed, hidden: &[String], most: usize) -> Result<(), NotRead> {
        let lane = self.lane;
        for id in feed.singly(hidden, most) {
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
                Read::Got(seen) => self.keep(vec![seen], None).await?,
                Read::Forbidden { .. } => break,
                Read::Absent => lane.shared.store.action_gone(lane.row, id.clone(), lane.wall()).await?,
                // Lists lag, and a single read may too: the next whole look asks again.
                _ => {}
            }
        }
        Ok(())
    }

    /// What we believe open, is not among these, and changed last before that time; by its id.
    async fn hidden(&self, shown: &HashSet<String>, before: Wall) -> Result<Vec<(String, Wall)>, StoreError> {
        let believed = self.lane.shared.store.open_actions(self.lane.row, OPEN_AT_MOST).await?;
        let hidden = believed.into_iter().filter(|open| open.updated_at < before && !shown.contains(&open.id));
        Ok(hidden.map(|open| (open.id, open.updated_at)).collect())
    }

    /// Goes through a list to its end, and notes the ids that it shows.
    async fn walked(
        &mut self,
        wanted: &ActionQuery,
        mut walk: Walk,
        shown: &mut HashSet<String>,
    ) -> Result<Pages, NotRead> {
        let lane = self.lane;
        loop {
            let turn = walk.turn();
            self.cost.calls = self.cost.calls.saturating_add(1);
            let call = |token| async move { lane.client.list_actions(&token, wanted, turn).await };
            let answer = read_feed(lane, self.beat, call).await?;
            if matches!(answer, Read::Got(_) | Read::Forbidden { .. }) {
                let now = lane.now();
                lane.breakers().shown(now);
                lane.wake.notify_one();
            }
            let listed = match answer {
                Read::Got(listed) => listed,
                Read::Forbidden { said, .. } => return Ok(Pages::Forbidden(said)),
                Read::Refused(said) => return Ok(Pages::Refused(said)),
                other => return Ok(Pages::Failed(other.why().to_owned())),
            };
            let step = walk.take(listed.seen.iter().map(row), listed.entries, listed.more);
            shown.extend(listed.seen.iter().map(|seen| seen.action.id.clone()));
            // Of one status nobody knows what else has changed.
            let reached = if *wanted == ActionQuery::Any { walk.reached(step) } else { None };
            self.keep(listed.seen, reached).await?;
            match step {
                Step::Next => {}
                Step::Done => return Ok(Pages::Whole),
                Step::Circles => return Ok(Pages::Failed("the list repeats its pages and does not end".to_owned())),
            }
        }
    }

    async fn keep(&mut self, seen: Vec<Seen>, cursor: Option<Wall>) -> Result<(), StoreError> {
        let lane = self.lane;
        for seen in &seen {
            tell_unknown_status(lane, &seen.action);
        }
        let news = lane.shared.store.see_actions(lane.row, seen, cursor, lane.wall()).await?;
        self.cost.moved |= news > 0;
        Ok(())
    }
}

/// Logs a status that sweepd does not know, once for each word.
fn tell_unknown_status(lane: &Lane, action: &Action) {
    let Some(word) = action.status.unknown_word() else { return };
    let status = on_one_line(word, MAX_STATUS);
    if lane.shared.health.is_new_word(lane.name.as_str(), &status) {
        tracing::warn!(tenant = %lane.name, status, action = action.id, "Defender gave an action a status that sweepd does not know: it counts as neither pending nor ended, and is followed until its status is a known one, or follow_up.give_up_after; please report it");
    }
}
