//! `sweepd action export`: a row for each action, with the object as it was received last.

use super::super::Context;
use super::super::output::{Format, Lines, Rows};
use super::Which;
use crate::app::Failure;
use crate::config::Config;
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// How to write it; --json is the same as jsonl
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const HEADER: [&str; 10] =
    ["action_id", "tenant", "machine_id", "type", "scope", "status", "created_at", "updated_at", "origin", "raw"];

pub async fn run(context: &Context, config: &Config, store: &Store, args: &Args) -> Result<(), Failure> {
    let wanted = args.which.wanted(config, store).await?;
    if context.json || args.format == Format::Jsonl {
        let mut out = Lines::new();
        let listed = store.actions(&wanted, |action| out.add(&action)).await?;
        return out.end(listed);
    }
    let mut out = Rows::new(&HEADER);
    let listed = store
        .actions(&wanted, |action| {
            out.add(&[
                &action.action_id,
                &action.tenant,
                action.machine_id.as_deref().unwrap_or_default(),
                &action.r#type,
                action.scope.as_deref().unwrap_or_default(),
                &action.status,
                &action.created_at,
                &action.updated_at,
                &action.origin,
                action.raw.get(),
            ])
        })
        .await?;
    out.end(listed)
}
