//! Attempts whose outcome is unknown: what is to be looked up, and what a look decides.

use sqlx::{Row, SqliteConnection};
use std::time::Duration;

use super::claims::BLOCKED;
use super::jobs::{self, Job, With};
use super::settle::{Asked, Look, Policy, blocked, busy_with, exhausted, resolve, take_back};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, View, actions};
use crate::domain::action::Seen;
use crate::domain::id::{AttemptId, JobId};
use crate::domain::job::{Event, Reason, State};
use crate::domain::lookup::{AfterMissing, Known, Question, after_missing, next_look, proves_absence};
use crate::domain::outcome::OutcomeWord;
use crate::domain::time::{Boot, BootId, Wall};

/// A look that was made.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Whose.
    pub tenant: TenantRow,
    /// Which question it was to answer.
    pub asked: Asked,
    /// When it began.
    pub began: Boot,
    /// When its answer was read, by both clocks.
    pub at: Wall,
    /// See `at`.
    pub boot: Boot,
    /// What it has shown.
    pub look: Look,
}

fn asked_of(row: &sqlx::sqlite::SqliteRow) -> Result<Asked, sqlx::Error> {
    Ok(Asked {
        attempt: jobs::word(row, "id")?,
        job: JobId(row.try_get("job_id")?),
        machine: jobs::machine_of(row.try_get("machine")?)?,
        question: jobs::word(row, "question")?,
        since: Boot(row.try_get("asked_boot")?),
        looks: row.try_get("looks")?,
    })
}

impl View {
    /// The open question that is due first, and when.
    pub async fn next_question(&self, tenant: TenantRow) -> Result<Option<(Asked, Boot)>, StoreError> {
        let row = sqlx::query(
            "SELECT id, job_id, machine, question, asked_boot, looks, next_look_boot FROM attempts
             WHERE tenant_id = ? AND question IS NOT NULL AND resolved IS NULL ORDER BY next_look_boot LIMIT 1",
        )
        .bind(tenant)
        .fetch_optional(&mut *self.reader().await?)
        .await
        .doing("find the next question")?;
        row.as_ref()
            .map(|row| Ok((asked_of(row)?, Boot(row.try_get("next_look_boot")?))))
            .transpose()
            .doing("read a question")
    }

    /// How many attempts are being looked up.
    pub async fn questions(&self, tenant: TenantRow) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM attempts WHERE tenant_id = ? AND question IS NOT NULL AND resolved IS NULL",
        )
        .bind(tenant)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("count questions")?;
        Ok(u64::try_from(n).unwrap_or(0))
    }
}

impl Store {
    /// Looks later: this look could not be made.
    pub async fn postpone_look(&self, asked: &Asked, until: Boot) -> Result<(), StoreError> {
        let id = asked.attempt.to_string();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE attempts SET next_look_boot = ? WHERE id = ?")
                    .bind(until.0)
                    .bind(id)
                    .execute(connection)
                    .await
                    .doing("postpone a look")
                    .map(drop)
            })
        })
        .await
    }

    /// Takes in a look, and decides what it decides.
    pub async fn take_look(&self, looked: Looked, policy: Policy) -> Result<State, StoreError> {
        self.write(move |connection| Box::pin(async move { take_look(connection, &looked, &policy).await })).await
    }
}

/// Attempts after a failed one that are looked at for one that was understood.
const SINCE: i64 = 100_000;

/// Whether what became of this job's calls is about its machine: one of them was refused, or lost, and
/// others of the tenant were understood since.
pub(crate) async fn is_its_own_trouble(connection: &mut SqliteConnection, job: &Job) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT 1 FROM (SELECT tenant_id, job_id, outcome FROM attempts
                            WHERE rowid > (SELECT min(rowid) FROM attempts WHERE job_id = ?2
                                           AND outcome IN ('forbidden', 'malformed', 'unknown'))
                            ORDER BY rowid LIMIT ?3)
             WHERE tenant_id = ?1 AND job_id <> ?2 AND outcome IN ('created', 'busy', 'refused', 'missing'))",
    )
    .bind(job.tenant)
    .bind(job.id.0)
    .bind(SINCE)
    .fetch_one(connection)
    .await
    .doing("read a job's attempts")
}

/// Whether a call for this job was refused after that time: a scan that was made all the same would not be known yet.
pub(crate) async fn was_refused_since(
    connection: &mut SqliteConnection,
    job: JobId,
    boot_id: &BootId,
    time: Boot,
) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM attempts JOIN slots ON slots.id = attempts.slot_id
                        WHERE attempts.job_id = ? AND attempts.outcome = 'refused'
                            AND slots.boot_id = ? AND slots.settles_boot > ?)",
    )
    .bind(job.0)
    .bind(&boot_id.0)
    .bind(time.0)
    .fetch_one(connection)
    .await
    .doing("read a job's attempts")
}

/// How many earlier attempts of a job ended like one of these.
pub(crate) async fn ended_before(
    connection: &mut SqliteConnection,
    job: JobId,
    attempt: AttemptId,
    outcomes: &[OutcomeWord],
) -> Result<u32, StoreError> {
    let words: Vec<_> = outcomes.iter().map(|word| word.as_str()).collect();
    sqlx::query_scalar(
        "SELECT count(*) FROM attempts WHERE job_id = ? AND id <> ?
             AND outcome IN (SELECT value FROM json_each(?))",
    )
    .bind(job.0)
    .bind(attempt.to_string())
    .bind(serde_json::json!(words).to_string())
    .fetch_one(connection)
    .await
    .doing("read a job's attempts")
}

