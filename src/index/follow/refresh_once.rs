//! Opens or refreshes the index once, for subcommands. Everything here blocks.

use std::path::Path;
use std::sync::Arc;

use super::error::RefreshError;
use super::follower::Follower;
use super::settings::FollowerSettings;
use crate::index::handle::IndexHandle;
use crate::index::limits::ReadError;
use crate::index::source::clone_dir;
use crate::index::source::clone_in_use::read_clone_in_use;
use crate::index::source::snapshot::Source;
use crate::index::stop::StopFlag;

/// Opens the clone in use for reading, even if a mirror is running on it. Returns `None` if there is no clone. The
/// mirror does not remove the clone as long as the source exists. The source is the upstream's index, without rules.
pub(crate) fn open_current(data_dir: &Path) -> Result<Option<Arc<Source>>, ReadError> {
    let root = clone_dir::root(data_dir);
    read_clone_in_use(&root, |_path, repository| {
        // Never stopped: a subcommand ends with its process.
        Source::read(&repository, None, &StopFlag::new()).map(Arc::new)
    })
}

/// An up-to-date index. Its data directory is locked.
#[derive(Debug)]
pub(crate) struct LockedIndex {
    /// The upstream's index.
    pub(crate) source: Arc<Source>,
    /// Holds the lock on the data directory.
    _follower: Follower,
}

/// Why there is no up-to-date index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshOnceError {
    /// A running mirror or another subcommand has locked the data directory.
    #[error("another mirror is using this DATA_DIR")]
    Locked,
    /// The data directory cannot be used, or the index could not be cloned, fetched or read. Without secrets.
    #[error("the index could not be brought up to date: {0}")]
    Failed(String),
}

/// Makes one refresh, as a running mirror does: opens the clone or makes one, and fetches, as the settings say.
/// `handle` reports the progress.
pub(crate) fn refresh_once(
    settings: FollowerSettings,
    handle: &IndexHandle,
) -> Result<LockedIndex, RefreshOnceError> {
    // A follower that never runs as a task: it makes one refresh, and keeps the data directory locked.
    let mut follower = Follower::new(settings, handle.clone());
    follower.refresh_once().map_err(|error| match error {
        RefreshError::Locked => RefreshOnceError::Locked,
        other => RefreshOnceError::Failed(other.to_string()),
    })?;
    let view = handle
        .view()
        .ok_or_else(|| RefreshOnceError::Failed("there is no index".to_owned()))?;
    Ok(LockedIndex {
        source: Arc::clone(view.source()),
        _follower: follower,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::TestIndex;

    #[test]
    fn the_clone_of_a_running_mirror_can_be_read_and_outlives_its_replacement() {
        let mut index = TestIndex::new(&[("1/a", "old")]);
        assert!(open_current(&index.data_dir()).unwrap().is_none());
        index.refresh();
        let opened = open_current(&index.data_dir()).unwrap().unwrap();
        assert_eq!(opened.commit(), index.handle.view().unwrap().commit());
        let read = || open_and_read(&opened);
        assert_eq!(read(), "old");
        index.commit(&[("1/a", "new")]);
        index.replace_clone();
        index.refresh();
        assert!(opened.repository().path().exists());
        assert_eq!(read(), "old");
        let again = open_current(&index.data_dir()).unwrap().unwrap();
        assert_eq!(open_and_read(&again), "new");
        let old_path = opened.repository().path().to_owned();
        drop(opened);
        index.refresh();
        assert!(!old_path.exists(), "no process reads it any more");
    }

    fn open_and_read(source: &Source) -> String {
        let name = crate::package::CrateName::try_from("a".to_owned()).unwrap();
        let content = source
            .index_file(&name, |_, content| content.to_vec())
            .unwrap();
        String::from_utf8(content.unwrap()).unwrap()
    }

    #[test]
    fn a_subcommand_refreshes_the_index_and_locks_the_data_directory() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let first = refresh_once(index.settings(), &IndexHandle::new()).unwrap();
        assert_eq!(open_and_read(&first.source), "old");
        let second = refresh_once(index.settings(), &IndexHandle::new());
        assert!(matches!(second, Err(RefreshOnceError::Locked)));
        drop(first);
        index.commit(&[("1/a", "new")]);
        let third = refresh_once(index.settings(), &IndexHandle::new()).unwrap();
        assert_eq!(open_and_read(&third.source), "new");
    }

    #[test]
    fn a_subcommand_reports_why_there_is_no_index() {
        let index = TestIndex::new(&[]);
        index.remove_upstream();
        let result = refresh_once(index.settings(), &IndexHandle::new());
        assert!(matches!(result, Err(RefreshOnceError::Failed(_))));
        let file = index.data_dir().join("file");
        std::fs::create_dir_all(index.data_dir()).unwrap();
        std::fs::write(&file, "no directory").unwrap();
        let settings = FollowerSettings {
            data_dir: file,
            ..index.settings()
        };
        let why = refresh_once(settings, &IndexHandle::new()).unwrap_err();
        let why = why.to_string();
        assert!(
            why.contains("DATA_DIR: ") && why.contains("os error"),
            "{why}"
        );
    }
}
