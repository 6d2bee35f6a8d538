//! The ledger on disk: one row for each call that may still count at the server.

use std::num::NonZeroU32;
use std::time::Duration;

use sqlx::SqliteConnection;

use super::tenants::TenantRow;
use super::{Doing, Store, StoreError, View};
use crate::domain::id::{Epoch, SlotId};
use crate::domain::ledger::{Admission, CallKind, HOUR, Limits, MARGIN, MINUTE, Nth, Used, admission};
use crate::domain::time::{Boot, BootId, Wall};

/// Everything a slot is stamped with.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Which incarnation takes it.
    pub epoch: Epoch,
    /// Which boot.
    pub boot_id: BootId,
    /// The boot clock.
    pub boot: Boot,
    /// The wall clock.
    pub at: Wall,
}

/// A row of `budgets`: what one app registration may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetRow(pub i64);

/// The budget of an app registration, made if it is new.
pub(crate) async fn ensure_budget(
    connection: &mut SqliteConnection,
    registration: &str,
) -> Result<BudgetRow, StoreError> {
    sqlx::query("INSERT INTO budgets (registration) VALUES (?) ON CONFLICT (registration) DO NOTHING")
        .bind(registration)
        .execute(&mut *connection)
        .await
        .doing("add a budget")?;
    sqlx::query_scalar("SELECT id FROM budgets WHERE registration = ?")
        .bind(registration)
        .fetch_one(connection)
        .await
        .doing("find a budget")
        .map(BudgetRow)
}

/// The tenants that spend from a budget.
pub(crate) async fn tenants_of(
    connection: &mut SqliteConnection,
    budget: BudgetRow,
) -> Result<Vec<TenantRow>, StoreError> {
    sqlx::query_scalar("SELECT id FROM tenants WHERE budget_id = ? ORDER BY id")
        .bind(budget.0)
        .fetch_all(connection)
        .await
        .doing("find who spends from a budget")
}

async fn nth(
    connection: &mut SqliteConnection,
    budget: BudgetRow,
    kind: CallKind,
    limit: NonZeroU32,
) -> Result<Nth, StoreError> {
    let settles: Option<i64> = sqlx::query_scalar(
        "SELECT settles_boot FROM slots WHERE budget_id = ? AND kind = ? ORDER BY settles_boot DESC LIMIT 1 OFFSET ?",
    )
    .bind(budget.0)
    .bind(kind.as_str())
    .bind(i64::from(limit.get()) - 1)
    .fetch_optional(connection)
    .await
    .doing("read the ledger")?;
    Ok(match settles {
        None => Nth::Absent,
        Some(i64::MAX) => Nth::Unsettled,
        Some(at) => Nth::Settled(Boot(at)),
    })
}

/// Whether one more call of `kind` may be made.
pub(crate) async fn may_take(
    connection: &mut SqliteConnection,
    budget: BudgetRow,
    kind: CallKind,
    limits: Limits,
    now: Boot,
) -> Result<Admission, StoreError> {
    let minute = nth(connection, budget, kind, limits.per_minute).await?;
    let hour = nth(connection, budget, kind, limits.per_hour).await?;
    Ok(admission(minute, hour, now))
}

/// Takes a slot. Whoever calls this has asked [`may_take`] in the same transaction.
pub(crate) async fn take(
    connection: &mut SqliteConnection,
    budget: BudgetRow,
    kind: CallKind,
    stamp: &Stamp,
) -> Result<SlotId, StoreError> {
    sqlx::query_scalar(
        "INSERT INTO slots (budget_id, kind, epoch, boot_id, taken_boot, taken_at) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(budget.0)
    .bind(kind.as_str())
    .bind(stamp.epoch.0)
    .bind(&stamp.boot_id.0)
    .bind(stamp.boot.0)
    .bind(stamp.at.0)
    .fetch_one(connection)
    .await
    .doing("take a slot")
    .map(SlotId)
}

/// The call of a slot has settled, or will have at a time to come.
pub(crate) async fn settle(connection: &mut SqliteConnection, slot: SlotId, settles: Boot) -> Result<(), StoreError> {
    let touched = sqlx::query("UPDATE slots SET settles_boot = ? WHERE id = ? AND settles_boot = 9223372036854775807")
        .bind(settles.0)
        .bind(slot.0)
        .execute(connection)
        .await
        .doing("settle a slot")?
        .rows_affected();
    if touched == 1 { Ok(()) } else { Err(StoreError::Guard(format!("slot {} was settled before", slot.0))) }
}

/// A slot that was taken so long after the time of whoever asks was taken by another clock.
const ANOTHER_CLOCK: Duration = Duration::from_secs(10);

impl View {
    /// Asks the ledger without taking anything.
    pub async fn admission(
        &self,
        budget: BudgetRow,
        kind: CallKind,
        limits: Limits,
        now: Boot,
    ) -> Result<Admission, StoreError> {
        may_take(&mut *self.reader().await?, budget, kind, limits, now).await
    }
}

impl Store {
    /// Takes a slot for a call that is not a scan, if the ledger admits one.
    pub async fn take_slot(
        &self,
        budget: BudgetRow,
        kind: CallKind,
        limits: Limits,
        stamp: Stamp,
    ) -> Result<Result<SlotId, Admission>, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                match may_take(connection, budget, kind, limits, stamp.boot).await? {
                    Admission::Open => take(connection, budget, kind, &stamp).await.map(Ok),
                    wait => Ok(Err(wait)),
                }
            })
        })
        .await
    }
}

impl View {
    /// How many calls counted at `now`, those on the wire included: never more than the ledger had
    /// admitted by then.
    pub async fn used(&self, budget: BudgetRow, kind: CallKind, now: Boot) -> Result<Used, StoreError> {
        let now = self.as_taken(budget, kind, now).await?;
        self.settled_between(budget, kind, now, i64::MAX).await
    }

