//! The versions of a crate and their checksums, short enough to be remembered.
//!
//! A request for a crate file needs one checksum, and the index file with the checksum may have megabytes. So the first
//! request for a crate remembers the checksums of all its versions. This also tells which versions do not exist.

use crate::http::bounded_cache::{BoundedCache, Weighed, bounded};
use crate::index::BlobId;
use crate::package::{Checksum, CrateFile, CrateHistory, CrateName, CrateVersion, canonical_order};

/// All tables together, in bytes.
const TABLES_BYTES_MAX: u64 = 12 * 1024 * 1024;

/// The number of tables for which the cache is made.
const TABLES_TYPICAL: usize = 8 * 1024;

/// Few parts, so that the largest table fits into one.
const TABLES_PARTS: usize = 2;

/// What a table takes besides its entries.
const TABLE_BYTES: usize = 256;

/// The crate files of a crate.
#[derive(Debug)]
pub(crate) struct VersionTable {
    /// The crate's name as published.
    name: CrateName,
    /// The texts of all versions, one behind the other.
    texts: Box<str>,
    /// In the order of the texts.
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    start: u32,
    length: u32,
    /// `None` if the line has no valid checksum.
    checksum: Option<Checksum>,
}

impl VersionTable {
    /// Reads an index file; `None` if it lists no such crate.
    pub(crate) fn read(file: &[u8], name: &CrateName) -> Option<Self> {
        Self::of(&CrateHistory::parse(file, name)?)
    }

    /// The table of an index file that was read already.
    pub(crate) fn of(history: &CrateHistory<'_>) -> Option<Self> {
        let name = history.releases().first()?.line.name.clone();
        let releases = history.releases().iter();
        let mut files: Vec<(&str, Option<Checksum>)> = releases
            .map(|release| (release.version().as_str(), release.line.checksum()))
            .collect();
        files.sort_unstable();
        let mut texts = String::new();
        let mut entries = Vec::with_capacity(files.len());
        for (text, checksum) in files {
            // An index file has less than 4 GiB.
            let (Ok(start), Ok(length)) = (u32::try_from(texts.len()), u32::try_from(text.len()))
            else {
                continue;
            };
            texts.push_str(text);
            entries.push(Entry {
                start,
                length,
                checksum,
            });
        }
        Some(Self {
            name,
            texts: texts.into(),
            entries: entries.into(),
        })
    }

    /// Whether it was read for this crate.
    pub(crate) fn is_of(&self, name: &CrateName) -> bool {
        canonical_order(self.name.as_str(), name.as_str()).is_eq()
    }

    /// The file of a version, if the index lists the version with a checksum.
    pub(crate) fn file(&self, version: &CrateVersion) -> Option<CrateFile> {
        Some(CrateFile {
            name: self.name.clone(),
            version: version.clone(),
            checksum: self.entry(version)?.checksum?,
        })
    }

    /// Whether the index lists the version.
    pub(crate) fn lists(&self, version: &CrateVersion) -> bool {
        self.entry(version).is_some()
    }

    fn entry(&self, version: &CrateVersion) -> Option<&Entry> {
        let place = self
            .entries
            .binary_search_by(|entry| self.text(entry).cmp(version.as_str()))
            .ok()?;
        self.entries.get(place)
    }

    fn text(&self, entry: &Entry) -> &str {
        let start = entry.start as usize;
        self.texts
            .get(start..start + entry.length as usize)
            .unwrap_or_default()
    }
}

impl Weighed for VersionTable {
    fn bytes(&self) -> usize {
        TABLE_BYTES
            + self.name.as_str().len()
            + self.texts.len()
            + size_of::<Entry>() * self.entries.len()
    }
}

/// Tables by the index file that they were read from, so no table ever goes stale.
pub(crate) type VersionTables = BoundedCache<BlobId, VersionTable>;

/// No tables yet.
pub(crate) fn no_tables() -> VersionTables {
    bounded(TABLES_BYTES_MAX, TABLES_TYPICAL, TABLES_PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_each_version_with_a_checksum_and_no_other() {
        let checksum = |digit: &str| digit.repeat(64);
        let line = |version: &str, checksum: &str| {
            format!(
                r#"{{"name":"Foo","vers":"{version}","deps":[],"cksum":"{checksum}","features":{{}},"yanked":false}}"#
            )
        };
        let file = [
            line("1.10.0", &checksum("1")),
            line("1.9.0", &checksum("2")),
            line("1.9.0+b", &checksum("3")),
            line("2.0.0", "none"),
            "junk".to_owned(),
        ]
        .join("\n");
        let name = CrateName::try_from("foo".to_owned()).unwrap();
        let table = VersionTable::read(file.as_bytes(), &name).unwrap();
        let found = |version: &str| {
            let version = CrateVersion::try_from(version.to_owned()).unwrap();
            let file = table.file(&version)?;
            assert_eq!((file.name.as_str(), &file.version), ("Foo", &version));
            Some(file.checksum.to_string())
        };
        assert_eq!(found("1.10.0"), Some(checksum("1")));
        assert_eq!(found("1.9.0"), Some(checksum("2")));
        assert_eq!(found("1.9.0+b"), Some(checksum("3")));
        for none in ["2.0.0", "1.9.0+a", "1.9.1", "0.1.0"] {
            assert_eq!(found(none), None, "{none}");
        }
        let lists =
            |version: &str| table.lists(&CrateVersion::try_from(version.to_owned()).unwrap());
        assert!(lists("2.0.0") && lists("1.9.0+b") && !lists("1.9.0+a"));
        assert!(VersionTable::read(b"junk", &name).is_none());
    }
}
