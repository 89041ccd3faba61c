//! A view: a source seen through rules, together with its git index, behind one pointer.

pub(super) mod build;
pub(super) mod changes;
pub(super) mod large_files;
pub(super) mod listing;

use std::sync::Arc;
use std::time::SystemTime;

use super::git::upload_pack::GitIndex;
use super::ids::{BlobId, CommitId};
use super::limits::ReadError;
use super::source::directory::Directory;
use super::source::snapshot::Source;
use crate::package::{CrateName, IndexPath};
use crate::policy::Rules;

/// One state of the index that the mirror shows.
///
/// Invariants: it never changes. The sparse index, the git index, the API and downloads of one view show the same.
/// Without rules it shares the directories of its source.
#[derive(Debug)]
pub(crate) struct View {
    source: Arc<Source>,
    /// The shown directories. Every shown file is a blob in the clone of the source.
    root: Arc<Directory>,
    rules: Rules,
    git_index: Option<Arc<GitIndex>>,
}

impl View {
    /// Shows a source without changes.
    pub(super) fn without_rules(source: Arc<Source>) -> Self {
        Self {
            root: Arc::clone(source.root()),
            source,
            rules: Rules::default(),
            git_index: None,
        }
    }

    /// Shows `root`, which these rules have made of a source.
    pub(super) fn through(source: Arc<Source>, rules: Rules, root: Arc<Directory>) -> Self {
        Self {
            source,
            root,
            rules,
            git_index: None,
        }
    }

    /// The same view with this git index.
    pub(super) fn with_git_index(self, git_index: Option<Arc<GitIndex>>) -> Self {
        Self { git_index, ..self }
    }

    /// A copy of this view without its git index.
    pub(super) fn without_git_index(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            root: Arc::clone(&self.root),
            rules: self.rules.clone(),
            git_index: None,
        }
    }

    /// Whether another view has the same commit and the same files.
    pub(super) fn shows_the_same_as(&self, other: &Self) -> bool {
        self.commit() == other.commit() && self.root.tree() == other.root.tree()
    }

    /// The source: the upstream's index.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The root of the shown directories.
    pub(super) fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// The git index of this view. `None` if it is off, or could not be made.
    pub(crate) fn git_index(&self) -> Option<&Arc<GitIndex>> {
        self.git_index.as_ref()
    }

    /// Whether the mirror may write to the data directory, in which this view lies.
    pub(crate) fn may_write_beside(&self) -> bool {
        self.source.repository().has_data_dir()
    }

    /// The upstream commit of this view.
    pub(crate) fn commit(&self) -> CommitId {
        self.source.commit()
    }

    /// When the upstream commit was made, as the commit says. It may be ahead of the clock.
    pub(crate) fn commit_time(&self) -> SystemTime {
        self.source.commit_time()
    }

    /// Whether the rules may hide versions that upstream lists.
    pub(crate) fn may_hide(&self) -> bool {
        self.rules.may_hide()
    }

    /// The number of crates in this view.
    pub(crate) fn crate_count(&self) -> usize {
        self.root.count()
    }

    /// Finds the index file at exactly this path, as cargo requests it.
    pub(crate) fn find_exactly(&self, path: &IndexPath) -> Option<BlobId> {
        self.root.find_exactly(path).map(BlobId)
    }

    /// Finds the index file of a crate by any spelling of its name.
    pub(crate) fn find(&self, name: &CrateName) -> Option<BlobId> {
        self.root.find(&IndexPath::from(name)).map(BlobId)
    }

    /// The size of an index file in bytes. Blocking, and much faster than reading the file.
    pub(crate) fn blob_bytes(&self, blob: BlobId) -> Result<u64, ReadError> {
        self.source.blob_bytes(blob)
    }

    /// Reads an index file that this view lists. Blocking.
    pub(crate) fn read_blob<T>(
        &self,
        blob: BlobId,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ReadError> {
        self.source.read_blob(blob, read)
    }
}
