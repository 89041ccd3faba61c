//! Answers that are made from the index: one snapshot from beginning to end, read on a blocking thread, marked with the
//! commit they were made from.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::api::version_table::VersionTable;
use super::error::ApiError;
use super::state::AppState;
use crate::index::{BlobId, ReadError, View};
use crate::package::{CrateHistory, CrateName, CrateVersion, Release};
use crate::server::{Exchange, Share, Shares};

/// Names the upstream commit that an answer was made from.
pub(super) const X_INDEX_COMMIT: HeaderName = HeaderName::from_static("x-index-commit");

/// An index file of this size and more is read only when the account has room for it and for what is made of it, in bytes.
const ACCOUNTED_FILE_BYTES_MIN: u64 = 64 * 1024;

/// What a look-up takes, as a multiple of the file: the file, its lines as they were read, and the answer.
const LOOK_UP_FACTOR: u64 = 5;

/// Answers from what the index says of a crate. `shape` runs on a blocking thread.
///
/// # Errors
/// 503 before the first snapshot, and when too many look-ups are under way. All other failures come back as `Ok` with
/// an error's status, so that they carry the commit too.
pub(super) async fn with_crate<T: IntoResponse>(
    state: &AppState,
    exchange: &Exchange,
    name: CrateName,
    shape: impl Fn(&CrateName, &CrateHistory<'_>, &Lookup) -> Result<T, ApiError>
    + Send
    + Sync
    + 'static,
) -> Result<Response, ApiError> {
    let view = state.index.view().ok_or_else(|| state.not_ready())?;
    let commit = HeaderValue::try_from(view.commit().to_string()).map_err(ApiError::internal)?;
    let mut response = match view.find(&name) {
        None => ApiError::CrateNotFound(name.to_string()).into_response(),
        Some(blob) => {
            let lookup = Lookup {
                state: state.clone(),
                view: Arc::clone(&view),
            };
            let read = move |file: &[u8]| {
                let history = CrateHistory::parse(file, &name)
                    .ok_or_else(|| ApiError::CrateNotFound(name.to_string()))?;
                shape(&name, &history, &lookup).map(IntoResponse::into_response)
            };
            let file = IndexFile {
                state,
                view: &view,
                blob,
            };
            let read = file
                .read(exchange, &state.index_reads, LOOK_UP_FACTOR, || None, read)
                .await;
            match read {
                Ok((answer, share)) => account_for(state, exchange, share, answer).await?,
                Err(error) => error.into_response(),
            }
        }
    };
    response.headers_mut().insert(X_INDEX_COMMIT, commit);
    Ok(response)
}

/// Answers from what the index says of one version. Once a version of a crate was asked for that there is not, further
/// ones cost no look at the index file, which may have megabytes.
///
/// # Errors
/// As [`with_crate`].
pub(super) async fn with_version<T: IntoResponse>(
    state: &AppState,
    exchange: &Exchange,
    (name, version): (CrateName, CrateVersion),
    shape: impl Fn(&CrateHistory<'_>, &Release<'_>, &Lookup) -> Result<T, ApiError>
    + Send
    + Sync
    + 'static,
) -> Result<Response, ApiError> {
    let missing = ApiError::version_not_found(&name, &version);
    let view = state.index.view().ok_or_else(|| state.not_ready())?;
    let blob = view.find(&name);
    let table = blob.and_then(|blob| state.version_tables.get(&blob));
    if table.is_some_and(|table| !table.lists(&version)) {
        let mut response = missing.into_response();
        let commit = HeaderValue::from_bytes(&view.commit().hex()).map_err(ApiError::internal)?;
        response.headers_mut().insert(X_INDEX_COMMIT, commit);
        return Ok(response);
    }
    with_crate(
        state,
        exchange,
        name,
        move |name, history, lookup| match history.find(&version) {
            Some(release) => shape(history, release, lookup),
            None => {
                if let (Some(blob), Some(table)) = (lookup.find(name), VersionTable::of(history)) {
                    lookup.version_tables.insert(blob, Arc::new(table));
                }
                Err(ApiError::version_not_found(name, &version))
            }
        },
    )
    .await
}

/// Accounts for an answer until it is sent. `share` is what was needed to make it, which is given back.
async fn account_for(
    state: &AppState,
    exchange: &Exchange,
    share: Option<Share>,
    answer: Result<Response, ApiError>,
) -> Result<Response, ApiError> {
    let response = answer.unwrap_or_else(IntoResponse::into_response);
    let bytes = response.body().size_hint().lower();
    match share {
        Some(mut share) => {
            share.shrink_to(bytes);
            exchange.keep(share);
        }
        None => state.account.keep(exchange, bytes).await?,
    }
    Ok(response)
}

/// An index file that a snapshot lists.
pub(super) struct IndexFile<'a> {
    pub(super) state: &'a AppState,
    pub(super) view: &'a Arc<View>,
    pub(super) blob: BlobId,
}

