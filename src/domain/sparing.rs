//! Many things alike: the first few of an hour are told one by one, the others together.
//!
//! What others cause, a dropper of ten thousand useless files for instance, must not fill the log or the record. Nothing
//! is lost by that: each file has its receipt.

use std::collections::BTreeMap;
use std::time::Duration;

use super::time::Boot;

/// Told one by one within an hour.
pub const SINGLY: u32 = 20;
/// The others are told together, so far apart.
pub const TOGETHER: Duration = Duration::from_mins(10);
/// The span that `SINGLY` counts in.
const SPAN: Duration = Duration::from_hours(1);
/// Causes that are kept apart. Those beyond share one.
const MOST_CAUSES: usize = 64;

/// Things that were not told one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Together {
    /// How many.
    pub count: u64,
    /// The name of the first.
    pub first: String,
    /// The name of the last.
    pub last: String,
}

#[derive(Clone, Debug)]
struct Run {
    since: Boot,
    singly: u32,
    rest: Option<Together>,
    told: Boot,
}

/// What is told of many things, by what causes them.
#[derive(Clone, Debug)]
pub struct Sparing<K>(BTreeMap<Option<K>, Run>);

impl<K> Default for Sparing<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Sparing<K> {
    fn run(&mut self, cause: K, now: Boot) -> &mut Run {
        let is_known = self.0.contains_key(&Some(cause.clone()));
        let cause = (is_known || self.0.len() < MOST_CAUSES).then_some(cause);
        self.0.entry(cause).or_insert_with(|| Run { since: now, singly: 0, rest: None, told: now })
    }

    /// One more. Returns whether it is told by itself; else it is to be counted.
    pub fn is_told_singly(&mut self, cause: K, now: Boot) -> bool {
        self.is_among(SINGLY, cause, now)
    }

    /// The same where only the first of an hour is told by itself.
    pub fn is_first(&mut self, cause: K, now: Boot) -> bool {
        self.is_among(1, cause, now)
    }

    fn is_among(&mut self, singly: u32, cause: K, now: Boot) -> bool {
        let run = self.run(cause, now);
        if now.since(run.since) >= SPAN {
            (run.since, run.singly) = (now, 0);
        }
        // What is told together comes first, in its turn.
        let is_singly = run.rest.is_none() && run.singly < singly;
        if is_singly {
            run.singly += 1;
            run.told = now;
        }
        is_singly
    }

    /// Counts what is not told by itself: so many things, of which this is the first.
    pub fn count(&mut self, cause: K, count: u64, name: &str, now: Boot) {
        match &mut self.run(cause, now).rest {
            Some(rest) => {
                rest.count += count;
                name.clone_into(&mut rest.last);
            }
            rest => *rest = Some(Together { count, first: name.to_owned(), last: name.to_owned() }),
        }
    }

    /// What was due could not be told: it is due again later.
    pub fn put_back(&mut self, cause: Option<K>, untold: Together, now: Boot) {
        let run = self.0.entry(cause).or_insert_with(|| Run { since: now, singly: SINGLY, rest: None, told: now });
        let last = run.rest.take().map_or((0, None), |rest| (rest.count, Some(rest.last)));
        run.rest =
            Some(Together { count: untold.count + last.0, first: untold.first, last: last.1.unwrap_or(untold.last) });
    }

    /// What is to be told together now. At the end of the process, `all` of it. Causes that were quiet for an hour are
    /// forgotten.
    pub fn due(&mut self, now: Boot, all: bool) -> Vec<(Option<K>, Together)> {
        let mut due = Vec::new();
        for (cause, run) in &mut self.0 {
            if (all || now.since(run.told) >= TOGETHER)
                && let Some(rest) = run.rest.take()
            {
                run.told = now;
                due.push((cause.clone(), rest));
            }
        }
        self.0.retain(|_, run| run.rest.is_some() || now.since(run.since.max(run.told)) < SPAN);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Boot {
        Boot(minutes * 60_000)
    }

    #[test]
    fn ten_thousand_files_an_hour_are_a_bounded_number_of_lines() {
        let mut sparing = Sparing::default();
        let (mut lines, mut counted) = (0, 0);
        for n in 0..60_000_i64 {
            let now = Boot(n * 360);
            let is_singly = sparing.is_told_singly(7, now);
            lines += u64::from(is_singly);
            if !is_singly {
                sparing.count(7, 1, &format!("{n}.bin"), now);
            }
            for (cause, rest) in sparing.due(now, false) {
                assert_eq!(cause, Some(7));
                (lines, counted) = (lines + 1, counted + rest.count);
            }
        }
        let rest: u64 = sparing.due(at(360), true).iter().map(|(_, rest)| rest.count).sum();
        assert!(lines <= 6 * 20 + 36, "{lines} lines in six hours");
        let singly = lines - 35;
        assert_eq!(singly + counted + rest, 60_000, "each is told by itself or counted");
    }

    #[test]
    fn first_and_last_are_named() {
        let mut sparing = Sparing::default();
        for n in 0..25 {
            let is_singly = sparing.is_told_singly("ann", at(0));
            assert_eq!(is_singly, n < 20);
            if !is_singly {
                sparing.count("ann", 1, &n.to_string(), at(0));
            }
        }
        assert!(sparing.is_told_singly("bob", at(0)), "another one's are told");
        assert!(sparing.due(at(9), false).is_empty());
        let expected = Together { count: 5, first: "20".to_owned(), last: "24".to_owned() };
        assert_eq!(sparing.due(at(10), false), [(Some("ann"), expected)]);
        assert!(sparing.due(at(20), true).is_empty());
        assert!(sparing.is_told_singly("ann", at(61)), "that is another hour");
        assert_eq!([61, 62, 121].map(|minute| sparing.is_first("links", at(minute))), [true, false, true]);
    }

    #[test]
    fn what_could_not_be_told_is_due_again_with_what_came_since() {
        let mut sparing = Sparing::default();
        sparing.count("ann", 3, "1", at(0));
        let (cause, untold) = sparing.due(at(10), false).remove(0);
        sparing.count("ann", 2, "2", at(11));
        sparing.put_back(cause, untold, at(11));
        let expected = Together { count: 5, first: "1".to_owned(), last: "2".to_owned() };
        assert_eq!(sparing.due(at(20), false), [(Some("ann"), expected)]);
        sparing.put_back(Some("bob"), Together { count: 1, first: "x".into(), last: "x".into() }, at(20));
        assert_eq!(sparing.due(at(20), true).len(), 1);
    }

    #[test]
    fn causes_beyond_the_most_share_one() {
        let mut sparing = Sparing::default();
        let singly = (0..10_000).filter(|owner| sparing.is_told_singly(*owner, at(0))).count();
        assert_eq!(singly, MOST_CAUSES + SINGLY as usize);
        sparing.count(9_999, 1, "x", at(0));
        assert!(sparing.0.len() <= MOST_CAUSES + 1);
        assert_eq!(sparing.due(at(0), true).len(), 1);
        sparing.due(at(61), false);
        assert!(sparing.0.is_empty(), "forgotten");
    }
}
