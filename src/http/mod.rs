//! The HTTP side: every route, every status code, every header. It knows nothing of sockets.
//!
//! A request passes through `every_request`, then through the URL table (`router`) to a handler. Handlers parse, call one
//! thing and shape the answer. What index lines mean is in `package`, how the index gets here is in `index`, and where
//! crate files are is in `store` and `upstream`.

mod answer_cache;
mod api;
mod bounded_cache;
mod changes;
mod crate_files;
mod crate_in_path;
mod error;
mod every_request;
mod git;
mod index;
mod path;
mod policy;
mod request_log;
mod router;
mod semantics;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use every_request::application;
pub(crate) use state::{AppState, DownloadPolicy, Settings};
