//! Tests from outside: the real program and the files around it.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests are not inside of a test function, where these are allowed"
)]

mod documents;
