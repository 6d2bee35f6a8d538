//! A tenant's queue, worked off in its order: when the last machine of each sweep is done.
//!
//! Sweeps are told apart, machines are not: what a sweep has at one priority is one block, sent when
//! nothing that goes before it is ready. A block becomes ready at the latest time that its sweep asks
//! for, and rises by waiting. So the answer costs no more for a million machines than for ten.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use super::forecast::{Bound, Outlook, Schedule};
use super::order::{effective, next_rise};
use super::sweep::Priority;
use super::time::Boot;

/// What is not sent yet of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Names it; a larger one is younger.
    pub n: i64,
    /// Its own jobs, by priority.
    pub own: BTreeMap<Priority, u64>,
    /// Jobs of older sweeps that it joined.
    pub joined: u64,
    /// The lowest priority that it asks for.
    pub lowest: Priority,
    /// Not before.
    pub ready: Boot,
    /// Since when it waits.
    pub since: Boot,
}

/// The end of some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When the last call is answered.
    pub at: Boot,
    /// What made calls wait before it.
    pub bound: Bound,
}

/// When everything is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Each sweep of which something is not sent yet.
    pub sweeps: BTreeMap<i64, End>,
    /// All that is queued; none when nothing is.
    pub queue: Option<End>,
    /// The additional machines; none when there are none.
    pub more: Option<End>,
}

/// When the sweeps, the oldest first, are done, and `more` machines at the usual priority that come
/// in now. `rise_after` as in [`effective`].
pub fn ends(outlook: &Outlook, sweeps: &[Sweep], more: u64, rise_after: Duration, now: Boot) -> Ends {
    let mut blocks: Vec<Block> = sweeps.iter().flat_map(blocks_of).collect();
    let worked_off = work_off(outlook, &blocks, rise_after, now);
    let told = Told { blocks: &blocks, ends: &worked_off };
    let sweeps: BTreeMap<i64, End> = told.sweeps(outlook, sweeps, now);
    let queue = sweeps.values().copied().max_by_key(|end| end.at);
    if more > 0 {
        blocks.push(Block { sweep: i64::MAX, priority: Priority::default(), calls: more, ready: now, since: now });
    }
    let more = if more > 0 { work_off(outlook, &blocks, rise_after, now).last().copied() } else { None };
    Ends { sweeps, queue, more }
}

/// Jobs of one sweep at one priority.
#[derive(Clone, Copy, Debug)]
struct Block {
    sweep: i64,
    priority: Priority,
    calls: u64,
    ready: Boot,
    since: Boot,
}

fn blocks_of(sweep: &Sweep) -> impl Iterator<Item = Block> + '_ {
    let block = |(priority, calls): (&Priority, &u64)| Block {
        sweep: sweep.n,
        priority: *priority,
        calls: *calls,
        ready: sweep.ready,
        since: sweep.since,
    };
    sweep.own.iter().filter(|(_, calls)| **calls > 0).map(block)
}

/// The ends of blocks, told as ends of sweeps.
struct Told<'a> {
    blocks: &'a [Block],
    ends: &'a [End],
}

impl Told<'_> {
    fn sweeps(&self, outlook: &Outlook, sweeps: &[Sweep], now: Boot) -> BTreeMap<i64, End> {
        let all = self.blocks.iter().map(|block| block.calls).sum::<u64>();
        let joined = sweeps.iter().map(|sweep| sweep.joined).max().unwrap_or(0);
        let schedule = Schedule::of(outlook.clone(), now, all.saturating_add(joined));
        let mut ahead = Ahead::of(self.blocks, now);
        let mut blocks = self.blocks.iter().zip(self.ends).peekable();
        let mut told = BTreeMap::new();
        for sweep in sweeps {
            let mut end = (sweep.joined > 0).then(|| ahead.end_of_joined(&schedule, sweep));
            while let Some((block, done)) = blocks.next_if(|(block, _)| block.sweep == sweep.n) {
                end = end.into_iter().chain([*done]).max_by_key(|end| end.at);
                ahead.pass(block, *done);
            }
            told.extend(end.map(|end| (sweep.n, end)));
        }
        told
    }
}

/// What goes before the machines that a sweep joined: which of the older sweeps' they are is not known.
struct Ahead {
    now: Boot,
    /// Ready now, in all sweeps.
    ready: BTreeMap<Priority, u64>,
    /// Ready now, in older sweeps.
    older: BTreeMap<Priority, u64>,
    /// The last end of older sweeps.
    last: BTreeMap<Priority, End>,
}

