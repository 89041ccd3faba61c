//! `/git/index`: the index over git's smart HTTP protocol, version 0 and 2, for cargo and for git itself. `/git/advisory-db`:
//! the advisory database in the same way, for cargo-audit and cargo-deny.
//!
//! A child process, git's own `upload-pack`, answers each request. This module only carries bytes in and out, and makes
//! sure that no child outlives its client (<https://git-scm.com/docs/http-protocol>). Errors are plain text, which git
//! shows.

pub(super) mod output;
mod wants;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio_util::task::AbortOnDropHandle;

use super::error::{ApiError, GitComplaint, PlainText};
use super::index::index_guard::{commit_header, git_index, policy_header};
use super::index::policy_guard::count_git_fetch;
use super::semantics::body_of_unknown_length;
use super::state::{AppState, RequestState};
use crate::index::{GitIndex, GitProtocol, GitRequest, IndexHandle, View};
use crate::server::WeakExchange;
use output::GitOutput;
use wants::WantCheck;

/// The service that git clients ask for, and the only one that they get.
const UPLOAD_PACK: &str = "git-upload-pack";

/// The beginning of the paths of the advisory database.
const ADVISORY_DB: &str = "/git/advisory-db/";

/// The beginning of the list of references over HTTP.
const SERVICE_HEADER: &[u8] = b"001e# service=git-upload-pack\n0000";

const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";
const RESULT_TYPE: &str = "application/x-git-upload-pack-result";
const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";

/// No cache may keep an answer. git's own server sends the same headers.
const NEVER_KEEP: [(HeaderName, HeaderValue); 3] = [
    (
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0, must-revalidate"),
    ),
    (
        header::EXPIRES,
        HeaderValue::from_static("Fri, 01 Jan 1980 00:00:00 GMT"),
    ),
    (header::PRAGMA, HeaderValue::from_static("no-cache")),
];

/// The longest request, unpacked. A request that lists everything that a client has is far below.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much of a request is read before a child starts for it. Nearly all requests are shorter.
const BEGINNING_BYTES: usize = 64 * 1024;

/// The memory for reading that, with the state of gzip.
const BEGINNING_COST_BYTES: u64 = 128 * 1024;

/// How long a client may take for that.
const BEGINNING_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a client may take for the next piece of its request.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(30);

/// In a request of version 2 that asks for the references. It only decides what the request counts as.
const LIST_REFS: &[u8] = b"command=ls-refs";

/// The query of `info/refs`.
#[derive(Deserialize)]
pub(crate) struct Service {
    service: Option<String>,
}

/// A state of a repository, the view that it belongs to, and the handle whose task checks it after a failure of git.
type Current<'s> = (Arc<GitIndex>, Option<Arc<View>>, &'s IndexHandle);

/// A repository that clients get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Served {
    Index,
    AdvisoryDb,
}

/// The references of a repository, the first thing that a client asks for.
pub(crate) async fn list_refs(
    served: Served,
    request: RequestState,
    query: Query<Service>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, PlainText> {
    // Without a service it is the protocol of before 2009, which would need the files of the repository.
    if query.service.as_deref() != Some(UPLOAD_PACK) {
        return Err(PlainText(ApiError::GitServiceRefused));
    }
    let asked = (GitRequest::Advertisement, &headers, Body::empty());
    let (output, headers) = start(served, &request, asked).await?;
    // An answer to HEAD has no body.
    let body = if method == Method::HEAD {
        body_of_unknown_length()
    } else {
        Body::new(output.after(Bytes::from_static(SERVICE_HEADER)))
    };
    Ok((headers, body).into_response())
}

/// The objects of a repository that a client wants and does not have, as a pack.
pub(crate) async fn upload_pack(
    served: Served,
    request: RequestState,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainText> {
    if headers.get(header::CONTENT_TYPE) != Some(&HeaderValue::from_static(REQUEST_TYPE)) {
        return Err(PlainText(ApiError::GitRequestType));
    }
    let asked = (GitRequest::Exchange, &headers, body);
    let (output, headers) = start(served, &request, asked).await?;
    Ok((headers, Body::new(output)).into_response())
}

/// A push. Nobody can push to a mirror.
pub(crate) async fn refuse_push(_served: Served) -> PlainText {
    PlainText(ApiError::ReadOnly)
}

impl FromRequestParts<Arc<AppState>> for Served {
    type Rejection = PlainText;

    /// 404 for a repository that the mirror does not have at all.
    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<AppState>,
    ) -> Result<Self, PlainText> {
        match parts.uri.path().starts_with(ADVISORY_DB) {
            false => Ok(Self::Index),
            true if state.advisories.is_some() => Ok(Self::AdvisoryDb),
            true => Err(PlainText(ApiError::NotFound)),
        }
    }
}

impl Served {
    /// The state that clients get now, and the handle whose task checks it after a failure of git.
    ///
    /// # Errors
    /// 503 before the first one.
    fn current(self, state: &AppState) -> Result<Current<'_>, ApiError> {
        match (self, &state.advisories) {
            (Self::Index, _) => {
                let (view, git) = git_index(state)?;
                Ok((git, Some(view), &state.index))
            }
            (Self::AdvisoryDb, None) => Err(ApiError::NotFound),
            (Self::AdvisoryDb, Some(advisories)) => {
                let git = advisories.git().ok_or(ApiError::NoAdvisoriesYet)?;
                Ok((git, None, advisories.work()))
            }
        }
    }

    /// There is no git program.
    fn no_program(self) -> ApiError {
        match self {
            Self::Index => ApiError::NoGitProgram,
            Self::AdvisoryDb => ApiError::NoGitProgramForAdvisories,
        }
    }
}

