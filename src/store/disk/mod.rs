//! Crate files in a directory of this machine.

mod blocking;
pub(super) mod directory;
mod eviction;
#[cfg(target_os = "linux")]
pub(super) mod file_part;
pub(super) mod open_file;
pub(super) mod uploads;
mod walk;
