//! `sweepd demo`: the real daemon against a simulated tenant, from dropped list to results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Write, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::status::bar;
use super::{Context, log, output, terminal, whole_number};
use crate::app::{App, Exit, Failure, terms_of};
use crate::config::{self, Config, Environment, Log, LogFormat};
use crate::domain::ledger::CallKind;
use crate::domain::shown::ShownPath;
use crate::domain::time::Boot;
use crate::simulator::{MachineKind, Options, SimulatedMachine, Simulator, TenantOptions, fleet};
use crate::store::Store;
use crate::web::report::{self, Now, Report};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many machines are on the dropped list
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = whole_number::<1>, allow_negative_numbers = true)]
    machines: u32,
}

const TICK: Duration = Duration::from_millis(250);
/// Without a terminal, progress is a line now and then.
const LINE: Duration = Duration::from_secs(10);

/// A few of a fleet: one in forty, at least two where there are enough.
const fn few(machines: usize) -> usize {
    if machines < 10 { 0 } else { 2 + machines / 40 }
}

pub async fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    log::start(&Log { format: LogFormat::Text, level: "warn".to_owned() })?;
    let folder = tempfile::Builder::new().prefix("sweepd-demo-").tempdir()?;
    let machines = machines(args.machines as usize);
    let few = few(machines.len());
    let (known, _) = machines.split_at(machines.len() - few);
    let mut tenant = TenantOptions::new(known.to_vec());
    tenant.action_duration = (Duration::from_secs(2), Duration::from_secs(5));
    let config = configure(folder.path(), &tenant)?;
    let options = Options { tenants: vec![tenant], seed: 7, ..Options::default() };
    let simulator = Simulator::start(options, Arc::clone(&context.clock)).await?;
    let config = finish_configuration(&config, folder.path(), &simulator.url())?;

    eprintln!(
        "A simulated Defender tenant listens at {}; it enforces 100 calls a minute and 1,500 an hour.",
        simulator.url()
    );
    let app = App::start(&config, Arc::clone(&context.clock)).await?;
    if let Some(address) = app.address() {
        eprintln!("The real daemon runs in {}; dashboard: http://{address}/", ShownPath::new(&folder.path()));
    }
    let list = config.daemon.spool_dir.join("incoming/devices.csv");
    let unfinished = list.with_extension("tmp");
    std::fs::write(&unfinished, portal_export(&machines))?;
    std::fs::rename(&unfinished, &list)?;
    eprintln!(
        "Dropped a list of {} machines as the Defender portal exports it; {few} have somebody else's scan pending, {few} are unknown to Defender.\n",
        machines.len()
    );
    let finished = tokio::select! {
        finished = watch(context, &config, machines.len()) => Some(finished?),
        interrupted = tokio::signal::ctrl_c() => { interrupted?; None }
    };
    app.stop(config.daemon.shutdown_grace).await?;
    let outcome = match finished {
        Some(report) => totals(context, &report, &simulator, machines.len()),
        None => Err(Failure::new(Exit::Failed, "interrupted")),
    };
    simulator.stop().await;
    outcome
}

/// The list's machines: most are normal, a few have a foreign scan pending, and the last few are
/// not in the tenant.
fn machines(count: usize) -> Vec<SimulatedMachine> {
    let mut machines = fleet(7, count, "contoso");
    let few = few(count);
    let known = count - few;
    for n in 1..=few {
        if let Some(machine) = machines.get_mut(n * known / (few + 1)) {
            machine.kind = MachineKind::ForeignScanPending;
        }
    }
    machines
}

fn configure(folder: &Path, tenant: &TenantOptions) -> Result<String, Failure> {
    let secret = folder.join("demo-secret");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&secret)?;
    file.write_all(tenant.client_secret.as_bytes())?;
    Ok(format!(
        "[daemon]\nstate_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[intake]\nhold_above = 0\nhold_full_above = 0\n\
         [network]\nunknown_grace = \"5s\"\n[follow_up]\ninterval = \"2s\"\nlookup_horizon = \"5s\"\n[tenants.contoso]\ntenant_id = \"{}\"\ncomment = \"sweepd demo\"\n\
         api_url = \"URL\"\nauthority_url = \"URL\"\n\
         [tenants.contoso.auth]\nmethod = \"client_secret\"\nclient_id = \"{}\"\nsecret_file = \"demo-secret\"\n",
        ShownPath::new(&folder.join("state")),
        tenant.tenant_id,
        tenant.client_id,
    ))
}

