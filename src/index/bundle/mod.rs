//! Exports the index for transport across an air gap, and imports it.

pub(super) mod export;
pub(super) mod import;
