//! `sweepd status`: the whole at a glance.

mod page;
mod screen;
mod watch;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::Context;
use super::output::{json_line, local, local_or_dash, print, short};
use super::table::{Table, id, name, number, state, whole};
use super::terminal::tame;
use crate::app::{Failure, disabled_of, terms_of};
use crate::config::{Config, duration_of};
use crate::domain::share::Foreign;
use crate::intake::room::{full, shortage};
use crate::store::View;
use crate::store::incarnations::StateLock;
use crate::store::write_lock::Holder;
use crate::web::overview::{LastFailure, last_failures};
use crate::web::report::{self, Now, Report, TenantReport};

pub use page::bar;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show it again and again, with what failed last: on a terminal until `q` or Ctrl-C; with --json a line each time
    #[arg(long)]
    watch: bool,
    /// How often --watch looks: 500ms, 5s, 1m
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval, requires = "watch")]
    interval: Duration,
}

/// Nobody sees more by looking more often.
const SHORTEST: Duration = Duration::from_millis(100);
/// So many failures are told.
const FAILURES: usize = 6;

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration_of(text)?;
    if interval < SHORTEST { Err("write 100ms or more".to_owned()) } else { Ok(interval) }
}

/// What a look has shown.
pub struct Seen {
    report: Report,
    /// What failed last, newest first.
    failures: Vec<LastFailure>,
}

pub async fn run(context: &Context, config: &Config, args: &Args) -> Result<(), Failure> {
    if args.watch {
        return watch::run(context, config, args.interval).await;
    }
    let Seen { report, .. } = look_for(context, config, 0).await?;
    print(|out| if context.json { json_line(out, &report) } else { show(out, &report) })
}

/// Looks once, with what failed last.
async fn look(context: &Context, config: &Config) -> Result<Seen, Failure> {
    look_for(context, config, FAILURES).await
}

async fn look_for(context: &Context, config: &Config, failures: usize) -> Result<Seen, Failure> {
    let short = shortage(&[&config.daemon.state_dir, &config.daemon.spool_dir], config.intake.min_free);
    let stopped = database_stopped(context, &config.daemon.state_dir).await;
    let Seen { report, failures } = read(context, config, failures).await?;
    let report = report.with_disabled(&disabled_of(config)).with_intake_stopped(short).with_database_stopped(stopped);
    Ok(Seen { report, failures })
}

/// How long a process may write that is not the daemon: a command does for less.
const WRITES_AT_MOST: Duration = Duration::from_secs(1);

/// Why the database takes no writes, as far as can be seen from here: the daemon cannot write it down.
async fn database_stopped(context: &Context, state_dir: &Path) -> Option<String> {
    if let Some(full) = full(state_dir) {
        return Some(full);
    }
    let daemon = StateLock::holder(state_dir);
    let holder = || Holder::of(state_dir).filter(|holder| Some(holder.pid) != daemon);
    let first = holder()?;
    context.clock.sleep_until(context.clock.boot() + WRITES_AT_MOST).await;
    holder().filter(|second| *second == first).map(|holder| holder.to_string())
}

async fn read(context: &Context, config: &Config, failures: usize) -> Result<Seen, Failure> {
    let mut terms = terms_of(config);
    let running = StateLock::is_held(&config.daemon.state_dir);
    let now = Now { at: context.clock.wall(), boot: context.clock.boot() };
    // Opened anew for each look: a restore puts another file in its place.
    let Some(view) = View::open_existing(&config.daemon.state_dir).await? else {
        return Ok(Seen { report: report::empty(&terms, now.at, running), failures: Vec::new() });
    };
    let mut disabled = report::disabled(&view, running).await?;
    disabled.retain(|name, _| terms.remove(name).is_some());
    let report = report::read(&view, &terms, now, running).await?.with_disabled(&disabled);
    let failures = if failures > 0 { last_failures(&view, now, failures).await? } else { Vec::new() };
    view.close().await;
    Ok(Seen { report, failures })
}

/// Since when a tenant is paused, until when and why: also while no daemon runs that would wait for it.
pub fn paused(tenant: &TenantReport) -> Option<String> {
    let since = tenant.paused_since.as_ref().filter(|_| tenant.paused)?;
    let until = tenant.paused_until.as_ref().map(|until| format!(" until {}", local(until))).unwrap_or_default();
    let why = tenant.paused_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("since {}{until}{why}", local(since)))
}

