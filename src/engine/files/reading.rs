//! The reading of one file into the database, a chunk at a time, on a thread of its own.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{RwLock, mpsc};

use super::filing::{blank, count, tell_scans};
use super::opening::Opened;
use super::position::Position;
use super::taking::{Refuse, Taking, reject};
use crate::config::Tenant;
use crate::domain::id::{MachineId, SweepId, TenantName};
use crate::domain::sweep::{HoldAbove, Source};
use crate::domain::time::Wall;
use crate::engine::Shared;
use crate::engine::steps::{Step, passed};
use crate::intake::folder::{Place, Ready};
use crate::intake::formats::{self, Claim, Line, Refusal, Row, Stop, Unusable, Whole};
use crate::intake::receipt::{Findings, Receipt, Refusals, Status};
use crate::store::StoreError;
use crate::store::long_files::Keys;
use crate::store::slots::Stamp;
use crate::store::sweeps::{CHUNK, Chunk, Completion, Counts, KnownSweep, LeftOut, NewJob, NewSweep, SweepRow};
use crate::store::tenants::TenantRow;
use crate::store::unasked::Asked;

/// Why a file is not taken that is written to meanwhile.
const REWRITTEN: &str = "it changed while it was being taken";

/// The taking of one file for one tenant.
pub struct Work<'a> {
    pub taking: &'a Taking,
    pub ready: &'a Ready,
    pub name: &'a TenantName,
    pub tenant: &'a Tenant,
    pub row: TenantRow,
    pub received_at: Wall,
    pub opened: &'a Opened,
}

/// What the reading thread hands over.
enum Part {
    Lines(Vec<Line>),
    End(Result<Whole, Unusable>),
}

