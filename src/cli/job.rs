//! `sweepd job list|show`.

use std::io::{self, Write};

use serde_json::json;

use super::Context;
use super::output::{Lines, json_line, local, local_or_dash, print, quiet, table};
use super::sweep::row_of;
use crate::app::{Exit, Failure};
use crate::domain::id::{MachineId, TenantName};
use crate::domain::job::State;
use crate::store::Store;
use crate::store::events::Event;
use crate::store::lists::{AttemptLine, JobLine, Wanted};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List jobs, oldest first
    List(ListArgs),
    /// Show a job, or every job of a machine, with the whole history
    Show {
        /// The job's number, or the machine's id
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// In this state
    #[arg(long)]
    state: Option<String>,
    /// Of this machine
    #[arg(long)]
    machine: Option<String>,
    /// Of this sweep; the id may be shortened
    #[arg(long)]
    sweep: Option<String>,
}

/// Reads a word of the command line.
pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: Option<&String>) -> Result<Option<T>, Failure> {
    text.map(|text| text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{text}: {error}")))).transpose()
}

pub async fn run(context: &Context, command: &Command) -> Result<(), Failure> {
    let config = context.plain_config()?;
    let Some(store) = Store::open_existing(&config.daemon.state_dir).await? else { return Ok(()) };
    match command {
        Command::List(args) => list(context, &store, args).await?,
        Command::Show { id } => show(context, &store, id).await?,
    }
    store.close().await;
    Ok(())
}

async fn list(context: &Context, store: &Store, args: &ListArgs) -> Result<(), Failure> {
    let wanted = Wanted {
        tenant: parse::<TenantName>(args.tenant.as_ref())?,
        machine: parse::<MachineId>(args.machine.as_ref())?,
        state: parse::<State>(args.state.as_ref())?.map(|state| state.as_str().to_owned()),
        sweep: match &args.sweep {
            Some(id) => Some(row_of(store, id).await?.n),
            None => None,
        },
        id: None,
    };
    if context.json {
        let mut out = Lines::new();
        let listed = store.jobs(&wanted, |job| out.add(&job)).await?;
        return out.end(listed);
    }
    let mut table = table(&["JOB", "MACHINE", "TENANT", "STATE", "REASON", "SCAN", "TRIES", "UPDATED"]);
    let listed = store
        .jobs(&wanted, |job| {
            table.add_row([
                job.id.to_string(),
                job.machine_id,
                job.tenant,
                job.state,
                job.reason.unwrap_or_default(),
                job.scan_type,
                job.attempts.to_string(),
                local(&job.updated_at),
            ]);
            Ok(())
        })
        .await?;
    quiet(listed)?;
    print(|out| writeln!(out, "{table}"))
}

async fn show(context: &Context, store: &Store, id: &str) -> Result<(), Failure> {
    let wanted = match (id.parse::<MachineId>(), id.parse::<i64>()) {
        (Ok(machine), _) => Wanted { machine: Some(machine), ..Wanted::default() },
        (_, Ok(_)) => Wanted { id: Some(id.to_owned()), ..Wanted::default() },
        _ => return Err(Failure::new(Exit::Usage, format!("{id}: neither a job's number nor a machine id"))),
    };
    let mut jobs: Vec<JobLine> = Vec::new();
    quiet(
        store
            .jobs(&wanted, |job| {
                jobs.push(job);
                Ok(())
            })
            .await?,
    )?;
    if jobs.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("there is no job {id}")));
    }
    for job in jobs {
        let attempts = store.attempts_of(job.id).await?;
        let machine = job.machine_id.parse::<MachineId>().ok();
        let tenant = store.tenants_status().await?.into_iter().find(|tenant| tenant.name.as_str() == job.tenant);
        let events = match (machine, tenant) {
            (Some(machine), Some(tenant)) => store.events_of_machine(tenant.row, machine, None).await?,
            _ => Vec::new(),
        };
        if context.json {
            print(|out| json_line(out, &json!({ "job": job, "attempts": attempts, "events": events })))?;
            continue;
        }
        print(|out| told(out, &job, &attempts, &events))?;
    }
    Ok(())
}

fn told(out: &mut impl Write, job: &JobLine, attempts: &[AttemptLine], events: &[Event]) -> io::Result<()> {
    writeln!(out, "job {} · {} · {} · {}", job.id, job.machine_id, job.scan_type, job.tenant)?;
    let why: Vec<_> = [&job.reason, &job.detail].into_iter().flatten().map(String::as_str).collect();
    let reason = if why.is_empty() { String::new() } else { format!(" ({})", why.join(": ")) };
    writeln!(out, "  state     {}{reason}, since {}", job.state, local(&job.updated_at))?;
    writeln!(out, "  priority  {}", job.priority)?;
    writeln!(out, "  action    {}", job.action_id.as_deref().unwrap_or("-"))?;
    if let Some(error) = &job.error {
        writeln!(out, "  error     {error}")?;
    }
    if let Some(blocked) = &job.blocked_by {
        writeln!(
            out,
            "  blocked   by action {} ({} {}, asked by {})",
            blocked.action_id,
            blocked.r#type.as_deref().unwrap_or("?"),
            blocked.scope.as_deref().unwrap_or(""),
            blocked.requestor.as_deref().unwrap_or("?"),
        )?;
    }
    writeln!(out, "  sweeps    {}", job.sweep_ids.join(", "))?;
    for attempt in attempts {
        writeln!(
            out,
            "  attempt   {} at {}: {} {}",
            attempt.attempt_id,
            local(&attempt.at),
            attempt.outcome.as_deref().unwrap_or("on the wire"),
            attempt.looked_up.as_ref().map(|found| format!("(looked up: {found})")).unwrap_or_default(),
        )?;
    }
    writeln!(out, "  finished  {}", local_or_dash(job.finished_at.as_ref()))?;
    for event in events {
        writeln!(out, "  {:>6}  {}  {}  {}", event.seq, local(&event.at), event.kind, event.body)?;
    }
    Ok(())
}
