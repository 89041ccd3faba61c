//! The state of the mirror, for people and platforms.

pub(super) mod account;
pub(super) mod health;
mod html;
pub(super) mod metrics;
pub(super) mod not_found;
pub(super) mod page;
pub(super) mod report;
pub(super) mod set_up;
