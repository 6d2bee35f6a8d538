//! TX2: one transaction takes the answer: outcome, settled slot, the job's next state, the event.
//!
//! It is guarded by attempt, incarnation and state: it touches exactly the one attempt that is on
//! the wire, or nothing.

use std::num::NonZeroU32;
use std::time::Duration;

use sqlx::SqliteConnection;

use super::actions;
use super::claims::{BLOCKED, verdict};
use super::events::{self, Kind, Subject};
use super::jobs::{self, Job, With};
use super::slots;
use super::tenants::{self, Held, TenantRow};
use super::throttles::{self, SilenceNote};
use super::{Doing, Store, StoreError, attempts};
use crate::domain::action::{Action, SCAN, Seen};
use crate::domain::eligibility::Rules;
use crate::domain::id::{AttemptId, Epoch, JobId, SlotId};
use crate::domain::job::{Event, Reason, State};
use crate::domain::lookup::{Known, Question, next_look};
use crate::domain::outcome::{Outcome, OutcomeWord};
use crate::domain::retry::{AfterRefusal, after_refusal, pause, pause_uncounted};
use crate::domain::silence::Change;
use crate::domain::sweep::OnPending;
use crate::domain::time::{Boot, Wall};

/// The rules by which a settled call moves its job.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What makes a machine busy.
    pub rules: Rules,
    /// Attempts that count, at most.
    pub max_attempts: NonZeroU32,
    /// How long a lost call is looked for.
    pub lookup_horizon: Duration,
    /// How long a call that was given up may still arrive.
    pub unknown_grace: Duration,
}

/// A call that has come to its end, as far as we are concerned.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Whose.
    pub tenant: TenantRow,
    /// Which incarnation sent it.
    pub epoch: Epoch,
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its slot.
    pub slot: SlotId,
    /// Its job.
    pub job: JobId,
    /// Whether it was a probe, which does not count.
    pub probe: bool,
    /// What the answer means.
    pub outcome: Outcome,
    /// The HTTP status, if there was one.
    pub http_status: Option<u16>,
    /// The answer as it came, capped; or why there was none.
    pub answer: String,
    /// Code and message of the answer, as they may be shown.
    pub said: Option<String>,
    /// The action in the answer, verbatim.
    pub raw: Option<String>,
    /// What it changed about the silence of scans.
    pub silence: Option<SilenceNote>,
    /// What holds the lane because of this answer.
    pub held: Option<Held>,
    /// How long the lane had stood that this answer lets go on.
    pub resumed: Option<Duration>,
    /// When, by both clocks.
    pub at: Wall,
    /// See `at`.
    pub boot: Boot,
}

impl Store {
    /// Takes in the end of a call.
    pub async fn settle(&self, settlement: Settlement, policy: Policy) -> Result<State, StoreError> {
        self.write(move |connection| Box::pin(async move { settle(connection, &settlement, &policy).await })).await
    }

    /// Settles the slot of a call that is not a scan, and records the call, with what it changed about
    /// the silence of its kind.
    pub async fn settle_read(
        &self,
        tenant: TenantRow,
        slot: SlotId,
        settles: Boot,
        at: Wall,
        body: serde_json::Value,
        silence: SilenceNote,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                slots::settle(connection, slot, settles).await?;
                throttles::note_silence(connection, &silence).await?;
                events::append(connection, at, Kind::CallMade, Subject::tenant(tenant), &body).await
            })
        })
        .await
    }
}

