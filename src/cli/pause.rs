//! `sweepd pause` and `sweepd resume`.

use std::time::Duration;

use super::output::{json_line, local, print};
use super::{Context, operator};
use crate::app::{Exit, Failure};
use crate::config::{Config, duration_of};
use crate::domain::id::TenantName;
use crate::domain::time::Wall;
use crate::store::tenants::Sending;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// This tenant alone, not all
    #[arg(long)]
    tenant: Option<String>,
    /// Why, for the record and for `status`
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Until `resume`, or for so long at most: 30m, 8h, 2d
    #[arg(long = "for", value_name = "DURATION", value_parser = duration_of)]
    length: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// This tenant alone, not all
    #[arg(long)]
    tenant: Option<String>,
}

/// The longest reason, in characters: as long as the comment of a scan may be.
const REASON_MAX: usize = 1000;

fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=REASON_MAX => Ok(text.to_owned()),
        length => Err(format!("it has {length} characters; at most {REASON_MAX} go on record")),
    }
}

pub async fn pause(context: &Context, config: &Config, args: &Args) -> Result<(), Failure> {
    let until = args.length.map(|length| context.clock.wall() + length);
    change(context, config, args.tenant.as_deref(), Sending::Paused(args.reason.clone(), until)).await
}

pub async fn resume(context: &Context, config: &Config, args: &ResumeArgs) -> Result<(), Failure> {
    change(context, config, args.tenant.as_deref(), Sending::Resumed).await
}

/// The configured tenants that were meant.
pub fn chosen(config: &Config, tenant: Option<&str>) -> Result<Vec<TenantName>, Failure> {
    let known: Vec<_> = config.tenants.keys().chain(config.disabled.keys()).cloned().collect();
    let Some(wanted) = tenant else { return Ok(known) };
    let found: Vec<_> = known.iter().filter(|name| name.as_str() == wanted).cloned().collect();
    if found.is_empty() {
        let known: Vec<_> = known.iter().map(TenantName::as_str).collect();
        let message = format!("there is no tenant `{wanted}`; the configuration has: {}", known.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(found)
}

async fn change(context: &Context, config: &Config, tenant: Option<&str>, sending: Sending) -> Result<(), Failure> {
    let tenants = chosen(config, tenant)?;
    let store = context.store(config).await?;
    let paused = sending != Sending::Resumed;
    let until = if let Sending::Paused(_, until) = &sending { until.map(Wall::rfc3339) } else { None };
    for name in tenants {
        let at = context.clock.wall();
        let changed = store.set_paused(&name, sending.clone(), operator(), at).await?;
        let json = context.json;
        print(|out| {
            use std::io::Write;
            if json {
                let line = serde_json::json!({ "tenant": name.as_str(), "paused": paused, "changed": changed, "until": until });
                return json_line(out, &line);
            }
            let already = if changed { "" } else { "already " };
            match (paused, &until) {
                (false, _) => writeln!(out, "{name}: {already}sending"),
                (true, None) => writeln!(out, "{name}: {already}paused: nothing is sent until `sweepd resume`"),
                (true, Some(until)) => {
                    let until = local(until);
                    writeln!(out, "{name}: {already}paused: nothing is sent until {until}, or `sweepd resume`")
                }
            }
        })?;
    }
    store.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reason_goes_on_record_whole_or_not_at_all() {
        assert_eq!(super::reason(&"é".repeat(1000)), Ok("é".repeat(1000)));
        assert!(super::reason(&"é".repeat(1001)).unwrap_err().contains("1001 characters; at most 1000"));
    }
}
