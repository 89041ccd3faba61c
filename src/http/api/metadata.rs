//! `GET /api/v1/crates/{name}`, `…/{version}` and `…/{version}/dependencies`.

use std::collections::HashSet;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::{CrateView, DependencyView, Include, VersionView};
use super::look_up::{json, with_crate, with_version};
use super::query::{ApiQuery, given};
use crate::catalog::CrateSummary;
use crate::http::answer_cache::NotYetComplete;
use crate::http::crate_in_path::{NameInPath, VersionInPath};
use crate::http::error::ApiError;
use crate::http::index::index_guard::IndexGuard;
use crate::http::state::RequestState;
use crate::index::BlobId;
use crate::package::CrateName;

/// How many index files one request reads for the published spelling of the dependencies of a version. The others that are
/// not remembered keep the spelling of the index line, which is nearly always the same.
const SPELLINGS_READ_MAX: usize = 32;

/// How many bytes these files may have together.
const SPELLINGS_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CrateQuery {
    /// The parts to include, with commas between them: `versions`, `keywords`, `categories`, `badges`, `downloads`,
    /// `default_version`, or `full` for all, which is the default.
    #[serde(default, deserialize_with = "given")]
    include: Option<String>,
}

/// A crate with its versions.
#[derive(Serialize, ToSchema)]
pub(crate) struct CrateAnswer<'a> {
    #[serde(rename = "crate")]
    krate: CrateView<'a>,
    /// The versions, the latest publish first; null if they are not included.
    versions: Option<Vec<VersionView<'a>>>,
    /// Empty; null if they are not included.
    #[schema(value_type = Option<Vec<Object>>)]
    keywords: Option<[(); 0]>,
    /// Empty; null if they are not included.
    #[schema(value_type = Option<Vec<Object>>)]
    categories: Option<[(); 0]>,
}

/// One version.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionAnswer<'a> {
    version: VersionView<'a>,
}

/// The dependencies of a version.
#[derive(Serialize, ToSchema)]
pub(crate) struct DependenciesAnswer<'a> {
    /// Required ones come first, then by name.
    dependencies: Vec<DependencyView<'a>>,
}

/// Shows a crate with its versions.
///
/// Names match in either case, and with `-` or `_`.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}",
    tag = "crates",
    params(("name" = String, Path, example = "itoa"), CrateQuery),
    responses((status = 200, body = CrateAnswer<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn show_crate(
    request: RequestState,
    name: NameInPath,
    ApiQuery(query): ApiQuery<CrateQuery>,
) -> Result<Response, ApiError> {
    let include = Include::parse(query.include.as_deref())?;
    with_crate(request, name.parse()?, move |_, history, index| {
        let no_version = || ApiError::CrateNotFound(history.name().to_owned());
        let default = history.default_release().ok_or_else(no_version)?;
        let summary = CrateSummary::of(history, default);
        let view = |release| VersionView::new(release, history.name(), index);
        let versions = match include {
            Include { versions: true, .. } => {
                Some(history.releases().iter().rev().map(view).collect())
            }
            Include {
                default_version: true,
                ..
            } => Some(vec![view(default)]),
            _ => None,
        };
        json(&CrateAnswer {
            krate: CrateView::of_file(&summary, history, include),
            versions,
            keywords: include.keywords.then_some([]),
            categories: include.categories.then_some([]),
        })
    })
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

    /// Reads `?include=`, a list with commas. Without it everything is included, for old clients.
    fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let Some(text) = text else {
            return Ok(Self::ALL);
        };
        let mut include = Self::default();
        for part in text.split(',') {
            match part {
                // crates.io has no badges any more, and still allows this.
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

/// Shows a version of a crate.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/{version}",
    tag = "versions",
    params(("name" = String, Path, example = "itoa"), ("version" = String, Path, example = "1.0.0")),
    responses((status = 200, body = VersionAnswer<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn show_version(
    request: RequestState,
    wanted: VersionInPath,
) -> Result<Response, ApiError> {
    with_version(request, wanted, |history, release, index| {
        json(&VersionAnswer {
            version: VersionView::new(release, history.name(), index),
        })
    })
    .await
}

/// Lists the dependencies of a version.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/{version}/dependencies",
    tag = "versions",
    params(("name" = String, Path, example = "itoa"), ("version" = String, Path, example = "1.0.0")),
    responses((status = 200, body = DependenciesAnswer<'_>, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_dependencies(
    request: RequestState,
    wanted: VersionInPath,
) -> Result<Response, ApiError> {
    with_version(request, wanted, |_, release, index| {
        let mut spellings = Spellings::new(index);
        let mut dependencies = Vec::with_capacity(release.line.dependencies.len());
        for (place, dependency) in release.line.dependencies.iter().enumerate() {
            let name = spellings.published(dependency.crate_name());
            dependencies.push(DependencyView::new(release, place, dependency, name));
        }
        dependencies.sort_by(|left, right| left.order().cmp(&right.order()));
        let mut answer = json(&DependenciesAnswer { dependencies })?;
        if spellings.is_cut {
            answer.extensions_mut().insert(NotYetComplete);
        }
        Ok(answer)
    })
    .await
}

/// The names of crates as in their own index files, as far as one request may read those.
struct Spellings<'a> {
    index: &'a IndexGuard,
    /// Files that could not be read. A version can depend on a crate several times.
    failed: HashSet<BlobId>,
    reads_left: usize,
    bytes_left: u64,
    /// Whether a name was not looked up, because of these limits or because its file could not be read.
    is_cut: bool,
}

impl<'a> Spellings<'a> {
    fn new(index: &'a IndexGuard) -> Self {
        Self {
            index,
            failed: HashSet::new(),
            reads_left: SPELLINGS_READ_MAX,
            bytes_left: SPELLINGS_BYTES_MAX,
            is_cut: false,
        }
    }

    /// The published name. A crate that the index does not list, or whose file cannot be read, keeps the spelling given.
    fn published(&mut self, name: &str) -> String {
        self.look_up(name).unwrap_or_else(|| name.to_owned())
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let name = CrateName::try_from(name.to_owned()).ok()?;
        let blob = self.index.find(&name).ok()?;
        let names = &self.index.state.published_names;
        if let Some(spelling) = names.get(&blob) {
            return Some(spelling.as_ref().to_owned());
        }
        if self.failed.contains(&blob) {
            return None;
        }
        let spelling = self.read(&name, blob);
        match &spelling {
            Some(spelling) => names.insert(blob, spelling.as_str().into()),
            None => {
                self.is_cut = true;
                self.failed.insert(blob);
            }
        }
        spelling
    }

    fn read(&mut self, name: &CrateName, blob: BlobId) -> Option<String> {
        let reads_left = self.reads_left.checked_sub(1)?;
        let bytes = self.index.bytes_of(blob)?;
        self.bytes_left = self.bytes_left.checked_sub(bytes)?;
        self.reads_left = reads_left;
        self.index.published_name(name, blob)
    }
}
