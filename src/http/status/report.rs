//! `GET /status`: what `/readyz` says and more, for scripts of operators. Always 200, so that a script reads the state and not
//! the status code.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::health::{self, Readiness, utc};
use crate::build_info;
use crate::http::index::index_guard::git_index;
use crate::http::policy::PolicyReport;
use crate::http::state::AppState;
use crate::store::CrateFiles;

/// Everything that the mirror knows of its state. Times are in UTC (RFC 3339).
#[derive(Serialize)]
struct Report<'a> {
    state: String,
    /// The upstream commit of the view; null before the first view.
    commit: Option<String>,
    /// When that commit was made: the index shows crates.io as of this time.
    index_time: Option<String>,
    /// When a fetch of the index last succeeded; null if the mirror does not know.
    last_check: Option<String>,
    /// `redirect`, `cache` or `offline`.
    mode: &'static str,
    version: &'static str,
    /// The commit that the program was built from, or `unknown`.
    build_commit: &'static str,
    uptime_seconds: u64,
    /// The setting `PUBLIC_URL`.
    public_url: Option<&'a str>,
    /// Whether git clients get an index.
    git_index: bool,
    /// Where crate files come from.
    download_url: &'a str,
    /// The crate files that the mirror sends itself; null for a redirecting mirror.
    crate_files: Option<CrateFilesReport>,
    /// The policy, as `/policy` shows it; null before the first view.
    policy: Option<PolicyReport>,
    #[serde(flatten)]
    readiness: Readiness,
}

/// The store of crate files, and the requests since the start.
#[derive(Serialize)]
struct CrateFilesReport {
    store: String,
    /// Requests for files that were stored.
    hits: u64,
    /// Files that were fetched from an upstream.
    fetched: u64,
}

impl CrateFilesReport {
    fn of(crate_files: &CrateFiles) -> Self {
        let counters = crate_files.counters();
        Self {
            store: crate_files.store().location.to_string(),
            hits: counters.hits.get(),
            fetched: counters.fetched.get(),
        }
    }
}

/// The report.
pub(crate) async fn show(State(state): State<Arc<AppState>>) -> Response {
    let readiness = Readiness::of(&state);
    let index = &readiness.index;
    let report = Report {
        state: readiness.state().to_string(),
        commit: index.commit.clone(),
        index_time: index.commit_time.and_then(utc),
        last_check: index.last_success.and_then(utc),
        mode: mode(&state),
        version: build_info::VERSION,
        build_commit: build_info::COMMIT,
        uptime_seconds: state.started.elapsed().as_secs(),
        public_url: state.settings.public_url.as_deref(),
        git_index: git_index(&state).is_ok(),
        download_url: &state.settings.download.base,
        crate_files: state.crate_files.as_ref().map(CrateFilesReport::of),
        policy: PolicyReport::now(&state),
        readiness,
    };
    health::report(StatusCode::OK, &report)
}

/// The value of the setting `DOWNLOAD_MODE`.
pub(super) fn mode(state: &AppState) -> &'static str {
    match &state.crate_files {
        None => "redirect",
        Some(crate_files) if crate_files.fetches() => "cache",
        Some(_) => "offline",
    }
}
