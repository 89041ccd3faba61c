//! The read half of crates.io's web API, answered from the index.

mod json;
mod look_up;
pub(super) mod metadata;
pub(super) mod site;
pub(super) mod versions;
