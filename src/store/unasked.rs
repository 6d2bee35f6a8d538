//! What the files of the last hour brought that nobody was asked about.
//!
//! A list that was cut into pieces loads the machines as much as a whole one, so it is the sum that is held.
//! What is held, or was let go by an operator, is not in it: somebody looks at it, or has.

use sqlx::SqliteConnection;

use super::slots::Stamp;
use super::sweeps::{Machines, SweepRow};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError};

const HOUR_MS: i64 = 3_600_000;

/// What a sweep asks for, against which the limits of `[intake]` are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// By itself.
    pub alone: Machines,
    /// With what came before it within the hour, each machine once.
    pub within_the_hour: Machines,
}

/// What a sweep asks for. Counts what is in the table: [`Store::forget_unasked`] goes before.
pub(crate) async fn asked(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
) -> Result<Asked, StoreError> {
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let (quick, full): (i64, i64) = sqlx::query_as("SELECT queued - full, full FROM sweeps WHERE n = ?")
        .bind(sweep)
        .fetch_one(&mut *connection)
        .await
        .doing("count a sweep's machines")?;
    let own = Machines { quick: number(quick), full: number(full) };
    let (quick, full): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(quick), 0), coalesce(sum(full), 0) FROM unasked WHERE tenant_id = ? AND sweep_n <> ?",
    )
    .bind(tenant)
    .bind(sweep)
    .fetch_one(&mut *connection)
    .await
    .doing("count the machines of the last hour")?;
    let mut asked = Asked { alone: own, within_the_hour: own };
    asked.within_the_hour.quick += number(quick);
    asked.within_the_hour.full += number(full);
    let joined: Vec<(String, bool, i64)> = sqlx::query_as(
        "SELECT jobs.scan_type, jobs.sweep_n IN (SELECT sweep_n FROM unasked), count(*)
         FROM joins CROSS JOIN jobs ON jobs.id = joins.job_id WHERE joins.sweep_n = ? GROUP BY 1, 2",
    )
    .bind(sweep)
    .fetch_all(connection)
    .await
    .doing("count a sweep's joined machines")?;
    for (scan, counted, n) in joined {
        let n = number(n);
        let of = |machines: &mut Machines| if scan == "Full" { machines.full += n } else { machines.quick += n };
        of(&mut asked.alone);
        if !counted {
            of(&mut asked.within_the_hour);
        }
    }
    Ok(asked)
}

/// A sweep is let go unasked.
pub(crate) async fn note(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    now: &Stamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO unasked (sweep_n, tenant_id, quick, full, at, boot, boot_id)
         SELECT n, ?, queued - full, full, ?, ?, ? FROM sweeps WHERE n = ?",
    )
    .bind(tenant)
    .bind(now.at.0)
    .bind(now.boot.0)
    .bind(&now.boot_id.0)
    .bind(sweep)
    .execute(connection)
    .await
    .doing("note what nobody was asked about")
    .map(drop)
}

impl Store {
    /// Forgets what is more than an hour old. Within one boot its clock tells, which nobody can step. What was
    /// before this boot is forgotten once this boot is an hour old, or the wall clock says so.
    pub async fn forget_unasked(&self, now: &Stamp) -> Result<(), StoreError> {
        const OLD: &str = "FROM unasked WHERE iif(boot_id = ?1, boot <= ?2, ?2 >= 0 OR at <= ?3)";
        let (boot, at) = (now.boot.0.saturating_sub(HOUR_MS), now.at.0.saturating_sub(HOUR_MS));
        let some: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 {OLD})")))
            .bind(&now.boot_id.0)
            .bind(boot)
            .bind(at)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("look at the last hour")?;
        if !some {
            return Ok(());
        }
        let boot_id = now.boot_id.0.clone();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(sqlx::AssertSqlSafe(format!("DELETE {OLD}")))
                    .bind(boot_id)
                    .bind(boot)
                    .bind(at)
                    .execute(connection)
                    .await
                    .doing("forget what is past")
                    .map(drop)
            })
        })
        .await
    }

    /// What a sweep asks for.
    pub async fn asked(&self, tenant: TenantRow, sweep: SweepRow) -> Result<Asked, StoreError> {
        asked(&mut *self.reader().await?, tenant, sweep).await
    }
}
