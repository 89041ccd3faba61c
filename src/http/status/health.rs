//! `GET /livez` and `GET /readyz`: whether the process works, and whether it should get traffic.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::state::AppState;
use crate::index::{IndexStatus, Phase, PushStatus, View};

/// The process answers.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// 200 once a snapshot is served and the last successful fetch is recent enough; else 503 with the reason.
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    let readiness = Readiness::of(&state);
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(header::CACHE_CONTROL, "no-store")],
        Json(readiness),
    )
        .into_response()
}

/// Whether the mirror should get traffic, and why not.
#[derive(Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    /// Why not; null when ready.
    pub(crate) reason: Option<String>,
    pub(crate) index: IndexReport,
    /// How pushing the rewritten index goes, which says nothing of readiness; null if it is not pushed anywhere.
    pub(crate) push: Option<PushStatus>,
    /// What whoever runs the mirror should know, and what does not make it unready.
    pub(crate) warnings: Vec<String>,
}

/// What there is to say about the index.
#[derive(Serialize)]
pub(crate) struct IndexReport {
    pub(crate) upstream: String,
    /// The upstream commit that is served.
    pub(crate) commit: Option<String>,
    pub(crate) crates: Option<usize>,
    pub(crate) phase: Phase,
    /// Seconds since the last successful fetch; null if that is not known.
    pub(crate) age_seconds: Option<u64>,
    /// How far the running clone or fetch is.
    pub(crate) progress: crate::index::FetchProgress,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<String>,
}

impl Readiness {
    /// Looks at everything once.
    pub(crate) fn of(state: &AppState) -> Self {
        let view = state.index.view();
        let status = state.index.status();
        let clock = &state.settings.clock;
        let age = status.last_success.and_then(|last| clock.age(last));
        let reason = reason(view.as_deref(), &status, age, state.settings.max_staleness);
        Self {
            ready: reason.is_none(),
            reason,
            index: IndexReport {
                upstream: state.settings.upstream.clone(),
                commit: view.as_ref().map(|view| view.commit().to_string()),
                crates: view.as_ref().map(|view| view.crate_count()),
                phase: status.phase,
                age_seconds: age.map(|age| age.as_secs()),
                progress: status.progress,
                failures: status.failures,
                last_error: status.last_error,
            },
            push: status.push,
            warnings: status.warnings,
        }
    }
}

fn reason(
    view: Option<&View>,
    status: &IndexStatus,
    age: Option<Duration>,
    max_staleness: Option<Duration>,
) -> Option<String> {
    if view.is_none() {
        let progress = status.progress;
        return Some(match (&status.last_error, status.phase) {
            (Some(error), _) => {
                format!("there is no copy of the index yet; the last try failed: {error}")
            }
            (None, Phase::Cloning) => format!(
                "the index is being cloned: {} of {} objects received, {} indexed",
                progress.received_objects, progress.total_objects, progress.indexed_objects
            ),
            (None, _) => "there is no copy of the index yet".to_owned(),
        });
    }
    let limit = max_staleness?;
    match age {
        Some(age) if age <= limit => None,
        Some(age) => Some(format!(
            "the last successful fetch of the index was {} s ago, more than MAX_STALENESS_SECS={}",
            age.as_secs(),
            limit.as_secs()
        )),
        // Not age 0: the mirror would pass for fresh until the clock has caught up.
        None => Some(
            "it is not known when the index was last fetched: that time is missing or ahead of the clock"
                .to_owned(),
        ),
    }
}
