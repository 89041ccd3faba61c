//! The one place where errors become HTTP.
//!
//! Clients get a fixed phrase in crates.io's envelope, `{"errors":[{"detail":"…"}]}`. The cause travels to the request log as
//! a response extension.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::CatalogError;
use crate::index::ReadError;
use crate::journal::{JournalError, OffReason};
use crate::package::{CrateName, CrateVersion};
use crate::printable::printable;
use crate::server::Exhausted;
use crate::sqlite::AskError;
use crate::store::GetError;

/// How long a client should wait for the index, in seconds. Cargo honours up to 10.
const RETRY_AFTER_SECONDS: u64 = 5;

const JSON: &str = "application/json";

/// Git shows bodies of exactly this type.
const PLAIN_TEXT: &str = "text/plain";

/// The answer to every write. Cargo shows it to people who tried to publish, yank or change owners.
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
    /// The endpoint is about an account, and the mirror has none.
    #[error("this action requires authentication")]
    NeedsLogin,
    /// The catalog is not built yet. All endpoints that do not need it work.
    #[error("The mirror is still building its catalog of crates. Try again in a few seconds.")]
    CatalogNotReady,
    /// The catalog cannot answer now.
    #[error(
        "The mirror's catalog of crates cannot answer at the moment. Try again in a few seconds."
    )]
    CatalogFailed(#[source] AskError),
    /// There is no change journal.
    #[error("{}", feed_is_off(*.0))]
    FeedOff(OffReason),
    /// The change journal cannot answer now.
    #[error("The mirror's change journal cannot answer at the moment. Try again in a few seconds.")]
    FeedFailed(#[source] AskError),
    /// The change journal does not know the place that a client has come to.
    #[error("start again from a full copy (/git/index)")]
    CursorGone,
    /// The endpoint exists, for other methods.
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    /// More headers than any client has a reason to send.
    #[error("The request has too many headers.")]
    TooManyHeaders,
    /// A write.
    #[error("{READ_ONLY}")]
    ReadOnly,
    /// Something in the request cannot be right.
    #[error("{0}")]
    BadRequest(String),
    /// There is no view of the index yet.
    #[error(
        "The mirror has no copy of the index yet. It is being made; try again in a few seconds."
    )]
    NotReady,
    /// There is no view of the index, and somebody has to do something about it. Holds the reason.
    #[error("The mirror has no copy of the index, and needs help to get one: {0}")]
    NeedsHelp(String),
    /// Others have the permits or the memory that the answer needs.
    #[error("The mirror is busy. Try again in a few seconds.")]
    Busy,
    /// The clone cannot be read. The mirror is about to replace it.
    #[error("The mirror's copy of the index is being repaired. Try again in a few seconds.")]
    IndexUnreadable(#[source] ReadError),
    /// The index file is too large, or is no file. The mirror serves everything else.
    #[error("The mirror cannot serve the index file of this crate: {0}.")]
    IndexFileRefused(ReadError),
    /// Without `PUBLIC_URL` the git index has no `config.json`.
    #[error(
        "The git index is off: the mirror does not know its own URL. Its operator must set PUBLIC_URL."
    )]
    NoPublicUrl,
    /// There is nothing to serve the git index with.
    #[error(
        "The git index is off: there is no git program on the mirror's machine. The sparse index works without it."
    )]
    NoGitProgram,
    /// There is no copy of the advisory database yet.
    #[error(
        "The mirror has no copy of the advisory database yet. Try again in a few seconds; /readyz says why."
    )]
    NoAdvisoriesYet,
    /// There is nothing to serve the advisory database with.
    #[error(
        "The advisory database cannot be served: there is no git program on the mirror's machine."
    )]
    NoGitProgramForAdvisories,
    /// Git ended without an answer, and not because of the request.
    #[error("The git repository cannot be read at the moment. Try again in a few seconds.")]
    GitFailed(#[source] GitComplaint),
    /// Git did not understand a request.
    #[error("This is not a request that git understands.")]
    GitRequest(#[source] GitComplaint),
    /// An object that is no state of the git index. Holds its id.
    #[error("The mirror gives git clients only the states of its own git index, and {0} is none.")]
    GitCommitRefused(String),
    /// A request of another type than the one that git sends.
    #[error("The Content-Type of a git request is application/x-git-upload-pack-request.")]
    GitRequestType,
    /// A push, or the protocol of before 2009.
    #[error("{READ_ONLY} Fetching needs git 1.6.6 or later.")]
    GitServiceRefused,
    /// The view lists only stored files, and does not list this version. Holds crates.io's text.
    #[error("{0}. This mirror is offline and lists only versions whose file it has.")]
    CrateFileNotListed(String),
    /// The index lists a file, and it cannot be sent.
    #[error("crate file `{file}` {}", unavailable(source))]
    CrateFileUnavailable {
        /// Name and version.
        file: String,
        /// What happened.
        source: GetError,
    },
    /// The policy does not let clients have this version.
    #[error("{detail}")]
    RefusedByPolicy {
        /// Why, and what to do.
        detail: String,
        /// The seconds until the version is released.
        retry_after: Option<u64>,
    },
    /// The index does not list a version, and its upstream cannot be reached.
    #[error(
        "The mirror's index lists no such version, and its upstream cannot be reached. Try again in a few seconds."
    )]
    IndexUnreachable,
    /// An internal error.
    #[error("Internal Server Error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The output of git before it failed. It is for the request log, not for clients, because it may name files.
#[derive(Debug, thiserror::Error)]
#[error("git: {0}")]
pub(super) struct GitComplaint(pub(super) String);

