//! The first and the last entry of an archive: what is in it.

use serde::{Deserialize, Serialize};

use crate::index::RemoteUrl;

/// The format that is written, and the only one that is read.
pub(crate) const FORMAT: u32 = 1;

/// More files of an index than any clone has packs.
const INDEX_FILES_MAX: u64 = 10_000;

/// What an archive says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Manifest {
    /// The layout of the archive.
    pub(crate) format: u32,
    /// Who wrote it.
    pub(crate) tool: String,
    /// The upstream of the index, without secrets.
    pub(crate) upstream: String,
    /// The commit of the index, in hexadecimal.
    pub(crate) index_commit: String,
    /// The commit that the index files of this archive build on, that of `base`; `None` if they are enough.
    pub(crate) index_base: Option<String>,
    /// When the upstream of the index was last asked, in seconds since 1970, if that is known.
    #[serde(default)]
    pub(crate) index_fetched: Option<u64>,
    /// How many index files follow.
    pub(crate) index_files: u64,
    /// How many crate files follow.
    pub(crate) crate_files: u64,
    /// How many checksums are in `held.txt`.
    pub(crate) held_files: u64,
    /// The archive that must have been imported before; `None` if this one is complete in itself.
    pub(crate) base: Option<Base>,
}

/// An earlier archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Base {
    /// The commit of the index in it.
    pub(crate) index_commit: String,
    /// What its file was called, for people.
    pub(crate) archive: String,
}

/// The last entry: what went before.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct End {
    /// How many index files there were.
    pub(crate) index_files: u64,
    /// How many crate files there were.
    pub(crate) crate_files: u64,
    /// How many bytes all of them have.
    pub(crate) bytes: u64,
}

/// Only the number, which every format keeps.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// Why a manifest is no good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// It is written in another format.
    #[error(
        "the archive has format {0}, and this program reads format {FORMAT}: use the version that wrote it, or a newer one"
    )]
    UnknownFormat(u32),
    /// It is not JSON, or lacks something.
    #[error("manifest.json cannot be read: {0}")]
    Shape(#[from] serde_json::Error),
    /// Something in it cannot be.
    #[error("manifest.json has an impossible {0}")]
    Impossible(&'static str),
}

impl Manifest {
    /// Reads and checks a manifest.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let AnyFormat { format } = serde_json::from_slice(text)?;
        if format != FORMAT {
            return Err(ManifestError::UnknownFormat(format));
        }
        let manifest: Self = serde_json::from_slice(text)?;
        let base = manifest.base.as_ref().map(|base| &base.index_commit);
        let commits = [
            Some(&manifest.index_commit),
            manifest.index_base.as_ref(),
            base,
        ];
        if !commits.iter().flatten().all(|commit| is_commit(commit)) {
            return Err(ManifestError::Impossible("commit"));
        }
        if manifest.index_base.is_some() && manifest.index_base.as_ref() != base {
            return Err(ManifestError::Impossible("base of the index"));
        }
        if RemoteUrl::parse_recorded(&manifest.upstream).is_err() {
            return Err(ManifestError::Impossible("upstream"));
        }
        if manifest.index_files > INDEX_FILES_MAX || manifest.crate_files > manifest.held_files {
            return Err(ManifestError::Impossible("number of files"));
        }
        Ok(manifest)
    }
}

/// An index with ids of SHA-256 cannot be read.
fn is_commit(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 40 && text.bytes().all(is_digit)
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
    fn what_cannot_be_is_refused_and_what_is_unknown_is_not() {
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
