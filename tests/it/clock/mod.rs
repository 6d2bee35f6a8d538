//! The real engine in virtual time.

mod quiet_log;
mod used_to_the_last_call;
mod virtual_time;
