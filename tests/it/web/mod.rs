//! HTTP: the dashboard and the metrics.

mod dashboard;
mod dashboard_picture;
mod metrics;
