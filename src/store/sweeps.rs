//! Sweeps: how the machines of a file become jobs, or join those that are open.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Row, SqliteConnection};

use super::chunks::{add, release_some};
use super::events::{self, Kind, Subject};
use super::jobs;
use super::slots::Stamp;
use super::tenants::{Operator, TenantRow};
use super::unasked::{self, Asked};
use super::{Doing, Store, StoreError, unsent};
use crate::domain::id::{MachineId, SweepId};
use crate::domain::sweep::{OnPending, Priority, ScanType, Source};
use crate::domain::time::Wall;

/// Machines that one transaction takes in: enough to be fast, few enough that the writer is free
/// for a lane every few dozen milliseconds. More in a file make it a long one.
pub const CHUNK: usize = 2000;

/// So many refusals of a file go on record one by one; its receipt lists more.
const REFUSALS: usize = 5;

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
    /// Lines with a machine that an earlier line has left out.
    pub left_out_again: u64,
    /// Lines that cannot be used.
    pub refused: u64,
}

impl Chunk {
    /// How many lines these are.
    pub fn lines(&self) -> u64 {
        (self.jobs.len() + self.left_out.len()) as u64 + self.left_out_again + self.refused
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

/// How many machines a sweep scans, by scan type; those of jobs it joined included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machines {
    /// Quick scans.
    pub quick: u64,
    /// Full scans.
    pub full: u64,
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
    /// Its content's SHA-256.
    pub sha256: String,
    /// Where its file is put away to, as it was decided.
    pub filed_as: Option<String>,
    /// Whether its file has been put away.
    pub filed: bool,
    /// Whether its jobs have been made ready.
    pub released: bool,
    /// What has been counted so far.
    pub counts: Counts,
    /// Its receipt, once it is complete.
    pub receipt: Option<String>,
}

/// Begins a sweep.
async fn begin(connection: &mut SqliteConnection, new: &NewSweep) -> Result<SweepRow, StoreError> {
    let sweep = sqlx::query_scalar(
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
    .fetch_one(&mut *connection)
    .await
    .doing("begin a sweep")?;
    unsent::begin(connection, sweep).await?;
    Ok(sweep)
}

/// What ends the taking of a file.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The receipt, as it will be written beside the file: JSON, its fields in their order.
    pub receipt: String,
    /// Whether an operator has to release the sweep first.
    pub held: bool,
    /// Where the file is put away to.
    pub filed_as: String,
    /// When it was let go without anybody having been asked: it counts for an hour.
    pub unasked: Option<Stamp>,
}

async fn complete(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    completion: &Completion,
    at: Wall,
) -> Result<(), StoreError> {
    let source: Option<String> = sqlx::query_scalar(
        "UPDATE sweeps SET receipt = ?1, filed_as = ?5, state = iif(?2, 'held', iif(open = 0, 'done', 'open')),
             finished_at = iif(NOT ?2 AND open = 0, ?3, NULL)
         WHERE n = ?4 AND state = 'taking' RETURNING source",
    )
    .bind(&completion.receipt)
    .bind(completion.held)
    .bind(at.0)
    .bind(sweep)
    .bind(&completion.filed_as)
    .fetch_optional(&mut *connection)
    .await
    .doing("complete a sweep")?;
    if let Some(now) = &completion.unasked {
        unasked::note(connection, tenant, sweep, now).await?;
    }
    let body = taken(sweep, source.as_deref(), &completion.receipt)
        .map_err(|error| StoreError::Guard(format!("the receipt of sweep {sweep} is no JSON: {error}")))?;
    events::append(connection, at, Kind::FileTaken, Subject::tenant(tenant), &body).await
}

/// What goes on record of a file that was taken: what was observed of it, apart from what it claims; its counts and the
/// first refusals, without what stood in them; and the SHA-256 of the receipt, which lies beside the file.
fn taken(sweep: SweepRow, source: Option<&str>, text: &str) -> Result<Value, serde_json::Error> {
    let mut receipt: Map<String, Value> = serde_json::from_str(text)?;
    let mut take = |key: &str| receipt.remove(key).unwrap_or_default();
    let (observed, claimed, refusals) = (take("observed"), take("claimed"), take("refusals"));
    let listed: &[Value] = refusals.as_array().map_or(&[], Vec::as_slice);
    let first: Vec<Value> = listed
        .iter()
        .take(REFUSALS)
        .map(|refusal| json!({ "line": refusal.get("line"), "reason": refusal.get("reason") }))
        .collect();
    let mut not_listed = receipt.get("refusals_not_listed").and_then(Value::as_u64).unwrap_or_default();
    not_listed = not_listed.saturating_add((listed.len() - first.len()) as u64);
    receipt.insert("refusals".to_owned(), first.into());
    receipt.insert("refusals_not_listed".to_owned(), not_listed.into());
    let sha256 = Sha256::new().chain_update(text).chain_update("\n").finalize();
    Ok(json!({ "sweep": sweep, "source": source, "observed": observed, "claimed": claimed, "receipt": receipt,
        "receipt_sha256": events::hex(&sha256) }))
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
        sha256: row.try_get("sha256")?,
        filed_as: row.try_get("filed_as")?,
        filed: row.try_get("filed")?,
        released: row.try_get("released")?,
        counts: counts_of(row)?,
        receipt: row.try_get("receipt")?,
    })
}

