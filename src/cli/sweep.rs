//! `sweepd sweep list|show|cancel|retry|release|export`.

mod cancel;
mod export;
mod retry;

use std::io::Write;

use serde_json::{Map, Value};

use super::output::{json_line, local, print};
use super::table::{Table, id, name, number, state, whole};
use super::{Context, ask, ids, operator};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::time::Wall;
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
    /// Withdraw what is still queued of a sweep
    Cancel(cancel::Args),
    /// Queue a new sweep of what did not succeed
    Retry(retry::Args),
    /// Let a held sweep go
    Release {
        /// The sweep's id; it may be shortened while it is unique
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write a row for each machine, with how it stands
    Export(export::Args),
}

impl Command {
    /// The sweep that is meant.
    fn id(&self) -> Option<&str> {
        match self {
            Self::List => None,
            Self::Show { id } | Self::Release { id, .. } => Some(id),
            Self::Cancel(args) => Some(&args.id),
            Self::Retry(args) => Some(&args.id),
            Self::Export(args) => Some(&args.id),
        }
    }
}

/// The sweep whose id begins so.
pub async fn row_of(store: &Store, id: &str) -> Result<SweepStatus, Failure> {
    let wanted = ids::beginning(id)?;
    let found = store.sweeps_beginning(&wanted, ids::TOLD + 1).await?.into_iter().map(|sweep| {
        let about = format!("{} of {}, received {}", sweep.name, sweep.tenant, local(&sweep.received_at.rfc3339()));
        let id = sweep.id.to_string();
        (sweep, id, about)
    });
    ids::only("sweep", id, found.collect(), "`sweepd sweep list`")
}

/// A sweep as `sweep list --json` prints it.
fn line(sweep: &SweepStatus) -> Map<String, Value> {
    let text = |key: &str, value: String| (key.to_owned(), Value::from(value));
    Map::from_iter([
        text("id", sweep.id.to_string()),
        text("name", sweep.name.clone()),
        text("tenant", sweep.tenant.to_string()),
        text("source", sweep.source.clone()),
        text("state", sweep.state.clone()),
        ("total".to_owned(), sweep.total.into()),
        ("open".to_owned(), sweep.open.into()),
        text("received_at", sweep.received_at.rfc3339()),
        ("retry_of".to_owned(), sweep.retry_of.map(|of| of.to_string()).into()),
    ])
}

pub async fn run(context: &Context, config: &Config, command: &Command) -> Result<(), Failure> {
    let Some(store) = Store::open_existing(&config.daemon.state_dir).await? else {
        return command.id().map_or(Ok(()), |id| {
            Err(Failure::new(Exit::Failed, format!("there is no sweep {id}: there is no database yet")))
        });
    };
    match command {
        Command::List => show(context, &store.all_sweeps().await?)?,
        Command::Show { id } => show_one(context, &store, id).await?,
        Command::Cancel(args) => cancel::run(context, &store, args).await?,
        Command::Retry(args) => retry::run(context, config, &store, args).await?,
        Command::Export(args) => export::run(context, &store, args).await?,
        Command::Release { id, yes } => release(context, &store, id, *yes).await?,
    }
    store.close().await;
    Ok(())
}

async fn release(context: &Context, store: &Store, id: &str, yes: bool) -> Result<(), Failure> {
    let sweep = row_of(store, id).await?;
    let not_held = |state: &str| Failure::new(Exit::Failed, format!("{} is not held: it is {state}", sweep.id));
    if sweep.state != "held" {
        return Err(not_held(&sweep.state));
    }
    let tenant = store.tenant(&sweep.tenant).await?;
    let machines = store.asked(tenant, sweep.n, context.clock.wall()).await?.alone;
    let what = format!("releasing {}: {} Quick and {} Full scans", sweep.name, machines.quick, machines.full);
    ask::before_on_terminal(&what, yes).await?;
    if !store.let_go(sweep.n, tenant, operator(), context.clock.wall()).await? {
        return Err(not_held("somebody else's release was faster"));
    }
    Ok(())
}

