//! `sweepd action cancel`: the daemon asks Defender, with a call that has its own budget.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::super::output::{json_line, print};
use super::super::{Context, ask, operator};
use super::{COMMENT, action_of, comment};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::action::ActionStatus;
use crate::domain::id::TenantName;
use crate::store::Store;
use crate::store::cancellations::{CancelOutcome, Wish};
use crate::store::incarnations::StateLock;
use crate::store::lists::ActionLine;
use crate::store::tenants::TenantRow;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The action's id; it may be shortened while it is unique
    pub id: String,
    /// What Defender shows as the reason
    #[arg(long, default_value = COMMENT, value_parser = comment)]
    comment: String,
    /// Wait until it is known what became of it
    #[arg(long)]
    wait: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

const LOOK: Duration = Duration::from_millis(200);

pub async fn run(context: &Context, config: &Config, store: &Store, args: &Args) -> Result<(), Failure> {
    let action = action_of(store, &args.id).await?;
    if !ActionStatus::parse(&action.status).is_open() {
        let message = format!("action {} has ended as {}: nothing is left to cancel", action.action_id, action.status);
        return Err(Failure::new(Exit::Failed, message));
    }
    let name: TenantName = action.tenant.parse().map_err(|error| Failure::new(Exit::Failed, format!("{error}")))?;
    if !config.tenants.contains_key(&name) {
        let message = format!("tenant {name} is not configured, or disabled: nobody would ask Defender");
        return Err(Failure::new(Exit::Failed, message));
    }
    let running = StateLock::is_held(&config.daemon.state_dir);
    ask::before(&told(&action, running), args.yes).await?;
    let tenant = store.tenant(&name).await?;
    let wish = Wish { comment: args.comment.clone(), operator: operator(), at: context.clock.wall() };
    let new = store.ask_to_cancel(tenant, action.action_id.clone(), wish).await?;
    if !args.wait || !running {
        print(|out| {
            if context.json {
                return json_line(out, &json!({ "action_id": action.action_id, "asked": new, "outcome": null }));
            }
            let word = if new { "Defender is asked to cancel it" } else { "this was asked for already" };
            writeln!(out, "{}: {word}; see `sweepd action show`", action.action_id)
        })?;
        let unwaited = Failure::new(Exit::Failed, "the daemon is not running: nothing to wait for");
        return if args.wait { Err(unwaited) } else { Ok(()) };
    }
    outcome(context, config, store, tenant, &action, new).await
}

fn told(action: &ActionLine, running: bool) -> String {
    let by = if action.origin == "ours" { "sweepd asked for it" } else { "somebody else asked for it" };
    let machine = action.machine_id.as_deref().unwrap_or("an unknown machine");
    let when = if running { "" } else { ", once the daemon runs" };
    format!("cancelling the {} action {} on {machine} ({}; {by}){when}", action.r#type, action.action_id, action.status)
}

async fn outcome(
    context: &Context,
    config: &Config,
    store: &Store,
    tenant: TenantRow,
    action: &ActionLine,
    new: bool,
) -> Result<(), Failure> {
    let (outcome, answer) = loop {
        let running = StateLock::is_held(&config.daemon.state_dir);
        if let Some(known) = store.cancel_outcome(tenant, &action.action_id).await? {
            break known;
        }
        if !running {
            let message = "the daemon has stopped; what was asked for is kept, and goes on once it runs: see `sweepd action show`";
            return Err(Failure::new(Exit::Failed, message));
        }
        context.clock.sleep_until(context.clock.boot() + LOOK).await;
    };
    print(|out| {
        if context.json {
            let line =
                json!({ "action_id": action.action_id, "asked": new, "outcome": outcome.as_str(), "answer": answer });
            return json_line(out, &line);
        }
        writeln!(out, "{}: {outcome}", action.action_id)
    })?;
    let said = answer.map(|answer| format!(": {answer}")).unwrap_or_default();
    match outcome {
        CancelOutcome::Cancelled => Ok(()),
        CancelOutcome::Ended => Err(Failure::new(Exit::Failed, "it had ended before; see `sweepd action show`")),
        CancelOutcome::Forbidden => Err(Failure::new(
            Exit::NotPermitted,
            format!("Defender forbids it{said}; grant Machine.Scan, with admin consent, and ask again"),
        )),
        CancelOutcome::Unknown => Err(Failure::new(Exit::Failed, "Defender does not know the action any more")),
        CancelOutcome::Refused => Err(Failure::new(Exit::Failed, format!("Defender refuses it{said}"))),
        CancelOutcome::GaveUp => {
            Err(Failure::new(Exit::Unavailable, "Defender was asked five times, and the action is still open"))
        }
    }
}
