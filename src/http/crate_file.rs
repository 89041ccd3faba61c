//! The bytes of a crate file, where the mirror sends them itself: in the modes `cache` and `offline`.
//!
//! The index says which bytes a version has. So nothing is sent that could not be checked, and a version that was deleted
//! from the index is gone, held or not.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use super::conditional::{has_any, known_tag};
use super::error::ApiError;
use super::index_answer::{X_INDEX_COMMIT, with_read_permit};
use super::ranges::{Part, part_of};
use super::state::AppState;
use crate::index::{BlobId, RefreshOutcome, Snapshot};
use crate::package::{CrateFile, CrateHistory, CrateName, CrateVersion};
use crate::store::{GetError, Held, Keeper, Reading, StoreError};

/// What crates.io's storage sends: name and version of a crate file keep their bytes, nearly always.
const KEEP_FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Cargo would unpack a file that were called gzip-encoded. This says what it is, not how it was sent.
const GZIP_FILE: HeaderValue = HeaderValue::from_static("application/gzip");

/// How many headers an answer has at most, so that their table is made once.
const HEADERS_MAX: usize = 12;

/// The file of a version, whole or a part of it. Nobody waits for longer than the keeper says, whatever for.
pub(super) async fn send(
    state: &AppState,
    keeper: &Keeper,
    wanted: (CrateName, CrateVersion),
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let mut snapshot = state.index.snapshot().ok_or(ApiError::NotReady)?;
    let answer = async {
        let file = find(state, keeper, &mut snapshot, &wanted).await?;
        answer(keeper, &file, method, headers).await
    };
    let answer = tokio::time::timeout(keeper.wait_max(), answer).await;
    let answer = answer.unwrap_or_else(|_elapsed| {
        let (name, version) = &wanted;
        let file = format!("{name} {}", version.as_str());
        let source = GetError::Pending;
        Err(ApiError::CrateFileLater { file, source })
    });
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    mark(&mut response, &snapshot)?;
    Ok(response)
}

/// What the index says of a version's file, after a look at the upstream index if it says nothing: it may be behind a
/// publish. `snapshot` is then the one that the answer is made from.
async fn find(
    state: &AppState,
    keeper: &Keeper,
    snapshot: &mut Arc<Snapshot>,
    wanted: &(CrateName, CrateVersion),
) -> Result<Arc<CrateFile>, ApiError> {
    let unknown = match look_up(state, snapshot, wanted).await {
        Err(error) if error.is_not_found() => error,
        other => return other,
    };
    if state.settings.pruned {
        return Err(ApiError::CrateFileNotListed(unknown.to_string()));
    }
    if !keeper.fetches() {
        return Err(unknown);
    }
    let outcome = state.index.refresh_now().await;
    let newer = state.index.snapshot().ok_or(ApiError::NotReady)?;
    if newer.commit() != snapshot.commit() {
        *snapshot = newer;
        return look_up(state, snapshot, wanted).await;
    }
    // It may have been published; nobody knows.
    let is_unreachable = match outcome {
        RefreshOutcome::Fetched => false,
        // Either there were many looks just now, or the last one failed and the next one is due later.
        RefreshOutcome::NotNow => state.index.status().last_error.is_some(),
        RefreshOutcome::Failed | RefreshOutcome::TooLate => true,
    };
    Err(if is_unreachable {
        ApiError::IndexUnreachable
    } else {
        unknown
    })
}

/// The whole file, for a plain request that can be answered at once; `None` where the router must decide.
pub(super) fn send_now(
    state: &AppState,
    keeper: &Keeper,
    wanted: (CrateName, CrateVersion),
    request: &Request,
) -> Option<Response> {
    let headers = request.headers();
    if headers.contains_key(header::RANGE) || headers.contains_key(header::IF_NONE_MATCH) {
        return None;
    }
    let snapshot = state.index.snapshot()?;
    let (name, version) = wanted;
    let blob = snapshot.find(&name)?;
    let file = state.crate_files.get(&(blob, version))?;
    let held = keeper.get_now(&file.checksum)?;
    let range = 0..held.size();
    if !held.is_on_disk() {
        return None;
    }
    let mut response = whole(&file, held.size(), HeldBody::of(&held, range.clone()));
    offer_part(&mut response, &held, range);
    mark(&mut response, &snapshot).ok()?;
    Some(response)
}

