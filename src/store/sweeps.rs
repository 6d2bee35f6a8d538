//! Sweeps: how the machines of a file become jobs, or join those that are open.

use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::events::{self, Kind, Subject};
use super::jobs;
use super::tenants::{Operator, TenantRow};
use super::{Doing, Store, StoreError};
use crate::domain::id::{MachineId, SweepId};
use crate::domain::job::State;
use crate::domain::sweep::{OnPending, Priority, ScanType, Source};
use crate::domain::time::Wall;

/// Machines that one transaction takes in: enough to be fast, few enough that the writer is free
/// for a lane every few dozen milliseconds.
pub const CHUNK: usize = 5000;

/// A row of `sweeps`.
pub type SweepRow = i64;

/// What is known of a sweep when its file is opened.
#[derive(Clone, Debug)]
pub struct NewSweep {
    /// Its id.
    pub id: SweepId,
    /// Whose.
    pub tenant: TenantRow,
    /// What people call it.
    pub name: String,
    /// Where it came from.
    pub source: Source,
    /// The file below `incoming/`.
    pub file: String,
    /// Its content's SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// Who owns the file.
    pub file_uid: Option<u32>,
    /// When.
    pub received_at: Wall,
}

/// A machine of a sweep, its fields completed from the document and the tenant.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Where it stands in the file.
    pub line: u64,
    /// Which machine.
    pub machine: MachineId,
    /// What the file calls it.
    pub name: Option<Box<str>>,
    /// How to scan it.
    pub scan: ScanType,
    /// How soon.
    pub priority: Priority,
    /// Not before.
    pub not_before: Option<Wall>,
    /// What to do if it is busy.
    pub on_pending: OnPending,
    /// The comment, without the mark.
    pub comment: std::sync::Arc<str>,
}

/// A machine that gets no job.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// Where it stands in the file.
    pub line: u64,
    /// Which machine.
    pub machine: MachineId,
    /// What the file calls it.
    pub name: Option<Box<str>>,
    /// Why.
    pub reason: String,
}

/// Some lines of a file.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Machines to scan.
    pub jobs: Vec<NewJob>,
    /// Machines to leave out.
    pub left_out: Vec<LeftOut>,
    /// Lines that cannot be used.
    pub refused: u64,
}

impl Chunk {
    /// How many lines these are.
    pub fn lines(&self) -> u64 {
        (self.jobs.len() + self.left_out.len()) as u64 + self.refused
    }
}

/// What became of lines. They add up: `lines` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// All lines.
    pub lines: u64,
    /// New jobs.
    pub queued: u64,
    /// Jobs that were open already.
    pub joined: u64,
    /// The same machine again within the file.
    pub duplicates: u64,
    /// Left out for a named reason.
    pub not_eligible: u64,
    /// Not usable.
    pub refused: u64,
}

/// A sweep that is known already.
#[derive(Clone, Debug)]
pub struct KnownSweep {
    /// Its row.
    pub n: SweepRow,
    /// Its id.
    pub id: SweepId,
    /// The file it was taken from.
    pub file: String,
    /// `taking`, `held` or `open`.
    pub state: String,
    /// Where its file is put away to, as it was decided.
    pub filed_as: Option<String>,
    /// Whether its file has been put away.
    pub filed: bool,
    /// What has been counted so far.
    pub counts: Counts,
    /// Its receipt, once it is complete.
    pub receipt: Option<String>,
}

/// Begins a sweep.
async fn begin(connection: &mut SqliteConnection, new: &NewSweep) -> Result<SweepRow, StoreError> {
    sqlx::query_scalar(
        "INSERT INTO sweeps (id, tenant_id, name, source, state, file, sha256, file_uid, received_at)
         VALUES (?, ?, ?, ?, 'taking', ?, ?, ?, ?) RETURNING n",
    )
    .bind(new.id.to_string())
    .bind(new.tenant)
    .bind(&new.name)
    .bind(new.source.as_str())
    .bind(&new.file)
    .bind(&new.sha256)
    .bind(new.file_uid)
    .bind(new.received_at.0)
    .fetch_one(connection)
    .await
    .doing("begin a sweep")
}

