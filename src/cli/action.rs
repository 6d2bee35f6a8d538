//! `sweepd action list|show|export|cancel`.

mod cancel;
mod export;

use super::job::tenant_of;
use super::output::{Lines, Listing, json_line, local, print, quiet};
use super::table::{id, name, state, whole};
use super::{Context, ids};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::sweep::clean_comment;
use crate::store::Store;
use crate::store::lists::{ActionLine, Wanted};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List actions, in the order in which they were seen first
    List(Which),
    /// Show an action as it was received last
    Show {
        /// The action's id; it may be shortened while it is unique
        id: String,
    },
    /// Write a row for each action, in the same order
    Export(export::Args),
    /// Have the daemon ask Defender to cancel an action
    Cancel(cancel::Args),
}

/// What Defender shows as the reason, unless the operator says another.
pub const COMMENT: &str = "Cancelled with sweepd";

/// Reads the reason for a cancellation: Defender wants one.
pub fn comment(text: &str) -> Result<String, String> {
    let comment = clean_comment(text).map_err(|error| error.to_string())?;
    if comment.is_empty() { Err("Defender wants a reason".to_owned()) } else { Ok(comment) }
}

/// Which actions are wanted.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// With this status, as Defender spells it
    #[arg(long)]
    status: Option<String>,
    /// On this machine; the id may be shortened while it is unique
    #[arg(long)]
    machine: Option<String>,
}

impl Which {
    async fn wanted(&self, config: &Config, store: &Store) -> Result<Wanted, Failure> {
        Ok(Wanted {
            tenant: tenant_of(config, store, self.tenant.as_ref()).await?,
            machine: match &self.machine {
                Some(machine) => Some(ids::machine(store, machine).await?),
                None => None,
            },
            state: self.status.clone(),
            ..Wanted::default()
        })
    }
}

pub async fn run(context: &Context, config: &Config, command: &Command) -> Result<(), Failure> {
    let Some(store) = Store::open_existing(&config.daemon.state_dir).await? else {
        return match command {
            Command::List(_) | Command::Export(_) => Ok(()),
            Command::Show { id } | Command::Cancel(cancel::Args { id, .. }) => {
                Err(Failure::new(Exit::Failed, format!("there is no action {id}: there is no database yet")))
            }
        };
    };
    match command {
        Command::List(which) => list(context, &store, &which.wanted(config, &store).await?).await?,
        Command::Show { id } => show(context, &action_of(&store, id).await?)?,
        Command::Export(args) => export::run(context, config, &store, args).await?,
        Command::Cancel(args) => cancel::run(context, config, &store, args).await?,
    }
    store.close().await;
    Ok(())
}

async fn list(context: &Context, store: &Store, wanted: &Wanted) -> Result<(), Failure> {
    if context.json {
        let mut out = Lines::new();
        let listed = store.actions(wanted, |action| out.add(&action)).await?;
        return out.end(listed);
    }
    let mut table = Listing::new(&[
        id("ACTION"),
        id("MACHINE"),
        name("TENANT").rank(2),
        name("TYPE").rank(1),
        whole("SCOPE").rank(3),
        state("STATUS"),
        whole("ORIGIN").rank(4),
        whole("UPDATED"),
    ]);
    let listed = store
        .actions(wanted, |action| {
            table.row(vec![
                action.action_id,
                action.machine_id.unwrap_or_default(),
                action.tenant,
                action.r#type,
                action.scope.unwrap_or_default(),
                action.status,
                action.origin,
                local(&action.updated_at),
            ])
        })
        .await?;
    table.end(listed)
}

/// The action whose id begins so.
async fn action_of(store: &Store, id: &str) -> Result<ActionLine, Failure> {
    let wanted = ids::beginning(id)?;
    let known = store.action_ids(&wanted, ids::TOLD + 1).await?;
    let known = known.into_iter().map(|known| (known.clone(), known, String::new())).collect();
    let whole = ids::only("action", id, known, "`sweepd action list`")?;
    let mut found = None;
    let wanted = Wanted { id: Some(whole), ..Wanted::default() };
    quiet(
        store
            .actions(&wanted, |action| {
                found = Some(action);
                Ok(())
            })
            .await?,
    )?;
    found.ok_or_else(|| Failure::new(Exit::Failed, format!("there is no action {id}; see `sweepd action list`")))
}

fn show(context: &Context, action: &ActionLine) -> Result<(), Failure> {
    print(|out| {
        use std::io::Write;
        if context.json {
            return json_line(out, action);
        }
        writeln!(out, "action {} · {} · {} · {}", action.action_id, action.r#type, action.status, action.tenant)?;
        writeln!(out, "  machine  {}", action.machine_id.as_deref().unwrap_or("-"))?;
        writeln!(out, "  origin   {}", action.origin)?;
        if let Some(error) = &action.error {
            writeln!(out, "  error    {error}")?;
        }
        writeln!(out, "  created  {}", local(&action.created_at))?;
        writeln!(out, "  updated  {}", local(&action.updated_at))?;
        writeln!(out, "  as received:\n{}", action.raw.get())
    })
}
