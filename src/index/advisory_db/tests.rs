//! The clone of the advisory database without a task: real repositories, called step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use git2::{Oid, Repository, Signature, Time};
use tempfile::TempDir;

use super::clone::DatabaseClone;
use super::handle::{AdvisoryHandle, AdvisoryState};
use super::settings::AdvisorySettings;
use crate::clock::Clock;
use crate::index::follow::settings::Network;
use crate::index::git::program::GitProgram;
use crate::index::handle::IndexHandle;
use crate::index::retry::Repairs;
use crate::index::source::clone_dir::CloneDir;
use crate::index::source::libgit2::configure;
use crate::index::source::remote_url::RemoteUrl;
use crate::index::source::upkeep::{UpkeepLimits, packs_in};
use crate::index::testing::{damage_clone, no_redirects};

/// A database on a path of this machine, and a mirror's clone of it.
struct Scene {
    directory: TempDir,
    settings: AdvisorySettings,
    handle: AdvisoryHandle,
    clone: DatabaseClone,
}

impl Scene {
    fn new() -> Self {
        let limit = Duration::from_secs(5);
        configure(limit, limit, "crates-io-mirror/test", None);
        let directory = TempDir::new().unwrap();
        let upstream = directory.path().join("upstream");
        Repository::init_bare(&upstream).unwrap();
        let settings = AdvisorySettings {
            url: RemoteUrl::parse(upstream.to_str().unwrap()).unwrap(),
            outgoing: no_redirects(),
            data_dir: directory.path().join("data"),
            temp_dir: directory.path().to_owned(),
            interval: Duration::from_secs(600),
            clock: Clock::system(),
            network: Network::Allowed,
            program: GitProgram::new("/nonexistent".into()),
            upkeep: UpkeepLimits::default(),
        };
        let handle = AdvisoryHandle::new(settings.url.to_string());
        let clone = DatabaseClone::new(settings.clone(), handle.clone(), IndexHandle::new());
        let scene = Self {
            directory,
            settings,
            handle,
            clone,
        };
        scene.commit(&[advisory("RUSTSEC-2026-0001", "evil")]);
        scene
    }

    /// Another mirror's clone of the same database, with these changes of the settings.
    fn again(&mut self, change: impl FnOnce(&mut AdvisorySettings)) {
        change(&mut self.settings);
        self.handle = AdvisoryHandle::new(self.settings.url.to_string());
        // The old clone goes first, with its lock.
        self.clone = self.second();
    }

    fn second(&self) -> DatabaseClone {
        let settings = self.settings.clone();
        DatabaseClone::new(settings, self.handle.clone(), IndexHandle::new())
    }

    /// Makes a commit without a parent, as a squash does.
    fn commit(&self, files: &[(String, String)]) -> String {
        let git = Repository::open_bare(self.upstream()).unwrap();
        let mut index = git2::Index::new().unwrap();
        for (path, content) in files {
            let id = git.blob(content.as_bytes()).unwrap();
            index.add(&entry(path, id)).unwrap();
        }
        let tree = git.find_tree(index.write_tree_to(&git).unwrap()).unwrap();
        let when = Time::new(1_700_000_000, 0);
        let who = Signature::new("db", "db@example.invalid", &when).unwrap();
        let commit = git.commit(None, &who, &who, "state", &tree, &[]).unwrap();
        git.reference("refs/heads/trunk", commit, true, "moved")
            .unwrap();
        git.set_head("refs/heads/trunk").unwrap();
        commit.to_string()
    }

    fn upstream(&self) -> PathBuf {
        self.directory.path().join("upstream")
    }

    fn clone_path(&self) -> PathBuf {
        let root = self.settings.directory();
        CloneDir::read_only(root).current().unwrap()
    }

    fn refresh(&mut self) {
        let failed = self.clone.refresh();
        assert_eq!(failed, None, "{:?}", self.handle.status().last_error);
    }

    fn fail(&mut self) -> String {
        assert!(self.clone.refresh().is_some());
        self.handle.status().last_error.unwrap()
    }

    fn commit_shown(&self) -> String {
        self.handle.advisories().unwrap().commit.clone()
    }
}

