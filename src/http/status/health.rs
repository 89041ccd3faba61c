//! `GET /livez` and `GET /readyz`: whether the process works, and whether it should get traffic.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

use crate::catalog::{CatalogState, CatalogStatus};
use crate::clock::Clock;
use crate::http::state::AppState;
use crate::index::{AdvisoryHandle, AdvisoryState, IndexStatus, Phase, PushStatus, View};
use crate::policy::Advisories;
use crate::printable::printable;

/// The process answers.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// 200 once there is a view of the index and the last successful fetch is recent enough; else 503 with the reason.
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Response {
    let readiness = Readiness::of(&state);
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    report(status, &readiness)
}

/// A report as JSON. People read it in terminals, and it has errors of upstreams as they came, so all that is not printable is
/// escaped.
pub(super) fn report(status: StatusCode, report: &impl Serialize) -> Response {
    // Numbers and texts can always be serialised.
    let json = serde_json::to_string(report).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, printable(&json).into_owned()).into_response()
}

/// Whether the mirror should get traffic, and why not.
#[derive(Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    /// Why not; null when ready.
    pub(crate) reason: Option<String>,
    pub(crate) index: IndexReport,
    /// How pushing the rewritten index goes. It does not count for readiness. Null if the index is not pushed anywhere.
    pub(crate) push: Option<PushStatus>,
    /// The catalog, which search and reverse dependencies need.
    pub(crate) catalog: CatalogState,
    /// The advisory database. It does not count for readiness. Null if the mirror follows none.
    pub(crate) advisories: Option<AdvisoryReport>,
    /// What operators should know, and what does not make the mirror unready.
    pub(crate) warnings: Vec<String>,
}

/// The state of the mirror as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MirrorState {
    /// An index is served, and the last successful fetch is recent enough.
    Ready,
    /// There is no index yet.
    Cloning,
    /// An index is served, and the last successful fetch is too old.
    Stale,
    /// There is no index, and the last attempt to get one failed.
    Failing,
}

impl fmt::Display for MirrorState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ready => "ready",
            Self::Cloning => "cloning",
            Self::Stale => "stale",
            Self::Failing => "failing",
        })
    }
}

/// The state of the index.
#[derive(Serialize)]
pub(crate) struct IndexReport {
    pub(crate) upstream: String,
    /// The upstream commit of the view.
    pub(crate) commit: Option<String>,
    /// When that commit was made.
    #[serde(skip)]
    pub(crate) commit_time: Option<SystemTime>,
    pub(crate) crates: Option<usize>,
    pub(crate) phase: Phase,
    /// When a fetch last succeeded; `None` if the mirror does not know.
    #[serde(skip)]
    pub(crate) last_success: Option<SystemTime>,
    /// Seconds since the last successful fetch; null if the mirror does not know.
    pub(crate) age_seconds: Option<u64>,
    /// The progress of the current clone or fetch.
    pub(crate) progress: crate::index::FetchProgress,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<String>,
}

/// The state of the advisory database.
#[derive(Serialize)]
pub(crate) struct AdvisoryReport {
    pub(crate) upstream: String,
    pub(crate) state: AdvisoryState,
    /// The commit of the database.
    pub(crate) commit: Option<String>,
    /// Advisories that are used.
    pub(crate) advisories: Option<usize>,
    /// Files that are no usable advisories.
    pub(crate) skipped: Option<usize>,
    /// Seconds since the last successful fetch; null if the mirror does not know.
    pub(crate) age_seconds: Option<u64>,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<String>,
}

impl AdvisoryReport {
    pub(super) fn of(handle: &AdvisoryHandle, clock: &Clock) -> Self {
        let (status, advisories) = (handle.status(), handle.advisories());
        let advisories = advisories.as_deref();
        let age = status.last_success.and_then(|last| clock.age(last));
        Self {
            upstream: handle.upstream().to_owned(),
            state: handle.state(),
            commit: advisories.map(|advisories| advisories.commit.clone()),
            advisories: advisories.map(Advisories::count),
            skipped: advisories.map(|advisories| advisories.skipped),
            age_seconds: age.map(|age| age.as_secs()),
            failures: status.failures,
            last_error: status.last_error,
        }
    }

    /// What does not work without up-to-date advisories.
    fn warning(&self) -> Option<String> {
        match (&self.commit, &self.last_error) {
            (None, None) => Some("there are no advisories yet".to_owned()),
            (None, Some(error)) => Some(format!("there are no advisories: {error}")),
            (Some(_), None) => None,
            (Some(commit), Some(error)) => Some(format!(
                "the advisories are those of commit {commit}, because the last fetch failed: {error}"
            )),
        }
    }
}

