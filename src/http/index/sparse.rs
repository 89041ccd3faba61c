//! `GET /index/config.json` and `GET /index/{path}`: the sparse index, as cargo reads it; under `/at/{time}` as of a time. A
//! crate's name alone leads to the crate's page on crates.io.
//!
//! The mirror relays index files byte for byte. Their validator is the git blob id, so "not modified" costs one look-up in
//! memory, and every replica gives the same validator.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::file_cache::{CachedBody, CachedFile, FileAt, Loaded, NothingThen, encoding_in, tag_of};
use super::index_guard::IndexGuard;
use super::time_travel::TimeInPath;
use crate::http::error::ApiError;
use crate::http::semantics::base_url::{BASE_URL_VARIES, base_url};
use crate::http::semantics::conditional::{entity_tag, has_any, known_tag, knows_tag};
use crate::http::semantics::encoding::Encoding;
use crate::http::state::{AppState, RequestState};
use crate::index::BlobId;
use crate::observability::metrics::PolicySurface;
use crate::package::{CrateName, IndexPath, Timestamp, registry_config};

/// How long anybody may keep an index file without asking again. Cargo asks every time.
const KEEP_FILE: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// The same in seconds.
const KEEP_FILE_SECONDS: u64 = 60;

/// How many headers a file's answer has at most, so that their table is allocated once.
const HEADERS_MAX: usize = 8;

/// For a config.json that depends on what the client sent: no shared cache may keep it for others.
const KEEP_PRIVATELY: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What cargo must know about this registry: where crate files and the web API are.
pub(crate) async fn config(
    request: RequestState,
    time: TimeInPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let index = IndexGuard::take(request)?;
    if let Err(refused) = time.check(&index) {
        return Ok(index.mark_as_of_now(Err(refused)));
    }
    Ok(index.mark(registry(&index.state, &uri, &headers)))
}

fn registry(state: &AppState, uri: &Uri, headers: &HeaderMap) -> Result<Response, ApiError> {
    let base = base_url(&state.settings, uri, headers)?;
    let content = registry_config(&base);
    let tag = entity_tag(&BlobId::of(content.as_bytes()).0.hex(), "\"");
    let mut response = if knows_tag(headers, &tag) || has_any(headers) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], content).into_response()
    };
    let answer = response.headers_mut();
    answer.insert(header::ETAG, tag);
    if state.settings.public_url.is_some() {
        answer.insert(header::CACHE_CONTROL, KEEP_FILE);
    } else {
        answer.insert(header::CACHE_CONTROL, KEEP_PRIVATELY);
        answer.insert(header::VARY, HeaderValue::from_static(BASE_URL_VARIES));
    }
    Ok(response)
}

/// An index file whose path may be percent-encoded, or the way to a crate's page.
pub(crate) async fn file(
    request: RequestState,
    time: TimeInPath,
    params: Result<RawPathParams, RawPathParamsRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let index = IndexGuard::take(request)?;
    if let Err(refused) = time.check(&index) {
        return Ok(index.mark_as_of_now(Err(refused)));
    }
    // A path that cannot be decoded names no file, and neither does one in which decoding made a slash.
    let made_slash = uri.path().to_ascii_lowercase().contains("%2f");
    let params = params.ok().filter(|_| !made_slash);
    let path = params.as_ref().and_then(|params| params.iter().last());
    let path = path.map_or("", |(_name, path)| path);
    // The path of an index file has two segments at least. Cargo asks for nothing else but config.json.
    if let Ok(name) = CrateName::try_from(path.to_owned()) {
        return Ok(index.mark(page_on_crates_io(&name)));
    }
    Ok(answer_at(&index, &headers, IndexPath::parse(path).as_ref(), time.0).await)
}

/// The redirect to a crate's page on crates.io. Tools make links of a registry's URL and the name of a crate.
fn page_on_crates_io(name: &CrateName) -> Result<Response, ApiError> {
    let page = format!("https://crates.io/crates/{name}");
    let location = HeaderValue::try_from(page).map_err(ApiError::internal)?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, KEEP_FILE),
    ];
    Ok((StatusCode::FOUND, headers).into_response())
}

/// An index file, byte for byte; 404, and only 404, for what is absent.
pub(crate) async fn answer(
    request: RequestState,
    headers: &HeaderMap,
    path: Option<&IndexPath>,
) -> Result<Response, ApiError> {
    let index = IndexGuard::take(request)?;
    Ok(answer_at(&index, headers, path, None).await)
}

/// The same as of a time, if one is given.
async fn answer_at(
    index: &IndexGuard,
    headers: &HeaderMap,
    path: Option<&IndexPath>,
    time: Option<Timestamp>,
) -> Response {
    let found = path.ok_or(ApiError::NotFound);
    let answer = match found.and_then(|path| index.find_exactly(path)) {
        Ok(blob) => send(index, headers, &FileAt { blob, time }).await,
        Err(error) => Err(error),
    };
    let is_sent = answer.is_ok();
    let is_absent = matches!(answer, Err(ApiError::NotFound));
    let mut response = index.mark(answer);
    if is_absent {
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, KEEP_FILE);
    }
    // A file may be absent because the policy leaves out all of its lines, for a while.
    if let Some(path) = path.filter(|_| is_sent || is_absent)
        && index.view.has_policy()
    {
        follow_policy(&mut response, index, path.file());
    }
    response
}