const CHUNK_TABLE: [&str; 3] = [
    "CREATE TEMP TABLE IF NOT EXISTS chunk (line INTEGER PRIMARY KEY, machine BLOB, name TEXT, scan_type TEXT,
         priority INTEGER, not_before INTEGER, on_pending TEXT, comment TEXT)",
    "CREATE INDEX IF NOT EXISTS temp.chunk_keys ON chunk (machine, scan_type, line)",
    "DELETE FROM temp.chunk",
];

async fn load(connection: &mut SqliteConnection, jobs: &[NewJob]) -> Result<(), StoreError> {
    for statement in CHUNK_TABLE {
        sqlx::query(statement).execute(&mut *connection).await.doing("prepare a chunk")?;
    }
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            json!([
                job.line,
                job.machine.to_string(),
                job.name,
                job.scan.as_str(),
                job.priority.rank(),
                job.not_before.map(|at| at.0),
                job.on_pending.as_str(),
                &*job.comment,
            ])
        })
        .collect();
    sqlx::query(
        "INSERT INTO temp.chunk
         SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
         FROM json_each(?)",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .execute(connection)
    .await
    .doing("load a chunk")
    .map(drop)
}

/// Takes in a chunk: new jobs for machines that have no open one, joins for those that have.
async fn add(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    chunk: &Chunk,
    now: Wall,
) -> Result<Counts, StoreError> {
    load(connection, &chunk.jobs).await?;
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM jobs")
        .fetch_one(&mut *connection)
        .await
        .doing("find the last job")?;
    let queued = sqlx::query(
        "INSERT INTO jobs (tenant_id, sweep_n, machine, name, scan_type, state, priority, on_pending, comment,
                           not_before, parked_until, created_at, updated_at)
         SELECT ?1, ?2, machine, name, scan_type, 'queued', priority, on_pending, comment, not_before,
                9223372036854775807, ?3, ?3
         FROM temp.chunk AS new
         WHERE NOT EXISTS (SELECT 1 FROM open_jobs AS o WHERE o.tenant_id = ?1 AND o.machine = new.machine
                                                          AND o.scan_type = new.scan_type)
           AND line = (SELECT min(line) FROM temp.chunk AS first
                       WHERE first.machine = new.machine AND first.scan_type = new.scan_type)
         ORDER BY line",
    )
    .bind(tenant)
    .bind(sweep)
    .bind(now.0)
    .execute(&mut *connection)
    .await
    .doing("queue a chunk")?
    .rows_affected();
    let joined = join(connection, tenant, sweep).await?;
    sqlx::query(
        "INSERT INTO open_jobs (tenant_id, machine, scan_type, job_id)
         SELECT tenant_id, machine, scan_type, id FROM jobs WHERE id > ? ORDER BY machine",
    )
    .bind(last)
    .execute(&mut *connection)
    .await
    .doing("open a chunk's jobs")?;
    leave_out(connection, sweep, &chunk.left_out).await?;
    let counts = Counts {
        lines: chunk.lines(),
        queued,
        joined,
        duplicates: (chunk.jobs.len() as u64).saturating_sub(queued + joined),
        not_eligible: chunk.left_out.len() as u64,
        refused: chunk.refused,
    };
    tally(connection, tenant, sweep, &counts).await?;
    Ok(counts)
}

/// Joins the chunk's machines that have an open job of another sweep.
async fn join(connection: &mut SqliteConnection, tenant: TenantRow, sweep: SweepRow) -> Result<u64, StoreError> {
    sqlx::query(
        "INSERT OR IGNORE INTO joins (sweep_n, job_id, priority, not_before)
         SELECT ?2, jobs.id, max(new.priority), nullif(min(coalesce(new.not_before, 0)), 0) FROM temp.chunk AS new
             JOIN open_jobs AS o ON o.tenant_id = ?1 AND o.machine = new.machine AND o.scan_type = new.scan_type
             JOIN jobs ON jobs.id = o.job_id
         WHERE jobs.sweep_n <> ?2 GROUP BY jobs.id",
    )
    .bind(tenant)
    .bind(sweep)
    .execute(connection)
    .await
    .doing("join open jobs")
    .map(|done| done.rows_affected())
}

