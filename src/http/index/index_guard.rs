//! The index as one request sees it.
//!
//! A request takes one view of the index and keeps it to the end. It reads index files on a blocking thread when it has a
//! permit and memory. Its answer carries the commit of the view.

use std::hash::Hash;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::decision_table::DecisionTable;
use super::version_table::VersionTable;
use crate::http::answer_cache::{MadeFrom, PolicyStates};
use crate::http::bounded_cache::{BoundedCache, Weighed};
use crate::http::error::ApiError;
use crate::http::state::{AppState, RequestState};
use crate::index::{BlobId, CommitId, GitIndex, ReadError, RefreshOutcome, View};
use crate::package::{CrateHistory, CrateName, IndexLine, IndexPath};
use crate::server::{Exchange, Share, Shares};
use crate::store::CrateFiles;

/// Names the upstream commit that an answer was made from.
pub(crate) const X_INDEX_COMMIT: HeaderName = HeaderName::from_static("x-index-commit");

/// Names the decisions of the policy that an answer shows. The same commit and the same policy mean the same bytes. In git
/// answers they mean the same index files: the ids of our commits depend on those before them.
pub(crate) const X_POLICY: HeaderName = HeaderName::from_static("x-policy");

/// An index file of this size and more needs memory from the account before it is read, in bytes.
const ACCOUNTED_FILE_BYTES_MIN: u64 = 64 * 1024;

/// What reading a version table takes, as a multiple of the index file: the file, and its lines as they were read.
const TABLE_FACTOR: u64 = 4;

/// A view of the index for one request, with what a handler gets besides.
#[derive(Clone, Debug)]
pub(crate) struct IndexGuard {
    pub(crate) state: Arc<AppState>,
    pub(crate) exchange: Exchange,
    pub(crate) view: Arc<View>,
    /// What the policy says about the versions of the crate that the answer is about, if it says anything.
    pub(super) decisions: Option<Arc<DecisionTable>>,
    /// What was counted for the answer.
    pub(super) counted: PolicyStates,
}

impl IndexGuard {
    /// Takes the current view.
    ///
    /// # Errors
    /// 503 before the first view.
    pub(crate) fn take(request: RequestState) -> Result<Self, ApiError> {
        let view = current_view(&request.state)?;
        Ok(Self::of(request, view))
    }

    /// Takes a view that an answer was begun with.
    pub(crate) fn of(RequestState { state, exchange }: RequestState, view: Arc<View>) -> Self {
        Self {
            state,
            exchange,
            view,
            decisions: None,
            counted: PolicyStates::default(),
        }
    }

    /// Marks an answer that was made from the view, a failure too.
    pub(crate) fn mark(&self, answer: Result<Response, ApiError>) -> Response {
        let mut response = answer.into_response();
        let headers = response.headers_mut();
        headers.extend(commit_header(self.view.commit()));
        headers.extend(policy_header(&self.view));
        response
    }

    /// The same for an answer that depends on nothing but the question, the view and the sizes of stored files, so it may be
    /// sent again.
    pub(crate) fn mark_repeatable(&self, answer: Result<Response, ApiError>) -> Response {
        let mut response = self.mark(answer);
        response.extensions_mut().insert(MadeFrom {
            view: Arc::clone(&self.view),
            counted: self.counted,
        });
        response
    }

    /// Marks an answer that the time changes, too: the name of the decisions does not cover that.
    pub(crate) fn mark_as_of_now(&self, answer: Result<Response, ApiError>) -> Response {
        let mut response = self.mark(answer);
        response.headers_mut().remove(X_POLICY);
        response
    }

    /// The index file at exactly this path, as cargo asks for it.
    ///
    /// # Errors
    /// 404, and 503 for a file that the policy could not read.
    pub(crate) fn find_exactly(&self, path: &IndexPath) -> Result<BlobId, ApiError> {
        self.check_is_read(path.file())?;
        self.view.find_exactly(path).ok_or(ApiError::NotFound)
    }

    /// The index file of a crate, whatever the spelling of the name.
    ///
    /// # Errors
    /// 404, and 503 for a file that the policy could not read.
    pub(crate) fn find(&self, name: &CrateName) -> Result<BlobId, ApiError> {
        if self.is_enforced()
            && let Some((file, _)) = self.view.source_file(name)
        {
            self.check_is_read(file)?;
        }
        let no_crate = || ApiError::CrateNotFound(name.to_string());
        self.view.find(name).ok_or_else(no_crate)
    }

