//! What the clock of a sign-in server tells of the ledger: how old the calls of earlier incarnations are,
//! over a reboot, on another machine, and where the boot clock itself was set.
//!
//! The age of a call is the lesser of what our boot clock and the server's clock make of it. A slot is
//! *stamped* once with what the server's clock had when it settled, by the sign-in before it; each sign-in
//! after that holds the stamp against the server's time of then. Both are taken so that clocks that
//! disagree a little make a call younger, and stamps are never made anew, so that nothing adds up.

use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::slots::BudgetRow;
use super::{Doing, Store, StoreError};
use crate::domain::time::{Boot, BootId, ServerTime, Wall, millis};

/// A stamp beyond any time: the next sign-in's time takes its place.
pub(crate) const NOT_KNOWN: Wall = Wall(4_000_000_000_000_000);

impl Store {
    /// Notes what time a sign-in server has, and has the ledger go by it.
    ///
    /// Returns by how much this boot's clock jumped ahead since the server was asked last: so much later
    /// ends a silence, too.
    pub async fn server_time(
        &self,
        boot_id: &BootId,
        budget: BudgetRow,
        seen: ServerTime,
        unknown_grace: Duration,
    ) -> Result<Duration, StoreError> {
        let boot_id = boot_id.clone();
        self.write(move |connection| {
            Box::pin(async move {
                // By the sign-in before: this one tells what has happened since.
                stamp(connection, budget).await?;
                let before = note(connection, &boot_id, budget, seen).await?;
                let Before::Runs(before) = before else { return Ok(Duration::ZERO) };
                age(connection, budget, seen, unknown_grace).await?;
                let ahead = before.map_or(Duration::ZERO, |before| seen.boot_ahead_since(&before));
                if !ahead.is_zero() {
                    prolong_silences(connection, budget, ahead, seen.answered).await?;
                }
                Ok(ahead)
            })
        })
        .await
    }

    /// Notes whether a registration's servers have a clock that runs as this machine's does. One that
    /// does not tells no ages.
    pub async fn server_runs(&self, boot_id: &BootId, budget: BudgetRow, runs: bool) -> Result<(), StoreError> {
        let boot_id = boot_id.clone();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE boots SET runs = ? WHERE boot_id = ? AND budget_id = ?")
                    .bind(runs)
                    .bind(&boot_id.0)
                    .bind(budget.0)
                    .execute(connection)
                    .await
                    .doing("note the pace of the server's clock")
                    .map(drop)
            })
        })
        .await
    }
}

/// Stamps what has settled since, by the clock of the sign-in server as it was seen on that boot.
pub(crate) async fn stamp(connection: &mut SqliteConnection, budget: BudgetRow) -> Result<(), StoreError> {
    let rounding = ServerTime { asked: Boot(0), answered: Boot(0), date: Wall(0) }.latest();
    sqlx::query(
        "UPDATE slots SET settled_server = boots.date_at + ? + (slots.settles_boot - boots.asked) FROM boots
         WHERE slots.budget_id = ? AND boots.boot_id = slots.boot_id AND boots.budget_id = slots.budget_id
           AND slots.settled_server IS NULL AND slots.settles_boot < 9223372036854775807",
    )
    .bind(rounding.0)
    .bind(budget.0)
    .execute(connection)
    .await
    .doing("stamp slots with the server's time")
    .map(drop)
}

/// What was known of a server's clock on this boot.
enum Before {
    /// It runs as ours does, as far as is known; and what it had last.
    Runs(Option<ServerTime>),
    /// It does not.
    DoesNotRun,
}

async fn note(
    connection: &mut SqliteConnection,
    boot_id: &BootId,
    budget: BudgetRow,
    seen: ServerTime,
) -> Result<Before, StoreError> {
    let before = sqlx::query("SELECT asked, answered, date_at, runs FROM boots WHERE boot_id = ? AND budget_id = ?")
        .bind(&boot_id.0)
        .bind(budget.0)
        .fetch_optional(&mut *connection)
        .await
        .doing("read the server's time")?;
    sqlx::query(
        "INSERT INTO boots (boot_id, budget_id, asked, answered, date_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET asked = excluded.asked, answered = excluded.answered, date_at = excluded.date_at",
    )
    .bind(&boot_id.0)
    .bind(budget.0)
    .bind(seen.asked.0)
    .bind(seen.answered.0)
    .bind(seen.date.0)
    .execute(connection)
    .await
    .doing("note the server's time")?;
    let Some(before) = before else { return Ok(Before::Runs(None)) };
    let read = || {
        if !before.try_get("runs")? {
            return Ok(Before::DoesNotRun);
        }
        let (asked, answered) = (Boot(before.try_get("asked")?), Boot(before.try_get("answered")?));
        Ok(Before::Runs(Some(ServerTime { asked, answered, date: Wall(before.try_get("date_at")?) })))
    };
    read().doing("read the server's time")
}

/// What the start could not tell the age of, since it settled at or after it by this clock, has the age
/// that the server's clock says; everything else the lesser of both.
async fn age(
    connection: &mut SqliteConnection,
    budget: BudgetRow,
    seen: ServerTime,
    unknown_grace: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE slots SET settles_boot = aged.settles, taken_boot = taken_boot + (aged.settles - slots.settles_boot),
             settled_server = min(settled_server, ?5)
         FROM (SELECT id, CASE WHEN settles_boot >= (SELECT started_boot FROM incarnations ORDER BY epoch DESC LIMIT 1)
                          THEN by_server ELSE max(settles_boot, by_server) END AS settles
               FROM (SELECT id, settles_boot, min(?1 - (?2 - settled_server), ?3) AS by_server FROM slots
                     WHERE budget_id = ?4 AND settled_server IS NOT NULL)) AS aged
         WHERE slots.id = aged.id AND (aged.settles <> slots.settles_boot OR settled_server > ?5)",
    )
    .bind(seen.answered.0)
    .bind(seen.earliest().0)
    // A call that was given up a moment ago may still arrive.
    .bind((seen.answered + unknown_grace).0)
    .bind(budget.0)
    .bind((seen.latest() + unknown_grace).0)
    .execute(connection)
    .await
    .doing("age the slots of earlier incarnations")
    .map(drop)
}

async fn prolong_silences(
    connection: &mut SqliteConnection,
    budget: BudgetRow,
    ahead: Duration,
    now: Boot,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE silences SET until_boot = min(until_boot + ?, ? + length_ms) WHERE budget_id = ?")
        .bind(millis(ahead))
        .bind(now.0)
        .bind(budget.0)
        .execute(connection)
        .await
        .doing("make silences end later")
        .map(drop)
}