/// Makes ready the next [`CHUNK`] of a sweep's own jobs after `after`, and of the jobs it joined
/// lets the stronger wish win. Returns where to go on, `None` at the end.
async fn release_some(
    connection: &mut SqliteConnection,
    sweep: SweepRow,
    after: (i64, i64),
    now: Wall,
) -> Result<Option<(i64, i64)>, StoreError> {
    let own: Option<i64> = sqlx::query_scalar(
        "SELECT max(id) FROM (SELECT id FROM jobs WHERE sweep_n = ? AND id > ? ORDER BY id LIMIT 5000)",
    )
    .bind(sweep)
    .bind(after.0)
    .fetch_one(&mut *connection)
    .await
    .doing("find what to release")?;
    let joined: Option<i64> = sqlx::query_scalar(
        "SELECT max(job_id) FROM (SELECT job_id FROM joins WHERE sweep_n = ? AND job_id > ? ORDER BY job_id LIMIT 5000)",
    )
    .bind(sweep)
    .bind(after.1)
    .fetch_one(&mut *connection)
    .await
    .doing("find what was joined")?;
    let next = (own.unwrap_or(after.0), joined.unwrap_or(after.1));
    sqlx::query(
        // Not hidden any more: a later wish of a sweep that joined in the meantime does not win either.
        "UPDATE jobs SET parked_until = iif(not_before > ?4, min(not_before, parked_until), NULL)
         WHERE sweep_n = ?1 AND id > ?2 AND id <= ?3 AND state = 'queued' AND parked_until IS NOT NULL
           AND blocked_by IS NULL",
    )
    .bind(sweep)
    .bind(after.0)
    .bind(next.0)
    .bind(now.0)
    .execute(&mut *connection)
    .await
    .doing("release jobs")?;
    sqlx::query(
        "UPDATE jobs SET priority = max(jobs.priority, wish.priority),
             parked_until = CASE WHEN jobs.blocked_by IS NOT NULL OR jobs.parked_until IS NULL THEN jobs.parked_until
                                 WHEN coalesce(wish.not_before, 0) <= ?4 THEN NULL
                                 ELSE min(jobs.parked_until, wish.not_before) END
         FROM joins AS wish
         WHERE wish.sweep_n = ?1 AND wish.job_id > ?2 AND wish.job_id <= ?3 AND jobs.id = wish.job_id
           AND jobs.state = 'queued'",
    )
    .bind(sweep)
    .bind(after.1)
    .bind(next.1)
    .bind(now.0)
    .execute(&mut *connection)
    .await
    .doing("let the stronger wish win")?;
    if next != after {
        return Ok(Some(next));
    }
    sqlx::query("UPDATE sweeps SET released = 1 WHERE n = ?")
        .bind(sweep)
        .execute(connection)
        .await
        .doing("note a release")?;
    Ok(None)
}

async fn leave_out(connection: &mut SqliteConnection, sweep: SweepRow, left: &[LeftOut]) -> Result<(), StoreError> {
    if left.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> =
        left.iter().map(|left| json!([left.line, left.machine.to_string(), left.name, left.reason])).collect();
    sqlx::query(
        "INSERT INTO left_out (sweep_n, line, machine, name, reason)
         SELECT ?, value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3 FROM json_each(?)",
    )
    .bind(sweep)
    .bind(serde_json::Value::from(rows).to_string())
    .execute(connection)
    .await
    .doing("leave machines out")
    .map(drop)
}

async fn tally(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    counts: &Counts,
) -> Result<(), StoreError> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE sweeps SET lines = lines + ?1, queued = queued + ?2, joined = joined + ?3, duplicates = duplicates + ?4,
             not_eligible = not_eligible + ?5, refused = refused + ?6, open = open + ?2 + ?3 WHERE n = ?7",
    )
    .bind(number(counts.lines))
    .bind(number(counts.queued))
    .bind(number(counts.joined))
    .bind(number(counts.duplicates))
    .bind(number(counts.not_eligible))
    .bind(number(counts.refused))
    .bind(sweep)
    .execute(&mut *connection)
    .await
    .doing("count a chunk")?;
    jobs::count(connection, tenant, State::Queued, number(counts.queued)).await
}

