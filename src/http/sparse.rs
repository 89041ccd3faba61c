//! `GET /index/config.json` and `GET /index/{path}`: the sparse index, as cargo reads it.
//!
//! Index files are relayed byte for byte. Their validator is the git blob id, so that "not modified" costs one look-up in
//! memory, and every replica gives the same one.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::base_url::base_url;
use super::conditional::matches_any;
use super::error::ApiError;
use super::file_cache::{CachedFile, Encoding, is_tag_of};
use super::index_answer::{X_INDEX_COMMIT, with_read_permit};
use super::state::AppState;
use crate::index::{BlobId, Snapshot};
use crate::package::IndexPath;

/// How long anybody may keep an index file without asking again. Cargo asks every time.
const KEEP_FILE: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// For a config.json that was made from what the client sent: no shared cache may keep it for others.
const KEEP_PRIVATELY: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What cargo must know of this registry: where crate files and the web API are.
pub(super) async fn config(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Config<'a> {
        dl: String,
        api: &'a str,
    }

    let snapshot = state.index.snapshot().ok_or(ApiError::NotReady)?;
    let base = base_url(&state, &uri, &headers)?;
    // Without markers in `dl`, so that every cargo understands it.
    let dl = format!("{base}/api/v1/crates");
    let content = serde_json::to_vec(&Config { dl, api: &base }).map_err(ApiError::internal)?;
    let tag = format!("\"{}\"", BlobId::of(&content));
    let not_modified = matches_any(&headers, |candidate| candidate == tag);
    let (status, body) = if not_modified {
        (StatusCode::NOT_MODIFIED, Body::empty())
    } else {
        (StatusCode::OK, Body::from(content))
    };
    let mut response = (status, body).into_response();
    let answer = response.headers_mut();
    answer.insert(
        header::ETAG,
        HeaderValue::try_from(tag).map_err(ApiError::internal)?,
    );
    if status == StatusCode::OK {
        answer.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    if state.settings.public_url.is_some() {
        answer.insert(header::CACHE_CONTROL, KEEP_FILE);
    } else {
        answer.insert(header::CACHE_CONTROL, KEEP_PRIVATELY);
        answer.insert(
            header::VARY,
            HeaderValue::from_static("host, x-forwarded-proto"),
        );
    }
    mark(&mut response, &snapshot)?;
    Ok(response)
}

/// An index file, byte for byte; 404, and only 404, for what is absent.
pub(super) async fn file(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let snapshot = state.index.snapshot().ok_or(ApiError::NotReady)?;
    // A path that cannot be decoded names no file.
    let path = path.ok().and_then(|Path(path)| IndexPath::parse(&path));
    let mut response = match path.and_then(|path| snapshot.find_exactly(&path)) {
        Some(blob) => answer(&state, &snapshot, blob, &headers)
            .await
            .unwrap_or_else(IntoResponse::into_response),
        None => ApiError::NotFound.into_response(),
    };
    mark(&mut response, &snapshot)?;
    Ok(response)
}

/// The same, for a plain request that can be answered from memory at once; `None` where the router must decide.
pub(super) fn file_from_memory(state: &AppState, request: &Request) -> Option<Response> {
    let path = request.uri().path().strip_prefix("/index/")?;
    if request.method() != Method::GET {
        return None;
    }
    let snapshot = state.index.snapshot()?;
    // A percent sign is in no path of an index file, so that what is found needs no decoding.
    let blob = snapshot.find_exactly(&IndexPath::parse(path)?)?;
    let mut response = not_modified(blob, request.headers()).or_else(|| {
        Some(whole(
            blob,
            state.files.get(blob)?.as_ref(),
            request.headers(),
        ))
    })?;
    mark(&mut response, &snapshot).ok()?;
    Some(response)
}

async fn answer(
    state: &AppState,
    snapshot: &Arc<Snapshot>,
    blob: BlobId,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(response) = not_modified(blob, headers) {
        return Ok(response);
    }
    let file = load(state, snapshot, blob).await?;
    Ok(whole(blob, &file, headers))
}

/// 304, for a client that has the file in either form. This needs no look at the file.
fn not_modified(blob: BlobId, headers: &HeaderMap) -> Option<Response> {
    matches_any(headers, |tag| is_tag_of(blob, tag)).then(|| {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(&mut response, Encoding::accepted_by(headers).tag(blob));
        response
    })
}

fn whole(blob: BlobId, file: &CachedFile, headers: &HeaderMap) -> Response {
    let (body, encoding) = file.body(Encoding::accepted_by(headers));
    let mut response = Response::new(Body::from(body));
    describe(&mut response, encoding.tag(blob));
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(name) = encoding.name() {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
}

/// What a file's answer and its 304 have in common.
fn describe(response: &mut Response, tag: HeaderValue) {
    let answer = response.headers_mut();
    answer.insert(header::ETAG, tag);
    answer.insert(header::CACHE_CONTROL, KEEP_FILE);
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
}

async fn load(
    state: &AppState,
    snapshot: &Arc<Snapshot>,
    blob: BlobId,
) -> Result<Arc<CachedFile>, ApiError> {
    let read = async {
        let snapshot = Arc::clone(snapshot);
        let file = with_read_permit(state, move || {
            snapshot.read_blob(blob, |content| {
                CachedFile::new(Bytes::copy_from_slice(content))
            })
        })
        .await?;
        file.map(Arc::new).map_err(|unreadable| {
            state.index.report_damage();
            ApiError::IndexUnreadable(unreadable)
        })
    };
    // Those who ask for the same file at the same time wait for one read of it.
    state.files.get_or_load(blob, read).await
}

fn mark(response: &mut Response, snapshot: &Snapshot) -> Result<(), ApiError> {
    let commit =
        HeaderValue::try_from(snapshot.commit().to_string()).map_err(ApiError::internal)?;
    response.headers_mut().insert(X_INDEX_COMMIT, commit);
    Ok(())
}