fn finish_configuration(text: &str, folder: &Path, url: &str) -> Result<Config, Failure> {
    let file = folder.join("sweepd.toml");
    std::fs::write(&file, text.replace("URL", url))?;
    let environment = Environment::new(BTreeMap::new(), folder);
    config::load(Some(&file), &environment, &[]).map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

/// A list in the form of the portal's device export: BOM, quoted fields, 23 columns.
fn portal_export(machines: &[SimulatedMachine]) -> String {
    let mut text = String::from(
        "\u{feff}Device ID,Device Name,Domain,First Seen,Last device update,OS Platform,OS Distribution,OS Version,OS Build,\
         Windows 10 Version,Tags,Group,Is AAD Joined,Device IPs,Risk Level,Exposure Level,Health Status,Onboarding Status,\
         Device Role,Cloud Platforms,Managed By,Antivirus status,Is Internet Facing\r\n",
    );
    for machine in machines {
        // Writing to a String does not fail.
        let line = writeln!(
            text,
            "{},{},contoso.example,2026-01-01T00:00:00.000Z,2026-10-01T08:00:00.000Z,Windows11,,10.0,22631,23H2,\
             \"ring1,finance\",Workstations,true,\"10.0.0.5,fe80::1\",Low,Low,Active,Onboarded,,,Intune,Not-Supported,false\r",
            machine.id, machine.name
        );
        debug_assert!(line.is_ok());
    }
    text
}

/// Shows progress until every machine is final and the results are written.
async fn watch(context: &Context, config: &Config, machines: usize) -> Result<Report, Failure> {
    let terms = terms_of(config);
    let store = Store::open_existing(&config.daemon.state_dir)
        .await?
        .ok_or_else(|| Failure::new(Exit::Failed, "the daemon made no database"))?;
    let terminal = terminal::obeys(&stderr());
    let mut next_line = context.clock.boot();
    loop {
        let now = Now { at: context.clock.wall(), boot: context.clock.boot() };
        let report = report::read(&store, &terms, now, true).await?;
        let counted: u64 = report.tenants.values().flat_map(|tenant| tenant.jobs.values()).sum();
        let done = counted > 0 && report.sweeps.is_empty() && store.sweeps_to_report().await?.is_empty();
        let line = progress(&report, machines, now);
        if terminal {
            eprint!("\r\x1b[K{line}");
            stderr().flush()?;
        } else if now.boot >= next_line || done {
            next_line = now.boot + LINE;
            eprintln!("{line}");
        }
        if done {
            if terminal {
                eprintln!();
            }
            store.close().await;
            return Ok(report);
        }
        let next: Boot = context.clock.boot() + TICK;
        context.clock.sleep_until(next).await;
    }
}

fn progress(report: &Report, machines: usize, now: Now) -> String {
    let Some(tenant) = report.tenants.values().next() else { return "starting".to_owned() };
    let count = |state: &str| tenant.jobs.get(state).copied().unwrap_or(0);
    let open = count("queued") + count("sending") + count("accepted");
    let all: u64 = tenant.jobs.values().sum();
    let done = all - open;
    let bar = bar(done, machines as u64, 24);
    let gauge = |window: &str| {
        let gauge = tenant.budget.get("scan").and_then(|windows| windows.get(window));
        gauge.map_or_else(String::new, |gauge| format!("{}/{}", gauge.used, gauge.limit))
    };
    let eta = tenant
        .eta
        .as_ref()
        .and_then(|at| crate::domain::time::Wall::parse(at))
        .map(|at| format!(" · all sent in {} s", crate::domain::time::seconds_left(at.since(now.at))))
        .unwrap_or_default();
    format!(
        "{bar} {done}/{machines} final · {} queued · {} accepted · calls this minute {}, this hour {}{eta}",
        count("queued"),
        count("accepted"),
        gauge("minute"),
        gauge("hour"),
    )
}

/// The totals, and whether they add up: with the list, and with what the server counted.
fn totals(context: &Context, report: &Report, simulator: &Simulator, machines: usize) -> Result<(), Failure> {
    let Some(tenant) = report.tenants.values().next() else {
        return Err(Failure::new(Exit::Failed, "the demo had no tenant"));
    };
    let served = simulator.report();
    let scans = served.tenants.first().and_then(|tenant| tenant.calls.get(CallKind::Scan.as_str()));
    let (arrivals, worst_minute, worst_hour) =
        scans.map_or((0, 0, 0), |scans| (scans.arrivals, scans.worst_minute, scans.worst_hour));
    let twice = served
        .tenants
        .first()
        .map_or(0, |tenant| tenant.scans_per_machine.values().filter(|scans| **scans > 1).count());
    let sum: u64 = tenant.jobs.values().sum();
    output::print(|out| {
        if context.json {
            let line = serde_json::json!({ "machines": machines, "jobs": tenant.jobs, "calls": arrivals,
                "worst_minute": worst_minute, "worst_hour": worst_hour, "scanned_twice": twice });
            return output::json_line(out, &line);
        }
        writeln!(out, "\nEvery machine is final:")?;
        for (state, n) in tenant.jobs.iter().filter(|(_, n)| **n > 0) {
            writeln!(out, "  {n:>6} {state}")?;
        }
        writeln!(out, "  {sum:>6} in all, of {machines} on the list")?;
        writeln!(
            out,
            "\nAs the server counted: {arrivals} scan calls, at most {worst_minute} in any minute and {worst_hour} in any hour; \
             {twice} machines asked twice."
        )
    })?;
    if sum != machines as u64 || twice > 0 {
        return Err(Failure::new(Exit::Failed, "the totals do not add up: please report this"));
    }
    Ok(())
}
