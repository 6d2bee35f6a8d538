//! The loop that archives what is older than `retention.keep`, and then removes it.
//!
//! The files of a segment are written under unfinished names, read back, checked, and renamed; then they are put on
//! record; then what they hold is removed, in small steps. A kill at any moment loses nothing: files of which the
//! record does not know are written again, and what is on record is removed to its end at the next start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::expiry::UNCONFIRMED;
use crate::config::Config;
use crate::domain::shown::ShownPath;
use crate::domain::time::Wall;
use crate::domain::trouble::Trouble;
use crate::engine::Shared;
use crate::engine::steps::{Step, passed};
use crate::intake::room::shortage;
use crate::store::Store;
use crate::store::archives::{Archive, Kept, Removal, Segment};
use crate::store::events::{Exported, Head};
use crate::store::sweeps::SweepRow;

/// Between two rounds; less where little is kept.
const ROUND: Duration = Duration::from_hours(1);
/// Events of one segment.
const MOST: i64 = 200_000;

pub struct Retention {
    shared: Shared,
    keep: Duration,
    /// Where archives go; none: nothing is removed.
    folder: Option<PathBuf>,
    /// What an archive leaves free, as the intake does.
    min_free: Option<u64>,
}

impl Retention {
    pub fn new(shared: Shared, config: &Config) -> Self {
        let (keep, folder) = (config.retention.keep, config.retention.archive_dir.clone());
        Self { shared, keep, folder, min_free: config.intake.min_free }
    }

    /// Removes what is on record as archived, then archives what has become old since.
    async fn round(&self, folder: &Path, now: Wall, stop: &CancellationToken) -> anyhow::Result<()> {
        let store = &self.shared.store;
        self.remove(stop).await?;
        while !stop.is_cancelled() {
            let cutoff = now - self.keep;
            // A tenth of it at a time, so that there are few segments.
            let worth = cutoff - self.keep / 10;
            let Some(segment) = store.next_segment(cutoff, worth, MOST).await? else { return Ok(()) };
            let sweeps = store.old_sweeps(cutoff).await?;
            let (first, last, count) = (segment.first, segment.last.seq, sweeps.len());
            let archive = self.write(folder, segment, &sweeps, cutoff, stop).await?;
            passed(Step::ArchiveWritten);
            let file = archive.events.file.clone();
            store.archive(archive, sweeps, self.shared.clock.wall()).await?;
            passed(Step::ArchiveRecorded);
            tracing::info!(file, first, last, sweeps = count, "archived what is older than retention.keep");
            self.remove(stop).await?;
        }
        Ok(())
    }

    async fn remove(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled()
            && self.shared.store.remove_archived(self.shared.clock.wall()).await? == Removal::Some
        {
            passed(Step::ArchiveRemoved);
        }
        Ok(())
    }

    /// Tells of a round that failed, and of the first that did not again.
    fn tell(&self, folder: &Path, round: anyhow::Result<()>) {
        let Shared { health, metrics, .. } = &self.shared;
        metrics.archive_failing(round.is_err());
        let Err(error) = round else {
            if let Some(told) = health.over(Trouble::Archive, "") {
                tracing::info!(times = told.times, "what is old can be archived again{told}");
            }
            return;
        };
        if let Some(told) = health.met(Trouble::Archive, "") {
            let why = format!("{error:#}");
            tracing::error!(folder = %ShownPath::new(folder), why, times = told.times, "what is older than retention.keep cannot be archived; nothing was removed that is not, and it is tried again{told}");
        }
    }

    /// Writes an archive on a thread of its own: whoever waits for a folder across the network holds up no lane.
    async fn write(
        &self,
        folder: &Path,
        segment: Segment,
        sweeps: &[SweepRow],
        cutoff: Wall,
        stop: &CancellationToken,
    ) -> anyhow::Result<Archive> {
        let (store, folder, sweeps) = (self.shared.store.clone(), folder.to_owned(), sweeps.to_owned());
        let (runtime, stop, min_free) = (Handle::current(), stop.clone(), self.min_free);
        let write = move || runtime.block_on(written(&store, &folder, segment, &sweeps, cutoff, (min_free, &stop)));
        tokio::task::spawn_blocking(write).await?
    }
}

/// Writes both files, reads them back, and gives them their names. Told to stop, or where less than `min_free` would be
/// left, it leaves nothing behind: it may lie on the disk that the database is on.
async fn written(
    store: &Store,
    folder: &Path,
    segment: Segment,
    sweeps: &[SweepRow],
    cutoff: Wall,
    (min_free, stop): (Option<u64>, &CancellationToken),
) -> anyhow::Result<Archive> {
    let go_on = || if stop.is_cancelled() { Err(io::Error::other("told to stop")) } else { Ok(()) };
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    }
    let mut events = Unfinished::new(folder, "events", min_free)?;
    let last = segment.last.seq;
    store.export_record(segment.first - 1, Some(last), |event| go_on().and_then(|()| events.line(&event))).await??;
    let mut rows = Unfinished::new(folder, "rows", min_free)?;
    store.export_rows(sweeps, cutoff, |row| go_on().and_then(|()| rows.line(&row))).await??;
    let numbered = format!("{:010}-{last:010}", segment.first);
    // Both are on disk before either has its name.
    let (events, rows) = (events.seal()?, rows.seal()?);
    let (events, rows) = (events.name(folder, &numbered)?, rows.name(folder, &numbered)?);
    File::open(folder)?.sync_all()?;
    let archive = Archive { segment, cutoff, events, rows };
    check(folder, &archive, &mut |_| ())
        .map_err(|why| anyhow::anyhow!("what was written does not read back: {why}"))?;
    Ok(archive)
}

