//! `GET /api/v1/crates/{name}/versions`: sorted, filtered, and in pages on request.

use std::collections::BTreeMap;

use axum::extract::RawQuery;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::VersionView;
use super::look_up::{json, with_crate};
use super::pages::{
    PageKinds, PageQuery, PageRequest, PageStart, query_with, read_seek_token, token,
};
use super::query::{ApiQuery, check_include, given};
use crate::http::crate_in_path::NameInPath;
use crate::http::error::ApiError;
use crate::http::state::RequestState;
use crate::package::{CrateHistory, Release};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionsQuery {
    /// `release_tracks` adds the highest version of each track to `meta`.
    #[serde(default, deserialize_with = "given")]
    include: Option<String>,
    /// `semver`, which is the default, or `date`. The highest or the latest version comes first.
    #[serde(default, deserialize_with = "given")]
    sort: Option<String>,
    /// Only versions with exactly these numbers.
    #[serde(rename = "nums[]", default)]
    #[param(required = false)]
    nums: Vec<String>,
}

/// Versions of a crate.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionsAnswer<'a> {
    versions: Vec<VersionView<'a>>,
    meta: VersionsMeta<'a>,
}

/// What there is besides these versions.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionsMeta<'a> {
    /// The number of versions on all pages; 0 if this page is empty.
    total: usize,
    /// The query string of the next page; null if this one is not full.
    next_page: Option<String>,
    /// The highest stable version of each track, if they are included: `1`, `0.5` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Track<'_>>>)]
    release_tracks: Option<Tracks<'a>>,
}

