//! The one place where errors become HTTP.
//!
//! Clients get a fixed phrase in crates.io's envelope, `{"errors":[{"detail":"…"}]}`; the cause travels to the request
//! log as a response extension.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::index::ReadError;

/// How long a client shall wait for the index, in seconds. Cargo honours up to 10.
const RETRY_AFTER_SECONDS: u16 = 5;

/// The answer to every write. Cargo shows it to whoever tried to publish, yank or change owners.
const READ_ONLY: &str = "This is a read-only mirror of crates.io. To publish, yank or change owners, use crates.io \
                         itself: cargo publish --registry crates-io";

/// Every way in which a request can fail.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No such crate. Holds the name as typed.
    #[error("crate `{0}` does not exist")]
    CrateNotFound(String),
    /// The crate exists, the version does not. Holds both as typed.
    #[error("crate `{name}` does not have a version `{version}`")]
    VersionNotFound {
        /// The crate's name as typed.
        name: String,
        /// The version as typed.
        version: String,
    },
    /// No such page or endpoint.
    #[error("Not Found")]
    NotFound,
    /// The endpoint exists, for other methods.
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    /// A write.
    #[error("{READ_ONLY}")]
    ReadOnly,
    /// Something in the request cannot be right.
    #[error("{0}")]
    BadRequest(String),
    /// The first snapshot is not there yet.
    #[error(
        "The mirror has no copy of the index yet. It is being made; try again in a few seconds."
    )]
    NotReady,
    /// Too many look-ups at a time.
    #[error("The mirror is busy. Try again in a few seconds.")]
    Busy,
    /// The clone cannot be read; it is about to be replaced.
    #[error("The mirror's copy of the index is being repaired. Try again in a few seconds.")]
    IndexUnreadable(#[source] ReadError),
    /// The git index has no `config.json` without it.
    #[error(
        "The git index is off: the mirror does not know its own URL. Whoever runs it must set PUBLIC_URL."
    )]
    NoPublicUrl,
    /// Nothing to serve the git index with.
    #[error(
        "The git index is off: there is no git program on the mirror's machine. The sparse index works without it."
    )]
    NoGitProgram,
    /// Git ended without an answer, and not because of the request.
    #[error("The git index cannot be read at the moment. Try again in a few seconds.")]
    GitFailed(#[source] GitComplaint),
    /// Git could make nothing of a request.
    #[error("This is not a request that git understands.")]
    GitRequest(#[source] GitComplaint),
    /// A request of another type than the one that git sends.
    #[error("The Content-Type of a git request is application/x-git-upload-pack-request.")]
    GitRequestType,
    /// A push, or the protocol of before 2009.
    #[error("{READ_ONLY} Fetching needs git 1.6.6 or later.")]
    GitServiceRefused,
    /// A mistake in the mirror.
    #[error("Internal Server Error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What git said before it ended: for the request log, not for clients, since it may name files.
#[derive(Debug, thiserror::Error)]
#[error("git: {0}")]
pub(super) struct GitComplaint(pub(super) String);

/// The same errors for people who use git, which shows plain text and nothing else.
pub(super) struct PlainText(pub(super) ApiError);

/// Why a request failed, for the request log.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub(super) Arc<str>);

#[derive(Serialize)]
struct Envelope<'a> {
    errors: [Detail<'a>; 1],
}

#[derive(Serialize)]
struct Detail<'a> {
    detail: &'a str,
}

impl ApiError {
    /// Wraps what should be impossible.
    pub(super) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::CrateNotFound(_) | Self::VersionNotFound { .. } | Self::NotFound => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ReadOnly | Self::GitServiceRefused => StatusCode::FORBIDDEN,
            Self::GitRequestType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadRequest(_) | Self::GitRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotReady
            | Self::Busy
            | Self::IndexUnreadable(_)
            | Self::NoPublicUrl
            | Self::NoGitProgram
            | Self::GitFailed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl ApiError {
    /// The answer with this text as its body, in whatever form.
    fn answer(&self, content_type: &'static str, body: String) -> Response {
        let status = self.status();
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = HeaderValue::from(RETRY_AFTER_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if status.is_server_error() {
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        let mut source = std::error::Error::source(self);
        if status.is_server_error() || source.is_some() {
            let mut cause = self.to_string();
            while let Some(error) = source {
                cause = format!("{cause}: {error}");
                source = error.source();
            }
            response.extensions_mut().insert(Cause(cause.into()));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        // Texts always serialise.
        let body = serde_json::to_string(&Envelope {
            errors: [Detail { detail: &detail }],
        })
        .unwrap_or_default();
        self.answer("application/json", body)
    }
}

impl IntoResponse for PlainText {
    fn into_response(self) -> Response {
        let Self(error) = self;
        // Git shows what comes as exactly this type.
        error.answer("text/plain", format!("{error}\n"))
    }
}

impl From<ApiError> for PlainText {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<PathRejection> for ApiError {
    /// The text is axum's, and therefore crates.io's: ``Invalid URL: Invalid UTF-8 in `name` ``.
    fn from(rejection: PathRejection) -> Self {
        Self::BadRequest(rejection.body_text())
    }
}