/// The same errors for git, which shows only plain text.
pub(super) struct PlainText(pub(super) ApiError);

/// Why a request failed, for the request log.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub(super) Arc<str>);

/// crates.io's envelope of an error.
#[derive(Serialize, ToSchema)]
#[schema(as = Errors)]
pub(super) struct Envelope<'a> {
    /// Always one.
    #[schema(value_type = Vec<Detail<'_>>, min_items = 1, max_items = 1)]
    errors: [Detail<'a>; 1],
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Detail<'a> {
    /// What went wrong, as a text for people.
    detail: &'a str,
}

impl ApiError {
    /// Wraps an error that should be impossible.
    pub(super) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    /// A crate that the index lists, without this version.
    pub(super) fn version_not_found(name: &CrateName, version: &CrateVersion) -> Self {
        Self::VersionNotFound {
            name: name.to_string(),
            version: version.to_string(),
        }
    }

    /// Whether the index lists no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::CrateNotFound(_) | Self::VersionNotFound { .. })
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::RefusedByPolicy { retry_after, .. } => *retry_after,
            Self::CrateFileUnavailable {
                source: GetError::Busy(pause),
                ..
            } => Some(pause.as_secs().max(1)),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER_SECONDS),
            _ => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::CrateNotFound(_)
            | Self::VersionNotFound { .. }
            | Self::NotFound
            | Self::CrateFileNotListed(_) => StatusCode::NOT_FOUND,
            Self::CrateFileUnavailable { source, .. } => match source {
                GetError::NotStored | GetError::Missing => StatusCode::NOT_FOUND,
                GetError::Corrupt(_) | GetError::Failed(_) => StatusCode::BAD_GATEWAY,
                GetError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                GetError::Busy(_) | GetError::Pending | GetError::Store(_) | GetError::Stopping => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            },
            Self::CursorGone => StatusCode::GONE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ReadOnly
            | Self::NeedsLogin
            | Self::GitServiceRefused
            | Self::GitCommitRefused(_)
            | Self::RefusedByPolicy { .. } => StatusCode::FORBIDDEN,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::GitRequestType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadRequest(_) | Self::GitRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotReady
            | Self::NeedsHelp(_)
            | Self::Busy
            | Self::CatalogNotReady
            | Self::CatalogFailed(_)
            | Self::FeedOff(_)
            | Self::FeedFailed(_)
            | Self::IndexUnreadable(_)
            | Self::IndexFileRefused(_)
            | Self::NoPublicUrl
            | Self::NoAdvisoriesYet
            | Self::NoGitProgram
            | Self::NoGitProgramForAdvisories
            | Self::GitFailed(_)
            | Self::IndexUnreachable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer with this text as its body. cargo and git print bodies as they come, and a reason or a name in one may be
    /// from outside, so only printable characters are sent.
    fn answer(&self, content_type: &'static str, body: &str) -> Response {
        let status = self.status();
        let mut body = printable(body).into_owned();
        if content_type == PLAIN_TEXT {
            body.push('\n');
        }
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let may_change_soon = matches!(
            self,
            Self::CrateFileUnavailable { .. }
                | Self::CrateFileNotListed(_)
                | Self::RefusedByPolicy { .. }
        );
        if status.is_server_error() || may_change_soon {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        // That a file does not exist is no failure.
        if status.is_server_error() || matches!(self, Self::GitRequest(_)) {
            let mut source = std::error::Error::source(self);
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
        // A text can always be serialised.
        let body = serde_json::to_string(&Envelope {
            errors: [Detail { detail: &detail }],
        })
        .unwrap_or_default();
        self.answer(JSON, &body)
    }
}

impl IntoResponse for PlainText {
    fn into_response(self) -> Response {
        let Self(error) = self;
        error.answer(PLAIN_TEXT, &error.to_string())
    }
}

impl From<Exhausted> for ApiError {
    fn from(_exhausted: Exhausted) -> Self {
        Self::Busy
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotReady => Self::CatalogNotReady,
            CatalogError::Failed(AskError::Busy) => Self::Busy,
            CatalogError::Failed(error) => Self::CatalogFailed(error),
        }
    }
}

impl From<JournalError> for ApiError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Off(reason) => Self::FeedOff(reason),
            JournalError::Gone => Self::CursorGone,
            JournalError::Failed(AskError::Busy) => Self::Busy,
            JournalError::Failed(error) => Self::FeedFailed(error),
        }
    }
}

/// Why a crate file cannot be sent.
fn unavailable(source: &GetError) -> &'static str {
    match source {
        GetError::NotStored => "is not stored by this mirror, which is offline",
        GetError::Missing => "does not exist upstream",
        GetError::Corrupt(_) => {
            "cannot be served: what the upstream sent is not what the index says"
        }
        GetError::Failed(_) => "could not be fetched from the upstream",
        GetError::TimedOut => "could not be fetched: the upstream did not answer in time",
        GetError::Busy(_) | GetError::Pending | GetError::Store(_) | GetError::Stopping => {
            "is not available yet. Try again in a few seconds."
        }
    }
}

/// Why there is no change feed.
fn feed_is_off(reason: OffReason) -> &'static str {
    match reason {
        OffReason::NotReady => {
            "The mirror is still opening its change journal. Try again in a few seconds."
        }
        OffReason::NotWritable => {
            "The change feed is off: the mirror cannot write its change journal to DATA_DIR."
        }
        OffReason::InUse => {
            "The change feed is off: another mirror uses the change journal in DATA_DIR."
        }
        OffReason::Failed => {
            "The change feed is off: the mirror could not write its change journal. It tries again."
        }
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
