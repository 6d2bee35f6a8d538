//! What files are read with.

#[path = "../../src/intake/formats/mod.rs"]
pub mod formats;
