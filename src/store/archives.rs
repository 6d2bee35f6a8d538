//! What is old leaves the database for files outside, and the record goes on from where a segment ends.
//!
//! A segment is a stretch of the record, and the sweeps that were over by its cutoff. It is written and checked first
//! (`engine::retention`), put on record here, and only then removed, in small transactions. Whatever ends the
//! process in between, the next round goes on with what stands in `archives`.

use futures_util::TryStreamExt;
use sqlx::{Column, Row, SqliteConnection, TypeInfo, ValueRef};

use super::events::{self, Head, Kind, Subject};
use super::sweeps::SweepRow;
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, View};
use crate::domain::time::Wall;

/// So much is removed in one transaction.
pub(super) const AT_ONCE: i64 = 2000;

/// A stretch of the record that is to be archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first event.
    pub first: i64,
    /// The hash of the event before it.
    pub before: String,
    /// Its last event.
    pub last: Head,
}

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    /// Its name in the archive's folder.
    pub file: String,
    /// Of its content, in hexadecimal digits.
    pub sha256: String,
}

/// A segment that was archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// What of the record is in it.
    pub segment: Segment,
    /// Sweeps that were over by then, and actions of others, are in it too.
    pub cutoff: Wall,
    /// The events.
    pub events: Kept,
    /// The rows of the sweeps.
    pub rows: Kept,
}

/// An archive as the record tells of it, in an event of kind `archived`: the chain holds this, and whoever edits the
/// database or the files of an archive does not reach it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recorded {
    /// Its first event.
    pub first: i64,
    /// Its last event.
    pub last: i64,
    /// The hash of that.
    pub head: String,
    /// The events.
    pub events: Kept,
    /// The rows of the sweeps.
    pub rows: Kept,
    /// How many sweeps.
    pub sweeps: usize,
}

impl Recorded {
    fn of(archive: &Archive, sweeps: usize) -> Self {
        let Segment { first, last, .. } = &archive.segment;
        let (events, rows) = (archive.events.clone(), archive.rows.clone());
        Self { first: *first, last: last.seq, head: last.hash.clone(), events, rows, sweeps }
    }

    /// Whether the database notes the same archive.
    pub fn is(&self, archive: &Archive) -> bool {
        *self == Self::of(archive, self.sweeps)
    }
}

/// What removing has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Something was removed; there may be more.
    Some,
    /// Nothing is left to remove.
    Done,
}

/// Where a sweep's rows are, each with its sweep as the only parameter.
const ROWS: [(&str, &str); 8] = [
    ("sweeps", "SELECT * FROM sweeps WHERE n = ?"),
    ("jobs", "SELECT * FROM jobs WHERE sweep_n = ?"),
    ("joins", "SELECT * FROM joins WHERE sweep_n = ?"),
    ("left_out", "SELECT * FROM left_out WHERE sweep_n = ?"),
    ("attempts", "SELECT attempts.* FROM attempts JOIN jobs ON jobs.id = job_id WHERE sweep_n = ?"),
    ("withdrawn", "SELECT withdrawn.* FROM withdrawn JOIN jobs ON jobs.id = job_id WHERE sweep_n = ?"),
    ("actions", "SELECT actions.* FROM jobs JOIN actions ON actions.job_id = jobs.id WHERE sweep_n = ?"),
    (
        "cancellations",
        "SELECT cancellations.* FROM jobs JOIN actions ON actions.job_id = jobs.id JOIN cancellations
             ON cancellations.tenant_id = actions.tenant_id AND cancellations.action_id = actions.id WHERE sweep_n = ?",
    ),
];

/// Actions that are no job's, have ended, and were seen and changed last before the cutoff.
pub(super) const OTHERS: &str =
    "SELECT tenant_id, id FROM actions WHERE job_id IS NULL AND first_seen_at < ?1 AND updated_at < ?1
    AND status NOT IN ('Pending', 'InProgress')
    AND NOT EXISTS (SELECT 1 FROM cancellations WHERE cancellations.tenant_id = actions.tenant_id
        AND cancellations.action_id = actions.id AND ended_at IS NULL)";

/// How some of them are removed: both times the same ones, as their index has them, since among the writes nobody may
/// look through a table.
pub(super) const OTHERS_GO: [&str; 2] = [
    "DELETE FROM cancellations WHERE (tenant_id, action_id) IN ({OTHERS} ORDER BY first_seen_at, rowid LIMIT ?2)",
    "DELETE FROM actions WHERE (tenant_id, id) IN ({OTHERS} ORDER BY first_seen_at, rowid LIMIT ?2)",
];