async fn settle(connection: &mut SqliteConnection, s: &Settlement, policy: &Policy) -> Result<State, StoreError> {
    let lost = s.outcome == Outcome::Unknown;
    let question = match &s.outcome {
        Outcome::Unknown => Some(Question::Effect),
        Outcome::Busy(None) => Some(Question::Blocker),
        Outcome::Missing => Some(Question::Machine),
        _ => None,
    };
    let next_look = question.map(|question| next_look(question, s.boot, 0, policy.lookup_horizon, s.boot));
    let touched = sqlx::query(
        "UPDATE attempts SET settled_at = ?1, outcome = ?2, http_status = ?3, answer = ?4, question = ?5,
             asked_boot = ?6, next_look_boot = ?7
         WHERE id = ?8 AND epoch = ?9 AND settled_at IS NULL",
    )
    .bind(s.at.0)
    .bind(s.outcome.word().as_str())
    .bind(s.http_status)
    .bind(&s.answer)
    .bind(question.map(Question::as_str))
    .bind(question.map(|_| s.boot.0))
    .bind(next_look.map(|at| at.0))
    .bind(s.attempt.to_string())
    .bind(s.epoch.0)
    .execute(&mut *connection)
    .await
    .doing("settle an attempt")?
    .rows_affected();
    if touched != 1 {
        return Err(StoreError::Guard(format!("attempt {} is not on the wire of epoch {}", s.attempt, s.epoch.0)));
    }
    slots::settle(connection, s.slot, if lost { s.boot + policy.unknown_grace } else { s.boot }).await?;
    if let Some(silence) = &s.silence {
        note_silence(connection, silence, s.at).await?;
    }
    if let Some(held) = &s.held {
        tenants::hold(connection, s.tenant, held, s.at, s.boot).await?;
    }
    if let Some(stood) = s.resumed {
        tenants::resume(connection, s.tenant, stood, s.at).await?;
    }
    let job = jobs::find(connection, s.job).await?;
    let body = serde_json::json!({
        "attempt": s.attempt.to_string(), "outcome": s.outcome.word().as_str(), "status": s.http_status, "answer": s.answer,
    });
    let subject = Subject { tenant: Some(s.tenant), job: Some(job.id), machine: Some(job.machine) };
    events::append(connection, s.at, Kind::AttemptAnswered, subject, &body).await?;
    match &s.outcome {
        Outcome::Created(action) => {
            // The answer to our own call is about our scan, whatever else it says.
            let action = Action { machine: Some(job.machine), action_type: SCAN.to_owned(), ..action.clone() };
            let seen = Seen { action, raw: s.raw.clone().unwrap_or_default() };
            actions::see(connection, s.tenant, &seen, s.at).await?;
        }
        Outcome::Busy(Some(action)) => busy(connection, s, policy, &job, action.clone()).await?,
        outcome => move_job(connection, s, policy, &job, outcome).await?,
    }
    Ok(jobs::find(connection, s.job).await?.state)
}

/// Notes what the answer changed about the silence, and records it for every tenant that keeps it: the end may
/// be met by another than the beginning.
async fn note_silence(connection: &mut SqliteConnection, note: &SilenceNote, at: Wall) -> Result<(), StoreError> {
    throttles::note_silence(connection, note).await?;
    if note.change == Change::None {
        return Ok(());
    }
    for tenant in slots::tenants_of(connection, note.budget).await? {
        match note.change {
            Change::None => {}
            Change::Began(silence) | Change::Prolonged(silence) => {
                let (until, _) = silence.noted();
                tenants::stopped(connection, tenant, "throttled", until.since(note.boot), at).await?;
            }
            Change::Over(stood) => tenants::went_on(connection, tenant, stood, at).await?,
        }
    }
    Ok(())
}