impl Ahead {
    fn of(blocks: &[Block], now: Boot) -> Self {
        let mut ready = BTreeMap::new();
        for block in blocks.iter().filter(|block| block.ready <= now) {
            *ready.entry(block.priority).or_default() += block.calls;
        }
        Self { now, ready, older: BTreeMap::new(), last: BTreeMap::new() }
    }

    fn pass(&mut self, block: &Block, end: End) {
        if block.ready <= self.now {
            *self.older.entry(block.priority).or_default() += block.calls;
        }
        let last = self.last.entry(block.priority).or_insert(end);
        if end.at > last.at {
            *last = end;
        }
    }

    /// No later than the last machine at that priority of a sweep that may own them; nor than if they
    /// came after everything that goes before them, should their own sweep mean to wait longer.
    fn end_of_joined(&self, schedule: &Schedule, sweep: &Sweep) -> End {
        let above = self.ready.iter().filter(|(priority, _)| **priority > sweep.lowest).map(|(_, calls)| *calls);
        let beside = self.older.get(&sweep.lowest).copied().unwrap_or(0);
        let calls = above.sum::<u64>().saturating_add(beside).saturating_add(sweep.joined);
        let after_all = End { at: schedule.answered(calls).max(sweep.ready), bound: schedule.bound(calls) };
        let owner = self.last.iter().filter(|(priority, _)| **priority >= sweep.lowest).map(|(_, end)| *end);
        owner.max_by_key(|end| end.at).into_iter().chain([after_all]).min_by_key(|end| end.at).unwrap_or(after_all)
    }
}

/// When each of the blocks is done.
fn work_off(outlook: &Outlook, blocks: &[Block], rise_after: Duration, now: Boot) -> Vec<End> {
    let mut line = Line::of(blocks, rise_after);
    let mut ends = vec![End { at: now, bound: Bound::Nothing }; blocks.len()];
    let mut schedule = Schedule::of(outlook.clone(), now, line.calls);
    let mut made = 0;
    while line.calls > 0 {
        line.go_on_to(schedule.call(made + 1));
        let next_change = line.next_change();
        let Some((first, left)) = line.first() else {
            // Nothing is ready: what is spent comes free again in the meantime.
            let Some(time) = next_change else { break };
            schedule = Schedule::of(schedule.after(made, time), time, line.calls);
            made = 0;
            continue;
        };
        let most = made.saturating_add(left);
        let until = next_change.map_or(most, |time| schedule.calls_before(time, most).max(made + 1));
        line.send(first, until - made);
        made = until;
        if let Some(end) = ends.get_mut(first).filter(|_| made == most) {
            *end = End { at: schedule.answered(made), bound: schedule.bound(made) };
        }
    }
    ends
}

/// Blocks in the order of sending, as time goes on.
struct Line<'a> {
    blocks: &'a [Block],
    rise_after: Duration,
    /// What is left of each block, and the priority it stands at while it is ready.
    states: Vec<(u64, Option<Priority>)>,
    /// What is left of all.
    calls: u64,
    ready: BTreeSet<(Reverse<Priority>, i64, usize)>,
    /// When a block becomes ready, or rises.
    changes: BinaryHeap<Reverse<(Boot, usize)>>,
}

impl<'a> Line<'a> {
    fn of(blocks: &'a [Block], rise_after: Duration) -> Self {
        Self {
            blocks,
            rise_after,
            states: blocks.iter().map(|block| (block.calls, None)).collect(),
            calls: blocks.iter().map(|block| block.calls).fold(0, u64::saturating_add),
            ready: BTreeSet::new(),
            changes: blocks.iter().enumerate().map(|(nth, block)| Reverse((block.ready, nth))).collect(),
        }
    }

    /// When the next block becomes ready or rises.
    fn next_change(&mut self) -> Option<Boot> {
        while let Some(Reverse((time, nth))) = self.changes.peek().copied() {
            if self.states.get(nth).is_some_and(|(left, _)| *left > 0) {
                return Some(time);
            }
            self.changes.pop();
        }
        None
    }

    fn go_on_to(&mut self, now: Boot) {
        while self.next_change().is_some_and(|time| time <= now) {
            let Some(Reverse((_, nth))) = self.changes.pop() else { return };
            let Some((block, (_, standing))) = self.blocks.get(nth).zip(self.states.get_mut(nth)) else { return };
            let waited = now.since(block.since);
            let priority = effective(block.priority, waited, self.rise_after);
            if let Some(before) = standing.replace(priority) {
                self.ready.remove(&(Reverse(before), block.sweep, nth));
            }
            self.ready.insert((Reverse(priority), block.sweep, nth));
            if let Some(rise) = next_rise(block.priority, waited, self.rise_after) {
                self.changes.push(Reverse((block.since + rise, nth)));
            }
        }
    }