async fn show_one(context: &Context, store: &Store, id: &str) -> Result<(), Failure> {
    let sweep = row_of(store, id).await?;
    let (states, asker) = (store.states_of(sweep.n).await?, store.asker(sweep.n).await?);
    let wishes = store.asked_by(sweep.n, context.clock.wall()).await?;
    if context.json {
        let mut told = line(&sweep);
        let states: Map<_, _> = states.iter().map(|(state, n)| (state.to_string(), (*n).into())).collect();
        told.insert("jobs".to_owned(), states.into());
        told.insert("quick".to_owned(), wishes.alone.quick.into());
        told.insert("full".to_owned(), wishes.alone.full.into());
        told.insert("waiting".to_owned(), wishes.waiting.machines.into());
        told.insert("earliest_not_before".to_owned(), wishes.waiting.earliest.map(Wall::rfc3339).into());
        told.insert("latest_not_before".to_owned(), wishes.waiting.latest.map(Wall::rfc3339).into());
        told.insert("observed".to_owned(), asker.observed.into());
        told.insert("claimed".to_owned(), asker.claimed.into());
        told.insert("lines".to_owned(), asker.lines.into());
        told.insert("physical_lines".to_owned(), asker.physical_lines.into());
        return print(|out| json_line(out, &told));
    }
    print(|out| {
        writeln!(out, "sweep {} · {} · {}", sweep.id, sweep.name, sweep.tenant)?;
        writeln!(out, "  state     {}, {} of {} open", sweep.state, sweep.open, sweep.total)?;
        writeln!(out, "  received  {} ({})", local(&sweep.received_at.rfc3339()), sweep.source)?;
        writeln!(out, "  scans     {} Quick, {} Full", wishes.alone.quick, wishes.alone.full)?;
        if let (Some(earliest), Some(latest)) = (wishes.waiting.earliest, wishes.waiting.latest) {
            let (earliest, latest) = (local(&earliest.rfc3339()), local(&latest.rfc3339()));
            writeln!(out, "  waiting   {} until {earliest}, the last until {latest}", wishes.waiting.machines)?;
        }
        if let Some(physical) = asker.physical_lines {
            writeln!(out, "  lines     {} counted, of {physical} physical lines in the file", asker.lines)?;
        }
        if let Some(observed) = &asker.observed {
            writeln!(out, "  observed  {}", observed_words(observed))?;
        }
        if let Some(claimed) = &asker.claimed {
            writeln!(out, "  claimed   {} (the file says so itself)", claimed_words(claimed))?;
        }
        if let Some(of) = sweep.retry_of {
            writeln!(out, "  retry of  {of}")?;
        }
        states.iter().try_for_each(|(state, n)| writeln!(out, "  {state:<12}  {n}"))
    })
}

/// What was seen of the file, in words.
fn observed_words(observed: &Value) -> String {
    let mut words = format!("the file belonged to user {}", plain(observed, "uid"));
    if let Some(size) = observed.get("size") {
        words += &format!(", {size} bytes");
    }
    for (key, what) in [("modified_at", "written"), ("changed_at", "changed")] {
        if let Some(at) = observed.get(key).and_then(Value::as_str) {
            words += &format!(", {what} {}", local(at));
        }
    }
    words
}

/// What the file says of whoever submitted it, in words.
fn claimed_words(claimed: &Value) -> String {
    let login = claimed.get("login_uid").filter(|uid| !uid.is_null()).map(|uid| format!(" (logged in as {uid})"));
    format!("user {}{} on {}", plain(claimed, "uid"), login.unwrap_or_default(), plain(claimed, "host"))
}

fn plain(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    }
}

fn show(context: &Context, sweeps: &[SweepStatus]) -> Result<(), Failure> {
    print(|out| {
        if context.json {
            return sweeps.iter().try_for_each(|sweep| json_line(out, &line(sweep)));
        }
        let mut table = Table::new(&[
            id("SWEEP"),
            name("NAME"),
            name("TENANT").rank(2),
            whole("SOURCE").rank(3),
            state("STATE"),
            number("OPEN"),
            number("TOTAL"),
            whole("RECEIVED").rank(1),
        ]);
        for sweep in sweeps {
            let cells = vec![
                sweep.id.to_string(),
                sweep.name.clone(),
                sweep.tenant.to_string(),
                sweep.source.clone(),
                sweep.state.clone(),
                sweep.open.to_string(),
                sweep.total.to_string(),
                local(&sweep.received_at.rfc3339()),
            ];
            table.row(out, cells)?;
        }
        table.end(out)
    })
}
