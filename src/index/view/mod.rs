//! What is served: the state of a clone at one commit.

pub(super) mod directory;
pub(super) mod large_files;
pub(super) mod prune;
pub(super) mod snapshot;
pub(super) mod visit;