    /// Looks for a newer view at the upstream: the index may be behind a publish. Returns whether the guard has one now.
    ///
    /// # Errors
    /// 503 if the upstream cannot be reached, so nobody knows whether there is one.
    pub(crate) async fn take_newer(&mut self) -> Result<bool, ApiError> {
        let index = &self.state.index;
        let outcome = index.refresh_now().await;
        let newer = current_view(&self.state)?;
        if newer.commit() != self.view.commit() {
            self.view = newer;
            return Ok(true);
        }
        match outcome {
            RefreshOutcome::Fetched => Ok(false),
            // Either there were many looks just now, or the last one failed and the next one is due later.
            RefreshOutcome::NotNow if index.status().last_error.is_none() => Ok(false),
            RefreshOutcome::NotNow | RefreshOutcome::Failed | RefreshOutcome::TooLate => {
                Err(ApiError::IndexUnreachable)
            }
        }
    }

    /// The version table of a crate, if it is in memory.
    pub(crate) fn version_table_now(&self, name: &CrateName) -> Option<Arc<VersionTable>> {
        let table = self.state.version_tables.get(&self.find(name).ok()?);
        table.filter(|table| table.is_of(name))
    }

    /// The version table of a crate.
    ///
    /// # Errors
    /// 404 for a crate that the view does not list, and as [`IndexGuard::read`].
    pub(crate) async fn version_table(
        &self,
        name: &CrateName,
    ) -> Result<Arc<VersionTable>, ApiError> {
        let blob = self.find(name)?;
        let crate_name = name.clone();
        let read = move |file: &[u8]| VersionTable::read(file, &crate_name);
        // Two crates of a strange index may have the same file. Each has only the lines of its own name.
        let is_right = |table: &VersionTable| table.is_of(name);
        let tables = (&self.state.version_tables, blob);
        let table = self.cached(blob, tables, is_right, read).await?;
        table.ok_or_else(|| ApiError::CrateNotFound(name.to_string()))
    }

