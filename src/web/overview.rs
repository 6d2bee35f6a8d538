//! What the dashboard shows beyond the status: calls by the minute, the queue over time, and what did not
//! succeed lately, with the words that came with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Shown;
use super::burndown::Point;
use super::report::{Now, Report};
use crate::domain::job::State;
use crate::domain::ledger::CallKind;
use crate::store::lists::{AttemptLine, JobLine, Wanted};
use crate::store::recent::Ended;
use crate::store::{StoreError, View};

/// How far back it is told what did not succeed.
pub const LATELY: Duration = Duration::from_hours(7 * 24);
/// The latest message is looked up for so many kinds of ending of a tenant; those with more jobs first.
const MESSAGES: usize = 12;
/// Longer messages are cut; characters.
const MESSAGE: usize = 300;
/// Of more sweeps than these, the number is told.
const SWEEPS: usize = 200;

/// What did not succeed, and is not still under way.
const NOT_SUCCEEDED: [State; 6] =
    [State::Failed, State::TimedOut, State::Rejected, State::NeedsReview, State::Cancelled, State::Skipped];

/// What a machine did not come out of well; what was skipped or withdrawn is none of it.
const FAILED: [State; 4] = [State::Failed, State::TimedOut, State::Rejected, State::NeedsReview];

/// Everything on the page.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// As `status --json`; of many sweeps the first.
    #[serde(flatten)]
    pub report: Report,
    /// Sweeps that are not among them.
    pub more_sweeps: usize,
    /// By tenant.
    pub detail: BTreeMap<String, Detail>,
}

/// What is shown of a tenant beyond its status.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Detail {
    /// Machines that wait to be sent, or are being sent; those of held sweeps are not among them.
    pub unsent: u64,
    /// Scan calls in each of the last 120 minutes; the last is the running one.
    pub calls: Vec<u32>,
    /// How long the queue was: milliseconds since 1970, machines.
    pub queue: Vec<Point>,
    /// What did not succeed in the last seven days.
    pub failures: Vec<Failure>,
}

/// Jobs that ended alike.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are those of `job list --json`")]
pub struct Failure {
    pub state: &'static str,
    pub reason: Option<String>,
    pub jobs: u64,
    pub last_at: String,
    pub last_machine: Option<String>,
    /// What came with the last of them, in Defender's words where there are any.
    pub message: Option<String>,
}

/// Reads everything that is on the page.
pub async fn read(shown: &Shown, now: Now) -> Result<Overview, StoreError> {
    let mut report = shown.report().await?;
    // With it inside, nothing would ever stay the same: it is told in a header.
    report.at.clear();
    let view = &shown.view;
    let mut unsent: BTreeMap<_, _> = view.unsent_by_tenant().await?.into_iter().collect();
    let mut detail = BTreeMap::new();
    for tenant in view.tenants_status().await? {
        let calls = match tenant.budget {
            Some(budget) => view.calls_by_minute(budget, CallKind::Scan, now.boot).await?,
            None => Vec::new(),
        };
        let ended = view.ended_since(tenant.row, &NOT_SUCCEEDED, now.at - LATELY).await?;
        let mut failures = Vec::new();
        for (n, ended) in ended.into_iter().enumerate() {
            let last = if n < MESSAGES { job_of(view, ended.last_job).await? } else { None };
            failures.push(failure(ended, last));
        }
        let unsent = unsent.remove(&tenant.name).unwrap_or_default();
        let name = tenant.name.to_string();
        let queue = shown.burndown.of(&name);
        detail.insert(name, Detail { unsent, calls, queue, failures });
    }
    let more_sweeps = report.sweeps.len().saturating_sub(SWEEPS);
    report.sweeps.truncate(SWEEPS);
    Ok(Overview { report, more_sweeps, detail })
}

