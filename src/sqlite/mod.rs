//! What the embedded databases share: their files, connections, questions, and the task that follows the views of the index.

mod connection;
mod files;
mod questions;
mod task;

pub(crate) use connection::{Database, Readers};
pub(crate) use files::{
    DirectoryLock, is_damage, lock_directory, of_another_version, remove_database, remove_file,
};
#[cfg(test)]
pub(crate) use questions::ANSWERED_MAX;
pub(crate) use questions::{AskError, Questions};
pub(crate) use task::{FollowsViews, follow_views};
