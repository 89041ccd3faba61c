//! What can be asked of the catalog, and what it answers: plain values.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::index::View;
use crate::package::{Checksum, Timestamp};
use crate::sqlite::AskError;

/// A search for crates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    /// The text to search for, as the client typed it; empty for all crates.
    ///
    /// It is compared without regard to case, and with `-` equal to `_`. More than two bytes match anywhere in a name.
    /// One or two bytes match at the beginning of a name, and after each `-` and `_` in it.
    pub(crate) text: String,
    /// What else a crate must meet.
    pub(crate) filter: CrateFilter,
    /// Whether to list crates of which every version is yanked.
    pub(crate) include_yanked: bool,
    /// The order of the answer.
    pub(crate) order: CrateOrder,
    /// The part of the answer that is wanted.
    pub(crate) page: Page,
}

/// What a crate must meet, besides the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CrateFilter {
    /// Nothing.
    None,
    /// Its name begins with this character, in any letter case. `-` begins no name.
    Letter(char),
    /// Its published name is exactly one of these. Unknown names are ignored, and repeated ones count once.
    Names(Vec<String>),
}

/// The order of crates in an answer. Every order is total, and the same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrateOrder {
    /// By name, in the byte order of its lower-case form. The crate whose name is the text itself comes first.
    Name,
    /// By id, the highest first: the latest first publish.
    Id,
    /// By the time of the last publish, the latest first, then by id.
    Updated,
    /// By the time of the first publish, the latest first, then by id.
    Created,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Where it begins.
    pub(crate) start: Start,
    /// How many crates it has at most.
    pub(crate) limit: usize,
}

impl Page {
    /// The first page.
    pub(crate) fn first(limit: usize) -> Self {
        let start = Start::Skip(0);
        Self { start, limit }
    }
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// After this many crates. 0 for the first page.
    Skip(usize),
    /// After the last crate of the page before.
    After(Place),
}

/// The place of a crate in an order, for the token of the next page. It stays valid when crates come and go.
///
/// It serialises as an array. Clients treat the token as opaque.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Place<N = String> {
    /// Whether it is the crate whose name is the text itself.
    pub(super) is_exact: bool,
    /// The time by which the order sorts, in seconds since 1970; 0 in an order without a time.
    pub(super) time: u32,
    /// The number that orders crates by id.
    pub(super) number: i64,
    /// The published name.
    pub(super) name: N,
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.is_exact, self.time, self.number, &self.name).serialize(serializer)
    }
}

/// A page of crates.
#[derive(Clone, Debug)]
pub(crate) struct CrateList {
    /// The view that the answer belongs to.
    pub(crate) view: Arc<View>,
    /// The number of crates on all pages together.
    pub(crate) total: usize,
    /// The crates of this page, in order.
    pub(crate) crates: Vec<CrateSummary>,
    /// The place of the last of them; `None` for an empty page.
    pub(crate) last: Option<Place>,
}

/// A crate as the view shows it. Hidden versions do not count, and a version is yanked if it is shown as yanked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrateSummary {
    /// The published name.
    pub(crate) name: String,
    /// The time of the first publish. A leap second counts as the second after it.
    pub(crate) created_at: Timestamp,
    /// The time of the last publish.
    pub(crate) updated_at: Timestamp,
    /// The number of versions, yanked ones included.
    pub(crate) num_versions: u32,
    /// Whether every version is yanked.
    pub(crate) is_yanked: bool,
    /// The version that crates.io shows by default.
    pub(crate) default_version: String,
    /// The highest version that is not yanked.
    pub(crate) max_version: Option<String>,
    /// The version that was published last among those not yanked.
    pub(crate) newest_version: Option<String>,
    /// The highest version that is neither yanked nor a pre-release.
    pub(crate) max_stable_version: Option<String>,
}

/// A page of the crates that depend on a crate.
#[derive(Clone, Debug)]
pub(crate) struct Dependents {
    /// The view that the answer belongs to.
    pub(crate) view: Arc<View>,
    /// The published name of the crate that they depend on; `None` if there is no such crate.
    pub(crate) crate_name: Option<String>,
    /// The number of dependents on all pages together.
    pub(crate) total: usize,
    /// The dependents of this page: those with the highest ids first.
    pub(crate) dependents: Vec<Dependent>,
}

/// A crate that depends on another one by its default version, which is not yanked.
///
/// The dependency itself is on the index line of this version: the first one with the name of the other crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependent {
    /// Its published name.
    pub(crate) name: String,
    /// Its default version.
    pub(crate) version: String,
    /// The id of that version.
    pub(crate) version_id: i32,
}

/// The crates of crates.io's front page.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The view that the answer belongs to.
    pub(crate) view: Arc<View>,
    /// The number of crates.
    pub(crate) num_crates: usize,
    /// The crates with the latest first publish.
    pub(crate) new_crates: Vec<CrateSummary>,
    /// The crates with the latest publish that was not their first one.
    pub(crate) just_updated: Vec<CrateSummary>,
}

/// A place in the list of shown versions by publish time. It stays valid when versions come and go, and in a catalog that
/// was built again.
///
/// It serialises as an array.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct PublishPlace {
    /// The time, in seconds since 1970.
    pub(crate) time: i64,
    /// The name of the crate in lower case. Empty for a place before all versions of that time.
    pub(crate) file: String,
    /// The version.
    pub(crate) version: String,
}

impl Serialize for PublishPlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.time, &self.file, &self.version).serialize(serializer)
    }
}

/// Some of the shown versions whose publish time is known.
#[derive(Clone, Debug)]
pub(crate) struct Publishes {
    /// The view that the answer belongs to.
    pub(crate) view: Arc<View>,
    /// By publish time, then by name and version.
    pub(crate) versions: Vec<Publish>,
}

/// A shown version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    /// The crate's published name.
    pub(crate) crate_name: String,
    /// The checksum of its crate file; `None` if the index line has no real one.
    pub(crate) checksum: Option<Checksum>,
    /// Whether it is shown as yanked.
    pub(crate) yanked: bool,
    /// Its place in the list.
    pub(crate) place: PublishPlace,
}

/// Why a question has no answer. All of them may pass: the next attempt can succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    /// The catalog is not built yet.
    #[error("the catalog is not built yet")]
    NotReady,
    /// It cannot answer now.
    #[error(transparent)]
    Failed(#[from] AskError),
}

/// The status of the catalog at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CatalogStatus {
    /// The upstream commit that it answers from; `None` until it exists.
    pub(crate) commit: Option<String>,
    /// The number of crates that it shows.
    pub(crate) crates: usize,
    /// Index files that it leaves out, because they are too large.
    pub(crate) skipped_files: usize,
    /// Whether it is being built or brought up to date.
    pub(crate) working: bool,
    /// Why the last attempt failed; `None` after a success.
    pub(crate) last_error: Option<String>,
    /// Whether it lies in a temporary directory, because `DATA_DIR` cannot be written.
    pub(crate) is_temporary: bool,
}

/// The state of the catalog as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CatalogState {
    /// It does not exist yet.
    Building,
    /// It answers.
    Ready,
    /// The last attempt to build it, or to follow a view, has failed.
    Failed,
}

impl CatalogStatus {
    /// The state as one word.
    pub(crate) fn state(&self) -> CatalogState {
        match (&self.last_error, &self.commit) {
            (Some(_), _) => CatalogState::Failed,
            (None, Some(_)) => CatalogState::Ready,
            (None, None) => CatalogState::Building,
        }
    }
}
