//! Answers the plain forms of the hot requests, redirects to crate files, crate files that are open and index files that
//! are in memory, without going through the router.
//!
//! Routing, boxing and extracting cost as much as everything else that the mirror does for them
//! (`benches/compare/redirect.sh`). Whatever is not plain (percent-encoding, JSON, HEAD, a bad name, a file that must be
//! read) takes the ordinary way, and tests hold the two ways against each other.

use axum::response::Response;

use crate::http::crate_files::download;
use crate::http::index::sparse;
use crate::http::state::AppState;
use crate::server::Asked;

/// The answer to what can be answered at once.
pub(super) fn take(state: &AppState, asked: &Asked) -> Option<Response> {
    download::at_once(state, asked).or_else(|| sparse::file_from_memory(state, asked))
}
