//! One state of the index: a commit, and every index file in it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use super::directory::{Directory, ObjectId};
use crate::index::limits::ReadError;
use crate::index::source::repository::Repository;
use crate::index::source::{clone_dir, trees};
use crate::index::stop::StopFlag;
use crate::package::{CrateName, IndexPath};

/// The id of a commit of the upstream index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitId(pub(crate) ObjectId);

impl CommitId {
    /// The id in hexadecimal.
    pub(crate) fn hex(self) -> [u8; 40] {
        self.0.hex()
    }
}

/// A text that is not 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a commit id is 40 hexadecimal digits")]
pub(crate) struct NotACommitId;

impl FromStr for CommitId {
    type Err = NotACommitId;

    fn from_str(text: &str) -> Result<Self, NotACommitId> {
        // git2 takes shortened ids, too.
        let id = git2::Oid::from_str(text).ok().filter(|_| text.len() == 40);
        id.map(|id| Self(id.into())).ok_or(NotACommitId)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The id of an index file's content: the same on every replica, another one for other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlobId(ObjectId);

impl BlobId {
    /// The id in hexadecimal.
    pub(crate) fn hex(self) -> [u8; 40] {
        self.0.hex()
    }

    /// The id that git gives to this content.
    pub(crate) fn of(content: &[u8]) -> Self {
        let id = git2::Oid::hash_object(git2::ObjectType::Blob, content);
        // Hashing bytes in memory does not fail.
        Self(id.map_or_else(|_impossible| ObjectId::default(), ObjectId::from))
    }
}

impl From<BlobId> for ObjectId {
    fn from(blob: BlobId) -> Self {
        blob.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An immutable view of the index at one commit.
///
/// Invariants: it never changes; every unchanged directory is shared with the snapshot before it. It holds ids, not
/// contents: those are read from the clone it came from, which stays on disk for as long as a snapshot of it lives.
#[derive(Debug)]
pub(crate) struct Snapshot {
    commit: CommitId,
    root: Arc<Directory>,
    repository: Arc<Repository>,
}

impl Snapshot {
    /// Reads the upstream commit that the clone holds, sharing with `previous` what did not change. Blocking.
    pub(crate) fn read(
        repository: &Arc<Repository>,
        previous: Option<&Self>,
        stop: &StopFlag,
    ) -> Result<Self, ReadError> {
        let (commit, tree) = repository.upstream()?;
        Self::read_tree(repository, (commit, tree), previous, stop)
    }

    /// Reads another tree in place of the commit's own. Blocking.
    pub(crate) fn read_tree(
        repository: &Arc<Repository>,
        (commit, tree): (CommitId, ObjectId),
        previous: Option<&Self>,
        stop: &StopFlag,
    ) -> Result<Self, ReadError> {
        let previous = previous.map(|previous| &previous.root);
        let root = repository.with(|git| trees::read(git, tree, previous, stop))?;
        Ok(Self {
            commit,
            root,
            repository: Arc::clone(repository),
        })
    }

    /// Whether another snapshot is of the same commit and lists the same.
    pub(crate) fn shows_the_same_as(&self, other: &Self) -> bool {
        self.commit == other.commit && self.root.tree() == other.root.tree()
    }

    /// The upstream commit that this snapshot shows.
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

    /// Whether a directory at the top of the index is one and the same in memory as in another snapshot.
    #[cfg(test)]
    pub(crate) fn shares_directory_with(&self, other: &Self, name: &str) -> bool {
        match (self.root.directory(name), other.root.directory(name)) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }

    /// Whether this is the content of this index file.
    pub(crate) fn lists(&self, name: &str, blob: ObjectId) -> bool {
        CrateName::try_from(name.to_owned())
            .is_ok_and(|name| self.root.find_exactly(&IndexPath::from(&name)) == Some(blob))
    }

    /// The directory at the top.
    pub(crate) fn root(&self) -> &Directory {
        &self.root
    }

    /// The clone that contents are read from.
    pub(crate) fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// How many crates the index lists.
    pub(crate) fn crate_count(&self) -> usize {
        self.root.count()
    }

    /// The content of the index file at exactly this path, as cargo asks for it.
    pub(crate) fn find_exactly(&self, path: &IndexPath) -> Option<BlobId> {
        self.root.find_exactly(path).map(BlobId)
    }

    /// The content of a crate's index file, whichever spelling its name is given in.
    pub(crate) fn find(&self, name: &CrateName) -> Option<BlobId> {
        self.root.find(&IndexPath::from(name)).map(BlobId)
    }

    /// How many bytes an index file has. Blocking, and much quicker than reading it.
    pub(crate) fn blob_bytes(&self, blob: BlobId) -> Result<u64, ReadError> {
        self.repository.blob_bytes(blob.0)
    }

    /// Reads an index file that this snapshot lists. Blocking.
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