/// Why it is not known when all is sent; until when a pause lasts stands elsewhere.
pub fn unknown(tenant: &TenantReport) -> Option<&str> {
    let why = tenant.eta_unknown.as_deref()?;
    Some(if tenant.paused { "paused" } else { why })
}

/// Which statuses of Defender's sweepd does not know, and of how many actions.
pub fn unknown_statuses(tenant: &TenantReport) -> Option<String> {
    let all = &tenant.unknown_statuses;
    let word = |(word, n): (&String, &u64)| format!("`{word}` of {n} actions");
    let words: Vec<_> = all.iter().map(word).collect();
    (!all.is_empty()).then(|| format!("{}: sweepd does not know this status and follows on", words.join(", ")))
}

/// The report for people.
pub fn show(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    if !report.daemon.running {
        writeln!(out, "The daemon is not running.\n")?;
    }
    if let Some(why) = &report.daemon.intake_stopped {
        writeln!(out, "No file is taken: {why}.\n")?;
    }
    if let Some(why) = &report.daemon.database_stopped {
        writeln!(out, "The database takes no writes: {}.\n", tame(why))?;
    }
    for (name, tenant) in &report.tenants {
        let jobs: Vec<_> =
            tenant.jobs.iter().filter(|(_, n)| **n > 0).map(|(state, n)| format!("{n} {state}")).collect();
        let jobs = if jobs.is_empty() { "no jobs".to_owned() } else { jobs.join(" · ") };
        writeln!(out, "{name}: {jobs}")?;
        if let Some(windows) = tenant.budget.get("scan") {
            let gauges: Vec<_> = ["minute", "hour"]
                .into_iter()
                .filter_map(|window| windows.get(window).map(|gauge| (window, gauge)))
                .map(|(window, gauge)| format!("{} of {} this {window}", gauge.used, gauge.limit))
                .collect();
            writeln!(out, "  calls     {}", gauges.join(", "))?;
            if let Some(foreign) = tenant.foreign.get("scan").filter(|foreign| **foreign != Foreign::default()) {
                let Foreign { minute, hour } = foreign;
                writeln!(
                    out,
                    "  others    about {minute} a minute and {hour} an hour, with the same app registration"
                )?;
            }
        }
        if let Some(paused) = paused(tenant) {
            writeln!(out, "  paused    {}", tame(&paused))?;
        }
        if report.daemon.running {
            writeln!(out, "  waits for {}", tame(&tenant.waiting_for))?;
        }
        if let Some(unknown) = unknown_statuses(tenant) {
            writeln!(out, "  status    {}", tame(&unknown))?;
        }
        if let Some(eta) = &tenant.eta {
            writeln!(out, "  all sent  about {}", local(eta))?;
        }
        if let Some(why) = unknown(tenant) {
            writeln!(out, "  all sent  unknown: {}", tame(why))?;
        }
        writeln!(out)?;
    }
    show_sweeps(out, report)
}

/// The sweeps in progress, for people.
fn show_sweeps(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    if report.sweeps.is_empty() {
        return writeln!(out, "No sweep in progress.");
    }
    let mut table = Table::new(&[
        id("SWEEP"),
        name("NAME"),
        name("TENANT").rank(2),
        state("STATE"),
        number("OPEN"),
        number("TOTAL"),
        whole("ALL SENT ABOUT").rank(1),
    ]);
    for sweep in &report.sweeps {
        let cells = vec![
            sweep.id.clone(),
            sweep.name.clone(),
            sweep.tenant.clone(),
            sweep.state.clone(),
            sweep.open.to_string(),
            sweep.total.to_string(),
            local_or_dash(sweep.eta.as_ref()),
        ];
        table.row(out, cells)?;
    }
    table.end(out)?;
    for held in report.sweeps.iter().filter(|sweep| sweep.state == "held") {
        let (name, total) = (short(&held.name), held.total);
        writeln!(out, "Held: {name}, {total} machines; `sweepd sweep release {}` lets it go.", held.id)?;
    }
    Ok(())
}
