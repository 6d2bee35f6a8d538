//! Health, metrics and the dashboard: read-only by construction, since what is shown comes through a view of the
//! database that cannot write, and nothing but a GET or a HEAD reaches it.

mod burndown;
mod connections;
mod exposition;
pub mod forecast;
mod guard;
mod machine;
mod metrics;
pub mod overview;
mod page;
mod places;
pub mod report;
mod server;

pub use burndown::Burndown;
pub use server::{Server, Shown};
