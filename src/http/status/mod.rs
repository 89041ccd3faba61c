//! The state of the mirror, for people and platforms.

pub(super) mod health;
pub(super) mod metrics;
pub(super) mod page;
