//! What HTTP means, whatever the answer is about: conditional requests, ranges, the address that a client used.

pub(super) mod base_url;
pub(super) mod conditional;
pub(super) mod ranges;
