//! A real git index in a temporary directory, for the tests of other modules.

use std::path::{Path, PathBuf};

use git2::{Index, IndexEntry, IndexTime, Oid, Repository, Signature, Time};
use tempfile::TempDir;

use super::follow::follower::Follower;
use super::follow::settings::{FollowerSettings, Network};
use super::source::fetch::{Outgoing, Redirects};
use super::source::remote_url::RemoteUrl;
use super::{IndexHandle, UpkeepLimits, configure_libgit2};
use crate::clock::Clock;
use crate::outgoing::Proxies;
use crate::package::{Checksum, CrateName};
use crate::policy::Rules;

/// An upstream index and a clone of it, both in one temporary directory.
#[derive(Debug)]
pub(crate) struct TestIndex {
    directory: TempDir,
    settings: FollowerSettings,
    /// `None` while the data directory is not locked.
    follower: Option<Follower>,
    /// Publishes the views of the clone.
    pub(crate) handle: IndexHandle,
}

impl TestIndex {
    /// Makes an upstream index of these files (path and content). It is not cloned yet.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let limit = std::time::Duration::from_secs(5);
        configure_libgit2(limit, limit, "crates-io-mirror/test", None);
        let directory = tempfile::tempdir().unwrap();
        Repository::init_bare(directory.path().join("upstream")).unwrap();
        commit(&directory.path().join("upstream"), files);
        let settings = settings(directory.path());
        let handle = IndexHandle::new();
        let follower = Follower::new(settings.clone(), handle.clone());
        Self {
            directory,
            settings,
            follower: Some(follower),
            handle,
        }
    }

    /// Changes the settings, for the next fetch and all later ones.
    pub(crate) fn settings_mut(&mut self, change: impl FnOnce(&mut FollowerSettings)) {
        change(&mut self.settings);
        self.follower = None;
        self.start_again();
    }

    /// Drops the follower, which unlocks the data directory.
    pub(crate) fn stop(&mut self) {
        self.follower = None;
    }

    /// Makes a new follower.
    pub(crate) fn start_again(&mut self) {
        self.follower = Some(Follower::new(self.settings(), self.handle.clone()));
    }

    /// Makes a new follower in place of the one that runs.
    pub(crate) fn start_again_after_stop(&mut self) {
        self.stop();
        self.start_again();
    }

    fn follower(&mut self) -> &mut Follower {
        self.follower.as_mut().unwrap()
    }

    /// Replaces the upstream's content with one new commit without a parent, and returns its id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        commit(&self.directory.path().join("upstream"), files).to_string()
    }

    /// Adds a commit of this content to the upstream's history.
    pub(crate) fn commit_with_parents(&self, files: &[(&str, &str)]) {
        let path = self.directory.path().join("upstream");
        let upstream = Repository::open_bare(&path).unwrap();
        let parent = upstream.head().unwrap().peel_to_commit().unwrap();
        let new = upstream.find_commit(commit(&path, files)).unwrap();
        let who = new.author();
        let tree = new.tree().unwrap();
        let with_parent = upstream.commit(None, &who, &who, "state", &tree, &[&parent]);
        upstream
            .reference("refs/heads/master", with_parent.unwrap(), true, "moved")
            .unwrap();
    }

    /// The settings of the follower.
    pub(crate) fn settings(&self) -> FollowerSettings {
        self.settings.clone()
    }

    /// The data directory, which contains the clone.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.settings().data_dir
    }

    /// Removes the upstream.
    pub(crate) fn remove_upstream(&self) {
        std::fs::remove_dir_all(self.directory.path().join("upstream")).unwrap();
    }

    /// Replaces the current clone with a new one.
    pub(crate) fn replace_clone(&mut self) {
        let follower = self.follower();
        follower.clones.clone_anew(&mut follower.publisher).unwrap();
    }

    /// The number of index files that were read for the last tree through rules.
    pub(crate) fn files_read(&mut self) -> usize {
        self.follower().publisher.maker.files_read
    }

    /// Clones the upstream, or fetches from it, if that succeeds.
    pub(crate) fn try_refresh(&mut self) {
        self.follower().step();
    }

    /// Clones the upstream, or fetches from it.
    pub(crate) fn refresh(&mut self) {
        self.try_refresh();
        assert_eq!(self.handle.status().last_error, None);
    }
}

/// Overwrites every object file of a clone.
pub(crate) fn damage_clone(clone: &Path) {
    for directory in std::fs::read_dir(clone.join("objects")).unwrap() {
        for file in std::fs::read_dir(directory.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
        }
    }
}

/// A checksum made from a number.
pub(crate) fn checksum(number: u8) -> Checksum {
    let mut digest = [number; 32];
    digest[0] = 0;
    Checksum::from(digest)
}

/// The index line of a version with this checksum, without a line break.
pub(crate) fn line(name: &str, number: u8) -> String {
    format!(
        r#"{{"name":"{name}","vers":"0.{number}.0","deps":[],"cksum":"{}","features":{{}},"yanked":false}}"#,
        checksum(number)
    )
}

/// The content of a crate's index file.
pub(crate) fn read_crate(handle: &IndexHandle, name: &str) -> Option<String> {
    let name = CrateName::try_from(name.to_owned()).unwrap();
    let text = |content: &[u8]| String::from_utf8(content.to_vec()).unwrap();
    let view = handle.view().unwrap();
    let blob = view.find(&name)?;
    Some(view.read_blob(blob, text).unwrap())
}

