//! What crates.io's web API says of a crate, from the index.

pub(super) mod json;
pub(super) mod metadata;
pub(super) mod site;
pub(super) mod version_table;
pub(super) mod versions;
