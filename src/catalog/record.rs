//! One crate for the database, made from its index files.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::questions::CrateSummary;
use crate::index::{BlobId, CrateContent};
use crate::package::{CrateHistory, CrateName, CrateVersion, Release, Timestamp, canonical};

/// All that the catalog knows of a crate.
#[derive(Debug)]
pub(super) struct CrateRecord {
    /// The name in lower case: the name of its index file.
    pub(super) file: String,
    /// The upstream's index file.
    pub(super) source: BlobId,
    /// The index file that is shown.
    pub(super) shown: Option<BlobId>,
    /// Whether an index file is too large to be read.
    pub(super) is_skipped: bool,
    /// Whether the upstream's index file may have checksums that are not in `versions`: those of lines that look-ups skip.
    pub(super) has_other_lines: bool,
    /// The crate as it is shown; `None` if nothing of it is shown.
    pub(super) summary: Option<ShownCrate>,
    /// What the upstream lists, in the order of the index file.
    pub(super) versions: Vec<ListedVersion>,
    /// The keys of the crates that the default version depends on, each once. Empty if that version is yanked: then it is
    /// no dependent of any crate.
    pub(super) dependencies: Vec<i64>,
}

/// A crate as it is shown.
#[derive(Clone, Debug)]
pub(super) struct ShownCrate {
    pub(super) summary: CrateSummary,
    /// Orders crates by id: see [`number_of`].
    pub(super) number: i64,
    pub(super) default_id: i32,
}

/// A version that the upstream lists.
#[derive(Debug)]
pub(super) struct ListedVersion {
    pub(super) num: String,
    /// Its publish, in seconds since 1970; `None` if the line does not say it.
    pub(super) published: Option<i64>,
    /// `None` if the line has no real checksum.
    pub(super) checksum: Option<[u8; 32]>,
    /// Whether the upstream has yanked it.
    pub(super) is_yanked: bool,
    /// Whether it is shown as yanked; `None` if it is hidden.
    pub(super) shown_yanked: Option<bool>,
}

impl CrateRecord {
    /// Reads the index files of a crate. Skips the lines that look-ups skip.
    pub(super) fn read(content: &CrateContent<'_>) -> Self {
        let mut record = Self {
            file: content.name.to_owned(),
            source: content.source,
            shown: content.shown,
            is_skipped: content.files.is_none(),
            has_other_lines: false,
            summary: None,
            versions: Vec::new(),
            dependencies: Vec::new(),
        };
        let name = CrateName::try_from(content.name.to_owned()).ok();
        if let (Some(files), Some(name)) = (content.files, name) {
            // Most often both are the same file, which is then parsed once.
            if content.shown == Some(content.source) {
                let history = CrateHistory::parse(files.source, &name);
                record.fill(history.as_ref(), history.as_ref());
            } else {
                let shown = files
                    .shown
                    .and_then(|file| CrateHistory::parse(file, &name));
                let source = CrateHistory::parse(files.source, &name);
                record.fill(source.as_ref(), shown.as_ref());
            }
            // Rules read lines that look-ups skip, such as the second one of a version.
            let lines = files.source.split(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.trim_ascii().is_empty()).count();
            let listed = record.versions.iter();
            let listed = listed.filter(|version| version.checksum.is_some()).count();
            record.has_other_lines = lines != listed;
        }
        record
    }

    fn fill(&mut self, source: Option<&CrateHistory<'_>>, shown: Option<&CrateHistory<'_>>) {
        let yanked: HashMap<&str, bool> = shown
            .into_iter()
            .flat_map(CrateHistory::releases)
            .map(|release| (release.version().as_str(), release.line.yanked))
            .collect();
        let releases = source.into_iter().flat_map(CrateHistory::releases);
        self.versions = releases
            .map(|release| ListedVersion {
                num: release.version().to_string(),
                published: release.line.pubtime.as_ref().map(Timestamp::unix_seconds),
                checksum: release.line.checksum().map(|checksum| *checksum.as_bytes()),
                is_yanked: release.line.yanked,
                shown_yanked: yanked.get(release.version().as_str()).copied(),
            })
            .collect();
        // A history has one release at least, so there is a default one.
        let shown = shown.and_then(|shown| Some((shown, shown.default_release()?)));
        if let Some((shown, default)) = shown {
            self.summary = Some(ShownCrate {
                summary: CrateSummary::of(shown, default),
                number: number_of(shown),
                default_id: default.id,
            });
            self.dependencies = dependencies_of(default);
        }
    }
}

impl CrateSummary {
    /// What an index file tells of a crate with this default version.
    pub(crate) fn of(history: &CrateHistory<'_>, default: &Release<'_>) -> Self {
        let text = |version: Option<&CrateVersion>| version.map(CrateVersion::to_string);
        Self {
            name: history.name().to_owned(),
            created_at: history.created_at(),
            updated_at: history.updated_at(),
            num_versions: u32::try_from(history.releases().len()).unwrap_or(u32::MAX),
            is_yanked: default.line.yanked,
            default_version: default.version().to_string(),
            max_version: text(history.max_version()),
            newest_version: text(history.newest_version()),
            max_stable_version: text(history.max_stable_version()),
        }
    }
}

fn dependencies_of(release: &Release<'_>) -> Vec<i64> {
    if release.line.yanked {
        return Vec::new();
    }
    let dependencies = release.line.dependencies.iter();
    let mut keys: Vec<i64> = dependencies
        .filter(|dependency| dependency.registry.is_none())
        .map(|dependency| key_of(dependency.crate_name()))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The number that orders crates by id: the id of the first release, and below it some bits of the key, because crates
/// that were published in the same second can have the same id. A pure function, so every replica has the same order.
fn number_of(history: &CrateHistory<'_>) -> i64 {
    let first = history.releases().first().map_or(0, |release| release.id);
    (i64::from(first) << 32) | (key_of(history.name()) & 0xffff_ffff)
}

/// The key of a name: the same for all spellings of it. It is a part of a cryptographic hash, because anybody may publish
/// names, and two crates with one key would share their dependents. As an integer it takes less space than the name, and
/// it can be computed for a dependency without a look at the database.
pub(super) fn key_of(name: &str) -> i64 {
    let hash = Sha256::digest(canonical(name));
    let (first, _rest) = hash.split_at(8);
    i64::from_be_bytes(first.try_into().unwrap_or_default())
}
