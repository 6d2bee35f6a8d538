//! TX1: one transaction takes a job, a slot of the budget, and writes the attempt and its event.
//! Only then may a byte of the call leave.

use sqlx::SqliteConnection;
use std::time::Duration;

use super::events::{self, Kind, Subject};
use super::jobs::{self, Job, With};
use super::slots::{self, BudgetRow, Stamp};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, actions, attempts, ineligible, marks};
use crate::domain::eligibility::{Inactive, Rules, Verdict, judge};
use crate::domain::id::{AttemptId, SlotId};
use crate::domain::job::{Event, Reason};
use crate::domain::ledger::{Admission, CallKind, Limits};
use crate::domain::time::{Boot, Wall};

/// What a lane asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose job.
    pub tenant: TenantRow,
    /// Whose budget.
    pub budget: BudgetRow,
    /// Who asks, and when.
    pub stamp: Stamp,
    /// What the budget allows.
    pub limits: Limits,
    /// What decides before a call is spent.
    pub rules: Rules,
    /// How long a job waits until it rises a step of priority; zero: it never does.
    pub rise_after: Duration,
    /// The id of the attempt, should there be one.
    pub attempt: AttemptId,
    /// Whether this call probes a lane that stands: it does not count against its job.
    pub probe: bool,
    /// Whether the tenant's list cannot be read now: what is kept as pending may have ended long ago,
    /// and Defender's answer decides.
    pub blind: bool,
    /// Whether marks that this database did not write hold the lane.
    pub minds_marks: bool,
    /// When the last look at the tenant's list began.
    pub looked: Boot,
}

/// The right to make one call.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The attempt that was written down.
    pub attempt: AttemptId,
    /// Its slot.
    pub slot: SlotId,
    /// Its job, already `sending`.
    pub job: Job,
    /// Whether it is a probe, which does not count.
    pub probe: bool,
    /// Whether an earlier call for this job was refused or lost while others were understood.
    pub suspect: bool,
}

/// What came of asking.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// Make this call.
    Call(Box<Claim>),
    /// The budget says not yet.
    Wait(Admission),
    /// Nothing is ready.
    Nothing,
    /// Many jobs were decided without a call; ask again.
    More,
    /// An operator has paused the tenant, or has to say first what becomes of unknown marks.
    Paused,
}

/// Jobs that one transaction decides without a call, so that it never holds the writer for long.
const DECIDE_AT_MOST: usize = 200;

/// How long a job waits for the other scan type of the same machine to get its answer.
const SIBLING: Duration = Duration::from_secs(5);

/// How long a job that was refused waits for a look at the list, should there have been none since.
const UNLOOKED: Duration = Duration::from_secs(5);

/// How long at most before a job that waits for an action looks again, should the feed have missed
/// its end.
pub(crate) const BLOCKED: Duration = Duration::from_mins(15);

/// How long before a job whose machine is inactive looks whether it still is.
const INACTIVE: Duration = Duration::from_hours(1);

impl Store {
    /// Takes the next job, if there is one, the budget admits it and nothing is in its way.
    pub async fn claim(&self, ask: Ask) -> Result<Claimed, StoreError> {
        self.write(move |connection| Box::pin(async move { claim(connection, ask).await })).await
    }
}

pub(crate) async fn claim(connection: &mut SqliteConnection, ask: Ask) -> Result<Claimed, StoreError> {
    let paused: bool = sqlx::query_scalar("SELECT paused_at IS NOT NULL FROM tenants WHERE id = ?")
        .bind(ask.tenant)
        .fetch_one(&mut *connection)
        .await
        .doing("read a tenant's pause")?;
    if paused || ask.minds_marks && marks::any(connection, ask.tenant).await? {
        return Ok(Claimed::Paused);
    }
    let admission = slots::may_take(connection, ask.budget, CallKind::Scan, ask.limits, ask.stamp.boot).await?;
    for _ in 0..DECIDE_AT_MOST {
        let next = if ask.probe {
            jobs::next_probe(connection, ask.tenant).await?
        } else {
            jobs::next_ready(connection, ask.tenant, ask.rise_after, ask.stamp.at).await?
        };
        let Some(job) = next else { return Ok(Claimed::Nothing) };
        if let Some((event, with)) = in_the_way(connection, &ask, &job).await? {
            jobs::apply(connection, &job, event, with, ask.stamp.at).await?;
            continue;
        }
        if admission != Admission::Open {
            return Ok(Claimed::Wait(admission));
        }
        let suspect = attempts::is_its_own_trouble(connection, &job).await?;
        return write_attempt(connection, &ask, job, suspect).await.map(|claim| Claimed::Call(Box::new(claim)));
    }
    Ok(Claimed::More)
}

