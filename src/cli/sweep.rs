//! `sweepd sweep list|show|release`.

use super::output::{json_line, local, print, short, table};
use super::{Context, operator};
use crate::app::{Exit, Failure};
use crate::store::Store;
use crate::store::status::SweepStatus;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List sweeps, newest first
    List,
    /// Show a sweep's counts
    Show {
        /// The sweep's id; it may be shortened while it is unique
        id: String,
    },
    /// Let a held sweep go
    Release {
        /// The sweep's id; it may be shortened while it is unique
        id: String,
    },
}

/// The sweep whose id begins so.
pub async fn row_of(store: &Store, id: &str) -> Result<SweepStatus, Failure> {
    let mut found: Vec<_> =
        store.all_sweeps().await?.into_iter().filter(|sweep| sweep.id.to_string().starts_with(id)).collect();
    match (found.pop(), found.len()) {
        (Some(sweep), 0) => Ok(sweep),
        (None, _) => Err(Failure::new(Exit::Failed, format!("there is no sweep {id}; see `sweepd sweep list`"))),
        (Some(_), more) => {
            Err(Failure::new(Exit::Usage, format!("{} sweeps begin with {id}; write more of the id", more + 1)))
        }
    }
}

fn line(sweep: &SweepStatus) -> serde_json::Value {
    serde_json::json!({
        "id": sweep.id.to_string(), "name": sweep.name, "tenant": sweep.tenant.as_str(), "source": sweep.source,
        "state": sweep.state, "total": sweep.total, "open": sweep.open, "received_at": sweep.received_at.rfc3339(),
    })
}

pub async fn run(context: &Context, command: &Command) -> Result<(), Failure> {
    let config = context.plain_config()?;
    let Some(store) = Store::open_existing(&config.daemon.state_dir).await? else {
        return match command {
            Command::List => Ok(()),
            Command::Show { id } | Command::Release { id } => {
                Err(Failure::new(Exit::Failed, format!("there is no sweep {id}: there is no database yet")))
            }
        };
    };
    match command {
        Command::List => {
            let sweeps = store.all_sweeps().await?;
            show(context, &sweeps)?;
        }
        Command::Show { id } => {
            let sweep = row_of(&store, id).await?;
            show(context, &[sweep])?;
        }
        Command::Release { id } => {
            let sweep = row_of(&store, id).await?;
            let tenant = store.tenant(&sweep.tenant).await?;
            if sweep.state != "held" {
                return Err(Failure::new(Exit::Failed, format!("{} is not held: it is {}", sweep.id, sweep.state)));
            }
            let machines = store.asked(tenant, sweep.n).await?.alone;
            eprintln!("releasing {}: {} Quick and {} Full scans", sweep.name, machines.quick, machines.full);
            let at = context.clock.wall();
            if !store.let_go(sweep.n, tenant, operator(), at).await? {
                return Err(Failure::new(Exit::Failed, format!("{} is not held: it is {}", sweep.id, sweep.state)));
            }
        }
    }
    store.close().await;
    Ok(())
}

fn show(context: &Context, sweeps: &[SweepStatus]) -> Result<(), Failure> {
    print(|out| {
        use std::io::Write;
        if context.json {
            return sweeps.iter().try_for_each(|sweep| json_line(out, &line(sweep)));
        }
        let mut table = table(&["SWEEP", "NAME", "TENANT", "SOURCE", "STATE", "OPEN", "TOTAL", "RECEIVED"]);
        for sweep in sweeps {
            table.add_row([
                sweep.id.to_string(),
                short(&sweep.name),
                sweep.tenant.to_string(),
                sweep.source.clone(),
                sweep.state.clone(),
                sweep.open.to_string(),
                sweep.total.to_string(),
                local(&sweep.received_at.rfc3339()),
            ]);
        }
        writeln!(out, "{table}")
    })
}
