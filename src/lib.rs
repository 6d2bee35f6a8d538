//! sweepd keeps a Microsoft Defender for Endpoint fleet scanned.

pub mod clock;
pub mod config;
pub mod domain;
pub mod simulator;
pub mod store;
