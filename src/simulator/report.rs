//! What the simulation saw: the judge's notes after a test.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tenant::Tenant;
use crate::domain::ledger::{HOUR, MINUTE};
use crate::domain::time::Wall;

/// What every tenant saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In the order of the options.
    pub tenants: Vec<TenantReport>,
    /// Requests that belong to no tenant: an unknown directory, or a token that nobody issued where
    /// there are several tenants.
    pub stray_requests: u64,
    /// Requests that came on a connection that had carried another one.
    pub requests_on_used_connections: u64,
}

/// What one tenant saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantReport {
    /// The directory's id.
    pub tenant_id: String,
    /// Tokens that were issued.
    pub sign_ins: u64,
    /// Sign-ins that were refused.
    pub sign_ins_refused: u64,
    /// Per kind of call, by its name (`scan`, `list_actions`, …).
    pub calls: BTreeMap<String, KindReport>,
    /// Actions that the public API created, those whose answers a fault kept back included.
    pub scans_created: usize,
    /// The same per machine.
    pub scans_per_machine: BTreeMap<String, u32>,
    /// Calls for a scan that arrived, per machine that they name, whatever became of them.
    pub scan_calls_per_machine: BTreeMap<String, u32>,
    /// Scans that somebody else started.
    pub foreign_scans: usize,
    /// Calls on a busy machine that were answered with the action that is pending.
    pub existing_returned: u64,
    /// Actions that were cancelled by a call.
    pub cancelled_by_call: u64,
    /// Refused calls by the code of the error; `(odata)` for bad query options.
    pub rejected: BTreeMap<String, u64>,
    /// How many actions, foreign ones included, have which status now.
    pub actions: BTreeMap<String, usize>,
    /// Every request that arrived, sign-ins included.
    pub requests_on_wire: u64,
    /// Calls that a fault struck.
    pub faults_struck: u64,
}

/// What one kind of call saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// Everything that arrived, 401, 403 and 429 included.
    pub arrivals: usize,
    /// What had a token, a role and room in the windows.
    pub admitted: u64,
    /// What was answered with 429.
    pub throttled: u64,
    /// The limit of any 60 s.
    pub limit_per_minute: u32,
    /// The limit of any 3,600 s.
    pub limit_per_hour: u32,
    /// The most arrivals that any closed 60 s saw.
    pub worst_minute: usize,
    /// The most arrivals that any closed 3,600 s saw.
    pub worst_hour: usize,
    /// Calls of others who use the same app registration; in none of the numbers above.
    pub foreign_arrivals: u64,
    /// How many of those were answered with 429.
    pub foreign_throttled: u64,
}

impl KindReport {
    /// Whether no window ever saw more than its limit.
    pub fn within_limits(&self) -> bool {
        let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        self.worst_minute <= limit(self.limit_per_minute) && self.worst_hour <= limit(self.limit_per_hour)
    }
}

impl Tenant {
    /// What this tenant saw until `now`.
    pub fn report(&self, now: Wall) -> TenantReport {
        let calls = self.windows.iter().map(|(kind, windows)| {
            let report = KindReport {
                arrivals: windows.arrivals(),
                admitted: windows.admitted(),
                throttled: windows.throttled(),
                limit_per_minute: windows.limits().per_minute.get(),
                limit_per_hour: windows.limits().per_hour.get(),
                worst_minute: windows.worst(MINUTE),
                worst_hour: windows.worst(HOUR),
                foreign_arrivals: windows.foreign().arrivals,
                foreign_throttled: windows.foreign().throttled,
            };
            (kind.as_str().to_owned(), report)
        });
        let scanned = self.machines.values().filter(|machine| machine.scans > 0);
        let mut actions = BTreeMap::new();
        for action in &self.actions {
            *actions.entry(action.seen(now).status.as_str().to_owned()).or_default() += 1;
        }
        TenantReport {
            tenant_id: self.options.tenant_id.to_string(),
            sign_ins: self.sign_in.granted,
            sign_ins_refused: self.sign_in.refused,
            calls: calls.collect(),
            scans_created: self.actions.iter().filter(|action| action.is_public()).count(),
            scans_per_machine: scanned.map(|machine| (machine.known.id.to_string(), machine.scans)).collect(),
            scan_calls_per_machine: self.counts.scan_calls.clone(),
            foreign_scans: self.counts.foreign_scans,
            existing_returned: self.counts.existing_returned,
            cancelled_by_call: self.counts.cancelled,
            rejected: self.counts.refused.clone(),
            actions,
            requests_on_wire: self.counts.requests,
            faults_struck: self.faults.struck(),
        }
    }
}
