//! When a sweep's last machine is final, its results go back to where its file came from.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::shown::ShownPath;
use crate::domain::trouble::Trouble;
use crate::engine::Shared;
use crate::intake::folder::Folder;
use crate::intake::results::{ResultRow, Summary, Written, write_csv, write_json};
use crate::store::lists::{JobLine, LeftOutLine};
use crate::store::status::SweepStatus;
use crate::store::sweeps::SweepRow;
use crate::store::{Store, StoreError};

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
                        tracing::error!(tenant, sweep = %sweep.id, folder = %ShownPath::new(&folder), why, times = told.times, "results cannot be written; tried again{told}");
                    }
                }
            }
        }
        Ok(())
    }

    async fn write(&self, sweep: &SweepStatus) -> anyhow::Result<()> {
        let folder = self.folder.results(&sweep.tenant);
        let id = sweep.id.to_string();
        let csv = {
            let (folder, id) = (folder.clone(), id.clone());
            self.with_rows(sweep.n, move |rows| write_csv(&folder, &id, rows)).await?
        };
        let summary = Summary {
            sweep_id: id,
            name: sweep.name.clone(),
            tenant: sweep.tenant.to_string(),
            machines: csv.states.values().sum(),
            states: csv.states.clone(),
        };
        let totals = serde_json::to_string(&summary.states)?;
        let json = self.with_rows(sweep.n, move |rows| write_json(&folder, &summary, rows)).await?;
        anyhow::ensure!(csv.states == json.states, "the sweep's machines moved while its results were written");
        tokio::task::spawn_blocking(move || csv.file.reveal().and_then(|()| json.file.reveal())).await??;
        self.shared.store.sweep_reported(sweep.n).await?;
        tracing::info!(tenant = %sweep.tenant, sweep = %sweep.id, name = sweep.name, totals, "sweep finished; its results are written");
        Ok(())
    }

    /// Hands the rows of a sweep to `write` on a thread of its own, a page or two at a time: a sweep may have a
    /// million.
    async fn with_rows(
        &self,
        sweep: SweepRow,
        write: impl FnOnce(&mut dyn Iterator<Item = io::Result<Vec<ResultRow>>>) -> io::Result<Written> + Send + 'static,
    ) -> anyhow::Result<Written> {
        let (send, pages) = mpsc::channel(1);
        let mut pages = Pages { pages, ended: false };
        let writing = tokio::task::spawn_blocking(move || write(&mut pages));
        let mut rows = Rows::of(&self.shared.store, sweep);
        loop {
            let page = rows.next().await?;
            let is_last = page.is_empty();
            // Whoever writes has given up when nobody listens, and says why.
            if send.send(page).await.is_err() || is_last {
                break;
            }
            self.shared.health.beat("results");
        }
        drop(send);
        Ok(writing.await??)
    }
}

/// Pages as they are read. The last is empty: without it, the reading broke off.
struct Pages {
    pages: mpsc::Receiver<Vec<ResultRow>>,
    ended: bool,
}

impl Iterator for Pages {
    type Item = io::Result<Vec<ResultRow>>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        match self.pages.blocking_recv() {
            None => Some(Err(io::Error::other("the reading of the sweep's machines broke off"))),
            Some(page) if page.is_empty() => None,
            Some(page) => {
                self.ended = false;
                Some(Ok(page))
            }
        }
    }
}

/// Rows in a page.
const PAGE: u32 = 1000;

/// The machines of a sweep as they stand, a page at a time: those with a job, then those that were left out.
pub struct Rows<'a> {
    store: &'a Store,
    sweep: SweepRow,
    /// The last job of the last page; none once all had their turn.
    job: Option<i64>,
    /// The same for the last line that was left out.
    line: i64,
}

impl<'a> Rows<'a> {
    /// All of them, from the first.
    pub const fn of(store: &'a Store, sweep: SweepRow) -> Self {
        Self { store, sweep, job: Some(0), line: 0 }
    }

    /// The next page; an empty one at the end.
    pub async fn next(&mut self) -> Result<Vec<ResultRow>, StoreError> {
        if let Some(after) = self.job {
            let page = self.store.jobs_of_sweep(self.sweep, after, PAGE).await?;
            self.job = page.last().map(|job| job.id);
            if self.job.is_some() {
                return Ok(page.into_iter().map(row_of).collect());
            }
        }
        let page = self.store.left_out(self.sweep, self.line, PAGE).await?;
        self.line = page.last().map_or(self.line, |left| left.line);
        Ok(page.into_iter().map(left_out_row).collect())
    }
}

fn row_of(job: JobLine) -> ResultRow {
    let (blocking, requestor) = match job.blocked_by {
        Some(blocking) => (Some(blocking.action_id), blocking.requestor),
        None => (None, job.requestor),
    };
    ResultRow {
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
    }
}

fn left_out_row(left: LeftOutLine) -> ResultRow {
    ResultRow {
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
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_whose_reading_broke_off_are_not_all_of_them() {
        let pages = |last: Option<Vec<ResultRow>>| {
            let (send, pages) = mpsc::channel(1);
            if let Some(last) = last {
                send.try_send(last).unwrap();
            }
            drop(send);
            tokio::task::spawn_blocking(|| Pages { pages, ended: false }.collect::<Vec<_>>())
        };
        assert!(pages(Some(Vec::new())).await.unwrap().is_empty(), "an empty page is the end");
        let broken = pages(None).await.unwrap();
        assert!(broken.len() == 1 && broken[0].is_err(), "{broken:?}");
    }
}
