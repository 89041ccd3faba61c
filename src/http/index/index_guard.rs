//! The index as one request sees it.
//!
//! A request takes one view of the index and keeps it to the end. It reads index files on a blocking thread when it has a
//! permit and memory. Its answer carries the commit of the view.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout_at};

use super::decision_table::DecisionTable;
use super::version_table::VersionTable;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::index::{
    AdvisoryHandle, AdvisoryState, BlobId, CommitId, GitIndex, PolicyId, ReadError, RefreshOutcome,
    View,
};
use crate::observability::metrics::PolicySurface;
use crate::package::{CrateHistory, CrateName, CrateVersion, IndexLine, IndexPath};
use crate::policy::{FileState, Mode, PolicyState};
use crate::server::{Exchange, Share, Shares};

/// Names the upstream commit that an answer was made from.
pub(crate) const X_INDEX_COMMIT: HeaderName = HeaderName::from_static("x-index-commit");

/// Names the decisions of the policy that an answer shows. The same commit and the same policy mean the same bytes. In git
/// answers they mean the same index files: the ids of our commits depend on those before them.
pub(crate) const X_POLICY: HeaderName = HeaderName::from_static("x-policy");

/// An index file of this size and more needs memory from the account before it is read, in bytes.
const ACCOUNTED_FILE_BYTES_MIN: u64 = 64 * 1024;

/// How long a download waits for the view that follows the first advisories.
const ADVISORIES_WAIT_MAX: Duration = Duration::from_secs(5);

/// What reading a version table takes, as a multiple of the index file: the file, and its lines as they were read.
const TABLE_FACTOR: u64 = 4;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct IndexGuard {
    pub(crate) state: Arc<AppState>,
    view: Arc<View>,
    /// What the policy says about the versions of the crate that the answer is about, if it says anything.
    decisions: Option<Arc<DecisionTable>>,
}

/// What a request needs to read an index file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadCost<'a> {
    /// Where it takes its permit.
    pub(crate) permits: &'a Shares,
    /// The memory for a large file, as a multiple of the file.
    pub(crate) factor: u64,
}

/// What a look at the upstream index found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewerView {
    /// The guard has a newer view now.
    Taken,
    /// There is none.
    None,
    /// The upstream cannot be reached, so nobody knows.
    Unknown,
}

impl IndexGuard {
    /// Takes the current view.
    ///
    /// # Errors
    /// 503 before the first view.
    pub(crate) fn take(state: &Arc<AppState>) -> Result<Self, ApiError> {
        let view = state.index.view().ok_or_else(|| not_ready(state))?;
        Ok(Self::of(state, view))
    }

    /// Takes a view that an answer was begun with.
    pub(crate) fn of(state: &Arc<AppState>, view: Arc<View>) -> Self {
        Self {
            state: Arc::clone(state),
            view,
            decisions: None,
        }
    }

    /// The upstream commit of the view.
    pub(crate) fn commit(&self) -> CommitId {
        self.view.commit()
    }

    /// When that commit was made, as the commit says.
    pub(crate) fn commit_time(&self) -> SystemTime {
        self.view.commit_time()
    }

    /// Whether upstream may list versions that the view does not list.
    pub(crate) fn may_hide(&self) -> bool {
        self.view.may_hide()
    }

    /// How many crates the view lists.
    pub(crate) fn crate_count(&self) -> usize {
        self.view.crate_count()
    }

    /// Marks an answer that was made from the view, a failure too.
    pub(crate) fn mark(&self, answer: Result<Response, ApiError>) -> Response {
        let mut response = answer.into_response();
        response
            .headers_mut()
            .extend(commit_header(self.commit()).into_iter().flatten());
        response
            .headers_mut()
            .extend(policy_header(&self.view).into_iter().flatten());
        response
    }

    /// Marks an answer that the time changes, too: the name of the decisions does not cover that.
    pub(crate) fn mark_as_of_now(&self, answer: Result<Response, ApiError>) -> Response {
        let mut response = self.mark(answer);
        response.headers_mut().remove(X_POLICY);
        response
    }

    /// The view.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// What the policy says about the versions of a crate; `None` if it says nothing.
    ///
    /// # Errors
    /// As [`IndexGuard::read`].
    pub(crate) async fn decisions(
        &self,
        exchange: &Exchange,
        name: &CrateName,
    ) -> Result<Option<Arc<DecisionTable>>, ApiError> {
        let id = self.view.decisions_id();
        let found = self.view.source_file(name);
        let Some((file, blob)) = found else {
            return Ok(None);
        };
        self.check_is_read(file)?;
        let state = self.view.policy_state(file);
        if !state.is_some_and(FileState::has_decisions) {
            return Ok(None);
        }
        Box::pin(self.read_decisions(exchange, id, file.to_owned(), blob))
            .await
            .map(Some)
    }

