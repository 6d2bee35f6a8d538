//! `sweepd check --online`: what the tenants say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::super::table::{Table, state, words};
use super::super::{Context, operator};
use crate::app::{Exit, Failure, wire};
use crate::clock::boot_id;
use crate::config::{Auth, Config, Tenant};
use crate::defender::Claims;
use crate::domain::id::TenantName;
use crate::domain::permission::{Finding, Verdict};
use crate::domain::shown::ShownPath;
use crate::engine::RandomIds;
use crate::engine::online::{Counted, Looked, Looker};
use crate::store::{FILE, Store};

/// Tenants that are looked at side by side: one that does not answer must not keep the others waiting.
const AT_ONCE: usize = 8;
/// Clocks further apart are told.
const APART: Duration = Duration::from_mins(1);

/// What was found, and how it was counted.
pub struct Online<'a> {
    config: &'a Config,
    tenants: Vec<(&'a TenantName, &'a Tenant, Looked)>,
    /// What to say of the ledger, if the reads are not in it.
    uncounted: Option<String>,
    /// Why there is a ledger that cannot be used.
    unusable: Option<Failure>,
    interrupted: bool,
}

/// Looks at every tenant, or at the one that is wanted.
pub async fn look<'a>(
    context: &Context,
    config: &'a Config,
    wanted: Option<&TenantName>,
) -> Result<Online<'a>, Failure> {
    let (counted, unusable) = ledger(config).await;
    let store = if let Counted::In(store, _) = &counted { Some(store.clone()) } else { None };
    let uncounted = match &counted {
        Counted::In(..) => None,
        Counted::Nowhere => {
            let folder = ShownPath::new(&config.daemon.state_dir);
            Some(format!("there is no {FILE} in {folder} yet: these reads are in nobody's budget"))
        }
        Counted::Refused(why) => Some(why.clone()),
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let looker = Looker {
        wire: wire(config)?,
        clock: Arc::clone(&context.clock),
        ids: Arc::new(RandomIds),
        boot_id: boot_id()?,
        network: &config.network,
        counted,
        stop: stop.clone(),
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // What is on the wire has a slot, whose end must be written down: so a signal ends calls, not us.
    let listening = tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    let tenants = config.tenants.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let looker = &looker;
    let tenants = futures_util::stream::iter(tenants)
        .map(|(name, tenant)| async move { (name, tenant, looker.look(name, tenant).await) })
        .buffered(AT_ONCE)
        .collect()
        .await;
    listening.abort();
    if let Some(store) = store {
        store.close().await;
    }
    Ok(Online { config, tenants, uncounted, unusable, interrupted: stopped.is_cancelled() })
}

/// The daemon's ledger, and what to say when there is none to be had.
async fn ledger(config: &Config) -> (Counted, Option<Failure>) {
    let folder = &config.daemon.state_dir;
    match Store::open_existing(folder).await {
        Ok(Some(store)) => (Counted::In(store, operator()), None),
        Ok(None) => (Counted::Nowhere, None),
        Err(error) => {
            let failure = Failure::from(error);
            let why = format!("no read was made, since the budget cannot be used: {failure}");
            (Counted::Refused(why), Some(failure))
        }
    }
}

impl Online<'_> {
    /// What a script wants to know.
    pub fn json(&self) -> Value {
        let tenants: BTreeMap<_, _> = self
            .tenants
            .iter()
            .map(|(name, tenant, looked)| {
                let claims = looked.signed_in.as_ref().ok().and_then(Option::as_ref);
                let error = looked.signed_in.as_ref().err().map(|error| error.message.clone());
                let apart = looked.clocks.map(|(theirs, ours)| (theirs.0 - ours.0) / 1000);
                let told = json!({
                    "ok": looked.signed_in.is_ok() && looked.findings.iter().all(|found| found.verdict == Verdict::Granted),
                    "hosts": hosts(tenant),
                    "signed_in": looked.signed_in.is_ok(),
                    "error": error,
                    "application": claims.and_then(|claims| claims.application.clone()),
                    "application_name": claims.and_then(|claims| claims.name.clone()),
                    "roles": claims.map(|claims| claims.roles.clone()),
                    "clock_behind_seconds": apart,
                    "features": looked.findings.iter().map(feature).collect::<Vec<_>>(),
                    "notes": notes(tenant, looked),
                });
                (name.to_string(), told)
            })
            .collect();
        json!({ "counted": self.uncounted.is_none(), "note": self.uncounted, "tenants": tenants })
    }

    /// The same for people.
    pub fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let hosts: BTreeSet<_> = self.tenants.iter().flat_map(|(_, tenant, _)| hosts(tenant)).collect();
        let through = self.config.network.proxy.as_ref().map_or("", |_| " (through network.proxy)");
        writeln!(out, "\nA firewall has to let through{through}: {}", Vec::from_iter(hosts).join(", "))?;
        for (name, tenant, looked) in &self.tenants {
            writeln!(out, "\n{name}: {}", signed_in(tenant, looked))?;
            if !looked.findings.is_empty() {
                let mut table = Table::new(&[words("FOR"), words("PERMISSION"), state(""), words("BECAUSE")]);
                for found in &looked.findings {
                    let permission = any_of(found.need.any_of);
                    let verdict = found.verdict.as_str().to_owned();
                    table.row(out, vec![found.need.feature.to_owned(), permission, verdict, found.because.clone()])?;
                }
                table.end(out)?;
            }
            for (remedy, without) in remedies(&looked.findings) {
                writeln!(out, "  → {remedy}. Without: {without}.")?;
            }
            for note in notes(tenant, looked) {
                writeln!(out, "  note: {note}")?;
            }
        }
        self.uncounted.as_ref().map_or(Ok(()), |note| writeln!(out, "\nnote: {note}"))
    }

    /// How the command ends: by the worst that was found.
    pub fn outcome(self) -> Result<(), Failure> {
        if self.interrupted {
            return Err(Failure::new(Exit::Failed, "interrupted"));
        }
        let mut worst: Option<(u8, Exit)> = None;
        let mut names = BTreeSet::new();
        for (name, _, looked) in &self.tenants {
            let signed_in = match &looked.signed_in {
                Ok(_) => None,
                Err(error) if error.unreachable => Some((2, Exit::Unavailable)),
                Err(_) => Some((3, Exit::NotPermitted)),
            };
            let of_findings = looked.findings.iter().filter_map(|found| match found.verdict {
                Verdict::Granted => None,
                Verdict::Unknown => Some((1, Exit::Failed)),
                Verdict::Unreachable => Some((2, Exit::Unavailable)),
                Verdict::Refused | Verdict::Missing => Some((3, Exit::NotPermitted)),
            });
            for found in signed_in.into_iter().chain(of_findings) {
                names.insert(name.as_str());
                worst = worst.filter(|(rank, _)| *rank >= found.0).or(Some(found));
            }
        }
        match worst {
            None => self.unusable.map_or(Ok(()), Err),
            Some((_, exit)) => {
                let names = Vec::from_iter(names).join(", ");
                Err(Failure::new(exit, format!("something is missing for: {names}")))
            }
        }
    }
}

