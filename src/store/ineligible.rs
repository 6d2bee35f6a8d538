//! Machines that Defender's own list shows as not worth asking: kept while the list is at hand.

use sqlx::SqliteConnection;

use super::tenants::TenantRow;
use super::{Doing, Store, StoreError};
use crate::domain::eligibility::Ineligible;
use crate::domain::id::MachineId;
use crate::domain::time::Wall;

/// Why a machine need not be asked, if the list said so.
pub(crate) async fn why(
    connection: &mut SqliteConnection,
    tenant: TenantRow,
    machine: MachineId,
) -> Result<Option<Ineligible>, StoreError> {
    let why: Option<String> = sqlx::query_scalar("SELECT why FROM ineligible WHERE tenant_id = ? AND machine = ?")
        .bind(tenant)
        .bind(machine.bytes().to_vec())
        .fetch_optional(connection)
        .await
        .doing("look for a machine in the list")?;
    Ok(why.and_then(|why| why.parse().ok()))
}

impl Store {
    /// Takes in a page of a list that was begun at `at`.
    pub async fn note_ineligible(
        &self,
        tenant: TenantRow,
        machines: Vec<(MachineId, Ineligible)>,
        at: Wall,
    ) -> Result<(), StoreError> {
        for some in machines.chunks(1000) {
            let some: Vec<_> = some.iter().map(|(id, why)| (id.to_string(), why.as_str())).collect();
            let some = serde_json::json!(some).to_string();
            self.write(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO ineligible (tenant_id, machine, why, listed_at)
                         SELECT ?1, unhex(value ->> 0), value ->> 1, ?2 FROM json_each(?3) WHERE true
                         ON CONFLICT (tenant_id, machine) DO UPDATE SET why = excluded.why, listed_at = ?2",
                    )
                    .bind(tenant)
                    .bind(at.0)
                    .bind(some)
                    .execute(connection)
                    .await
                    .doing("note machines that need not be asked")
                    .map(drop)
                })
            })
            .await?;
        }
        Ok(())
    }

    /// The list that was begun at `at` is whole: forgets what it did not show. Returns how many are left.
    pub async fn end_ineligible(&self, tenant: TenantRow, at: Wall) -> Result<u64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM ineligible WHERE tenant_id = ? AND listed_at <> ?")
                    .bind(tenant)
                    .bind(at.0)
                    .execute(&mut *connection)
                    .await
                    .doing("forget what a list did not show")?;
                let n: i64 = sqlx::query_scalar("SELECT count(*) FROM ineligible WHERE tenant_id = ?")
                    .bind(tenant)
                    .fetch_one(connection)
                    .await
                    .doing("count machines that need not be asked")?;
                Ok(u64::try_from(n).unwrap_or(0))
            })
        })
        .await
    }
}
