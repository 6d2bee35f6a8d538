//! A long file on its way into the queue, in two passes: its rows in the order of the file, then the keys of the
//! open jobs in their own order.
//!
//! Ids come in random order. Row by row, each would touch another page of the index that says which machine has an
//! open job, and each transaction would write most of that index again. Sorted, a transaction writes a few
//! neighbouring pages. Between the passes a file's jobs stand in `jobs` alone: they are hidden, and nobody can join
//! them. Whoever turns out to be there twice, or to have an open job already, makes way in the second pass.
//!
//! No transaction takes in more than [`CHUNK`] rows: the writer is free for a lane every few dozen milliseconds.

use std::fmt::Write as _;

use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::chunks::{leave_out, take_back};
use super::jobs;
use super::sweeps::{CHUNK, Chunk, NewJob, SweepRow};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, unsent};
use crate::domain::id::MachineId;
use crate::domain::job::State;
use crate::domain::sweep::ScanType;
use crate::domain::time::Wall;

/// The key of a job that is written, and not opened yet. They sort by key, then by their place in the file. Small:
/// a million of them are kept while a file is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    machine: MachineId,
    full: bool,
    /// Counted from the first of its batch.
    job: u32,
}

/// The keys of some of a file's jobs.
#[derive(Debug, Default)]
pub struct Keys {
    first: i64,
    keys: Vec<Key>,
}

impl Keys {
    /// Sorting so many takes 28 MB, and makes one pass over the index for each.
    pub const BATCH: usize = 1_000_000;

    /// How many.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn add(&mut self, machine: MachineId, scan: ScanType, job: i64) -> Result<(), StoreError> {
        if self.keys.is_empty() {
            self.first = job;
        }
        let job =
            u32::try_from(job - self.first).map_err(|_| StoreError::Guard("jobs lie too far apart".to_owned()))?;
        self.keys.push(Key { machine, full: scan == ScanType::Full, job });
        Ok(())
    }
}

