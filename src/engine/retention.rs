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
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::steps::{Step, passed};
use crate::config::Config;
use crate::domain::time::Wall;
use crate::domain::trouble::Trouble;
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
}

impl Retention {
    pub fn new(shared: Shared, config: &Config) -> Self {
        Self { shared, keep: config.retention.keep, folder: config.retention.archive_dir.clone() }
    }

    /// Removes what is on record as archived, then archives what has become old since.
    async fn round(&self, folder: &Path, stop: &CancellationToken) -> anyhow::Result<()> {
        let store = &self.shared.store;
        self.remove(stop).await?;
        while !stop.is_cancelled() {
            let cutoff = self.shared.clock.wall() - self.keep;
            // A tenth of it at a time, so that there are few segments.
            let worth = cutoff - self.keep / 10;
            let Some(segment) = store.next_segment(cutoff, worth, MOST).await? else { return Ok(()) };
            let sweeps = store.old_sweeps(cutoff).await?;
            let (first, last, count) = (segment.first, segment.last.seq, sweeps.len());
            let archive = self.write(folder, segment, &sweeps, cutoff).await?;
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

    /// Writes both files, reads them back, and gives them their names.
    async fn write(
        &self,
        folder: &Path,
        segment: Segment,
        sweeps: &[SweepRow],
        cutoff: Wall,
    ) -> anyhow::Result<Archive> {
        if !folder.exists() {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let store = &self.shared.store;
        let mut events = Unfinished::new(folder, "events")?;
        let last = segment.last.seq;
        store.export_record(segment.first - 1, Some(last), |event| events.line(&event)).await??;
        let mut rows = Unfinished::new(folder, "rows")?;
        store.export_rows(sweeps, cutoff, |row| rows.line(&row)).await??;
        let (folder, numbered) = (folder.to_owned(), format!("{:010}-{last:010}", segment.first));
        let finish = move || {
            let events = events.finish(&folder, &numbered)?;
            let rows = rows.finish(&folder, &numbered)?;
            File::open(&folder)?.sync_all()?;
            let archive = Archive { segment, cutoff, events, rows };
            check(&folder, &archive, None)
                .map_err(|why| anyhow::anyhow!("what was written does not read back: {why}"))?;
            Ok(archive)
        };
        tokio::task::spawn_blocking(finish).await?
    }
}

/// A file that is being written.
struct Unfinished {
    path: PathBuf,
    kind: &'static str,
    file: BufWriter<File>,
    hash: Sha256,
}

impl Unfinished {
    fn new(folder: &Path, kind: &'static str) -> io::Result<Self> {
        let path = folder.join(format!(".{kind}.unfinished"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Self { path, kind, file: BufWriter::new(file), hash: Sha256::new() })
    }

    fn line(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.hash.update(&line);
        self.file.write_all(&line)
    }

    /// On disk, under a name that says what is in it: other content has another name.
    fn finish(self, folder: &Path, numbered: &str) -> anyhow::Result<Kept> {
        let file = self.file.into_inner().context("an archive cannot be written")?;
        file.sync_all()?;
        let sha256 = hex(&self.hash.finalize());
        let short = sha256.get(..8).unwrap_or_default();
        let name = format!("sweepd-{numbered}-{short}.{}.jsonl", self.kind);
        fs::rename(&self.path, folder.join(&name))?;
        Ok(Kept { file: name, sha256 })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Reads an archive: both files are what was written, and the events are a chain from the event before to the
/// last. Returns the number of the event with the hash `wanted`, if it is in it; or what is wrong, for people.
pub fn check(folder: &Path, archive: &Archive, wanted: Option<&str>) -> Result<Option<i64>, String> {
    let told = |file: &str, why: String| format!("{}: {why}", folder.join(file).display());
    let segment = &archive.segment;
    let mut previous = Head { seq: segment.first - 1, hash: segment.before.clone() };
    let mut found = None;
    let mut each = |line: &str| -> anyhow::Result<()> {
        let event: Exported = serde_json::from_str(line)?;
        ensure!(event.follows(&previous), "event {} does not fit the one before it", event.seq);
        if wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(&event.hash)) {
            found = Some(event.seq);
        }
        previous = Head { seq: event.seq, hash: event.hash };
        Ok(())
    };
    let name = &archive.events.file;
    read(&folder.join(name), &archive.events.sha256, &mut each).map_err(|error| told(name, format!("{error:#}")))?;
    if previous != segment.last {
        return Err(told(name, format!("it ends with event {}, not with {}", previous.seq, segment.last.seq)));
    }
    let name = &archive.rows.file;
    read(&folder.join(name), &archive.rows.sha256, &mut |_| Ok(()))
        .map_err(|error| told(name, format!("{error:#}")))?;
    Ok(found)
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
    let Some(folder) = &retention.folder else { return };
    let (clock, health) = (&retention.shared.clock, &retention.shared.health);
    while !stop.is_cancelled() {
        match retention.round(folder, &stop).await {
            Ok(()) => {
                if let Some(told) = health.over(Trouble::Archive, "") {
                    tracing::info!(times = told.times, "what is old can be archived again{told}");
                }
            }
            Err(error) => {
                if let Some(told) = health.met(Trouble::Archive, "") {
                    let why = format!("{error:#}");
                    tracing::error!(folder = %folder.display(), why, times = told.times, "what is older than retention.keep cannot be archived; nothing was removed that is not, and it is tried again{told}");
                }
            }
        }
        let pause = (retention.keep / 10).clamp(Duration::from_secs(1), ROUND);
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep_until(clock.boot() + pause) => {}
        }
    }
}
