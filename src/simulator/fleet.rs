//! The machines of a simulated tenant.

use serde_json::{Value, json};

use super::chance::Chance;
use super::filter::{Cell, Column, Row};
use super::ticks::Ticks;
use crate::domain::id::MachineId;

/// A machine that the tenant knows. What is not listed is unknown, and answered with 404.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedMachine {
    /// Its id.
    pub id: MachineId,
    /// `computerDnsName`.
    pub name: String,
    /// How it behaves.
    pub kind: MachineKind,
}

/// How a machine behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MachineKind {
    /// Takes scans.
    #[default]
    Normal,
    /// Takes scans, but somebody has started one in the portal that is pending at first.
    ForeignScanPending,
    /// 400 `OsPlatformNotSupported`.
    UnsupportedPlatform,
    /// 400 `ClientVersionNotSupported`.
    OldClient,
    /// Listed as inactive: scans are accepted and stay Pending until they time out after three days
    /// (inferred; observed for other actions of machines that stay away).
    Inactive,
}

/// Machines with deterministic ids, named like `pc-0001.contoso.example` for the tag `contoso`.
pub fn fleet(seed: u64, count: usize, tag: &str) -> Vec<SimulatedMachine> {
    let mut chance = Chance::of(seed, tag.as_bytes());
    (1..=count)
        .map(|number| SimulatedMachine {
            id: MachineId::from_bytes(chance.bytes()),
            name: format!("pc-{number:04}.{tag}.example"),
            kind: MachineKind::Normal,
        })
        .collect()
}

/// What machines are filtered and ordered by: a part of the documented list (API/get-machines.md).
pub(super) const COLUMNS: &[Column] = &[
    Column { name: "id", is_time: false },
    Column { name: "computerDnsName", is_time: false },
    Column { name: "healthStatus", is_time: false },
    Column { name: "onboardingStatus", is_time: false },
    Column { name: "osPlatform", is_time: false },
    Column { name: "version", is_time: false },
    Column { name: "lastSeen", is_time: true },
];

/// A machine as the list shows it.
#[derive(Debug)]
pub(super) struct Listed<'tenant> {
    id: String,
    machine: &'tenant SimulatedMachine,
    last_seen: Ticks,
}

impl<'tenant> Listed<'tenant> {
    pub(super) fn new(machine: &'tenant SimulatedMachine, last_seen: Ticks) -> Self {
        Self { id: machine.id.to_string(), machine, last_seen }
    }

    const fn platform(&self) -> (&'static str, &'static str) {
        match self.machine.kind {
            // Windows, Linux and macOS are scanned; phones are not.
            MachineKind::UnsupportedPlatform => ("Android", "14"),
            MachineKind::OldClient => ("Windows10", "1703"),
            _ => {
                let [.., last] = *self.machine.id.bytes();
                match last % 8 {
                    0 => ("Ubuntu", "22.4"),
                    1 => ("macOS", "14.5"),
                    _ => ("Windows11", "23H2"),
                }
            }
        }
    }

    const fn health(&self) -> &'static str {
        match self.machine.kind {
            MachineKind::Inactive => "Inactive",
            _ => "Active",
        }
    }

    /// The fields that every capture has, live spellings (`Onboarded`, `rbacGroupId` as a number).
    pub(super) fn json(&self) -> Value {
        let (platform, version) = self.platform();
        json!({
            "id": self.id,
            "computerDnsName": self.machine.name,
            "firstSeen": "2026-01-05T08:00:00Z",
            "lastSeen": self.last_seen.rfc3339(),
            "osPlatform": platform,
            "osVersion": null,
            "osProcessor": "x64",
            "osArchitecture": "64-bit",
            "version": version,
            "osBuild": 22631,
            "lastIpAddress": "10.0.0.5",
            "lastExternalIpAddress": "192.0.2.7",
            "agentVersion": "10.8760.22621.4317",
            "healthStatus": self.health(),
            "deviceValue": "Normal",
            "rbacGroupId": 0,
            "rbacGroupName": null,
            "riskScore": "None",
            "exposureLevel": "Low",
            "isAadJoined": false,
            "aadDeviceId": null,
            "machineTags": [],
            "onboardingStatus": "Onboarded",
            "ipAddresses": [],
            "vmMetadata": null,
        })
    }
}

impl Row for Listed<'_> {
    fn cell(&self, column: &'static str) -> Cell<'_> {
        let (platform, version) = self.platform();
        match column {
            "id" => Cell::Text(&self.id),
            "computerDnsName" => Cell::Text(&self.machine.name),
            "healthStatus" => Cell::Text(self.health()),
            "onboardingStatus" => Cell::Text("Onboarded"),
            "osPlatform" => Cell::Text(platform),
            "version" => Cell::Text(version),
            "lastSeen" => Cell::Time(self.last_seen),
            _ => Cell::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleets_are_deterministic_and_distinct() {
        assert_eq!(fleet(1, 3, "contoso"), fleet(1, 3, "contoso"));
        assert_eq!(fleet(1, 3, "contoso")[0].name, "pc-0001.contoso.example");
        let mut ids: Vec<MachineId> = [(1, "a"), (2, "a"), (1, "b")]
            .into_iter()
            .flat_map(|(seed, tag)| fleet(seed, 100, tag))
            .map(|m| m.id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 300);
    }

    #[test]
    fn every_column_has_a_value() {
        let machine = &fleet(1, 1, "a")[0];
        let listed = Listed::new(machine, Ticks::parse("2026-01-01T00:00:00Z").unwrap());
        for column in COLUMNS {
            assert_ne!(listed.cell(column.name), Cell::Null, "{}", column.name);
            assert!(listed.json().get(column.name).is_some(), "{}", column.name);
        }
    }
}