/// Moves a job by an outcome that brought no action.
async fn move_job(
    connection: &mut SqliteConnection,
    s: &Settlement,
    policy: &Policy,
    job: &Job,
    outcome: &Outcome,
) -> Result<(), StoreError> {
    // The feed may have shown our action before the answer came: then the job has moved on.
    if job.state != State::Sending {
        return found_already(connection, s, outcome).await;
    }
    let (event, with) = match outcome {
        Outcome::Refused(Reason::Refused) => refused(connection, s, policy, job).await?,
        // Such a reason says all that the words do.
        Outcome::Refused(reason) => (Event::Refused, With { reason: Some(*reason), ..With::default() }),
        Outcome::Throttled(_) | Outcome::NotSent => (Event::Returned, uncounted(s)),
        Outcome::Unauthorized => returned(connection, s, job).await?,
        Outcome::Forbidden(_) | Outcome::Malformed
            if s.probe || !attempts::is_its_own_trouble(connection, job).await? =>
        {
            returned(connection, s, job).await?
        }
        Outcome::Forbidden(_) | Outcome::Malformed if job.attempts >= policy.max_attempts.get() => {
            let (event, with) = exhausted();
            (event, With { detail: s.said.clone(), ..with })
        }
        Outcome::Forbidden(_) | Outcome::Malformed => {
            (Event::Returned, With { parked_until: Some(s.at + pause(job.attempts)), ..said(s) })
        }
        Outcome::Unknown | Outcome::Missing | Outcome::Busy(_) | Outcome::Created(_) => (Event::Lost, With::default()),
    };
    jobs::apply(connection, job, event, with, s.at).await.map(drop)
}

/// A move that keeps what Defender said.
fn said(s: &Settlement) -> With {
    With { detail: s.said.clone(), ..With::default() }
}

/// A move that does not count the attempt; a probe was not counted.
fn uncounted(s: &Settlement) -> With {
    With { attempts: -i64::from(!s.probe), ..With::default() }
}

/// Defender said no to this machine, in words: one more call is made after a while, and no other.
async fn refused(
    connection: &mut SqliteConnection,
    s: &Settlement,
    policy: &Policy,
    job: &Job,
) -> Result<(Event, With), StoreError> {
    let noes = [OutcomeWord::Refused, OutcomeWord::Forbidden];
    let before = attempts::ended_before(connection, job.id, s.attempt, &noes).await? > 0;
    Ok(match after_refusal(before, job.attempts, policy.max_attempts.get(), policy.lookup_horizon) {
        AfterRefusal::Final => (Event::Refused, With { reason: Some(Reason::Refused), ..said(s) }),
        AfterRefusal::Again(pause) => (Event::Returned, With { parked_until: Some(s.at + pause), ..said(s) }),
    })
}

/// The job goes back uncounted. What stops the lane, or probes it, needs no pause of the job's own.
async fn returned(connection: &mut SqliteConnection, s: &Settlement, job: &Job) -> Result<(Event, With), StoreError> {
    let alike = [OutcomeWord::Unauthorized, OutcomeWord::Forbidden, OutcomeWord::Malformed];
    let pause = if s.probe || s.held.is_some() {
        None
    } else {
        pause_uncounted(attempts::ended_before(connection, job.id, s.attempt, &alike).await?)
    };
    Ok((Event::Returned, With { parked_until: pause.map(|pause| s.at + pause), ..uncounted(s) }))
}

pub(crate) fn exhausted() -> (Event, With) {
    (Event::Exhausted, With { reason: Some(Reason::AttemptsExhausted), ..With::default() })
}

/// The action of this attempt is known: nothing has to be looked up.
async fn found_already(connection: &mut SqliteConnection, s: &Settlement, outcome: &Outcome) -> Result<(), StoreError> {
    if !matches!(outcome, Outcome::Unknown | Outcome::Missing | Outcome::Busy(None)) {
        return Ok(());
    }
    sqlx::query(
        "UPDATE attempts SET resolved = 'found', resolved_at = ?1
         WHERE id = ?2 AND EXISTS (SELECT 1 FROM actions JOIN attempts AS own ON own.id = ?2
                                   WHERE actions.tenant_id = own.tenant_id AND actions.machine = own.machine
                                     AND actions.attempt_id = ?2)",
    )
    .bind(s.at.0)
    .bind(s.attempt.to_string())
    .execute(connection)
    .await
    .doing("resolve an attempt")
    .map(drop)
}

