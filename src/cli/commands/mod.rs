//! One file for each subcommand.

pub(super) mod check_config;
pub(super) mod export;
pub(super) mod import;
pub(super) mod prefetch;
pub(super) mod serve;
pub(super) mod verify;
