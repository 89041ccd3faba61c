//! The archive that a new one builds on. Only its beginning is read.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::error::ArchiveError;
use super::manifest::Base;
use super::read::{Beginning, read_beginning};

/// The archive that a new one builds on.
pub(super) struct Earlier {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its first two entries.
    pub(super) beginning: Beginning,
}

/// Why a new archive cannot build on an earlier one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EarlierError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the new archive must be another file than the one that it builds on")]
    SameFile,
    #[error("that archive is of the index {theirs}, this one would be of {ours}")]
    OtherIndex { theirs: String, ours: String },
}

impl Earlier {
    /// Reads the beginning of an archive, for another one at `target`.
    pub(super) fn read(path: &Path, target: &Path) -> Result<Self, EarlierError> {
        let real = |path: &Path| path.canonicalize().ok();
        if real(path).is_some_and(|path| real(target) == Some(path)) {
            return Err(EarlierError::SameFile);
        }
        let file = File::open(path).map_err(ArchiveError::Unreadable)?;
        Ok(Self {
            path: path.to_owned(),
            beginning: read_beginning(BufReader::new(file))?,
        })
    }

    /// Its description in the manifest of the new archive.
    pub(super) fn base(&self) -> Base {
        let name = self.path.file_name().unwrap_or_default();
        Base {
            index_commit: self.beginning.manifest.index_commit.clone(),
            archive: name.to_string_lossy().into_owned(),
        }
    }

    /// Fails if its index has another upstream.
    pub(super) fn check_upstream(&self, ours: &str) -> Result<(), EarlierError> {
        let theirs = &self.beginning.manifest.upstream;
        if theirs == ours {
            return Ok(());
        }
        Err(EarlierError::OtherIndex {
            theirs: theirs.clone(),
            ours: ours.to_owned(),
        })
    }
}