/// The machine is busy with this action: maybe one of our own attempts, found by its mark.
async fn busy(
    connection: &mut SqliteConnection,
    s: &Settlement,
    policy: &Policy,
    job: &Job,
    action: Action,
) -> Result<(), StoreError> {
    let seen = Seen { action, raw: s.raw.clone().unwrap_or_default() };
    blocked(connection, s.attempt, policy, job, &seen, s.at).await
}

/// The move of a job whose machine is busy, by Defender's word, with an action that may have no
/// name, or no end that we shall see.
pub(crate) fn busy_with(job: &Job, action: Option<&Action>, at: Wall) -> (Event, With) {
    let blocked_by = action.map(|action| action.id.clone());
    match job.on_pending {
        OnPending::Skip => {
            (Event::Skipped, With { reason: Some(Reason::PendingAction), blocked_by, ..With::default() })
        }
        OnPending::Wait => {
            let until = at + BLOCKED;
            (Event::Parked, With { blocked_by, parked_until: Some(until), ..With::default() })
        }
    }
}

/// What takes an attempt back that was understood and had no effect: nothing for a probe, which
/// was not counted.
pub(crate) async fn take_back(connection: &mut SqliteConnection, attempt: AttemptId) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT probe - 1 FROM attempts WHERE id = ?")
        .bind(attempt.to_string())
        .fetch_one(connection)
        .await
        .doing("read an attempt")
}

/// Ends or parks a job whose machine is busy with `seen`; or accepts it, if that is its own action.
pub(crate) async fn blocked(
    connection: &mut SqliteConnection,
    attempt: AttemptId,
    policy: &Policy,
    job: &Job,
    seen: &Seen,
    at: Wall,
) -> Result<(), StoreError> {
    let action = actions::see(connection, job.tenant, seen, at).await?;
    let job = jobs::find(connection, job.id).await?;
    if job.state != State::Sending {
        return Ok(());
    }
    let judged = verdict(&policy.rules, &job, std::slice::from_ref(&action), at);
    // Defender says that it is in the way, though it has ended by now or is of a type that is not
    // configured to count: Defender's word decides.
    let (event, mut with) = judged.unwrap_or_else(|| busy_with(&job, Some(&action), at));
    // The call had no effect and was understood: it does not count against the job.
    with.attempts = take_back(connection, attempt).await?;
    jobs::apply(connection, &job, event, with, at).await.map(drop)
}

/// An open question about an attempt, due to be asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its job.
    pub job: JobId,
    /// Its machine.
    pub machine: crate::domain::id::MachineId,
    /// What is to be found out.
    pub question: Question,
    /// Since when, on this boot's clock.
    pub since: Boot,
    /// Looks made so far.
    pub looks: u32,
}

/// What a look has shown.
#[derive(Clone, Debug)]
pub enum Look {
    /// The actions of the machine, all of them.
    Read(Vec<Seen>),
    /// The tenant does not let us list actions.
    NotPermitted,
    /// What is known of the machine itself.
    Machine(Known),
}

pub(crate) async fn resolve(
    connection: &mut SqliteConnection,
    asked: &Asked,
    resolved: &'static str,
    tenant: TenantRow,
    at: Wall,
) -> Result<bool, StoreError> {
    let touched = sqlx::query("UPDATE attempts SET resolved = ?1, resolved_at = ?2 WHERE id = ?3 AND resolved IS NULL")
        .bind(resolved)
        .bind(at.0)
        .bind(asked.attempt.to_string())
        .execute(&mut *connection)
        .await
        .doing("resolve an attempt")?
        .rows_affected();
    if touched == 1 {
        let body = serde_json::json!({ "attempt": asked.attempt.to_string(), "resolved": resolved });
        let subject = Subject { tenant: Some(tenant), job: Some(asked.job), machine: Some(asked.machine) };
        events::append(connection, at, Kind::AttemptResolved, subject, &body).await?;
    }
    Ok(touched == 1)
}
