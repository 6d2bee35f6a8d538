//! The loop that watches the drop folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::occupied::Held;
use super::put_off::{AGAIN, News, PutOff};
use super::taking::{Taking, Took};
use super::turns::{Turn, Turns};
use crate::clock::local;
use crate::domain::dropping::Allowance;
use crate::domain::shown::ShownPath;
use crate::domain::sparing::{Sparing, Together};
use crate::domain::time::Boot;
use crate::domain::trouble::Trouble;
use crate::intake::Watch;
use crate::intake::dir::Stat;
use crate::intake::folder::{Folder, Found, Moment, Ready};
use crate::intake::left::{Stray, Why};
use crate::intake::moved::Moved;

/// After a file could have been taken for so long but for a writer that does not close it.
const OPEN_TOO_LONG: Duration = Duration::from_mins(10);

/// While the disk is short, it is looked at so often.
const SHORT: Duration = Duration::from_secs(5);

/// Why something stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// It is nothing to take.
    InPlace(Why),
    /// A program has it open for writing.
    Open,
    /// It cannot be taken now.
    Later,
    /// It stayed nowhere: it vanished while it was taken.
    TakenBack,
}

/// Files that wait for their owner's next hour.
#[derive(Default)]
struct Over {
    files: u64,
    /// The first, and its owner.
    first: Option<(PathBuf, u32)>,
}

impl Over {
    fn add(&mut self, path: &Path, owner: u32) {
        self.files += 1;
        self.first.get_or_insert_with(|| (path.to_owned(), owner));
    }
}

/// What the loop remembers from one look to the next.
struct Looking<'a> {
    taking: &'a Taking,
    folder: Folder,
    watch: Watch,
    turns: Turns,
    /// Renamed into place, and not taken yet.
    moved: Moved,
    put_off: PutOff,
    /// Since when a file would be taken but for its writer; nothing once that was told.
    written_to: HashMap<PathBuf, Option<Boot>>,
    /// What is told one by one, and what together.
    sparing: Sparing<Left>,
    /// What each owner may have taken.
    allowance: Allowance,
    /// When the tenants' folders were last given the groups of their droppers.
    shared_at: Boot,
    unsettled: bool,
    /// A look at a folder of a hundred thousand files takes its time: while files wait, so much passes between two.
    not_before: Boot,
}

pub async fn run(taking: Taking, stop: CancellationToken) {
    taking.warn_of_open_folders();
    taking.share_folders();
    taking.finish_half_done().await;
    let mut looking = Looking::new(&taking);
    let clock = Arc::clone(&taking.shared.clock);
    let mut under_way = FuturesUnordered::new();
    let (mut look, mut done_since) = (true, false);
    while !stop.is_cancelled() {
        taking.shared.health.beat("intake");
        if look && (looking.turns.is_empty() || clock.boot() >= looking.not_before) {
            looking.look();
            taking.tell_rejected(false).await;
            (look, done_since) = (false, false);
        }
        let short = looking.is_short();
        while !short && let Some((turn, held)) = looking.next() {
            let (taking, length) = (&taking, turn.length);
            under_way.push(async move { (length, taking.take_all(turn, held).await) });
        }
        if done_since && under_way.is_empty() && looking.turns.is_empty() {
            look = true;
            continue;
        }
        let pause = looking.pause(short, look);
        tokio::select! {
            () = stop.cancelled() => {}
            Some((length, files)) = under_way.next() => {
                looking.turns.had(length);
                for (took, ready) in files {
                    looking.took(took, ready);
                }
                done_since = true;
            }
            () = looking.watch.changed() => look = true,
            () = clock.sleep_until(clock.boot() + pause) => look = true,
        }
    }
    // What is being taken is taken to its end, or left between two chunks: two must never take the same.
    while under_way.next().await.is_some() {}
    looking.tell_together(true);
    taking.tell_rejected(true).await;
    taking.shared.health.ended("intake");
}

