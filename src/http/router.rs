//! The URL table.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use super::api::{
    answer_again, downloads, metadata, not_in_index, openapi, owners, reverse_dependencies, search,
    site_metadata, summary, versions,
};
use super::changes;
use super::crate_files::download;
use super::error::ApiError;
use super::git;
use super::index::sparse;
use super::policy;
use super::state::AppState;
use super::status::{account, health, metrics, page, report, set_up};

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
        .route("/index/{*path}", get(sparse::file))
        // The same as of a time.
        .route("/at/{time}/index/config.json", get(sparse::config))
        .route("/at/{time}/index/{*path}", get(sparse::file));

    // git: the same index for clients that want a repository, and the advisory database. Packs are compressed already; requests may come in gzip.
    let git = Router::new()
        .route("/git/index/info/refs", get(git::list_refs))
        .route("/git/index/git-upload-pack", post(git::upload_pack))
        .route("/git/index/git-receive-pack", post(git::refuse_push))
        .route("/git/advisory-db/info/refs", get(git::list_refs))
        .route("/git/advisory-db/git-upload-pack", post(git::upload_pack))
        .route("/git/advisory-db/git-receive-pack", post(git::refuse_push))
        .layer(RequestDecompressionLayer::new());

    // Tools: crates.io's web API, answered from the index.
    let api = Router::new()
        .route("/api/openapi.json", get(openapi::show))
        .route("/api/v1/categories", get(not_in_index::list_categories))
        .route(
            "/api/v1/categories/{category}",
            get(not_in_index::show_category),
        )
        .route(
            "/api/v1/category_slugs",
            get(not_in_index::list_category_slugs),
        )
        .route("/api/v1/crates", get(search::search_crates))
        .route("/api/v1/crates/{name}", get(metadata::show_crate))
        .route(
            "/api/v1/crates/{name}/downloads",
            get(downloads::list_crate_downloads),
        )
        .route("/api/v1/crates/{name}/follow", get(not_found))
        .route(
            "/api/v1/crates/{name}/following",
            get(not_in_index::show_following),
        )
        .route(
            "/api/v1/crates/{name}/owner_team",
            get(owners::list_team_owners),
        )
        .route(
            "/api/v1/crates/{name}/owner_user",
            get(owners::list_user_owners),
        )
        .route("/api/v1/crates/{name}/owners", get(owners::list_owners))
        .route(
            "/api/v1/crates/{name}/reverse_dependencies",
            get(reverse_dependencies::list_reverse_dependencies),
        )
        .route(
            "/api/v1/crates/{name}/versions",
            get(versions::list_versions),
        )
        .route(
            "/api/v1/crates/{name}/{version}",
            get(metadata::show_version),
        )
        .route(
            "/api/v1/crates/{name}/{version}/authors",
            get(not_in_index::list_authors),
        )
        .route(
            "/api/v1/crates/{name}/{version}/dependencies",
            get(metadata::list_dependencies),
        )
        .route(
            "/api/v1/crates/{name}/{version}/downloads",
            get(downloads::list_version_downloads),
        )
        .route(
            "/api/v1/crates/{name}/{version}/readme",
            get(not_in_index::show_readme),
        )
        .route("/api/v1/keywords", get(not_in_index::list_keywords))
        .route(
            "/api/v1/keywords/{keyword}",
            get(not_in_index::show_keyword),
        )
        .route("/api/v1/me", get(not_in_index::show_me))
        .route("/api/v1/me/{*path}", get(not_in_index::show_mine))
        .route(
            "/api/v1/site_metadata",
            get(site_metadata::show_site_metadata),
        )
        .route("/api/v1/summary", get(summary::show_summary))
        .route("/api/v1/teams/{login}", get(not_in_index::show_team))
        .route("/api/v1/users/{login}", get(not_in_index::show_user))
        .route(
            "/api/v1/users/{login}/stats",
            get(not_in_index::show_user_stats),
        );

    // What the company allows.
    let policies = Router::new()
        .route("/policy", get(policy::show))
        .route("/policy/{name}", get(policy::show_crate))
        .route("/policy/{name}/{version}", get(policy::show_version));

    // Scripts: what has changed in the index.
    let feed = Router::new().route("/changes", get(changes::show));

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
        .merge(
            api.layer(from_fn_with_state(Arc::clone(&state), answer_again::answer))
                .layer(CompressionLayer::new().gzip(true)),
        )
        .merge(feed)
        .merge(operation)
        .merge(policies.layer(CompressionLayer::new().gzip(true)))
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

/// axum adds the `Allow` header, because it knows the methods of the route.
async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
