//! The background task that follows the upstream. The clones, the publisher of views, and the follower that decides
//! when to try each have one owner.

pub(super) mod clones;
pub(super) mod error;
pub(super) mod follower;
mod last_stored;
pub(super) mod offline;
pub(super) mod policy_facts;
#[cfg(test)]
mod policy_tests;
mod policy_time;
pub(super) mod publisher;
pub(super) mod refresh_once;
pub(super) mod served_index;
pub(super) mod settings;
pub(super) mod stored_files;
#[cfg(test)]
mod tests;
mod tree_record;
mod view_maker;
mod yank_watch;
