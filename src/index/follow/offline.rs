//! Serves an index without an upstream: the clone in the data directory, and each later import.
//!
//! The mirror cannot replace such a clone, so it never removes a damaged one. It locks the data directory only while it
//! reads and writes there. Between two steps, and during the look-up of stored files, an import can lock it.
//!
//! A data directory that is not writable is used without a lock, and for reading only.

use std::path::{Path, PathBuf};

use super::clones::Clones;
use super::error::RefreshError;
use super::publisher::Publisher;
use crate::index::source::borrowed_clone::BorrowedClone;
use crate::index::source::clone_dir::{
    self, Access, CloneDir, CloneRecord, DataDirError, refuses_for_good,
};
use crate::index::source::repository::Repository;

impl Clones {
    /// Serves the clone on disk, even if it is a clone of another index.
    pub(super) fn follow_disk(&mut self, publisher: &mut Publisher) -> Result<(), RefreshError> {
        if !self.try_lock_data_dir()? {
            return Ok(());
        }
        if publisher.maker.has_rules() && self.clone_on_disk().is_some() {
            // Unlocked during the look-up: with a large store it takes a while, and an import must not wait for it.
            self.directory = None;
            publisher.maker.look_up_facts_in_advance();
            if !self.try_lock_data_dir()? {
                return Ok(());
            }
        }
        let followed = self.show_clone_on_disk(publisher);
        publisher.maker.forget_facts();
        followed
    }

    /// Publishes the clone on disk, if it is not the current one.
    fn show_clone_on_disk(&mut self, publisher: &mut Publisher) -> Result<(), RefreshError> {
        if self.damaged_clone().is_some() {
            tracing::error!(
                "the clone on disk is damaged and nothing can replace it: import the index again; what can be read stays in use"
            );
        }
        match self.clone_on_disk() {
            Some(path) if !self.is_current(&path) => {
                self.serve_clone_of_any_index(&path, publisher)
            }
            None if self.current.is_none() => Err(RefreshError::NoIndex),
            _ => self.show_again(publisher),
        }
    }

    /// Locks the data directory, or uses it for reading only if it is not writable. Returns `false` if another process has
    /// locked it and there is a view already.
    fn try_lock_data_dir(&mut self) -> Result<bool, RefreshError> {
        if self.directory.is_none() {
            let root = clone_dir::root(&self.settings.data_dir);
            let opened = match CloneDir::open(root.clone()) {
                // Most likely an import is running. The next step serves its result.
                Err(DataDirError::Locked) if self.current.is_some() => return Ok(false),
                // For example in a container image, where it belongs to another user or is read-only.
                Err(DataDirError::Disk(error)) if refuses_for_good(&error) => {
                    tracing::debug!(error = %error, "DATA_DIR cannot be written to, and is only read");
                    CloneDir::read_only(root)
                }
                opened => opened?,
            };
            self.directory = Some(opened);
        }
        Ok(true)
    }

    fn clone_on_disk(&self) -> Option<PathBuf> {
        self.directory.as_ref().and_then(CloneDir::current)
    }