/// Without proxies. Follows no redirects.
pub(crate) fn no_redirects() -> Outgoing {
    Outgoing {
        proxies: Proxies::default(),
        redirects: Redirects::new(|_address| Err("it has not moved".to_owned())),
    }
}

fn settings(directory: &Path) -> FollowerSettings {
    FollowerSettings {
        url: RemoteUrl::parse(directory.join("upstream").to_str().unwrap()).unwrap(),
        outgoing: no_redirects(),
        data_dir: directory.join("data"),
        interval: Some(std::time::Duration::from_secs(60)),
        clock: Clock::system(),
        git_index: None,
        network: Network::Allowed,
        rules: Rules::default(),
        stored_files: None,
        index_files_of: None,
        policy_lookup: None,
        lock_wait_max: std::time::Duration::ZERO,
        temp_dir: directory.to_owned(),
        upkeep: UpkeepLimits::default(),
    }
}

fn commit(repository: &Path, files: &[(&str, &str)]) -> Oid {
    let repository = Repository::open_bare(repository).unwrap();
    let mut index = Index::new().unwrap();
    for (path, content) in files {
        // A leading `@` stands for a symlink.
        let (path, mode) = path
            .strip_prefix('@')
            .map_or((*path, 0o100_644), |path| (path, 0o120_000));
        let id = repository.blob(content.as_bytes()).unwrap();
        index.add(&entry(path, id, mode)).unwrap();
    }
    let tree = index.write_tree_to(&repository).unwrap();
    let who = Signature::new(
        "index",
        "index@example.invalid",
        &Time::new(1_700_000_000, 0),
    )
    .unwrap();
    let tree = repository.find_tree(tree).unwrap();
    let commit = repository
        .commit(None, &who, &who, "state", &tree, &[])
        .unwrap();
    repository
        .reference("refs/heads/master", commit, true, "moved")
        .unwrap();
    repository.set_head("refs/heads/master").unwrap();
    commit
}

fn entry(path: &str, id: Oid, mode: u32) -> IndexEntry {
    IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn find(index: &TestIndex, name: &str) -> Option<String> {
        read_crate(&index.handle, name)
    }

    #[test]
    fn a_view_lists_index_files_at_their_places_and_nothing_else() {
        let mut index = TestIndex::new(&[
            ("config.json", "{}"),
            ("README.md", "text"),
            (".github/workflows/x", "text"),
            ("1/a", "one"),
            ("2/io", "two"),
            ("3/s/syn", "three"),
            ("a-/b-/a-b-c", "dashes"),
            ("a_/b_/a_b_d", "underscores"),
            ("se/rd/serde", "four"),
            ("se/rd/serde-json", "json"),
            ("xx/yy/wrong-place", "no"),
            ("wr/on/Wrong-Case", "no"),
            ("de/ep/er/deeper", "no"),
            ("@li/nk/link", "../../config.json"),
        ]);
        index.refresh();
        assert_eq!(index.handle.view().unwrap().crate_count(), 7);
        for (name, content) in [
            ("A", Some("one")),
            ("io", Some("two")),
            ("SYN", Some("three")),
            ("a_b_c", Some("dashes")),
            ("a-b_c", Some("dashes")),
            ("A-B-D", Some("underscores")),
            ("Serde", Some("four")),
            ("serde_json", Some("json")),
            ("serdejson", None),
            ("wrong-place", None),
            ("wrong-case", None),
            ("deeper", None),
            ("link", None),
            ("readme", None),
            ("github", None),
            ("absent", None),
        ] {
            assert_eq!(find(&index, name).as_deref(), content, "{name}");
        }
    }

    #[test]
    fn if_an_index_has_two_spellings_of_a_name_the_requested_one_is_found() {
        let mut index =
            TestIndex::new(&[("fo/o-/foo-bar", "dash"), ("fo/o_/foo_bar", "underscore")]);
        index.refresh();
        assert_eq!(find(&index, "foo-bar").unwrap(), "dash");
        assert_eq!(find(&index, "Foo_Bar").unwrap(), "underscore");
    }

    #[test]
    fn a_refresh_follows_changes_deletions_and_rewritten_history_and_old_views_stay_readable() {
        let mut index = TestIndex::new(&[
            ("1/a", "old"),
            ("se/rd/serde", "kept"),
            ("to/ki/tokio", "gone"),
        ]);
        index.refresh();
        let before = index.handle.view().unwrap();
        let commit = index.commit(&[("1/a", "new"), ("se/rd/serde", "kept"), ("2/io", "added")]);
        index.refresh();
        let after = index.handle.view().unwrap();
        assert_eq!(after.commit().to_string(), commit);
        assert_eq!(after.crate_count(), 3);
        assert_eq!(find(&index, "a").unwrap(), "new");
        assert_eq!(find(&index, "tokio"), None);
        let name = CrateName::try_from("tokio".to_owned()).unwrap();
        assert_eq!(
            before
                .read_blob(before.find(&name).unwrap(), <[u8]>::to_vec)
                .unwrap(),
            b"gone"
        );
        let is_shared = |name: &str| {
            let directories = [&before, &after].map(|view| view.source().root().directory(name));
            Arc::ptr_eq(directories[0].unwrap(), directories[1].unwrap())
        };
        assert!(is_shared("se") && !is_shared("1"));
    }
}