    /// All decisions about the versions of a crate, whether the policy says anything about them or not.
    ///
    /// # Errors
    /// 404 for a crate that the upstream does not list, and as [`IndexGuard::read`].
    pub(crate) async fn all_decisions(
        &self,
        exchange: &Exchange,
        name: &CrateName,
    ) -> Result<Arc<DecisionTable>, ApiError> {
        let no_crate = || ApiError::CrateNotFound(name.to_string());
        let (file, blob) = self.view.source_file(name).ok_or_else(no_crate)?;
        self.check_is_read(file)?;
        let id = self.view.decisions_id();
        let table = self
            .read_decisions(exchange, id, file.to_owned(), blob)
            .await?;
        if table.versions().is_empty() {
            Err(no_crate())
        } else {
            Ok(table)
        }
    }

    async fn read_decisions(
        &self,
        exchange: &Exchange,
        id: Option<PolicyId>,
        file: String,
        blob: BlobId,
    ) -> Result<Arc<DecisionTable>, ApiError> {
        let tables = &self.state.decision_tables;
        let key = (id, blob, file.clone());
        let known = || tables.get(&key);
        let view = Arc::clone(&self.view);
        let read =
            move |content: &[u8]| Arc::new(DecisionTable::new(view.decisions(&file, content)));
        let cost = ReadCost {
            permits: &self.state.look_up_permits,
            factor: TABLE_FACTOR,
        };
        let (table, _share) = self.read(exchange, blob, cost, known, read).await?;
        tables.insert(key, Arc::clone(&table));
        Ok(table)
    }

    /// Looks up what the policy says about a crate, for the answer about it.
    ///
    /// # Errors
    /// As [`IndexGuard::read`].
    pub(crate) async fn with_decisions(
        mut self,
        exchange: &Exchange,
        name: &CrateName,
    ) -> Result<Self, ApiError> {
        if self.is_enforced() {
            self.decisions = self.decisions(exchange, name).await?;
        }
        Ok(self)
    }

    /// Why the policy shows a version as yanked, if it does.
    pub(crate) fn yank_message(&self, version: &str) -> Option<String> {
        let refusal = self.decisions.as_ref()?.refusal(version)?;
        Some(refusal.detail)
    }

