//! What comes from the index: the guard through which all handlers read it, what they remember of it, and the sparse index, now
//! and as of earlier times.

pub(super) mod decision_table;
pub(super) mod file_cache;
pub(super) mod index_guard;
pub(super) mod policy_guard;
pub(super) mod sparse;
mod time_travel;
pub(super) mod version_table;