impl<'a> Looking<'a> {
    fn new(taking: &'a Taking) -> Self {
        let mut watch = Watch::new(Arc::new(Notify::new()));
        watch.folders(&taking.folder.incoming());
        watch.writers_of_before(&taking.folder.incoming());
        Self {
            taking,
            folder: taking.folder.clone(),
            watch,
            turns: Turns::default(),
            moved: Moved::default(),
            put_off: PutOff::default(),
            written_to: HashMap::new(),
            sparing: Sparing::default(),
            allowance: Allowance::new(taking.intake.max_files_per_hour, [0, nix::unistd::geteuid().as_raw()]),
            shared_at: taking.shared.clock.boot(),
            unsettled: false,
            not_before: Boot(0),
        }
    }

    /// Looks at the whole folder.
    fn look(&mut self) {
        let clock = &self.taking.shared.clock;
        let begun = clock.boot();
        // A folder that was made anew is another one to the kernel.
        self.watch.folders(&self.folder.incoming());
        self.moved.extend(self.watch.moved_in());
        self.share(begun);
        self.put_off.forget(begun);
        self.allowance.forget(begun);
        let mut over = Over::default();
        // Those of an owner who may have none taken are left out here: the oldest of the others would not be seen.
        let (put_off, allowance, turns) = (&self.put_off, &self.allowance, &self.turns);
        let waits = |path: &Path, file: &Stat| {
            let is_over = allowance.left(file.uid) == Some(0) && !turns.is_under_way(path);
            if is_over {
                over.add(path, file.uid);
            }
            is_over || put_off.contains(file, begun)
        };
        let at = Moment { now: begun, wall: clock.wall(), settle: self.taking.intake.settle };
        let found = self.folder.look(&mut self.moved, at, waits);
        if !found.unreadable.is_empty() && self.folder.create().is_ok() {
            self.watch.folders(&self.folder.incoming());
        }
        // One tenant's folder is that tenant's trouble, and a dropper may cause it.
        self.taking.shared.health.watching(found.is_watched);
        self.tell_unreadable(&found);
        self.tell_left(found.left, begun);
        self.unsettled = found.unsettled;
        let (ready, written_to): (Vec<_>, Vec<_>) =
            found.ready.into_iter().partition(|ready| self.is_closed(&ready.path));
        self.wait_for_writers(written_to, begun);
        self.tell_together(false);
        let ready = self.within_the_hour(ready, &mut over);
        self.tell_over(&over, begun);
        self.turns.found(ready, self.taking.only());
        let now = clock.boot();
        self.not_before = now + now.since(begun) * 4;
    }

    /// Renamed into place, a file is whole, whoever still has it open.
    fn is_closed(&self, path: &Path) -> bool {
        self.moved.contains(path) || !self.watch.is_written_to(path)
    }

    /// Whoever writes in place is waited for, however long it takes: their closing wakes the next look.
    fn wait_for_writers(&mut self, files: Vec<Ready>, now: Boot) {
        let before = std::mem::take(&mut self.written_to);
        for Ready { path, .. } in files {
            let mut since = before.get(&path).copied().unwrap_or(Some(now));
            if since.is_some_and(|since| now.since(since) >= OPEN_TOO_LONG) {
                self.taking.shared.metrics.left_in_place(1);
                if self.is_told_singly(Left::Open, &path, 1, now) {
                    tracing::warn!(file = %ShownPath::new(&path), "left in place: a program has had it open for writing all the time; it is taken once that is closed");
                }
                since = None;
            }
            self.written_to.insert(path, since);
        }
    }

    /// Files whose owner may have them taken now. What is over waits where it is, in its order.
    fn within_the_hour(&self, ready: Vec<Ready>, over: &mut Over) -> Vec<Ready> {
        let mut left: HashMap<u32, Option<u64>> = HashMap::new();
        let mut may = |ready: &Ready| {
            let owner = ready.found.uid;
            if self.turns.is_under_way(&ready.path) {
                return true;
            }
            match left.entry(owner).or_insert_with(|| self.allowance.left(owner)) {
                None => true,
                Some(0) => false,
                Some(left) => {
                    *left -= 1;
                    true
                }
            }
        };
        let (may, wait): (Vec<_>, Vec<_>) = ready.into_iter().partition(&mut may);
        for ready in &wait {
            over.add(&ready.path, ready.found.uid);
        }
        may
    }

