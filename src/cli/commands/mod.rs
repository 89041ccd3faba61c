//! One file for each subcommand.

pub(super) mod check_config;
pub(super) mod completions;
pub(super) mod explain;
pub(super) mod export;
pub(super) mod healthcheck;
pub(super) mod import;
pub(super) mod man;
pub(super) mod prefetch;
pub(super) mod serve;
pub(super) mod verify;
pub(super) mod wait;
