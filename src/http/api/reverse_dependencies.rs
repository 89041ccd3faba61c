//! `GET /api/v1/crates/{name}/reverse_dependencies`: the crates that depend on a crate.
//!
//! The catalog knows which crates these are. Their versions and dependencies are read from their index files in the same
//! view, one file at a time.

use std::sync::Arc;

use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::json::{DependencyView, VersionView};
use super::look_up::{LOOK_UP_FACTOR, json};
use super::pages::{PAGE_MAX, PageKinds, PageQuery};
use super::query::ApiQuery;
use crate::catalog::Dependent;
use crate::http::crate_in_path::NameInPath;
use crate::http::error::ApiError;
use crate::http::index::index_guard::IndexGuard;
use crate::http::state::RequestState;
use crate::package::{CrateHistory, CrateName, canonical_order};

/// Dependencies on a crate, and the versions that have them.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReverseDependenciesAnswer {
    /// One for each crate that depends on this one.
    #[schema(value_type = Vec<DependencyView<'_>>)]
    dependencies: Vec<Box<RawValue>>,
    /// The versions that `version_id` of the dependencies names, by id.
    #[schema(value_type = Vec<VersionView<'_>>)]
    versions: Vec<Box<RawValue>>,
    meta: Total,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Total {
    /// The number of dependencies on all pages; 0 if this page is empty.
    total: usize,
}

/// Lists the crates whose default version depends on this crate.
///
/// A crate counts if its default version is not yanked. The latest crates come first, because no crate has downloads.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/reverse_dependencies",
    tag = "crates",
    params(("name" = String, Path, example = "itoa"), PageQuery),
    responses((status = 200, body = ReverseDependenciesAnswer, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_reverse_dependencies(
    request: RequestState,
    name: NameInPath,
    ApiQuery(pages): ApiQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let page = pages.check(PageKinds {
        page_max: Some(PAGE_MAX),
        seek: false,
    })?;
    let name = name.parse()?;
    let mut index = IndexGuard::take(request)?;
    // A crate that does not exist needs no catalog.
    if let Err(error) = index.find(&name) {
        return Ok(index.mark(Err(error)));
    }
    let (skip, limit) = (page.skip(), page.per_page);
    let catalog = &index.state.catalog;
    let found = catalog.dependents(name.clone(), skip, limit).await?;
    index.view = found.view;
    let Some(crate_name) = found.crate_name else {
        return Ok(index.mark(Err(ApiError::CrateNotFound(name.to_string()))));
    };
    let names = found.dependents.iter().map(|found| found.name.as_str());
    index.count_list(names);
    let answer = answer(&index, found.dependents, crate_name.into(), found.total).await;
    Ok(index.mark_repeatable(answer))
}

/// The answer. Its rows are serialised on blocking threads.
async fn answer(
    index: &IndexGuard,
    dependents: Vec<Dependent>,
    crate_name: Arc<str>,
    total: usize,
) -> Result<Response, ApiError> {
    let (mut dependencies, mut versions) = (Vec::new(), Vec::new());
    for dependent in dependents {
        let name = CrateName::try_from(dependent.name.clone()).ok();
        let Some((name, blob)) =
            name.and_then(|name| index.find(&name).ok().map(|blob| (name, blob)))
        else {
            continue;
        };
        let (crate_name, for_size) = (Arc::clone(&crate_name), index.clone());
        let read = move |file: &[u8]| {
            let history = CrateHistory::parse(file, &name)?;
            row(&history, &dependent, &crate_name, &for_size)
        };
        let permits = &index.state.look_up_permits;
        let row = index.read(blob, permits, LOOK_UP_FACTOR, || None, read);
        // The share of a large file ends here. The answer has a share of its own.
        let row = match row.await {
            Ok((row, _share)) => row,
            // The mirror serves all files but this one, and the answer is about many.
            Err(ApiError::IndexFileRefused(_)) => None,
            Err(error) => return Err(error),
        };
        if let Some((id, version, dependency)) = row {
            let bytes = (version.get().len() + dependency.get().len()) as u64;
            // Twice: these pieces, and the answer that they become.
            let account = &index.state.account;
            account.keep(&index.exchange, 2 * bytes).await?;
            versions.push((id, version));
            dependencies.push(dependency);
        }
    }
    versions.sort_by_key(|(id, _version)| *id);
    json(&ReverseDependenciesAnswer {
        meta: Total {
            total: if dependencies.is_empty() { 0 } else { total },
        },
        dependencies,
        versions: versions.into_iter().map(|(_id, version)| version).collect(),
    })
}

/// The id of a dependent's version, the version, and its first dependency on the crate.
fn row(
    history: &CrateHistory<'_>,
    dependent: &Dependent,
    crate_name: &str,
    index: &IndexGuard,
) -> Option<(i32, Box<RawValue>, Box<RawValue>)> {
    let mut releases = history.releases().iter();
    let release = releases.find(|release| release.version().as_str() == dependent.version)?;
    let mut dependencies = release.line.dependencies.iter().enumerate();
    let (place, dependency) = dependencies.find(|(_place, dependency)| {
        canonical_order(dependency.crate_name(), crate_name).is_eq()
    })?;
    let version = VersionView::new(release, history.name(), index);
    let dependency = DependencyView::new(release, place, dependency, crate_name.to_owned());
    Some((
        release.id,
        serde_json::value::to_raw_value(&version).ok()?,
        serde_json::value::to_raw_value(&dependency).ok()?,
    ))
}