/// Appends rows, each with a job of its own. Returns the row of the first.
async fn append(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    chunk: &Chunk,
    now: Wall,
) -> Result<i64, StoreError> {
    let n = number(chunk.jobs.len() as u64);
    let last = match alike(&chunk.jobs) {
        _ if chunk.jobs.is_empty() => 0,
        Some(first) => append_alike(connection, tenant, sweep, first, &chunk.jobs, now).await?,
        None => append_each(connection, tenant, sweep, &chunk.jobs, now).await?,
    };
    unsent::asked(connection, sweep, &chunk.jobs).await?;
    leave_out(connection, sweep, &chunk.left_out).await?;
    let full = chunk.jobs.iter().filter(|job| job.scan == ScanType::Full).count();
    sqlx::query(
        "UPDATE sweeps SET lines = lines + ?1, queued = queued + ?2, full = full + ?3, not_eligible = not_eligible + ?4,
             refused = refused + ?5, duplicates = duplicates + ?7, open = open + ?2 WHERE n = ?6",
    )
    .bind(number(chunk.lines()))
    .bind(n)
    .bind(number(full as u64))
    .bind(number(chunk.left_out.len() as u64))
    .bind(number(chunk.refused))
    .bind(sweep)
    .bind(number(chunk.left_out_again))
    .execute(&mut *connection)
    .await
    .doing("count a chunk")?;
    jobs::count(connection, tenant, State::Queued, n).await?;
    Ok(last - n + 1)
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The first of jobs that differ in their machine alone, which most lists consist of.
fn alike(jobs: &[NewJob]) -> Option<&NewJob> {
    let first = jobs.first()?;
    let same = |job: &NewJob| {
        job.name.is_none()
            && (job.scan, job.priority, job.not_before, job.on_pending)
                == (first.scan, first.priority, first.not_before, first.on_pending)
            && job.comment == first.comment
    };
    jobs.iter().all(same).then_some(first)
}

/// Written out by hand: for a million machines, as JSON values they would take longer than SQLite does.
fn ids(jobs: &[NewJob]) -> String {
    let mut text = String::with_capacity(jobs.len() * 43 + 2);
    text.push('[');
    for job in jobs {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        push_hex(&mut text, &job.machine);
        text.push('"');
    }
    text.push(']');
    text
}

fn push_hex(text: &mut String, machine: &MachineId) {
    const DIGIT: fn(u8) -> char = |nibble| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    for byte in machine.bytes() {
        text.push(DIGIT(byte >> 4));
        text.push(DIGIT(byte & 15));
    }
}

const INTO_JOBS: &str =
    "INSERT INTO jobs (tenant_id, sweep_n, state, parked_until, created_at, updated_at, machine, name, \
                         scan_type, priority, not_before, on_pending, comment)
    SELECT ?1, ?2, 'queued', 9223372036854775807, ?3, ?3, ";

async fn append_alike(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    first: &NewJob,
    jobs: &[NewJob],
    now: Wall,
) -> Result<i64, StoreError> {
    let statement = format!("{INTO_JOBS} unhex(value), NULL, ?4, ?5, ?6, ?7, ?8 FROM json_each(?9)");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(sweep)
        .bind(now.0)
        .bind(first.scan.as_str())
        .bind(first.priority.rank())
        .bind(first.not_before.map(|at| at.0))
        .bind(first.on_pending.as_str())
        .bind(&*first.comment)
        .bind(ids(jobs))
        .execute(connection)
        .await
        .doing("queue a chunk")
        .map(|done| done.last_insert_rowid())
}

async fn append_each(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    jobs: &[NewJob],
    now: Wall,
) -> Result<i64, StoreError> {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let (scan, rank) = (job.scan.as_str(), job.priority.rank());
            let not_before = job.not_before.map(|at| at.0);
            json!([job.machine.to_string(), job.name, scan, rank, not_before, job.on_pending.as_str(), &*job.comment])
        })
        .collect();
    let statement = format!(
        "{INTO_JOBS} unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
         FROM json_each(?4)"
    );
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(sweep)
        .bind(now.0)
        .bind(serde_json::Value::from(rows).to_string())
        .execute(connection)
        .await
        .doing("queue a chunk")
        .map(|done| done.last_insert_rowid())
}

/// Opens the jobs of some keys, in their order. Returns those jobs whose key another one has.
async fn open(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    scan: ScanType,
    keys: &str,
    n: u64,
) -> Result<Vec<i64>, StoreError> {
    let opened = sqlx::query(
        "INSERT INTO open_jobs (tenant_id, machine, scan_type, job_id)
         SELECT ?1, unhex(substr(value, 1, 40)), ?2, CAST(substr(value, 41) AS INTEGER) FROM json_each(?3) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(scan.as_str())
    .bind(keys)
    .execute(&mut *connection)
    .await
    .doing("open a chunk's jobs")?
    .rows_affected();
    if opened == n {
        return Ok(Vec::new());
    }
    // Taken up again after a kill, some are open already, and by themselves.
    sqlx::query_scalar(
        "SELECT CAST(substr(value, 41) AS INTEGER) FROM json_each(?3)
         WHERE (SELECT job_id FROM open_jobs WHERE tenant_id = ?1 AND machine = unhex(substr(value, 1, 40))
                                               AND scan_type = ?2) <> CAST(substr(value, 41) AS INTEGER)",
    )
    .bind(tenant)
    .bind(scan.as_str())
    .bind(keys)
    .fetch_all(connection)
    .await
    .doing("find who was there before")
}

const SPARE_TABLE: [&str; 2] = [
    "CREATE TEMP TABLE IF NOT EXISTS spare (job INTEGER PRIMARY KEY, scan_type TEXT, priority INTEGER, not_before INTEGER,
         holder INTEGER, own INTEGER, unsent INTEGER)",
    "DELETE FROM temp.spare",
];

