//! The feed against lists that move while they are read, lag, sort as they like, and cut their pages.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::simulator::chance::Chance;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const BEGIN: Wall = Wall(1_791_798_400_000);

/// An action, and when the list has learnt of each of its changes.
#[derive(Clone)]
struct Action {
    id: String,
    created: Wall,
    ended: Wall,
    lag: Duration,
}

impl Action {
    /// When it changed last and whether it is open, as the list has it at this time.
    fn listed(&self, now: Wall) -> Option<(Wall, bool)> {
        let shown = |at: Wall| at + self.lag <= now;
        shown(self.created).then(|| if shown(self.ended) { (self.ended, false) } else { (self.created, true) })
    }
}

/// What the list makes of `$orderby`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sorts {
    AsAsked,
    NewestFirst,
    ByCreation,
}

struct Server {
    actions: Vec<Action>,
    sorts: Sorts,
    by_update: bool,
    /// Whether it heeds `$skip`.
    skips: bool,
    /// Rows on a page at most; it says that there are more.
    cut: usize,
    /// A page that is longer than this does not come.
    too_long: usize,
}

type Listed = (String, Wall, Wall, bool);

enum Answer {
    Page(Vec<Listed>, bool),
    Refused,
    Failed,
}

impl Server {
    fn sorting(sorts: Sorts, actions: Vec<Action>) -> Self {
        Self { actions, sorts, by_update: true, skips: true, cut: PAGE, too_long: usize::MAX }
    }

    fn list(&self, now: Wall, pending: bool, turn: Turn) -> Answer {
        let by = turn.by.unwrap();
        if by == Key::Updated && !self.by_update {
            return Answer::Refused;
        }
        let key = |row: &Listed| if by == Key::Updated { row.2 } else { row.1 };
        let rows = self.actions.iter().filter_map(|action| {
            let (updated, is_open) = action.listed(now)?;
            Some((action.id.clone(), action.created, updated, is_open))
        });
        let mut rows: Vec<Listed> =
            rows.filter(|row| (row.3 || !pending) && turn.from.is_none_or(|from| key(row) >= from)).collect();
        match self.sorts {
            Sorts::AsAsked => rows.sort_by_key(key),
            Sorts::NewestFirst => rows.sort_by_key(|row| std::cmp::Reverse(row.2)),
            Sorts::ByCreation => rows.sort_by_key(|row| row.1),
        }
        let skip = if self.skips { turn.skip } else { 0 };
        let page: Vec<_> = rows.iter().skip(skip).take(turn.top.min(self.cut)).cloned().collect();
        let more = !page.is_empty() && (page.len() == turn.top || skip + page.len() < rows.len());
        if page.len() > self.too_long { Answer::Failed } else { Answer::Page(page, more) }
    }
}

#[derive(Default)]
struct Client {
    feed: Feed,
    /// When each was created and changed last, and whether it is open.
    known: BTreeMap<String, (Wall, Wall, bool)>,
    cursor: Option<Wall>,
    looked: bool,
    now: i64,
    lists: usize,
    singles: usize,
}

impl Client {
    fn wall(&self) -> Wall {
        Wall(BEGIN.0 + self.now)
    }

    fn keep(&mut self, id: String, created: Wall, updated: Wall, is_open: bool) {
        let known = self.known.entry(id).or_insert((created, updated, is_open));
        if updated >= known.1 {
            *known = (created, updated, is_open);
        }
    }

    /// Goes through a list as the engine does. Returns what it showed, or why it is not whole.
    fn walked(&mut self, server: &Server, pending: bool, mut walk: Walk) -> Result<Vec<String>, Answer> {
        let mut shown = Vec::new();
        loop {
            (self.lists, self.now) = (self.lists + 1, self.now + 2000);
            let (rows, more) = match server.list(self.wall(), pending, walk.turn()) {
                Answer::Page(rows, more) => (rows, more),
                other => return Err(other),
            };
            let read = rows.iter().map(|row| Row { id: &row.0, created: row.1, updated: row.2 });
            let step = walk.take(read, rows.len(), more);
            let reached = if pending { None } else { walk.reached(step) };
            for (id, created, updated, is_open) in rows {
                shown.push(id.clone());
                self.keep(id, created, updated, is_open);
            }
            self.cursor = self.cursor.max(reached);
            match step {
                Step::Next => {}
                Step::Done => return Ok(shown),
                Step::Circles => return Err(Answer::Failed),
            }
        }
    }

    fn hidden(&self, shown: &[String], before: Wall) -> Vec<(String, Wall)> {
        let hidden = self.known.iter().filter(|(id, (_, at, open))| *open && *at < before && !shown.contains(id));
        hidden.map(|(id, (_, at, _))| (id.clone(), *at)).collect()
    }

