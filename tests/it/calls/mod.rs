//! Calls: their budget, their answers, and what becomes of machines.

mod fault_matrix;
mod faults;
mod network;
mod online;
mod sign_in;
mod two_tenants;
