//! What is served: a source seen through rules, together with its git index, behind one pointer.

pub(super) mod build;
pub(super) mod changes;
pub(super) mod large_files;

use std::sync::Arc;

use super::git::upload_pack::GitIndex;
use super::ids::{BlobId, CommitId};
use super::limits::ReadError;
use super::source::directory::Directory;
use super::source::snapshot::Source;
use crate::package::{CrateName, IndexPath};
use crate::policy::Rules;

/// One state of what the mirror shows.
///
/// Invariants: it never changes. The sparse index, the git index, the API and downloads of one view show the same. Without
/// rules it lists what its source lists, and shares that with it.
#[derive(Debug)]
pub(crate) struct View {
    source: Arc<Source>,
    /// What is shown. Every file lies in the clone of the source.
    root: Arc<Directory>,
    rules: Rules,
    git_index: Option<Arc<GitIndex>>,
}

impl View {
    /// A source as it is.
    pub(super) fn without_rules(source: Arc<Source>) -> Self {
        Self {
            root: Arc::clone(source.root()),
            source,
            rules: Rules::default(),
            git_index: None,
        }
    }

    /// What these rules leave of a source.
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

    /// The same view, for another git index.
    pub(super) fn without_git_index(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            root: Arc::clone(&self.root),
            rules: self.rules.clone(),
            git_index: None,
        }
    }

    /// Whether another view is of the same commit and lists the same.
    pub(super) fn shows_the_same_as(&self, other: &Self) -> bool {
        self.commit() == other.commit() && self.root.tree() == other.root.tree()
    }

    /// What upstream has.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The directory at the top of what is shown.
    pub(super) fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// The same for git clients. `None` if it is off, and as long as it cannot be made.
    pub(crate) fn git_index(&self) -> Option<&Arc<GitIndex>> {
        self.git_index.as_ref()
    }

    /// The upstream commit that this view is of.
    pub(crate) fn commit(&self) -> CommitId {
        self.source.commit()
    }

    /// Whether upstream may list versions that this view does not list.
    pub(crate) fn may_hide(&self) -> bool {
        self.rules.may_hide()
    }

    /// How many crates are listed.
    pub(crate) fn crate_count(&self) -> usize {
        self.root.count()
    }

    /// The index file at exactly this path, as cargo asks for it.
    pub(crate) fn find_exactly(&self, path: &IndexPath) -> Option<BlobId> {
        self.root.find_exactly(path).map(BlobId)
    }

    /// The index file of a crate, whichever spelling its name is given in.
    pub(crate) fn find(&self, name: &CrateName) -> Option<BlobId> {
        self.root.find(&IndexPath::from(name)).map(BlobId)
    }

    /// How many bytes an index file has. Blocking, and much quicker than reading it.
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
