//! A source: the upstream index at one commit, as a list of index files with their blob ids.

use std::sync::Arc;
use std::time::SystemTime;

use super::directory::Directory;
use super::repository::Repository;
use super::{clone_dir, trees};
use crate::index::ids::{CommitId, ObjectId};
use crate::index::limits::ReadError;
use crate::index::stop::StopFlag;
use crate::package::{CrateName, IndexPath};

/// The upstream index at one commit.
///
/// Invariants: it never changes. It shares every unchanged directory with the source before it. It contains ids, not
/// contents. Contents are read from the clone, which stays on disk as long as one of its sources exists.
#[derive(Debug)]
pub(crate) struct Source {
    commit: CommitId,
    /// When the upstream commit was made, as the commit says. It may be ahead of the clock.
    pub(crate) commit_time: SystemTime,
    root: Arc<Directory>,
    repository: Arc<Repository>,
}

impl Source {
    /// Reads the upstream commit of the clone. Shares unchanged directories with `previous`. Blocking.
    pub(crate) fn read(
        repository: &Arc<Repository>,
        previous: Option<&Self>,
        stop: &StopFlag,
    ) -> Result<Self, ReadError> {
        let (commit, tree, commit_time) = repository.upstream()?;
        let previous = previous.map(|previous| &previous.root);
        let root = repository.with(|git| trees::read(git, tree, previous, stop))?;
        Ok(Self {
            commit,
            commit_time,
            root,
            repository: Arc::clone(repository),
        })
    }

    /// Reads another tree of the clone. Shares unchanged directories with `previous`. Blocking.
    pub(crate) fn read_tree(
        &self,
        tree: ObjectId,
        previous: Option<&Arc<Directory>>,
        stop: &StopFlag,
    ) -> Result<Arc<Directory>, ReadError> {
        self.repository
            .with(|git| trees::read(git, tree, previous, stop))
    }

    /// Whether a clone is damaged after a failed read: reads all trees of the source again, and the unreadable object.
    /// A failure that does not happen again was temporary, for example too many open files. Blocking.
    pub(crate) fn confirm_damage(repository: &Arc<Repository>, stop: &StopFlag) -> bool {
        // An open file can still be read after its removal. The check must see what is on the disk now.
        repository.close_idle_handles();
        let everything = Self::read(repository, None, stop).map(drop);
        repository.confirm_damage(everything)
    }

    /// The upstream commit.
    pub(crate) fn commit(&self) -> CommitId {
        self.commit
    }

    /// Whether the clone has this commit: its current one or an earlier one. Blocking.
    pub(crate) fn knows(&self, commit: CommitId) -> Result<bool, ReadError> {
        self.repository
            .with(|git| Ok(git.odb()?.exists(commit.0.to_oid()?)))
    }

    /// The time of the last successful fetch, if known. Blocking.
    pub(crate) fn fetched(&self) -> Option<SystemTime> {
        let record = clone_dir::read_record(self.repository.path()).ok()?;
        record.last_success()
    }

    /// The root directory.
    pub(crate) fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// The clone, from which contents are read.
    pub(crate) fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Reads a crate's index file, and passes the name of the file and its content to `read`. The crate's name may have any
    /// spelling. `None` if there is no such crate. Blocking.
    pub(crate) fn index_file<T>(
        &self,
        name: &CrateName,
        read: impl FnOnce(&str, &[u8]) -> T,
    ) -> Result<Option<T>, ReadError> {
        let found = self.root.find_named(&IndexPath::from(name));
        let read = found.map(|(file_name, blob)| {
            let read = |content: &[u8]| read(file_name, content);
            self.repository.read_blob(blob, read)
        });
        read.transpose()
    }
}
