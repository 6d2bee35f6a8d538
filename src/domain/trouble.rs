//! A run of the same trouble: told at once, then summarised at growing intervals, and told when it is over.
//!
//! A tenant whose secret is wrong fails every five minutes, for days; a full disk fails every write. What an
//! operator needs is the first line, now and then how often it has happened since, and the last one. Trouble that
//! comes and goes is one run: its end is told at once the first time, and after that only once it has stayed away.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::lane::Hold;
use super::ledger::CallKind;
use super::time::Boot;

/// The first line after the first one.
const FIRST: Duration = Duration::from_mins(10);
/// What doubling ends at.
const LONGEST: Duration = Duration::from_hours(6);
/// Trouble that stays away for so long is over; what comes earlier is the same run.
const QUIET: Duration = Duration::from_mins(10);
/// Trouble of which nobody says that it is over, and that was not met for so long, is. The rarest try is one an hour.
const STALE: Duration = Duration::from_hours(3);

/// What can go wrong again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A sign-in fails.
    SignIn,
    /// Scan calls are held.
    Held(Hold),
    /// Defender asks for silence for this kind of call (429).
    Throttled(CallKind),
    /// Defender refuses fresh tokens to this kind of reading call (401).
    Refused(CallKind),
    /// The app may not list actions.
    ListForbidden,
    /// Defender takes no list of actions that is known here.
    ListRefused,
    /// The list of actions cannot be read.
    ListFails,
    /// The list of machines cannot be read.
    Machines,
    /// The database cannot be read or written.
    Database,
    /// Another process holds the database's write lock.
    Locked,
    /// What has happened is kept in memory, since the database does not take it.
    Unwritten,
    /// No file is taken, since the disk is short.
    DiskShort,
    /// The drop folder cannot be read.
    Folder,
    /// A tenant's drop folder cannot be read.
    TenantFolder,
    /// A tenant's folders cannot get the group of its droppers.
    Group,
    /// An owner drops more files than are taken within an hour.
    TooManyFiles,
    /// Results cannot be written.
    Results,
    /// What is old cannot be archived.
    Archive,
    /// Files that are old enough cannot be removed.
    Spool,
    /// The listener cannot accept connections.
    Listener,
    /// The page and the metrics cannot read the database.
    Page,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignIn => f.write_str("the sign-in failed"),
            Self::Held(hold) => write!(f, "scans were held ({hold})"),
            Self::Throttled(kind) => write!(f, "Defender throttled ({kind})"),
            Self::Refused(kind) => write!(f, "Defender refused fresh tokens ({kind})"),
            Self::ListForbidden => f.write_str("the app might not list actions"),
            Self::ListRefused => f.write_str("Defender took no list of actions"),
            Self::ListFails => f.write_str("the list of actions could not be read"),
            Self::Machines => f.write_str("the list of machines could not be read"),
            Self::Database => f.write_str("the database could not be read or written"),
            Self::Locked => f.write_str("another process held the database's write lock"),
            Self::Unwritten => f.write_str("answers were kept in memory"),
            Self::DiskShort => f.write_str("the disk was short"),
            Self::Folder => f.write_str("the drop folder could not be read"),
            Self::TenantFolder => f.write_str("a tenant's drop folder could not be read"),
            Self::Group => f.write_str("a tenant's folders could not get the group of its droppers"),
            Self::TooManyFiles => f.write_str("files waited for intake.max_files_per_hour"),
            Self::Results => f.write_str("results could not be written"),
            Self::Archive => f.write_str("what is old could not be archived"),
            Self::Spool => f.write_str("old files could not be removed"),
            Self::Listener => f.write_str("the listener could not accept connections"),
            Self::Page => f.write_str("the page could not read the database"),
        }
    }
}

/// How often it has happened, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least one.
    pub times: u64,
    /// When it happened first.
    pub since: Boot,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    count: Count,
    last: Boot,
    /// When it is told next, should it happen then.
    next: Boot,
    pause: Duration,
    over: Option<Boot>,
    /// Whether an end of it was told before.
    end_told: bool,
    /// Whether the last thing that happened was an end that was told.
    is_told: bool,
}

/// Every run there is, by what it is about.
#[derive(Clone, Debug)]
pub struct Runs<K>(BTreeMap<K, Run>);