/// Jobs whose key another one has make way for it: the sweep joins it, or it is the sweep's own.
async fn make_way(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    jobs: &str,
) -> Result<(), StoreError> {
    for statement in SPARE_TABLE {
        sqlx::query(statement).execute(&mut *connection).await.doing("prepare to make way")?;
    }
    // Whoever was there before may have ended meanwhile.
    sqlx::query(
        "INSERT INTO open_jobs (tenant_id, machine, scan_type, job_id)
         SELECT tenant_id, machine, scan_type, id FROM jobs
         WHERE id IN (SELECT value FROM json_each(?)) AND state = 'queued' ORDER BY machine, scan_type, id
         ON CONFLICT DO NOTHING",
    )
    .bind(jobs)
    .execute(&mut *connection)
    .await
    .doing("open jobs after all")?;
    sqlx::query(
        "INSERT INTO temp.spare
         SELECT mine.id, mine.scan_type, mine.priority, mine.not_before, o.job_id, other.sweep_n = ?1, other.state = 'queued'
         FROM json_each(?2) CROSS JOIN jobs AS mine ON mine.id = value
             CROSS JOIN open_jobs AS o ON (o.tenant_id, o.machine, o.scan_type) = (mine.tenant_id, mine.machine, mine.scan_type)
             CROSS JOIN jobs AS other ON other.id = o.job_id
         WHERE mine.sweep_n = ?1 AND mine.state = 'queued' AND o.job_id <> mine.id",
    )
    .bind(sweep)
    .bind(jobs)
    .execute(&mut *connection)
    .await
    .doing("find who makes way")?;
    let joined: Vec<bool> = sqlx::query_scalar(
        "SELECT unsent FROM (SELECT DISTINCT holder, unsent FROM temp.spare WHERE NOT own)
         WHERE NOT EXISTS (SELECT 1 FROM joins WHERE sweep_n = ? AND job_id = holder)",
    )
    .bind(sweep)
    .fetch_all(&mut *connection)
    .await
    .doing("find what is joined")?;
    // A machine that the file names again wishes what is stronger.
    sqlx::query(
        "INSERT INTO joins (sweep_n, job_id, priority, not_before)
         SELECT ?, holder, max(priority), nullif(min(coalesce(not_before, 0)), 0) FROM temp.spare WHERE NOT own GROUP BY holder
         ON CONFLICT DO UPDATE SET priority = max(priority, excluded.priority),
             not_before = nullif(min(coalesce(not_before, 0), coalesce(excluded.not_before, 0)), 0)",
    )
    .bind(sweep)
    .execute(&mut *connection)
    .await
    .doing("join open jobs")?;
    unsent::made_way(connection, sweep, joined.iter().filter(|unsent| **unsent).count()).await?;
    let (spare, full): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE scan_type = 'Full') FROM temp.spare")
            .fetch_one(&mut *connection)
            .await
            .doing("count who makes way")?;
    sqlx::query(
        "UPDATE sweeps SET full = full - ?3, queued = queued - ?1, joined = joined + ?2, duplicates = duplicates + ?1 - ?2,
             open = open - ?1 + ?2 WHERE n = ?4",
    )
    .bind(spare)
    .bind(number(joined.len() as u64))
    .bind(full)
    .bind(sweep)
    .execute(&mut *connection)
    .await
    .doing("count a chunk")?;
    jobs::count(connection, tenant, State::Queued, -spare).await?;
    sqlx::query("DELETE FROM jobs WHERE id IN (SELECT job FROM temp.spare)")
        .execute(connection)
        .await
        .doing("make way")
        .map(drop)
}

impl Store {
    /// Appends the next lines of a file to its sweep, hidden, and their keys to `keys`. Durable when it returns.
    pub async fn append_lines(
        &self,
        tenant: TenantRow,
        sweep: SweepRow,
        chunk: Chunk,
        keys: &mut Keys,
        now: Wall,
    ) -> Result<(), StoreError> {
        let new: Vec<_> = chunk.jobs.iter().map(|job| (job.machine, job.scan)).collect();
        let first = self
            .write_rows(new.len(), move |connection| {
                Box::pin(async move { append(connection, tenant, sweep, &chunk, now).await })
            })
            .await?;
        (first..).zip(new).try_for_each(|(job, (machine, scan))| keys.add(machine, scan, job))
    }

