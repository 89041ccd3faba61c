//! `GET /index/config.json` and `GET /index/{path}`: the sparse index, as cargo reads it.
//!
//! Index files are relayed byte for byte. Their validator is the git blob id, so that "not modified" costs one look-up in
//! memory, and every replica gives the same one.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::file_cache::{CachedFile, Encoding, form_of};
use crate::http::error::ApiError;
use crate::http::index_answer::{IndexFile, X_INDEX_COMMIT};
use crate::http::semantics::base_url::base_url;
use crate::http::semantics::conditional::{has_any, known_tag};
use crate::http::state::AppState;
use crate::index::{BlobId, View};
use crate::package::{IndexPath, registry_config};
use crate::server::{Asked, Exchange};

/// How long anybody may keep an index file without asking again. Cargo asks every time.
const KEEP_FILE: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// How many headers a file's answer has at most, so that their table is made once.
const HEADERS_MAX: usize = 8;

/// For a config.json that was made from what the client sent: no shared cache may keep it for others.
const KEEP_PRIVATELY: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What cargo must know of this registry: where crate files and the web API are.
pub(crate) async fn config(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let view = state.index.view().ok_or_else(|| state.not_ready())?;
    let base = base_url(&state, &uri, &headers)?;
    let content = registry_config(&base);
    let tag = format!("\"{}\"", BlobId::of(content.as_bytes()));
    let has_it = known_tag(&headers, |known| (known == tag).then_some(())).is_some();
    let not_modified = has_it || has_any(&headers);
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
    mark(&mut response, &view)?;
    Ok(response)
}

/// An index file, byte for byte; 404, and only 404, for what is absent.
pub(crate) async fn file(
    State(state): State<AppState>,
    Extension(exchange): Extension<Exchange>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let view = state.index.view().ok_or_else(|| state.not_ready())?;
    // A path that cannot be decoded names no file, nor does one in which decoding made a slash.
    let made_slash = uri.path().to_ascii_lowercase().contains("%2f");
    let path = path
        .ok()
        .filter(|_| !made_slash)
        .and_then(|Path(path)| IndexPath::parse(&path));
    let mut response = match path.and_then(|path| view.find_exactly(&path)) {
        Some(blob) => answer(&state, &exchange, &view, blob, &headers)
            .await
            .unwrap_or_else(IntoResponse::into_response),
        None => {
            let mut response = ApiError::NotFound.into_response();
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, KEEP_FILE);
            response
        }
    };
    mark(&mut response, &view)?;
    Ok(response)
}

/// The same, for a plain request that can be answered from memory at once; `None` where the router must decide.
pub(crate) fn file_from_memory(state: &AppState, asked: &Asked) -> Option<Response> {
    let Asked {
        request, exchange, ..
    } = asked;
    let path = request.uri().path().strip_prefix("/index/")?;
    if request.method() != Method::GET {
        return None;
    }
    let view = state.index.view()?;
    // A percent sign is in no path of an index file, so that what is found needs no decoding.
    let blob = view.find_exactly(&IndexPath::parse(path)?)?;
    let mut response = not_modified(blob, request.headers()).or_else(|| {
        let file = state.files.get(blob)?;
        let (body, encoding) = file.body(Encoding::accepted_by(request.headers()));
        // A large one may have to wait for room in the account; then the router takes over.
        body.keep_now(&state.account, exchange)
            .then(|| whole(blob, (body.bytes(), encoding), request.headers()))
    })?;
    mark(&mut response, &view).ok()?;
    Some(response)
}

async fn answer(
    state: &AppState,
    exchange: &Exchange,
    view: &Arc<View>,
    blob: BlobId,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(response) = not_modified(blob, headers) {
        return Ok(response);
    }
    let file = load(state, exchange, view, blob).await?;
    let encoding = Encoding::accepted_by(headers);
    let (body, form) = file.body(encoding);
    if body.keep_now(&state.account, exchange) {
        return Ok(whole(blob, (body.bytes(), form), headers));
    }
    // Requests that wait for memory keep no file meanwhile: many may wait. Most often it is still in memory afterwards. If
    // it is not, the share is given back before the file is read, which needs a share of its own.
    let bytes = body.bytes().len() as u64;
    drop(file);
    let share = state.account.take(exchange, bytes).await?;
    if let Some(file) = state.files.get(blob) {
        let (body, form) = file.body(encoding);
        body.keep_share(share, exchange);
        return Ok(whole(blob, (body.bytes(), form), headers));
    }
    drop(share);
    let file = load(state, exchange, view, blob).await?;
    let (body, form) = file.body(encoding);
    if !body.keep_now(&state.account, exchange) {
        return Err(ApiError::Busy);
    }
    Ok(whole(blob, (body.bytes(), form), headers))
}

/// 304, for a client that names the file, in a form that it takes. This needs no look at the file.
fn not_modified(blob: BlobId, headers: &HeaderMap) -> Option<Response> {
    let takes = Encoding::accepted_by(headers);
    let form = known_tag(headers, |tag| {
        // A shared cache that asks for somebody who takes no gzip must not be told that its gzip will do.
        form_of(blob, tag).filter(|form| *form == Encoding::Plain || *form == takes)
    })?;
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    describe(&mut response, form.tag(blob));
    Some(response)
}

/// The file, or 304 for a client that is content with whatever it has.
fn whole(blob: BlobId, (body, encoding): (&Bytes, Encoding), headers: &HeaderMap) -> Response {
    if has_any(headers) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(&mut response, encoding.tag(blob));
        return response;
    }
    let mut response = Response::new(Body::from(body.clone()));
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
    answer.reserve(HEADERS_MAX);
    answer.insert(header::ETAG, tag);
    answer.insert(header::CACHE_CONTROL, KEEP_FILE);
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
}

/// A load takes as much as the file in both forms, once as libgit2 has it, and once more while it is compressed.
const LOAD_FACTOR: u64 = 4;

/// Every request waits for its turn and for memory in its own name: no client can hold up others that ask for the same
/// file. Whichever comes first reads it for all.
async fn load(
    state: &AppState,
    exchange: &Exchange,
    view: &Arc<View>,
    blob: BlobId,
) -> Result<Arc<CachedFile>, ApiError> {
    let file = IndexFile { state, view, blob };
    let (known, kept) = (state.clone(), state.clone());
    let read = move |content: &[u8]| {
        let file = Arc::new(CachedFile::new(Bytes::copy_from_slice(content)));
        // Here, so that it is kept although the client may have left.
        kept.files.insert(blob, Arc::clone(&file));
        file
    };
    let known = move || known.files.get(blob);
    let turns = &state.file_reads;
    let (file, _share) = file.read(exchange, turns, LOAD_FACTOR, known, read).await?;
    Ok(file)
}

fn mark(response: &mut Response, view: &View) -> Result<(), ApiError> {
    let commit = HeaderValue::from_bytes(&view.commit().hex()).map_err(ApiError::internal)?;
    response.headers_mut().insert(X_INDEX_COMMIT, commit);
    Ok(())
}