/// What ends the taking of a file.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The receipt, as it will be written beside the file.
    pub receipt: serde_json::Value,
    /// Whether an operator has to release the sweep first.
    pub held: bool,
    /// Where the file is put away to.
    pub filed_as: String,
    /// Who submitted it, for the record.
    pub submitted_by: Option<serde_json::Value>,
}

async fn complete(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    completion: &Completion,
    at: Wall,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sweeps SET receipt = ?1, filed_as = ?5, state = iif(?2, 'held', iif(open = 0, 'done', 'open')),
             finished_at = iif(NOT ?2 AND open = 0, ?3, NULL)
         WHERE n = ?4 AND state = 'taking'",
    )
    .bind(completion.receipt.to_string())
    .bind(completion.held)
    .bind(at.0)
    .bind(sweep)
    .bind(&completion.filed_as)
    .execute(&mut *connection)
    .await
    .doing("complete a sweep")?;
    let body = json!({ "sweep": sweep, "receipt": completion.receipt, "submitted_by": completion.submitted_by });
    events::append(connection, at, Kind::FileTaken, Subject::tenant(tenant), &body).await
}

fn counts_of(row: &sqlx::sqlite::SqliteRow) -> Result<Counts, sqlx::Error> {
    let number = |column| row.try_get::<i64, _>(column).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(Counts {
        lines: number("lines")?,
        queued: number("queued")?,
        joined: number("joined")?,
        duplicates: number("duplicates")?,
        not_eligible: number("not_eligible")?,
        refused: number("refused")?,
    })
}

fn known_of(row: &sqlx::sqlite::SqliteRow) -> Result<KnownSweep, sqlx::Error> {
    Ok(KnownSweep {
        n: row.try_get("n")?,
        id: jobs::word(row, "id")?,
        file: row.try_get("file")?,
        state: row.try_get("state")?,
        filed_as: row.try_get("filed_as")?,
        filed: row.try_get("filed")?,
        counts: counts_of(row)?,
        receipt: row.try_get("receipt")?,
    })
}

const KNOWN: &str =
    "n, id, file, state, filed_as, filed, receipt, lines, queued, joined, duplicates, not_eligible, refused";

