//! How a tenant's list of actions is read: where it begins, how it is gone through page by page, and what
//! is done about a list that moves while it is read, lags behind, or does not do as it is told.
//!
//! * It is gone through by a time, not by counting: the next page begins with the time at which the last one
//!   ended, so that rows that come, go and change meanwhile shift nothing. Ties are counted through. Where
//!   the rows do not come in that order, all of them are counted through, and nothing is believed to be read
//!   before everything is.
//! * By last update, which is undocumented and was observed to work, it shows what has changed since. A tenant
//!   that refuses that is asked for everything created since the oldest action that is open: more rows, and
//!   the same knowledge.
//! * A list may lag. What changed within [`OVERLAP`] before the newest change is read again with each look;
//!   what is pending is read anew every [`WHOLE`]; and what is believed open and not shown then is read again
//!   from where it was seen last, or singly if there is little of it.
//! * A page that fails may be too long for its time: the next one is half as long.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::time::{Boot, Wall};

/// The documented maximum of `$top`.
pub const PAGE: usize = 10_000;
/// A page is not made shorter than this.
const SMALLEST: usize = PAGE / 16;
/// Looked at again before the last update that was seen: lists lag, clocks differ, times tie.
pub const OVERLAP: Duration = Duration::from_mins(5);
/// Everything that is pending is read anew so often, whatever the changes said; and what was refused or made
/// shorter is tried again.
pub const WHOLE: Duration = Duration::from_hours(1);
/// Without a cursor the feed starts so long ago at least: a scan of sweepd in it that the database does not
/// know was made by a history that it has lost.
const RECENT: Duration = Duration::from_hours(24);
/// Single reads in one look: the budget is for what the list does show.
pub const SINGLES: usize = 50;

/// The time of an action that a list is filtered and sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `lastUpdateDateTimeUtc`: undocumented, and observed to work.
    Updated,
    /// `creationDateTimeUtc`.
    Created,
}

/// Which page of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What the list is sorted by, oldest first; none: as it comes.
    pub by: Option<Key>,
    /// Only what has this time of that key, or a later one.
    pub from: Option<Wall>,
    /// So many rows are left out first.
    pub skip: usize,
    /// At most so many rows.
    pub top: usize,
}

/// A row of a page, as far as the reading goes by it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its id.
    pub id: &'a str,
    /// When it was created.
    pub created: Wall,
    /// When it changed last.
    pub updated: Wall,
}

/// What comes after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another page.
    Next,
    /// Nothing: this was the last one.
    Done,
    /// Nothing: it brought nothing new, and the next one would not either.
    Circles,
}

/// The going through a list, from its first page to its last.
#[derive(Clone, Debug)]
pub struct Walk {
    turn: Turn,
    /// What time it was at Defender when it began.
    began: Wall,
    /// Whether the rows have come in the order of the key so far.
    in_order: bool,
    /// Hashes of the ids that were seen.
    known: HashSet<u64>,
    newest: Option<Wall>,
}

impl Walk {
    /// Through a list that is sorted by `key`, from this time on.
    fn by(key: Key, from: Option<Wall>, top: usize, began: Wall) -> Self {
        let turn = Turn { by: Some(key), from, skip: 0, top };
        Self { turn, began, in_order: true, known: HashSet::new(), newest: None }
    }

    /// Through a list in whatever order it comes.
    pub fn counting(top: usize) -> Self {
        let turn = Turn { by: None, from: None, skip: 0, top };
        Self { turn, began: Wall(0), in_order: false, known: HashSet::new(), newest: None }
    }

    /// The page that is wanted next.
    pub const fn turn(&self) -> Turn {
        self.turn
    }

    /// Asks for the same page in half the length, if it may be shorter. Returns whether it is.
    pub fn shorten(&mut self) -> bool {
        let before = self.turn.top;
        self.turn.top = shorter(before);
        self.turn.top < before
    }

    /// Takes in the page that was wanted: its rows, as far as they could be read; how many entries it has,
    /// readable or not; and whether there are more behind it.
    pub fn take<'a>(&mut self, rows: impl Iterator<Item = Row<'a>>, entries: usize, more: bool) -> Step {
        let (mut is_new, mut last) = (false, None);
        for row in rows {
            is_new |= self.known.insert(hash(row.id));
            self.newest = self.newest.max(Some(row.updated));
            let at = if self.turn.by == Some(Key::Created) { row.created } else { row.updated };
            self.in_order &= last.is_none_or(|last| last <= at);
            last = Some(at);
        }
        if !more {
            return Step::Done;
        }
        match last.filter(|last| self.in_order && self.turn.from.is_none_or(|from| *last > from)) {
            Some(last) => (self.turn.from, self.turn.skip) = (Some(last), 0),
            // A page from where the last one ended may hold what that one held, should all of it tie.
            None if !is_new && self.turn.skip > 0 => return Step::Circles,
            None => self.turn.skip += entries,
        }
        Step::Next
    }

    /// Up to which change all are known now, after this step; none if that cannot be said yet.
    pub fn reached(&self, step: Step) -> Option<Wall> {
        match (step, self.turn.by) {
            (Step::Next | Step::Done, Some(Key::Updated)) if self.in_order => self.newest,
            // What was read first may have changed since.
            (Step::Done, Some(_)) => self.newest.map(|newest| newest.min(self.began)),
            _ => None,
        }
    }
}