    /// Reports the files that wait for their owner's next hour: one line for all of them.
    fn tell_over(&self, over: &Over, now: Boot) {
        let shared = &self.taking.shared;
        shared.metrics.intake_over_limit(over.files);
        let Some((first, owner)) = &over.first else {
            if let Some(told) = shared.health.over(Trouble::TooManyFiles, "") {
                tracing::info!(times = told.times, "no file waits for intake.max_files_per_hour any more{told}");
            }
            return;
        };
        if let Some(told) = shared.health.met(Trouble::TooManyFiles, "") {
            let wall = shared.clock.wall();
            let until = local(wall + self.allowance.until(*owner).unwrap_or(now).since(now), wall);
            tracing::warn!(
                owner, files = over.files, file = %ShownPath::new(first), until, times = told.times,
                "files wait: their owner drops more than intake.max_files_per_hour, and the next is taken when the hour allows; raise the limit if that is meant{told}"
            );
        }
    }

    /// Whether this is reported by itself; else it is counted.
    fn is_told_singly(&mut self, why: Left, path: &Path, count: u64, now: Boot) -> bool {
        let is_singly = match why {
            // One line of these may stand for any number.
            Left::InPlace(Why::NoFile) => self.sparing.is_first(why, now),
            Left::InPlace(_) | Left::Open | Left::Later | Left::TakenBack => self.sparing.is_told_singly(why, now),
        };
        if !is_singly {
            self.sparing.count(why, count, &ShownPath::new(path).to_string(), now);
        }
        is_singly
    }

    /// Reports what is new of what is left in place: what is no regular file in one line, the rest name by name.
    fn tell_left(&mut self, left: Vec<Stray>, now: Boot) {
        for Stray { why, named, count } in left {
            self.taking.shared.metrics.left_in_place(count);
            let unnamed = count.saturating_sub(named.len() as u64);
            if let (Some(path), true) = (named.first(), why == Why::NoFile) {
                if self.is_told_singly(Left::InPlace(why), path, count, now) {
                    tracing::warn!(path = %ShownPath::new(path), count, "left in place: it is no regular file");
                }
                continue;
            }
            for path in &named {
                if !self.is_told_singly(Left::InPlace(why), path, 1, now) {
                    continue;
                }
                let path = ShownPath::new(path);
                if why == Why::Ending {
                    tracing::warn!(%path, "left in place: lists are taken by their ending, and this one is none of theirs; rename it to end in .txt, .list, .csv, .tsv, .json, .jsonl or .ndjson, or move it away");
                } else {
                    tracing::warn!(%path, "left in place: its name is that of an unfinished file, and it has not changed for a day; rename it if it is whole, or remove it");
                }
            }
            if let (Some(last), 1..) = (named.last(), unnamed) {
                self.sparing.count(Left::InPlace(why), unnamed, &ShownPath::new(last).to_string(), now);
            }
        }
    }

    /// Gives the tenants' folders the groups of their droppers; an operator may have changed those.
    fn share(&mut self, now: Boot) {
        if now.since(self.shared_at) >= self.taking.intake.rescan {
            self.taking.share_folders();
            self.shared_at = now;
        }
    }

    /// Reports together what was not reported one by one.
    fn tell_together(&mut self, all: bool) {
        for (cause, rest) in self.sparing.due(self.taking.shared.clock.boot(), all) {
            let why = match cause {
                Some(Left::InPlace(Why::NoFile)) => "they are no regular files",
                Some(Left::InPlace(Why::Ending)) => "their endings are none of those that lists have",
                Some(Left::InPlace(Why::Unfinished)) => {
                    "their names are those of unfinished files, and they have not changed for a day"
                }
                Some(Left::Open) => "programs have them open for writing",
                Some(Left::TakenBack) => "they were taken back",
                Some(Left::Later) | None => "they cannot be taken now, each for a reason of its own",
            };
            let Together { count, first, last } = rest;
            tracing::warn!(count, first, last, why, "more files were not taken");
        }
    }

