//! sweepd keeps a Microsoft Defender for Endpoint fleet scanned.

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
pub mod simulator;
pub mod store;
pub mod web;
