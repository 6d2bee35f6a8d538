//! The real engine and SQLite in virtual time: hours and days within seconds ([`support::world`]).
//!
//! Nothing here waits for this machine, so these are a binary of their own: Cargo runs it by itself, and no scenario of
//! `tests/it`, which waits for a real daemon, is kept from the processor by it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a scenario fails loudly, in its helpers too"
)]

mod cancelling;
mod dashboard_picture;
mod followed;
mod ineligible;
mod liveness;
mod quiet_log;
mod seeds;
#[path = "../support/mod.rs"]
mod support;
mod throttled;
mod used_to_the_last_call;
mod wrong_address;
