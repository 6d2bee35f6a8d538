//! The whole history of a machine, as the page shows it: jobs with their attempts, actions, and what stands on record.

use std::collections::VecDeque;

use serde::Serialize;

use super::overview::cut;
use crate::domain::id::MachineId;
use crate::store::events::Event;
use crate::store::lists::{ActionLine, AttemptLine, JobLine, Wanted};
use crate::store::{StoreError, View};

/// So many jobs, actions, attempts of a job and events of a tenant are shown, the last ones; `job show` has all.
const JOBS: usize = 50;
const ACTIONS: usize = 100;
const ATTEMPTS: usize = 20;
const EVENTS: u32 = 200;
/// Longer answers are cut; characters.
const ANSWER: usize = 1000;

/// A machine, newest first.
#[derive(Debug, Serialize)]
pub struct History {
    /// Its id, in lower case.
    pub machine_id: String,
    /// What the last list that named it called it.
    pub name: Option<String>,
    /// Its jobs.
    pub jobs: Vec<JobHistory>,
    /// What Defender was or is asked to do with it, by whomever.
    pub actions: Vec<ActionShown>,
    /// What stands on record of it.
    pub events: Vec<EventShown>,
    /// There is more than is shown here.
    pub cut: bool,
}

/// A job and its attempts.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names speak")]
pub struct JobHistory {
    #[serde(flatten)]
    pub job: JobLine,
    pub tries: Vec<AttemptLine>,
}

/// An action without what Defender sent verbatim.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names are those of `action list --json`")]
pub struct ActionShown {
    pub action_id: String,
    pub tenant: String,
    pub r#type: String,
    pub scope: Option<String>,
    pub status: String,
    pub error: Option<String>,
    pub origin: String,
    pub created_at: String,
    pub updated_at: String,
}

/// An event of the record, and whose.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names speak")]
pub struct EventShown {
    pub tenant: String,
    pub seq: i64,
    pub at: String,
    pub kind: String,
    pub body: String,
}

/// The last so many of what is streamed.
struct Last<T> {
    most: usize,
    kept: VecDeque<T>,
    cut: bool,
}

impl<T> Last<T> {
    const fn of(most: usize) -> Self {
        Self { most, kept: VecDeque::new(), cut: false }
    }

    fn push(&mut self, row: T) {
        self.kept.push_front(row);
        if self.kept.len() > self.most {
            self.kept.truncate(self.most);
            self.cut = true;
        }
    }
}

/// Everything that is known of a machine; empty if nothing is.
pub async fn read(view: &View, id: MachineId) -> Result<History, StoreError> {
    let wanted = Wanted { machine: Some(id), ..Wanted::default() };
    let mut jobs = Last::of(JOBS);
    let mut actions = Last::of(ACTIONS);
    // Keeping a row does not fail.
    drop(
        view.jobs(&wanted, |job| {
            jobs.push(job);
            Ok(())
        })
        .await?,
    );
    drop(
        view.actions(&wanted, |action| {
            actions.push(shown(action));
            Ok(())
        })
        .await?,
    );
    let mut cut = jobs.cut || actions.cut;
    let name = jobs.kept.iter().find_map(|job| job.name.clone());
    let mut histories = Vec::new();
    for job in jobs.kept {
        let mut tries = view.attempts_of(job.id).await?;
        let surplus = tries.len().saturating_sub(ATTEMPTS);
        cut |= surplus > 0;
        tries.drain(..surplus);
        for attempt in &mut tries {
            attempt.answer = attempt.answer.as_deref().map(short);
        }
        histories.push(JobHistory { job, tries });
    }
    let mut events = Vec::new();
    for tenant in view.tenants_status().await? {
        let told = view.events_of_machine(tenant.row, id, Some(EVENTS)).await?;
        cut |= told.len() >= EVENTS as usize;
        events.extend(told.into_iter().map(|event| told_of(tenant.name.as_str(), event)));
    }
    events.sort_by_key(|event| std::cmp::Reverse(event.seq));
    Ok(History { machine_id: id.to_string(), name, jobs: histories, actions: actions.kept.into(), events, cut })
}

fn short(text: &str) -> String {
    cut(text, ANSWER)
}

fn shown(action: ActionLine) -> ActionShown {
    let ActionLine { action_id, tenant, r#type, scope, status, error, created_at, updated_at, origin, .. } = action;
    ActionShown { action_id, tenant, r#type, scope, status, error, origin, created_at, updated_at }
}

fn told_of(tenant: &str, event: Event) -> EventShown {
    let Event { seq, at, kind, body } = event;
    EventShown { tenant: tenant.to_owned(), seq, at, kind, body: short(&body.to_string()) }
}
