//! `sweepd audit verify|export`: is the record whole, and what does it say?

mod heads;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::heads::{Contradiction, FileError, Heads, LARGEST, hash_of};
use super::Context;
use super::output::{Lines, json_line, print};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::shown::ShownPath;
use crate::engine::upkeep::retention::check;
use crate::store::archives::{Archive, Recorded};
use crate::store::events::{Exported, Head, Kind};
use crate::store::record::Record;
use crate::store::{HEAD_FILE, Store, StoreError};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Recompute the chain of the record from its start, and say what that does not show
    Verify(VerifyArgs),
    /// Print every event as a line of JSON, with all that its hash is made of
    Export {
        /// Only what was appended after this event
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: i64,
    },
}

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// A head that was kept outside, from the journal say: the record must contain it
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
    /// Heads that were kept outside, one a line: `SEQ HASH`, or `HASH` alone; the record must contain each
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
}

pub async fn run(context: &Context, config: &Config, command: &Command) -> Result<(), Failure> {
    let store = context.store(config).await?;
    match command {
        Command::Verify(args) => verify(context, config, &store, args).await?,
        Command::Export { after } => {
            let mut out = Lines::new();
            let listed = store.export_record(*after, None, |event| out.add(&event)).await?;
            out.end(listed)?;
        }
    }
    store.close().await;
    Ok(())
}

/// What is wrong with the record.
fn finding(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, what)
}

impl From<Contradiction> for Failure {
    fn from(Contradiction(what): Contradiction) -> Self {
        finding(what)
    }
}

impl VerifyArgs {
    /// The heads that were kept outside.
    fn outside(&self) -> Result<Heads, Failure> {
        let mut heads = Heads::default();
        if let Some(head) = &self.head {
            let hash = hash_of(head).map_err(|why| Failure::new(Exit::Usage, why))?;
            heads.add_bare(hash, "--head".to_owned());
        }
        if let Some(path) = &self.heads {
            let text = text_of(path)?;
            if text.trim().is_empty() {
                // Where the query that was to print them has failed, that must not look like a record that holds them.
                let why = "it holds no head: there is nothing to compare the record with; write SEQ HASH, or HASH alone, on each line";
                return Err(Failure::new(Exit::Input, format!("{}: {why}", ShownPath::new(&path))));
            }
            heads.add_file(&ShownPath::new(&path).to_string(), &text).map_err(|error| match error {
                FileError::Line(why) => Failure::new(Exit::Input, why),
                FileError::Contradiction(contradiction) => contradiction.into(),
            })?;
        }
        Ok(heads)
    }
}

/// The text of a file of heads.
fn text_of(path: &Path) -> Result<String, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?;
    let mut text = String::new();
    let read = file.take(LARGEST + 1).read_to_string(&mut text);
    let input = |why: &str| Failure::new(Exit::Input, format!("{}: {why}", ShownPath::new(&path)));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(input("it is no text")),
        Err(error) => Err(Failure::file(path, &error)),
        Ok(_) if text.len() as u64 > LARGEST => {
            Err(input(&format!("it is larger than {} MiB; verify it in parts", LARGEST >> 20)))
        }
        Ok(_) => Ok(text),
    }
}

/// What was met on the way through the record.
struct Met {
    /// Kept outside.
    outside: Heads,
    /// Noted on this machine, by the daemon.
    noted: Heads,
    /// The archives that the chain names, or an event of that kind which names none.
    recorded: Vec<Result<Recorded, i64>>,
}

impl Met {
    fn meet(&mut self, event: &Exported) {
        self.outside.meet(event.seq, &event.hash);
        self.noted.meet(event.seq, &event.hash);
        if event.kind == Kind::Archived.as_str() {
            self.recorded.push(serde_json::from_str(&event.body).map_err(|_| event.seq));
        }
    }

