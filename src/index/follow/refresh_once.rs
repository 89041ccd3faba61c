//! The index for subcommands, which are no running mirror. Everything here is blocking.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::RefreshError;
use super::follower::Follower;
use super::settings::FollowerSettings;
use crate::index::handle::IndexHandle;
use crate::index::limits::ReadError;
use crate::index::source::clone_dir::{self, Access};
use crate::index::source::repository::Repository;
use crate::index::source::snapshot::Source;
use crate::index::stop::StopFlag;

/// A subcommand ends with its process.
static NEVER: StopFlag = StopFlag::new();

/// How often to look again for the clone in use, if the one found was replaced and removed in that moment.
const ATTEMPTS_MAX: u32 = 5;

/// Opens the clone in use for reading, also while a mirror is running on it; `None` if there is none. For as long as the
/// snapshot lives the mirror does not remove the clone. The whole upstream index, also where a mirror prunes it.
pub(crate) fn open_current(data_dir: &Path) -> Result<Option<Arc<Source>>, ReadError> {
    let mut attempts = 1;
    loop {
        let Some(path) = clone_dir::current_in(data_dir) else {
            return Ok(None);
        };
        let opened = Repository::open(&path, Access::Full)
            .and_then(|repository| Source::read(&Arc::new(repository), None, &NEVER));
        match opened {
            Ok(source) => return Ok(Some(Arc::new(source))),
            // It may have been replaced and removed before it could be held.
            Err(_removed) if attempts < ATTEMPTS_MAX && was_replaced(data_dir, &path) => {
                attempts += 1
            }
            Err(error) => return Err(error),
        }
    }
}

fn was_replaced(data_dir: &Path, path: &PathBuf) -> bool {
    clone_dir::current_in(data_dir).as_ref() != Some(path)
}

/// The index, brought up to date, in a data directory that nobody else may use meanwhile.
#[derive(Debug)]
pub(crate) struct LockedIndex {
    source: Arc<Source>,
    /// Has possession of the data directory.
    _follower: Follower,
}

impl LockedIndex {
    /// What upstream has now.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

/// Why there is no up-to-date index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshOnceError {
    /// A running mirror, or another command, has possession of the data directory.
    #[error("another mirror is using this DATA_DIR")]
    Locked,
    /// The data directory cannot be used.
    #[error("cannot use DATA_DIR")]
    Disk(#[source] io::Error),
    /// It could not be cloned or fetched, or not be read. Without secrets.
    #[error("the index could not be brought up to date: {0}")]
    Failed(String),
}

/// Does once what a running mirror does again and again: opens the clone, makes one, fetches, as the settings say.
/// `handle` tells the progress meanwhile.
pub(crate) fn refresh_once(
    settings: FollowerSettings,
    handle: &IndexHandle,
) -> Result<LockedIndex, RefreshOnceError> {
    let mut follower = Follower::new(settings, handle.clone());
    follower.refresh_once().map_err(|error| match error {
        RefreshError::Locked => RefreshOnceError::Locked,
        RefreshError::Disk(error) => RefreshOnceError::Disk(error),
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
        assert!(!old_path.exists(), "nobody reads from it any more");
    }

    fn open_and_read(source: &Source) -> String {
        let name = crate::package::CrateName::try_from("a".to_owned()).unwrap();
        let content = source.index_file(&name, <[u8]>::to_vec).unwrap();
        String::from_utf8(content.unwrap()).unwrap()
    }

    #[test]
    fn a_command_brings_the_index_up_to_date_and_keeps_others_out_meanwhile() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let first = refresh_once(index.settings(), &IndexHandle::new()).unwrap();
        assert_eq!(open_and_read(first.source()), "old");
        let second = refresh_once(index.settings(), &IndexHandle::new());
        assert!(matches!(second, Err(RefreshOnceError::Locked)));
        drop(first);
        index.commit(&[("1/a", "new")]);
        let third = refresh_once(index.settings(), &IndexHandle::new()).unwrap();
        assert_eq!(open_and_read(third.source()), "new");
    }

    #[test]
    fn a_command_says_why_there_is_no_index() {
        let index = TestIndex::new(&[]);
        index.remove_upstream();
        let result = refresh_once(index.settings(), &IndexHandle::new());
        assert!(matches!(result, Err(RefreshOnceError::Failed(_))));
    }
}
