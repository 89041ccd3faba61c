//! HTTP semantics that several handlers share: conditional requests, ranges, encodings, the URL that a client used.

use std::io;

use axum::body::{Body, Bytes};
use futures_util::stream;

pub(super) mod accept;
pub(super) mod base_url;
pub(super) mod conditional;
pub(super) mod encoding;
pub(super) mod ranges;

/// The body of an answer to HEAD whose length is not known. An empty body would be announced as one of 0 bytes, and GET
/// sends more (RFC 9110, section 8.6).
pub(super) fn body_of_unknown_length() -> Body {
    Body::from_stream(stream::empty::<io::Result<Bytes>>())
}