fn row_of(table: &str, row: &sqlx::sqlite::SqliteRow) -> Result<serde_json::Value, sqlx::Error> {
    let mut value = serde_json::Map::new();
    value.insert("table".to_owned(), table.into());
    for column in row.columns() {
        let name = column.name();
        let raw = row.try_get_raw(name)?;
        let cell = match raw.type_info().name() {
            _ if raw.is_null() => serde_json::Value::Null,
            "INTEGER" => row.try_get::<i64, _>(name)?.into(),
            "BLOB" => events::hex(&row.try_get::<Vec<u8>, _>(name)?).into(),
            _ => row.try_get::<String, _>(name)?.into(),
        };
        value.insert(name.to_owned(), cell);
    }
    Ok(value.into())
}

impl View {
    /// The archived segments, oldest first: also those of which something is still here.
    pub async fn archives(&self) -> Result<Vec<Archive>, StoreError> {
        all(&mut *self.reader().await?).await
    }

    /// What is to be archived next: the events before `cutoff`, so many at the most, if there are any before
    /// `worth`. The last event of all is never among them.
    pub async fn next_segment(&self, cutoff: Wall, worth: Wall, most: i64) -> Result<Option<Segment>, StoreError> {
        let mut reader = self.reader().await?;
        let before = archived(&mut reader).await?;
        let first = before.seq + 1;
        let oldest: Option<i64> = sqlx::query_scalar("SELECT at FROM events WHERE seq = ?")
            .bind(first)
            .fetch_optional(&mut *reader)
            .await
            .doing("find the oldest event")?;
        if oldest.is_none_or(|at| at >= worth.0) {
            return Ok(None);
        }
        let end = events::head(&mut reader).await?.seq;
        let longest = before.seq.saturating_add(most);
        // No further than a segment may go: of a record of years, each would else look through all that is left.
        let young: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM events WHERE seq BETWEEN ? AND ? AND at >= ? ORDER BY seq LIMIT 1")
                .bind(first)
                .bind(longest)
                .bind(cutoff.0)
                .fetch_optional(&mut *reader)
                .await
                .doing("find the first event that stays")?;
        let last = young.unwrap_or(end).min(end).saturating_sub(1).min(longest);
        if last < first {
            return Ok(None);
        }
        let hash: Vec<u8> = sqlx::query_scalar("SELECT hash FROM events WHERE seq = ?")
            .bind(last)
            .fetch_one(&mut *reader)
            .await
            .doing("read the end of a segment")?;
        Ok(Some(Segment { first, before: before.hash, last: Head { seq: last, hash: events::hex(&hash) } }))
    }

    /// Sweeps that were over before `cutoff`, with everything of them told, and of which no other one that stays
    /// needs anything.
    pub async fn old_sweeps(&self, cutoff: Wall) -> Result<Vec<SweepRow>, StoreError> {
        sqlx::query_scalar(
            "SELECT n FROM sweeps WHERE state = 'done' AND reported = 1 AND filed = 1 AND archived IS NULL AND finished_at < ?
                 AND NOT EXISTS (SELECT 1 FROM sweeps AS retry WHERE retry.retry_of = sweeps.n AND retry.archived IS NULL)
                 AND NOT EXISTS (SELECT 1 FROM jobs JOIN joins ON joins.job_id = jobs.id
                     JOIN sweeps AS joined ON joined.n = joins.sweep_n
                     WHERE jobs.sweep_n = sweeps.n AND joined.archived IS NULL)
             ORDER BY n",
        )
        .bind(cutoff.0)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("find old sweeps")
    }