/// Lists the versions of a crate.
///
/// There are pages only with `per_page`. The field `crate` has the name as it was asked for.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/versions",
    tag = "versions",
    params(("name" = String, Path, example = "itoa"), VersionsQuery, PageQuery),
    responses((status = 200, body = VersionsAnswer<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_versions(
    request: RequestState,
    name: NameInPath,
    ApiQuery(query): ApiQuery<VersionsQuery>,
    ApiQuery(pages): ApiQuery<PageQuery>,
    RawQuery(raw_query): RawQuery,
) -> Result<Response, ApiError> {
    let options = Options::read(&query, pages)?;
    with_crate(request, name.parse()?, move |name, history, index| {
        let is_wanted = |release: &&Release<'_>| {
            let num = release.version().as_str();
            query.nums.is_empty() || query.nums.iter().any(|wanted| wanted == num)
        };
        let mut releases: Vec<&Release<'_>> = history.releases().iter().filter(is_wanted).collect();
        options.sort.apply(&mut releases);
        let page = options.page(&releases);
        json(&VersionsAnswer {
            meta: VersionsMeta {
                total: if page.is_empty() { 0 } else { releases.len() },
                next_page: options.next_page(page, raw_query.as_deref().unwrap_or_default()),
                release_tracks: options.release_tracks.then(|| Tracks::of(history)),
            },
            versions: page
                .iter()
                .map(|release| VersionView::new(release, name.as_str(), index))
                .collect(),
        })
    })
    .await
}

/// The query, checked.
struct Options {
    sort: Sort,
    /// `None` for all versions on one page.
    page: Option<PageRequest>,
    after: Option<Seek>,
    release_tracks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Semver,
    Date,
}

/// The last version of the page before, as in the token of crates.io.
#[derive(Serialize)]
#[serde(untagged)]
enum Seek {
    Semver(i32),
    Date(i64, i32),
}

impl Options {
    fn read(query: &VersionsQuery, pages: PageQuery) -> Result<Self, ApiError> {
        let sort = match &query.sort {
            Some(sort) if sort.eq_ignore_ascii_case("date") => Sort::Date,
            _ => Sort::Semver,
        };
        let release_tracks = check_include(query.include.as_deref(), "release_tracks")?;
        // For old clients there are pages only if the query gives their size.
        let page = pages.per_page.is_some().then(|| {
            pages.check(PageKinds {
                page_max: None,
                seek: true,
            })
        });
        let page = page.transpose()?;
        let after = match page.as_ref().map(|page| &page.start) {
            Some(PageStart::After(token)) => Some(Seek::read(sort, token)?),
            _ => None,
        };
        Ok(Self {
            sort,
            page,
            after,
            release_tracks,
        })
    }

    fn page<'a, 'b>(&self, releases: &'a [&'b Release<'b>]) -> &'a [&'b Release<'b>] {
        let Some(page) = &self.page else {
            return releases;
        };
        let start = self
            .after
            .as_ref()
            .map_or(0, |after| after.position_in(releases));
        let rest = releases.get(start..).unwrap_or_default();
        rest.get(..page.per_page).unwrap_or(rest)
    }

    /// The query of the next page.
    fn next_page(&self, page: &[&Release<'_>], query: &str) -> Option<String> {
        let request = self.page.as_ref()?;
        let last = page.last().filter(|_| request.is_full(page.len()))?;
        let token = token(&Seek::of(self.sort, last));
        Some(query_with(query, "seek", &token))
    }
}

impl Sort {
    /// The newest first, or the highest.
    fn apply(self, releases: &mut [&Release<'_>]) {
        match self {
            Self::Semver => releases.sort_by(|left, right| right.precedence_order(left)),
            Self::Date => releases.sort_by_key(|release| std::cmp::Reverse(date_key(release))),
        }
    }
}

fn date_key(release: &Release<'_>) -> (i64, i32) {
    (
        release
            .published_at
            .unix_seconds()
            .saturating_mul(1_000_000),
        release.id,
    )
}

impl Seek {
    fn of(sort: Sort, release: &Release<'_>) -> Self {
        match (sort, date_key(release)) {
            (Sort::Semver, (_, id)) => Self::Semver(id),
            (Sort::Date, (microseconds, id)) => Self::Date(microseconds, id),
        }
    }

    fn read(sort: Sort, token: &str) -> Result<Self, ApiError> {
        match sort {
            Sort::Semver => read_seek_token(token).map(Self::Semver),
            Sort::Date => read_seek_token(token).map(|(time, id)| Self::Date(time, id)),
        }
    }

    /// Where the page after this place begins.
    fn position_in(&self, releases: &[&Release<'_>]) -> usize {
        match *self {
            Self::Semver(id) => {
                let at = releases.iter().position(|release| release.id == id);
                at.map_or(releases.len(), |at| at + 1)
            }
            Self::Date(microseconds, id) => {
                releases.partition_point(|release| date_key(release) >= (microseconds, id))
            }
        }
    }
}

/// Versions that are compatible with each other.
#[derive(Serialize, ToSchema)]
pub(crate) struct Track<'a> {
    /// The highest one.
    highest: &'a str,
}

/// The highest stable version of each track: `1`, `0.5` and so on, the highest track first.
struct Tracks<'a>(BTreeMap<std::cmp::Reverse<(u64, Option<u64>)>, &'a Release<'a>>);

impl<'a> Tracks<'a> {
    fn of(history: &'a CrateHistory<'_>) -> Self {
        let mut tracks = BTreeMap::new();
        for release in history
            .visible()
            .filter(|release| !release.version().is_prerelease())
        {
            let version = release.version().semver();
            let track = (version.major, (version.major == 0).then_some(version.minor));
            let highest: &mut &Release<'_> =
                tracks.entry(std::cmp::Reverse(track)).or_insert(release);
            if release.precedence_order(highest).is_gt() {
                *highest = release;
            }
        }
        Self(tracks)
    }
}

impl Serialize for Tracks<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|(std::cmp::Reverse((major, minor)), release)| {
                    let name =
                        minor.map_or_else(|| major.to_string(), |minor| format!("{major}.{minor}"));
                    let highest = release.version().as_str();
                    (name, Track { highest })
                }),
        )
    }
}