impl Work<'_> {
    pub async fn run(self, resume: Option<KnownSweep>, position: Position) -> Result<(), Refuse> {
        let store = &self.taking.shared.store;
        let mut parts = self.read(self.opened.copied.copy.reopen()?);
        let (mut findings, mut left_out) = (Findings::default(), HashSet::new());
        let first = self.next(&mut parts, &mut findings).await?;
        passed(Step::Read);
        let more = first.len() == CHUNK;
        let mut chunk = self.chunk(first, &mut findings.refusals, &mut left_out);
        if !more && resume.is_none() {
            return self.take_at_once(chunk, findings, position).await;
        }
        // It takes its time: whoever is behind it need not wait.
        drop(position);
        // A long file: its jobs stay hidden until the last line is on disk.
        let (sweep, id, mut skip) = if let Some(known) = resume {
            (known.n, known.id, known.counts.lines)
        } else {
            let new = self.new_sweep();
            let id = new.id;
            let sweep = store.begin_sweep(new).await?;
            passed(Step::Begun);
            (sweep, id, 0)
        };
        if skip > 0 {
            self.open_what_is_there(sweep).await?;
        }
        let mut keys = Keys::default();
        let mut more = more;
        loop {
            let lines = chunk.lines();
            if skip >= lines {
                // An earlier incarnation has taken these: chunks are cut the same way each time.
                skip -= lines;
            } else {
                store.append_lines(self.row, sweep, chunk, &mut keys, self.received_at).await?;
                passed(Step::Appended);
            }
            if !more || keys.len() >= Keys::BATCH {
                self.open(sweep, std::mem::take(&mut keys)).await?;
            }
            self.taking.shared.health.beat("intake");
            if self.opened.copied.original.is_rewritten() {
                self.taking.abandon(sweep, &self.ready.relative(), REWRITTEN).await?;
                return Err(Refuse::Later(REWRITTEN.to_owned()));
            }
            if !more {
                break;
            }
            let stopped = || self.taking.stop.is_cancelled().then(|| "the taking of files is stopped".to_owned());
            if let Some(why) = stopped().or_else(|| self.taking.shortage()) {
                // What is on disk stays there: the file is taken up again where it was left.
                return Err(Refuse::Later(why));
            }
            let lines = match self.next(&mut parts, &mut findings).await {
                Ok(lines) => lines,
                Err(refuse) => {
                    self.taking.abandon(sweep, &self.ready.relative(), refuse.why()).await?;
                    return Err(refuse);
                }
            };
            more = lines.len() == CHUNK;
            chunk = self.chunk(lines, &mut findings.refusals, &mut left_out);
        }
        self.complete(sweep, id, findings).await
    }

    /// All of a long file is on disk.
    async fn complete(&self, sweep: SweepRow, id: SweepId, findings: Findings) -> Result<(), Refuse> {
        let store = &self.taking.shared.store;
        let counts = store.counts_of(sweep).await?;
        if counts.refused == counts.lines {
            self.taking.abandon(sweep, &self.ready.relative(), "none of its lines can be used").await?;
            return Err(Refuse::Reject(nothing_usable(&findings.refusals), Box::new(findings), counts));
        }
        let promise = self.taking.choose(Place::Processed, self.ready);
        let parts = self.completion_parts(id.to_string(), findings, promise.target());
        store.forget_unasked(&parts.now).await?;
        let alone = match self.deciding() {
            Some(deciding) => Some(deciding.write().await),
            None => None,
        };
        let completion = parts.complete(counts, store.asked(self.row, sweep, self.received_at).await?);
        store.complete_sweep(self.row, sweep, completion, self.received_at).await?;
        promise.keep();
        drop(alone);
        passed(Step::Committed);
        let known = store.known_by_id(id).await?;
        self.taking.finish(self.ready, self.name, &known, self.opened).await
    }

    /// Opens what an earlier incarnation appended: it may not have come to that.
    async fn open_what_is_there(&self, sweep: SweepRow) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let (keys, last) = self.taking.shared.store.appended_lines(sweep, after, Keys::BATCH).await?;
            let Some(last) = last else { return Ok(()) };
            self.open(sweep, keys).await?;
            after = last;
        }
    }

    async fn open(&self, sweep: SweepRow, keys: Keys) -> Result<(), StoreError> {
        let store = &self.taking.shared.store;
        self.taking.beating(store.open_lines(self.row, sweep, keys)).await?;
        passed(Step::Keyed);
        Ok(())
    }

    async fn take_at_once(self, chunk: Chunk, findings: Findings, position: Position) -> Result<(), Refuse> {
        let lines = chunk.lines();
        if lines == 0 || chunk.refused == lines {
            let counts = Counts { lines, refused: lines, ..Counts::default() };
            return Err(Refuse::Reject(nothing_usable(&findings.refusals), Box::new(findings), counts));
        }
        if self.opened.copied.original.is_rewritten() {
            return Err(Refuse::Later(REWRITTEN.to_owned()));
        }
        let new = self.new_sweep();
        let id = new.id;
        let promise = self.taking.choose(Place::Processed, self.ready);
        let parts = self.completion_parts(id.to_string(), findings, promise.target());
        let store = &self.taking.shared.store;
        store.forget_unasked(&parts.now).await?;
        let decide = move |counts, asked| parts.complete(counts, asked);
        let commit = async {
            let _shared = match self.deciding() {
                Some(deciding) => Some(deciding.read().await),
                None => None,
            };
            store.take_sweep(new, chunk, self.received_at, decide).await
        };
        position.commit(commit).await?;
        promise.keep();
        passed(Step::Committed);
        let known = store.known_by_id(id).await?;
        self.taking.finish(self.ready, self.name, &known, self.opened).await
    }

    fn new_sweep(&self) -> NewSweep {
        NewSweep {
            id: self.taking.shared.ids.sweep(),
            tenant: self.row,
            name: self.opened.header.name.clone().unwrap_or_else(|| printable(&self.ready.name.to_string_lossy())),
            source: self.source(),
            file: self.ready.relative(),
            sha256: self.opened.copied.sha256.clone(),
            file_uid: Some(self.opened.uid),
            received_at: self.received_at,
        }
    }

    /// Who asks is who owns the file; what the file says of itself counts as far as that bears it out.
    fn source(&self) -> Source {
        let claimed = self.opened.header.submitted_by.submitter().map(|submitter| submitter.uid);
        Source::of_file(claimed, self.opened.uid, nix::unistd::geteuid().as_raw())
    }

    fn now(&self) -> Stamp {
        let Shared { epoch, boot_id, clock, .. } = &self.taking.shared;
        Stamp { epoch: *epoch, boot_id: boot_id.clone(), boot: clock.boot(), at: clock.wall() }
    }

    /// Whether a file is held depends on what came within the hour: whoever decides it looks here first.
    fn deciding(&self) -> Option<&RwLock<()>> {
        self.taking.deciding.get(self.name)
    }

    fn completion_parts(&self, id: String, findings: Findings, target: &Path) -> CompletionParts {
        let top = self.taking.folder.place(Place::Processed, None);
        let filed_as = target.strip_prefix(top).unwrap_or(target).to_string_lossy().into_owned();
        let mut receipt =
            blank(self.ready, &self.opened.copied.sha256, Some(self.name), self.received_at, Status::Taken);
        receipt.sweep_id = Some(id);
        receipt.observed = Some(self.opened.about.clone());
        receipt.claimed = self.opened.header.submitted_by.submitter().cloned();
        CompletionParts {
            receipt,
            findings,
            filed_as,
            claim: claim_word(&self.opened.header.submitted_by, self.source(), self.opened.uid),
            now: self.now(),
            hold_above: self.taking.intake.hold_above,
        }
    }

    /// Reads the file on a thread of its own, a chunk at a time; not further ahead than one.
    fn read(&self, file: File) -> mpsc::Receiver<Part> {
        let (send, parts) = mpsc::channel(1);
        let (name, options) = (self.ready.name.to_string_lossy().into_owned(), self.taking.options());
        tokio::task::spawn_blocking(move || {
            let mut lines = Vec::with_capacity(CHUNK);
            let read = formats::read(&name, file, &options, &mut |line| {
                lines.push(line);
                if lines.len() == CHUNK {
                    let full = std::mem::replace(&mut lines, Vec::with_capacity(CHUNK));
                    send.blocking_send(Part::Lines(full)).map_err(|_| Stop)?;
                }
                Ok(())
            });
            // The taker may have given up: then nobody listens, and nothing is lost.
            if send.blocking_send(Part::Lines(lines)).is_ok() && send.blocking_send(Part::End(read)).is_err() {
                tracing::debug!("the taking of a file ended before its reading");
            }
        });
        parts
    }

    /// The next lines; fewer than a chunk at the end, which adds to `findings`.
    async fn next(&self, parts: &mut mpsc::Receiver<Part>, findings: &mut Findings) -> Result<Vec<Line>, Refuse> {
        let Some(Part::Lines(lines)) = parts.recv().await else {
            return Err(Refuse::Later("its reading broke off".to_owned()));
        };
        if lines.len() == CHUNK {
            return Ok(lines);
        }
        match parts.recv().await {
            Some(Part::End(Ok(whole))) => {
                findings.end(whole);
                Ok(lines)
            }
            Some(Part::End(Err(Unusable::Read(error)))) => Err(error.into()),
            Some(Part::End(Err(unusable))) => Err(reject(unusable.to_string())),
            Some(Part::Lines(_)) | None => Err(Refuse::Later("its reading broke off".to_owned())),
        }
    }

    fn chunk(&self, lines: Vec<Line>, refusals: &mut Refusals, left_out: &mut HashSet<MachineId>) -> Chunk {
        let mut chunk = Chunk::default();
        let comment: Arc<str> = self.opened.header.comment.clone().unwrap_or_default().into();
        for line in lines {
            match self.of_this_tenant(line) {
                Line::Refused(refusal) => {
                    chunk.refused += 1;
                    refusals.add(refusal);
                }
                Line::NotEligible { machine, .. } if !left_out.insert(machine) => chunk.left_out_again += 1,
                Line::NotEligible { line, machine, name, why } => {
                    chunk.left_out.push(LeftOut { line, machine, name, reason: why.to_string() });
                }
                Line::Row(row) => chunk.jobs.push(NewJob {
                    line: row.line,
                    machine: row.machine,
                    name: row.name,
                    scan: row.scan_type.or(self.opened.header.scan_type).unwrap_or(self.tenant.default_scan),
                    priority: row.priority.or(self.opened.header.priority).unwrap_or_default(),
                    not_before: row.not_before.or(self.opened.header.not_before),
                    on_pending: row.on_pending.or(self.opened.header.on_pending).unwrap_or(self.tenant.on_pending),
                    comment: row.comment.map_or_else(|| Arc::clone(&comment), Arc::from),
                }),
            }
        }
        chunk
    }

    /// Refuses a line that names another tenant than the file is taken for. A word that is no tenant's name is none of
    /// ours, such as a customer's name in somebody's table.
    fn of_this_tenant(&self, line: Line) -> Line {
        let Line::Row(Row { line: number, machine, tenant: Some(named), .. }) = &line else { return line };
        match named.to_ascii_lowercase().parse::<TenantName>() {
            Ok(other) if other != *self.name && self.taking.is_configured(&other) => Line::Refused(Refusal {
                line: *number,
                text: machine.to_string(),
                reason: format!(
                    "tenant: it names `{other}`, and the file is taken for `{}`; give it to `{other}` in a file of its own",
                    self.name
                ),
            }),
            _ => line,
        }
    }
}

