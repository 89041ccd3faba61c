//! The page that browsers get instead of another `404`.

use askama::Template;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::html::html;
use crate::http::error::ApiError;
use crate::http::index::index_guard::X_INDEX_COMMIT;
use crate::http::semantics::base_url::root_path;
use crate::http::state::Settings;

#[derive(Template)]
#[template(path = "not_found.html", config = "src/http/status/askama.toml")]
struct NotFound<'a> {
    root: &'a str,
}

/// The page in place of an answer with this status.
///
/// # Errors
/// As [`html`].
pub(crate) fn page(settings: &Settings, replaced: &Response) -> Result<Response, ApiError> {
    let root = root_path(settings);
    let mut page = html(StatusCode::NOT_FOUND, &NotFound { root })?;
    let headers = page.headers_mut();
    if let Some(commit) = replaced.headers().get(X_INDEX_COMMIT) {
        headers.insert(X_INDEX_COMMIT, commit.clone());
    }
    // An answer to `HEAD` has the length of the page and no body. No other 404 is without a body.
    if replaced.body().is_end_stream() {
        if let Some(length) = page.body().size_hint().exact() {
            page.headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *page.body_mut() = Body::empty();
    }
    Ok(page)
}