    /// How many calls have been answered within each window: at a 429, what was ours of it.
    pub async fn answered(&self, budget: BudgetRow, kind: CallKind, now: Boot) -> Result<Used, StoreError> {
        self.settled_between(budget, kind, now, now.0).await
    }

    async fn settled_between(
        &self,
        budget: BudgetRow,
        kind: CallKind,
        now: Boot,
        latest: i64,
    ) -> Result<Used, StoreError> {
        let mut reader = self.reader().await?;
        let mut count = async |window: Duration| {
            // Time goes on between the reading of the clock and the count: a slot that was taken since may
            // have the place of one that counted then, and not both count. Of an earlier boot's clock nobody
            // can tell, and an earlier incarnation takes none.
            let n: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM slots WHERE budget_id = ? AND kind = ? AND settles_boot > ? AND settles_boot <= ?
                     AND NOT (taken_boot > ? AND epoch = (SELECT max(epoch) FROM incarnations))",
            )
            .bind(budget.0)
            .bind(kind.as_str())
            .bind((now - window - MARGIN).0)
            .bind(latest)
            .bind(now.0)
            .fetch_one(&mut *reader)
            .await
            .doing("count the budget")?;
            Ok::<u32, StoreError>(u32::try_from(n).unwrap_or(u32::MAX))
        };
        Ok(Used { minute: count(MINUTE).await?, hour: count(HOUR).await? })
    }

    /// `now`, or when the last slot was taken, if that is well ahead of it: then the daemon's boot clock is another than
    /// this command's (a namespace of its own, a library that sets clocks), and to it the budget would look unused.
    async fn as_taken(&self, budget: BudgetRow, kind: CallKind, now: Boot) -> Result<Boot, StoreError> {
        let latest: Option<i64> = sqlx::query_scalar(
            "SELECT max(taken_boot) FROM slots WHERE budget_id = ? AND kind = ?
                 AND epoch = (SELECT max(epoch) FROM incarnations)",
        )
        .bind(budget.0)
        .bind(kind.as_str())
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("read when the last call was taken")?;
        Ok(latest.map(Boot).filter(|latest| *latest > now + ANOTHER_CLOCK).unwrap_or(now))
    }

    /// When the slots that still count settled, oldest first; those on the wire as of `now`.
    pub async fn held(&self, budget: BudgetRow, kind: CallKind, now: Boot) -> Result<Vec<Boot>, StoreError> {
        let rows: Vec<i64> = sqlx::query_scalar(
            "SELECT min(settles_boot, ?3) FROM slots WHERE budget_id = ?1 AND kind = ?2 AND settles_boot > ?4
             ORDER BY settles_boot",
        )
        .bind(budget.0)
        .bind(kind.as_str())
        .bind(now.0)
        .bind((now - HOUR - MARGIN).0)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("read the ledger")?;
        Ok(rows.into_iter().map(Boot).collect())
    }

    /// What the last few hundred calls took, from the taking of the slot to its settling.
    pub async fn latencies(&self, budget: BudgetRow, kind: CallKind, now: Boot) -> Result<Vec<Duration>, StoreError> {
        let rows: Vec<i64> = sqlx::query_scalar(
            "SELECT settles_boot - taken_boot FROM slots WHERE budget_id = ? AND kind = ? AND settles_boot <= ?
             ORDER BY settles_boot DESC LIMIT 300",
        )
        .bind(budget.0)
        .bind(kind.as_str())
        .bind(now.0)
        .fetch_all(&mut *self.reader().await?)
        .await
        .doing("read what calls took")?;
        // Of a slot that was taken before this boot nobody knows.
        Ok(rows.into_iter().filter_map(|took| u64::try_from(took).ok()).map(Duration::from_millis).collect())
    }
}

impl Store {
    /// The budget of a tenant's app registration, made if it is new.
    pub async fn budget(&self, tenant: TenantRow, registration: &str) -> Result<BudgetRow, StoreError> {
        let registration = registration.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let budget = ensure_budget(connection, &registration).await?;
                sqlx::query("UPDATE tenants SET budget_id = ? WHERE id = ?")
                    .bind(budget.0)
                    .bind(tenant)
                    .execute(connection)
                    .await
                    .doing("give a tenant its budget")?;
                Ok(budget)
            })
        })
        .await
    }
}

impl View {
    /// The budget of a tenant's app registration, if its lane ever ran.
    pub async fn budget_of(&self, tenant: TenantRow) -> Result<Option<BudgetRow>, StoreError> {
        sqlx::query_scalar("SELECT budget_id FROM tenants WHERE id = ?")
            .bind(tenant)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("find a tenant's budget")
            .map(|row: Option<i64>| row.map(BudgetRow))
    }
}

impl Store {
    /// Forgets slots that can count in no window any more. Not before the sign-in has told their age: a
    /// boot clock that jumped makes all of them look old.
    pub async fn forget_old_slots(&self, budget: BudgetRow, now: Boot) -> Result<(), StoreError> {
        let kinds = serde_json::json!(CallKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>()).to_string();
        self.write(move |connection| {
            Box::pin(async move {
                // By budget and kind, as the index has them: the table may hold millions.
                sqlx::query(
                    "DELETE FROM slots WHERE budget_id = ? AND kind IN (SELECT value FROM json_each(?))
                         AND settles_boot < ?",
                )
                .bind(budget.0)
                .bind(kinds)
                .bind((now - HOUR * 2).0)
                .execute(connection)
                .await
                .doing("forget old slots")
                .map(drop)
            })
        })
        .await
    }
}
