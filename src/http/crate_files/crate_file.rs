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
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use crate::http::api::version_table::VersionTable;
use crate::http::error::ApiError;
use crate::http::index_answer::{IndexFile, X_INDEX_COMMIT};
use crate::http::semantics::conditional::{has_any, known_tag};
use crate::http::semantics::ranges::{Part, part_of};
use crate::http::state::AppState;
use crate::index::{RefreshOutcome, Snapshot};
use crate::package::{CrateFile, CrateName, CrateVersion};
use crate::server::{Asked, Exchange};
use crate::store::{CrateFiles, GetError, Reading, StoreError, StoredFile};

/// What crates.io's storage sends: name and version of a crate file keep their bytes, nearly always.
const KEEP_FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Cargo would unpack a file that were called gzip-encoded. This says what it is, not how it was sent.
const GZIP_FILE: HeaderValue = HeaderValue::from_static("application/gzip");

/// How many headers an answer has at most, so that their table is made once.
const HEADERS_MAX: usize = 12;

/// How much of a file is in memory while it is sent, in bytes.
const READING_BYTES: u64 = 128 * 1024;

/// The same for a file in a cloud, with what its client has received.
const CLOUD_READING_BYTES: u64 = 256 * 1024;

/// A request for a file.
pub(crate) struct Asking<'a> {
    pub(crate) state: &'a AppState,
    pub(crate) exchange: &'a Exchange,
    pub(crate) keeper: &'a CrateFiles,
}

