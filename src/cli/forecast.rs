//! `sweepd forecast`: when what is queued would be done, and more machines behind it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::output::{json_line, local_or_dash, print, say};
use super::pause::chosen;
use super::table::{Table, name, whole};
use super::{Context, whole_number};
use crate::app::{Exit, Failure, terms_of};
use crate::config::Config;
use crate::domain::forecast::{Bound, Terms};
use crate::domain::id::TenantName;
use crate::store::Store;
use crate::store::incarnations::StateLock;
use crate::store::status::TenantStatus;
use crate::web::forecast::{self, Forecast, wall};
use crate::web::report::{self, Now};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// So many machines more than are queued, at the usual priority
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole_number::<0>, allow_negative_numbers = true)]
    machines: u32,
    /// This tenant alone, not all
    #[arg(long)]
    tenant: Option<String>,
}

/// A tenant's forecast, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
struct Line {
    tenant: String,
    /// So many more were asked about.
    machines: u32,
    /// Machines that are queued and may be sent.
    queued: u64,
    /// Machines that are queued, and hidden until their sweep is released or complete.
    held: u64,
    /// When the last of those that were asked about is done; of the queued ones, if it was about none.
    done_at: Option<String>,
    /// From now until then.
    seconds: Option<u64>,
    /// Which window makes calls wait longest until then: `hour`, `minute`, `pace` or `nothing`.
    bound_by: &'static str,
    /// When all that is queued is done.
    queued_done_at: Option<String>,
    /// From now until then.
    queued_seconds: Option<u64>,
    /// As `bound_by`, until then.
    queued_bound_by: Option<&'static str>,
    /// Why there are no times: somebody has to mend something first.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
    /// The times count from now, as if it were resumed.
    paused: bool,
    /// If not, the times count from now, as if it were started.
    running: bool,
}

impl Line {
    /// For a daemon that does not run, and a tenant of which nothing is held.
    fn of(name: &TenantName, machines: u32, forecast: &Forecast, tenant: Option<&TenantStatus>, now: Now) -> Self {
        let queue = forecast.ends.queue;
        let last = if machines > 0 { forecast.ends.more } else { queue };
        let is_known = forecast.unknown.is_none();
        Self {
            tenant: name.to_string(),
            machines,
            queued: forecast.queued,
            held: 0,
            done_at: is_known.then(|| last.map_or(now.at, |end| wall(end, now)).rfc3339()),
            seconds: is_known.then(|| last.map_or(0, |end| end.at.since(now.boot).as_secs())),
            bound_by: last.map_or(Bound::Nothing, |end| end.bound).as_str(),
            queued_done_at: queue.map(|end| wall(end, now).rfc3339()),
            queued_seconds: queue.map(|end| end.at.since(now.boot).as_secs()),
            queued_bound_by: queue.map(|end| end.bound.as_str()),
            unknown: forecast.unknown.clone(),
            paused: tenant.is_some_and(|tenant| tenant.pause.is_some()),
            running: false,
        }
    }
}

pub async fn run(context: &Context, config: &Config, args: &Args) -> Result<(), Failure> {
    let mut terms = terms_of(config);
    let chosen = chosen(config, args.tenant.as_deref())?;
    let running = StateLock::is_held(&config.daemon.state_dir);
    let store = Store::open_existing(&config.daemon.state_dir).await?;
    if let Some(store) = &store {
        let disabled = report::disabled(store, running).await?;
        terms.retain(|name, _| !disabled.contains_key(name));
    }
    for name in chosen.iter().filter(|name| !terms.contains_key(*name)) {
        say(format_args!("tenant {name} is disabled: see `sweepd check`"));
    }
    terms.retain(|name, _| chosen.contains(name));
    if terms.is_empty() {
        return Err(Failure::new(Exit::Config, "no tenant is left to forecast for".to_owned()));
    }
    let now = Now { at: context.clock.wall(), boot: context.clock.boot() };
    let lines = read(store.as_ref(), &terms, args.machines, now, running).await?;
    if let Some(store) = store {
        store.close().await;
    }
    print(|out| {
        if context.json {
            return lines.iter().try_for_each(|line| json_line(out, line));
        }
        show(out, &lines)
    })
}