    /// The keys of so many jobs of a half-taken sweep after this one, and the last of these, `None` at the end: after
    /// a kill nobody knows which are open.
    pub async fn appended_lines(
        &self,
        sweep: SweepRow,
        after: i64,
        most: usize,
    ) -> Result<(Keys, Option<i64>), StoreError> {
        let rows = sqlx::query(
            "SELECT id, machine, scan_type FROM jobs WHERE sweep_n = ? AND id > ? AND state = 'queued' ORDER BY id LIMIT ?",
        )
        .bind(sweep)
        .bind(after)
        .bind(number(most as u64))
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("read what was taken before")?;
        let mut keys = Keys::default();
        let mut last = None;
        for row in &rows {
            let read =
                || Ok((row.try_get("id")?, jobs::machine_of(row.try_get("machine")?)?, jobs::word(row, "scan_type")?));
            let (id, machine, scan): (i64, MachineId, ScanType) = read().doing("read what was taken before")?;
            keys.add(machine, scan, id)?;
            last = Some(id);
        }
        Ok((keys, last))
    }

    /// Opens the jobs of these keys. Who is there twice, or has an open job already, makes way. May be repeated after
    /// a kill.
    pub async fn open_lines(&self, tenant: TenantRow, sweep: SweepRow, keys: Keys) -> Result<(), StoreError> {
        let Keys { first, mut keys } = keys;
        keys.sort_unstable();
        let mut spare: Vec<i64> = Vec::new();
        for some in keys.chunks(CHUNK) {
            for (scan, full) in [(ScanType::Quick, false), (ScanType::Full, true)] {
                let (text, n) = written(first, some.iter().filter(|key| key.full == full));
                if n > 0 {
                    let there = self
                        .write_rows(CHUNK, move |connection| {
                            Box::pin(async move { open(connection, tenant, scan, &text, n).await })
                        })
                        .await?;
                    spare.extend(there);
                }
            }
        }
        drop(keys);
        // In the order of the file, in which they lie.
        spare.sort_unstable();
        for some in spare.chunks(CHUNK / 2) {
            let text = json!(some).to_string();
            self.write_rows(CHUNK, move |connection| {
                Box::pin(async move { make_way(connection, tenant, sweep, &text).await })
            })
            .await?;
        }
        self.take_back_lines(sweep).await
    }

    async fn take_back_lines(&self, sweep: SweepRow) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let last: Option<i64> = sqlx::query_scalar(
                "SELECT max(line) FROM (SELECT line FROM left_out WHERE sweep_n = ? AND line > ? ORDER BY line LIMIT ?)",
            )
            .bind(sweep)
            .bind(after)
            .bind(number(CHUNK as u64))
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("find who was left out")?;
            let Some(last) = last else { return Ok(()) };
            let lines = (after + 1, last);
            self.write(move |connection| Box::pin(async move { take_back(connection, sweep, lines).await.map(drop) }))
                .await?;
            after = last;
        }
    }

    /// Adds lines to such a sweep, and opens them.
    #[cfg(test)]
    pub async fn add_chunk(
        &self,
        tenant: TenantRow,
        sweep: SweepRow,
        chunk: Chunk,
        now: Wall,
    ) -> Result<super::sweeps::Counts, StoreError> {
        let mut keys = Keys::default();
        self.append_lines(tenant, sweep, chunk, &mut keys, now).await?;
        self.open_lines(tenant, sweep, keys).await?;
        self.counts_of(sweep).await
    }
}

/// Keys with their jobs, as [`open`] reads them; and how many.
fn written<'a>(first: i64, keys: impl Iterator<Item = &'a Key>) -> (String, u64) {
    let mut text = String::from("[");
    let mut n = 0;
    for key in keys {
        text.push_str(if n > 0 { ",\"" } else { "\"" });
        push_hex(&mut text, &key.machine);
        // Writing to a String cannot fail.
        write!(text, "{}\"", first + i64::from(key.job)).unwrap_or_default();
        n += 1;
    }
    text.push(']');
    (text, n)
}
