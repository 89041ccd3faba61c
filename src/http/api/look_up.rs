//! Answers from what the index says about one crate or one version.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::crate_in_path::VersionInPath;
use crate::http::error::ApiError;
use crate::http::index::index_guard::IndexGuard;
use crate::http::index::version_table::VersionTable;
use crate::http::state::RequestState;
use crate::package::{CrateHistory, CrateName, CrateVersion, Release};

/// What a look-up takes, as a multiple of the index file: the file, its lines as they were read, and the answer.
pub(super) const LOOK_UP_FACTOR: u64 = 5;

/// Answers from a crate's versions. `shape` runs on a blocking thread.
///
/// # Errors
/// 503 before the first view. All other failures come back as `Ok` with an error's status, so that they carry the commit.
pub(super) async fn with_crate(
    request: RequestState,
    name: CrateName,
    shape: impl Fn(&CrateName, &CrateHistory<'_>, &IndexGuard) -> Result<Response, ApiError>
    + Send
    + Sync
    + 'static,
) -> Result<Response, ApiError> {
    Ok(look_up(IndexGuard::take(request)?, name, shape).await)
}

/// Answers from one version of a crate. A request for a version that does not exist makes the mirror remember all versions
/// of the crate, so that further ones cost no look at the index file, which may have megabytes.
///
/// # Errors
/// As [`with_crate`].
pub(super) async fn with_version(
    request: RequestState,
    VersionInPath { name, version }: VersionInPath,
    shape: impl Fn(&CrateHistory<'_>, &Release<'_>, &IndexGuard) -> Result<Response, ApiError>
    + Send
    + Sync
    + 'static,
) -> Result<Response, ApiError> {
    let index = IndexGuard::take(request)?;
    let table = index.version_table_now(&name);
    if table.is_some_and(|table| !table.lists(&version)) {
        return Ok(index.mark(Err(ApiError::version_not_found(&name, &version))));
    }
    let shape = move |name: &CrateName, history: &CrateHistory<'_>, index: &IndexGuard| {
        if let Some(release) = history.find(&version) {
            return shape(history, release, index);
        }
        if let (Ok(blob), Some(table)) = (index.find(name), VersionTable::of(history)) {
            index.state.version_tables.insert(blob, Arc::new(table));
        }
        Err(ApiError::version_not_found(name, &version))
    };
    Ok(look_up(index, name, shape).await)
}

async fn look_up(
    mut index: IndexGuard,
    name: CrateName,
    shape: impl Fn(&CrateName, &CrateHistory<'_>, &IndexGuard) -> Result<Response, ApiError>
    + Send
    + Sync
    + 'static,
) -> Response {
    let answer = async {
        let blob = index.find(&name)?;
        let reading_index = index.clone().with_decisions(&name).await?;
        index.count_list([name.as_str()]);
        let read = move |file: &[u8]| {
            let history = CrateHistory::parse(file, &name)
                .ok_or_else(|| ApiError::CrateNotFound(name.to_string()))?;
            shape(&name, &history, &reading_index)
        };
        let permits = &index.state.look_up_permits;
        let answer = index.read(blob, permits, LOOK_UP_FACTOR, || None, read);
        let (answer, share) = answer.await?;
        let response = answer.into_response();
        // From here on the account keeps memory for the answer only.
        let Some(mut share) = share else {
            return Ok(index.state.keep(&index.exchange, response).await?);
        };
        share.shrink_to(response.body().size_hint().lower());
        index.exchange.keep(share);
        Ok(response)
    };
    let answer = answer.await;
    index.mark_repeatable(answer)
}

/// The same answer for every crate that exists, or for each that has the `version`: what the index does not tell.
///
/// # Errors
/// As [`with_crate`].
pub(super) async fn existing(
    request: RequestState,
    name: CrateName,
    version: Option<&CrateVersion>,
    answer: &impl Serialize,
) -> Result<Response, ApiError> {
    let index = IndexGuard::take(request)?;
    // The table tells whether there is such a crate, and is mostly in memory.
    let table = Box::pin(index.version_table(&name)).await;
    Ok(index.mark_repeatable(table.and_then(|table| match version {
        Some(version) if !table.lists(version) => Err(ApiError::version_not_found(&name, version)),
        _ => json(answer),
    })))
}

/// A short answer that was made without reading an index file. Its bytes are in the account.
pub(super) async fn accounted_json(
    index: &IndexGuard,
    answer: &impl Serialize,
) -> Result<Response, ApiError> {
    Ok(index.state.keep(&index.exchange, json(answer)?).await?)
}

/// A value as a JSON answer, serialised where this is called: on the blocking thread, not on an async worker.
pub(super) fn json(value: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}