    /// The block that goes next, and what is left of it.
    fn first(&self) -> Option<(usize, u64)> {
        let (_, _, nth) = self.ready.first()?;
        self.states.get(*nth).map(|(left, _)| (*nth, *left))
    }

    fn send(&mut self, nth: usize, calls: u64) {
        self.calls = self.calls.saturating_sub(calls);
        let Some((block, (left, standing))) = self.blocks.get(nth).zip(self.states.get_mut(nth)) else { return };
        *left = left.saturating_sub(calls);
        if let Some(priority) = standing.filter(|_| *left == 0) {
            self.ready.remove(&(Reverse(priority), block.sweep, nth));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::{HOUR, Limits, Pace};
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    const NOW: Boot = Boot(100_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn sweep(n: i64, priority: Priority, calls: u64) -> Sweep {
        let own = BTreeMap::from([(priority, calls)]);
        Sweep { n, own, joined: 0, lowest: priority, ready: NOW, since: NOW }
    }

    fn joining(n: i64, priority: Priority, joined: u64) -> Sweep {
        Sweep { own: BTreeMap::new(), joined, ..sweep(n, priority, 0) }
    }

    fn documented() -> Outlook {
        Outlook::idle(Limits::DOCUMENTED, Pace::Burst)
    }

    fn told(sweeps: &[Sweep], more: u64) -> Ends {
        ends(&documented(), sweeps, more, DAY, NOW)
    }

    fn after(calls: u64) -> Boot {
        Schedule::of(documented(), NOW, calls).answered(calls)
    }

    fn at(ends: &Ends, n: i64) -> Boot {
        ends.sweeps[&n].at
    }

    #[test]
    fn an_urgent_sweep_is_done_next_and_delays_the_long_one_by_its_machines() {
        let ends = told(&[sweep(1, Priority::Normal, 100_000), sweep(2, Priority::Urgent, 50)], 10);
        assert_eq!((at(&ends, 2), at(&ends, 1)), (after(50), after(100_050)));
        assert_eq!(ends.queue.unwrap(), End { at: after(100_050), bound: Bound::Hour });
        assert_eq!(ends.more.unwrap().at, after(100_060));
    }

    #[test]
    fn sweeps_of_one_priority_go_by_age() {
        let ends =
            told(&[sweep(1, Priority::Normal, 300), sweep(2, Priority::Normal, 40), sweep(3, Priority::High, 5)], 0);
        assert_eq!([3, 1, 2].map(|n| at(&ends, n)), [5, 305, 345].map(after));
        assert_eq!(ends.more, None);
    }

    #[test]
    fn more_machines_go_before_what_is_low() {
        let ends = told(&[sweep(1, Priority::Low, 2000)], 100);
        assert_eq!((ends.more.unwrap().at, ends.queue.unwrap().at), (after(100), after(2000)));
    }

    #[test]
    fn nothing_queued_has_no_end() {
        assert_eq!(told(&[], 0), Ends::default());
        let alone = told(&[], 1500);
        assert_eq!(alone.more, Some(End { at: after(1500), bound: Bound::Minute }));
        assert_eq!((alone.queue, alone.sweeps.len()), (None, 0));
    }

    #[test]
    fn a_sweep_for_tonight_starts_tonight_with_the_budget_of_tonight() {
        let tonight = NOW + HOUR * 8;
        let late = Sweep { ready: tonight, ..sweep(1, Priority::Urgent, 5000) };
        let ends = told(&[late, sweep(2, Priority::Normal, 3000)], 0);
        assert_eq!(at(&ends, 2), after(3000));
        assert_eq!(at(&ends, 1).since(tonight), after(5000).since(NOW));
    }

    #[test]
    fn what_becomes_ready_goes_before_what_is_routine() {
        let soon = NOW + Duration::from_mins(30);
        let urgent = Sweep { ready: soon, ..sweep(2, Priority::Urgent, 1600) };
        let ends = told(&[sweep(1, Priority::Normal, 5000), urgent], 0);
        // By then the first hour's budget is spent: 1500 at the end of it, 100 an hour later.
        assert_eq!((at(&ends, 2), at(&ends, 1)), (after(3100), after(6600)));
    }

    #[test]
    fn an_old_low_sweep_rises_above_what_comes_in() {
        let old = Sweep { since: NOW - DAY * 2 + HOUR * 2, ..sweep(1, Priority::Low, 10) };
        let ends = told(&[old.clone(), sweep(2, Priority::Normal, 60_000)], 0);
        assert_eq!(at(&ends, 1), after(10), "it is as good as normal by now, and older");
        let high = sweep(2, Priority::High, 60_000);
        let ends = told(&[old.clone(), high.clone()], 0);
        assert_eq!(at(&ends, 1), after(3010), "in two hours it is as good as high");
        let never = super::ends(&documented(), &[old, high], 0, Duration::ZERO, NOW);
        assert_eq!(at(&never, 1), after(60_010));
    }

    #[test]
    fn what_a_sweep_joined_is_done_no_later_than_the_sweep_it_belongs_to() {
        let ends = told(&[sweep(1, Priority::Normal, 9000), joining(2, Priority::Normal, 9000)], 0);
        assert_eq!((at(&ends, 1), at(&ends, 2)), (after(9000), after(9000)));
        assert_eq!(ends.queue.unwrap().at, after(9000), "nothing is counted twice");
    }

    #[test]
    fn what_an_urgent_sweep_joined_is_done_next() {
        let own = BTreeMap::from([(Priority::Normal, 99_950), (Priority::Urgent, 50)]);
        let weekly = Sweep { own, ..sweep(1, Priority::Normal, 0) };
        let ends = told(&[weekly, joining(2, Priority::Urgent, 50)], 0);
        assert_eq!((at(&ends, 2), at(&ends, 1)), (after(50), after(100_000)));
    }

    #[test]
    fn what_was_joined_need_not_wait_for_the_time_of_its_own_sweep() {
        let tonight = Sweep { ready: NOW + HOUR * 8, ..sweep(1, Priority::Normal, 5000) };
        let ends = told(&[tonight, joining(2, Priority::Normal, 50)], 0);
        assert_eq!(at(&ends, 2), after(50));
    }

    #[test]
    fn a_thousand_sweeps_are_told_at_once() {
        let sweeps: Vec<_> = (0..1000)
            .map(|n| Sweep {
                since: NOW - HOUR * 2000 + HOUR * u32::try_from(n).unwrap(),
                ..sweep(n, Priority::Low, 1000)
            })
            .collect();
        let ends = told(&sweeps, 0);
        assert_eq!((ends.sweeps.len(), at(&ends, 999)), (1000, after(1_000_000)));
    }

    /// Job by job, each by a budget that is reckoned anew.
    fn job_by_job(outlook: &Outlook, blocks: &[Block], rise_after: Duration) -> Vec<Boot> {
        let mut left: Vec<u64> = blocks.iter().map(|block| block.calls).collect();
        let mut ends = vec![NOW; blocks.len()];
        let mut outlook = outlook.clone();
        let mut now = NOW;
        while left.iter().any(|left| *left > 0) {
            let schedule = Schedule::of(outlook.clone(), now, 1);
            let earliest = blocks.iter().zip(&left).filter(|(_, left)| **left > 0).map(|(block, _)| block.ready).min();
            let at = schedule.call(1).max(earliest.unwrap());
            let standing = |block: &Block| effective(block.priority, at.since(block.since), rise_after);
            let (next, _) = blocks
                .iter()
                .enumerate()
                .filter(|(nth, block)| left[*nth] > 0 && block.ready <= at)
                .max_by_key(|(nth, block)| (standing(block), Reverse(block.sweep), Reverse(*nth)))
                .unwrap();
            left[next] -= 1;
            ends[next] = at + outlook.latency;
            outlook = Outlook { not_before: Some(at), ..schedule.after(0, at) };
            outlook.held.push(at + outlook.latency);
            now = at;
        }
        ends
    }

    proptest! {
        #[test]
        fn blocks_end_as_they_would_job_by_job(
            per_minute in 1_u32..4,
            more in 0_u32..9,
            latency in 0_u64..3000,
            rise_hours in 0_u64..4,
            drawn in prop::collection::vec((0_i64..4, 1_u64..9, 0_u64..12_000, 0_u64..12_000), 1..6),
        ) {
            let limits =
                Limits::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(per_minute + more).unwrap()).unwrap();
            let outlook = Outlook { latency: Duration::from_millis(latency), ..Outlook::idle(limits, Pace::Burst) };
            let block = |(sweep, (rank, calls, ready, waited)): (i64, (i64, u64, u64, u64))| Block {
                sweep,
                priority: Priority::from_rank(rank),
                calls,
                // Half of them are ready already.
                ready: NOW + Duration::from_secs(ready.saturating_sub(6000) * 2),
                since: NOW - Duration::from_secs(waited),
            };
            let blocks: Vec<_> = (1..).zip(drawn).map(block).collect();
            let rise_after = Duration::from_hours(rise_hours);
            let told: Vec<_> = work_off(&outlook, &blocks, rise_after, NOW).iter().map(|end| end.at).collect();
            prop_assert_eq!(told, job_by_job(&outlook, &blocks, rise_after));
        }
    }
}