impl<K> Default for Runs<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Runs<K> {
    /// It has happened. Returns what to tell, if it is to be told: the first time, and then at growing intervals.
    pub fn met(&mut self, what: K, now: Boot) -> Option<Count> {
        let first = Run {
            count: Count { times: 0, since: now },
            last: now,
            next: now,
            pause: FIRST / 2,
            over: None,
            end_told: false,
            is_told: false,
        };
        let run = self.0.entry(what).or_insert(first);
        run.count.times = run.count.times.saturating_add(1);
        (run.last, run.over, run.is_told) = (now, None, false);
        if now < run.next {
            return None;
        }
        run.pause = (run.pause * 2).min(LONGEST);
        run.next = now + run.pause;
        Some(run.count)
    }

    /// It is over, as far as can be seen. Returns what to tell, if that is to be told now: the first time in a run.
    pub fn over(&mut self, what: &K, now: Boot) -> Option<Count> {
        let run = self.0.get_mut(what).filter(|run| run.over.is_none())?;
        run.over = Some(now);
        if std::mem::replace(&mut run.end_told, true) {
            return None;
        }
        run.is_told = true;
        Some(run.count)
    }

    /// Ends the runs that have stayed away. Returns those of which something is left to tell, and when they were
    /// over. To be asked every few minutes.
    pub fn settled(&mut self, now: Boot) -> Vec<(K, Count, Boot)> {
        let mut ended = Vec::new();
        self.0.retain(|what, run| {
            let (over, is_over) = match run.over {
                Some(over) => (over, now.since(over) >= QUIET),
                None => (run.last, now.since(run.last) >= STALE),
            };
            if is_over && !run.is_told {
                ended.push((what.clone(), run.count, over));
            }
            !is_over
        });
        ended
    }

    /// Forgets all runs: an operator has changed something, and wants to see at once whether it helped.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Boot {
        Boot(minutes * 60_000)
    }

    /// The minutes at which trouble is told that is met every `every` minutes.
    fn told(runs: &mut Runs<&'static str>, until: i64, every: usize) -> Vec<(i64, u64)> {
        let met = (0..until).step_by(every).filter_map(|n| Some((n, runs.met("it", at(n))?.times)));
        met.collect()
    }

    #[test]
    fn a_day_of_the_same_trouble_is_told_of_nine_times() {
        let expected =
            [(0, 1), (10, 11), (30, 31), (70, 71), (150, 151), (310, 311), (630, 631), (990, 991), (1350, 1351)];
        assert_eq!(told(&mut Runs::default(), 24 * 60, 1), expected);
    }

    #[test]
    fn rare_trouble_is_told_of_each_time_it_is_due() {
        assert_eq!(told(&mut Runs::default(), 4 * 60, 60), [(0, 1), (60, 2), (120, 3), (180, 4)]);
    }

    #[test]
    fn its_end_is_told_at_once_with_how_often_it_happened() {
        let mut runs = Runs::default();
        told(&mut runs, 5, 1);
        assert_eq!(runs.over(&"it", at(5)), Some(Count { times: 5, since: at(0) }));
        assert_eq!(runs.over(&"it", at(6)), None, "once");
        assert_eq!(runs.over(&"nothing", at(6)), None, "what never was is not over");
        assert!(runs.settled(at(15)).is_empty(), "it was told");
        assert_eq!(runs.met("it", at(16)).map(|count| count.times), Some(1), "that is another run");
    }

    #[test]
    fn trouble_that_comes_and_goes_is_one_run_and_its_last_end_is_told_too() {
        let mut runs = Runs::default();
        let mut lines = 0;
        for n in 0..60 {
            lines += usize::from(runs.met("it", at(2 * n)).is_some());
            lines += usize::from(runs.over(&"it", at(2 * n + 1)).is_some());
            assert!(runs.settled(at(2 * n + 1)).is_empty());
        }
        assert_eq!(lines, 5, "at 0, 10, 30 and 70 minutes, and its first end");
        let ended = runs.settled(at(119 + 10));
        assert_eq!(ended, [("it", Count { times: 60, since: at(0) }, at(119))]);
        assert!(runs.settled(at(500)).is_empty());
    }

    #[test]
    fn trouble_that_nobody_ends_is_over_when_it_was_not_met_for_long() {
        let mut runs = Runs::default();
        told(&mut runs, 5, 1);
        assert!(runs.settled(at(100)).is_empty());
        assert_eq!(runs.settled(at(4 + 180)), [("it", Count { times: 5, since: at(0) }, at(4))]);
    }

    #[test]
    fn what_an_operator_has_changed_is_told_at_once() {
        let mut runs = Runs::default();
        told(&mut runs, 5, 1);
        runs.forget();
        assert_eq!(runs.met("it", at(6)), Some(Count { times: 1, since: at(6) }));
    }
}
