//! The parsers of sweepd and what they stand on, file by file as they are in `../src`, and nothing else of it: what a
//! fuzzer runs is built in half a minute, without a database, an HTTP client or a runtime. The paths are those of
//! sweepd, so that targets and `tests/support/naive.rs` name it and mean this.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "most of it is for parts of sweepd that are not here")]

#[path = "../../src/domain/mod.rs"]
pub mod domain;

pub mod config;
pub mod intake;
