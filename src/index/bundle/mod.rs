//! The index as it crosses an air gap.

pub(super) mod export;
pub(super) mod import;