/// A file under a name that nobody takes for a finished one. It goes when it is dropped.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        // It has its name, or somebody else removed it; the next round begins with an empty one.
        drop(fs::remove_file(&self.0));
    }
}

/// A file that is being written.
struct Unfinished {
    path: Passing,
    kind: &'static str,
    file: BufWriter<File>,
    hash: Sha256,
    min_free: Option<u64>,
    /// So much may be written before it is looked again whether there is room.
    unlooked: usize,
}

/// So much is written between two looks at the room that is left.
const LOOK: usize = 1 << 20;

impl Unfinished {
    fn new(folder: &Path, kind: &'static str, min_free: Option<u64>) -> io::Result<Self> {
        let path = Passing(folder.join(format!(".{kind}.unfinished")));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path.0)?;
        Ok(Self { path, kind, file: BufWriter::new(file), hash: Sha256::new(), min_free, unlooked: 0 })
    }

    fn line(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.make_sure_of_room(line.len())?;
        self.hash.update(&line);
        self.file.write_all(&line)
    }

    /// An archive must not take the room that the database needs for what happens meanwhile.
    fn make_sure_of_room(&mut self, bytes: usize) -> io::Result<()> {
        let Some(left) = self.unlooked.checked_sub(bytes) else {
            self.unlooked = LOOK;
            let folder = self.path.0.parent().unwrap_or(&self.path.0);
            return shortage(&[folder], self.min_free).map_or(Ok(()), |why| Err(io::Error::other(why)));
        };
        self.unlooked = left;
        Ok(())
    }

    fn seal(self) -> anyhow::Result<Sealed> {
        let file = self.file.into_inner().context("an archive cannot be written")?;
        file.sync_all()?;
        Ok(Sealed { path: self.path, kind: self.kind, sha256: hex(&self.hash.finalize()) })
    }
}

/// A file that is written, and on disk.
struct Sealed {
    path: Passing,
    kind: &'static str,
    sha256: String,
}

