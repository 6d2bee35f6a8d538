//! What sweepd knows, without doing anything: ids, times, the job's state machine, what an answer
//! of Defender means, what to do next, and the arithmetic of the budget.
//!
//! Nothing here is async, reads a clock, draws a random number or knows SQL, HTTP or the JSON of
//! the wire. Functions are total: what happened comes in as arguments, what follows comes back as
//! a value. That is why this is the most tested room of the house.

pub mod action;
pub mod budgets;
pub mod cadence;
pub mod dropping;
pub mod eligibility;
pub mod feed;
pub mod forecast;
pub mod hresult;
pub mod id;
pub mod job;
pub mod lane;
pub mod ledger;
pub mod lookup;
pub mod order;
pub mod outcome;
pub mod permission;
pub mod queue;
pub mod refusals;
pub mod retry;
pub mod share;
pub mod shown;
pub mod silence;
pub mod sparing;
pub mod sweep;
pub mod throttle;
pub mod time;
pub mod trouble;
