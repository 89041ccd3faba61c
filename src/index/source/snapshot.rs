//! What the upstream has at one commit: every index file, by name and blob.

use std::sync::Arc;
use std::time::SystemTime;

use super::directory::Directory;
use super::repository::Repository;
use super::{clone_dir, trees};
use crate::index::ids::{BlobId, CommitId, ObjectId};
use crate::index::limits::ReadError;
use crate::index::stop::StopFlag;
use crate::package::{CrateName, IndexPath};

/// The upstream index at one commit.
///
/// Invariants: it never changes; every unchanged directory is shared with the source before it. It holds ids, not
/// contents: those are read from the clone that it came from, which stays on disk for as long as a source of it lives.
#[derive(Debug)]
pub(crate) struct Source {
    commit: CommitId,
    root: Arc<Directory>,
    repository: Arc<Repository>,
}

impl Source {
    /// Reads the upstream commit that the clone holds, sharing with `previous` what did not change. Blocking.
    pub(crate) fn read(
        repository: &Arc<Repository>,
        previous: Option<&Self>,
        stop: &StopFlag,
    ) -> Result<Self, ReadError> {
        let (commit, tree) = repository.upstream()?;
        let previous = previous.map(|previous| &previous.root);
        let root = repository.with(|git| trees::read(git, tree, previous, stop))?;
        Ok(Self {
            commit,
            root,
            repository: Arc::clone(repository),
        })
    }

    /// Reads another tree of the clone, sharing with `previous` what did not change. Blocking.
    pub(crate) fn read_tree(
        &self,
        tree: ObjectId,
        previous: Option<&Arc<Directory>>,
        stop: &StopFlag,
    ) -> Result<Arc<Directory>, ReadError> {
        self.repository
            .with(|git| trees::read(git, tree, previous, stop))
    }

    /// Whether a clone whose read has failed is damaged: everything that a source needs is read anew, and the object that
    /// could not be read. A failure that is gone was a passing one (too many open files, say). Blocking.
    pub(crate) fn confirm_damage(repository: &Arc<Repository>, stop: &StopFlag) -> bool {
        // What is open would still be read when it is gone from the disk.
        repository.close_idle_handles();
        let everything = Self::read(repository, None, stop).map(drop);
        repository.confirm_damage(everything)
    }

    /// The upstream commit.
    pub(crate) fn commit(&self) -> CommitId {
        self.commit
    }

    /// Whether the clone has this commit, as the one that it shows or from before. Blocking.
    pub(crate) fn knows(&self, commit: CommitId) -> Result<bool, ReadError> {
        self.repository
            .with(|git| Ok(git.odb()?.exists(commit.0.to_oid()?)))
    }

    /// When the upstream of the clone was last asked with success, if that is known. Blocking.
    pub(crate) fn fetched(&self) -> Option<SystemTime> {
        let record = clone_dir::read_record(self.repository.path()).ok()?;
        record.last_success()
    }

    /// Whether a directory at the top of the index is one and the same in memory as in another source.
    #[cfg(test)]
    pub(crate) fn shares_directory_with(&self, other: &Self, name: &str) -> bool {
        match (self.root.directory(name), other.root.directory(name)) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }

    /// The directory at the top.
    pub(crate) fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// The clone that contents are read from.
    pub(crate) fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// How many bytes an index file has. Blocking, and much quicker than reading it.
    pub(crate) fn blob_bytes(&self, blob: BlobId) -> Result<u64, ReadError> {
        self.repository.blob_bytes(blob.0)
    }

    /// Reads an index file that this source lists. Blocking.
    pub(crate) fn read_blob<T>(
        &self,
        blob: BlobId,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ReadError> {
        self.repository.read_blob(blob.0, read)
    }

    /// Reads a crate's index file, whichever spelling its name is given in; `None` if there is no such crate. Blocking.
    pub(crate) fn index_file<T>(
        &self,
        name: &CrateName,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, ReadError> {
        self.root
            .find(&IndexPath::from(name))
            .map(|blob| self.repository.read_blob(blob, read))
            .transpose()
    }
}
