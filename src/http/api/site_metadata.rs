//! `GET /api/v1/site_metadata`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::build_info;
use crate::http::state::AppState;

/// What crates.io tells its own front end about itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct SiteMetadataAnswer<'a> {
    /// The commit that the mirror was built from, or `unknown`.
    deployed_sha: &'a str,
    /// The same.
    commit: &'a str,
    /// Where crate files are, without a slash at the end.
    cdn_base: &'a str,
    /// Always true.
    read_only: bool,
    banner_message: Option<&'a str>,
}

/// Shows what the site says about itself.
#[utoipa::path(
    get,
    path = "/api/v1/site_metadata",
    tag = "other",
    responses((status = 200, body = SiteMetadataAnswer<'_>)),
)]
pub(crate) async fn show_site_metadata(State(state): State<Arc<AppState>>) -> impl IntoResponse {
    let answer = SiteMetadataAnswer {
        deployed_sha: build_info::COMMIT,
        commit: build_info::COMMIT,
        cdn_base: &state.settings.download.base,
        read_only: true,
        banner_message: Some("This is a read-only mirror of crates.io."),
    };
    (
        [(header::CACHE_CONTROL, "public, max-age=15")],
        Json(answer),
    )
        .into_response()
}
