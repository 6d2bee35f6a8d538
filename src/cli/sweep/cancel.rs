//! `sweepd sweep cancel`: what is queued of a sweep is withdrawn.

use std::io::Write;

use serde_json::json;

use super::super::output::{json_line, print};
use super::super::{Context, ask, operator};
use super::row_of;
use crate::app::{Exit, Failure};
use crate::cli::action::{COMMENT, comment};
use crate::store::Store;
use crate::store::cancellations::Wish;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sweep's id; it may be shortened while it is unique
    pub id: String,
    /// Also have the daemon ask Defender to cancel what it has accepted and not ended, unless another sweep wants it
    #[arg(long)]
    actions: bool,
    /// What Defender shows as the reason
    #[arg(long, default_value = COMMENT, value_parser = comment)]
    comment: String,
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
    let asked = if args.actions { extent.accepted_alone } else { 0 };
    for (n, why) in [
        (extent.shared, "queued ones go on, since another sweep wants them"),
        (
            extent.sending,
            if args.actions {
                "calls on the wire are withdrawn, or cancelled, once it is known what became of them"
            } else {
                "calls on the wire are withdrawn if they had no effect"
            },
        ),
        (asked, "scans that Defender has accepted are to be cancelled"),
        (extent.accepted - asked, "scans that Defender has accepted go on"),
    ] {
        if n > 0 {
            what += &format!("; {n} {why}");
        }
    }
    ask::before(&what, args.yes).await?;
    let tenant = store.tenant(&sweep.tenant).await?;
    let wish = Wish { comment: args.comment.clone(), operator: operator(), at: context.clock.wall() };
    let withdrawn = store.cancel_sweep(sweep.n, tenant, wish.clone(), args.actions).await?;
    let asked = if args.actions { store.ask_to_cancel_scans(tenant, sweep.n, wish).await? } else { 0 };
    let left = row_of(store, &sweep.id.to_string()).await?;
    print(|out| {
        if context.json {
            let line = json!({ "id": sweep.id.to_string(), "withdrawn": withdrawn, "asked": asked, "open": left.open });
            return json_line(out, &line);
        }
        writeln!(out, "{}: {withdrawn} withdrawn, {asked} to be cancelled, {} still open", sweep.id, left.open)
    })
}
