//! `GET /api/v1/crates/{name}/{version}/download`, and the paths that crate files have on crates.io's CDN, for tools that
//! build those: `/crates/{name}/{name}-{version}.crate` and `/crates/{name}/{version}/download`.
//!
//! In the mode `redirect` the answer is a pure function of name, version and template, as on crates.io: no look-up, because
//! the index may be minutes behind a publish. Only a template with `{sha256-checksum}` needs the index. In the other modes
//! the mirror sends the file itself (`file_answer`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::file_answer::FileRequest;
use crate::http::crate_in_path::VersionInPath;
use crate::http::error::{ApiError, Envelope};
use crate::http::index::index_guard::IndexGuard;
use crate::http::state::{AppState, DownloadPolicy, RequestState};
use crate::package::canonical_order;
use crate::server::Exchange;

/// How long a redirect waits for the policy in audit mode.
const WATCH_TIME_MAX: Duration = Duration::from_millis(100);

/// Sends a crate file, or says where it is.
///
/// In the mode `redirect` this is a redirect, or the URL in JSON for a client that accepts JSON. In the modes `cache` and
/// `offline` it is the file.
// The path may be percent-encoded.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/{version}/download",
    tag = "versions",
    params(("name" = String, Path, example = "itoa"), ("version" = String, Path, example = "1.0.0")),
    responses(
        (status = 200, description = "the file, or its URL", content(
            (Vec<u8> = "application/gzip"),
            (Found = "application/json"),
        )),
        (status = 206, description = "the part of the file that was asked for", content((Vec<u8> = "application/gzip"))),
        (status = 302, description = "the file is at `Location`", headers(("location" = String))),
        (status = 304, description = "the client has the file"),
        (status = 403, body = Envelope<'_>, description = "the policy denies the version, or holds it and `HELD_DOWNLOADS` is `deny`",
            headers(("retry-after" = Option<u64>, description = "seconds until the hold ends; absent if it does not end by itself"))),
        (status = 416, description = "the file has no such part"),
        (status = 502, body = Envelope<'_>, description = "the upstream has an error or sent wrong bytes"),
        (status = 504, body = Envelope<'_>, description = "the upstream timed out"),
    ),
)]
pub(crate) async fn download(
    RequestState { state, exchange }: RequestState,
    wanted: VersionInPath,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(&state, exchange, &wanted, (&method, &headers)).await
}

/// The same for `{name}/{name}-{version}.crate`.
pub(crate) async fn cdn_file(
    RequestState { state, exchange }: RequestState,
    path: Result<Path<(String, String)>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((name, file)) = path?;
    let version = version_in(&name, &file).ok_or(ApiError::NotFound)?;
    let version = version.to_owned();
    let wanted = VersionInPath::parse(name, version)?;
    answer(&state, exchange, &wanted, (&method, &headers)).await
}

/// The version in the name of a crate file. The name of the crate tells where it begins: that may contain a `-` itself, and
/// is the same name in either case and with `-` or `_`.
fn version_in<'a>(name: &str, file: &'a str) -> Option<&'a str> {
    let (its_name, rest) = file.split_at_checked(name.len())?;
    let version = rest.strip_prefix('-')?.strip_suffix(".crate")?;
    canonical_order(its_name, name).is_eq().then_some(version)
}

/// The crate file, a redirect to it, or its URL in JSON.
pub(crate) async fn answer(
    state: &Arc<AppState>,
    exchange: Exchange,
    wanted: &VersionInPath,
    (method, headers): (&Method, &HeaderMap),
) -> Result<Response, ApiError> {
    // Most redirects do without it.
    let request = || RequestState {
        state: Arc::clone(state),
        exchange,
    };
    if let Some(crate_files) = &state.crate_files {
        let index = IndexGuard::take_for_download(request()).await?;
        let request = FileRequest {
            crate_files,
            wanted,
            method,
            headers,
            deadline: Instant::now() + crate_files.wait_max(),
        };
        return Ok(request.answer(index).await);
    }
    let VersionInPath { name, version } = wanted;
    let template = &state.settings.download;
    let policy = state.settings.download_policy;
    if !template.needs_checksum && policy != DownloadPolicy::Enforce {
        if policy == DownloadPolicy::Watch {
            // It changes no answer, and must not delay one for long either.
            let watch = Box::pin(watch(request(), wanted));
            let _watched = tokio::time::timeout(WATCH_TIME_MAX, watch).await;
        }
        return redirect(template.expand(name, version, None), headers);
    }
    let index = IndexGuard::take_for_download(request()).await?;
    let answer = Box::pin(redirect_to_listed(&index, wanted)).await;
    Ok(index.mark(answer.and_then(|url| redirect(url, headers))))
}

/// The URL of the crate file of a version, if the index lists it and the policy allows it.
async fn redirect_to_listed(
    index: &IndexGuard,
    VersionInPath { name, version }: &VersionInPath,
) -> Result<String, ApiError> {
    let table = index.version_table(name).await?;
    let missing = || ApiError::version_not_found(name, version);
    let template = &index.state.settings.download;
    // Only a template with a checksum needs one.
    let file = table.file(version);
    if file.is_none() && (template.needs_checksum || !table.lists(version)) {
        return Err(missing());
    }
    index.check_download(name, version).await?;
    let checksum = file.as_ref().map(|file| &file.checksum);
    Ok(template.expand(name, version, checksum))
}

/// Notes what the policy would refuse. It changes no answer, so its failures do not matter.
async fn watch(request: RequestState, VersionInPath { name, version }: &VersionInPath) {
    if let Ok(index) = IndexGuard::take(request) {
        let _checked = index.check_download(name, version).await;
    }
}

/// Where a crate file is.
#[derive(Serialize, ToSchema)]
#[schema(as = DownloadUrl)]
pub(crate) struct Found {
    url: String,
}

/// The redirect to a URL, or the URL in JSON for a client that accepts JSON.
fn redirect(url: String, headers: &HeaderMap) -> Result<Response, ApiError> {
    if accepts_json(headers) {
        let vary = [(header::VARY, "accept, accept-encoding")];
        return Ok((vary, axum::Json(Found { url })).into_response());
    }
    let location = HeaderValue::from_maybe_shared(Bytes::from(url)).map_err(ApiError::internal)?;
    let mut response = StatusCode::FOUND.into_response();
    let answer = response.headers_mut();
    answer.insert(header::LOCATION, location);
    answer.insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether any `Accept` line contains `json`. crates.io looks for nothing else.
fn accepts_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::ACCEPT).iter();
    lines.any(|line| line.as_bytes().windows(4).any(|window| window == b"json"))
}