/// A job that failed, and why, in Defender's words where there are any.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are those of `job list --json`")]
pub struct LastFailure {
    pub at: String,
    pub tenant: String,
    pub machine_id: String,
    pub name: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

/// What failed last and within [`LATELY`], newest first, `most` at most.
pub async fn last_failures(view: &View, now: Now, most: usize) -> Result<Vec<LastFailure>, StoreError> {
    let mut last = Vec::new();
    for tenant in view.tenants_status().await? {
        for state in FAILED {
            if tenant.jobs.get(&state).is_some_and(|n| *n > 0) {
                last.extend(view.last_ended(tenant.row, state, now.at - LATELY, most).await?);
            }
        }
    }
    last.sort_unstable_by_key(|ended| std::cmp::Reverse(*ended));
    last.truncate(most);
    let mut failures = Vec::new();
    for (at, job) in last {
        let Some((job, attempt)) = job_of(view, job).await? else { continue };
        let message = message(&job, attempt.as_ref());
        let JobLine { tenant, machine_id, name, state, reason, .. } = job;
        failures.push(LastFailure { at: at.rfc3339(), tenant, machine_id, name, state, reason, message });
    }
    Ok(failures)
}

/// A job and its last attempt.
async fn job_of(view: &View, job: i64) -> Result<Option<(JobLine, Option<AttemptLine>)>, StoreError> {
    let mut last = None;
    let wanted = Wanted { id: Some(job.to_string()), ..Wanted::default() };
    let listed = view.jobs(&wanted, |job| {
        last = Some(job);
        Ok(())
    });
    // Whoever only keeps a row reports no error of its own.
    if listed.await?.is_err() {
        return Ok(None);
    }
    match last {
        None => Ok(None),
        Some(job) => {
            let id = job.id;
            Ok(Some((job, view.attempts_of(id).await?.pop())))
        }
    }
}

fn failure(ended: Ended, last: Option<(JobLine, Option<AttemptLine>)>) -> Failure {
    let message = last.as_ref().and_then(|(job, attempt)| message(job, attempt.as_ref()));
    Failure {
        state: ended.state.as_str(),
        reason: ended.reason,
        jobs: ended.jobs,
        last_at: ended.last_at.rfc3339(),
        last_machine: last.map(|(job, _)| job.machine_id),
        message,
    }
}

/// What there is to say of a job that did not succeed: what its action said, what stood in its way, or what its last
/// call was answered.
fn message(job: &JobLine, attempt: Option<&AttemptLine>) -> Option<String> {
    if let Some(told) = job.error.as_ref().or(job.detail.as_ref()) {
        return Some(told.clone());
    }
    if let Some(blocked) = &job.blocked_by {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let what = format!("{} {}", part(&blocked.r#type), part(&blocked.scope));
        let whose = blocked.requestor.as_ref().map(|whose| format!(", asked for by {whose}")).unwrap_or_default();
        return Some(format!("{} is pending: {}{whose}", what.trim(), blocked.action_id));
    }
    let attempt = attempt?;
    let answer = attempt.answer.as_deref().map(words).unwrap_or_default();
    let status = attempt.http_status.map(|status| format!("HTTP {status}"));
    let told = [status, (!answer.is_empty()).then_some(answer)].into_iter().flatten().collect::<Vec<_>>().join(": ");
    (!told.is_empty()).then_some(told)
}

/// The words of an answer: of Defender's error its message, else the beginning of what there is.
fn words(answer: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(answer).ok();
    let said = parsed.as_ref().and_then(|error| error.pointer("/error/message")?.as_str()).unwrap_or(answer);
    let plain: Vec<_> = said.split_whitespace().collect();
    cut(&plain.join(" "), MESSAGE)
}

/// The text, or its beginning with an ellipsis.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_the_words_are_shown_and_no_more_than_fit() {
        let said = r#"{"error":{"code":"X","message":"Action is already\n in progress"}}"#;
        assert_eq!(words(said), "Action is already in progress");
        assert_eq!(words("<html>\n  <b>Proxy</b>"), "<html> <b>Proxy</b>");
        assert_eq!(words(&"ä".repeat(400)), format!("{}…", "ä".repeat(MESSAGE)));
    }
}