impl Asking<'_> {
    /// The file of a version, whole or a part of it. Nobody waits for longer than the keeper says, whatever for.
    pub(crate) async fn send(
        &self,
        wanted: (CrateName, CrateVersion),
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let snapshot = self.state.index.snapshot();
        let mut snapshot = snapshot.ok_or_else(|| self.state.not_ready())?;
        let answer = async {
            let file = self.find(&mut snapshot, &wanted).await?;
            self.answer(&file, method, headers).await
        };
        let answer = tokio::time::timeout(self.keeper.wait_max(), answer).await;
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
        &self,
        snapshot: &mut Arc<Snapshot>,
        wanted: &(CrateName, CrateVersion),
    ) -> Result<CrateFile, ApiError> {
        let index = &self.state.index;
        let unknown = match self.look_up(snapshot, wanted).await {
            Err(error) if error.is_not_found() => error,
            other => return other,
        };
        if self.state.settings.pruned {
            return Err(ApiError::CrateFileNotListed(unknown.to_string()));
        }
        if !self.keeper.fetches() {
            return Err(unknown);
        }
        let outcome = index.refresh_now().await;
        let newer = index.snapshot().ok_or_else(|| self.state.not_ready())?;
        if newer.commit() != snapshot.commit() {
            *snapshot = newer;
            return self.look_up(snapshot, wanted).await;
        }
        // It may have been published; nobody knows.
        let is_unreachable = match outcome {
            RefreshOutcome::Fetched => false,
            // Either there were many looks just now, or the last one failed and the next one is due later.
            RefreshOutcome::NotNow => index.status().last_error.is_some(),
            RefreshOutcome::Failed | RefreshOutcome::TooLate => true,
        };
        Err(if is_unreachable {
            ApiError::IndexUnreachable
        } else {
            unknown
        })
    }

    /// What the index says of a version's file.
    async fn look_up(
        &self,
        snapshot: &Arc<Snapshot>,
        (name, version): &(CrateName, CrateVersion),
    ) -> Result<CrateFile, ApiError> {
        let no_crate = || ApiError::CrateNotFound(name.to_string());
        let blob = snapshot.find(name).ok_or_else(no_crate)?;
        let tables = &self.state.version_tables;
        let table = match tables.get(&blob) {
            Some(table) => table,
            None => {
                let file = IndexFile {
                    state: self.state,
                    snapshot,
                    blob,
                };
                let crate_name = name.clone();
                let read =
                    move |content: &[u8]| VersionTable::read(content, &crate_name).map(Arc::new);
                let (known, turns) = (|| tables.get(&blob).map(Some), &self.state.index_reads);
                let reading = file.read(self.exchange, turns, READ_FACTOR, known, read);
                let (table, _share) = reading.await?;
                let table = table.ok_or_else(no_crate)?;
                tables.insert(blob, Arc::clone(&table));
                table
            }
        };
        table
            .file(version)
            .ok_or_else(|| ApiError::VersionNotFound {
                name: name.to_string(),
                version: version.to_string(),
            })
    }

    async fn answer(
        &self,
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
        let held = self.keeper.get(file).await.map_err(unavailable)?;
        if has_any(headers) {
            return Ok(not_modified());
        }
        let answer = match self.answer_with(file, &held, (method, headers)).await {
            // A second look finds what is there now, or fetches what the store cannot give.
            Err(NotRead::Store(_)) => {
                let held = self.keeper.get(file).await.map_err(unavailable)?;
                self.answer_with(file, &held, (method, headers)).await
            }
            answer => answer,
        };
        answer.map_err(|error| match error {
            NotRead::Store(error) => unavailable(error.into()),
            NotRead::Internal(error) => error,
        })
    }

    /// What was asked for of a file that is held.
    async fn answer_with(
        &self,
        file: &CrateFile,
        held: &StoredFile,
        (method, headers): (&Method, &HeaderMap),
    ) -> Result<Response, NotRead> {
        let tag = tag_of(file);
        let read = async |range: Range<u64>| -> Result<Body, NotRead> {
            // Whoever asks for the head gets no body, and the store need not be asked for one.
            if method == Method::HEAD {
                return Ok(Body::empty());
            }
            // Before the answer begins, so that it is 503 if there is no memory in time.
            let kept = if held.is_in_memory() {
                held.size()
            } else if !held.is_on_disk() {
                CLOUD_READING_BYTES
            } else if self.exchange.sends_files() {
                0
            } else {
                READING_BYTES.min(range.end - range.start)
            };
            let account = &self.state.account;
            account
                .keep(self.exchange, kept)
                .await
                .map_err(ApiError::from)?;
            if held.is_on_disk() {
                return Ok(HeldBody::of(held, range));
            }
            // A small part can cost a reading of the whole file, so peers take turns.
            let turn = if held.must_read_whole(&range) {
                let turns = &self.state.whole_readings;
                Some(turns.take(self.exchange, 1).await.map_err(ApiError::from)?)
            } else {
                None
            };
            let reading = self.keeper.read(file, held, range).await?;
            drop(turn);
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
}

/// What reading the checksums of all versions takes, as a multiple of the index file: the file, and its lines as they were
/// read.
const READ_FACTOR: u64 = 4;

/// The whole file, for a plain request that can be answered at once; `None` where the router must decide.
pub(crate) fn send_now(
    state: &AppState,
    keeper: &CrateFiles,
    wanted: (CrateName, CrateVersion),
    asked: &Asked,
) -> Option<Response> {
    let headers = asked.request.headers();
    if headers.contains_key(header::RANGE) || headers.contains_key(header::IF_NONE_MATCH) {
        return None;
    }
    let snapshot = state.index.snapshot()?;
    let (name, version) = wanted;
    let blob = snapshot.find(&name)?;
    let file = state.version_tables.get(&blob)?.file(&version)?;
    let held = keeper.get_now(&file.checksum)?;
    let range = 0..held.size();
    if !held.is_on_disk() {
        return None;
    }
    let bytes = READING_BYTES.min(held.size());
    if !asked.exchange.sends_files() && !state.account.try_keep(&asked.exchange, bytes) {
        return None;
    }
    let mut response = whole(&file, held.size(), HeldBody::of(&held, range.clone()));
    offer_part(&mut response, &held, range);
    mark(&mut response, &snapshot).ok()?;
    Some(response)
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

fn tag_of(file: &CrateFile) -> String {
    format!("\"{}\"", file.checksum)
}

/// Lets a connection that can have the system send a file do so, instead of reading the body.
fn offer_part(response: &mut Response, held: &StoredFile, range: Range<u64>) {
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
    held: StoredFile,
    range: Range<u64>,
    reading: Option<Reading>,
}

impl HeldBody {
    fn of(held: &StoredFile, range: Range<u64>) -> Body {
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
