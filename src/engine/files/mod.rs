//! Files: from a name that shows up in the drop folder to its receipt.

pub mod drop_folder;
mod filing;
mod half_done;
mod occupied;
mod opening;
mod outcome;
mod position;
mod put_off;
mod reading;
mod rejecting;
pub mod taking;
mod turns;
