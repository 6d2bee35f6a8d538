//! Files: the drop folder and what is put there.

mod droppers;
mod every_line;
mod full_disk;
mod held;
mod hostile;
mod intake;
#[cfg(debug_assertions)]
mod kill_points;
mod parsers;
mod submit;
mod unwatched;
