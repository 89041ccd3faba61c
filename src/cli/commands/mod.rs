//! One file or folder for each subcommand.

pub(crate) mod check_config;
pub(crate) mod prefetch;
pub(crate) mod verify;