    /// Hands every row of these sweeps to `each`, and every action of others that is as old.
    pub async fn export_rows(
        &self,
        sweeps: &[SweepRow],
        cutoff: Wall,
        mut each: impl FnMut(serde_json::Value) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, StoreError> {
        let mut reader = self.reader().await?;
        let others = [
            ("actions", format!("SELECT * FROM actions WHERE (tenant_id, id) IN ({OTHERS})")),
            ("cancellations", format!("SELECT * FROM cancellations WHERE (tenant_id, action_id) IN ({OTHERS})")),
        ];
        let of_sweeps = sweeps.iter().flat_map(|n| ROWS.map(|(table, query)| (table, query.to_owned(), *n)));
        let all = of_sweeps.chain(others.map(|(table, query)| (table, query, cutoff.0)));
        for (table, query, of) in all.collect::<Vec<_>>() {
            let mut rows = sqlx::query(sqlx::AssertSqlSafe(query)).persistent(false).bind(of).fetch(&mut *reader);
            while let Some(row) = rows.try_next().await.doing("export what is old")? {
                if let Err(error) = each(row_of(table, &row).doing("export what is old")?) {
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(()))
    }
}

/// The archived segments, oldest first.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Archive>, StoreError> {
    let rows = sqlx::query(
        "SELECT first, before, last, hash, cutoff, events_file, events_sha256, rows_file, rows_sha256
         FROM archives ORDER BY last",
    )
    .fetch_all(connection)
    .await
    .doing("read the archives")?;
    rows.iter().map(archive_of).collect::<Result<_, _>>().doing("read an archive")
}

/// The last event that was archived; none is zero, like before the first event.
pub(super) async fn archived(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let last = sqlx::query("SELECT last, hash FROM archives ORDER BY last DESC LIMIT 1")
        .fetch_optional(connection)
        .await
        .doing("find the last archive")?;
    let Some(row) = last else { return Ok(Head::nothing()) };
    let hash: Vec<u8> = row.try_get("hash").doing("read the last archive")?;
    Ok(Head { seq: row.try_get("last").doing("read the last archive")?, hash: events::hex(&hash) })
}

fn archive_of(row: &sqlx::sqlite::SqliteRow) -> Result<Archive, sqlx::Error> {
    let hash: Vec<u8> = row.try_get("hash")?;
    Ok(Archive {
        segment: Segment {
            first: row.try_get("first")?,
            before: row.try_get("before")?,
            last: Head { seq: row.try_get("last")?, hash: events::hex(&hash) },
        },
        cutoff: Wall(row.try_get("cutoff")?),
        events: Kept { file: row.try_get("events_file")?, sha256: row.try_get("events_sha256")? },
        rows: Kept { file: row.try_get("rows_file")?, sha256: row.try_get("rows_sha256")? },
    })
}

impl Store {
    /// Puts on record that this was archived, with these sweeps. From here on it may be removed.
    pub async fn archive(&self, archive: Archive, sweeps: Vec<SweepRow>, at: Wall) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let recorded = Recorded::of(&archive, sweeps.len());
                let Archive { segment, cutoff, events: kept, rows } = archive;
                let before = archived(connection).await?;
                if before.seq + 1 != segment.first || before.hash != segment.before {
                    return Err(StoreError::Guard("another segment was archived meanwhile".to_owned()));
                }
                sqlx::query(
                    "INSERT INTO archives (first, before, last, hash, cutoff, events_file, events_sha256, rows_file, rows_sha256)
                     SELECT ?, ?, seq, hash, ?, ?, ?, ?, ? FROM events WHERE seq = ? AND hash = unhex(?)",
                )
                .bind(segment.first)
                .bind(&segment.before)
                .bind(cutoff.0)
                .bind(&kept.file)
                .bind(&kept.sha256)
                .bind(&rows.file)
                .bind(&rows.sha256)
                .bind(segment.last.seq)
                .bind(&segment.last.hash)
                .execute(&mut *connection)
                .await
                .doing("note an archive")?;
                let list = serde_json::to_string(&sweeps).map_err(|error| StoreError::Guard(error.to_string()))?;
                // Without the row above, this refers to nothing, and nothing of it stands.
                sqlx::query("UPDATE sweeps SET archived = ? WHERE n IN (SELECT value FROM json_each(?))")
                    .bind(segment.last.seq)
                    .bind(list)
                    .execute(&mut *connection)
                    .await
                    .doing("mark archived sweeps")?;
                if archived(connection).await?.seq != segment.last.seq {
                    return Err(StoreError::Guard("the end of the segment is not in the record".to_owned()));
                }
                let body =
                    serde_json::to_value(recorded).map_err(|error| StoreError::Guard(error.to_string()))?;
                events::append(connection, at, Kind::Archived, Subject::default(), &body).await
            })
        })
        .await
    }

    /// Removes some of what was archived. To be repeated until nothing is left.
    pub async fn remove_archived(&self, at: Wall) -> Result<Removal, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let archive =
                    sqlx::query("SELECT last, cutoff FROM archives WHERE removed_at IS NULL ORDER BY last LIMIT 1")
                        .fetch_optional(&mut *connection)
                        .await
                        .doing("find what to remove")?;
                let Some(row) = archive else { return Ok(Removal::Done) };
                let last: i64 = row.try_get("last").doing("read an archive")?;
                let cutoff: i64 = row.try_get("cutoff").doing("read an archive")?;
                if events_removed(connection, last).await?
                    || sweep_removed(connection, last).await?
                    || others_removed(connection, cutoff).await?
                {
                    return Ok(Removal::Some);
                }
                sqlx::query("UPDATE archives SET removed_at = ? WHERE last = ?")
                    .bind(at.0)
                    .bind(last)
                    .execute(connection)
                    .await
                    .doing("note that an archive is removed")?;
                Ok(Removal::Some)
            })
        })
        .await
    }
}