    /// Counts an answer in which the policy changes versions of crates, or would: once for each state. `files` are the names
    /// of their index files. A `304` shows no version. `/changes` is no surface of its own: its lines tell what the policy did.
    pub(crate) fn count_policy<'f>(
        &self,
        surface: PolicySurface,
        files: impl IntoIterator<Item = &'f str>,
    ) {
        let states = files
            .into_iter()
            .filter_map(|file| self.view.policy_state(file));
        let mut versions = [0; 3];
        for state in states {
            versions[0] += u64::from(state.held);
            versions[1] += u64::from(state.denied);
            versions[2] += u64::from(state.frozen);
        }
        count_policy(&self.state, &self.view, surface, versions);
    }

    /// Counts an answer of the API that lists these crates.
    pub(crate) fn count_list<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        if !self.view.has_policy() {
            return;
        }
        let names = names.into_iter().map(str::to_owned);
        let names = names.filter_map(|name| CrateName::try_from(name).ok());
        let files = names.filter_map(|name| Some(self.view.source_file(&name)?.0));
        self.count_policy(PolicySurface::Api, files);
    }

    /// Refuses a download that the policy does not allow, and logs and counts it. In audit mode it refuses none.
    ///
    /// # Errors
    /// 403 for a version that is denied, or held under `HELD_DOWNLOADS=deny`; and as [`IndexGuard::read`].
    pub(crate) async fn check_download(
        &self,
        exchange: &Exchange,
        name: &CrateName,
        version: &CrateVersion,
    ) -> Result<(), ApiError> {
        let Some(settings) = self.view.policy_settings() else {
            return Ok(());
        };
        let table = self.decisions(exchange, name).await?;
        let refusal = table.and_then(|table| table.refusal(version.as_str()));
        let Some(refusal) = refusal.filter(|refusal| settings.refuses(refusal.state)) else {
            return Ok(());
        };
        let mode = settings.mode;
        let metrics = &self.state.metrics.policy;
        metrics.count(refusal.state.name(), PolicySurface::Download, mode.name());
        let (crate_name, crate_version) = (name.as_str(), version.as_str());
        let client_address = exchange.client();
        tracing::info!(
            client.address = %client_address,
            crate.name = crate_name,
            crate.version = crate_version,
            policy.state = refusal.state.name(),
            policy.rule = refusal.rule,
            policy.mode = mode.name(),
            reason = refusal.detail,
            "the policy refuses a download"
        );
        match mode {
            Mode::Audit => Ok(()),
            Mode::Enforce => Err(ApiError::RefusedByPolicy {
                retry_after: refusal.until.map(|until| self.seconds_until(until)),
                detail: refusal.detail,
            }),
        }
    }

    /// Takes the current view for a download. Advisories may deny the download, so it waits for a view that was made with
    /// the first ones.
    ///
    /// # Errors
    /// 503 before the first view, and until the first advisories or the first failure to get them.
    pub(crate) async fn take_for_download(state: &Arc<AppState>) -> Result<Self, ApiError> {
        let index = Self::take(state)?;
        match &state.advisories {
            Some(advisories) if index.waits_for(advisories) => {
                Box::pin(Self::take_with_advisories(state, advisories)).await
            }
            _ => Ok(index),
        }
    }

    async fn take_with_advisories(
        state: &Arc<AppState>,
        advisories: &AdvisoryHandle,
    ) -> Result<Self, ApiError> {
        let deadline = Instant::now() + ADVISORIES_WAIT_MAX;
        // Before the look at the view: a change after it must not be missed.
        let mut changes = state.index.view_changes();
        loop {
            let index = Self::take(state)?;
            if !index.waits_for(advisories) {
                return Ok(index);
            }
            if advisories.state() == AdvisoryState::Waiting {
                return Err(ApiError::NoAdvisoriesYet);
            }
            // They are there, and the view that follows them is being made.
            let changed = timeout_at(deadline, changes.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(ApiError::NoAdvisoriesYet);
            }
        }
    }

    /// Whether the view was made without advisories that are on their way. If the first attempt to get them has failed,
    /// nobody waits for them. In audit mode nobody does either.
    fn waits_for(&self, advisories: &AdvisoryHandle) -> bool {
        self.is_enforced()
            && self
                .view
                .policy_facts()
                .is_none_or(|facts| facts.advisories.is_none())
            && advisories.state() != AdvisoryState::Failed
    }

    /// The time until this moment (seconds since 1970), in whole seconds, 1 at least.
    fn seconds_until(&self, moment: i64) -> u64 {
        let now = self.state.settings.clock.now();
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        u64::try_from(moment)
            .unwrap_or(0)
            .saturating_sub(now)
            .max(1)
    }

    /// Whether there is a policy that changes answers.
    fn is_enforced(&self) -> bool {
        let settings = self.view.policy_settings();
        settings.is_some_and(|settings| settings.mode == Mode::Enforce)
    }

    /// How long anybody may keep an index file, in seconds: until the policy changes it, and never longer than `longest`.
    pub(crate) fn seconds_to_keep(&self, file_name: &str, longest: u64) -> u64 {
        let next = self
            .view
            .policy_state(file_name)
            .and_then(|state| state.next_change);
        match next.filter(|_| self.is_enforced()) {
            // It changes with the first fetch at that time or later.
            Some(next) => self.seconds_until(next).min(longest),
            None => longest,
        }
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

    /// Refuses an index file that is hidden because the policy could not read it: what it lists must not be called absent.
    fn check_is_read(&self, file_name: &str) -> Result<(), ApiError> {
        let state = self.view.policy_state(file_name);
        if self.is_enforced() && state.is_some_and(|state| state.is_unread) {
            let why = "it is too large or cannot be read, so the policy cannot be applied to it";
            return Err(ApiError::IndexFileRefused(ReadError::TooLarge(
                why.to_owned(),
            )));
        }
        Ok(())
    }

    /// Looks for a newer view at the upstream: the index may be behind a publish.
    pub(crate) async fn take_newer(&mut self) -> Result<NewerView, ApiError> {
        let index = &self.state.index;
        let outcome = index.refresh_now().await;
        let newer = Self::take(&self.state)?;
        if newer.commit() != self.commit() {
            *self = newer;
            return Ok(NewerView::Taken);
        }
        let is_known = match outcome {
            RefreshOutcome::Fetched => true,
            // Either there were many looks just now, or the last one failed and the next one is due later.
            RefreshOutcome::NotNow => index.status().last_error.is_none(),
            RefreshOutcome::Failed | RefreshOutcome::TooLate => false,
        };
        Ok(if is_known {
            NewerView::None
        } else {
            NewerView::Unknown
        })
    }

    /// The version table of a crate, if it is in memory.
    pub(crate) fn version_table_now(&self, name: &CrateName) -> Option<Arc<VersionTable>> {
        self.known_version_table(name, self.find(name).ok()?)
    }

    /// Two crates of a strange index may have the same file. Each has only the lines of its own name.
    fn known_version_table(&self, name: &CrateName, blob: BlobId) -> Option<Arc<VersionTable>> {
        let table = self.state.version_tables.get(&blob);
        table.filter(|table| table.is_of(name))
    }

    /// The version table of a crate.
    ///
    /// # Errors
    /// 404 for a crate that the view does not list, and as [`IndexGuard::read`].
    pub(crate) async fn version_table(
        &self,
        exchange: &Exchange,
        name: &CrateName,
    ) -> Result<Arc<VersionTable>, ApiError> {
        let blob = self.find(name)?;
        let known = || self.known_version_table(name, blob).map(Some);
        let crate_name = name.clone();
        let read = move |file: &[u8]| VersionTable::read(file, &crate_name).map(Arc::new);
        let cost = ReadCost {
            permits: &self.state.look_up_permits,
            factor: TABLE_FACTOR,
        };
        let (table, _share) = self.read(exchange, blob, cost, known, read).await?;
        let table = table.ok_or_else(|| ApiError::CrateNotFound(name.to_string()))?;
        self.state.version_tables.insert(blob, Arc::clone(&table));
        Ok(table)
    }

    /// Returns what is `known`, or gives an index file to `read` on a blocking thread when the request has a permit. A
    /// large file also needs memory from the account; that share comes back with the result.
    ///
    /// # Errors
    /// 503 if there is no permit or no memory in time, and for a file that cannot be read.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        exchange: &Exchange,
        blob: BlobId,
        cost: ReadCost<'_>,
        known: impl Fn() -> Option<T>,
        read: impl Fn(&[u8]) -> T + Send + Sync + 'static,
    ) -> Result<(T, Option<Share>), ApiError> {
        let read = Arc::new(read);
        let mut share = None;
        loop {
            if let Some(known) = known() {
                return Ok((known, share));
            }
            let permit = cost.permits.take(exchange, 1).await?;
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
                    let bytes = bytes.saturating_mul(cost.factor);
                    share = Some(self.state.account.take(exchange, bytes).await?);
                }
            }
        }
    }

    /// How large an index file is, if it can be read. Blocking.
    pub(crate) fn bytes_of(&self, blob: BlobId) -> Option<u64> {
        self.readable(self.view.blob_bytes(blob))
    }

    /// The size of a version's crate file in bytes, if the file is on the mirror's own disk; otherwise 0. Blocking.
    ///
    /// Answers of one commit and one policy are equal, and which files are stored changes with each download. So under a
    /// policy it is 0, unless only stored files are listed.
    pub(crate) fn crate_size(&self, line: &IndexLine<'_>) -> u64 {
        let varies = self.view.policy_id().is_some() && !self.view.may_hide();
        let files = self.state.crate_files.as_ref().filter(|_| !varies);
        let size = files
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

/// Counts an answer with so many versions that are held, denied and frozen.
fn count_policy(state: &AppState, view: &View, surface: PolicySurface, versions: [u64; 3]) {
    let Some(settings) = view.policy_settings() else {
        return;
    };
    let states = [PolicyState::Held, PolicyState::Denied, PolicyState::Frozen];
    for (policy_state, _) in states
        .into_iter()
        .zip(versions)
        .filter(|(_, versions)| *versions > 0)
    {
        let metrics = &state.metrics.policy;
        metrics.count(policy_state.name(), surface, settings.mode.name());
    }
}

/// Counts a fetch of the git index.
pub(crate) fn count_git_fetch(state: &AppState, view: &View) {
    if let Some(totals) = view.policy_totals() {
        let versions = [totals.held, totals.denied, totals.frozen];
        count_policy(state, view, PolicySurface::Git, versions);
    }
}

/// The view with the git index that git clients get.
///
/// # Errors
/// 503 before the first view, and while it has no git index.
pub(crate) fn git_index(state: &AppState) -> Result<(Arc<View>, Arc<GitIndex>), ApiError> {
    let found = state.index.view().and_then(|view| {
        let git_index = view.git_index().cloned()?;
        Some((view, git_index))
    });
    found.ok_or_else(|| not_ready(state))
}

/// The header that names the upstream commit of an answer.
pub(crate) fn commit_header(commit: CommitId) -> Option<[(HeaderName, HeaderValue); 1]> {
    // Hexadecimal digits are always a valid value.
    let commit = HeaderValue::from_bytes(&commit.hex()).ok()?;
    Some([(X_INDEX_COMMIT, commit)])
}

/// The header that names the decisions of a view; `None` without rules that change anything.
pub(crate) fn policy_header(view: &View) -> Option<[(HeaderName, HeaderValue); 1]> {
    // Hexadecimal digits are always a valid value.
    let policy = HeaderValue::from_bytes(&view.policy_id()?.hex()).ok()?;
    Some([(X_POLICY, policy)])
}

/// Why there is no view to answer from.
fn not_ready(state: &AppState) -> ApiError {
    let status = state.index.status();
    match status.last_error.filter(|_| status.needs_help) {
        Some(why) => ApiError::NeedsHelp(why),
        None => ApiError::NotReady,
    }
}