impl Readiness {
    /// Looks at the current state.
    pub(crate) fn of(state: &AppState) -> Self {
        let view = state.index.view();
        let status = state.index.status();
        let catalog = state.catalog.status();
        let advisories = state.advisories.as_ref();
        let advisories = advisories.map(|handle| AdvisoryReport::of(handle, &state.settings.clock));
        let advisory_warning = advisories.as_ref().and_then(AdvisoryReport::warning);
        let clock = &state.settings.clock;
        let age = status.last_success.and_then(|last| clock.age(last));
        let reason = match &view {
            None => Some(no_index(&status)),
            Some(_) => too_old(age, state.settings.max_staleness),
        };
        Self {
            ready: reason.is_none(),
            reason,
            index: IndexReport {
                upstream: state.settings.upstream.clone(),
                commit: view.as_ref().map(|view| view.commit().to_string()),
                commit_time: view.as_ref().map(|view| view.commit_time()),
                crates: view.as_ref().map(|view| view.crate_count()),
                phase: status.phase,
                last_success: status.last_success,
                age_seconds: age.map(|age| age.as_secs()),
                progress: status.progress,
                failures: status.failures,
                last_error: status.last_error,
            },
            push: status.push,
            catalog: catalog.state(),
            advisories,
            warnings: status
                .warnings
                .into_iter()
                .chain(catalog_warning(&catalog))
                .chain(advisory_warning)
                .chain(journal_warning(state))
                .chain(policy_warnings(
                    view.as_deref(),
                    status.policy_file_error.as_deref(),
                ))
                .collect(),
        }
    }

    /// The state as one word. A failed fetch counts only while there is no index: the mirror serves what it has.
    pub(crate) fn state(&self) -> MirrorState {
        match (&self.index.commit, &self.index.last_error) {
            _ if self.ready => MirrorState::Ready,
            (Some(_), _) => MirrorState::Stale,
            (None, Some(_)) => MirrorState::Failing,
            (None, None) => MirrorState::Cloning,
        }
    }
}

/// A time in UTC with whole seconds (RFC 3339). `None` for a time that no calendar has: commits can claim any.
pub(super) fn utc(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let time = DateTime::from_timestamp(seconds.try_into().ok()?, 0)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// What does not work without an up-to-date catalog.
fn catalog_warning(catalog: &CatalogStatus) -> Option<String> {
    let error = catalog.last_error.as_deref()?;
    let what = match &catalog.commit {
        None => "do not work".to_owned(),
        Some(commit) => format!("answer from commit {commit}"),
    };
    Some(format!(
        "search and reverse dependencies {what}, because the catalog could not be brought up to date: {error}"
    ))
}

/// What does not work without an up-to-date change journal.
fn journal_warning(state: &AppState) -> Option<String> {
    let error = state.journal.last_error()?;
    Some(format!(
        "the change feed is not up to date, because the change journal could not be written: {error}"
    ))
}

/// What an error of the policy file means, and what is probably not meant in the one in force: expired exemptions, for
/// example.
fn policy_warnings(view: Option<&View>, error: Option<&str>) -> Vec<String> {
    let error = error.map(|error| {
        format!("the policy file cannot be used, so an earlier version of it is in force: {error}")
    });
    let facts = view.and_then(View::policy_facts);
    let of_file = facts.map(|facts| facts.file.warnings(facts.policy_time));
    let of_file = of_file.into_iter().flatten();
    error
        .into_iter()
        .chain(of_file.map(|warning| format!("POLICY_FILE: {warning}")))
        .collect()
}

/// Why there is no index to answer from.
fn no_index(status: &IndexStatus) -> String {
    let progress = status.progress;
    match (&status.last_error, status.phase) {
        (Some(error), _) => {
            format!("there is no copy of the index yet; the last try failed: {error}")
        }
        (None, Phase::Cloning) => format!(
            "the index is being cloned: {} of {} objects received, {} indexed",
            progress.received_objects, progress.total_objects, progress.indexed_objects
        ),
        (None, _) => "there is no copy of the index yet".to_owned(),
    }
}

/// Whether the last successful fetch is too old, and why.
fn too_old(age: Option<Duration>, limit: Option<Duration>) -> Option<String> {
    let limit = limit?;
    match age {
        Some(age) if age <= limit => None,
        Some(age) => Some(format!(
            "the last successful fetch of the index was {} s ago, more than MAX_STALENESS_SECS={}",
            age.as_secs(),
            limit.as_secs()
        )),
        // Not age 0: the mirror would count as fresh until the clock has caught up.
        None => Some(
            "it is not known when the index was last fetched: that time is missing or ahead of the clock"
                .to_owned(),
        ),
    }
}