/// What the index says of a version's file.
async fn look_up(
    state: &AppState,
    snapshot: &Arc<Snapshot>,
    (name, version): &(CrateName, CrateVersion),
) -> Result<Arc<CrateFile>, ApiError> {
    let blob = snapshot
        .find(name)
        .ok_or_else(|| ApiError::CrateNotFound(name.to_string()))?;
    if let Some(file) = state.crate_files.get(&(blob, version.clone())) {
        return Ok(file);
    }
    let read = {
        let (snapshot, name, version) = (Arc::clone(snapshot), name.clone(), version.clone());
        move || snapshot.read_blob(blob, |content| read_line(content, &name, version))
    };
    let read = with_read_permit(&state.index_reads, read).await?;
    let file = read.map_err(|unreadable| {
        state.index.report_damage();
        ApiError::IndexUnreadable(unreadable)
    })??;
    let file = Arc::new(file);
    let key = (blob, version.clone());
    state.crate_files.insert(key, Arc::clone(&file));
    Ok(file)
}

/// Blocking: the largest index file takes a tenth of a second.
fn read_line(
    content: &[u8],
    name: &CrateName,
    version: CrateVersion,
) -> Result<CrateFile, ApiError> {
    let history = CrateHistory::parse(content, name)
        .ok_or_else(|| ApiError::CrateNotFound(name.to_string()))?;
    let release = history.find(&version);
    let line = release.map(|release| &release.line);
    match line.and_then(|line| Some((line.name.clone(), line.checksum()?))) {
        Some((name, checksum)) => Ok(CrateFile {
            name,
            version,
            checksum,
        }),
        None => Err(ApiError::VersionNotFound {
            name: name.to_string(),
            version: version.to_string(),
        }),
    }
}

async fn answer(
    keeper: &Keeper,
    file: &CrateFile,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let tag = tag_of(file);
    let not_modified = || {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(&mut response, file);
        response
    };
    // Whoever has these bytes has what the index says, wherever else they are.
    if known_tag(headers, |known| (known == tag).then_some(())).is_some() {
        return Ok(not_modified());
    }
    let unavailable = |reason| ApiError::crate_file_unavailable(file, reason);
    let held = keeper.get(file).await.map_err(unavailable)?;
    if has_any(headers) {
        return Ok(not_modified());
    }
    let answer = match answer_with(keeper, file, &held, (method, headers)).await {
        // A second look finds what is there now, or fetches what the store cannot give.
        Err(NotRead::Store(_)) => {
            let held = keeper.get(file).await.map_err(unavailable)?;
            answer_with(keeper, file, &held, (method, headers)).await
        }
        answer => answer,
    };
    answer.map_err(|error| match error {
        NotRead::Store(error) => unavailable(error.into()),
        NotRead::Internal(error) => error,
    })
}

/// Why a held file is not sent.
enum NotRead {
    Store(StoreError),
    Internal(ApiError),
}