const KNOWN: &str = "n, id, file, sha256, state, filed_as, filed, released, receipt, lines, queued, joined, duplicates, not_eligible, refused";

impl Store {
    /// Takes in a file that fits one chunk, whole: sweep, jobs, counts and receipt in one
    /// transaction. `decide` makes the receipt once the counts are known.
    pub async fn take_sweep(
        &self,
        new: NewSweep,
        chunk: Chunk,
        now: Wall,
        decide: impl FnOnce(Counts, Asked) -> Completion + Send + 'static,
    ) -> Result<SweepRow, StoreError> {
        self.write_rows(chunk.jobs.len(), move |connection| {
            Box::pin(async move {
                let sweep = begin(connection, &new).await?;
                let counts = add(connection, new.tenant, sweep, &chunk, now).await?;
                let completion = decide(counts, unasked::asked(connection, new.tenant, sweep, now).await?);
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

    /// Begins a sweep that takes several transactions: [`Store::append_lines`] and [`Store::open_lines`]. Its jobs are
    /// hidden until [`Store::complete_sweep`] and [`Store::release_sweep`].
    pub async fn begin_sweep(&self, new: NewSweep) -> Result<SweepRow, StoreError> {
        self.write(move |connection| Box::pin(async move { begin(connection, &new).await })).await
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
                .write_rows(CHUNK, move |connection| {
                    Box::pin(async move { release_some(connection, sweep, after, now).await })
                })
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

    /// Sweeps that were let go, and whose jobs are not all ready yet.
    pub async fn unreleased_sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        sqlx::query_scalar("SELECT n FROM sweeps WHERE released = 0 AND state = 'open'")
            .fetch_all(&mut *self.reader().await?)
            .await
            .doing("find unreleased sweeps")
    }

    /// Half-taken sweeps of this file with another content: its lines are not in the file any more.
    pub async fn overwritten_sweeps(
        &self,
        tenant: TenantRow,
        file: &str,
        sha256: &str,
    ) -> Result<Vec<SweepRow>, StoreError> {
        sqlx::query_scalar(
            "SELECT n FROM sweeps WHERE filed = 0 AND state = 'taking' AND tenant_id = ? AND file = ? AND sha256 <> ?",
        )
        .bind(tenant)
        .bind(file)
        .bind(sha256)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("find overwritten sweeps")
    }

    /// How many sweeps of a tenant wait for an operator's release.
    pub async fn held_sweeps(&self, tenant: TenantRow) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar("SELECT count(*) FROM sweeps WHERE tenant_id = ? AND state = 'held'")
            .bind(tenant)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("count held sweeps")?;
        Ok(u64::try_from(n).unwrap_or(0))
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
            // Two conditions, each with its index.
            "SELECT {KNOWN} FROM sweeps WHERE n = (
                 SELECT min(n) FROM (SELECT n FROM sweeps WHERE tenant_id = ?1 AND sha256 = ?2 AND state <> 'done'
                                     UNION ALL
                                     SELECT n FROM sweeps WHERE tenant_id = ?1 AND sha256 = ?2 AND filed = 0))"
        )))
        .bind(tenant)
        .bind(sha256)
        .fetch_optional(&mut *self.reader().await?)
        .await
        .doing("find a sweep by its content")?;
        row.as_ref().map(known_of).transpose().doing("read a sweep")
    }

    /// The id by which people and the log know it.
    pub async fn id_of_sweep(&self, sweep: SweepRow) -> Result<String, StoreError> {
        sqlx::query_scalar("SELECT id FROM sweeps WHERE n = ?")
            .bind(sweep)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("read a sweep's id")
    }

    /// Sweeps that an earlier incarnation left between two steps: not complete, not put away, or
    /// not released.
    pub async fn half_done_sweeps(&self) -> Result<Vec<(KnownSweep, TenantRow)>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT tenant_id, {KNOWN} FROM sweeps WHERE n IN (
                 SELECT n FROM sweeps WHERE filed = 0 UNION ALL SELECT n FROM sweeps WHERE released = 0 AND state = 'open')
             ORDER BY n"
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