    /// Returns what a cache has for a key, if that `is_right`, or what `read` makes of an index file, which the cache then has, too.
    ///
    /// # Errors
    /// As [`IndexGuard::read`].
    pub(super) async fn cached<K: Clone + Eq + Hash, V: Weighed + Send + Sync + 'static>(
        &self,
        blob: BlobId,
        (cache, key): (&BoundedCache<K, V>, K),
        is_right: impl Fn(&V) -> bool,
        read: impl Fn(&[u8]) -> Option<V> + Send + Sync + 'static,
    ) -> Result<Option<Arc<V>>, ApiError> {
        let known = || cache.get(&key).filter(|known| is_right(known)).map(Some);
        let read = move |file: &[u8]| read(file).map(Arc::new);
        let permits = &self.state.look_up_permits;
        let (made, _share) = self.read(blob, permits, TABLE_FACTOR, known, read).await?;
        if let Some(made) = &made {
            cache.insert(key, Arc::clone(made));
        }
        Ok(made)
    }

    /// Returns what is `known`, or gives an index file to `read` on a blocking thread when the request has one of the
    /// `permits`. A large file also needs memory from the account, `factor` times its size; that share comes back with the
    /// result.
    ///
    /// # Errors
    /// 503 if there is no permit or no memory in time, and for a file that cannot be read.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        blob: BlobId,
        permits: &Shares,
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
            let permit = permits.take(&self.exchange, 1).await?;
            // Another request may have read it meanwhile.
            if let Some(known) = known() {
                return Ok((known, share));
            }
            let (view, read, has_share) =
                (Arc::clone(&self.view), Arc::clone(&read), share.is_some());
            let work = move || {
                let result = view.blob_bytes(blob).and_then(|bytes| {
                    if bytes >= ACCOUNTED_FILE_BYTES_MIN && !has_share {
                        return Ok(Read::NeedsMemory(bytes));
                    }
                    view.read_blob(blob, |file| Read::Done(read(file)))
                });
                // The permit goes along. If the client leaves, no other request may begin while this one still reads.
                (result, permit)
            };
            let (result, permit) = tokio::task::spawn_blocking(work)
                .await
                .map_err(ApiError::internal)?;
            drop(permit);
            match result.map_err(|error| self.unreadable(error))? {
                Read::Done(result) => return Ok((result, share)),
                // The permit was given back first: nobody waits for memory while others wait for a permit.
                Read::NeedsMemory(bytes) => {
                    let bytes = bytes.saturating_mul(factor);
                    share = Some(self.state.account.take(&self.exchange, bytes).await?);
                }
            }
        }
    }

    /// How large an index file is, if it can be read. Blocking.
    pub(crate) fn bytes_of(&self, blob: BlobId) -> Option<u64> {
        self.readable(self.view.blob_bytes(blob))
    }

    /// The crate files whose sizes answers tell: those on the mirror's own disk.
    ///
    /// Answers of one commit and one policy are equal, and which files are stored changes with each download. So under a
    /// policy there are none, unless only stored files are listed.
    pub(crate) fn sized_files(&self) -> Option<&CrateFiles> {
        let varies = self.view.policy_id().is_some() && !self.view.may_hide();
        let files = self.state.crate_files.as_ref();
        files.filter(|files| !varies && files.store().is_on_disk())
    }

    /// The size of a version's crate file in bytes; 0 if answers do not tell it. Blocking.
    pub(crate) fn crate_size(&self, line: &IndexLine<'_>) -> u64 {
        let size = self
            .sized_files()
            .zip(line.checksum())
            .and_then(|(files, checksum)| files.store().size_on_disk(&checksum));
        size.unwrap_or(0)
    }

    /// The name of a crate as it was published, if its file says so and can be read. Blocking.
    pub(crate) fn published_name(&self, name: &CrateName, blob: BlobId) -> Option<String> {
        let read = |file: &[u8]| CrateHistory::published_name(file, name);
        self.readable(self.view.read_blob(blob, read)).flatten()
    }

    /// Reports a file that cannot be read. The answer is about another crate, and does without the file.
    fn readable<T>(&self, read: Result<T, ReadError>) -> Option<T> {
        read.map_err(|error| self.unreadable(error)).ok()
    }

    fn unreadable(&self, error: ReadError) -> ApiError {
        if !error.may_be_damage() {
            return ApiError::IndexFileRefused(error);
        }
        self.state.index.report_damage();
        ApiError::IndexUnreadable(error)
    }
}

/// What came of reading an index file.
enum Read<T> {
    Done(T),
    /// It has so many bytes, and the request has no memory for them yet.
    NeedsMemory(u64),
}

/// The view that requests get now.
///
/// # Errors
/// 503 before the first view.
pub(crate) fn current_view(state: &AppState) -> Result<Arc<View>, ApiError> {
    state.index.view().ok_or_else(|| not_ready(state))
}

/// The view with the git index that git clients get.
///
/// # Errors
/// 503 before the first view, and while it has no git index.
pub(crate) fn git_index(state: &AppState) -> Result<(Arc<View>, Arc<GitIndex>), ApiError> {
    let view = current_view(state)?;
    let git_index = view.git_index().cloned();
    let git_index = git_index.ok_or_else(|| not_ready(state))?;
    Ok((view, git_index))
}

/// The header that names the upstream commit of an answer.
pub(crate) fn commit_header(commit: CommitId) -> Option<(HeaderName, HeaderValue)> {
    // Hexadecimal digits are always a valid value.
    let commit = HeaderValue::from_bytes(&commit.0.hex()).ok()?;
    Some((X_INDEX_COMMIT, commit))
}

/// The header that names the decisions of a view; `None` without rules that change anything.
pub(crate) fn policy_header(view: &View) -> Option<(HeaderName, HeaderValue)> {
    // Hexadecimal digits are always a valid value.
    let policy = HeaderValue::from_bytes(&view.policy_id()?.hex()).ok()?;
    Some((X_POLICY, policy))
}

/// Why there is no view to answer from.
fn not_ready(state: &AppState) -> ApiError {
    let status = state.index.status();
    match status.last_error.filter(|_| status.needs_help) {
        Some(why) => ApiError::NeedsHelp(why),
        None => ApiError::NotReady,
    }
}
