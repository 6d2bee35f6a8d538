//! Calls that a command makes beside the daemon, or without one: they count like the daemon's own.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::slots::{BudgetRow, Stamp, ensure_budget, may_take, take};
use super::tenants::{TenantRow, ensure};
use super::throttles::silent_until;
use super::{Doing, Store, StoreError};
use crate::domain::id::{Epoch, SlotId, TenantName};
use crate::domain::ledger::{Admission, CallKind, HOUR, Limits, MARGIN, MINUTE, Window};
use crate::domain::time::{Boot, BootId, Wall};

/// Why a command may not make a call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// The ledger does not admit it.
    Full(Admission),
    /// Defender has asked for silence until then.
    Silent(Boot),
}

/// What a command's call goes by.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Of which registration.
    pub budget: BudgetRow,
    /// Which kind of call.
    pub kind: CallKind,
    /// What the ledger may admit.
    pub limits: Limits,
    /// No silence is believed to be longer.
    pub longest_pause: Duration,
    /// This boot.
    pub boot_id: BootId,
    /// Its clock.
    pub boot: Boot,
    /// The wall clock.
    pub at: Wall,
}

impl Store {
    /// The row of a tenant and the budget of an app registration, made if they are new. What the daemon
    /// holds to be the tenant's budget stays as it is: its configuration may be another by now.
    pub async fn errand_budget(
        &self,
        tenant: &TenantName,
        registration: &str,
    ) -> Result<(TenantRow, BudgetRow), StoreError> {
        let (tenant, registration) = (tenant.clone(), registration.to_owned());
        self.write(move |connection| {
            Box::pin(async move {
                let row = ensure(connection, &tenant).await?;
                Ok((row, ensure_budget(connection, &registration).await?))
            })
        })
        .await
    }

    /// Takes a slot for a command's call, if no silence stands and the ledger admits one. It is the last
    /// incarnation's, which may have ended: the next start settles it, should the command be killed.
    pub async fn errand_slot(&self, errand: Errand) -> Result<Result<SlotId, NotNow>, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let epoch: Option<i64> = sqlx::query_scalar("SELECT max(epoch) FROM incarnations")
                    .fetch_one(&mut *connection)
                    .await
                    .doing("find the last run")?;
                let Some(epoch) = epoch else {
                    return Err(StoreError::Guard("the daemon has never run; start it first".to_owned()));
                };
                let Errand { budget, kind, limits, boot, .. } = errand;
                if let Some(until) = silent_until(connection, budget, kind, &errand.boot_id, boot).await? {
                    return Ok(Err(NotNow::Silent(until.min(boot + errand.longest_pause))));
                }
                let admission = match foreign_boots(connection, &errand).await? {
                    0 => may_take(connection, budget, kind, limits, boot).await?,
                    earlier => beside_earlier(connection, &errand, earlier).await?,
                };
                if admission != Admission::Open {
                    return Ok(Err(NotNow::Full(admission)));
                }
                let stamp = Stamp { epoch: Epoch(epoch), boot_id: errand.boot_id, boot, at: errand.at };
                take(connection, budget, kind, &stamp).await.map(Ok)
            })
        })
        .await
    }
}

/// Slots of other boots. The daemon's start carries them over to its own; until it ran on this boot,
/// their times are on clocks that are gone.
async fn foreign_boots(connection: &mut SqliteConnection, errand: &Errand) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT count(*) FROM slots WHERE budget_id = ? AND kind = ? AND boot_id <> ?")
        .bind(errand.budget.0)
        .bind(errand.kind.as_str())
        .bind(&errand.boot_id.0)
        .fetch_one(connection)
        .await
        .doing("read the ledger")
}

/// The same question where the daemon has not run since this boot: every slot of an earlier one counts
/// as if its call were made now.
async fn beside_earlier(
    connection: &mut SqliteConnection,
    errand: &Errand,
    earlier: i64,
) -> Result<Admission, StoreError> {
    let limits = errand.limits;
    for (window, length, limit) in [(Window::Minute, MINUTE, limits.per_minute), (Window::Hour, HOUR, limits.per_hour)]
    {
        let ours: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM slots WHERE budget_id = ? AND kind = ? AND boot_id = ? AND settles_boot > ?",
        )
        .bind(errand.budget.0)
        .bind(errand.kind.as_str())
        .bind(&errand.boot_id.0)
        .bind((errand.boot - length - MARGIN).0)
        .fetch_one(&mut *connection)
        .await
        .doing("read the ledger")?;
        if ours.saturating_add(earlier) >= i64::from(limit.get()) {
            return Ok(Admission::WhenSettled(window));
        }
    }
    Ok(Admission::Open)
}
