//! The sparse index.

pub(super) mod file_cache;
pub(super) mod sparse;
