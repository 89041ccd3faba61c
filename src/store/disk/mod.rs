//! Crate files in a directory of this machine.

pub(super) mod directory;
mod eviction;
pub(super) mod open_file;
pub(super) mod uploads;
mod walk;