async fn send(
    index: &IndexGuard,
    headers: &HeaderMap,
    wanted: &FileAt,
) -> Result<Response, ApiError> {
    let id = match index.state.index_files.id_of(wanted) {
        Some(id) => id.map_err(|NothingThen| ApiError::NotFound)?,
        None => Box::pin(load(index, wanted)).await?.0,
    };
    if let Some(response) = not_modified(id, headers) {
        return Ok(response);
    }
    let encoding = Encoding::accepted_by(headers);
    let file = ready_to_send(index, wanted, (id, encoding)).await?;
    Ok(whole(id, file.body(encoding), headers))
}

/// What the policy adds to an answer with an index file.
fn follow_policy(response: &mut Response, index: &IndexGuard, file_name: &str) {
    if let Some(seconds) = index.seconds_to_change(file_name)
        && seconds < KEEP_FILE_SECONDS
        && let Ok(keep) = HeaderValue::try_from(format!("public, max-age={seconds}"))
    {
        response.headers_mut().insert(header::CACHE_CONTROL, keep);
    }
    if response.status() == StatusCode::OK {
        index.count_policy(PolicySurface::Sparse, [file_name]);
    }
}

/// The file, once the account has memory for it in this encoding.
async fn ready_to_send(
    index: &IndexGuard,
    wanted: &FileAt,
    (id, encoding): (BlobId, Encoding),
) -> Result<Arc<CachedFile>, ApiError> {
    let (state, exchange) = (&index.state, &index.exchange);
    // Whatever waits is in a box: most files are in memory, and a small future is quicker to move.
    let file = match state.index_files.get(id) {
        Some(file) => file,
        None => Box::pin(load(index, wanted)).await?.1,
    };
    let (body, _) = file.body(encoding);
    if body.keep_now(&state.account, exchange) {
        return Ok(file);
    }
    let bytes = body.bytes.len() as u64;
    // Requests that wait for memory keep no file meanwhile: many may wait.
    drop(file);
    let waiting = async {
        let share = state.account.take(exchange, bytes).await?;
        // Most often the file is still in memory.
        if let Some(file) = state.index_files.get(id) {
            file.body(encoding).0.keep_share(share, exchange);
            return Ok(file);
        }
        // Reading the file needs a share of its own.
        drop(share);
        let (_id, file) = load(index, wanted).await?;
        if file.body(encoding).0.keep_now(&state.account, exchange) {
            return Ok(file);
        }
        Err(ApiError::Busy)
    };
    Box::pin(waiting).await
}

/// 304, for a client that names the file in an encoding that it accepts. This needs no look at the file.
fn not_modified(blob: BlobId, headers: &HeaderMap) -> Option<Response> {
    let accepted = Encoding::accepted_by(headers);
    let encoding = known_tag(headers, |tag| {
        // A shared cache that asks for a client without gzip must not hear that its gzip will do.
        encoding_in(blob, tag).filter(|known| *known == Encoding::Plain || *known == accepted)
    })?;
    Some(head(StatusCode::NOT_MODIFIED, tag_of(blob, encoding)))
}

/// The file, or 304 for a client that is content with whatever it has.
fn whole(blob: BlobId, (body, encoding): (&CachedBody, Encoding), headers: &HeaderMap) -> Response {
    if has_any(headers) {
        return head(StatusCode::NOT_MODIFIED, tag_of(blob, encoding));
    }
    let mut response = head(StatusCode::OK, tag_of(blob, encoding));
    *response.body_mut() = Body::from(body.bytes.clone());
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(name) = encoding.name() {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
}

/// What a file's answer and its 304 have in common.
fn head(status: StatusCode, tag: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let answer = response.headers_mut();
    answer.reserve(HEADERS_MAX);
    answer.insert(header::ETAG, tag);
    answer.insert(header::CACHE_CONTROL, KEEP_FILE);
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// What a load takes, as a multiple of the file: the file in both encodings, once as libgit2 has it, and once more while it
/// is compressed.
const LOAD_FACTOR: u64 = 4;

/// Reads a file into memory. Every request waits for a permit and for memory in its own name, so no client can hold up
/// others that ask for the same file. The first one reads it for all.
async fn load(index: &IndexGuard, wanted: &FileAt) -> Result<Loaded, ApiError> {
    let known = || index.state.index_files.find(wanted);
    let (state, made) = (Arc::clone(&index.state), wanted.clone());
    // On this thread, so that the file is remembered even if the client has left.
    let read = move |content: &[u8]| state.index_files.make(&made, content);
    let permits = &index.state.index_file_permits;
    let loaded = index.read(wanted.blob, permits, LOAD_FACTOR, known, read);
    let (loaded, _share) = loaded.await?;
    loaded.map_err(|NothingThen| ApiError::NotFound)
}
