//! Crate files: redirects to the upstream, and files that the mirror sends itself.

pub(super) mod download;
mod file_answer;
