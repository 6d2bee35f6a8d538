//! What the scenarios share: the real binary in a temporary folder, and patience.
//!
//! A scenario waits for what it wants to see with [`eventually`], never for a time to pass, so that
//! a slow machine makes it slow and not red.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "compiled into every scenario, none of which uses all of it; a harness fails loudly"
)]

pub mod browser;
pub mod credentials;
mod daemon;
pub mod gate;
pub mod naive;
pub mod scenario;
mod site;
pub mod terminal;
pub mod tls;
pub mod world;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use sweepd::clock::{Clock, SystemClock};
use sweepd::domain::ledger::Limits;
use sweepd::domain::time::{Boot, Wall};
use sweepd::simulator::{Options, SimulatedMachine, Simulator, TenantOptions, TenantReport};
use sweepd::store::Store;

pub use daemon::{Daemon, Output};
pub use site::{Configured, Site};

/// How long anything may take before a scenario gives up on it.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// How often a scenario looks.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` finds what it looks for, and returns that.
///
/// # Panics
/// When it did not within [`PATIENCE`]; `what` says what was missing.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = SystemClock.boot() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(SystemClock.boot() < deadline, "in {} s there was no {what}", PATIENCE.as_secs());
        pause(LOOK).await;
    }
}

/// Lets a moment pass: to choose the moment of a blow, not to wait for an effect.
pub async fn pause(time: Duration) {
    SystemClock.sleep_until(SystemClock.boot() + time).await;
}

/// Waits until the database knows the sweep of this file; returns the state it was seen in first.
/// Read beside the daemon and more often than a command could be run, to strike while it works.
pub async fn first_state_of(site: &Site, file: &str) -> String {
    let deadline = SystemClock.boot() + PATIENCE;
    loop {
        if let Ok(Some(store)) = Store::open_existing(&site.state()).await {
            let sweeps = store.all_sweeps().await.unwrap_or_default();
            store.close().await;
            if let Some(sweep) = sweeps.into_iter().find(|sweep| sweep.name == file) {
                return sweep.state;
            }
        }
        assert!(SystemClock.boot() < deadline, "in {} s there was no sweep of {file}", PATIENCE.as_secs());
        pause(Duration::from_millis(2)).await;
    }
}

/// A simulation of these tenants; all of its randomness follows from `seed`.
pub async fn simulate(seed: u64, tenants: Vec<TenantOptions>) -> Simulator {
    simulate_under(Arc::new(SystemClock), seed, tenants).await
}

/// The same, of tenants that have another time.
pub async fn simulate_under(clock: Arc<dyn Clock>, seed: u64, tenants: Vec<TenantOptions>) -> Simulator {
    let options = Options { tenants, seed, ..Options::default() };
    Simulator::start(options, clock).await.unwrap()
}

/// A clock that is three years behind that of this machine.
pub struct Behind;

impl Clock for Behind {
    fn wall(&self) -> Wall {
        SystemClock.wall() - Duration::from_hours(3 * 365 * 24)
    }

    fn boot(&self) -> Boot {
        SystemClock.boot()
    }

    fn sleep_until(&self, at: Boot) -> BoxFuture<'_, ()> {
        SystemClock.sleep_until(at)
    }
}

/// A tenant whose actions take about a second, and succeed.
pub fn quick_tenant(machines: Vec<SimulatedMachine>) -> TenantOptions {
    TenantOptions {
        action_duration: (Duration::from_millis(300), Duration::from_millis(500)),
        all_succeed: true,
        ..TenantOptions::new(machines)
    }
}

/// Limits of the scan call.
pub fn limits(per_minute: u32, per_hour: u32) -> Limits {
    Limits::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(per_hour).unwrap()).unwrap()
}

/// What the only tenant of a simulation saw.
pub fn seen(simulator: &Simulator) -> TenantReport {
    simulator.report().tenants.swap_remove(0)
}

/// Scan calls that arrived at the `tenant`-th tenant.
pub fn scan_arrivals(simulator: &Simulator, tenant: usize) -> usize {
    simulator.report().tenants[tenant].calls["scan"].arrivals
}

/// Asserts that no limit was exceeded at the server, whatever the kind of call.
pub fn assert_within_limits(report: &TenantReport) {
    for (kind, calls) in &report.calls {
        assert!(calls.within_limits(), "{kind}: {calls:?}");
        assert_eq!(calls.throttled, 0, "{kind}: {calls:?}");
    }
}

/// Asserts that exactly these machines were scanned, each once.
pub fn assert_scanned_once<'a>(report: &TenantReport, machines: impl IntoIterator<Item = &'a SimulatedMachine>) {
    let mut expected: Vec<_> = machines.into_iter().map(|machine| (machine.id.to_string(), 1)).collect();
    expected.sort();
    let scanned: Vec<_> = report.scans_per_machine.clone().into_iter().collect();
    assert_eq!(scanned, expected, "each machine once, and no other");
}

/// A plain list of these machines.
pub fn list<'a>(machines: impl IntoIterator<Item = &'a SimulatedMachine>) -> String {
    machines.into_iter().fold(String::new(), |text, machine| text + &machine.id.to_string() + "\n")
}

/// A number of a JSON object.
pub fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("no number `{key}` in {object}"))
}

/// A text of a JSON object.
pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {object}"))
}

/// Asserts that the counts of a receipt add up to its lines.
pub fn assert_adds_up(receipt: &Value) {
    let sum: u64 =
        ["queued", "joined", "duplicates", "not_eligible", "refused"].map(|count| number(receipt, count)).iter().sum();
    assert_eq!(sum, number(receipt, "lines"), "{receipt}");
}

/// Whether a job in this state is done with.
pub fn is_final(job: &Value) -> bool {
    !["queued", "sending", "accepted"].contains(&text(job, "state"))
}

/// Numbers that look random and follow from a seed (splitmix64).
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