impl Sealed {
    /// Gives it a name that says what is in it: other content has another name.
    fn name(self, folder: &Path, numbered: &str) -> io::Result<Kept> {
        let short = self.sha256.get(..8).unwrap_or_default();
        let name = format!("sweepd-{numbered}-{short}.{}.jsonl", self.kind);
        fs::rename(&self.path.0, folder.join(&name))?;
        Ok(Kept { file: name, sha256: self.sha256 })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Reads an archive: both files are what was written, and the events are a chain from the event before to the
/// last. Each event that fits is handed to `met`. The names are the database's, which somebody may have edited: they lead
/// to no other folder. Returns what is wrong, for people.
pub fn check(folder: &Path, archive: &Archive, met: &mut dyn FnMut(&Exported)) -> Result<(), String> {
    let told = |file: &str, why: String| format!("{}: {why}", ShownPath::new(&folder.join(file)));
    let segment = &archive.segment;
    let mut previous = Head { seq: segment.first - 1, hash: segment.before.clone() };
    let mut each = |line: &str| -> anyhow::Result<()> {
        let event: Exported = serde_json::from_str(line)?;
        ensure!(event.follows(&previous), "event {} does not fit the one before it", event.seq);
        met(&event);
        previous = Head { seq: event.seq, hash: event.hash };
        Ok(())
    };
    let name = &archive.events.file;
    let read = |name: &str, sha256: &str, each: &mut dyn FnMut(&str) -> anyhow::Result<()>| {
        let read = if Path::new(name).file_name().is_some_and(|file| file == name) {
            read(&folder.join(name), sha256, each)
        } else {
            Err(anyhow::anyhow!("it is not the name of a file"))
        };
        read.map_err(|error| told(name, format!("{error:#}")))
    };
    read(name, &archive.events.sha256, &mut each)?;
    if previous != segment.last {
        return Err(told(name, format!("it ends with event {}, not with {}", previous.seq, segment.last.seq)));
    }
    read(&archive.rows.file, &archive.rows.sha256, &mut |_| Ok(()))
}

fn read(path: &Path, sha256: &str, each: &mut dyn FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut hash, mut line) = (Sha256::new(), String::new());
    while file.read_line(&mut line)? > 0 {
        hash.update(line.as_bytes());
        each(line.trim_end())?;
        line.clear();
    }
    ensure!(hex(&hash.finalize()) == sha256, "it is not what was archived");
    Ok(())
}

/// Runs until it is told to stop. Without a folder for archives nothing is archived or removed.
pub async fn run(retention: Retention, stop: CancellationToken) {
    let Some(folder) = &retention.folder else {
        // A reload may have taken away the one that failed.
        return retention.shared.metrics.archive_failing(false);
    };
    let clock = &retention.shared.clock;
    let began = clock.boot();
    while !stop.is_cancelled() {
        let mut pause = (retention.keep / 10).clamp(Duration::from_secs(1), ROUND);
        if let Some(now) = retention.shared.time_for_removal(began) {
            let round = retention.round(folder, now, &stop).await;
            // What a stop has left is written again.
            if round.is_ok() || !stop.is_cancelled() {
                retention.tell(folder, round);
            }
        } else {
            pause = pause.min(UNCONFIRMED);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep_until(clock.boot() + pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::upkeep::still;
    use crate::store::events::{Kind, Subject};

    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test]
    async fn a_stop_leaves_what_is_being_written_without_a_name() {
        let (shared, _clock, folder) = still::shared(Wall(0)).await;
        let archive_dir = folder.path().join("archive");
        shared.store.record(Wall(1), Kind::Paused, Subject::default(), serde_json::json!({})).await.unwrap();
        let segment = shared.store.next_segment(Wall(2), Wall(2), 9).await.unwrap().unwrap();
        let retention = Retention { shared, keep: DAY, folder: None, min_free: Some(1) };
        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = retention.write(&archive_dir, segment.clone(), &[], Wall(2), &stop).await.unwrap_err();
        assert_eq!(stopped.to_string(), "told to stop");
        let names = || {
            let names = fs::read_dir(&archive_dir).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| !name.to_string_lossy().starts_with('.')).count()
        };
        assert_eq!(names(), 0);
        retention.write(&archive_dir, segment, &[], Wall(2), &CancellationToken::new()).await.unwrap();
        assert_eq!(names(), 2, "it is written again");
    }

    #[tokio::test]
    async fn what_is_worth_an_archive_is_archived_and_no_more() {
        let (shared, clock, folder) = still::shared(Wall(1_700_000_000_000)).await;
        let retention = Retention { shared: shared.clone(), keep: DAY * 100, folder: None, min_free: Some(1) };
        clock.pass(DAY * 50);
        let at = shared.clock.wall();
        for _ in 0..2 {
            shared.store.record(at, Kind::Paused, Subject::default(), serde_json::json!({})).await.unwrap();
        }
        for (days, expected) in [(50, 0), (9, 0), (2, 1)] {
            clock.pass(DAY * days);
            retention
                .round(&folder.path().join("archive"), retention.shared.clock.wall(), &CancellationToken::new())
                .await
                .unwrap();
            assert_eq!(shared.store.archives().await.unwrap().len(), expected, "{days} days on");
        }
        assert_eq!(shared.store.archives().await.unwrap()[0].segment.last.seq, 1, "what is younger stays");
    }

    const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    /// An event whose hash fits, and one that follows it.
    fn events() -> [String; 2] {
        let mut before = NOTHING.to_owned();
        [1, 2].map(|seq| {
            let hash = hex(&Sha256::digest(format!("{before}\n{seq}\n0\npaused\n\n\n\n{{}}")));
            before.clone_from(&hash);
            format!(
                r#"{{"seq":{seq},"at":0,"time":"","kind":"paused","tenant_id":null,"job_id":null,"machine_id":null,"body":"{{}}","hash":"{hash}"}}"#
            )
        })
    }

    /// An archive of these lines, which says of itself what is true, and that it ends with the last of `whole`.
    fn archive(folder: &Path, lines: &[&str], whole: &[String; 2]) -> Archive {
        let file = |kind: &'static str, lines: &[&str]| {
            let mut file = Unfinished::new(folder, kind, Some(1)).unwrap();
            for line in lines {
                file.line(&serde_json::value::RawValue::from_string((*line).to_owned()).unwrap()).unwrap();
            }
            file.seal().unwrap().name(folder, "1-2").unwrap()
        };
        let (events, rows) = (file("events", lines), file("rows", &["{}"]));
        let end: Exported = serde_json::from_str(&whole[1]).unwrap();
        let segment = Segment { first: 1, before: NOTHING.to_owned(), last: Head { seq: 2, hash: end.hash } };
        Archive { segment, cutoff: Wall(0), events, rows }
    }

    #[test]
    fn an_archive_is_a_chain_from_its_beginning_to_its_end_whatever_its_hashes_say() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let whole = events();
        let [one, two] = [whole[0].as_str(), whole[1].as_str()];
        let right = archive(folder.path(), &[one, two], &whole);
        let mut met = Vec::new();
        assert_eq!(check(folder.path(), &right, &mut |event| met.push(event.seq)), Ok(()));
        assert_eq!(met, [1, 2]);
        let mode = fs::metadata(folder.path().join(&right.events.file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it names machines");
        let forged = one.replace("paused", "resumed");
        for lines in [&[forged.as_str(), two][..], &[two], &[two, one], &[one], &[]] {
            let wrong = archive(folder.path(), lines, &whole);
            let told = check(folder.path(), &wrong, &mut |_| ()).unwrap_err();
            assert!(told.contains(&wrong.events.file), "{told}");
        }
    }
}
