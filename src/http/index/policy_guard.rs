//! The policy as one request meets it: decisions about the versions of a crate, refused downloads, the advisories that a
//! download waits for, and the counts of all that.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use super::decision_table::DecisionTable;
use super::index_guard::{IndexGuard, current_view};
use crate::http::answer_cache::PolicyStates;
use crate::http::error::ApiError;
use crate::http::state::{AppState, RequestState};
use crate::index::{AdvisoryState, BlobId, ReadError, View};
use crate::observability::metrics::PolicySurface;
use crate::package::{CrateName, CrateVersion};
use crate::policy::{FileState, Mode, PolicyState};

/// How long a download waits for the view that follows the first advisories.
const ADVISORIES_WAIT_MAX: Duration = Duration::from_secs(5);

impl IndexGuard {
    /// What the policy says about the versions of a crate; `None` if it says nothing.
    ///
    /// # Errors
    /// As [`IndexGuard::read`].
    pub(crate) async fn decisions(
        &self,
        name: &CrateName,
    ) -> Result<Option<Arc<DecisionTable>>, ApiError> {
        let Some((file, blob)) = self.view.source_file(name) else {
            return Ok(None);
        };
        self.check_is_read(file)?;
        let state = self.view.policy_state(file);
        if !state.is_some_and(FileState::has_decisions) {
            return Ok(None);
        }
        Box::pin(self.read_decisions(file, blob)).await
    }

    /// All decisions about the versions of a crate, whether the policy says anything about them or not.
    ///
    /// # Errors
    /// 404 for a crate that the upstream does not list, and as [`IndexGuard::read`].
    pub(crate) async fn all_decisions(
        &self,
        name: &CrateName,
    ) -> Result<Arc<DecisionTable>, ApiError> {
        let no_crate = || ApiError::CrateNotFound(name.to_string());
        let (file, blob) = self.view.source_file(name).ok_or_else(no_crate)?;
        self.check_is_read(file)?;
        let table = self.read_decisions(file, blob).await?;
        table.ok_or_else(no_crate)
    }

    async fn read_decisions(
        &self,
        file: &str,
        blob: BlobId,
    ) -> Result<Option<Arc<DecisionTable>>, ApiError> {
        let key = (self.view.decisions_id(), blob, file.to_owned());
        let (view, file) = (Arc::clone(&self.view), file.to_owned());
        let read = move |content: &[u8]| {
            let versions = view.decisions(&file, content);
            (!versions.is_empty()).then_some(DecisionTable { versions })
        };
        let tables = &self.state.decision_tables;
        self.cached(blob, (tables, key), |_table| true, read).await
    }

    /// Looks up what the policy says about a crate, for the answer about it.
    ///
    /// # Errors
    /// As [`IndexGuard::read`].
    pub(crate) async fn with_decisions(mut self, name: &CrateName) -> Result<Self, ApiError> {
        if self.is_enforced() {
            self.decisions = self.decisions(name).await?;
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
    ) -> PolicyStates {
        let states = files
            .into_iter()
            .filter_map(|file| self.view.policy_state(file));
        let mut shown = [false; 3];
        for state in states {
            let versions = [state.held, state.denied, state.frozen];
            for (shown, versions) in shown.iter_mut().zip(versions) {
                *shown |= versions > 0;
            }
        }
        count_policy(&self.state, &self.view, surface, PolicyStates(shown));
        PolicyStates(shown)
    }

    /// Counts an answer of the API that lists these crates. The guard remembers the count for [`IndexGuard::mark_repeatable`].
    pub(crate) fn count_list<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        if !self.view.has_policy() {
            return;
        }
        let names = names.into_iter().map(str::to_owned);
        let names = names.filter_map(|name| CrateName::try_from(name).ok());
        let files = names.filter_map(|name| Some(self.view.source_file(&name)?.0));
        self.counted = self.count_policy(PolicySurface::Api, files);
    }

    /// Refuses an index file that is hidden because the policy could not read it: what it lists must not be called absent.
    ///
    /// # Errors
    /// 503.
    pub(super) fn check_is_read(&self, file_name: &str) -> Result<(), ApiError> {
        let state = self.view.policy_state(file_name);
        if self.is_enforced() && state.is_some_and(|state| state.is_unread) {
            let why = "it is too large or cannot be read, so the policy cannot be applied to it";
            return Err(ApiError::IndexFileRefused(ReadError::TooLarge(
                why.to_owned(),
            )));
        }
        Ok(())
    }

