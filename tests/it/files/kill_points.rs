//! kill -9 at every named step between seeing a file and being done with it, once, again at the same step, and at one
//! step after the other. The steps are `sweepd::engine::steps::Step`; a release build cannot be asked to die at them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Configured, Daemon, Site, assert_adds_up, list, number, quick_tenant, simulate, text};
use serde_json::Value;
use sqlx::{ConnectOptions, Connection};
use sweepd::clock::{Clock, SystemClock};
use sweepd::engine::steps::Step;
use sweepd::simulator::{Simulator, fleet};
use sweepd::store::Store;

/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(20);

/// More than one chunk of lines makes a file a long one.
const LONG: usize = 2100;

/// What is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Short,
    Long,
    /// Nothing in it can be used.
    Useless,
    /// Its content was taken before, and its sweep is open.
    Repeated,
}

impl Kind {
    /// The steps that such a file comes to.
    fn steps(self) -> Vec<Step> {
        let passes = |step: &Step| match step {
            Step::Seen
            | Step::Hashed
            | Step::ReceiptAside
            | Step::CopyAside
            | Step::Removed
            | Step::Moved
            | Step::Receipted => true,
            Step::Read => self != Self::Repeated,
            // A short file is let go with its commit.
            Step::Begun | Step::Appended | Step::Keyed | Step::Released => self == Self::Long,
            Step::Committed | Step::Filed => matches!(self, Self::Short | Self::Long),
            Step::Recorded => self == Self::Useless,
            Step::ArchiveWritten | Step::ArchiveRecorded | Step::ArchiveRemoved => false,
        };
        Step::ALL.into_iter().filter(passes).collect()
    }

    /// The same, as the daemon is told of them: a long file is appended to twice.
    fn kills(self) -> Vec<String> {
        let mut kills: Vec<String> = self.steps().iter().map(|step| step.as_str().to_owned()).collect();
        if let Some(at) = kills.iter().position(|kill| kill == "appended") {
            kills.insert(at + 1, "appended:2".to_owned());
        }
        kills
    }
}

/// A site whose only tenant is paused, with no daemon running.
struct Scene {
    _simulator: Simulator,
    daemon: Daemon,
    files: u64,
}

