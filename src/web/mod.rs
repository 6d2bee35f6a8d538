//! Health, metrics and the dashboard: read-only by construction, since every route is a GET that
//! reads.

pub mod forecast;
mod metrics;
pub mod report;
mod server;

pub use server::{Server, Shown};