impl IndexFile<'_> {
    /// Returns what is `known`, or gives the content to `read` on a blocking thread, when the exchange has its turn. A large one also needs room in the
    /// account, `factor` times its size; that share is returned with the result.
    ///
    /// # Errors
    /// 503 when there is no turn or no room in time, and for a file that cannot be read.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        exchange: &Exchange,
        turns: &Shares,
        factor: u64,
        known: impl Fn() -> Option<T>,
        read: impl Fn(&[u8]) -> T + Send + Sync + 'static,
    ) -> Result<(T, Option<Share>), ApiError> {
        let read = Arc::new(read);
        let mut share = None;
        loop {
            if let Some(known) = known() {
                return Ok((known, share));
            }
            let turn = turns.take(exchange, 1).await?;
            // Another request may have read it meanwhile.
            if let Some(known) = known() {
                return Ok((known, share));
            }
            let (view, blob, read) = (Arc::clone(self.view), self.blob, Arc::clone(&read));
            let has_share = share.is_some();
            let work = move || {
                let admit = |bytes| has_share || bytes < ACCOUNTED_FILE_BYTES_MIN;
                let read = read_if(&view, blob, admit, |content| read(content));
                // The turn goes along: a client that leaves makes no room for another while this still runs.
                (read, turn)
            };
            let (result, turn) = tokio::task::spawn_blocking(work)
                .await
                .map_err(ApiError::internal)?;
            drop(turn);
            match result.map_err(|error| unreadable(self.state, error))? {
                Read::Done(result) => return Ok((result, share)),
                // Nobody waits for memory while others wait for the turn.
                Read::NotAdmitted(bytes) => {
                    let bytes = bytes.saturating_mul(factor);
                    share = Some(self.state.account.take(exchange, bytes).await?);
                }
            }
        }
    }
}

/// What came of reading an index file.
enum Read<T> {
    Done(T),
    /// It has so many bytes, which are too many for now.
    NotAdmitted(u64),
}

fn read_if<T>(
    view: &View,
    blob: BlobId,
    admit: impl FnOnce(u64) -> bool,
    read: impl FnOnce(&[u8]) -> T,
) -> Result<Read<T>, ReadError> {
    let bytes = view.blob_bytes(blob)?;
    if !admit(bytes) {
        return Ok(Read::NotAdmitted(bytes));
    }
    view.read_blob(blob, read).map(Read::Done)
}

fn unreadable(state: &AppState, error: ReadError) -> ApiError {
    if !error.may_be_damage() {
        return ApiError::IndexFileRefused(error);
    }
    state.index.report_damage();
    ApiError::IndexUnreadable(error)
}

/// One request's view of the index.
pub(super) struct Lookup {
    state: AppState,
    view: Arc<View>,
}

impl Lookup {
    /// The index file of a crate.
    pub(super) fn find(&self, name: &CrateName) -> Option<BlobId> {
        self.view.find(name)
    }

    /// How large an index file is, if it can be read. Blocking.
    pub(super) fn bytes_of(&self, blob: BlobId) -> Option<u64> {
        self.readable(self.view.blob_bytes(blob))
    }

    /// The name of a crate as it was published, if its file says so and can be read. Blocking.
    pub(super) fn published_name(&self, name: &CrateName, blob: BlobId) -> Option<String> {
        let read = |file: &[u8]| CrateHistory::published_name(file, name);
        self.readable(self.view.read_blob(blob, read)).flatten()
    }

    /// A file that cannot be read is reported. The answer, which is of another crate, does without it.
    fn readable<T>(&self, read: Result<T, ReadError>) -> Option<T> {
        read.map_err(|error| unreadable(&self.state, error)).ok()
    }
}

impl std::ops::Deref for Lookup {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.state
    }
}

/// A value as a JSON answer, serialised where this is called: on the blocking thread, not on an async worker.
pub(super) fn json(value: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(axum::http::header::CONTENT_TYPE, json)], body).into_response())
}
