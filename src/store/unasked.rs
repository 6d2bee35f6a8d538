//! What the files of the last hour brought that nobody was asked about.
//!
//! A list that was cut into pieces loads the machines as much as a whole one, so it is the sum that is held.
//! What is held, or was let go by an operator, is not in it: somebody looks at it, or has.

use sqlx::SqliteConnection;

use super::slots::Stamp;
use super::sweeps::{Machines, SweepRow};
use super::tenants::TenantRow;
use super::{Doing, Store, StoreError};
use crate::domain::time::Wall;

const HOUR_MS: i64 = 3_600_000;

/// What a sweep asks for, against which the limits of `[intake]` are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// By itself.
    pub alone: Machines,
    /// With what came before it within the hour, each machine once.
    pub within_the_hour: Machines,
    /// What of it has to wait.
    pub waiting: Waiting,
}

/// Machines of a sweep that are not to be scanned yet, those of jobs it joined included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub machines: u64,
    /// When the first of them may be scanned.
    pub earliest: Option<Wall>,
    /// When the last of them may be scanned.
    pub latest: Option<Wall>,
}

/// What of a sweep is not to be scanned at `now` yet. Of two requests for one machine the earlier time counts.
async fn waiting(connection: &mut SqliteConnection, sweep: SweepRow, now: Wall) -> Result<Waiting, StoreError> {
    let some: bool = sqlx::query_scalar("SELECT coalesce(latest_not_before, 0) > ? FROM sweeps WHERE n = ?")
        .bind(now.0)
        .bind(sweep)
        .fetch_one(&mut *connection)
        .await
        .doing("look for machines that wait")?;
    if !some {
        return Ok(Waiting::default());
    }
    let (machines, earliest, latest): (i64, Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT count(*), min(at), max(at) FROM (
             SELECT not_before AS at FROM jobs WHERE sweep_n = ?1 AND state = 'queued'
             UNION ALL
             SELECT min(coalesce(jobs.not_before, 0), coalesce(joins.not_before, 0))
             FROM joins CROSS JOIN jobs ON jobs.id = joins.job_id WHERE joins.sweep_n = ?1 AND jobs.state = 'queued'
         ) WHERE at > ?2",
    )
    .bind(sweep)
    .bind(now.0)
    .fetch_one(connection)
    .await
    .doing("count the machines that wait")?;
    Ok(Waiting {
        machines: u64::try_from(machines).unwrap_or(0),
        earliest: earliest.map(Wall),
        latest: latest.map(Wall),
    })
}

/// What a sweep that is not noted yet asks for. Counts what is in the table: [`Store::forget_unasked`] goes before.
pub(crate) async fn asked(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    sweep: SweepRow,
    now: Wall,
) -> Result<Asked, StoreError> {
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let (quick, full): (i64, i64) = sqlx::query_as("SELECT queued - full, full FROM sweeps WHERE n = ?")
        .bind(sweep)
        .fetch_one(&mut *connection)
        .await
        .doing("count a sweep's machines")?;
    let own = Machines { quick: number(quick), full: number(full) };
    let (quick, full) = sqlx::query_as::<_, (i64, i64)>("SELECT quick, full FROM unasked_sums WHERE tenant_id = ?")
        .bind(tenant)
        .fetch_optional(&mut *connection)
        .await
        .doing("count the machines of the last hour")?
        .unwrap_or_default();
    let waiting = waiting(&mut *connection, sweep, now).await?;
    let mut asked = Asked { alone: own, within_the_hour: own, waiting };
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

/// What is more than an hour old at `?2` on the clock of the boot `?1`, or at `?3` on the wall: no step of it reads
/// a row that is younger, however many there are.
pub(crate) const PAST: &str = "SELECT sweep_n FROM unasked WHERE boot_id = ?1 AND boot <= ?2
     UNION ALL SELECT sweep_n FROM unasked WHERE boot_id < ?1 AND (?2 >= 0 OR at <= ?3)
     UNION ALL SELECT sweep_n FROM unasked WHERE boot_id > ?1 AND (?2 >= 0 OR at <= ?3)";

/// So many are forgotten in a transaction.
const AT_ONCE: u64 = 1000;

impl Store {
    /// Forgets what is more than an hour old. Within one boot its clock tells, which nobody can step. What was
    /// before this boot is forgotten once this boot is an hour old, or the wall clock says so.
    pub async fn forget_unasked(&self, now: &Stamp) -> Result<(), StoreError> {
        let (boot, at) = (now.boot.0.saturating_sub(HOUR_MS), now.at.0.saturating_sub(HOUR_MS));
        let some: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT EXISTS ({PAST})")))
            .bind(&now.boot_id.0)
            .bind(boot)
            .bind(at)
            .fetch_one(&mut *self.reader().await?)
            .await
            .doing("look at the last hour")?;
        let mut more = some;
        while more {
            let boot_id = now.boot_id.0.clone();
            let forgotten = self.write(move |connection| {
                Box::pin(async move {
                    let forget = format!("DELETE FROM unasked WHERE sweep_n IN ({PAST} LIMIT {AT_ONCE})");
                    sqlx::query(sqlx::AssertSqlSafe(forget))
                        .bind(boot_id)
                        .bind(boot)
                        .bind(at)
                        .execute(connection)
                        .await
                        .doing("forget what is past")
                        .map(|done| done.rows_affected())
                })
            });
            more = forgotten.await? == AT_ONCE;
        }
        Ok(())
    }

    /// What a sweep asks for, and what of it waits at `now`.
    pub async fn asked(&self, tenant: TenantRow, sweep: SweepRow, now: Wall) -> Result<Asked, StoreError> {
        asked(&mut *self.reader().await?, tenant, sweep, now).await
    }

    /// The same of a sweep whose tenant is not at hand.
    pub async fn asked_by(&self, sweep: SweepRow, now: Wall) -> Result<Asked, StoreError> {
        let mut reader = self.reader().await?;
        let tenant: TenantRow = sqlx::query_scalar("SELECT tenant_id FROM sweeps WHERE n = ?")
            .bind(sweep)
            .fetch_one(&mut *reader)
            .await
            .doing("find a sweep's tenant")?;
        asked(&mut reader, tenant, sweep, now).await
    }
}