    fn is_current(&self, path: &Path) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.stands_for() == path && current.is_still_there())
    }

    fn serve_clone_of_any_index(
        &mut self,
        path: &Path,
        publisher: &mut Publisher,
    ) -> Result<(), RefreshError> {
        // A clone without a record is served, too.
        let record = clone_dir::read_record(path).ok();
        let is_ours = |record: &CloneRecord| record.is_of(&self.settings.url);
        if !record.as_ref().is_some_and(is_ours) {
            tracing::info!(
                index.upstream = %self.settings.url,
                "the index on disk is of another upstream than GIT_REPO_URL; it is served nevertheless"
            );
        }
        let last_success = record.and_then(|record| record.last_success());
        if self.directory.as_ref().is_some_and(CloneDir::is_read_only) {
            let repository = self.open_read_only(path)?;
            return self.serve(repository, last_success, publisher);
        }
        self.serve_clone(path, last_success, publisher)
    }

    /// Opens a read-only clone through a repository in the temporary directory that borrows its objects. If the
    /// temporary directory is not writable either, the clone itself is opened. Then there is no git index, and rules do
    /// not work.
    fn open_read_only(&self, path: &Path) -> Result<Repository, RefreshError> {
        match BorrowedClone::make(path, &self.settings.temp_dir) {
            Ok(borrowed) => Ok(Repository::open_borrowed(borrowed)?),
            Err(error) => {
                tracing::warn!(
                    error = %error,
                    directory = %self.settings.temp_dir.display(),
                    "DATA_DIR cannot be written to, and neither can the temporary directory: there is no git index, and \
                     INDEX_PRUNED does not work"
                );
                if clone_dir::leads_elsewhere(path) {
                    // In a writable clone `disarm` removes the files that point elsewhere. Here they would take effect.
                    let why = "it points to another repository, and is not writable".to_owned();
                    return Err(RefreshError::Damaged(why));
                }
                Ok(Repository::open(path, Access::ReadOnly)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::index::follow::follower::{Follower, NO_INDEX_PAUSE};
    use crate::index::follow::refresh_once::LockedIndex;
    use crate::index::follow::settings::{FollowerSettings, Network};
    use crate::index::source::remote_url::RemoteUrl;
    use crate::index::testing::{TestIndex, damage_clone, read_crate};
    use crate::index::{IndexHandle, refresh_once};

    /// An offline mirror on the data directory of `index`.
    fn offline(index: &TestIndex) -> (Follower, IndexHandle) {
        let handle = IndexHandle::new();
        (
            Follower::new(offline_settings(index), handle.clone()),
            handle,
        )
    }

    fn offline_settings(index: &TestIndex) -> FollowerSettings {
        FollowerSettings {
            // Nothing answers at this address, and the mirror must not try it.
            url: RemoteUrl::parse("https://127.0.0.1:1/index").unwrap(),
            network: Network::Forbidden,
            ..index.settings()
        }
    }

    /// Does what an import does: locks the data directory, and replaces the clone.
    fn import(index: &TestIndex) -> LockedIndex {
        refresh_once(index.settings(), &IndexHandle::new()).unwrap()
    }

    #[test]
    fn an_index_that_is_imported_later_is_found_without_a_restart() {
        let index = TestIndex::new(&[("1/a", "imported")]);
        let (mut mirror, handle) = offline(&index);
        for _ in 0..2 {
            assert_eq!(mirror.step(), Some(NO_INDEX_PAUSE));
            let why = handle.status().last_error.unwrap();
            assert!(why.contains("import one"), "{why}");
        }
        let importing = import(&index);
        assert_eq!(mirror.step(), Some(NO_INDEX_PAUSE));
        drop(importing);
        mirror.step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("imported"));
        let status = handle.status();
        assert_eq!((status.last_error, status.failures), (None, 0));
        assert!(status.last_success.is_some(), "of the clone's own fetch");
    }

    #[test]
    fn an_import_can_replace_the_clone_while_it_is_served() {
        let mut index = TestIndex::new(&[("1/a", "old")]);
        index.refresh();
        let (mut mirror, handle) = offline(&index);
        mirror.step();
        assert_eq!(
            handle.status().last_error.as_deref(),
            Some("cannot use DATA_DIR: another mirror is using this DATA_DIR")
        );
        index.stop();
        mirror.step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("old"));
        let old = handle.view().unwrap();
        index.commit(&[("1/a", "new")]);
        index.start_again();
        index.refresh();
        index.replace_clone();
        mirror.step();
        assert_eq!(
            handle.status().last_error,
            None,
            "a lock of another process is no failure"
        );
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("old"));
        index.stop();
        mirror.step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("new"));
        assert!(old.source().repository().path().exists());
        drop(old);
        mirror.step();
        let clones = fs::read_dir(index.data_dir().join("index")).unwrap();
        let clones = clones.filter(|entry| entry.as_ref().unwrap().path().is_dir());
        assert_eq!(clones.count(), 1, "the replaced one is removed");
    }

    #[test]
    fn a_damaged_clone_is_neither_removed_nor_replaced() {
        let mut index = TestIndex::new(&[("1/a", "one"), ("2/io", "two")]);
        index.refresh();
        index.stop();
        let (mut mirror, handle) = offline(&index);
        mirror.step();
        let clone = handle
            .view()
            .unwrap()
            .source()
            .repository()
            .path()
            .to_owned();
        damage_clone(&clone);
        handle
            .view()
            .unwrap()
            .source()
            .repository()
            .close_idle_handles();
        handle.view().unwrap().source().repository().suspect();
        mirror.step();
        assert!(handle.view().is_some() && clone.exists());
        // Drop every reader: libgit2 shares open packs between all handles of the same files.
        index.handle = IndexHandle::new();
        drop((mirror, handle));
        let (mut mirror, handle) = offline(&index);
        for _ in 0..3 {
            mirror.step();
        }
        assert!(handle.status().last_error.unwrap().contains("damaged"));
        assert!(clone.exists());
        assert_eq!(
            clone_dir::current_in(&index.data_dir()).as_ref(),
            Some(&clone)
        );
    }

    #[test]
    fn an_offline_mirror_clones_and_fetches_from_a_local_path() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let handle = IndexHandle::new();
        let settings = FollowerSettings {
            network: Network::Forbidden,
            ..index.settings()
        };
        let mut mirror = Follower::new(settings, handle.clone());
        mirror.step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("old"));
        index.commit(&[("1/a", "new")]);
        mirror.step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("new"));
    }

    #[test]
    fn a_rolled_up_clone_keeps_its_upstream_and_the_time_of_its_last_fetch() {
        let mut index = TestIndex::new(&[("1/a", "old")]);
        index.refresh();
        index.commit(&[("1/a", "new")]);
        index.refresh();
        index.stop();
        let path = clone_dir::current_in(&index.data_dir()).unwrap();
        let fetched = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        clone_dir::write_record(&path, &index.settings().url, Some(fetched)).unwrap();
        let (mut mirror, handle) = offline(&index);
        mirror.clones.settings.upkeep.packs_max = 2;
        mirror.step();
        let rolled_up = clone_dir::current_in(&index.data_dir()).unwrap();
        assert_ne!(rolled_up, path);
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("new"));
        let record = clone_dir::read_record(&rolled_up).unwrap();
        assert!(record.is_of(&index.settings().url));
        assert_eq!(record.last_success(), Some(fetched));
    }

    #[test]
    fn an_offline_subcommand_opens_the_clone_on_disk() {
        let mut index = TestIndex::new(&[("1/a", "old")]);
        let without = refresh_once(offline_settings(&index), &IndexHandle::new());
        assert!(without.unwrap_err().to_string().contains("import one"));
        index.refresh();
        index.stop();
        index.commit(&[("1/a", "new")]);
        let handle = IndexHandle::new();
        let opened = refresh_once(offline_settings(&index), &handle).unwrap();
        assert_eq!(opened.source.root().count, 1);
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("old"));
    }
}
