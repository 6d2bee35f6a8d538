//! `sweepd pause` and `sweepd resume`.

use super::output::{json_line, print};
use super::{Context, operator};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::id::TenantName;
use crate::store::tenants::Sending;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// This tenant alone, not all
    #[arg(long)]
    tenant: Option<String>,
    /// Why, for the record and for `status`
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// This tenant alone, not all
    #[arg(long)]
    tenant: Option<String>,
}

pub async fn pause(context: &Context, args: &Args) -> Result<(), Failure> {
    change(context, args.tenant.as_deref(), Sending::Paused(args.reason.clone())).await
}

pub async fn resume(context: &Context, args: &ResumeArgs) -> Result<(), Failure> {
    change(context, args.tenant.as_deref(), Sending::Resumed).await
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

async fn change(context: &Context, tenant: Option<&str>, sending: Sending) -> Result<(), Failure> {
    let config = context.plain_config()?;
    let tenants = chosen(&config, tenant)?;
    let store = context.store(&config).await?;
    let paused = sending != Sending::Resumed;
    for name in tenants {
        let at = context.clock.wall();
        let changed = store.set_paused(&name, sending.clone(), operator(), at).await?;
        let json = context.json;
        print(|out| {
            use std::io::Write;
            if json {
                let line = serde_json::json!({ "tenant": name.as_str(), "paused": paused, "changed": changed });
                return json_line(out, &line);
            }
            let already = if changed { "" } else { "already " };
            let what = if paused { "paused: nothing is sent until `sweepd resume`" } else { "sending" };
            writeln!(out, "{name}: {already}{what}")
        })?;
    }
    store.close().await;
    Ok(())
}
