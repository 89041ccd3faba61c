//! What all HTML pages have in common: the style, the script, and the headers that allow these and nothing else.

use std::sync::LazyLock;

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::http::error::ApiError;

/// The only style of all pages.
pub(super) const STYLE: &str = include_str!("templates/page.css");

/// The only script: that of the copy buttons.
pub(super) const SCRIPT: &str = include_str!("templates/page.js");

/// A page may use its style, its script and its icon, and nothing else. Some of its texts come from outside.
static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |content: &str| STANDARD.encode(Sha256::digest(content));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// The answer with a page. No cache keeps it.
///
/// # Errors
/// A template that cannot be rendered is an internal error.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Result<Response, ApiError> {
    let page = page.render().map_err(ApiError::internal)?;
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            CONTENT_SECURITY_POLICY.as_str(),
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((status, headers, Html(page)).into_response())
}
