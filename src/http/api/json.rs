//! The JSON objects of crates.io's web API, in its order of fields.
//!
//! A field that does not follow from the index is null, zero or empty, as protocol and types demand.

use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::CrateSummary;
use crate::http::index::index_guard::IndexGuard;
use crate::package::{CrateHistory, Features, IndexDependency, Release, Timestamp};

/// crates.io's answer for a crate without a version that counts.
const NO_VERSION: &str = "0.0.0";

/// crates.io's `Crate`. A field of which the index does not tell is null, 0 or empty.
#[derive(Serialize, ToSchema)]
#[schema(as = Crate)]
pub(crate) struct CrateView<'a> {
    /// The published name.
    id: &'a str,
    /// The published name.
    name: &'a str,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// The ids of the versions, the latest publish first; null if they are not included.
    versions: Option<Vec<i32>>,
    #[schema(value_type = Option<Vec<String>>)]
    keywords: Option<[&'a str; 0]>,
    #[schema(value_type = Option<Vec<String>>)]
    categories: Option<[&'a str; 0]>,
    #[schema(value_type = Vec<String>)]
    badges: [&'a str; 0],
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    downloads: u64,
    recent_downloads: Option<u64>,
    default_version: Option<&'a str>,
    num_versions: usize,
    yanked: bool,
    max_version: &'a str,
    newest_version: &'a str,
    max_stable_version: Option<&'a str>,
    description: Option<&'a str>,
    homepage: Option<&'a str>,
    documentation: Option<&'a str>,
    repository: Option<&'a str>,
    links: CrateLinks,
    exact_match: bool,
    trustpub_only: bool,
}

/// Paths of further answers about a crate.
#[derive(Serialize, ToSchema)]
struct CrateLinks {
    version_downloads: String,
    versions: Option<String>,
    owners: String,
    owner_team: String,
    owner_user: String,
    reverse_dependencies: String,
}

/// The parts of a crate that a client wants to see (`?include=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the parts of an answer are independent of each other"
)]
pub(crate) struct Include {
    pub(crate) versions: bool,
    pub(crate) keywords: bool,
    pub(crate) categories: bool,
    pub(crate) downloads: bool,
    pub(crate) default_version: bool,
}

impl<'a> CrateView<'a> {
    /// A crate by its index file.
    pub(crate) fn of_file(
        summary: &'a CrateSummary,
        history: &CrateHistory<'_>,
        include: Include,
    ) -> Self {
        let mut view = Self {
            keywords: include.keywords.then_some([]),
            categories: include.categories.then_some([]),
            recent_downloads: include.downloads.then_some(0),
            ..Self::in_list(summary, false)
        };
        if include.versions {
            let releases = history.releases().iter().rev();
            view.versions = Some(releases.map(|release| release.id).collect());
            view.links.versions = None;
        } else {
            // A quirk of crates.io: without the versions it does not look for the highest of them.
            view.max_version = NO_VERSION;
            view.newest_version = NO_VERSION;
            view.max_stable_version = None;
        }
        view
    }

    /// A crate in a list.
    pub(crate) fn in_list(summary: &'a CrateSummary, is_exact: bool) -> Self {
        let name = summary.name.as_str();
        let path = |rest: &str| format!("/api/v1/crates/{name}/{rest}");
        Self {
            id: name,
            name,
            updated_at: summary.updated_at.clone(),
            versions: None,
            keywords: None,
            categories: None,
            badges: [],
            created_at: summary.created_at.clone(),
            downloads: 0,
            recent_downloads: Some(0),
            default_version: Some(&summary.default_version),
            num_versions: usize::try_from(summary.num_versions).unwrap_or(usize::MAX),
            yanked: summary.is_yanked,
            max_version: summary.max_version.as_deref().unwrap_or(NO_VERSION),
            newest_version: summary.newest_version.as_deref().unwrap_or(NO_VERSION),
            max_stable_version: summary.max_stable_version.as_deref(),
            description: None,
            homepage: None,
            documentation: None,
            repository: None,
            links: CrateLinks {
                version_downloads: path("downloads"),
                versions: Some(path("versions")),
                owners: path("owners"),
                owner_team: path("owner_team"),
                owner_user: path("owner_user"),
                reverse_dependencies: path("reverse_dependencies"),
            },
            exact_match: is_exact,
            trustpub_only: false,
        }
    }
}