impl Scene {
    async fn new() -> Self {
        let tenant = quick_tenant(fleet(1, 1, "nobody"));
        let simulator = simulate(7, vec![tenant.clone()]).await;
        let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "hold_above = 0");
        let mut daemon = Daemon::started(site).await;
        daemon.told(&["pause"]);
        daemon.kill();
        Self { _simulator: simulator, daemon, files: 0 }
    }

    /// Content that no file had before.
    fn content(&mut self, kind: Kind) -> String {
        self.files += 1;
        let machines = fleet(1000 + self.files, if kind == Kind::Long { LONG } else { 3 }, "killed");
        match kind {
            Kind::Useless => format!("no machine, file {}\n", self.files),
            // One of them twice, and a line that says nothing.
            _ => list(&machines) + &list(&machines[..1]) + "nonsense\n",
        }
    }

    fn put(&self, name: &OsStr, content: &str) {
        let unfinished = self.daemon.site.spool("incoming").join("put.tmp");
        fs::write(&unfinished, content).unwrap();
        fs::rename(unfinished, self.daemon.site.spool("incoming").join(name)).unwrap();
    }

    /// Whether nothing is left to do.
    async fn is_done(&self) -> bool {
        let Ok(Some(store)) = Store::open_existing(&self.daemon.site.state()).await else { return false };
        let half_done = store.half_done_sweeps().await;
        store.close().await;
        half_done.is_ok_and(|sweeps| sweeps.is_empty()) && self.daemon.site.waiting_files().is_empty()
    }

    /// Lets the daemon run until it dies at that step. At a later start it may come to it no more, and is killed
    /// when it has nothing left to do.
    async fn run_until(&mut self, kill: &str, first: bool) {
        self.daemon.launch_with(&[("SWEEPD_KILLED_AT", kill)]);
        let deadline = SystemClock.boot() + crate::support::PATIENCE;
        loop {
            if let Some(status) = self.daemon.has_ended() {
                assert_eq!(status.signal(), Some(9), "it did not die as it was told to:\n{}", self.daemon.log_text());
                return;
            }
            if !first && self.daemon.has_logged("\"ready\"") && self.is_done().await {
                return self.daemon.kill();
            }
            assert!(SystemClock.boot() < deadline, "it does not come to `{kill}`: this shows nothing");
            crate::support::pause(LOOK).await;
        }
    }

    /// Drops a file, kills the daemon at these steps, one start after the other, and lets the last start finish it.
    async fn survives(&mut self, kind: Kind, name: &OsStr, kills: &[&str]) {
        let content = self.content(kind);
        let before = if kind == Kind::Repeated { Some(self.taken_before(&content).await) } else { None };
        self.put(name, &content);
        for (n, kill) in kills.iter().enumerate() {
            self.run_until(kill, n == 0).await;
        }
        self.daemon.start().await;
        let what = format!("{} killed at {kills:?}", name.to_string_lossy());
        let place = if kind == Kind::Useless { "rejected" } else { "processed" };
        let shown = name.to_string_lossy();
        let receipt = self.daemon.receipt(&format!("{place}/{shown}")).await;
        self.end_of_everything(&what).await;
        assert_adds_up(&receipt);
        self.assert_one_receipt(place, &shown, &what);
        match before {
            Some(sweep) => {
                assert_eq!(
                    (text(&receipt, "status"), text(&receipt, "sweep_id")),
                    ("already_taken", &*sweep),
                    "{what}"
                );
                assert_eq!(number(&receipt, "lines"), 0, "{what}");
            }
            None if kind == Kind::Useless => assert_eq!(text(&receipt, "status"), "rejected", "{what}"),
            None => self.assert_taken_once(kind, &receipt, &content, &what).await,
        }
        self.daemon.kill();
    }

    async fn end_of_everything(&self, what: &str) {
        let deadline = SystemClock.boot() + crate::support::PATIENCE;
        while !self.is_done().await {
            let waiting = self.daemon.site.waiting_files();
            assert!(SystemClock.boot() < deadline, "{what}: something is left to do, in {waiting:?}");
            crate::support::pause(LOOK).await;
        }
    }

    /// The file and its receipt, once, and nothing hidden beside them.
    fn assert_one_receipt(&self, place: &str, name: &str, what: &str) {
        let stem = name.split('.').next().unwrap();
        let found: Vec<String> =
            self.daemon.site.names_in(place).into_iter().filter(|found| found.contains(stem)).collect();
        assert_eq!(found, [name.to_owned(), format!("{name}.receipt.json")], "{what}");
        let hidden = |name: &String| name.starts_with('.');
        assert!(!self.daemon.site.names_in(place).iter().any(hidden), "{what}: something unfinished is left");
    }

    async fn assert_taken_once(&self, kind: Kind, receipt: &Value, content: &str, what: &str) {
        let machines = if kind == Kind::Long { LONG as u64 } else { 3 };
        assert_eq!(text(receipt, "status"), "taken", "{what}");
        let counts = ["lines", "queued", "joined", "duplicates", "refused"].map(|count| number(receipt, count));
        assert_eq!(counts, [machines + 2, machines, 0, 1, 1], "{what}");
        let jobs = self.jobs_of(text(receipt, "sweep_id")).await;
        let expected: BTreeSet<_> = content.lines().filter(|line| *line != "nonsense").map(str::to_owned).collect();
        assert_eq!(jobs.len(), expected.len(), "{what}: a job for each machine, and no other");
        assert!(jobs.iter().all(|(_, ready)| *ready), "{what}: none is hidden");
        assert_eq!(jobs.into_iter().map(|(machine, _)| machine).collect::<BTreeSet<_>>(), expected, "{what}");
    }

    /// The machines of a sweep that are queued, and whether each is ready. No other sweep may have them.
    async fn jobs_of(&self, sweep: &str) -> Vec<(String, bool)> {
        let database = self.daemon.site.state().join("sweepd.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database).read_only(true);
        let mut connection = options.connect().await.unwrap();
        let jobs = sqlx::query_as(
            "SELECT lower(hex(machine)), parked_until IS NULL FROM jobs
             WHERE state = 'queued' AND machine IN (SELECT machine FROM jobs JOIN sweeps ON n = sweep_n WHERE sweeps.id = ?)",
        )
        .bind(sweep)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        jobs
    }

    /// Has a content taken, undisturbed. Returns its sweep.
    async fn taken_before(&mut self, content: &str) -> String {
        let name = format!("before-{}.txt", self.files);
        self.put(OsStr::new(&name), content);
        self.daemon.start().await;
        let receipt = self.daemon.receipt(&format!("processed/{name}")).await;
        self.end_of_everything(&name).await;
        self.daemon.kill();
        assert_eq!(text(&receipt, "status"), "taken", "{receipt}");
        text(&receipt, "sweep_id").to_owned()
    }

    /// The same content again: already taken while its sweep is open, and a new sweep once that is done.
    async fn again(&mut self, name: &str) {
        self.daemon.start().await;
        let content = fs::read_to_string(self.daemon.site.spool("processed").join(name)).unwrap();
        let first = self.daemon.receipt(&format!("processed/{name}")).await;
        let sweep = text(&first, "sweep_id");
        self.put(OsStr::new("again.txt"), &content);
        let again = self.daemon.receipt("processed/again.txt").await;
        assert_eq!((text(&again, "status"), text(&again, "sweep_id")), ("already_taken", sweep), "{again}");
        self.daemon.told(&["sweep", "cancel", sweep, "--yes"]);
        self.put(OsStr::new("afterwards.txt"), &content);
        let afterwards = self.daemon.receipt("processed/afterwards.txt").await;
        assert_eq!(text(&afterwards, "status"), "taken", "{afterwards}");
        assert_ne!(text(&afterwards, "sweep_id"), sweep);
        assert_eq!(number(&afterwards, "queued"), number(&first, "queued"), "{afterwards}");
        self.daemon.kill();
    }
}

