//! `sweepd job list|show`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use super::output::{Lines, Listing, json_line, local, local_or_dash, print, quiet};
use super::pause::chosen;
use super::sweep::row_of;
use super::table::{id, name, number, state, whole};
use super::{Context, ids};
use crate::app::{Exit, Failure};
use crate::config::Config;
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
        /// The job's number, or the machine's id; that may be shortened while it is unique
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
    /// Of this machine; the id may be shortened while it is unique
    #[arg(long)]
    machine: Option<String>,
    /// Of this sweep; the id may be shortened while it is unique
    #[arg(long)]
    sweep: Option<String>,
}

/// Reads a word of the command line.
pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: Option<&String>) -> Result<Option<T>, Failure> {
    text.map(|text| text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{text}: {error}")))).transpose()
}

/// The tenant that is meant: one that is configured, or whose jobs are here from when it was.
pub async fn tenant_of(config: &Config, store: &Store, typed: Option<&String>) -> Result<Option<TenantName>, Failure> {
    let Some(name) = parse::<TenantName>(typed)? else { return Ok(None) };
    if !store.tenants_status().await?.iter().any(|tenant| tenant.name == name) {
        chosen(config, Some(name.as_str()))?;
    }
    Ok(Some(name))
}

pub async fn run(context: &Context, config: &Config, command: &Command) -> Result<(), Failure> {
    let Some(store) = Store::open_existing(&config.daemon.state_dir).await? else {
        return match command {
            Command::List(_) => Ok(()),
            Command::Show { id } => {
                Err(Failure::new(Exit::Failed, format!("there is no job {id}: there is no database yet")))
            }
        };
    };
    match command {
        Command::List(args) => list(context, config, &store, args).await?,
        Command::Show { id } => show(context, &store, id).await?,
    }
    store.close().await;
    Ok(())
}

async fn list(context: &Context, config: &Config, store: &Store, args: &ListArgs) -> Result<(), Failure> {
    let wanted = Wanted {
        tenant: tenant_of(config, store, args.tenant.as_ref()).await?,
        machine: match &args.machine {
            Some(machine) => Some(ids::machine(store, machine).await?),
            None => None,
        },
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
    let mut table = Listing::new(&[
        number("JOB"),
        id("MACHINE"),
        name("TENANT").rank(2),
        state("STATE"),
        name("REASON"),
        whole("SCAN").rank(3),
        number("TRIES").rank(4),
        whole("UPDATED").rank(1),
    ]);
    let listed = store
        .jobs(&wanted, |job| {
            let reason = why(&job);
            table.row(vec![
                job.id.to_string(),
                job.machine_id,
                job.tenant,
                job.state,
                reason,
                job.scan_type,
                job.attempts.to_string(),
                local(&job.updated_at),
            ])
        })
        .await?;
    table.end(listed)
}

async fn wanted_jobs(store: &Store, wanted: Wanted) -> Result<Vec<JobLine>, Failure> {
    let mut jobs = Vec::new();
    let listed = store.jobs(&wanted, |job| {
        jobs.push(job);
        Ok(())
    });
    quiet(listed.await?)?;
    Ok(jobs)
}

async fn show(context: &Context, store: &Store, id: &str) -> Result<(), Failure> {
    let mut jobs = Vec::new();
    // A number is a job's; if there is no such job, it may be how a machine's id begins.
    let number = id.parse::<i64>().ok();
    if number.is_some() {
        jobs = wanted_jobs(store, Wanted { id: Some(id.to_owned()), ..Wanted::default() }).await?;
    }
    if jobs.is_empty() {
        let machine = ids::machine(store, id).await.map_err(|error| match (error.exit, number) {
            (Exit::Failed, Some(_)) => {
                Failure::new(Exit::Failed, format!("there is no job {id}, and no machine whose id begins so"))
            }
            _ => error,
        })?;
        jobs = wanted_jobs(store, Wanted { machine: Some(machine), ..Wanted::default() }).await?;
    }
    if jobs.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("there is no job {id}; see `sweepd job list`")));
    }
    let tenants = store.tenants_status().await?;
    // All jobs are of one machine: its record is read once for each tenant.
    let mut records: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for job in jobs {
        let attempts = store.attempts_of(job.id).await?;
        if !records.contains_key(&job.tenant) {
            let machine = job.machine_id.parse::<MachineId>().ok();
            let tenant = tenants.iter().find(|tenant| tenant.name.as_str() == job.tenant);
            let events = match (machine, tenant) {
                (Some(machine), Some(tenant)) => store.events_of_machine(tenant.row, machine, None).await?,
                _ => Vec::new(),
            };
            records.insert(job.tenant.clone(), events);
        }
        let events = records.get(&job.tenant).map(Vec::as_slice).unwrap_or_default();
        if context.json {
            print(|out| json_line(out, &json!({ "job": job, "attempts": attempts, "events": events })))?;
            continue;
        }
        print(|out| told(out, &job, &attempts, events))?;
    }
    Ok(())
}

/// The reason of a job's state, and what more there is to say.
fn why(job: &JobLine) -> String {
    [job.reason.as_deref(), job.detail.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

fn told(out: &mut impl Write, job: &JobLine, attempts: &[AttemptLine], events: &[Event]) -> io::Result<()> {
    writeln!(out, "job {} · {} · {} · {}", job.id, job.machine_id, job.scan_type, job.tenant)?;
    let why = why(job);
    let reason = if why.is_empty() { String::new() } else { format!(" ({why})") };
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
            "  attempt   {} at {}: {}{}",
            attempt.attempt_id,
            local(&attempt.at),
            attempt.outcome.as_deref().unwrap_or("on the wire"),
            attempt.looked_up.as_ref().map(|found| format!(" (looked up: {found})")).unwrap_or_default(),
        )?;
    }
    writeln!(out, "  finished  {}", local_or_dash(job.finished_at.as_ref()))?;
    for event in events {
        writeln!(out, "  {:>6}  {}  {}  {}", event.seq, local(&event.at), event.kind, event.body)?;
    }
    Ok(())
}