impl From<StoreError> for NotRead {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ApiError> for NotRead {
    fn from(error: ApiError) -> Self {
        Self::Internal(error)
    }
}

/// What was asked for of a file that is held.
async fn answer_with(
    keeper: &Keeper,
    file: &CrateFile,
    held: &Held,
    (method, headers): (&Method, &HeaderMap),
) -> Result<Response, NotRead> {
    let tag = tag_of(file);
    let read = async |range: Range<u64>| -> Result<Body, NotRead> {
        // Whoever asks for the head gets no body, and the store need not be asked for one.
        if method == Method::HEAD {
            return Ok(Body::empty());
        }
        if held.is_on_disk() {
            return Ok(HeldBody::of(held, range));
        }
        let reading = keeper.read(file, held, range).await?;
        Ok(Body::from_stream(reading))
    };
    match part_of(headers, method, &tag, held.size()) {
        Part::Whole => {
            let range = 0..held.size();
            let mut response = whole(file, held.size(), read(range.clone()).await?);
            offer_part(&mut response, held, range);
            Ok(response)
        }
        Part::Range(range) => {
            let body = read(range.clone()).await?;
            let mut response = whole(file, range.end - range.start, body);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let place = format!("bytes {}-{}/{}", range.start, range.end - 1, held.size());
            set(&mut response, header::CONTENT_RANGE, place)?;
            offer_part(&mut response, held, range);
            Ok(response)
        }
        Part::Outside => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            set(
                &mut response,
                header::CONTENT_RANGE,
                format!("bytes */{}", held.size()),
            )?;
            Ok(response)
        }
    }
}

fn tag_of(file: &CrateFile) -> String {
    format!("\"{}\"", file.checksum)
}

/// Lets a connection that can have the system send a file do so, instead of reading the body.
fn offer_part(response: &mut Response, held: &Held, range: Range<u64>) {
    #[cfg(target_os = "linux")]
    if let Some(part) = held.part(range) {
        response.extensions_mut().insert(part);
    }
    #[cfg(not(target_os = "linux"))]
    let _unused = (response, held, range);
}

/// A file on the disk, or a part of it. It is read when somebody wants its bytes: a connection that has the system send
/// the file never does.
struct HeldBody {
    held: Held,
    range: Range<u64>,
    reading: Option<Reading>,
}

impl HeldBody {
    fn of(held: &Held, range: Range<u64>) -> Body {
        Body::new(Self {
            held: held.clone(),
            range,
            reading: None,
        })
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.reading.is_none() {
            self.reading = self.held.read_now(self.range.clone());
        }
        let Some(reading) = &mut self.reading else {
            // Only what is on the disk gets here.
            return Poll::Ready(Some(Err(io::ErrorKind::Unsupported.into())));
        };
        let part = ready!(reading.as_mut().poll_next(context));
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        // Until it is read; whoever asks afterwards knows from the headers.
        match self.reading {
            None => SizeHint::with_exact(self.range.end - self.range.start),
            Some(_) => SizeHint::default(),
        }
    }
}

fn whole(file: &CrateFile, bytes: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    describe(&mut response, file);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GZIP_FILE);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    response
}

/// What a file's answer and its 304 have in common.
fn describe(response: &mut Response, file: &CrateFile) {
    let headers = response.headers_mut();
    headers.reserve(HEADERS_MAX);
    let tag = [b"\"".as_slice(), &file.checksum.hex(), b"\""].concat();
    // Hexadecimal digits in quotes always are a header's value.
    if let Ok(tag) = HeaderValue::from_maybe_shared(Bytes::from(tag)) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, KEEP_FOR_EVER);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

fn set(response: &mut Response, name: header::HeaderName, value: String) -> Result<(), ApiError> {
    let value = HeaderValue::try_from(value).map_err(ApiError::internal)?;
    response.headers_mut().insert(name, value);
    Ok(())
}

fn mark(response: &mut Response, snapshot: &Snapshot) -> Result<(), ApiError> {
    let commit = HeaderValue::from_bytes(&snapshot.commit().hex()).map_err(ApiError::internal)?;
    response.headers_mut().insert(X_INDEX_COMMIT, commit);
    Ok(())
}

/// What is remembered of lines that were read: the file of a version, by the index file that says so.
pub(super) type KnownFiles = quick_cache::sync::Cache<(BlobId, CrateVersion), Arc<CrateFile>>;
