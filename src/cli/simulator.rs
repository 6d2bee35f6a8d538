//! `sweepd simulator`: the simulated tenant alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{Context, whole_number};
use crate::app::{Exit, Failure};
use crate::domain::shown::ShownPath;
use crate::simulator::{Fault, Options, Simulator, TenantOptions, fleet};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes any
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many machines the tenant has
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = whole_number::<0>, allow_negative_numbers = true)]
    machines: u32,
    /// What is to go wrong: a file with a fault a line, in JSON
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

/// The faults of a file; blank lines are none.
fn faults(path: &Path) -> Result<Vec<Fault>, Failure> {
    let unusable = |why: String| Failure::new(Exit::Input, format!("{}: {why}", ShownPath::new(&path)));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| serde_json::from_str(line).map_err(|error| unusable(format!("line {n} is no fault: {error}"))))
        .collect()
}

pub async fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    if !args.listen.ip().is_loopback() {
        return Err(Failure::new(Exit::Usage, format!("{}: the simulator listens on loopback only", args.listen)));
    }
    let faults = args.faults.as_deref().map_or(Ok(Vec::new()), faults)?;
    let machines = fleet(1, args.machines as usize, "contoso");
    let ids: Vec<_> = machines.iter().map(|machine| machine.id.to_string()).collect();
    let tenant = TenantOptions::new(machines);
    let (tenant_id, client_id, secret) = (tenant.tenant_id, tenant.client_id.clone(), tenant.client_secret.clone());
    let options = Options { listen: args.listen, tenants: vec![tenant], seed: 1 };
    let simulator = Simulator::start(options, Arc::clone(&context.clock)).await?;
    for fault in faults {
        simulator.add_fault(0, fault);
    }
    let url = simulator.url();
    super::output::print(|out| {
        use std::io::Write;
        writeln!(out, "# A simulated Defender tenant at {url}. Its report: {url}/_simulator/report")?;
        writeln!(out, "# printf '%s' '{secret}' > contoso-secret")?;
        writeln!(
            out,
            "[tenants.contoso]\ntenant_id = \"{tenant_id}\"\napi_url = \"{url}\"\nauthority_url = \"{url}\"\n"
        )?;
        writeln!(
            out,
            "[tenants.contoso.auth]\nmethod = \"client_secret\"\nclient_id = \"{client_id}\"\nsecret_file = \"contoso-secret\""
        )?;
        writeln!(out, "\n# Its machines:")?;
        ids.iter().try_for_each(|id| writeln!(out, "# {id}"))
    })?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    simulator.stop().await;
    Ok(())
}