fn advisory(id: &str, package: &str) -> (String, String) {
    let file = format!(
        "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{package}\"\ndate = \"2026-08-20\"\n\
         categories = [\"malicious\"]\n\n[versions]\npatched = []\n```\n\n# Title\n\nText\n"
    );
    (format!("crates/{package}/{id}.md"), file)
}

fn entry(path: &str, id: Oid) -> git2::IndexEntry {
    // A leading `@` stands for a symlink.
    let (path, mode) = path
        .strip_prefix('@')
        .map_or((path, 0o100_644), |path| (path, 0o120_000));
    git2::IndexEntry {
        ctime: git2::IndexTime::new(0, 0),
        mtime: git2::IndexTime::new(0, 0),
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

/// All paths below a directory.
fn listing(path: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(listing(&path));
        }
        paths.push(path);
    }
    paths.sort();
    paths
}

#[test]
fn only_the_files_of_advisories_about_crates_are_read() {
    let mut scene = Scene::new();
    let (_, file) = advisory("RUSTSEC-2026-0002", "more");
    let with = |path: &str| (path.to_owned(), file.clone());
    scene.commit(&[
        advisory("RUSTSEC-2026-0001", "evil"),
        with("crates/more/RUSTSEC-2026-0002.md"),
        with("rust/std/RUSTSEC-2026-0003.md"),
        with("crates/RUSTSEC-2026-0004.md"),
        with("crates/more/README.md"),
        with("crates/more/RUSTSEC-2026-0005.toml"),
        with("crates/more/deeper/RUSTSEC-2026-0006.md"),
        with("RUSTSEC-2026-0007.md"),
        with("@crates/more/RUSTSEC-2026-0008.md"),
        (
            "crates/more/RUSTSEC-2026-0009.md".to_owned(),
            "x".repeat(300_000),
        ),
        (
            "crates/more/RUSTSEC-2026-0010.md".to_owned(),
            "junk".to_owned(),
        ),
    ]);
    scene.refresh();
    let advisories = scene.handle.advisories().unwrap();
    assert_eq!(advisories.names().collect::<Vec<_>>(), ["evil", "more"]);
    assert_eq!((advisories.count(), advisories.skipped), (2, 3));
}

#[test]
fn a_repository_that_is_no_database_is_refused_and_the_last_copy_stays() {
    let mut scene = Scene::new();
    scene.commit(&[("README.md".to_owned(), "text".to_owned())]);
    assert_eq!(scene.handle.state(), AdvisoryState::Waiting);
    let why = "the advisory database is refused: it has no directory `crates`";
    assert_eq!(scene.fail(), why);
    assert_eq!(scene.handle.state(), AdvisoryState::Failed);
    let commit = scene.commit(&[advisory("RUSTSEC-2026-0001", "evil")]);
    scene.refresh();
    assert_eq!(scene.handle.state(), AdvisoryState::Ready);
    scene.commit(&[("README.md".to_owned(), "other".to_owned())]);
    assert_eq!(scene.fail(), why);
    assert_eq!(scene.commit_shown(), commit);
    // The same after a restart.
    scene.again(|_settings| {});
    scene.clone.open_copy_on_disk();
    assert_eq!(scene.commit_shown(), commit);
    assert_eq!(scene.fail(), why);
    let newest = scene.commit(&[advisory("RUSTSEC-2026-0002", "evil")]);
    scene.refresh();
    assert_eq!(scene.commit_shown(), newest);
    let clones = fs::read_dir(scene.settings.directory()).unwrap();
    assert_eq!(clones.count(), 3, "the clone, its name and the lock");
}

