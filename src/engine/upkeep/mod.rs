//! Upkeep: what goes on whatever the lanes do. Operators' words are noticed, results are written, what is due expires, and
//! what is old is archived.

pub(super) mod control;
pub(super) mod expiry;
pub mod results;
pub mod retention;
#[cfg(test)]
mod still;
