//! `sweepd audit verify`: is the record whole?

use super::Context;
use super::output::{json_line, print};
use crate::app::{Exit, Failure};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Recompute the chain of the record from its start
    Verify {
        /// A head that was kept outside, from the journal say: the record must contain it
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

pub async fn run(context: &Context, command: &Command) -> Result<(), Failure> {
    let Command::Verify { head } = command;
    let config = context.plain_config()?;
    let store = context.store(&config).await?;
    if let Some(wanted) = head.as_ref().filter(|head| head.len() != 64 || !head.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(Failure::new(Exit::Usage, format!("{wanted}: a head has 64 hexadecimal digits")));
    }
    if let Some(wanted) = head
        && !store.record_holds(wanted).await?
    {
        let message =
            format!("the record does not hold the head {wanted}: it was cut or rewritten after that was kept");
        return Err(Failure::new(Exit::Failed, message));
    }
    let found = store.verify_record().await?;
    store.close().await;
    match found {
        Err(seq) => {
            let message =
                format!("event {seq} does not fit the one before it: the record was changed there, or before");
            Err(Failure::new(Exit::Failed, message))
        }
        Ok(head) => print(|out| {
            use std::io::Write;
            if context.json {
                return json_line(out, &serde_json::json!({ "events": head.seq, "head": head.hash }));
            }
            writeln!(out, "{} events, consistent with each other; head {}", head.seq, head.hash)
        }),
    }
}
