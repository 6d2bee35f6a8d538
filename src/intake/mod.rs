//! From files to sweeps: the drop folder, the formats, the receipts and the results.
//!
//! Nothing here knows the database: the engine asks what is ready, reads it, and hands the lines
//! on.

pub mod dir;
pub mod expiry;
pub mod folder;
pub mod formats;
pub mod incoming;
pub mod left;
mod listing;
pub mod moved;
pub mod names;
mod open_files;
pub mod receipt;
pub mod results;
pub mod room;
mod sharing;
mod watch;

pub use watch::Watch;
