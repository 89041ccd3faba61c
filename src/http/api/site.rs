//! `GET /api/v1/site_metadata`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;

use crate::build_info::COMMIT;
use crate::http::state::AppState;

/// What crates.io tells its own front end about itself.
pub(crate) async fn show_site_metadata(State(state): State<Arc<AppState>>) -> impl IntoResponse {
    #[derive(Serialize)]
    struct Answer<'a> {
        deployed_sha: &'a str,
        commit: &'a str,
        cdn_base: &'a str,
        read_only: bool,
        banner_message: &'a str,
    }

    let answer = Answer {
        deployed_sha: COMMIT,
        commit: COMMIT,
        cdn_base: state.settings.download.base(),
        read_only: true,
        banner_message: "This is a read-only mirror of crates.io.",
    };
    (
        [(header::CACHE_CONTROL, "public, max-age=15")],
        Json(answer),
    )
        .into_response()
}
