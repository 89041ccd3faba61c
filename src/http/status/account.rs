//! `GET /me`: `cargo login` sends people there. This mirror has no accounts.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::html::html;
use crate::http::error::ApiError;
use crate::http::semantics::base_url::root_path;
use crate::http::state::AppState;

#[derive(Template)]
#[template(path = "me.html", config = "src/http/status/askama.toml")]
struct Me<'a> {
    root: &'a str,
}

/// Says that there are no accounts and no tokens, and where they are.
pub(crate) async fn show(State(state): State<Arc<AppState>>) -> Result<Response, ApiError> {
    let root = root_path(&state.settings);
    html(StatusCode::OK, &Me { root })
}