/// What else an operator should know.
fn notes(tenant: &Tenant, looked: &Looked) -> Vec<String> {
    let mut notes = looked.troubles.clone();
    if let Some((theirs, ours)) = looked.clocks {
        let apart = theirs.since(ours).max(ours.since(theirs));
        if apart > APART {
            let seconds = apart.as_secs();
            notes.push(format!("this machine's clock and the sign-in server's are {seconds} s apart; set it right"));
        }
    }
    let missing = looked.findings.iter().any(|found| found.verdict == Verdict::Missing);
    if missing && matches!(tenant.auth, Auth::ManagedIdentity { .. }) {
        notes.push(
            "Azure keeps a managed identity's token for up to a day: what was granted since is not in it".to_owned(),
        );
    }
    notes
}

fn signed_in(tenant: &Tenant, looked: &Looked) -> String {
    let method = tenant.auth.method();
    match &looked.signed_in {
        Err(error) => format!("the sign-in with {method} failed: {error}"),
        Ok(claims) => {
            let named = |claims: &Claims| {
                let name = claims.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
                claims.application.as_ref().map(|id| format!(" as {id}{name}"))
            };
            let who = claims.as_ref().and_then(named).unwrap_or_default();
            let until = match (&tenant.auth, tenant.auth.expires()) {
                (_, Some(end)) => format!(", good until {end}"),
                (Auth::ClientSecret { .. }, None) => {
                    "; when the secret ends Entra alone knows (tell it in secret_expires)".to_owned()
                }
                _ => String::new(),
            };
            format!("signed in with {method}{who}{until}")
        }
    }
}

/// Which permissions will do. Of many the least is enough to read; --json has all.
fn any_of(roles: &[&str]) -> String {
    match roles {
        [least, others @ ..] if others.len() > 1 => format!("{least}, or one of {} others", others.len()),
        few => few.join(" or "),
    }
}

/// What to do, each once, with all that is lost without it.
fn remedies(findings: &[Finding]) -> Vec<(String, String)> {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for found in findings {
        let Some(remedy) = &found.remedy else { continue };
        match told.iter_mut().find(|(known, _)| known == remedy) {
            Some((_, without)) => without.push(found.need.without),
            None => told.push((remedy.clone(), vec![found.need.without])),
        }
    }
    told.into_iter().map(|(remedy, without)| (remedy, without.join("; "))).collect()
}

fn feature(found: &Finding) -> Value {
    json!({
        "call": found.need.call.as_str(),
        "feature": found.need.feature,
        "any_of": found.need.any_of,
        "verdict": found.verdict.as_str(),
        "because": found.because,
        "remedy": found.remedy,
        "without": found.need.without,
    })
}

/// Hosts and ports that calls and sign-ins of a tenant go to.
fn hosts(tenant: &Tenant) -> Vec<String> {
    let host = |text: &String| {
        let url = url::Url::parse(text).ok()?;
        Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
    };
    let hosts: BTreeSet<_> = [&tenant.api_url, &tenant.authority_url].into_iter().filter_map(host).collect();
    hosts.into_iter().collect()
}
