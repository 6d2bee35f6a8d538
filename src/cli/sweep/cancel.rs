//! `sweepd sweep cancel`: what is queued of a sweep is withdrawn.

use std::io::Write;

use serde_json::json;

use super::super::output::{json_line, print};
use super::super::{Context, ask, operator};
use super::row_of;
use crate::app::{Exit, Failure};
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sweep's id; it may be shortened while it is unique
    pub id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub async fn run(context: &Context, store: &Store, args: &Args) -> Result<(), Failure> {
    let sweep = row_of(store, &args.id).await?;
    match sweep.state.as_str() {
        "done" => return Err(Failure::new(Exit::Failed, format!("{} is done: nothing is left to cancel", sweep.id))),
        "taking" => {
            let message = format!("the daemon is still taking {} in; cancel it when its receipt is there", sweep.id);
            return Err(Failure::new(Exit::Failed, message));
        }
        _ => {}
    }
    let extent = store.extent(sweep.n).await?;
    let mut what = format!("cancelling {}: {} queued machines are withdrawn", sweep.name, extent.queued);
    for (n, why) in [
        (extent.shared, "queued ones go on, since another sweep wants them"),
        (extent.sending, "calls on the wire go on"),
        (extent.accepted, "scans that Defender has accepted go on"),
    ] {
        if n > 0 {
            what += &format!("; {n} {why}");
        }
    }
    ask::before(&what, args.yes)?;
    let tenant = store.tenant(&sweep.tenant).await?;
    let withdrawn = store.cancel_sweep(sweep.n, tenant, operator(), context.clock.wall()).await?;
    let left = row_of(store, &sweep.id.to_string()).await?;
    print(|out| {
        if context.json {
            let line = json!({ "id": sweep.id.to_string(), "withdrawn": withdrawn, "open": left.open });
            return json_line(out, &line);
        }
        writeln!(out, "{}: {withdrawn} withdrawn, {} still open", sweep.id, left.open)
    })
}
