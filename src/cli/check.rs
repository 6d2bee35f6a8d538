//! `sweepd check`: is the configuration right?

use std::collections::BTreeMap;

use serde_json::json;

use super::Context;
use super::output::{json_line, print};
use crate::app::{Exit, Failure};
use crate::config::Tenant;
use crate::domain::time::Wall;

pub fn run(context: &Context) -> Result<(), Failure> {
    let config = context.full_config()?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    for (tenant, problems) in &config.disabled {
        for problem in problems {
            eprintln!("tenant {tenant} is disabled: {problem}");
        }
    }
    let file = config.file.as_ref().map(|file| file.display().to_string());
    let tenants: Vec<_> = config.tenants.keys().map(ToString::to_string).collect();
    let disabled: Vec<_> = config.disabled.keys().map(ToString::to_string).collect();
    print(|out| {
        use std::io::Write;
        if context.json {
            let sign_in: BTreeMap<_, _> = config
                .tenants
                .iter()
                .map(|(name, Tenant { auth, .. })| {
                    let expires = auth.expires().map(Wall::rfc3339);
                    (name.to_string(), json!({ "method": auth.method(), "expires": expires }))
                })
                .collect();
            let line = json!({ "file": file, "tenants": tenants, "disabled": disabled, "sign_in": sign_in });
            return json_line(out, &line);
        }
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
    })?;
    if config.disabled.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Config, format!("disabled tenants: {}", disabled.join(", "))))
    }
}