async fn take_look(connection: &mut SqliteConnection, looked: &Looked, policy: &Policy) -> Result<State, StoreError> {
    let Looked { tenant, asked, at, .. } = looked;
    let seen = match &looked.look {
        Look::NotPermitted => {
            if resolve(connection, asked, "undecidable", *tenant, *at).await? {
                undecidable(connection, asked, *at).await?;
            }
            return Ok(jobs::find(connection, asked.job).await?.state);
        }
        Look::Machine(known) => return missing(connection, looked, *known, policy).await,
        Look::Read(seen) => seen,
    };
    for seen in seen {
        // An action with our mark resolves the attempt and moves the job.
        actions::see(connection, *tenant, seen, *at).await?;
    }
    let open: bool = sqlx::query_scalar("SELECT resolved IS NULL FROM attempts WHERE id = ?")
        .bind(asked.attempt.to_string())
        .fetch_one(&mut *connection)
        .await
        .doing("read an attempt")?;
    let job = jobs::find(connection, asked.job).await?;
    if !open {
        return Ok(job.state);
    }
    let is_over = proves_absence(asked.question, asked.since, policy.lookup_horizon, looked.began);
    let open = || seen.iter().filter(|seen| seen.action.status.is_open());
    let counts = |seen: &&Seen| policy.rules.pending_types.holds(&seen.action.action_type);
    // Defender may mean an action of a type that does not count here; the list may lag, though.
    let blocker = open().find(counts).or_else(|| open().next().filter(|_| is_over));
    if let Some(blocker) = blocker.filter(|_| asked.question == Question::Blocker) {
        resolve(connection, asked, "found", *tenant, *at).await?;
        if job.state == State::Sending {
            blocked(connection, asked.attempt, policy, &job, blocker, *at).await?;
        }
    } else if is_over {
        resolve(connection, asked, "absent", *tenant, *at).await?;
        absent(connection, asked, policy, *at).await?;
    } else {
        look_again(connection, looked, policy.lookup_horizon).await?;
    }
    Ok(jobs::find(connection, asked.job).await?.state)
}

/// What becomes of a job whose machine Defender called unknown, now that the machine was asked for.
async fn missing(
    connection: &mut SqliteConnection,
    looked: &Looked,
    known: Known,
    policy: &Policy,
) -> Result<State, StoreError> {
    let Looked { tenant, asked, at, .. } = looked;
    let resolved = match known {
        Known::Yes => "found",
        Known::No => "absent",
        Known::NotPermitted => "undecidable",
    };
    let is_new = resolve(connection, asked, resolved, *tenant, *at).await?;
    let job = jobs::find(connection, asked.job).await?;
    if !is_new || job.state != State::Sending {
        return Ok(job.state);
    }
    let before = ended_before(connection, asked.job, asked.attempt, &[OutcomeWord::Missing]).await? > 0;
    let (event, with) = match after_missing(known, job.attempts, policy.max_attempts.get(), before) {
        AfterMissing::Again(rest) => (Event::Absent, With { parked_until: Some(*at + rest), ..With::default() }),
        AfterMissing::Exhausted => exhausted(),
        AfterMissing::Unknown => (Event::Refused, With { reason: Some(Reason::UnknownMachine), ..With::default() }),
    };
    jobs::apply(connection, &job, event, with, *at).await
}

/// Actions may not be listed. (A question about a machine lists none, and has an answer of its own.)
async fn undecidable(connection: &mut SqliteConnection, asked: &Asked, at: Wall) -> Result<(), StoreError> {
    let job = jobs::find(connection, asked.job).await?;
    if job.state != State::Sending {
        return Ok(());
    }
    let (event, with) = if asked.question == Question::Blocker {
        nameless(connection, asked, &job, at).await?
    } else {
        (Event::Undecidable, With { reason: Some(Reason::CannotListActions), ..With::default() })
    };
    jobs::apply(connection, &job, event, with, at).await.map(drop)
}

/// That something is in the way was Defender's word; only its name stays unknown.
async fn nameless(
    connection: &mut SqliteConnection,
    asked: &Asked,
    job: &Job,
    at: Wall,
) -> Result<(Event, With), StoreError> {
    let (event, mut with) = busy_with(job, None, at);
    if with.parked_until.is_some() {
        // Nothing will show its end: it is asked for at growing intervals.
        let before = ended_before(connection, job.id, asked.attempt, &[OutcomeWord::Busy]).await?;
        with.parked_until = Some(at + BLOCKED * (1 << before.min(4)));
    }
    Ok((event, With { attempts: take_back(connection, asked.attempt).await?, ..with }))
}

/// The call had no effect.
async fn absent(connection: &mut SqliteConnection, asked: &Asked, policy: &Policy, at: Wall) -> Result<(), StoreError> {
    let job = jobs::find(connection, asked.job).await?;
    if job.state != State::Sending {
        return Ok(());
    }
    let (event, with) = match asked.question {
        Question::Blocker => nameless(connection, asked, &job, at).await?,
        Question::Effect | Question::Machine if job.attempts >= policy.max_attempts.get() => exhausted(),
        Question::Effect | Question::Machine => (Event::Absent, With::default()),
    };
    jobs::apply(connection, &job, event, with, at).await.map(drop)
}

async fn look_again(connection: &mut SqliteConnection, looked: &Looked, horizon: Duration) -> Result<(), StoreError> {
    let asked = &looked.asked;
    let looks = asked.looks + 1;
    let next = next_look(asked.question, asked.since, looks, horizon, looked.boot);
    sqlx::query("UPDATE attempts SET looks = ?, next_look_boot = ? WHERE id = ?")
        .bind(looks)
        .bind(next.0)
        .bind(asked.attempt.to_string())
        .execute(connection)
        .await
        .doing("plan the next look")
        .map(drop)
}
