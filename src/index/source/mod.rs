//! The clone of the upstream index, and its content at a commit ([`snapshot::Source`]).

pub(super) mod borrowed_clone;
pub(super) mod clone_dir;
pub(super) mod clone_in_use;
pub(super) mod directory;
pub(super) mod fetch;
pub(super) mod libgit2;
pub(super) mod local_upstream;
pub(super) mod pack_writer;
mod proxied_http;
pub(super) mod remote_url;
pub(super) mod repository;
pub(super) mod retry_after;
pub(super) mod snapshot;
pub(super) mod transfers;
pub(super) mod tree_edit;
pub(super) mod trees;
pub(super) mod upkeep;
pub(super) mod visit_files;