    /// The archives that the database notes are those that the chain names, with the same hashes: whoever can change
    /// the files can change the database too.
    fn expect(&self, archives: &[Archive]) -> Result<(), Failure> {
        for archive in archives {
            if !self.recorded.iter().flatten().any(|recorded| recorded.is(archive)) {
                let file = &archive.events.file;
                return Err(finding(format!(
                    "the record does not tell of {file} as the database has it (names, hashes, events): the archive or \
                     the database was changed"
                )));
            }
        }
        for recorded in &self.recorded {
            let named = recorded.as_ref().map_err(|seq| finding(format!("event {seq} names no archive")))?;
            if !archives.iter().any(|archive| named.is(archive)) {
                let Recorded { first, last, events, .. } = named;
                return Err(finding(format!(
                    "the record tells that events {first} to {last} were archived in {}, and the database does not know \
                     of it: it was changed",
                    events.file
                )));
            }
        }
        Ok(())
    }

    /// What the verification does not show of a record that ends with event `end`.
    fn not_shown(&self, end: i64) -> Vec<String> {
        let mut not_shown = Vec::new();
        match self.outside.youngest() {
            None => not_shown.push(
                "that nothing was cut off the end or rewritten as a whole: give heads that were kept outside of this \
                 machine (--heads, --head)"
                    .to_owned(),
            ),
            Some(youngest) if youngest < end => not_shown.push(format!(
                "that events {} to {end} were not cut off or rewritten: the youngest head that was kept outside is of \
                 event {youngest}",
                youngest + 1
            )),
            Some(_) => {}
        }
        if self.noted.met() == 0 {
            not_shown
                .push(format!("that the database is the one that ran here last: there is no {HEAD_FILE} beside it"));
        }
        not_shown
    }
}

async fn verify(context: &Context, config: &Config, store: &Store, args: &VerifyArgs) -> Result<(), Failure> {
    let mut met = Met { outside: args.outside()?, noted: Heads::default(), recorded: Vec::new() };
    // Before the record: what is written meanwhile is noted, and not in what is read.
    if let Some(Head { seq, hash }) = store.noted_head()?.filter(|head| head.seq > 0) {
        let from = config.daemon.state_dir.join(HEAD_FILE);
        met.noted.add(seq, &hash, ShownPath::new(&from).to_string())?;
    }
    let mut record = store.record_now().await?;
    let archives = archives(config, &mut record, &mut met).await?;
    let head = match record.verify(|event| met.meet(event)).await? {
        Ok(head) => head,
        Err(seq) => {
            let what = format!("event {seq} does not fit the one before it: the record was changed there, or before");
            return Err(finding(what));
        }
    };
    met.expect(&archives)?;
    for heads in [&met.outside, &met.noted] {
        heads.missing(head.seq).map_or(Ok(()), |what| Err(finding(what)))?;
    }
    let not_shown = met.not_shown(head.seq);
    let wanted = args.head.as_deref().and_then(|head| Some((met.outside.event_of(head)?, head)));
    let kept = args.heads.as_ref().map(|_| met.outside.met());
    print(|out| {
        if context.json {
            let seq = wanted.map(|(seq, _)| seq);
            let line: Value = json!({ "events": head.seq, "head": head.hash, "held": seq, "heads": met.outside.met(),
                "not_shown": not_shown });
            return json_line(out, &line);
        }
        writeln!(out, "{} events, consistent with each other; head {}", head.seq, head.hash)?;
        wanted.map_or(Ok(()), |(seq, hash)| writeln!(out, "event {seq} is the head {hash}"))?;
        kept.map_or(Ok(()), |kept| writeln!(out, "it holds each head that was kept outside: {kept}"))?;
        not_shown.iter().try_for_each(|what| writeln!(out, "not shown: {what}"))
    })
}

/// Every archive that the database notes is there, unchanged, and joins the one before.
async fn archives(config: &Config, record: &mut Record, met: &mut Met) -> Result<Vec<Archive>, Failure> {
    let archives = record.archives().await.map_err(|error: StoreError| Failure::from(error))?;
    let mut previous = Head::nothing();
    for archive in &archives {
        let Some(folder) = config.retention.archive_dir.as_ref() else {
            let begins = &archive.events.file;
            return Err(finding(format!("retention.archive_dir is not set, and the record begins in {begins}")));
        };
        if (archive.segment.first, &archive.segment.before) != (previous.seq + 1, &previous.hash) {
            return Err(finding(format!("{} does not join the archive before it", archive.events.file)));
        }
        check(folder, archive, &mut |event| met.meet(event)).map_err(finding)?;
        previous = archive.segment.last.clone();
    }
    Ok(archives)
}
