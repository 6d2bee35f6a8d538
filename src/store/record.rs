//! The record, read from its start by whoever checks it.

use sqlx::{ConnectOptions, Row, SqliteConnection};

use super::archives::{self, Archive};
use super::events::{Exported, Head, exported};
use super::landmark::Landmark;
use super::{Doing, Store, StoreError, View, options};

/// The record and its archives as they stood at one moment: what is written, archived or removed meanwhile is not seen.
#[derive(Debug)]
pub struct Record {
    connection: SqliteConnection,
}

impl Store {
    /// Where the daemon of this state folder has noted last that the record stood; `None` where there is no note. Read
    /// it before [`Store::record_now`]: a later one may be of a later record.
    pub fn noted_head(&self) -> Result<Option<Head>, StoreError> {
        self.path.parent().map_or(Ok(None), Landmark::noted)
    }

    /// The record as it stands from the first reading of it.
    pub async fn record_now(&self) -> Result<Record, StoreError> {
        // A connection of its own: one of the pool would go back to it with its transaction.
        let mut connection = options(&self.path).read_only(true).connect().await.doing("open the record")?;
        sqlx::query("BEGIN").execute(&mut connection).await.doing("begin to read the record")?;
        Ok(Record { connection })
    }
}

impl Record {
    /// The archived segments, oldest first, as the database notes them.
    pub async fn archives(&mut self) -> Result<Vec<Archive>, StoreError> {
        archives::all(&mut self.connection).await
    }

    /// Recomputes the chain as [`View::verify_record`] does, and hands each event that fits to `each`.
    pub async fn verify(&mut self, each: impl FnMut(&Exported)) -> Result<Result<Head, i64>, StoreError> {
        verify(&mut self.connection, each).await
    }
}

impl View {
    /// Recomputes the chain from its start, or from the end of what was archived. Returns the head, or the first event
    /// that does not fit.
    pub async fn verify_record(&self) -> Result<Result<Head, i64>, StoreError> {
        verify(&mut *self.reader().await?, |_| ()).await
    }
}

async fn verify(
    connection: &mut SqliteConnection,
    mut each: impl FnMut(&Exported),
) -> Result<Result<Head, i64>, StoreError> {
    // What was archived is checked where it is; what of it is still here is about to be removed.
    let mut previous = archives::archived(connection).await?;
    loop {
        let rows = sqlx::query(
            "SELECT seq, at, kind, tenant_id, job_id, machine, body, hash FROM events WHERE seq > ? ORDER BY seq LIMIT 1000",
        )
        .bind(previous.seq)
        .fetch_all(&mut *connection)
        .await
        .doing("read the record")?;
        if rows.is_empty() {
            return Ok(Ok(previous));
        }
        for row in rows {
            let seq = row.try_get("seq").doing("read the record")?;
            let event = exported(&row).doing("read the record")?;
            if !event.follows(&previous) {
                return Ok(Err(seq));
            }
            each(&event);
            previous = Head { seq, hash: event.hash };
        }
    }
}
