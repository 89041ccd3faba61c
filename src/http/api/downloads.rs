//! `GET /api/v1/crates/{name}/downloads` and `…/{version}/downloads`. The mirror counts no downloads, so there are none.

use axum::response::Response;
use chrono::NaiveDate;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::VersionView;
use super::look_up::{existing, json, with_crate};
use super::query::{ApiQuery, check_include, given};
use crate::http::crate_in_path::{NameInPath, VersionInPath};
use crate::http::error::ApiError;
use crate::http::state::RequestState;
use crate::package::Release;

/// How many versions crates.io counts one by one.
const VERSIONS_MAX: usize = 5;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CrateDownloadsQuery {
    /// `versions` adds the five highest versions.
    #[serde(default, deserialize_with = "given")]
    include: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionDownloadsQuery {
    /// The last day of the time to count, as `2026-01-31`.
    #[serde(rename = "before_date", default, deserialize_with = "date")]
    #[param(value_type = Option<String>, format = Date)]
    _before_date: Option<NaiveDate>,
}

/// A date. It is checked, as on crates.io, and makes no difference.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NaiveDate>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

/// The downloads of a crate: none.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct CrateDownloadsAnswer<'a> {
    /// The highest versions, if they are included.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Vec<VersionView<'a>>>,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    version_downloads: [(); 0],
    meta: DownloadsMeta,
}

#[derive(Default, Serialize, ToSchema)]
pub(crate) struct DownloadsMeta {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    extra_downloads: [(); 0],
}

/// The downloads of a version: none.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionDownloadsAnswer {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    version_downloads: [(); 0],
}

/// Lists the downloads of a crate. The mirror counts none.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/downloads",
    tag = "crates",
    params(("name" = String, Path, example = "itoa"), CrateDownloadsQuery),
    responses((status = 200, body = CrateDownloadsAnswer<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_crate_downloads(
    request: RequestState,
    name: NameInPath,
    ApiQuery(query): ApiQuery<CrateDownloadsQuery>,
) -> Result<Response, ApiError> {
    let includes_versions = check_include(query.include.as_deref(), "versions")?;
    let name = name.parse()?;
    if !includes_versions {
        return existing(request, name, None, &CrateDownloadsAnswer::default()).await;
    }
    with_crate(request, name, move |name, history, index| {
        let mut highest: Vec<&Release<'_>> = history.releases().iter().collect();
        highest.sort_by(|left, right| right.precedence_order(left));
        highest.truncate(VERSIONS_MAX);
        let views = highest.into_iter();
        let views = views.map(|release| VersionView::new(release, name.as_str(), index));
        json(&CrateDownloadsAnswer {
            versions: Some(views.collect()),
            ..CrateDownloadsAnswer::default()
        })
    })
    .await
}

/// Lists the downloads of a version. The mirror counts none.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/{version}/downloads",
    tag = "versions",
    params(("name" = String, Path, example = "itoa"), ("version" = String, Path, example = "1.0.0"), VersionDownloadsQuery),
    responses((status = 200, body = VersionDownloadsAnswer, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_version_downloads(
    request: RequestState,
    VersionInPath { name, version }: VersionInPath,
    ApiQuery(_query): ApiQuery<VersionDownloadsQuery>,
) -> Result<Response, ApiError> {
    let none = VersionDownloadsAnswer {
        version_downloads: [],
    };
    existing(request, name, Some(&version), &none).await
}
