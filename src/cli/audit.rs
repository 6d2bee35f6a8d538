//! `sweepd audit verify|export`: is the record whole, and what does it say?

use super::Context;
use super::output::{Lines, json_line, print};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::engine::retention::check;
use crate::store::Store;
use crate::store::events::Head;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Recompute the chain of the record from its start
    Verify {
        /// A head that was kept outside, from the journal say: the record must contain it
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
    /// Print every event as a line of JSON, with all that its hash is made of
    Export {
        /// Only what was appended after this event
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: i64,
    },
}

pub async fn run(context: &Context, config: &Config, command: &Command) -> Result<(), Failure> {
    let store = context.store(config).await?;
    match command {
        Command::Verify { head } => verify(context, config, &store, head.as_ref()).await?,
        Command::Export { after } => {
            let mut out = Lines::new();
            let listed = store.export_record(*after, None, |event| out.add(&event)).await?;
            out.end(listed)?;
        }
    }
    store.close().await;
    Ok(())
}

async fn verify(context: &Context, config: &Config, store: &Store, head: Option<&String>) -> Result<(), Failure> {
    if let Some(wanted) = head.filter(|head| head.len() != 64 || !head.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(Failure::new(Exit::Usage, format!("{wanted}: a head has 64 hexadecimal digits")));
    }
    // The record before the archives: what is archived meanwhile is in these, and would else be in neither.
    let in_record = match head {
        Some(wanted) => store.record_holds(wanted).await?,
        None => None,
    };
    let archived = verify_archives(config, store, head).await?;
    let known = match head {
        None => None,
        Some(wanted) => {
            let event = in_record.or(archived);
            let Some(seq) = event else {
                let message =
                    format!("the record does not hold the head {wanted}: it was cut or rewritten after that was kept");
                return Err(Failure::new(Exit::Failed, message));
            };
            Some((seq, wanted))
        }
    };
    match store.verify_record().await? {
        Err(seq) => {
            let message =
                format!("event {seq} does not fit the one before it: the record was changed there, or before");
            Err(Failure::new(Exit::Failed, message))
        }
        Ok(head) => print(|out| {
            use std::io::Write;
            if context.json {
                let seq = known.map(|(seq, _)| seq);
                return json_line(out, &serde_json::json!({ "events": head.seq, "head": head.hash, "held": seq }));
            }
            writeln!(out, "{} events, consistent with each other; head {}", head.seq, head.hash)?;
            known.map_or(Ok(()), |(seq, wanted)| writeln!(out, "event {seq} is the head {wanted}"))
        }),
    }
}

/// Every archive is there, unchanged, and joins the one before. Returns which of their events is the head that is
/// wanted, if one is.
async fn verify_archives(config: &Config, store: &Store, head: Option<&String>) -> Result<Option<i64>, Failure> {
    let mut found = None;
    let mut previous = Head::nothing();
    for archive in store.archives().await? {
        let Some(folder) = config.retention.archive_dir.as_ref() else {
            let message = format!("retention.archive_dir is not set, and the record begins in {}", archive.events.file);
            return Err(Failure::new(Exit::Failed, message));
        };
        if (archive.segment.first, &archive.segment.before) != (previous.seq + 1, &previous.hash) {
            let message = format!("{} does not join the archive before it", archive.events.file);
            return Err(Failure::new(Exit::Failed, message));
        }
        let event = check(folder, &archive, head.map(String::as_str)).map_err(|why| Failure::new(Exit::Failed, why))?;
        found = found.or(event);
        previous = archive.segment.last;
    }
    Ok(found)
}
