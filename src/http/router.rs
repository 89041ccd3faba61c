//! The URL table.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use super::api::{metadata, site, versions};
use super::crate_files::download;
use super::error::ApiError;
use super::git;
use super::index::sparse;
use super::state::AppState;
use super::status::{account, health, metrics, page, report, set_up};

/// Names in the place of a version, for the parts of crates.io's API that this version of the mirror does not offer.
const NOT_VERSIONS: [&str; 7] = [
    "downloads",
    "follow",
    "following",
    "owner_team",
    "owner_user",
    "owners",
    "reverse_dependencies",
];

/// The handlers of all URLs.
pub(super) fn router(state: Arc<AppState>) -> Router {
    // cargo: crate files and the sparse index.
    let cargo = Router::new()
        .route(
            "/api/v1/crates/{name}/{version}/download",
            get(download::download),
        )
        // The same as on crates.io's CDN.
        .route("/crates/{name}/{version}/download", get(download::download))
        .route("/crates/{name}/{file}", get(download::cdn_file))
        .route("/index/config.json", get(sparse::config))
        .route("/index/{*path}", get(sparse::file));

    // git: the same index for clients that want a repository. Packs are compressed already; requests may come in gzip.
    let git = Router::new()
        .route("/git/index/info/refs", get(git::list_refs))
        .route("/git/index/git-upload-pack", post(git::upload_pack))
        .route("/git/index/git-receive-pack", post(git::refuse_push))
        .layer(RequestDecompressionLayer::new());

    // Tools: metadata from the index.
    let mut metadata = Router::new()
        .route("/api/v1/crates", get(no_search))
        .route("/api/v1/crates/{name}", get(metadata::show_crate))
        .route(
            "/api/v1/crates/{name}/versions",
            get(versions::list_versions),
        )
        .route(
            "/api/v1/crates/{name}/{version}",
            get(metadata::show_version),
        )
        .route(
            "/api/v1/crates/{name}/{version}/dependencies",
            get(metadata::list_dependencies),
        )
        .route("/api/v1/site_metadata", get(site::show_site_metadata));
    for name in NOT_VERSIONS {
        metadata = metadata.route(&format!("/api/v1/crates/{{name}}/{name}"), get(not_found));
    }

    // People and platforms.
    let operation = Router::new()
        .route("/", get(page::show))
        .route("/config.toml", get(set_up::show))
        .route("/status", get(report::show))
        .route("/me", get(account::show))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show));

    Router::new()
        .merge(metadata.layer(CompressionLayer::new().gzip(true)))
        .merge(operation)
        .merge(cargo)
        .merge(git)
        .method_not_allowed_fallback(method_not_allowed)
        // After that fallback, so that its answers have a route, too.
        .route_layer(from_fn(note_route))
        .fallback(not_found)
        .with_state(state)
}

/// Tells the route of an answer, which is counted by it.
async fn note_route(matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(matched);
    }
    response
}

async fn not_found() -> ApiError {
    ApiError::NotFound
}

async fn no_search() -> ApiError {
    ApiError::NoSearch
}

/// axum adds the `Allow` header, because it knows the methods of the route.
async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
