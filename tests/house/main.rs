//! The house rules. Nothing of sweepd is linked, so that they are told within seconds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

mod architecture;
mod logging;
