//! `sweepd reconcile`: an operator's word about scans that sweepd made and this database does not know
//! of.

use std::io::Write;

use super::output::{json_line, print};
use super::pause::chosen;
use super::{Context, ask, operator};
use crate::app::Failure;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// This tenant alone, not all
    #[arg(long)]
    tenant: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub async fn run(context: &Context, config: &Config, args: &Args) -> Result<(), Failure> {
    let tenants = chosen(config, args.tenant.as_deref())?;
    let store = context.store(config).await?;
    let mut unknown = Vec::new();
    for name in &tenants {
        let row =
            store.tenants_status().await?.into_iter().find(|tenant| tenant.name == *name).map(|tenant| tenant.row);
        let n = match row {
            Some(row) => store.unknown_marks(row).await?,
            None => 0,
        };
        if n > 0 {
            unknown.push(format!("{n} scans of {name}"));
        }
    }
    if !unknown.is_empty() {
        let what = format!(
            "taking over {} that Defender lists and this database does not know of; then sending goes on. A sweepd that \
             still runs with another copy of this database must be stopped first",
            unknown.join(", ")
        );
        ask::before(&what, args.yes).await?;
    }
    for name in tenants {
        let done = store.reconcile(&name, operator(), context.clock.wall()).await?;
        let json = context.json;
        print(|out| {
            if json {
                let line = serde_json::json!({ "tenant": name.as_str(), "actions": done.actions, "jobs": done.jobs });
                return json_line(out, &line);
            }
            if done.actions == 0 {
                return writeln!(out, "{name}: nothing to take over");
            }
            writeln!(
                out,
                "{name}: took over {} scans; {} queued machines were scanned by them",
                done.actions, done.jobs
            )
        })?;
    }
    store.close().await;
    Ok(())
}