/// Each step of such a file, met once and met twice; then all of them, one after the other, with one file.
async fn survives_every_step(kind: Kind) {
    let mut scene = Scene::new().await;
    let kills = kind.kills();
    for (n, kill) in kills.iter().enumerate() {
        scene.survives(kind, OsStr::new(&format!("once{n}.txt")), &[kill]).await;
        scene.survives(kind, OsStr::new(&format!("twice{n}.txt")), &[kill, kill]).await;
    }
    let all: Vec<&str> = kills.iter().map(String::as_str).collect();
    scene.survives(kind, OsStr::new("each.txt"), &all).await;
    if matches!(kind, Kind::Short | Kind::Long) {
        scene.again("each.txt").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_file_is_taken_exactly_once_wherever_it_is_killed() {
    survives_every_step(Kind::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_is_taken_exactly_once_wherever_it_is_killed() {
    survives_every_step(Kind::Long).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_file_has_its_receipt_wherever_it_is_killed() {
    survives_every_step(Kind::Useless).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_file_is_called_already_taken_wherever_it_is_killed() {
    survives_every_step(Kind::Repeated).await;
}

/// A name that is no UTF-8 is kept as text, in which it is not the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_no_text_is_found_again_after_a_kill() {
    let mut scene = Scene::new().await;
    for step in [Step::Committed, Step::Moved] {
        let name = OsString::from_vec([step.as_str().as_bytes(), b"\xff.txt"].concat());
        scene.survives(Kind::Short, &name, &[step.as_str()]).await;
    }
    let name = OsStr::from_bytes(b"odd-long\xff.txt").to_owned();
    scene.survives(Kind::Long, &name, &["appended", "keyed"]).await;
}

/// What a dropper puts in the place of something while the daemon stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swap {
    /// A link to a folder elsewhere, in the place of the folder that the file lies in.
    Folder,
    /// A link to a file elsewhere, in the place of the file.
    Link,
    /// A second name of a file elsewhere, in the place of the file.
    SecondName,
    /// Another list, in the place of the file.
    Another,
}

/// Text that must not turn up anywhere; a list, so that it would be taken if it were read.
fn marker_list() -> String {
    format!("{}marker of another folder\n", list(&fleet(4711, 3, "marker")))
}

/// Stops the daemon at that step of a file, swaps something, and lets it go on.
struct Swapped {
    scene: Scene,
    /// The folder that the file is dropped into, below `incoming/`.
    folder: &'static str,
    outside: tempfile::TempDir,
}

impl Swapped {
    async fn new(tenants: usize) -> Self {
        let names = ["contoso", "fabrikam"];
        let options: Vec<_> = (1..).take(tenants).map(|seed| quick_tenant(fleet(seed, 1, "nobody"))).collect();
        let simulator = simulate(7, options.clone()).await;
        let configured: Vec<_> = names.iter().zip(&options).map(|(name, of)| Configured::of(name, of)).collect();
        let mut daemon = Daemon::started(Site::new(&simulator, &configured, "hold_above = 0")).await;
        daemon.told(&["pause"]);
        daemon.kill();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("list.txt"), marker_list()).unwrap();
        let scene = Scene { _simulator: simulator, daemon, files: 0 };
        Self { scene, folder: if tenants > 1 { "contoso/" } else { "" }, outside }
    }

    fn spool(&self, place: &str) -> PathBuf {
        self.scene.daemon.site.spool(&format!("{place}/{}", self.folder))
    }

    /// Whether all of it stands still.
    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.scene.daemon.pid())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    }

    fn swap(&self, swap: Swap, another: &str) {
        let folder = self.spool("incoming");
        let file = folder.join("list.txt");
        let (beside, marker) = (folder.join(".beside.tmp"), self.outside.path().join("list.txt"));
        match swap {
            Swap::Folder => {
                let path = PathBuf::from(folder.to_str().unwrap().trim_end_matches('/'));
                fs::rename(&path, path.with_extension("kept")).unwrap();
                return std::os::unix::fs::symlink(self.outside.path(), path).unwrap();
            }
            Swap::Link => std::os::unix::fs::symlink(&marker, &beside).unwrap(),
            Swap::SecondName => fs::hard_link(&marker, &beside).unwrap(),
            Swap::Another => fs::write(&beside, another).unwrap(),
        }
        fs::rename(beside, file).unwrap();
    }

    /// Takes away what was put in the place of something else.
    fn swap_back(&self, swap: Swap) {
        let folder = self.spool("incoming");
        let path = PathBuf::from(folder.to_str().unwrap().trim_end_matches('/'));
        match swap {
            Swap::Folder => {
                fs::remove_file(&path).unwrap();
                fs::rename(path.with_extension("kept"), path).unwrap();
            }
            Swap::Link | Swap::SecondName => fs::remove_file(folder.join("list.txt")).unwrap(),
            Swap::Another => {}
        }
    }

    async fn survives(&mut self, kind: Kind, step: Step, swap: Swap) {
        let what = format!("{swap:?} at {}", step.as_str());
        let content = self.scene.content(kind);
        let another = self.scene.content(Kind::Short);
        fs::write(self.spool("incoming").join("list.tmp"), &content).unwrap();
        fs::rename(self.spool("incoming").join("list.tmp"), self.spool("incoming").join("list.txt")).unwrap();
        self.scene.daemon.launch_with(&[("SWEEPD_STOPPED_AT", step.as_str())]);
        crate::support::eventually("moment that it stands still", || self.is_stopped().then_some(())).await;
        self.swap(swap, &another);
        self.scene.daemon.go_on();

        // What was read before is taken; a file that was swapped before it was read is the dropper's own doing.
        let is_read = step != Step::Seen || swap == Swap::Folder;
        if is_read {
            let place = if kind == Kind::Useless { "rejected" } else { "processed" };
            let receipt = self.receipt(place, "list.txt").await;
            assert_adds_up(&receipt);
            let filed = fs::read_to_string(self.spool(place).join("list.txt")).unwrap();
            assert_eq!(filed, content, "{what}: what was read is what is kept");
        }
        if swap == Swap::Another {
            let name = if is_read && kind != Kind::Useless { "list.1.txt" } else { "list.txt" };
            let receipt = self.receipt("processed", name).await;
            assert_eq!(number(&receipt, "queued"), 3, "{what}: the other list is taken too");
        } else if swap != Swap::Folder {
            // It is seen for what it is, and stays.
            let text = "list.txt";
            crate::support::eventually("word of it", || self.scene.daemon.has_logged(text).then_some(())).await;
            assert!(fs::symlink_metadata(self.spool("incoming").join(text)).is_ok(), "{what}");
        }
        let outside: Vec<_> =
            fs::read_dir(self.outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside, ["list.txt"], "{what}: nothing was moved from elsewhere, or to there");
        assert_eq!(fs::read_to_string(self.outside.path().join("list.txt")).unwrap(), marker_list(), "{what}");
        self.swap_back(swap);
        self.scene.end_of_everything(&what).await;
        self.scene.daemon.kill();
        self.assert_no_marker(&what);
        self.clear();
    }

    async fn receipt(&self, place: &str, name: &str) -> Value {
        self.scene.daemon.receipt(&format!("{place}/{}{name}", self.folder)).await
    }

    /// Neither its text nor its machines stand in the state folder.
    fn assert_no_marker(&self, what: &str) {
        let machine = fleet(4711, 3, "marker")[0].id;
        let (name, raw) = (machine.to_string(), *machine.bytes());
        let mut folders = vec![self.scene.daemon.site.state()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = fs::read(&path).unwrap();
                let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|found| found == wanted);
                assert!(
                    !has(b"marker of another") && !has(name.as_bytes()) && !has(&raw),
                    "{what}: {}",
                    path.to_str().unwrap()
                );
            }
        }
    }

    /// The next one begins with empty folders.
    fn clear(&self) {
        for place in ["processed", "rejected"] {
            for entry in fs::read_dir(self.spool(place)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }
}

/// Whatever is swapped at whichever step: nothing elsewhere is read or moved, and what was read is taken.
async fn swaps_change_nothing(tenants: usize, swap: Swap) {
    let mut swapped = Swapped::new(tenants).await;
    // At the others the file is not looked at again.
    let looked_at = [Step::Seen, Step::Hashed, Step::Committed, Step::ReceiptAside, Step::CopyAside];
    for step in Step::ALL.into_iter().filter(|step| swap == Swap::Folder || looked_at.contains(step)) {
        let kind = [Kind::Short, Kind::Long, Kind::Useless].into_iter().find(|kind| kind.steps().contains(&step));
        swapped.survives(kind.unwrap(), step, swap).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_swapped_at_any_step_leads_nowhere_with_one_tenant() {
    swaps_change_nothing(1, Swap::Folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_swapped_at_any_step_leads_nowhere_with_two_tenants() {
    swaps_change_nothing(2, Swap::Folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_swapped_for_a_link_is_not_followed() {
    swaps_change_nothing(1, Swap::Link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_swapped_for_a_second_name_is_not_taken() {
    swaps_change_nothing(1, Swap::SecondName).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_swapped_for_another_list_loses_neither() {
    swaps_change_nothing(1, Swap::Another).await;
}
