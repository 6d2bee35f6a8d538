//! `sweepd sweep retry`: a new sweep of what did not succeed.

use std::collections::BTreeMap;
use std::io::Write;

use super::super::output::{json_line, print};
use super::super::{Context, ask, operator};
use super::{line, row_of};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::job::State;
use crate::domain::sweep::ScanType;
use crate::engine::{Ids, RandomIds};
use crate::store::Store;
use crate::store::retries::Retry;

/// What a retry takes unless it is told otherwise.
const NOT_SUCCEEDED: [State; 6] =
    [State::Failed, State::TimedOut, State::Cancelled, State::Skipped, State::Rejected, State::NeedsReview];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sweep's id; it may be shortened while it is unique
    pub id: String,
    /// Only what ended in this state; repeat it for more
    #[arg(long, value_name = "STATE")]
    state: Vec<State>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub async fn run(context: &Context, config: &Config, store: &Store, args: &Args) -> Result<(), Failure> {
    if let Some(wrong) = args.state.iter().find(|state| !NOT_SUCCEEDED.contains(state)) {
        return Err(Failure::new(Exit::Usage, format!("--state {wrong}: there is nothing to try again there")));
    }
    let sweep = row_of(store, &args.id).await?;
    let states = if args.state.is_empty() { &NOT_SUCCEEDED[..] } else { &args.state };
    let jobs = store.to_retry(sweep.n, states).await?;
    if jobs.is_empty() {
        let message = format!(
            "nothing to try again in {}: {} of {} machines are still open, and what ended has succeeded, here or since",
            sweep.id, sweep.open, sweep.total
        );
        return Err(Failure::new(Exit::Failed, message));
    }
    let mut scans: BTreeMap<ScanType, usize> = BTreeMap::new();
    for job in &jobs {
        *scans.entry(job.scan).or_default() += 1;
    }
    let scans: Vec<_> = scans.iter().map(|(scan, n)| format!("{n} {scan}")).collect();
    let mut what = format!("trying {} again: {} scans", sweep.name, scans.join(" and "));
    if sweep.open > 0 {
        what += &format!("; {} machines are still open and not among them", sweep.open);
    }
    ask::before_on_terminal(&what, args.yes).await?;
    let retry = Retry {
        id: RandomIds.sweep(),
        of: sweep.n,
        tenant: store.tenant(&sweep.tenant).await?,
        name: format!("retry of {}", sweep.name),
        hold_above: config.intake.hold_above,
        operator: operator(),
        at: context.clock.wall(),
    };
    let id = retry.id.to_string();
    let (counts, held) = store.retry_sweep(retry, jobs).await?;
    let new = row_of(store, &id).await?;
    print(|out| {
        if context.json {
            let mut told = line(&new);
            told.insert("queued".to_owned(), counts.queued.into());
            told.insert("joined".to_owned(), counts.joined.into());
            told.insert("reason".to_owned(), held.into());
            return json_line(out, &told);
        }
        match held {
            None => writeln!(out, "{id}: {} queued, {} joined", counts.queued, counts.joined),
            Some(why) => writeln!(out, "{id}: held: {why}; `sweepd sweep release {id}` lets it go"),
        }
    })
}
