//! `GET /api/v1/crates/{name}`, `…/{version}` and `…/{version}/dependencies`.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::json::{CrateView, DependencyView, Include, VersionView};
use crate::http::crate_files::download::{parse, parse_name};
use crate::http::error::ApiError;
use crate::http::index_answer::{self, Lookup, json};
use crate::http::state::AppState;
use crate::package::CrateName;
use crate::server::Exchange;

/// How many index files one request reads for the published spelling of what a version depends on. For more than these, and
/// than are remembered, the spelling of the index line is given, which is nearly always the same.
const SPELLINGS_READ_MAX: usize = 32;

/// How many bytes they may have together.
const SPELLINGS_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Deserialize)]
pub(crate) struct CrateQuery {
    include: Option<String>,
}

/// A crate with its versions.
pub(crate) async fn show_crate(
    State(state): State<AppState>,
    Extension(exchange): Extension<Exchange>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<CrateQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(rename = "crate")]
        krate: CrateView<'a>,
        versions: Option<Vec<VersionView<'a>>>,
        keywords: Option<[(); 0]>,
        categories: Option<[(); 0]>,
    }

    let Path(name) = path?;
    let include = Include::parse(
        query
            .map_err(|bad| ApiError::BadRequest(bad.body_text()))?
            .0
            .include
            .as_deref(),
    )?;
    index_answer::with_crate(
        &state,
        &exchange,
        parse_name(name)?,
        move |_, history, _| {
            let view = |release| VersionView::new(release, history.name());
            let versions = match include {
                Include { versions: true, .. } => {
                    Some(history.releases().iter().rev().map(view).collect())
                }
                Include {
                    default_version: true,
                    ..
                } => Some(history.default_release().into_iter().map(view).collect()),
                _ => None,
            };
            json(&Answer {
                krate: CrateView::new(history, include),
                versions,
                keywords: include.keywords.then_some([]),
                categories: include.categories.then_some([]),
            })
        },
    )
    .await
}

impl Include {
    const ALL: Self = Self {
        versions: true,
        keywords: true,
        categories: true,
        downloads: true,
        default_version: true,
    };
    const NOTHING: Self = Self {
        versions: false,
        keywords: false,
        categories: false,
        downloads: false,
        default_version: false,
    };

    /// Reads `?include=`: a list with commas. Without it everything is included, for the sake of old clients.
    fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let Some(text) = text else {
            return Ok(Self::ALL);
        };
        let mut include = Self::NOTHING;
        for part in text.split(',') {
            match part {
                // Badges are gone from crates.io; asking for them is still allowed.
                "" | "badges" => {}
                "full" => include = Self::ALL,
                "versions" => include.versions = true,
                "keywords" => include.keywords = true,
                "categories" => include.categories = true,
                "downloads" => include.downloads = true,
                "default_version" => include.default_version = true,
                _ => {
                    return Err(ApiError::BadRequest(
                        "invalid component for ?include= (expected 'versions', 'keywords', 'categories', 'badges', \
                         'downloads', 'default_version', or 'full')"
                            .to_owned(),
                    ));
                }
            }
        }
        Ok(include)
    }
}

/// One version of a crate.
pub(crate) async fn show_version(
    State(state): State<AppState>,
    Extension(exchange): Extension<Exchange>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        version: VersionView<'a>,
    }

    let Path((name, version)) = path?;
    let wanted = parse(name, version)?;
    index_answer::with_version(&state, &exchange, wanted, |history, release, _| {
        json(&Answer {
            version: VersionView::new(release, history.name()),
        })
    })
    .await
}

/// What one version of a crate depends on.
pub(crate) async fn list_dependencies(
    State(state): State<AppState>,
    Extension(exchange): Extension<Exchange>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        dependencies: Vec<DependencyView<'a>>,
    }

    let Path((name, version)) = path?;
    let wanted = parse(name, version)?;
    index_answer::with_version(&state, &exchange, wanted, |_, release, lookup| {
        let mut spellings = Spellings::new(lookup);
        let mut dependencies = Vec::with_capacity(release.line.dependencies.len());
        for (place, dependency) in release.line.dependencies.iter().enumerate() {
            let name = spellings.published(&dependency.crate_name);
            dependencies.push(DependencyView::new(release, place, dependency, name));
        }
        dependencies.sort_by(|left, right| left.order().cmp(&right.order()));
        json(&Answer { dependencies })
    })
    .await
}

/// The names of crates as their own index files have them, as far as one request may read those.
struct Spellings<'a> {
    lookup: &'a Lookup,
    known: HashMap<String, String>,
    reads_left: usize,
    bytes_left: u64,
}

impl<'a> Spellings<'a> {
    fn new(lookup: &'a Lookup) -> Self {
        Self {
            lookup,
            known: HashMap::new(),
            reads_left: SPELLINGS_READ_MAX,
            bytes_left: SPELLINGS_BYTES_MAX,
        }
    }

    /// The published name. A crate that the index does not list, or whose file cannot be read, keeps the spelling given.
    fn published(&mut self, name: &str) -> String {
        if let Some(spelling) = self.known.get(name) {
            return spelling.clone();
        }
        let spelling = self.look_up(name).unwrap_or_else(|| name.to_owned());
        self.known.insert(name.to_owned(), spelling.clone());
        spelling
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let name = CrateName::try_from(name.to_owned()).ok()?;
        let blob = self.lookup.find(&name)?;
        let names = &self.lookup.published_names;
        if let Some(spelling) = names.get(&blob) {
            return Some(spelling.as_ref().to_owned());
        }
        self.reads_left = self.reads_left.checked_sub(1)?;
        let bytes = self.lookup.bytes_of(blob)?;
        self.bytes_left = self.bytes_left.checked_sub(bytes)?;
        let spelling = self.lookup.published_name(&name, blob)?;
        names.insert(blob, spelling.as_str().into());
        Some(spelling)
    }
}
