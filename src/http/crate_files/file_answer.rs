//! The bytes of a crate file, where the mirror sends them itself: in the modes `cache` and `offline`.
//!
//! The index says which bytes a version has. So the mirror sends nothing that it could not check, and a version that was
//! deleted from the index is gone, stored or not.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

use crate::http::crate_in_path::VersionInPath;
use crate::http::error::ApiError;
use crate::http::index::index_guard::IndexGuard;
use crate::http::semantics::conditional::{entity_tag, has_any, knows_tag};
use crate::http::semantics::ranges::{Part, part_of};
use crate::http::state::DownloadPolicy;
use crate::package::CrateFile;
use crate::server::Exchange;
use crate::store::{CrateFiles, GetError, Reading, StoreError, StoredFile};

/// What crates.io's storage sends: the bytes of a name and a version hardly ever change.
const KEEP_FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Under a policy that can refuse files: a cache in front must not send a file for long that is denied now.
const KEEP_UNDER_POLICY: HeaderValue = HeaderValue::from_static("public, max-age=600");

/// A type, not an encoding: cargo would unpack a file whose `Content-Encoding` is gzip.
const GZIP_FILE: HeaderValue = HeaderValue::from_static("application/gzip");

/// How many headers an answer has at most, so that their table is allocated once.
const HEADERS_MAX: usize = 12;

/// How much of a file is in memory while it is sent, in bytes.
const READING_BYTES: u64 = 128 * 1024;

/// The same for a file in a cloud, with the bytes that are on their way to the client.
const CLOUD_READING_BYTES: u64 = 256 * 1024;

/// A request for a crate file that the mirror sends itself.
pub(super) struct FileRequest<'a> {
    pub(super) crate_files: &'a CrateFiles,
    pub(super) wanted: &'a VersionInPath,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// When the client gets `503` with `Retry-After`, whatever the request waits for.
    pub(super) deadline: Instant,
}

impl FileRequest<'_> {
    /// The file of a version, or a part of it.
    ///
    /// Each step first tries what it can do at once. Only a step that has to wait is put into a box and gets a time-out:
    /// most files are open on the disk, and for them this would take longer than the rest.
    pub(super) async fn answer(&self, mut index: IndexGuard) -> Response {
        let answer = async {
            let file = self.find(&mut index).await?;
            self.check(&index).await?;
            self.send(&index, &file).await
        };
        let answer = answer.await;
        let mut response = index.mark(answer);
        if index.state.settings.download_policy == DownloadPolicy::Enforce
            && (response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED)
        {
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, KEEP_UNDER_POLICY);
        }
        response
    }

    /// Whether the policy lets the client have the file.
    async fn check(&self, index: &IndexGuard) -> Result<(), ApiError> {
        if index.state.settings.download_policy == DownloadPolicy::None {
            return Ok(());
        }
        let VersionInPath { name, version } = self.wanted;
        Box::pin(index.check_download(name, version)).await
    }

    /// What the index says about the file of a version.
    async fn find(&self, index: &mut IndexGuard) -> Result<CrateFile, ApiError> {
        let VersionInPath { name, version } = self.wanted;
        let known = index.version_table_now(name);
        match known.and_then(|table| table.file(version)) {
            Some(file) => Ok(file),
            None => self.limit(self.find_later(index)).await,
        }
    }

    /// The same, after a look at the upstream index if ours does not list the version: it may be behind a publish. `index`
    /// then has the view that the answer is made from.
    async fn find_later(&self, index: &mut IndexGuard) -> Result<CrateFile, ApiError> {
        let unknown = match self.look_up(index).await {
            Err(error) if error.is_not_found() => error,
            other => return other,
        };
        if !self.crate_files.fetches() {
            return Err(if index.view.may_hide() {
                ApiError::CrateFileNotListed(unknown.to_string())
            } else {
                unknown
            });
        }
        if index.take_newer().await? {
            self.look_up(index).await
        } else {
            Err(unknown)
        }
    }

    async fn look_up(&self, index: &IndexGuard) -> Result<CrateFile, ApiError> {
        let VersionInPath { name, version } = self.wanted;
        let table = index.version_table(name).await?;
        let missing = || ApiError::version_not_found(name, version);
        table.file(version).ok_or_else(missing)
    }

    async fn send(&self, index: &IndexGuard, file: &CrateFile) -> Result<Response, ApiError> {
        let tag = entity_tag(&file.checksum.hex(), "\"");
        // A client that has these bytes has what the index says, even if this mirror cannot get the file.
        if knows_tag(self.headers, &tag) {
            return Ok(head(StatusCode::NOT_MODIFIED, tag));
        }
        let mut stored = match self.crate_files.get_now(&file.checksum) {
            Some(stored) => stored,
            None => self.limit(self.get(file)).await?,
        };
        if has_any(self.headers) {
            return Ok(head(StatusCode::NOT_MODIFIED, tag));
        }
        let mut is_last_try = false;
        loop {
            let (mut response, range) = self.head_of(&tag, stored.size)?;
            let Some(range) = range else {
                return Ok(response);
            };
            // Before the answer begins, so that it is 503 if there is no memory in time.
            let (account, exchange) = (&index.state.account, &index.exchange);
            let bytes = memory_for(&stored, range.end - range.start, exchange);
            if !account.try_keep(exchange, bytes) {
                let keep = account.keep(exchange, bytes);
                self.limit(async { Ok(keep.await?) }).await?;
            }
            if stored.is_on_disk() {
                offer_part(&mut response, &stored, range.clone());
                *response.body_mut() = StoredBody::of(stored, range);
                return Ok(response);
            }
            match self.limit(self.read(index, file, &stored, range)).await? {
                Ok(body) => {
                    *response.body_mut() = body;
                    return Ok(response);
                }
                Err(error) if is_last_try => {
                    return Err(unavailable(file, error));
                }
                // A second look finds what is there now, or fetches what the store cannot give.
                Err(_) => is_last_try = true,
            }
            stored = self.limit(self.get(file)).await?;
        }
    }

    /// The head of the answer for a file of this size, and the range that its body has; `None` for no body.
    fn head_of(
        &self,
        tag: &HeaderValue,
        size: u64,
    ) -> Result<(Response, Option<Range<u64>>), ApiError> {
        let (mut response, range) = match part_of(self.headers, self.method, tag, size) {
            Part::Whole => (head(StatusCode::OK, tag.clone()), 0..size),
            Part::Range(range) => {
                let place = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let mut response = head(StatusCode::PARTIAL_CONTENT, tag.clone());
                set(&mut response, header::CONTENT_RANGE, place)?;
                (response, range)
            }
            Part::Outside => {
                let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
                let place = format!("bytes */{size}");
                set(&mut response, header::CONTENT_RANGE, place)?;
                return Ok((response, None));
            }
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, GZIP_FILE);
        let length = range.end - range.start;
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        // An answer to HEAD has no body, so nothing is read for it.
        Ok((response, (self.method != Method::HEAD).then_some(range)))
    }

    async fn get(&self, file: &CrateFile) -> Result<StoredFile, ApiError> {
        let stored = self.crate_files.get(file).await;
        stored.map_err(|error| unavailable(file, error))
    }

    /// A range of a file that is in memory or in a cloud; or why the store does not give it.
    async fn read(
        &self,
        index: &IndexGuard,
        file: &CrateFile,
        stored: &StoredFile,
        range: Range<u64>,
    ) -> Result<Result<Body, StoreError>, ApiError> {
        // A small part can cost a reading of the whole file, so peers take turns.
        let _permit = if stored.must_read_whole(&range) {
            let permits = &index.state.whole_file_permits;
            Some(permits.take(&index.exchange, 1).await?)
        } else {
            None
        };
        let reading = self.crate_files.read(file, stored, range).await;
        Ok(reading.map(Body::from_stream))
    }

    /// The result of `work`, if it comes in time.
    fn limit<'f, T: Send>(
        &'f self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'f,
    ) -> BoxFuture<'f, Result<T, ApiError>> {
        Box::pin(async move {
            let in_time = timeout_at(self.deadline, work).await;
            in_time.unwrap_or_else(|_elapsed| {
                let file = format!("{} {}", self.wanted.name, self.wanted.version.as_str());
                let source = GetError::Pending;
                Err(ApiError::CrateFileUnavailable { file, source })
            })
        })
    }
}

