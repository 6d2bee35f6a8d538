//! HTTP: the dashboard and the metrics.

mod dashboard;
mod metrics;
