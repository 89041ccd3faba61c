//! The background task that follows the upstream.

pub(super) mod clones;
pub(super) mod error;
pub(super) mod follower;

pub(super) mod offline;
pub(super) mod on_demand;
pub(super) mod one_shot;
pub(super) mod publisher;
pub(super) mod retry;
pub(super) mod settings;
pub(super) mod stored_files;
#[cfg(test)]
mod tests;
