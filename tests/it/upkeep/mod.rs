//! Upkeep: what a daemon that runs for years lives through.

#[cfg(debug_assertions)]
mod archive;
mod backup;
mod killed;
mod locked;
mod restored;
mod signals;
