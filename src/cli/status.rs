//! `sweepd status`: the whole at a glance.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::Context;
use super::output::{json_line, local, local_or_dash, print, short, table};
use crate::app::{Failure, disabled_of, terms_of};
use crate::config::Config;
use crate::domain::share::Foreign;
use crate::intake::room::shortage;
use crate::store::Store;
use crate::store::incarnations::StateLock;
use crate::web::report::{self, Now, Report};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show it again every second, until interrupted
    #[arg(long)]
    watch: bool,
}

const AGAIN: Duration = Duration::from_secs(1);

pub async fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let config = context.plain_config()?;
    loop {
        let short = shortage(&[&config.daemon.state_dir, &config.daemon.spool_dir], config.intake.min_free);
        let report = read(context, &config).await?.with_disabled(&disabled_of(&config)).with_intake_stopped(short);
        print(|out| {
            if context.json {
                return json_line(out, &report);
            }
            if args.watch && io::stdout().is_terminal() {
                write!(out, "\x1b[H\x1b[2J")?;
            }
            show(out, &report)
        })?;
        if !args.watch {
            return Ok(());
        }
        context.clock.sleep_until(context.clock.boot() + AGAIN).await;
    }
}

async fn read(context: &Context, config: &Config) -> Result<Report, Failure> {
    let mut terms = terms_of(config);
    let running = StateLock::is_held(&config.daemon.state_dir);
    let Some(store) = Store::open_existing(&config.daemon.state_dir).await? else {
        return Ok(report::empty(&terms, running));
    };
    let now = Now { at: context.clock.wall(), boot: context.clock.boot() };
    let mut disabled = report::disabled(&store, running).await?;
    disabled.retain(|name, _| terms.remove(name).is_some());
    let report = report::read(&store, &terms, now, running).await?.with_disabled(&disabled);
    store.close().await;
    Ok(report)
}

/// The report for people.
pub fn show(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    if !report.daemon.running {
        writeln!(out, "The daemon is not running.\n")?;
    }
    if let Some(why) = &report.daemon.intake_stopped {
        writeln!(out, "No file is taken: {why}.\n")?;
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
        if report.daemon.running {
            writeln!(out, "  waits for {}", tenant.waiting_for)?;
        }
        if let Some(eta) = &tenant.eta {
            writeln!(out, "  all sent  about {}", local(eta))?;
        }
        if let Some(why) = &tenant.eta_unknown {
            writeln!(out, "  all sent  unknown: {why}")?;
        }
        writeln!(out)?;
    }
    if report.sweeps.is_empty() {
        return writeln!(out, "No sweep in progress.");
    }
    let mut table = table(&["SWEEP", "NAME", "TENANT", "STATE", "OPEN", "TOTAL", "ALL SENT ABOUT"]);
    for sweep in &report.sweeps {
        table.add_row([
            sweep.id.clone(),
            short(&sweep.name),
            sweep.tenant.clone(),
            sweep.state.clone(),
            sweep.open.to_string(),
            sweep.total.to_string(),
            local_or_dash(sweep.eta.as_ref()),
        ]);
    }
    writeln!(out, "{table}")?;
    for held in report.sweeps.iter().filter(|sweep| sweep.state == "held") {
        let (name, total) = (short(&held.name), held.total);
        writeln!(out, "Held: {name}, {total} machines; `sweepd sweep release {}` lets it go.", held.id)?;
    }
    Ok(())
}