async fn events_removed(connection: &mut SqliteConnection, last: i64) -> Result<bool, StoreError> {
    let done =
        sqlx::query("DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= ? ORDER BY seq LIMIT ?)")
            .bind(last)
            .bind(AT_ONCE)
            .execute(connection)
            .await
            .doing("remove archived events")?;
    Ok(done.rows_affected() > 0)
}

/// Removes some jobs of a sweep, with all that is theirs; and the sweep, when none is left.
async fn sweep_removed(connection: &mut SqliteConnection, last: i64) -> Result<bool, StoreError> {
    const JOBS: &str = "SELECT id FROM jobs WHERE sweep_n = ?1 ORDER BY id LIMIT ?2";
    let sweep: Option<SweepRow> = sqlx::query_scalar("SELECT n FROM sweeps WHERE archived = ? ORDER BY n LIMIT 1")
        .bind(last)
        .fetch_optional(&mut *connection)
        .await
        .doing("find a sweep to remove")?;
    let Some(sweep) = sweep else { return Ok(false) };
    if lines_removed(connection, sweep).await? {
        return Ok(true);
    }
    let gone: Vec<(TenantRow, String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT tenant_id, state, count(*) FROM jobs WHERE id IN ({JOBS}) GROUP BY tenant_id, state"
    )))
    .bind(sweep)
    .bind(AT_ONCE)
    .fetch_all(&mut *connection)
    .await
    .doing("count the jobs to remove")?;
    let statements: &[&str] = if gone.is_empty() {
        &[
            "DELETE FROM unsent WHERE sweep_n = ?1 AND ?2",
            "DELETE FROM unasked WHERE sweep_n = ?1 AND ?2",
            // Asked for since: the retry stays, without what it is a retry of.
            "UPDATE sweeps SET retry_of = NULL WHERE retry_of = ?1 AND ?2",
            "DELETE FROM sweeps WHERE n = ?1 AND ?2",
        ]
    } else {
        &[
            "DELETE FROM cancellations WHERE (tenant_id, action_id) IN (
                 SELECT tenant_id, id FROM actions WHERE job_id IN ({JOBS}))",
            "DELETE FROM actions WHERE job_id IN ({JOBS})",
            "DELETE FROM attempts WHERE job_id IN ({JOBS})",
            "DELETE FROM withdrawn WHERE job_id IN ({JOBS})",
            "DELETE FROM joins WHERE job_id IN ({JOBS})",
            "DELETE FROM jobs WHERE id IN ({JOBS})",
        ]
    };
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement.replace("{JOBS}", JOBS)))
            .bind(sweep)
            .bind(AT_ONCE)
            .execute(&mut *connection)
            .await
            .doing("remove an archived sweep")?;
    }
    for (tenant, state, n) in gone {
        sqlx::query("UPDATE job_counts SET n = n - ? WHERE tenant_id = ? AND state = ?")
            .bind(n)
            .bind(tenant)
            .bind(state)
            .execute(&mut *connection)
            .await
            .doing("count the jobs that are left")?;
    }
    Ok(true)
}

/// Removes some of what a sweep joined or left out: of either it may have a million, and no job of its own.
async fn lines_removed(connection: &mut SqliteConnection, sweep: SweepRow) -> Result<bool, StoreError> {
    for statement in [
        "DELETE FROM joins WHERE sweep_n = ?1
             AND job_id IN (SELECT job_id FROM joins WHERE sweep_n = ?1 ORDER BY job_id LIMIT ?2)",
        "DELETE FROM left_out WHERE sweep_n = ?1
             AND line IN (SELECT line FROM left_out WHERE sweep_n = ?1 ORDER BY line LIMIT ?2)",
    ] {
        let done = sqlx::query(statement)
            .bind(sweep)
            .bind(AT_ONCE)
            .execute(&mut *connection)
            .await
            .doing("remove the lines of an archived sweep")?;
        if done.rows_affected() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn others_removed(connection: &mut SqliteConnection, cutoff: i64) -> Result<bool, StoreError> {
    let mut removed = 0;
    for statement in OTHERS_GO {
        let done = sqlx::query(sqlx::AssertSqlSafe(statement.replace("{OTHERS}", OTHERS)))
            .bind(cutoff)
            .bind(AT_ONCE)
            .execute(&mut *connection)
            .await
            .doing("remove archived actions")?;
        removed += done.rows_affected();
    }
    Ok(removed > 0)
}
