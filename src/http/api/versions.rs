//! `GET /api/v1/crates/{name}/versions`: sorted, filtered, and in pages on request.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum_extra::extract::{Query, QueryRejection};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::json::VersionView;
use super::look_up::{json, with_crate};
use crate::http::crate_in_path::parse_name;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::package::{CrateHistory, Release};
use crate::server::Exchange;

/// The most versions on one page.
const PER_PAGE_MAX: u32 = 100;

#[derive(Deserialize)]
pub(crate) struct VersionsQuery {
    include: Option<String>,
    sort: Option<String>,
    #[serde(rename = "nums[]", default)]
    nums: Vec<String>,
    page: Option<NonZeroU32>,
    per_page: Option<NonZeroU32>,
    seek: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    versions: Vec<VersionView<'a>>,
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct Meta<'a> {
    total: usize,
    next_page: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release_tracks: Option<Tracks<'a>>,
}

/// The versions of a crate. `VersionView::crate` echoes the name as typed here, as on crates.io.
pub(crate) async fn list_versions(
    State(state): State<Arc<AppState>>,
    Extension(exchange): Extension<Exchange>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<VersionsQuery>, QueryRejection>,
    RawQuery(raw_query): RawQuery,
) -> Result<Response, ApiError> {
    let Path(name) = path?;
    let Query(query) = query.map_err(|bad| ApiError::BadRequest(bad.body_text()))?;
    let options = Options::read(&query)?;
    with_crate(
        &state,
        &exchange,
        parse_name(name)?,
        move |name, history| {
            let is_wanted = |release: &&Release<'_>| {
                let num = release.version().as_str();
                query.nums.is_empty() || query.nums.iter().any(|wanted| wanted == num)
            };
            let mut releases: Vec<&Release<'_>> =
                history.releases().iter().filter(is_wanted).collect();
            options.sort.apply(&mut releases);
            let page = options.page(&releases);
            json(&Answer {
                meta: Meta {
                    total: if page.is_empty() { 0 } else { releases.len() },
                    next_page: options.next_page(page, raw_query.as_deref().unwrap_or_default()),
                    release_tracks: options.release_tracks.then(|| Tracks::of(history)),
                },
                versions: page
                    .iter()
                    .map(|release| VersionView::new(release, name.as_str()))
                    .collect(),
            })
        },
    )
    .await
}

/// The query, checked.
struct Options {
    sort: Sort,
    /// How many versions to a page; `None` for all on one.
    per_page: Option<usize>,
    after: Option<Seek>,
    release_tracks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Semver,
    Date,
}

/// The last version of the page before, as in the token of crates.io. Clients do not look inside.
enum Seek {
    Semver(i32),
    Date(i64, i32),
}

impl Options {
    fn read(query: &VersionsQuery) -> Result<Self, ApiError> {
        let bad = |text: &str| Err(ApiError::BadRequest(text.to_owned()));
        let sort = match &query.sort {
            Some(sort) if sort.eq_ignore_ascii_case("date") => Sort::Date,
            _ => Sort::Semver,
        };
        let release_tracks = match query.include.as_deref() {
            None => false,
            Some(include) => {
                if include
                    .split(',')
                    .any(|part| !matches!(part, "" | "release_tracks"))
                {
                    return bad("invalid component for ?include= (expected 'release_tracks')");
                }
                include.contains("release_tracks")
            }
        };
        let mut options = Self {
            sort,
            per_page: None,
            after: None,
            release_tracks,
        };
        // For old clients there are pages only if the query gives their size.
        let Some(per_page) = query.per_page else {
            return Ok(options);
        };
        match (query.page, &query.seek) {
            (Some(_), Some(_)) => return bad("providing both ?page= and ?seek= is unsupported"),
            (Some(_), None) => return bad("?page= is not supported for this request"),
            (None, seek) => {
                options.after = seek
                    .as_deref()
                    .map(|token| Seek::decode(sort, token))
                    .transpose()?;
            }
        }
        if per_page.get() > PER_PAGE_MAX {
            return bad("cannot request more than 100 items");
        }
        options.per_page = usize::try_from(per_page.get()).ok();
        Ok(options)
    }

    fn page<'a, 'b>(&self, releases: &'a [&'b Release<'b>]) -> &'a [&'b Release<'b>] {
        let Some(per_page) = self.per_page else {
            return releases;
        };
        let start = self
            .after
            .as_ref()
            .map_or(0, |after| after.position_in(releases));
        let rest = releases.get(start..).unwrap_or_default();
        rest.get(..per_page).unwrap_or(rest)
    }

    /// The query of the next page. There is one if this page is full, even if nothing comes after it.
    fn next_page(&self, page: &[&Release<'_>], query: &str) -> Option<String> {
        let last = page.last().filter(|_| Some(page.len()) == self.per_page)?;
        let token = Seek::of(self.sort, last).encode();
        let mut next = form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
        next.extend_pairs(
            form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key != "seek"),
        );
        Some(next.append_pair("seek", &token).finish())
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

    fn encode(&self) -> String {
        let json = match self {
            Self::Semver(id) => id.to_string(),
            Self::Date(microseconds, id) => format!("[{microseconds},{id}]"),
        };
        URL_SAFE_NO_PAD.encode(json)
    }

    fn decode(sort: Sort, token: &str) -> Result<Self, ApiError> {
        fn read<T: DeserializeOwned>(token: &str) -> Option<T> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()
        }
        let seek = match sort {
            Sort::Semver => read(token).map(Self::Semver),
            Sort::Date => read(token).map(|(microseconds, id)| Self::Date(microseconds, id)),
        };
        seek.ok_or_else(|| ApiError::BadRequest("invalid seek parameter".to_owned()))
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
        #[derive(Serialize)]
        struct Track<'a> {
            highest: &'a str,
        }

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