/// crates.io's `Version`. A field of which the index does not tell is null, 0 or empty.
#[derive(Serialize, ToSchema)]
#[schema(as = Version)]
pub(crate) struct VersionView<'a> {
    /// Unique in its crate, and rises in publish order.
    id: i32,
    /// The published name; at some endpoints the name as it was asked for.
    #[serde(rename = "crate")]
    crate_name: &'a str,
    num: &'a str,
    dl_path: String,
    readme_path: String,
    #[schema(value_type = String, format = DateTime)]
    updated_at: &'a Timestamp,
    #[schema(value_type = String, format = DateTime)]
    created_at: &'a Timestamp,
    downloads: u64,
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    features: Features<'a>,
    yanked: bool,
    /// Why the mirror's policy shows it as yanked, if it does.
    yank_message: Option<String>,
    lib_links: Option<&'a str>,
    license: Option<&'a str>,
    links: VersionLinks,
    /// The size of the crate file in bytes, if the mirror has it on its disk; otherwise 0.
    crate_size: u64,
    #[schema(value_type = Option<Object>)]
    published_by: Option<()>,
    #[schema(value_type = Vec<Object>)]
    audit_actions: [(); 0],
    checksum: &'a str,
    rust_version: Option<&'a str>,
    has_lib: Option<bool>,
    bin_names: Option<Vec<&'a str>>,
    edition: Option<&'a str>,
    description: Option<&'a str>,
    homepage: Option<&'a str>,
    documentation: Option<&'a str>,
    repository: Option<&'a str>,
    #[schema(value_type = Option<Object>)]
    trustpub_data: Option<()>,
    #[schema(value_type = Option<Object>)]
    linecounts: Option<()>,
}

/// Paths of further answers about a version.
#[derive(Serialize, ToSchema)]
struct VersionLinks {
    dependencies: String,
    version_downloads: String,
    authors: String,
}

impl<'a> VersionView<'a> {
    /// `crate_name` is the name of the crate in the answer: its published name, or at some endpoints the name as typed.
    /// Blocking: it looks for the crate file.
    pub(crate) fn new(release: &'a Release<'_>, crate_name: &'a str, index: &IndexGuard) -> Self {
        let num = release.version().as_str();
        let path = |rest: &str| format!("/api/v1/crates/{crate_name}/{num}/{rest}");
        Self {
            id: release.id,
            crate_name,
            num,
            dl_path: path("download"),
            readme_path: path("readme"),
            updated_at: &release.published_at,
            created_at: &release.published_at,
            downloads: 0,
            features: release.line.features(),
            yanked: release.line.yanked,
            yank_message: index.yank_message(num),
            lib_links: release.line.links.as_deref(),
            license: None,
            links: VersionLinks {
                dependencies: path("dependencies"),
                version_downloads: path("downloads"),
                authors: path("authors"),
            },
            crate_size: index.crate_size(&release.line),
            published_by: None,
            audit_actions: [],
            checksum: &release.line.cksum,
            rust_version: release.line.rust_version.as_deref(),
            has_lib: None,
            bin_names: None,
            edition: None,
            description: None,
            homepage: None,
            documentation: None,
            repository: None,
            trustpub_data: None,
            linecounts: None,
        }
    }
}

/// crates.io's `Dependency`.
#[derive(Serialize, ToSchema)]
#[schema(as = Dependency)]
pub(crate) struct DependencyView<'a> {
    id: usize,
    version_id: i32,
    crate_id: String,
    /// The version requirement.
    req: &'a str,
    optional: bool,
    default_features: bool,
    features: &'a [String],
    target: Option<&'a str>,
    kind: &'static str,
    downloads: u64,
}

impl<'a> DependencyView<'a> {
    /// `place` is the dependency's place on its line; `crate_id` is the published name of the dependency.
    pub(crate) fn new(
        release: &Release<'_>,
        place: usize,
        dependency: &'a IndexDependency,
        crate_id: String,
    ) -> Self {
        Self {
            id: release.dependencies_before + place + 1,
            version_id: release.id,
            crate_id,
            req: &dependency.req,
            optional: dependency.optional,
            default_features: dependency.default_features,
            features: &dependency.features,
            target: dependency.target.as_deref(),
            kind: dependency.kind(),
            downloads: 0,
        }
    }

    /// The order of `…/dependencies`: required ones first, then by name.
    pub(crate) fn order(&self) -> (bool, &str) {
        (self.optional, &self.crate_id)
    }
}
