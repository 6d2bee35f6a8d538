//! A simulated Defender tenant on loopback: for `sweepd demo`, for `sweepd simulator`, and as the
//! judge of integration tests.
//!
//! It obeys the same documents as sweepd does, and enforces them: a client that passes here is
//! right, not merely agreeable. Where the documents leave two answers open (a busy machine), both
//! occur; where they leave a limit open (when a window begins), the strictest reading holds.
//!
//! * [`windows`]: the limits, exact to the millisecond, per kind of call.
//! * [`Tenant`]: the state, pure: time and requests come in, answers come out. It may also be driven
//!   in process, under a virtual clock.
//! * [`Fault`]: what goes wrong, on order.
//! * [`Simulator`]: the same over real HTTP, where connections can really break.
//! * [`InProcess`]: the same in virtual time, over a network that delays, stalls and loses, from a seed.
//! * [`Report`]: what was seen. It counts effects, not answers.
//!
//! A call is checked in this order: token, role, windows, faults, body, effect. Everything random
//! follows from a seed; a machine's fate does not depend on the order in which others are asked.
//!
//! Not simulated: `GET /api/deviceavinfo`.

mod action;
mod assertion;
mod by_hand;
mod calls;
pub(crate) mod chance;
mod exchange;
mod faults;
mod filter;
mod fleet;
mod in_process;
mod metadata;
mod odata;
mod options;
mod report;
mod server;
mod sign_in;
mod tenant;
mod ticks;
pub mod windows;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod in_process_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod sign_in_tests;
#[cfg(test)]
mod tenant_tests;

pub use by_hand::gzip_bomb;
pub use chance::Chance;
pub use exchange::{Delivery, Manner, Request, Response};
pub use faults::{Fault, FaultKind, Target};
pub use fleet::{MachineKind, SimulatedMachine, fleet};
pub use in_process::{InProcess, Network, Stall, Traffic};
pub use options::{Federated, Lists, Options, TenantOptions, Trust};
pub use report::{KindReport, Report, TenantReport};
pub use server::Simulator;
pub use tenant::Tenant;
