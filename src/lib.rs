//! sweepd keeps a Microsoft Defender for Endpoint fleet scanned: a durable queue in front of
//! `runAntiVirusScan`, as fast as the API's limits allow and never faster.
//!
//! # The map
//!
//! | room | what it is for |
//! |---|---|
//! | [`domain`] | what sweepd knows: ids, times, the job's states, what an answer means, the ledger's arithmetic. Pure |
//! | [`config`] | what may be set: read, checked, all errors at once; secrets |
//! | [`store`] | SQLite: the queue, the budget, the record. The only SQL |
//! | [`defender`] | the API as documented, and the sign-in. The only outgoing HTTP |
//! | [`budget`] | governor paces the calls; the ledger proves them |
//! | [`intake`] | from files to sweeps: folder, formats, receipts, results |
//! | [`engine`] | what moves: a lane for each tenant, the taking of files, the housekeeping |
//! | [`web`] | health, metrics, dashboard: read-only |
//! | [`simulator`] | a Defender tenant on loopback, or in process and virtual time, that enforces what the documents say |
//! | [`app`] | puts the parts together; the only place that knows them all |
//! | [`cli`] | the command line, one file a command |
//!
//! Three small ones are open to everybody: [`clock`] (the only place that reads one), [`health`]
//! (what the loops say of themselves), [`metrics`] (what they count). One is the command line's alone: [`process`]
//! (whose rights this process has, and who may look into it).
//!
//! # The import rule
//!
//! Imports point one way: `cli → app → {engine, web, simulator}`; `engine → {store, defender,
//! budget, intake} → domain`; `web → store`; `config → domain`. Everyone may read checked
//! [`config`] types. The rooms of one layer do not know each other: the engine introduces them.
//! `tests/house/architecture.rs` holds this.

pub mod app;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod config;
pub mod defender;
pub mod domain;
pub mod engine;
pub mod health;
pub mod intake;
pub mod metrics;
pub mod process;
pub mod simulator;
pub mod store;
pub mod web;

// So that unit tests may use what scenarios use, by the same name.
#[cfg(test)]
extern crate self as sweepd;

#[cfg(test)]
#[path = "../tests/support/credentials.rs"]
mod credentials;
