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
use super::taking::{Taking, Took};
use super::turns::{Turn, Turns};
use crate::domain::dropping::Taken;
use crate::domain::shown::ShownPath;
use crate::domain::sparing::{Sparing, Together};
use crate::domain::time::Boot;
use crate::domain::trouble::Trouble;
use crate::intake::Watch;
use crate::intake::folder::{Folder, Ready};
use crate::intake::moved::Moved;

/// After a file could not be taken for a reason that may pass.
const AGAIN: Duration = Duration::from_secs(30);

/// After a file could have been taken for so long but for a writer that does not close it.
const OPEN_TOO_LONG: Duration = Duration::from_mins(10);

/// While the disk is short, it is looked at so often.
const SHORT: Duration = Duration::from_secs(5);

/// Why a file stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PutOff {
    /// A program has it open for writing.
    Open,
    /// It cannot be taken now.
    Later,
}

/// What the loop remembers from one look to the next.
struct Looking<'a> {
    taking: &'a Taking,
    folder: Folder,
    watch: Watch,
    turns: Turns,
    /// Renamed into place, and not taken yet.
    moved: Moved,
    later: HashMap<PathBuf, Boot>,
    told: HashMap<PathBuf, String>,
    /// Since when a file would be taken but for its writer; nothing once that was told.
    written_to: HashMap<PathBuf, Option<Boot>>,
    /// What is told one by one, and what together.
    sparing: Sparing<PutOff>,
    /// What was taken within the hour, by owner.
    hour: Taken,
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
            later: HashMap::new(),
            told: HashMap::new(),
            written_to: HashMap::new(),
            sparing: Sparing::default(),
            hour: Taken::default(),
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
        self.later.retain(|_, until| *until > begun);
        let later = &self.later;
        let is_put_off = |path: &Path| later.contains_key(path);
        let found = self.folder.look(&mut self.moved, self.taking.intake.settle, begun, is_put_off);
        if !found.unreadable.is_empty() && self.folder.create().is_ok() {
            self.watch.folders(&self.folder.incoming());
        }
        // One tenant's folder is that tenant's trouble, and a dropper may cause it.
        self.taking.shared.health.watching(found.is_watched);
        self.tell_unreadable(&found.unreadable);
        self.tell_odd(found.odd);
        self.unsettled = found.unsettled;
        // Looked at by path: whatever lies there, it is merely remembered or forgotten.
        let is_there = |path: &PathBuf| std::fs::symlink_metadata(path).is_ok();
        self.told.retain(|path, _| is_there(path));
        self.later.retain(|path, _| is_there(path));
        let (ready, written_to): (Vec<_>, Vec<_>) =
            found.ready.into_iter().partition(|ready| self.is_closed(&ready.path));
        self.wait_for_writers(written_to, begun);
        self.tell_together(false);
        let ready = self.within_the_hour(ready, begun);
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
                if self.sparing.is_told_singly(PutOff::Open, &ShownPath::new(&path).to_string(), now) {
                    tracing::warn!(file = %ShownPath::new(&path), "left in place: a program has had it open for writing all the time; it is taken once that is closed");
                }
                since = None;
            }
            self.written_to.insert(path, since);
        }
    }

    /// Files whose owner may have them taken now. What is over waits where it is, in its order.
    fn within_the_hour(&mut self, ready: Vec<Ready>, now: Boot) -> Vec<Ready> {
        let limit = self.taking.intake.max_files_per_hour;
        let is_bound = |owner: u32| limit > 0 && owner != 0 && owner != nix::unistd::geteuid().as_raw();
        self.hour.forget(now);
        let mut admitted: HashMap<u32, u64> = HashMap::new();
        let (may, wait): (Vec<_>, Vec<_>) = ready.into_iter().partition(|ready| {
            let owner = ready.found.uid;
            let admitted = admitted.entry(owner).or_insert_with(|| self.hour.count(owner));
            *admitted += 1;
            !is_bound(owner) || *admitted <= limit
        });
        self.taking.shared.metrics.intake_over_limit(wait.len());
        let health = &self.taking.shared.health;
        match wait.first() {
            Some(first) => {
                let (owner, files) = (first.found.uid, wait.len());
                let until = self.hour.until(owner).unwrap_or(now).since(now).as_secs();
                if let Some(told) = health.met(Trouble::TooManyFiles, "") {
                    tracing::warn!(
                        owner,
                        files,
                        times = told.times,
                        "files wait: their owner drops more than intake.max_files_per_hour ({limit}); the next is taken in {until} s; raise the limit if that is meant{told}"
                    );
                }
            }
            None => {
                if let Some(told) = health.over(Trouble::TooManyFiles, "") {
                    tracing::info!(times = told.times, "no file waits for intake.max_files_per_hour any more{told}");
                }
            }
        }
        may
    }

    /// Tells what is no regular file: the first by name, and how many.
    fn tell_odd(&self, odd: Option<(PathBuf, u64)>) {
        let Some((first, count)) = odd else { return };
        let shared = &self.taking.shared;
        shared.metrics.left_in_place(count);
        if let Some(told) = shared.health.met(Trouble::Odd, "") {
            tracing::warn!(path = %ShownPath::new(&first), count, times = told.times, "left in place: it is no regular file{told}");
        }
    }

    /// Tells together what was not told one by one.
    fn tell_together(&mut self, all: bool) {
        for (cause, rest) in self.sparing.due(self.taking.shared.clock.boot(), all) {
            let why = match cause {
                Some(PutOff::Open) => "programs have them open for writing",
                Some(PutOff::Later) | None => "they cannot be taken now, each for a reason of its own",
            };
            let Together { count, first, last } = rest;
            tracing::warn!(count, first, last, why, "more files stay where they are, and are tried again");
        }
    }

    /// Tells of folders that cannot be read, the first of them by name, and when all can be again.
    fn tell_unreadable(&self, unreadable: &[(PathBuf, String)]) {
        let health = &self.taking.shared.health;
        let Some((folder, why)) = unreadable.first() else {
            if let Some(told) = health.over(Trouble::Folder, "") {
                tracing::info!(times = told.times, "the drop folder can be read again{told}");
            }
            return;
        };
        if let Some(told) = health.met(Trouble::Folder, "") {
            tracing::error!(folder = %ShownPath::new(folder), why, folders = unreadable.len(), times = told.times, "the drop folder cannot be read; it is made again if it is gone{told}");
        }
    }

    /// What is taken next, and its tenant's turn, where whose it is is known.
    fn next(&mut self) -> Option<(Turn, Option<Held<'a>>)> {
        let turn = self.turns.next(|whose, length| self.taking.is_busy(whose, length))?;
        let held = turn.whose.as_ref().and_then(|whose| self.taking.begin(whose, turn.length));
        for ready in &turn.files {
            self.moved.forget(&ready.path);
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
                self.later.clear();
            }
            _ => {}
        }
        shared.metrics.intake_stopped(is);
        shared.health.intake_stopped(why);
        is
    }

    fn took(&mut self, took: Took, ready: Ready) {
        self.turns.done(&ready);
        match took {
            Took::Done => self.hour.note(ready.found.uid, self.taking.shared.clock.boot()),
            Took::Busy(whose) => self.turns.wait(ready, whose),
            Took::Later(_) if ready.dir.look(&ready.name).is_err() => {
                tracing::info!(file = %ShownPath::new(&ready.path), "the file was taken back");
            }
            Took::Later(why) => {
                // Told once for each file and reason, not at every try.
                let before = self.told.insert(ready.path.clone(), why.clone());
                if before.is_none() {
                    self.taking.shared.metrics.left_in_place(1);
                }
                let (now, shown) = (self.taking.shared.clock.boot(), ShownPath::new(&ready.path).to_string());
                if before.as_ref() != Some(&why) && self.sparing.is_told_singly(PutOff::Later, &shown, now) {
                    tracing::error!(
                        file = shown,
                        why,
                        "the file stays where it is and is tried again every {} s",
                        AGAIN.as_secs()
                    );
                }
                self.later.insert(ready.path, self.taking.shared.clock.boot() + AGAIN);
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
