//! Crate files in a directory of this machine.

mod blocking;
pub(super) mod directory;
mod eviction;
pub(super) mod open_file;
pub(super) mod uploads;
mod walk;