fn shorter(top: usize) -> usize {
    (top / 2).max(SMALLEST)
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// What is known when a look begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Up to which change all are known.
    pub cursor: Option<Wall>,
    /// When the oldest action that is believed open was created.
    pub oldest_open: Option<Wall>,
    /// What was scanned so long ago must be known: longer than the cursor may have existed.
    pub history: Duration,
}

/// The reading of one tenant's list, look after look.
#[derive(Clone, Debug)]
pub struct Feed {
    key: Key,
    top: usize,
    /// When everything that is pending was last read.
    whole_at: Option<Boot>,
    /// When the best way was last tried.
    tried_at: Option<Boot>,
    /// Which action was last read singly.
    singly: String,
}

impl Default for Feed {
    fn default() -> Self {
        Self { key: Key::Updated, top: PAGE, whole_at: None, tried_at: None, singly: String::new() }
    }
}

impl Feed {
    /// Whether everything that is pending is to be read, however little there is to do.
    pub fn is_due(&self, now: Boot) -> bool {
        self.whole_at.is_none_or(|at| now.since(at) >= WHOLE)
    }

    /// A look begins. From time to time the best way is tried again.
    pub fn begin(&mut self, now: Boot) {
        if self.tried_at.is_none_or(|at| now.since(at) >= WHOLE) {
            self.tried_at = Some(now);
            (self.key, self.top) = (Key::Updated, PAGE);
        }
    }

    /// How the changes are to be read; `now` is what time it is at Defender, and the first look may have to
    /// reach farther back than the cursor.
    pub fn changes(&self, known: Known, is_first: bool, now: Wall) -> Walk {
        let cursor = match known.cursor {
            Some(cursor) if is_first && !known.history.is_zero() => cursor.min(now - known.history),
            Some(cursor) => cursor,
            None => {
                let recent = now - RECENT.max(known.history);
                known.oldest_open.map_or(recent, |oldest| oldest.min(recent))
            }
        };
        let from = match (self.key, known.oldest_open) {
            // What was created before the oldest open one has ended, or was never seen: it does not matter.
            (Key::Created, Some(oldest)) => cursor.min(oldest),
            _ => cursor,
        };
        Walk::by(self.key, Some(from - OVERLAP), self.top, now)
    }

    /// How everything of one status is to be read. By its creation: what leaves that status meanwhile shifts
    /// nothing.
    pub fn pending(&self, now: Wall) -> Walk {
        Walk::by(Key::Created, None, self.top, now)
    }

    /// What to read again for so many actions that are believed open and are not shown as pending, by when
    /// each was last seen to change; nothing where there are few, or where the changes have told all there is.
    pub fn rewound(&self, hidden: &[Wall], now: Wall) -> Option<Walk> {
        let oldest = hidden.iter().min().filter(|_| hidden.len() > SINGLES && self.key == Key::Updated)?;
        Some(Walk::by(Key::Updated, Some(*oldest), self.top, now))
    }

    /// Everything that is pending was read in a look that began then.
    pub const fn whole(&mut self, at: Boot) {
        self.whole_at = Some(at);
    }

    /// Defender refused to list so. Returns whether there is another way.
    pub fn refused(&mut self) -> bool {
        std::mem::replace(&mut self.key, Key::Created) == Key::Updated
    }

    /// A page did not come, for whatever reason: it may have been too long.
    pub fn failed(&mut self) {
        self.top = shorter(self.top);
    }

    /// Which of these, in their order, to read singly now, at most so many: not always the same.
    pub fn singly<'a>(&mut self, hidden: &'a [String], most: usize) -> Vec<&'a String> {
        let from = hidden.partition_point(|id| *id <= self.singly);
        let chosen: Vec<_> = hidden.iter().cycle().skip(from).take(most.min(hidden.len())).collect();
        if let Some(last) = chosen.last() {
            self.singly.clone_from(last);
        }
        chosen
    }
}

#[cfg(test)]
mod lists;
