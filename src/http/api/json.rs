//! The JSON objects of crates.io's web API, in its order of fields.
//!
//! A field that does not follow from the index is null, zero or empty, as protocol and types demand.

use serde::Serialize;

use crate::package::{CrateHistory, Features, IndexDependency, Release, Timestamp};

/// crates.io's answer for a crate without a version that counts.
const NO_VERSION: &str = "0.0.0";

/// Always null on the mirror, because the index does not say it.
type Unknown = Option<()>;

/// crates.io's `Crate`.
#[derive(Serialize)]
pub(crate) struct CrateView<'a> {
    id: &'a str,
    name: &'a str,
    updated_at: Timestamp,
    versions: Option<Vec<i32>>,
    keywords: Option<[&'a str; 0]>,
    categories: Option<[&'a str; 0]>,
    badges: [&'a str; 0],
    created_at: Timestamp,
    downloads: u64,
    recent_downloads: Option<u64>,
    default_version: Option<&'a str>,
    num_versions: usize,
    yanked: bool,
    max_version: &'a str,
    newest_version: &'a str,
    max_stable_version: Option<&'a str>,
    description: Unknown,
    homepage: Unknown,
    documentation: Unknown,
    repository: Unknown,
    links: CrateLinks,
    exact_match: bool,
    trustpub_only: bool,
}

#[derive(Serialize)]
struct CrateLinks {
    version_downloads: String,
    versions: Option<String>,
    owners: String,
    owner_team: String,
    owner_user: String,
    reverse_dependencies: String,
}

/// The parts of a crate that a client wants to see (`?include=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(crate) fn new(history: &'a CrateHistory<'_>, include: Include) -> Self {
        let name = history.name();
        let path = |rest: &str| format!("/api/v1/crates/{name}/{rest}");
        let default = history.default_release();
        // A quirk of crates.io: without the versions it does not look for the highest of them.
        let visible = include.versions.then_some(history);
        let text = |version: &'a crate::package::CrateVersion| version.as_str();
        Self {
            id: name,
            name,
            updated_at: history.updated_at(),
            versions: visible.map(|history| {
                history
                    .releases()
                    .iter()
                    .rev()
                    .map(|release| release.id)
                    .collect()
            }),
            keywords: include.keywords.then_some([]),
            categories: include.categories.then_some([]),
            badges: [],
            created_at: history.created_at(),
            downloads: 0,
            recent_downloads: include.downloads.then_some(0),
            default_version: default.map(|release| release.version().as_str()),
            num_versions: history.releases().len(),
            yanked: default.is_some_and(|release| release.line.yanked),
            max_version: visible
                .and_then(CrateHistory::max_version)
                .map_or(NO_VERSION, text),
            newest_version: visible
                .and_then(CrateHistory::newest_version)
                .map_or(NO_VERSION, text),
            max_stable_version: visible.and_then(CrateHistory::max_stable_version).map(text),
            description: None,
            homepage: None,
            documentation: None,
            repository: None,
            links: CrateLinks {
                version_downloads: path("downloads"),
                versions: (!include.versions).then(|| path("versions")),
                owners: path("owners"),
                owner_team: path("owner_team"),
                owner_user: path("owner_user"),
                reverse_dependencies: path("reverse_dependencies"),
            },
            exact_match: false,
            trustpub_only: false,
        }
    }
}

/// crates.io's `Version`.
#[derive(Serialize)]
pub(crate) struct VersionView<'a> {
    id: i32,
    #[serde(rename = "crate")]
    crate_name: &'a str,
    num: &'a str,
    dl_path: String,
    readme_path: String,
    updated_at: &'a Timestamp,
    created_at: &'a Timestamp,
    downloads: u64,
    features: Features<'a>,
    yanked: bool,
    yank_message: Unknown,
    lib_links: Option<&'a str>,
    license: Unknown,
    links: VersionLinks,
    crate_size: u64,
    published_by: Unknown,
    audit_actions: [(); 0],
    checksum: &'a str,
    rust_version: Option<&'a str>,
    has_lib: Unknown,
    bin_names: Unknown,
    edition: Unknown,
    description: Unknown,
    homepage: Unknown,
    documentation: Unknown,
    repository: Unknown,
    trustpub_data: Unknown,
    linecounts: Unknown,
}

#[derive(Serialize)]
struct VersionLinks {
    dependencies: String,
    version_downloads: String,
    authors: String,
}

impl<'a> VersionView<'a> {
    /// `crate_name` is the name of the crate in the answer: its published name, or at some endpoints the name as typed.
    pub(crate) fn new(release: &'a Release<'_>, crate_name: &'a str) -> Self {
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
            features: release.line.features,
            yanked: release.line.yanked,
            yank_message: None,
            lib_links: release.line.links.as_deref(),
            license: None,
            links: VersionLinks {
                dependencies: path("dependencies"),
                version_downloads: path("downloads"),
                authors: path("authors"),
            },
            crate_size: 0,
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
#[derive(Serialize)]
pub(crate) struct DependencyView<'a> {
    id: usize,
    version_id: i32,
    crate_id: String,
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
            kind: dependency.kind,
            downloads: 0,
        }
    }

    /// The order of `…/dependencies`: required ones first, then by name.
    pub(crate) fn order(&self) -> (bool, &str) {
        (self.optional, &self.crate_id)
    }
}
