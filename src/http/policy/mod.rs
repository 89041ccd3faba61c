//! `GET /policy`, `/policy/{name}` and `/policy/{name}/{version}`: what the policy says, and why.

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::crate_in_path::{NameInPath, VersionInPath};
use super::error::ApiError;
use super::index::index_guard::IndexGuard;
use super::state::{AppState, DownloadPolicy, RequestState};
use crate::index::View;
use crate::package::{CrateName, Timestamp};
use crate::policy::{
    AllVersions, DecidedVersion, HeldDownloads, Mode, OneVersion, UnknownAge, VersionCounts,
};

/// What the policy is, and what it does at the moment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Policy)]
pub(crate) struct PolicyReport {
    /// `enforce`, `audit`, or `off` without any rule.
    pub(super) mode: &'static str,
    /// The settings, as they were written; null without a policy.
    pub(super) settings: Option<SettingsReport>,
    /// The time that decides about ages: when the last successful fetch began, in whole minutes.
    #[schema(value_type = Option<String>, format = DateTime)]
    policy_time: Option<Timestamp>,
    /// That the policy file on the disk is not the one in force; null if it is. Paths and raw errors are on `/readyz`.
    policy_file_error: Option<&'static str>,
    /// The advisories; null without a database, and before its first copy.
    pub(super) advisories: Option<AdvisoriesReport>,
    /// How many versions are in which state.
    pub(super) versions: VersionCounts,
    /// Where clients meet the policy: `sparse`, `git`, `api`, `download`.
    surfaces: Vec<&'static str>,
}

/// The settings of the policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicySettings)]
pub(super) struct SettingsReport {
    pub(super) min_publish_age: String,
    #[schema(value_type = String)]
    min_publish_age_unknown: UnknownAge,
    #[schema(value_type = String)]
    held_downloads: HeldDownloads,
    yank_guard: String,
}

/// The advisories in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyAdvisories)]
pub(super) struct AdvisoriesReport {
    commit: String,
    /// Seconds since the last successful fetch; null if the mirror does not know.
    pub(super) age_seconds: Option<u64>,
    /// Files that could not be read.
    skipped: usize,
}

impl PolicyReport {
    /// The policy of the current view; `None` before the first one.
    pub(crate) fn now(state: &AppState) -> Option<Self> {
        let view = state.index.view()?;
        Some(Self::of(state, &view))
    }

    /// The policy of a view.
    fn of(state: &AppState, view: &View) -> Self {
        let (settings, facts) = (view.policy_settings(), view.policy_facts());
        let advisories = state.advisories.as_ref();
        let fetched = advisories.and_then(|advisories| advisories.status().last_success);
        let age = fetched.and_then(|fetched| state.settings.clock.age(fetched));
        let mut surfaces = Vec::new();
        if settings.is_some_and(|settings| settings.mode == Mode::Enforce) {
            surfaces.extend(["sparse", "git", "api"]);
            if state.settings.download_policy == DownloadPolicy::Enforce {
                surfaces.push("download");
            }
        }
        Self {
            mode: settings.map_or("off", |settings| settings.mode.name()),
            settings: settings.map(|settings| SettingsReport {
                min_publish_age: settings.min_age.to_string(),
                min_publish_age_unknown: settings.unknown_age,
                held_downloads: settings.held_downloads,
                yank_guard: settings.yank_guard.to_string(),
            }),
            policy_time: settings.and_then(|_policy| view.policy_time()),
            policy_file_error: state.index.status().policy_file_error.map(|_error| {
                "the policy file cannot be used, so an earlier version of it is in force: /readyz says why"
            }),
            advisories: facts
                .and_then(|facts| facts.advisories.as_ref())
                .map(|advisories| AdvisoriesReport {
                    commit: advisories.commit.clone(),
                    age_seconds: age.map(|age| age.as_secs()),
                    skipped: advisories.skipped,
                }),
            versions: view
                .policy_totals()
                .map(VersionCounts::from)
                .unwrap_or_default(),
            surfaces,
        }
    }
}

/// Shows the policy.
#[utoipa::path(get, path = "/policy", tag = "policy", responses((status = 200, body = PolicyReport, headers(("x-index-commit" = String)))))]
pub(crate) async fn show(request: RequestState) -> Result<Response, ApiError> {
    let index = IndexGuard::take(request)?;
    // It tells the time and ages.
    let report = PolicyReport::of(&index.state, &index.view);
    Ok(index.mark_as_of_now(Ok(fresh_json(&report))))
}

/// Shows what the policy says about the versions of a crate.
// The path may be percent-encoded.
#[utoipa::path(
    get,
    path = "/policy/{name}",
    tag = "policy",
    params(("name" = String, Path, example = "itoa")),
    responses((status = 200, body = AllVersions<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn show_crate(
    request: RequestState,
    name: NameInPath,
) -> Result<Response, ApiError> {
    let name = name.parse()?;
    answer_about(request, &name, |versions| {
        Ok(fresh_json(&AllVersions::of(versions)))
    })
    .await
}

/// Shows what the policy says about one version.
#[utoipa::path(
    get,
    path = "/policy/{name}/{version}",
    tag = "policy",
    params(("name" = String, Path, example = "itoa"), ("version" = String, Path, example = "1.0.0")),
    responses((status = 200, body = OneVersion<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn show_version(
    request: RequestState,
    VersionInPath { name, version }: VersionInPath,
) -> Result<Response, ApiError> {
    answer_about(request, &name, |versions| {
        let mut all = versions.iter();
        let decided = all.find(|decided| decided.version == version.as_str());
        let missing = || ApiError::version_not_found(&name, &version);
        Ok(fresh_json(&OneVersion::of(decided.ok_or_else(missing)?)))
    })
    .await
}

/// An answer that is made from the decisions about a crate.
async fn answer_about(
    request: RequestState,
    name: &CrateName,
    shape: impl FnOnce(&[DecidedVersion]) -> Result<Response, ApiError>,
) -> Result<Response, ApiError> {
    let index = IndexGuard::take(request)?;
    let answer = async {
        let table = Box::pin(index.all_decisions(name)).await?;
        let response = shape(&table.versions)?;
        Ok(index.state.keep(&index.exchange, response).await?)
    };
    let answer = answer.await;
    Ok(index.mark(answer))
}

/// JSON that no cache may keep without asking: policies change.
fn fresh_json(value: &impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-cache")], Json(value)).into_response()
}