/// What keeps the job from being sent, by what is already known.
async fn in_the_way(
    connection: &mut SqliteConnection,
    ask: &Ask,
    job: &Job,
) -> Result<Option<(Event, With)>, StoreError> {
    let sibling: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM open_jobs JOIN jobs ON jobs.id = open_jobs.job_id
                        WHERE open_jobs.tenant_id = ? AND open_jobs.machine = ? AND jobs.state = 'sending')",
    )
    .bind(ask.tenant)
    .bind(job.machine.bytes().to_vec())
    .fetch_one(&mut *connection)
    .await
    .doing("look for the machine's other job")?;
    if sibling {
        let with = With { parked_until: Some(ask.stamp.at + SIBLING), ..With::default() };
        return Ok(Some((Event::Parked, with)));
    }
    if !ask.blind && attempts::was_refused_since(connection, job.id, &ask.stamp.boot_id, ask.looked).await? {
        let with = With { parked_until: Some(ask.stamp.at + UNLOOKED), ..With::default() };
        return Ok(Some((Event::Parked, with)));
    }
    if ask.rules.inactive != Inactive::Send
        && let Some(why) = ineligible::why(connection, ask.tenant, job.machine).await?
        && let Some(done) = ask.rules.of_ineligible(why)
    {
        if done == Inactive::Wait {
            let with = With { parked_until: Some(ask.stamp.at + INACTIVE), ..With::default() };
            return Ok(Some((Event::Parked, with)));
        }
        let with = With { reason: Some(Reason::NotEligible), detail: Some(why.told().to_owned()), ..With::default() };
        return Ok(Some((Event::Skipped, with)));
    }
    let mut known = actions::known(connection, ask.tenant, job.machine).await?;
    known.retain(|action| !ask.blind || !action.status.is_open());
    Ok(verdict(&ask.rules, job, &known, ask.stamp.at))
}

/// The move that follows from what is known of a machine's actions; none when it may be sent.
pub(crate) fn verdict(
    rules: &Rules,
    job: &Job,
    known: &[crate::domain::action::Action],
    at: Wall,
) -> Option<(Event, With)> {
    match judge(rules, job.scan, job.on_pending, known) {
        Verdict::Send => None,
        Verdict::SkipPending(action) => Some((
            Event::Skipped,
            With { reason: Some(Reason::PendingAction), blocked_by: Some(action), ..With::default() },
        )),
        Verdict::SkipRecent(action) => Some((
            Event::Skipped,
            With { reason: Some(Reason::RecentlyScanned), blocked_by: Some(action), ..With::default() },
        )),
        Verdict::WaitFor(action) => Some((
            Event::Parked,
            With { blocked_by: Some(action), parked_until: Some(at + BLOCKED), ..With::default() },
        )),
    }
}

async fn write_attempt(
    connection: &mut SqliteConnection,
    ask: &Ask,
    mut job: Job,
    suspect: bool,
) -> Result<Claim, StoreError> {
    // What only this machine meets is not excused by a lane that it holds up.
    let probe = ask.probe && !suspect;
    let slot = slots::take(connection, ask.budget, CallKind::Scan, &ask.stamp).await?;
    let with = With { attempts: i64::from(!probe), ..With::default() };
    job.state = jobs::apply(connection, &job, Event::AttemptWritten, with, ask.stamp.at).await?;
    job.attempts += u32::from(!probe);
    sqlx::query(
        "INSERT INTO attempts (id, job_id, tenant_id, machine, slot_id, epoch, probe, taken_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(ask.attempt.to_string())
    .bind(job.id.0)
    .bind(ask.tenant)
    .bind(job.machine.bytes().to_vec())
    .bind(slot.0)
    .bind(ask.stamp.epoch.0)
    .bind(probe)
    .bind(ask.stamp.at.0)
    .execute(&mut *connection)
    .await
    .doing("write an attempt down")?;
    let body = serde_json::json!({
        "attempt": ask.attempt.to_string(), "slot": slot.0, "scan_type": job.scan.as_str(), "probe": probe,
    });
    let subject = Subject { tenant: Some(ask.tenant), job: Some(job.id), machine: Some(job.machine) };
    events::append(connection, ask.stamp.at, Kind::AttemptWritten, subject, &body).await?;
    Ok(Claim { attempt: ask.attempt, slot, job, probe, suspect })
}
