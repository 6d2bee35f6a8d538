//! When a sweep's last machine is final, its results go back to where its file came from.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::config::Config;
use crate::domain::trouble::Trouble;
use crate::intake::folder::Folder;
use crate::intake::results::{ResultRow, Summary, write};
use crate::store::Store;
use crate::store::lists::Wanted;
use crate::store::status::SweepStatus;
use crate::store::sweeps::SweepRow;

/// Looked at so often whatever was noticed.
const LOOK: Duration = Duration::from_secs(30);

pub struct Results {
    shared: Shared,
    folder: Folder,
}

impl Results {
    pub fn new(shared: Shared, config: &Config) -> Self {
        let tenants: Vec<_> = config.tenants.keys().chain(config.disabled.keys()).cloned().collect();
        Self { shared, folder: Folder::new(&config.daemon.spool_dir, &tenants) }
    }

    async fn write_all(&self) -> anyhow::Result<()> {
        for sweep in self.shared.store.sweeps_to_report().await? {
            self.shared.health.beat("results");
            let written = self.write(&sweep).await;
            let (health, tenant) = (&self.shared.health, sweep.tenant.as_str());
            match written {
                Ok(()) => {
                    if let Some(told) = health.over(Trouble::Results, tenant) {
                        tracing::info!(tenant, times = told.times, "results can be written again{told}");
                    }
                }
                // The others' results are written meanwhile.
                Err(error) => {
                    if let Some(told) = health.met(Trouble::Results, tenant) {
                        let (folder, why) = (self.folder.results(&sweep.tenant), format!("{error:#}"));
                        tracing::error!(tenant, sweep = %sweep.id, folder = %folder.display(), why, times = told.times, "results cannot be written; tried again{told}");
                    }
                }
            }
        }
        Ok(())
    }

    async fn write(&self, sweep: &SweepStatus) -> anyhow::Result<()> {
        let rows = rows_of(&self.shared.store, sweep.n).await?;
        let mut states = BTreeMap::new();
        for row in &rows {
            *states.entry(row.state.clone()).or_insert(0) += 1;
        }
        let summary = Summary {
            sweep_id: sweep.id.to_string(),
            name: sweep.name.clone(),
            tenant: sweep.tenant.to_string(),
            machines: rows.len(),
            states,
        };
        let folder = self.folder.results(&sweep.tenant);
        let totals = serde_json::to_string(&summary.states)?;
        tokio::task::spawn_blocking(move || write(&folder, &summary, &rows)).await??;
        self.shared.store.sweep_reported(sweep.n).await?;
        tracing::info!(tenant = %sweep.tenant, sweep = %sweep.id, name = sweep.name, totals, "sweep finished; its results are written");
        Ok(())
    }
}

/// The machines of a sweep as they stand: those with a job, then those that were left out.
pub async fn rows_of(store: &Store, sweep: SweepRow) -> anyhow::Result<Vec<ResultRow>> {
    let mut rows = Vec::new();
    let wanted = Wanted { sweep: Some(sweep), ..Wanted::default() };
    store
        .jobs(&wanted, |job| {
            let (blocking, requestor) = match job.blocked_by {
                Some(blocking) => (Some(blocking.action_id), blocking.requestor),
                None => (None, None),
            };
            rows.push(ResultRow {
                machine_id: job.machine_id,
                name: job.name,
                state: job.state,
                reason: job.reason,
                detail: job.detail.or(job.error),
                scan_type: Some(job.scan_type),
                action_id: job.action_id,
                blocking_action_id: blocking,
                requestor,
                attempts: job.attempts,
                created_at: Some(job.created_at),
                finished_at: job.finished_at,
            });
            Ok(())
        })
        .await??;
    rows.extend(store.left_out(sweep).await?.into_iter().map(|left| ResultRow {
        machine_id: left.machine.to_string(),
        name: left.name,
        state: "skipped".to_owned(),
        reason: Some("not_eligible".to_owned()),
        detail: Some(left.reason),
        scan_type: None,
        action_id: None,
        blocking_action_id: None,
        requestor: None,
        attempts: 0,
        created_at: None,
        finished_at: None,
    }));
    Ok(rows)
}

pub async fn run(results: Results, stop: CancellationToken) {
    let shared = results.shared.clone();
    while !stop.is_cancelled() {
        shared.health.beat("results");
        if let Err(error) = results.write_all().await
            && let Some(told) = shared.health.met(Trouble::Database, "")
        {
            let why = format!("{error:#}");
            tracing::error!(why, times = told.times, "finished sweeps cannot be read; tried again{told}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = shared.signals.finished.notified() => {}
            () = shared.clock.sleep_until(shared.clock.boot() + LOOK) => {}
        }
    }
    shared.health.ended("results");
}
