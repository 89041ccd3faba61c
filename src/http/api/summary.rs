//! `GET /api/v1/summary`: the lists of crates.io's front page.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::json::CrateView;
use super::look_up::accounted_json;
use crate::catalog::CrateSummary;
use crate::http::error::ApiError;
use crate::http::index::index_guard::IndexGuard;
use crate::http::state::RequestState;

/// How many crates each list has.
const CRATES_MAX: usize = 10;

/// Numbers and lists of crates.
#[derive(Serialize, ToSchema)]
pub(crate) struct SummaryAnswer<'a> {
    /// Always 0: the index has no downloads.
    num_downloads: u64,
    num_crates: usize,
    /// The crates with the latest first publish.
    new_crates: Vec<CrateView<'a>>,
    /// Always empty: the index has no downloads.
    #[schema(value_type = Vec<CrateView<'_>>)]
    most_downloaded: [(); 0],
    /// Always empty: the index has no downloads.
    #[schema(value_type = Vec<CrateView<'_>>)]
    most_recently_downloaded: [(); 0],
    /// The crates with the latest publish that was not their first one.
    just_updated: Vec<CrateView<'a>>,
    /// Always empty: the index has no keywords.
    #[schema(value_type = Vec<Object>)]
    popular_keywords: [(); 0],
    /// Always empty: the index has no categories.
    #[schema(value_type = Vec<Object>)]
    popular_categories: [(); 0],
}

/// Lists the newest crates and the latest updates.
#[utoipa::path(
    get,
    path = "/api/v1/summary",
    tag = "other",
    responses((status = 200, body = SummaryAnswer<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn show_summary(request: RequestState) -> Result<Response, ApiError> {
    // An operator must hear why there is no index, and not only that there is no catalog.
    let mut index = IndexGuard::take(request)?;
    let summary = index.state.catalog.summary(CRATES_MAX).await?;
    index.view = summary.view;
    let listed = summary.new_crates.iter().chain(&summary.just_updated);
    index.count_list(listed.map(|found| found.name.as_str()));
    let views = |crates| {
        let crates: &[CrateSummary] = crates;
        let views = crates.iter();
        views
            .map(|found| CrateView::in_list(found, false))
            .collect()
    };
    let answer = SummaryAnswer {
        num_downloads: 0,
        num_crates: summary.num_crates,
        new_crates: views(&summary.new_crates),
        most_downloaded: [],
        most_recently_downloaded: [],
        just_updated: views(&summary.just_updated),
        popular_keywords: [],
        popular_categories: [],
    };
    let mut answer = index.mark_repeatable(accounted_json(&index, &answer).await);
    if answer.status().is_success() {
        let fifteen_seconds = HeaderValue::from_static("public, max-age=15");
        answer
            .headers_mut()
            .insert(header::CACHE_CONTROL, fifteen_seconds);
    }
    Ok(answer)
}