    /// Refuses a download that the policy does not allow, and logs and counts it. In audit mode it refuses none.
    ///
    /// # Errors
    /// 403 for a version that is denied, or held under `HELD_DOWNLOADS=deny`; and as [`IndexGuard::read`].
    pub(crate) async fn check_download(
        &self,
        name: &CrateName,
        version: &CrateVersion,
    ) -> Result<(), ApiError> {
        let Some(settings) = self.view.policy_settings() else {
            return Ok(());
        };
        let table = self.decisions(name).await?;
        let refusal = table.and_then(|table| table.refusal(version.as_str()));
        let Some(refusal) = refusal.filter(|refusal| settings.refuses(refusal.state)) else {
            return Ok(());
        };
        let mode = settings.mode;
        let metrics = &self.state.metrics.policy;
        metrics.count(refusal.state.name(), PolicySurface::Download, mode.name());
        let (crate_name, crate_version) = (name.as_str(), version.as_str());
        tracing::info!(
            client.address = %self.exchange.client(),
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
    pub(crate) async fn take_for_download(request: RequestState) -> Result<Self, ApiError> {
        let mut index = Self::take(request)?;
        if index.awaited_advisories().is_some() {
            Box::pin(index.wait_for_advisories()).await?;
        }
        Ok(index)
    }

    async fn wait_for_advisories(&mut self) -> Result<(), ApiError> {
        let deadline = Instant::now() + ADVISORIES_WAIT_MAX;
        // Before the look at the view: a change after it must not be missed.
        let mut changes = self.state.index.view_changes();
        loop {
            self.view = current_view(&self.state)?;
            match self.awaited_advisories() {
                None => return Ok(()),
                Some(AdvisoryState::Waiting) => return Err(ApiError::NoAdvisoriesYet),
                // They are there, and the view that follows them is being made.
                Some(_) => {}
            }
            let changed = timeout_at(deadline, changes.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(ApiError::NoAdvisoriesYet);
            }
        }
    }

    /// The state of the advisories that are on their way, if the view was made without them. If the first attempt to get
    /// them has failed, nobody waits for them. In audit mode nobody does either.
    fn awaited_advisories(&self) -> Option<AdvisoryState> {
        let advisories = self.state.advisories.as_ref()?;
        let facts = self.view.policy_facts();
        let has_them = facts.is_some_and(|facts| facts.advisories.is_some());
        let awaited = (self.is_enforced() && !has_them).then(|| advisories.state());
        awaited.filter(|state| *state != AdvisoryState::Failed)
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
    pub(super) fn is_enforced(&self) -> bool {
        let settings = self.view.policy_settings();
        settings.is_some_and(|settings| settings.mode == Mode::Enforce)
    }

    /// The seconds until the policy changes an index file, if it will: with the first fetch at that time or later.
    pub(super) fn seconds_to_change(&self, file_name: &str) -> Option<u64> {
        let next = self.view.policy_state(file_name)?.next_change?;
        self.is_enforced().then(|| self.seconds_until(next))
    }
}

/// Counts an answer that shows versions in these states.
pub(crate) fn count_policy(
    state: &AppState,
    view: &View,
    surface: PolicySurface,
    PolicyStates(shown): PolicyStates,
) {
    let Some(settings) = view.policy_settings() else {
        return;
    };
    let states = [PolicyState::Held, PolicyState::Denied, PolicyState::Frozen];
    for (policy_state, _) in states.into_iter().zip(shown).filter(|(_, shown)| *shown) {
        let metrics = &state.metrics.policy;
        metrics.count(policy_state.name(), surface, settings.mode.name());
    }
}

/// Counts a fetch of the git index.
pub(crate) fn count_git_fetch(state: &AppState, view: &View) {
    if let Some(totals) = view.policy_totals() {
        let versions = [totals.held, totals.denied, totals.frozen];
        let shown = PolicyStates(versions.map(|versions| versions > 0));
        count_policy(state, view, PolicySurface::Git, shown);
    }
}
