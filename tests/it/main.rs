//! Every scenario of the real binary on loopback, in one test binary: it is linked once, and while one scenario waits,
//! others run. `cargo test --test it calls::faults` runs one file of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a scenario fails loudly, in its helpers too, and may change files of its own by path"
)]

mod calls;
mod files;
mod operators;
#[path = "../support/mod.rs"]
mod support;
mod upkeep;
mod web;
