//! The read half of crates.io's web API, answered from the index.
//!
//! Answers about one crate are made from its index file. Search, reverse dependencies and the summary need the catalog, and
//! wait for nothing else. A field that the index does not tell is null, 0 or empty.

#![expect(
    unused_qualifications,
    reason = "the macro `utoipa::path` writes the paths of types in full"
)]

pub(super) mod answer_again;
pub(super) mod downloads;
mod json;
mod look_up;
pub(super) mod metadata;
pub(super) mod not_in_index;
pub(super) mod openapi;
pub(super) mod owners;
pub(super) mod pages;
pub(super) mod query;
pub(super) mod reverse_dependencies;
pub(super) mod search;
pub(super) mod site_metadata;
pub(super) mod summary;
pub(super) mod versions;
