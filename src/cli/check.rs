//! `sweepd check`: is the configuration right?

use serde_json::json;

use super::Context;
use super::output::{json_line, print};
use crate::app::{Exit, Failure};

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
            return json_line(out, &json!({ "file": file, "tenants": tenants, "disabled": disabled }));
        }
        writeln!(out, "{}: right", file.as_deref().unwrap_or("the configuration"))?;
        for (name, tenant) in &config.tenants {
            let limits = tenant.budgets.scan.most;
            writeln!(
                out,
                "  {name}: {} at {} calls a minute and {} an hour",
                tenant.api_url, limits.per_minute, limits.per_hour
            )?;
        }
        Ok(())
    })?;
    if config.disabled.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Config, format!("disabled tenants: {}", disabled.join(", "))))
    }
}
