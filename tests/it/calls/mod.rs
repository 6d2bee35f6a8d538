//! Calls: their budget, their answers, and what becomes of machines.

mod cancelling;
mod fault_matrix;
mod faults;
mod followed;
mod ineligible;
mod liveness;
mod network;
mod online;
mod sign_in;
mod throttled;
mod two_tenants;
mod wrong_address;