#[test]
fn a_squash_is_followed_and_old_history_and_packs_do_not_accumulate() {
    let mut scene = Scene::new();
    scene.again(|settings| {
        settings.upkeep = UpkeepLimits {
            packs_max: 4,
            slack_bytes: 40_000,
        };
    });
    for number in 0..12 {
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(9_000)
            .collect();
        let (path, file) = advisory("RUSTSEC-2026-0001", "evil");
        let commit = scene.commit(&[(path, format!("{file}{noise}{number}"))]);
        scene.refresh();
        assert_eq!(scene.commit_shown(), commit);
        // A fetch without new commits.
        let advisories = scene.handle.advisories().unwrap();
        scene.refresh();
        assert!(Arc::ptr_eq(
            &advisories,
            &scene.handle.advisories().unwrap()
        ));
        let packs = packs_in(&scene.clone_path()).unwrap().len();
        assert!(packs <= 5, "{packs} packs");
    }
    let clone = scene.clone_path();
    let bytes = crate::index::source::upkeep::bytes_in(&clone.join("objects"));
    assert!(bytes < 100_000, "{bytes} bytes");
    assert!(!clone.ends_with("clone-1"), "{clone:?}");
    let clones = fs::read_dir(scene.settings.directory()).unwrap();
    assert_eq!(clones.count(), 3, "the clone, its name and the lock");
}

#[test]
fn damage_is_found_at_the_next_fetch_and_a_new_clone_replaces_the_old_one() {
    let mut scene = Scene::new();
    scene.refresh();
    let (damaged, commit) = (scene.clone_path(), scene.commit_shown());
    // A client still reads the old clone.
    let client = scene.handle.git().unwrap();
    damage_clone(&damaged);
    scene.refresh();
    assert_ne!(scene.clone_path(), damaged);
    assert_eq!(scene.commit_shown(), commit);
    assert!(damaged.exists());
    drop(client);
    scene.refresh();
    assert!(!damaged.exists());

    // Damage while the mirror is stopped.
    damage_clone(&scene.clone_path());
    scene.again(|_settings| {});
    scene.clone.open_copy_on_disk();
    assert_eq!(scene.handle.state(), AdvisoryState::Waiting);
    scene.refresh();
    assert_eq!(scene.commit_shown(), commit);

    // A client reports damage while the upstream is unreachable. The copy in memory stays.
    assert!(!scene.clone.check(), "nothing is damaged");
    damage_clone(&scene.clone_path());
    assert!(scene.clone.check());
    assert!(
        !scene.clone.wait_for_check().is_zero(),
        "checks have pauses"
    );
    let gone = scene.directory.path().join("gone");
    fs::rename(scene.upstream(), &gone).unwrap();
    let why = scene.fail();
    assert!(
        why.starts_with("ADVISORY_DB_URL: ") && why.contains("does not exist"),
        "{why}"
    );
    assert_eq!(scene.handle.state(), AdvisoryState::Ready);
    fs::rename(gone, scene.upstream()).unwrap();
    scene.refresh();
    assert!(!scene.clone.check());
}

#[test]
fn a_directory_that_another_mirror_has_locked_is_only_read() {
    let mut scene = Scene::new();
    scene.refresh();
    let commit = scene.commit_shown();
    scene.handle = AdvisoryHandle::new("other".to_owned());
    let second = scene.second();
    let first = std::mem::replace(&mut scene.clone, second);
    let before = listing(&scene.settings.data_dir);
    scene.clone.open_copy_on_disk();
    assert_eq!(scene.commit_shown(), commit);
    assert!(scene.fail().contains("another mirror"));
    assert_eq!(scene.handle.state(), AdvisoryState::Ready);
    assert_eq!(listing(&scene.settings.data_dir), before);
    let git = scene.handle.git().unwrap();
    assert!(!git.path.starts_with(&scene.settings.data_dir), "{git:?}");
    // When the first one ends, the second one takes over.
    drop(first);
    let newest = scene.commit(&[advisory("RUSTSEC-2026-0002", "evil")]);
    scene.refresh();
    assert_eq!(scene.commit_shown(), newest);
}

