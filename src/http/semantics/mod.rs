//! HTTP semantics that several handlers share: conditional requests, ranges, encodings, the URL that a client used.

pub(super) mod accept;
pub(super) mod base_url;
pub(super) mod conditional;
pub(super) mod encoding;
pub(super) mod ranges;