/// How much memory it takes to send so many bytes of a file.
fn memory_for(stored: &StoredFile, length: u64, exchange: &Exchange) -> u64 {
    if stored.is_in_memory() {
        stored.size
    } else if !stored.is_on_disk() {
        CLOUD_READING_BYTES
    } else if exchange.sends_files() {
        0
    } else {
        READING_BYTES.min(length)
    }
}

fn unavailable(file: &CrateFile, why: impl Into<GetError>) -> ApiError {
    ApiError::CrateFileUnavailable {
        file: file.to_string(),
        source: why.into(),
    }
}

/// What a file's answer and its 304 have in common.
fn head(status: StatusCode, tag: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS_MAX);
    headers.insert(header::ETAG, tag);
    headers.insert(header::CACHE_CONTROL, KEEP_FOR_EVER);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: String) -> Result<(), ApiError> {
    let value = HeaderValue::try_from(value).map_err(ApiError::internal)?;
    response.headers_mut().insert(name, value);
    Ok(())
}

/// Lets the server have the system send the file, on a connection that can, instead of reading the body.
fn offer_part(response: &mut Response, stored: &StoredFile, range: Range<u64>) {
    #[cfg(target_os = "linux")]
    if let Some(part) = stored.part(range) {
        response.extensions_mut().insert(part);
    }
    #[cfg(not(target_os = "linux"))]
    let _unused = (response, stored, range);
}

/// A range of a file on the disk. It is read when somebody wants its bytes. A connection that has the system send the file
/// never does.
struct StoredBody {
    stored: StoredFile,
    range: Range<u64>,
    reading: Option<Reading>,
}

impl StoredBody {
    fn of(stored: StoredFile, range: Range<u64>) -> Body {
        Body::new(Self {
            stored,
            range,
            reading: None,
        })
    }
}

impl HttpBody for StoredBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.reading.is_none() {
            self.reading = self.stored.read_now(self.range.clone());
        }
        let Some(reading) = &mut self.reading else {
            // Only files on the disk get here.
            return Poll::Ready(Some(Err(io::ErrorKind::Unsupported.into())));
        };
        let part = ready!(reading.as_mut().poll_next(context));
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        // Only until the first read. Later the headers tell.
        match self.reading {
            None => SizeHint::with_exact(self.range.end - self.range.start),
            Some(_) => SizeHint::default(),
        }
    }
}