#[test]
fn an_offline_mirror_uses_the_copy_on_disk_and_writes_nothing_without_one() {
    let mut scene = Scene::new();
    let local = scene.settings.url.clone();
    let remote = RemoteUrl::parse("https://127.0.0.1:1/db").unwrap();
    scene.again(|settings| {
        settings.network = Network::Forbidden;
        settings.url = remote.clone();
    });
    assert!(
        scene
            .fail()
            .contains("DATA_DIR contains no advisory database")
    );
    assert_eq!(scene.handle.state(), AdvisoryState::Failed);
    assert!(listing(&scene.settings.data_dir).is_empty());
    // A path on this machine is followed.
    scene.again(|settings| settings.url = local);
    scene.refresh();
    let commit = scene.commit_shown();
    let last_success = scene.handle.status().last_success.unwrap();
    // A copy of another upstream is better than none.
    scene.again(|settings| settings.url = remote);
    scene.clone.open_copy_on_disk();
    assert_eq!(scene.commit_shown(), commit);
    let advisories = scene.handle.advisories().unwrap();
    for _ in 0..2 {
        scene.refresh();
    }
    assert!(
        Arc::ptr_eq(&advisories, &scene.handle.advisories().unwrap()),
        "the same commit is no news"
    );
    let status = scene.handle.status();
    assert_eq!((status.failures, status.last_error), (0, None));
    assert!(
        last_success
            .duration_since(status.last_success.unwrap())
            .unwrap()
            // The record has whole seconds, and is written a moment earlier.
            < Duration::from_secs(30)
    );
    // The damage is reported, and the copy in memory stays.
    damage_clone(&scene.clone_path());
    assert!(scene.fail().contains("is damaged"));
    assert_eq!(scene.handle.state(), AdvisoryState::Ready);
    // Unlocked between two refreshes: the copy can be replaced.
    drop(CloneDir::open(scene.settings.directory()).unwrap());
}

#[test]
fn a_shallow_repository_on_this_machine_can_be_followed_and_served() {
    let mut scene = Scene::new();
    let (git, tip) = {
        let git = Repository::open_bare(scene.upstream()).unwrap();
        let tip = git.head().unwrap().peel_to_commit().unwrap().id();
        (git, tip)
    };
    let commit = git.find_commit(tip).unwrap();
    let text = String::from_utf8(git.odb().unwrap().read(tip).unwrap().data().to_vec()).unwrap();
    assert_eq!(commit.parent_count(), 0);
    let missing = "1".repeat(40);
    let text = text.replacen("author", &format!("parent {missing}\nauthor"), 1);
    let odb = git.odb().unwrap();
    let tip = odb
        .write(git2::ObjectType::Commit, text.as_bytes())
        .unwrap();
    git.reference("refs/heads/trunk", tip, true, "moved")
        .unwrap();
    fs::write(scene.upstream().join("shallow"), format!("{tip}\n")).unwrap();
    scene.refresh();
    assert_eq!(scene.commit_shown(), tip.to_string());
    let shallow = scene.clone_path().join("shallow");
    assert_eq!(fs::read_to_string(&shallow).unwrap(), format!("{tip}\n"));
    assert!(!scene.clone.check(), "the end of the history is no damage");
    // A rewritten history. libgit2 cannot compare it with a shallow one, so a new clone is made after a few failures.
    fs::remove_file(scene.upstream().join("shallow")).unwrap();
    let commit = scene.commit(&[advisory("RUSTSEC-2026-0002", "evil")]);
    for _ in 0..3 {
        let why = scene.fail();
        assert!(why.contains("object not found"), "{why}");
    }
    scene.clone.repairs = Repairs::default();
    scene.refresh();
    assert_eq!(scene.commit_shown(), commit);
    assert!(!scene.clone_path().join("shallow").exists());
}

#[test]
fn git_clients_get_a_head_that_points_to_main() {
    let mut scene = Scene::new();
    scene.refresh();
    let first = scene.handle.git().unwrap();
    scene.commit(&[advisory("RUSTSEC-2026-0002", "evil")]);
    scene.refresh();
    let newest = scene.handle.git().unwrap();
    assert!(!Arc::ptr_eq(&first, &newest));
    let git = Repository::open_bare(&newest.path).unwrap();
    let head = git.find_reference("HEAD").unwrap();
    assert_eq!(head.symbolic_target().unwrap(), Some("refs/heads/main"));
    let tip = git.refname_to_id("refs/heads/main").unwrap().to_string();
    assert_eq!(tip, newest.tip.to_string());
}
