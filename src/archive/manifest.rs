//! The first and the last entry of an archive, which describe the rest.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::error::{ArchiveError, FORMAT, IndexError};
use crate::clock::Clock;
use crate::index::{CommitId, RemoteUrl};

/// The program, as manifests name it.
pub(super) const TOOL: &str = concat!("crates-io-mirror ", env!("CARGO_PKG_VERSION"));

/// The most index files: more than any clone has packs.
const INDEX_FILES_MAX: u64 = 10_000;

/// The first entry.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Manifest {
    /// The layout of the archive.
    pub(super) format: u32,
    /// The program that wrote it.
    pub(super) tool: String,
    /// The upstream of the index, without secrets.
    pub(super) upstream: String,
    /// The commit of the index, in hexadecimal.
    pub(super) index_commit: String,
    /// The commit that the index files build on, which is that of `base`; `None` if they are complete.
    pub(super) index_base: Option<String>,
    /// When the index was last fetched, in seconds since 1970, if that is known.
    #[serde(default)]
    pub(super) index_fetched: Option<u64>,
    /// How many index files follow.
    pub(super) index_files: u64,
    /// How many crate files follow.
    pub(super) crate_files: u64,
    /// How many checksums are in `held.txt`.
    pub(super) held_files: u64,
    /// The archive that must be imported before this one, if any.
    pub(super) base: Option<Base>,
}

/// An earlier archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Base {
    /// The commit of the index in it.
    pub(crate) index_commit: String,
    /// The name of its file, for people.
    pub(crate) archive: String,
}

/// The last entry.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct End {
    /// How many index files there were.
    pub(crate) index_files: u64,
    /// How many crate files there were.
    pub(crate) crate_files: u64,
    /// The bytes of all of them.
    pub(crate) bytes: u64,
}

/// The one field that all formats have.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Manifest {
    /// Reads and checks a manifest.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ArchiveError> {
        let AnyFormat { format } = serde_json::from_slice(text)?;
        if format != FORMAT {
            return Err(ArchiveError::UnknownFormat(format));
        }
        let manifest: Self = serde_json::from_slice(text)?;
        let base = manifest.base.as_ref().map(|base| &base.index_commit);
        let commits = [
            Some(&manifest.index_commit),
            manifest.index_base.as_ref(),
            base,
        ];
        if !commits.iter().flatten().all(|commit| is_commit(commit)) {
            return Err(ArchiveError::ImpossibleManifest("commit"));
        }
        if manifest.index_base.is_some() && manifest.index_base.as_ref() != base {
            return Err(ArchiveError::ImpossibleManifest("base of the index"));
        }
        if RemoteUrl::parse_recorded(&manifest.upstream).is_err() {
            return Err(ArchiveError::ImpossibleManifest("upstream"));
        }
        if manifest.index_files > INDEX_FILES_MAX || manifest.crate_files > manifest.held_files {
            return Err(ArchiveError::ImpossibleManifest("number of files"));
        }
        Ok(manifest)
    }
}

/// Ids of SHA-256 are not supported.
fn is_commit(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 40 && text.bytes().all(is_digit)
}

/// A commit of a manifest.
pub(super) fn commit_id(text: &str) -> Result<CommitId, IndexError> {
    text.parse::<CommitId>().map_err(IndexError::new)
}

/// A time in seconds since 1970. `None` if it is ahead of the clock: an index of that time would be newer than every later
/// one.
pub(super) fn past_seconds(time: SystemTime, clock: &Clock) -> Option<u64> {
    clock.age(time)?;
    let since_1970 = time.duration_since(UNIX_EPOCH).ok()?;
    Some(since_1970.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> serde_json::Value {
        serde_json::json!({
            "format": 1, "tool": "t", "upstream": "u", "index_commit": "a".repeat(40), "index_base": null,
            "index_files": 1, "crate_files": 2, "held_files": 2, "base": null,
        })
    }

    #[test]
    fn impossible_values_are_refused_and_unknown_fields_are_not() {
        let mut good = manifest();
        good["new_in_a_later_version"] = 7.into();
        assert!(Manifest::parse(good.to_string().as_bytes()).is_ok());
        for (field, value, words) in [
            ("format", 2.into(), "format 2"),
            ("format", "x".into(), "cannot be read"),
            ("index_commit", "../../etc".into(), "commit"),
            ("index_base", "main".into(), "commit"),
            ("index_base", "b".repeat(40).into(), "base of the index"),
            ("index_commit", "a".repeat(64).into(), "commit"),
            ("upstream", "ftp://index.example".into(), "upstream"),
            (
                "base",
                serde_json::json!({"index_commit": "A", "archive": "a"}),
                "commit",
            ),
            ("index_files", 10_001.into(), "number"),
            ("crate_files", 3.into(), "number"),
            ("held_files", serde_json::Value::Null, "cannot be read"),
        ] {
            let mut bad = manifest();
            bad[field] = value;
            let error = Manifest::parse(bad.to_string().as_bytes()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(Manifest::parse(b"no json").is_err());
    }
}
