//! `sweepd action list|show`.

use super::Context;
use super::job::parse;
use super::output::{Lines, json_line, local, print, quiet, table};
use crate::app::{Exit, Failure};
use crate::domain::id::{MachineId, TenantName};
use crate::store::Store;
use crate::store::lists::Wanted;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List actions, oldest first
    List {
        /// Of this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// With this status, as Defender spells it
        #[arg(long)]
        status: Option<String>,
        /// On this machine
        #[arg(long)]
        machine: Option<String>,
    },
    /// Show an action as it was received last
    Show {
        /// The action's id
        id: String,
    },
}

pub async fn run(context: &Context, command: &Command) -> Result<(), Failure> {
    let config = context.plain_config()?;
    let Some(store) = Store::open_existing(&config.daemon.state_dir).await? else { return Ok(()) };
    match command {
        Command::List { tenant, status, machine } => {
            let wanted = Wanted {
                tenant: parse::<TenantName>(tenant.as_ref())?,
                machine: parse::<MachineId>(machine.as_ref())?,
                state: status.clone(),
                ..Wanted::default()
            };
            list(context, &store, &wanted).await?;
        }
        Command::Show { id } => show(context, &store, id).await?,
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
    let mut table = table(&["ACTION", "MACHINE", "TENANT", "TYPE", "SCOPE", "STATUS", "ORIGIN", "UPDATED"]);
    let listed = store
        .actions(wanted, |action| {
            table.add_row([
                action.action_id,
                action.machine_id.unwrap_or_default(),
                action.tenant,
                action.r#type,
                action.scope.unwrap_or_default(),
                action.status,
                action.origin,
                local(&action.updated_at),
            ]);
            Ok(())
        })
        .await?;
    quiet(listed)?;
    print(|out| {
        use std::io::Write;
        writeln!(out, "{table}")
    })
}

async fn show(context: &Context, store: &Store, id: &str) -> Result<(), Failure> {
    let wanted = Wanted { id: Some(id.to_owned()), ..Wanted::default() };
    let mut found = Vec::new();
    quiet(
        store
            .actions(&wanted, |action| {
                found.push(action);
                Ok(())
            })
            .await?,
    )?;
    let Some(action) = found.first() else {
        return Err(Failure::new(Exit::Failed, format!("there is no action {id}; see `sweepd action list`")));
    };
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