async fn read(
    store: Option<&Store>,
    terms: &BTreeMap<TenantName, Terms>,
    machines: u32,
    now: Now,
    running: bool,
) -> Result<Vec<Line>, Failure> {
    let (tenants, sweeps) = match store {
        Some(store) => (store.tenants_status().await?, store.unfinished_sweeps().await?),
        None => (Vec::new(), Vec::new()),
    };
    let mut lines = Vec::new();
    for (name, terms) in terms {
        let tenant = tenants.iter().find(|tenant| tenant.name == *name);
        let forecast = match store.zip(tenant) {
            Some((store, tenant)) => forecast::read(store, tenant.row, terms, machines.into(), now, running).await?,
            None => forecast::from_terms(terms, machines.into(), now),
        };
        let held = sweeps.iter().filter(|sweep| sweep.tenant == *name && sweep.state != "open");
        let held = held.map(|sweep| sweep.open).sum();
        lines.push(Line { held, running, ..Line::of(name, machines, &forecast, tenant, now) });
    }
    Ok(lines)
}

fn show(out: &mut dyn Write, lines: &[Line]) -> io::Result<()> {
    let mut table = Table::new(&[
        name("TENANT"),
        whole("MACHINES"),
        whole("ALL SENT ABOUT"),
        whole("IN"),
        whole("LIMITED BY").rank(1),
    ]);
    for line in lines {
        if line.queued > 0 || line.machines == 0 {
            let cells = vec![
                line.tenant.clone(),
                format!("{} queued", line.queued),
                local_or_dash(line.queued_done_at.as_ref()),
                line.queued_seconds.map_or_else(|| "-".to_owned(), spell),
                limited_by(line.queued_bound_by.unwrap_or_default()).to_owned(),
            ];
            table.row(out, cells)?;
        }
        if line.machines > 0 {
            let cells = vec![
                line.tenant.clone(),
                format!("{} more", line.machines),
                local_or_dash(line.done_at.as_ref()),
                line.seconds.map_or_else(|| "-".to_owned(), spell),
                limited_by(line.bound_by).to_owned(),
            ];
            table.row(out, cells)?;
        }
    }
    table.end(out)?;
    writeln!(out)?;
    for line in lines {
        if let Some(why) = &line.unknown {
            writeln!(out, "{}: when it will be done is unknown: {why}.", line.tenant)?;
        } else if line.paused {
            writeln!(out, "{} is paused: its times count as if it were resumed now.", line.tenant)?;
        }
        if line.held > 0 {
            let (tenant, held) = (&line.tenant, line.held);
            writeln!(out, "not counted for {tenant}: {held} in sweeps that are held or not complete.")?;
        }
    }
    if lines.iter().any(|line| !line.running) {
        writeln!(out, "The daemon is not running: times count as if it were started now.")?;
    }
    writeln!(
        out,
        "Sent means that Defender has answered the call; how long the devices then scan is not in these times."
    )
}

fn limited_by(bound: &str) -> &'static str {
    match bound {
        "hour" => "the hour window",
        "minute" => "the minute window",
        "pace" => "the even pace",
        _ => "-",
    }
}

/// A time for people, to the minute as soon as there is one.
pub fn spell(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::{Boot, Wall};

    const NOW: Now = Now { at: Wall(1_700_000_000_000), boot: Boot(5_000) };

    async fn told(machines: u32) -> Line {
        let terms = BTreeMap::from([("contoso".parse().unwrap(), Terms::default())]);
        read(None, &terms, machines, NOW, false).await.unwrap().remove(0)
    }

    #[tokio::test]
    async fn without_a_database_the_limits_alone_tell_the_fastest_legal_times() {
        let mut spelled = Vec::new();
        for machines in [100, 1500, 1501, 5000, 10_000, 60_000] {
            spelled.push(spell(told(machines).await.seconds.unwrap()));
        }
        assert_eq!(spelled, ["0 s", "14 min", "1 h 00 min", "3 h 04 min", "6 h 09 min", "39 h 14 min"]);
        let line = told(1501).await;
        assert_eq!((line.bound_by, line.done_at.as_deref()), ("hour", Some("2023-11-14T23:13:20.250Z")));
        assert_eq!((line.queued, line.queued_done_at), (0, None));
    }

    #[tokio::test]
    async fn nothing_to_send_is_done_now() {
        let line = told(0).await;
        assert_eq!((line.seconds, line.done_at, line.bound_by), (Some(0), Some(NOW.at.rfc3339()), "nothing"));
    }

    #[tokio::test]
    async fn people_are_told_what_the_times_count_from() {
        let mut text = Vec::new();
        let line = Line { paused: true, held: 12, queued: 7, queued_seconds: Some(59), ..told(1500).await };
        show(&mut text, &[line]).unwrap();
        let text = String::from_utf8(text).unwrap();
        for words in [
            "7 queued",
            "59 s",
            "1500 more",
            "14 min",
            "the minute window",
            "as if it were resumed",
            "not counted for contoso: 12",
            "as if it were started",
            "how long the devices then scan",
        ] {
            assert!(text.contains(words), "no {words:?} in:\n{text}");
        }
    }
}
