//! What an import does with the index of an archive.

use super::checksum_list::ChecksumList;
use super::error::IndexError;
use super::manifest::{Manifest, commit_id, past_seconds};
use super::read::Beginning;
use crate::clock::Clock;
use crate::index::Source;

/// What an import does with the index of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexPart {
    /// It is imported.
    Wanted,
    /// It is here already, and the archive has too little of it to repair it.
    IsHere,
    /// The index here is newer.
    IsOlder,
}

impl IndexPart {
    /// Compares an archive with the current index. An earlier archive that is imported again for its crate files must not
    /// take the index back.
    pub(super) fn of(
        manifest: &Manifest,
        current: Option<&Source>,
        clock: &Clock,
    ) -> Result<Self, IndexError> {
        let Some(current) = current else {
            return Ok(Self::Wanted);
        };
        if current.commit().to_string() == manifest.index_commit {
            // A complete index may be here to repair a damaged one.
            let is_complete = manifest.index_base.is_none();
            return Ok(if is_complete {
                Self::Wanted
            } else {
                Self::IsHere
            });
        }
        let fetched = current.fetched().and_then(|time| past_seconds(time, clock));
        // The commit alone does not tell: an upstream may go back to an earlier one.
        let was_fetched_later = manifest.index_fetched > fetched;
        if was_fetched_later || !knows(Some(current), &manifest.index_commit)? {
            return Ok(Self::Wanted);
        }
        Ok(Self::IsOlder)
    }
}

/// Whether everything that an archive builds on is here. A complete index needs no earlier archive, but its crate files may.
pub(super) fn base_is_here(
    beginning: &Beginning,
    stored: &ChecksumList,
    current: Option<&Source>,
) -> Result<bool, IndexError> {
    let manifest = &beginning.manifest;
    let Some(base) = &manifest.base else {
        return Ok(true);
    };
    let absent = beginning.files.without(stored).count();
    if manifest.index_base.is_none() && absent <= manifest.crate_files {
        return Ok(true);
    }
    knows(current, &base.index_commit)
}

fn knows(current: Option<&Source>, commit: &str) -> Result<bool, IndexError> {
    let commit = commit_id(commit)?;
    let known = current.map_or(Ok(false), |snapshot| snapshot.knows(commit));
    known.map_err(IndexError::new)
}
