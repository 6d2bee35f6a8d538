//! Every scenario, in one binary: it is linked once, and while one scenario waits, others run.
//!
//! `cargo test --test it calls::faults` runs one file of them. Two kinds of scenarios there are: of the real binary on
//! loopback ([`support`]), which mostly wait, and of the real engine in virtual time ([`support::world`]), which do not, and
//! take turns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a scenario fails loudly, in its helpers too, and may change files of its own by path"
)]

mod calls;
mod clock;
mod files;
mod operators;
#[path = "../support/mod.rs"]
mod support;
mod upkeep;
mod web;
