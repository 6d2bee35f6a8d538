//! sweepd keeps a Microsoft Defender for Endpoint fleet scanned.

pub mod clock;
pub mod domain;