    /// Reports folders that cannot be read, the first of them by name, and when all can be again. A tenant's folder is
    /// another matter than `incoming/` itself.
    fn tell_unreadable(&self, found: &Found) {
        let shared = &self.taking.shared;
        let top = if found.is_watched { None } else { found.unreadable.first() };
        let tenants = if found.is_watched { found.unreadable.as_slice() } else { &[] };
        shared.metrics.unreadable_folders(found.unreadable.len());
        if let Some((folder, why)) = top {
            if let Some(told) = shared.health.met(Trouble::Folder, "") {
                tracing::error!(folder = %ShownPath::new(folder), why, times = told.times, "the drop folder cannot be read; it is made again if it is gone{told}");
            }
        } else if let Some(told) = shared.health.over(Trouble::Folder, "") {
            tracing::info!(times = told.times, "the drop folder can be read again{told}");
        }
        if let Some((folder, why)) = tenants.first() {
            if let Some(told) = shared.health.met(Trouble::TenantFolder, "") {
                tracing::error!(folder = %ShownPath::new(folder), why, folders = tenants.len(), times = told.times, "a tenant's drop folder cannot be read: its files wait, the other tenants' are taken; it is made again if it is gone{told}");
            }
        } else if found.is_watched
            && let Some(told) = shared.health.over(Trouble::TenantFolder, "")
        {
            tracing::info!(times = told.times, "every tenant's drop folder can be read again{told}");
        }
    }

    /// What is taken next, and its tenant's turn, where whose it is is known.
    fn next(&mut self) -> Option<(Turn, Option<Held<'a>>)> {
        let turn = self.turns.next(|whose, length| self.taking.is_busy(whose, length))?;
        let held = turn.whose.as_ref().and_then(|whose| self.taking.begin(whose, turn.length));
        for ready in &turn.files {
            self.moved.forget(&ready.path);
            self.allowance.begin(ready.found.uid);
        }
        Some((turn, held))
    }

    /// Whether the disk is short; told when it begins and when it ends.
    fn is_short(&mut self) -> bool {
        let shared = &self.taking.shared;
        let why = self.taking.shortage();
        let (is, was) = (why.is_some(), shared.health.why_intake_stopped().is_some());
        match &why {
            Some(why) if !was => {
                if let Some(told) = shared.health.met(Trouble::DiskShort, "") {
                    tracing::error!(
                        why,
                        times = told.times,
                        "no file is taken: the disk is short; they stay where they are{told}"
                    );
                }
            }
            None if was => {
                if let Some(told) = shared.health.over(Trouble::DiskShort, "") {
                    tracing::info!(times = told.times, "there is room again: files are taken{told}");
                }
                self.put_off.end(shared.clock.boot());
            }
            _ => {}
        }
        shared.metrics.intake_stopped(is);
        shared.health.intake_stopped(why);
        is
    }

    fn took(&mut self, took: Took, ready: Ready) {
        let now = self.taking.shared.clock.boot();
        self.turns.done(&ready);
        self.allowance.end(ready.found.uid, matches!(took, Took::Done), now);
        match took {
            Took::Done => self.put_off.remove(&ready.found),
            Took::Busy(whose) => self.turns.wait(ready, whose),
            Took::Later(_) if ready.dir.look(&ready.name).is_err() => {
                self.put_off.remove(&ready.found);
                if self.is_told_singly(Left::TakenBack, &ready.path, 1, now) {
                    tracing::info!(file = %ShownPath::new(&ready.path), "the file was taken back");
                }
            }
            Took::Later(why) => {
                // Reported once for each file and reason, not at every try.
                let news = self.put_off.note(&ready.found, &why, now);
                self.taking.shared.metrics.left_in_place(u64::from(news == News::File));
                if news != News::Nothing && self.is_told_singly(Left::Later, &ready.path, 1, now) {
                    tracing::error!(
                        file = %ShownPath::new(&ready.path),
                        why,
                        "the file stays where it is and is tried again every {} s",
                        AGAIN.as_secs()
                    );
                }
            }
        }
    }

    /// How long nothing has to happen.
    fn pause(&self, short: bool, look: bool) -> Duration {
        let now = self.taking.shared.clock.boot();
        let intake = &self.taking.intake;
        let pause = if self.unsettled { intake.settle.max(Duration::from_millis(50)) } else { intake.rescan };
        let pause = if short { pause.min(SHORT) } else { pause };
        // A look that is due waits for its time.
        let pause = if look { pause.min(self.not_before.since(now)) } else { pause };
        pause.min(Duration::from_mins(1)).max(Duration::from_millis(1))
    }
}