impl Store {
    /// Takes in a file that fits one chunk, whole: sweep, jobs, counts and receipt in one
    /// transaction. `decide` makes the receipt once the counts are known.
    pub async fn take_sweep(
        &self,
        new: NewSweep,
        chunk: Chunk,
        now: Wall,
        decide: impl FnOnce(Counts) -> Completion + Send + 'static,
    ) -> Result<SweepRow, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let sweep = begin(connection, &new).await?;
                let counts = add(connection, new.tenant, sweep, &chunk, now).await?;
                let completion = decide(counts);
                complete(connection, new.tenant, sweep, &completion, now).await?;
                let mut at = (!completion.held).then_some((0, 0));
                while let Some(after) = at {
                    at = release_some(connection, sweep, after, now).await?;
                }
                Ok(sweep)
            })
        })
        .await
    }

    /// Begins a sweep that takes several transactions. Its jobs are hidden until
    /// [`Store::complete_sweep`] and [`Store::release_sweep`].
    pub async fn begin_sweep(&self, new: NewSweep) -> Result<SweepRow, StoreError> {
        self.write(move |connection| Box::pin(async move { begin(connection, &new).await })).await
    }

    /// Adds a chunk to such a sweep.
    pub async fn add_chunk(
        &self,
        tenant: TenantRow,
        sweep: SweepRow,
        chunk: Chunk,
        now: Wall,
    ) -> Result<Counts, StoreError> {
        self.write(move |connection| Box::pin(async move { add(connection, tenant, sweep, &chunk, now).await })).await
    }

    /// All of the file is on disk.
    pub async fn complete_sweep(
        &self,
        tenant: TenantRow,
        sweep: SweepRow,
        completion: Completion,
        now: Wall,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move { complete(connection, tenant, sweep, &completion, now).await })
        })
        .await
    }

    /// Makes a complete sweep's jobs ready, a chunk a transaction.
    pub async fn release_sweep(&self, sweep: SweepRow, now: Wall) -> Result<(), StoreError> {
        let mut at = Some((0, 0));
        while let Some(after) = at {
            at = self
                .write(move |connection| Box::pin(async move { release_some(connection, sweep, after, now).await }))
                .await?;
        }
        Ok(())
    }

    /// An operator lets a held sweep go. Returns whether it was held.
    pub async fn let_go(
        &self,
        sweep: SweepRow,
        tenant: TenantRow,
        operator: Operator,
        at: Wall,
    ) -> Result<bool, StoreError> {
        let was_held = self
            .write(move |connection| {
                Box::pin(async move {
                    let touched = sqlx::query(
                        "UPDATE sweeps SET state = iif(open = 0, 'done', 'open'), finished_at = iif(open = 0, ?1, NULL)
                         WHERE n = ?2 AND state = 'held'",
                    )
                    .bind(at.0)
                    .bind(sweep)
                    .execute(&mut *connection)
                    .await
                    .doing("release a sweep")?
                    .rows_affected();
                    let body = json!({ "sweep": sweep, "by": operator });
                    events::append(connection, at, Kind::SweepReleased, Subject::tenant(tenant), &body).await?;
                    Ok(touched == 1)
                })
            })
            .await?;
        if was_held {
            self.release_sweep(sweep, at).await?;
        }
        Ok(was_held)
    }

    /// What has been counted of a sweep.
    pub async fn counts_of(&self, sweep: SweepRow) -> Result<Counts, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {KNOWN} FROM sweeps WHERE n = ?")))
            .bind(sweep)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("read a sweep's counts")?;
        counts_of(&row).doing("read a sweep's counts")
    }

    /// The sweep with this id.
    pub async fn known_by_id(&self, id: SweepId) -> Result<KnownSweep, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {KNOWN} FROM sweeps WHERE id = ?")))
            .bind(id.to_string())
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("find a sweep")?;
        known_of(&row).doing("read a sweep")
    }

    /// The unfinished sweep of this tenant with the same content, if there is one.
    pub async fn known_sweep(&self, tenant: TenantRow, sha256: &str) -> Result<Option<KnownSweep>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {KNOWN} FROM sweeps WHERE tenant_id = ? AND sha256 = ? AND (state <> 'done' OR filed = 0)
             ORDER BY n LIMIT 1"
        )))
        .bind(tenant)
        .bind(sha256)
        .fetch_optional(&mut *self.reader().await?)
        .await
        .doing("find a sweep by its content")?;
        row.as_ref().map(known_of).transpose().doing("read a sweep")
    }

    /// Sweeps that an earlier incarnation left between two steps: not complete, not put away, or
    /// not released.
    pub async fn half_done_sweeps(&self) -> Result<Vec<(KnownSweep, TenantRow)>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT tenant_id, {KNOWN} FROM sweeps WHERE filed = 0 OR (released = 0 AND state = 'open') ORDER BY n"
        )))
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("find half-done sweeps")?;
        rows.iter()
            .map(|row| Ok((known_of(row)?, row.try_get("tenant_id")?)))
            .collect::<Result<_, _>>()
            .doing("read a sweep")
    }

    /// The file of a sweep has been put away and its receipt written.
    pub async fn sweep_filed(&self, sweep: SweepRow) -> Result<(), StoreError> {
        self.flag("UPDATE sweeps SET filed = 1 WHERE n = ?", sweep).await
    }

    /// The results of a sweep have been written.
    pub async fn sweep_reported(&self, sweep: SweepRow) -> Result<(), StoreError> {
        self.flag("UPDATE sweeps SET reported = 1 WHERE n = ?", sweep).await
    }

    async fn flag(&self, statement: &'static str, sweep: SweepRow) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(statement).bind(sweep).execute(connection).await.doing("flag a sweep").map(drop)
            })
        })
        .await
    }
}