/// A file's name as a sweep's: names are shown in tables.
fn printable(name: &str) -> String {
    name.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn nothing_usable(refusals: &Refusals) -> String {
    match refusals.first() {
        None => "the file holds no machine".to_owned(),
        Some(first) => format!(
            "none of its {} lines can be used; the first: line {}: {}",
            refusals.count(),
            first.line,
            first.reason
        ),
    }
}

/// What a receipt says of a claim that does not count.
fn claim_word(claim: &Claim, source: Source, owner: u32) -> Option<String> {
    match claim {
        Claim::Made(submitter) if source != Source::Submit => Some(format!(
            "submitted_by names user {}, and the file belongs to user {owner}: that is a claim, and the sweep counts as a \
             dropped file",
            submitter.uid
        )),
        Claim::Shapeless => {
            Some("submitted_by is ignored: it is not what `sweepd submit` writes (uid, login_uid, host)".to_owned())
        }
        Claim::None | Claim::Made(_) => None,
    }
}

/// A receipt, but for its counts.
struct CompletionParts {
    receipt: Receipt,
    findings: Findings,
    filed_as: String,
    claim: Option<String>,
    now: Stamp,
    hold_above: HoldAbove,
}

impl CompletionParts {
    fn complete(self, counts: Counts, asked: Asked) -> Completion {
        let mut receipt = self.receipt;
        let loose_quotes = self.findings.loose_quotes;
        count(&mut receipt, counts, self.findings);
        tell_scans(&mut receipt, &asked);
        let why = why_held(&asked, self.hold_above);
        let held = why.is_some();
        let mut words = Vec::new();
        if let Some(why) = why {
            receipt.status = Status::Held;
            words.push(format!("held: {why}; `sweepd sweep release` lets it go"));
        }
        if counts.not_eligible > 0 {
            let n = counts.not_eligible;
            words.push(format!(
                "{n} machines were left out: not onboarded, or merged into another record; see the result"
            ));
        }
        if loose_quotes > 0 {
            words.push(format!(
                "{loose_quotes} lines have a quote that is not closed on its line: it was read as text, and no other line \
                 with it; check these lines"
            ));
        }
        words.extend(self.claim);
        receipt.reason = (!words.is_empty()).then(|| words.join(". "));
        Completion {
            // Its fields are plain and always have a JSON form; the store refuses what is none.
            receipt: serde_json::to_string_pretty(&receipt).unwrap_or_default(),
            held,
            filed_as: self.filed_as,
            unasked: (!held).then_some(self.now),
        }
    }
}

/// Why a sweep is held, if it is: it asks for too much by itself, or with what came within the hour before it and
/// was not held.
fn why_held(asked: &Asked, above: HoldAbove) -> Option<String> {
    let (own, all) = (asked.alone, asked.within_the_hour);
    let within = " within an hour, with the files before it";
    above.why(own.quick, own.full, "").or_else(|| above.why(all.quick, all.full, within))
}