    fn look(&mut self, server: &Server) -> Result<(), Answer> {
        let (began, boot) = (self.wall(), Boot(self.now));
        let is_whole = self.feed.is_due(boot);
        self.feed.begin(boot);
        let oldest_open = self.known.values().filter(|(_, _, open)| *open).map(|(created, ..)| *created).min();
        let known = Known { cursor: self.cursor, oldest_open, history: Duration::ZERO };
        loop {
            let walk = self.feed.changes(known, !self.looked, began);
            match self.walked(server, false, walk) {
                Err(Answer::Refused) if self.feed.refused() => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        if is_whole {
            let shown = self.walked(server, true, self.feed.pending(began))?;
            let hidden: Vec<_> = self.hidden(&shown, began - OVERLAP).iter().map(|(_, at)| *at).collect();
            if let Some(walk) = self.feed.rewound(&hidden, began) {
                self.walked(server, false, walk)?;
            }
            let hidden: Vec<_> = self.hidden(&shown, began - OVERLAP).into_iter().map(|(id, _)| id).collect();
            for id in self.feed.singly(&hidden, SINGLES).into_iter().cloned().collect::<Vec<_>>() {
                self.singles += 1;
                let action = server.actions.iter().find(|action| action.id == id).unwrap();
                let has_ended = action.ended <= self.wall();
                self.keep(id, action.created, if has_ended { action.ended } else { action.created }, !has_ended);
            }
            self.feed.whole(boot);
        }
        self.looked = true;
        Ok(())
    }

    /// Looks every minute until then.
    fn live(&mut self, server: &Server, until: Duration) {
        while self.wall() < BEGIN + until {
            // Of what is shown late the answer to our call has told; what others ask for need not be known so soon.
            let told = server.actions.iter().filter(|action| action.lag > OVERLAP && action.created <= self.wall());
            for action in told.cloned().collect::<Vec<_>>() {
                self.keep(action.id, action.created, action.created, true);
            }
            if self.look(server).is_err() {
                self.feed.failed();
            }
            self.now += 60_000;
        }
    }

    /// How many actions it is wrong about.
    fn mistakes(&self, server: &Server) -> usize {
        let truth = |action: &Action| (action.created, action.ended, false);
        let wrong = |action: &&Action| self.known.get(&action.id) != Some(&truth(action));
        server.actions.iter().filter(wrong).count()
    }
}

/// So many actions, created within two hours, that take up to an hour and a half; of one in `late` the list
/// learns a while later.
fn actions(chance: &mut Chance, n: u32, late: u32, lag: Duration) -> Vec<Action> {
    let action = |n: u32, chance: &mut Chance| {
        let created = BEGIN + SECOND * chance.below(7200);
        let ended = created + SECOND * (10 + chance.below(5400));
        let lag = if chance.below(late) == 0 { lag } else { Duration::ZERO };
        Action { id: format!("{n:06}"), created, ended, lag }
    };
    (0..n).map(|n| action(n, chance)).collect()
}

#[test]
fn whatever_the_list_does_every_end_is_known_in_the_end() {
    for seed in 0..400 {
        let chance = &mut Chance::new(seed);
        let sorts = [Sorts::AsAsked, Sorts::NewestFirst, Sorts::ByCreation][chance.below(3) as usize];
        let lag = MINUTE * chance.below(40);
        let (n, late) = (20 + chance.below(200), 1 + chance.below(4));
        let actions = actions(chance, n, late, lag);
        let by_update = chance.below(3) > 0;
        let cut = 3 + chance.below(60) as usize;
        let server = Server { by_update, cut, ..Server::sorting(sorts, actions) };
        let mut client = Client::default();
        // All have ended after three and a half hours, and two whole looks have come after the last lag.
        client.live(&server, MINUTE * (210 + 40 + 125));
        let told = format!("seed {seed}: {sorts:?}, by update: {by_update}, pages of {cut}, lag {lag:?}");
        assert_eq!(client.mistakes(&server), 0, "{told}");
        assert!(client.known.values().all(|(.., open)| !open), "{told}");
    }
}

#[test]
fn while_a_sorted_list_lags_by_less_than_the_overlap_nothing_is_read_singly() {
    let chance = &mut Chance::new(1);
    let server = Server { cut: 40, ..Server::sorting(Sorts::AsAsked, actions(chance, 900, 2, MINUTE * 4)) };
    let mut client = Client::default();
    client.live(&server, MINUTE * 220);
    assert_eq!((client.mistakes(&server), client.singles), (0, 0));
}

#[test]
fn a_hundred_thousand_ends_cost_eleven_calls_whatever_they_are_sorted_by() {
    for (sorts, by_update) in [(Sorts::AsAsked, true), (Sorts::AsAsked, false), (Sorts::NewestFirst, true)] {
        let server =
            Server { by_update, ..Server::sorting(sorts, actions(&mut Chance::new(2), 100_000, 1, Duration::ZERO)) };
        let known = server.actions.iter().map(|action| (action.id.clone(), (action.created, action.created, true)));
        let mut client = Client { known: known.collect(), cursor: Some(BEGIN), ..Client::default() };
        // It stood while all of them ended.
        client.now = 4 * 3_600_000;
        assert!(client.look(&server).is_ok());
        assert_eq!((client.mistakes(&server), client.singles), (0, 0));
        assert!((11..=13).contains(&client.lists), "{} calls: {sorts:?}, by update: {by_update}", client.lists);
    }
}

#[test]
fn five_thousand_ends_that_an_index_learns_late_are_known_at_the_next_whole_look() {
    let ended = BEGIN + MINUTE * 10;
    let late = (0..5000).map(|n| Action { id: format!("{n}"), created: BEGIN, ended, lag: MINUTE * 30 });
    let fresh = (0..100).map(|n| Action {
        id: format!("f{n}"),
        created: BEGIN,
        ended: ended + SECOND * n * 20,
        lag: Duration::ZERO,
    });
    let server = Server::sorting(Sorts::AsAsked, late.chain(fresh).collect());
    let mut client = Client { cursor: Some(BEGIN), ..Client::default() };
    client.known =
        server.actions.iter().map(|action| (action.id.clone(), (action.created, action.created, true))).collect();
    client.live(&server, MINUTE * 63);
    assert_eq!(client.mistakes(&server), 0);
    assert!(client.singles <= SINGLES, "{} single reads", client.singles);
}

#[test]
fn a_page_that_is_too_long_is_asked_for_in_halves_and_in_full_an_hour_later() {
    let actions = actions(&mut Chance::new(3), 6000, 1, Duration::ZERO);
    let server = Server { too_long: 2600, ..Server::sorting(Sorts::AsAsked, actions) };
    let mut client = Client { cursor: Some(BEGIN), now: 4 * 3_600_000, ..Client::default() };
    for top in [PAGE, PAGE / 2] {
        assert_eq!(client.feed.top, top);
        assert!(client.look(&server).is_err());
        client.feed.failed();
    }
    assert!(client.look(&server).is_ok());
    assert_eq!((client.mistakes(&server), client.feed.top), (0, PAGE / 4));
    client.now += 3_600_000;
    assert!(client.look(&server).is_ok(), "nothing long is left to read");
    assert_eq!(client.feed.top, PAGE);
    for _ in 0..9 {
        client.feed.failed();
    }
    assert_eq!(client.feed.top, SMALLEST);
}

#[test]
fn a_list_that_ignores_skip_is_not_read_for_ever() {
    let actions = actions(&mut Chance::new(4), 300, 1, Duration::ZERO);
    for sorts in [Sorts::AsAsked, Sorts::NewestFirst] {
        let server = Server { skips: false, cut: 50, ..Server::sorting(sorts, actions.clone()) };
        let mut client = Client { now: 4 * 3_600_000, ..Client::default() };
        assert_eq!(client.look(&server).is_ok(), sorts == Sorts::AsAsked, "by time it needs no counting");
        assert!(client.lists < 20, "{} calls", client.lists);
        assert_eq!(client.cursor.is_some(), sorts == Sorts::AsAsked, "what was not read whole moves no cursor");
    }
}

#[test]
fn ties_over_more_than_a_page_are_counted_through() {
    let tied =
        (0..95).map(|n| Action { id: format!("{n}"), created: BEGIN, ended: BEGIN + MINUTE, lag: Duration::ZERO });
    let server = Server { cut: 10, ..Server::sorting(Sorts::AsAsked, tied.collect()) };
    let mut client = Client { now: 3_600_000, ..Client::default() };
    assert!(client.look(&server).is_ok());
    assert_eq!((client.mistakes(&server), client.cursor), (0, Some(BEGIN + MINUTE)));
}

#[test]
fn a_refused_way_is_tried_again_after_an_hour() {
    let actions = actions(&mut Chance::new(5), 30, 1, Duration::ZERO);
    let mut server = Server { by_update: false, ..Server::sorting(Sorts::AsAsked, actions) };
    let mut client = Client::default();
    client.live(&server, MINUTE * 30);
    assert_eq!(client.feed.key, Key::Created);
    server.by_update = true;
    client.live(&server, MINUTE * 70);
    assert_eq!(client.feed.key, Key::Updated);
}

#[test]
fn the_first_look_reaches_as_far_back_as_the_rules_ask() {
    let now = BEGIN + Duration::from_hours(1000);
    let hours = |n| now - Duration::from_hours(n);
    let from = |cursor, oldest_open, history, is_first| {
        let known = Known { cursor, oldest_open, history: Duration::from_hours(history) };
        Feed::default().changes(known, is_first, now).turn().from.unwrap() + OVERLAP
    };
    assert_eq!(from(None, None, 0, true), hours(24));
    assert_eq!(from(None, None, 168, true), hours(168));
    assert_eq!(from(None, Some(hours(200)), 168, true), hours(200));
    assert_eq!(from(Some(hours(30)), Some(hours(200)), 0, true), hours(30));
    assert_eq!(from(Some(hours(30)), None, 168, true), hours(168), "the database may be younger than that");
    assert_eq!(from(Some(hours(30)), None, 168, false), hours(30));
}

#[test]
fn single_reads_take_turns() {
    let hidden: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
    let mut feed = Feed::default();
    let mut next = |most| feed.singly(&hidden, most).into_iter().map(String::as_str).collect::<String>();
    assert_eq!([next(2), next(2), next(2), next(9), next(0)], ["ab", "cd", "ea", "bcdea", ""]);
}
