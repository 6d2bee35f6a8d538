//! `sweepd check`: is the configuration right? And with `--online`: do the tenants let us in?

mod online;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::output::{json_line, print, say};
use super::{Context, Work, become_owner, owner_of};
use crate::app::{Exit, Failure};
use crate::config::{Config, Tenant};
use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;
use crate::domain::time::Wall;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sign in to each tenant, make one harmless read of each kind, and tell which permission is
    /// missing for what; no scan is started
    #[arg(long)]
    online: bool,
    /// Only this tenant is signed in to
    #[arg(long, value_name = "NAME", requires = "online")]
    tenant: Option<TenantName>,
}

/// A look at the tenants uses the daemon's ledger, so it is made as the owner of the state folder. A look at the
/// configuration alone touches no folder.
pub fn prepare(context: &Context, args: Args) -> Result<Work<'_>, Failure> {
    let config = context.full_config()?;
    if args.online {
        become_owner(owner_of(&[&config.daemon.state_dir])?.as_ref())?;
    }
    Ok(Box::pin(async move { run(context, &config, &args).await }))
}

async fn run(context: &Context, config: &Config, args: &Args) -> Result<(), Failure> {
    if let Some(wanted) = args.tenant.as_ref().filter(|wanted| !config.tenants.contains_key(*wanted)) {
        let known: Vec<_> = config.tenants.keys().map(TenantName::as_str).collect();
        return Err(Failure::new(
            Exit::Usage,
            format!("there is no tenant `{wanted}` that works; {}", known.join(", ")),
        ));
    }
    for warning in &config.warnings {
        say(format_args!("warning: {warning}"));
    }
    for (tenant, problems) in &config.disabled {
        for problem in problems {
            say(format_args!("tenant {tenant} is disabled: {problem}"));
        }
    }
    let looked = if args.online { Some(online::look(context, config, args.tenant.as_ref()).await?) } else { None };
    let disabled: Vec<_> = config.disabled.keys().map(ToString::to_string).collect();
    print(|out| {
        if context.json {
            let online = looked.as_ref().map(online::Online::json);
            return json_line(out, &report(config, &disabled, online.as_ref()));
        }
        show(out, config)?;
        looked.as_ref().map_or(Ok(()), |looked| looked.show(out))
    })?;
    if !disabled.is_empty() {
        return Err(Failure::new(Exit::Config, format!("disabled tenants: {}", disabled.join(", "))));
    }
    looked.map_or(Ok(()), online::Online::outcome)
}

fn report(config: &Config, disabled: &[String], online: Option<&Value>) -> Value {
    let file = config.file.as_ref().map(|file| file.to_string_lossy());
    let tenants: Vec<_> = config.tenants.keys().map(ToString::to_string).collect();
    let sign_in: BTreeMap<_, _> = config
        .tenants
        .iter()
        .map(|(name, Tenant { auth, .. })| {
            let expires = auth.expires().map(Wall::rfc3339);
            (name.to_string(), json!({ "method": auth.method(), "expires": expires }))
        })
        .collect();
    json!({ "file": file, "tenants": tenants, "disabled": disabled, "sign_in": sign_in, "online": online })
}

fn show(out: &mut dyn Write, config: &Config) -> io::Result<()> {
    let file = config.file.as_ref().map(|file| ShownPath::new(&file).to_string());
    writeln!(out, "{}: right", file.as_deref().unwrap_or("the configuration"))?;
    for (name, tenant) in &config.tenants {
        let limits = tenant.budgets.scan.most;
        writeln!(
            out,
            "  {name}: {} at {} calls a minute and {} an hour",
            tenant.api_url, limits.per_minute, limits.per_hour
        )?;
        let until = tenant.auth.expires().map(|end| format!(", until {end}")).unwrap_or_default();
        writeln!(out, "    signs in with {}{until} at {}", tenant.auth.method(), tenant.authority_url)?;
    }
    Ok(())
}