/// The output of git, and the headers of the answer.
async fn start(
    served: Served,
    RequestState { state, exchange }: &RequestState,
    (request, headers, body): (GitRequest, &HeaderMap, Body),
) -> Result<(GitOutput, HeaderMap), ApiError> {
    // Its `config.json` has the mirror's own URL.
    if served == Served::Index && state.settings.public_url.is_none() {
        return Err(ApiError::NoPublicUrl);
    }
    // The account gives memory before anything is read or unpacked. A permit for a child is taken only when the child has
    // something to do: a client that is slow to ask keeps nobody waiting.
    let mut reading = match request {
        GitRequest::Advertisement => None,
        GitRequest::Exchange => Some(state.account.take(exchange, BEGINNING_COST_BYTES).await?),
    };
    exchange.set_reading(true);
    let read = read_beginning(body).await;
    exchange.set_reading(false);
    let (beginning, rest) = read?;
    if let Some(reading) = &mut reading {
        reading.shrink_to(beginning.len() as u64);
    }
    let permit = state.git_permits.take(exchange, 1).await?;
    let (git, view, checked_by) = served.current(state)?;
    let is_ruled = view.as_ref().is_some_and(|view| view.is_ruled());
    let mut wants = is_ruled.then(|| WantCheck::new(Arc::clone(&git)));
    if let Some(wants) = &mut wants {
        wants.check(&beginning).await?;
    }
    let protocol = headers
        .get("git-protocol")
        .and_then(|value| value.to_str().ok())
        .and_then(GitProtocol::parse);
    let mut child = git
        .answer(request, protocol.as_ref())
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => served.no_program(),
            _ => ApiError::GitFailed(GitComplaint(error.to_string())),
        })?;
    // In version 2 of the protocol a list of references is asked for in the same way.
    let lists_refs = beginning
        .windows(LIST_REFS.len())
        .any(|text| text == LIST_REFS);
    let is_fetch = request == GitRequest::Exchange && !lists_refs;
    let (commit, input) = (child.commit(), child.stdin.take());
    let client = exchange.downgrade();
    let feeder = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Some(input) = input {
            feed(beginning, (rest, wants), input, client).await;
        }
        drop(reading);
    }));
    let output = GitOutput::begin(child, request, checked_by.clone(), feeder, permit).await?;
    let content_type = match request {
        GitRequest::Advertisement => ADVERTISEMENT_TYPE,
        GitRequest::Exchange => RESULT_TYPE,
    };
    let mut headers = HeaderMap::from_iter(NEVER_KEEP);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // The advisory database has no view.
    if let Some(view) = &view {
        if is_fetch {
            count_git_fetch(state, view);
        }
        headers.extend(commit_header(commit));
        headers.extend(policy_header(view));
    }
    Ok((output, headers))
}

/// Reads a request to its end, or until it is clear that it is long.
async fn read_beginning(request: Body) -> Result<(Vec<u8>, Limited<Body>), ApiError> {
    let mut request = Limited::new(request, REQUEST_BYTES_MAX);
    let refused = |why: String| ApiError::GitRequest(GitComplaint(why));
    let mut beginning = Vec::new();
    let read = async {
        while beginning.len() < BEGINNING_BYTES {
            match request.frame().await {
                Some(Ok(frame)) => beginning.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(refused(error.to_string())),
                None => break,
            }
        }
        Ok(())
    };
    tokio::time::timeout(BEGINNING_TIME_MAX, read)
        .await
        .map_err(|elapsed| refused(elapsed.to_string()))??;
    Ok((beginning, request))
}

/// Passes a request on as it comes. A request that ends early, is too long, breaks its encoding, or names a commit that is
/// refused ends the child's input. The child then says that the request was not complete. The beginning was checked already.
async fn feed(
    beginning: Vec<u8>,
    (mut rest, mut wants): (Limited<Body>, Option<WantCheck>),
    mut child: ChildStdin,
    client: WeakExchange,
) {
    if child.write_all(&beginning).await.is_err() {
        return;
    }
    drop(beginning);
    let set_reading = |reading| {
        if let Some(exchange) = client.get() {
            exchange.set_reading(reading);
        }
    };
    loop {
        // The child waits for the client now, and others may wait for the child.
        set_reading(true);
        let frame = tokio::time::timeout(PIECE_WAIT_MAX, rest.frame()).await;
        set_reading(false);
        let Ok(Some(Ok(frame))) = frame else {
            return;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if let Some(wants) = &mut wants
            && wants.check(&data).await.is_err()
        {
            return;
        }
        // A child that has read enough or has failed reads no more.
        if child.write_all(&data).await.is_err() {
            return;
        }
    }
}
