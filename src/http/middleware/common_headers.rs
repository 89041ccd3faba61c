//! The headers that many answers have in common: who may read them in a browser, and what a browser may do with them.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

/// On what crates.io serves to everybody: the API, the sparse index and crate files. Whatever reads those may run in a
/// browser. The pages about this mirror name internal paths and hosts, and are for its operators. The git index has no use
/// for it: a browser asks before it posts to git, and nobody answers that.
const ANY_ORIGIN: (HeaderName, HeaderValue) = (
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    HeaderValue::from_static("*"),
);

/// On successful answers with content; not on the redirects to crate files.
const WITH_CONTENT: [(HeaderName, HeaderValue); 3] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::X_FRAME_OPTIONS,
        HeaderValue::from_static("SAMEORIGIN"),
    ),
    (header::X_XSS_PROTECTION, HeaderValue::from_static("0")),
];

/// The header that tells browsers to come back over TLS only.
pub(super) fn hsts(max_age_secs: u32) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("max-age={max_age_secs}")).ok()
}

/// What a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    /// The API, with its downloads.
    Api,
    /// The sparse index. cargo reads it thousands of times a day, and has no use for what is meant for browsers.
    Index,
    /// The git index.
    Git,
    /// Pages about this mirror, and what does not exist.
    Other,
}

impl Surface {
    /// Of a path without `//` and dots.
    pub(super) fn of(path: &str) -> Self {
        if path.starts_with("/api/") || path.starts_with("/crates/") {
            Self::Api
        } else if path.starts_with("/index/") {
            Self::Index
        } else if path.starts_with("/git/") {
            Self::Git
        } else {
            Self::Other
        }
    }
}

/// Adds them. `hsts` is for browsers, on every answer: `None` for a mirror that leaves them alone.
pub(super) fn add_to(response: &mut Response, surface: Surface, hsts: Option<HeaderValue>) {
    let carries_content = carries_content(response.status());
    let not_modified = response.status() == StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    if not_modified {
        // axum notes the length of the empty body; here it would have to be that of the file (RFC 9110, 8.6).
        headers.remove(header::CONTENT_LENGTH);
    }
    if matches!(surface, Surface::Api | Surface::Index) {
        headers.extend([ANY_ORIGIN]);
    }
    if matches!(surface, Surface::Api | Surface::Other) && carries_content {
        headers.extend(WITH_CONTENT);
    }
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
}

fn carries_content(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 201 | 203 | 204 | 206 | 301 | 303 | 304 | 307 | 308
    )
}
