//! Answers that are made from the index: one snapshot from beginning to end, read on a blocking thread, marked with the
//! commit they were made from.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::state::AppState;
use crate::index::Snapshot;
use crate::package::{CrateHistory, CrateName};

/// Names the upstream commit that an answer was made from.
pub(super) const X_INDEX_COMMIT: HeaderName = HeaderName::from_static("x-index-commit");

/// How long a look-up may wait for others to finish.
pub(super) const READ_WAIT_MAX: Duration = Duration::from_secs(10);

/// Answers from what the index says of a crate. `shape` runs on a blocking thread.
///
/// # Errors
/// 503 before the first snapshot, and when too many look-ups are under way. All other failures come back as `Ok` with
/// an error's status, so that they carry the commit too.
pub(super) async fn with_crate<T: IntoResponse>(
    state: &AppState,
    name: CrateName,
    shape: impl FnOnce(&CrateName, &CrateHistory<'_>, &Lookup) -> Result<T, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let snapshot = state.index.snapshot().ok_or(ApiError::NotReady)?;
    let commit =
        HeaderValue::try_from(snapshot.commit().to_string()).map_err(ApiError::internal)?;
    let permit = read_permit(&state.index_reads).await?;
    let lookup = Lookup {
        state: state.clone(),
        snapshot,
    };
    let work = move || {
        let answer = lookup.file(&name, |file| {
            let history = CrateHistory::parse(file, &name)?;
            Some(shape(&name, &history, &lookup).map(IntoResponse::into_response))
        })?;
        answer
            .flatten()
            .unwrap_or_else(|| Err(ApiError::CrateNotFound(name.to_string())))
    };
    // The permit goes along: a client that leaves makes no room for another while this still runs.
    let (answer, permit) = tokio::task::spawn_blocking(move || (work(), permit))
        .await
        .map_err(ApiError::internal)?;
    let mut response = answer.into_response();
    response.headers_mut().insert(X_INDEX_COMMIT, commit);
    // Held until there is room for the answer, so that few large ones can wait.
    let response = state.budget.admit(response).await;
    drop(permit);
    response
}

/// Runs something that reads from the index on a blocking thread, when it is its turn.
///
/// # Errors
/// 503 when too many look-ups are under way.
pub(super) async fn with_read_permit<T: Send + 'static>(
    reads: &Arc<Semaphore>,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let permit = read_permit(reads).await?;
    let work = move || (read(), permit);
    let (result, _permit) = tokio::task::spawn_blocking(work)
        .await
        .map_err(ApiError::internal)?;
    Ok(result)
}

async fn read_permit(reads: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    let waiting = Arc::clone(reads).acquire_owned();
    tokio::time::timeout(READ_WAIT_MAX, waiting)
        .await
        .map_err(|_elapsed| ApiError::Busy)?
        .map_err(ApiError::internal)
}

/// One request's view of the index.
pub(super) struct Lookup {
    state: AppState,
    snapshot: Arc<Snapshot>,
}

impl Lookup {
    /// The name of a crate as it was published; `None` if the index lists no such crate. Blocking.
    pub(super) fn published_name(&self, name: &CrateName) -> Result<Option<String>, ApiError> {
        let published = self.file(name, |file| CrateHistory::published_name(file, name))?;
        Ok(published.flatten())
    }

    fn file<T>(
        &self,
        name: &CrateName,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, ApiError> {
        self.snapshot.index_file(name, read).map_err(|unreadable| {
            self.state.index.report_damage();
            ApiError::IndexUnreadable(unreadable)
        })
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
