//! Crate files: redirects to the upstream, and files that the mirror sends itself.

pub(super) mod crate_file;
pub(super) mod download;
