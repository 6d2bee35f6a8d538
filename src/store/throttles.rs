//! What 429s have shown of a budget: the silence that they ask for, and what others spend.

use std::collections::BTreeMap;

use sqlx::{Row, SqliteConnection};

use super::slots::BudgetRow;
use super::{Doing, Store, StoreError, View};
use crate::domain::ledger::CallKind;
use crate::domain::share::Foreign;
use crate::domain::silence::Change;
use crate::domain::time::{Boot, BootId, Wall, millis};

/// What is known of one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// What others are believed to spend.
    pub foreign: Foreign,
    /// When the last 429 came. By the wall clock, since that goes on over a reboot; if it is wrong,
    /// others are believed in for longer or shorter, which is all.
    pub last_429: Wall,
    /// When the last silence ends by this boot's clock, and how many there were in a row.
    pub silence: Option<(Boot, u32)>,
}

/// What an answer changed about the silence of its kind of call: to be written down with it, so that
/// a restart does not call earlier.
#[derive(Clone, Debug)]
pub struct SilenceNote {
    /// Of which registration.
    pub budget: BudgetRow,
    /// Of which kind of call.
    pub kind: CallKind,
    /// What.
    pub change: Change,
    /// On which boot's clock.
    pub boot_id: BootId,
    /// When, by that clock.
    pub boot: Boot,
}

pub(crate) async fn note_silence(connection: &mut SqliteConnection, note: &SilenceNote) -> Result<(), StoreError> {
    let SilenceNote { budget, kind, change, boot_id, boot } = note;
    match change {
        Change::None => return Ok(()),
        Change::Began(silence) | Change::Prolonged(silence) => {
            let (until, strikes) = silence.noted();
            sqlx::query(
                "INSERT INTO silences (budget_id, kind, until_boot, boot_id, length_ms, strikes) VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT (budget_id, kind) DO UPDATE SET until_boot = excluded.until_boot,
                     boot_id = excluded.boot_id, length_ms = excluded.length_ms, strikes = excluded.strikes
                 -- Answers may be written in another order than they came: a silence is not shortened.
                 WHERE boot_id <> excluded.boot_id OR until_boot < excluded.until_boot",
            )
            .bind(budget.0)
            .bind(kind.as_str())
            .bind(until.0)
            .bind(&boot_id.0)
            .bind(millis(until.since(*boot)))
            .bind(strikes)
            .execute(connection)
            .await
        }
        Change::Over(_) => {
            // Only the one that is over: the next may have been written down before.
            sqlx::query("DELETE FROM silences WHERE budget_id = ? AND kind = ? AND until_boot <= ?")
                .bind(budget.0)
                .bind(kind.as_str())
                .bind(boot.0)
                .execute(connection)
                .await
        }
    }
    .doing("note a silence")
    .map(drop)
}

/// When the silence of a kind of call ends. One of an earlier boot lasts for its own length from now, as
/// a start of the daemon would have it.
pub(crate) async fn silent_until(
    connection: &mut SqliteConnection,
    budget: BudgetRow,
    kind: CallKind,
    boot_id: &BootId,
    now: Boot,
) -> Result<Option<Boot>, StoreError> {
    let until: Option<i64> = sqlx::query_scalar(
        "SELECT CASE WHEN boot_id = ?3 THEN until_boot ELSE ?4 + length_ms END FROM silences
         WHERE budget_id = ?1 AND kind = ?2",
    )
    .bind(budget.0)
    .bind(kind.as_str())
    .bind(&boot_id.0)
    .bind(now.0)
    .fetch_optional(connection)
    .await
    .doing("read what Defender asks for")?;
    Ok(until.map(Boot).filter(|until| *until > now))
}

impl View {
    /// What is known of each kind of call.
    pub async fn learnt(&self, budget: BudgetRow) -> Result<BTreeMap<CallKind, Learnt>, StoreError> {
        let rows = sqlx::query(
            "SELECT kind, coalesce(minute, 0) AS minute, coalesce(hour, 0) AS hour,
                 coalesce(last_429_at, 0) AS last_429_at, until_boot, strikes
             FROM (SELECT * FROM foreign_calls WHERE budget_id = ?1)
                 FULL JOIN (SELECT * FROM silences WHERE budget_id = ?1) USING (kind)",
        )
        .bind(budget.0)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("read what 429s have shown")?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let until: Option<i64> = row.try_get("until_boot")?;
            let strikes: Option<u32> = row.try_get("strikes")?;
            let learnt = Learnt {
                foreign: Foreign { minute: row.try_get("minute")?, hour: row.try_get("hour")? },
                last_429: Wall(row.try_get("last_429_at")?),
                silence: until.map(Boot).zip(strikes),
            };
            Ok((super::jobs::word(row, "kind")?, learnt))
        };
        rows.iter().map(read).collect::<Result<_, _>>().doing("read what 429s have shown")
    }

    /// What others are believed to spend, by kind of call.
    pub async fn foreign(&self, budget: BudgetRow) -> Result<BTreeMap<CallKind, Foreign>, StoreError> {
        Ok(self.learnt(budget).await?.into_iter().map(|(kind, learnt)| (kind, learnt.foreign)).collect())
    }
}

impl Store {
    /// Notes what others are believed to spend, and when the last 429 showed it. Not an event: the 429
    /// is one.
    pub async fn note_foreign(
        &self,
        budget: BudgetRow,
        kind: CallKind,
        foreign: Foreign,
        last_429: Wall,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT OR REPLACE INTO foreign_calls (budget_id, kind, minute, hour, last_429_at)
                     VALUES (?, ?, ?, ?, ?)",
                )
                .bind(budget.0)
                .bind(kind.as_str())
                .bind(foreign.minute)
                .bind(foreign.hour)
                .bind(last_429.0)
                .execute(connection)
                .await
                .doing("note what others spend")
                .map(drop)
            })
        })
        .await
    }
}
