//! Tests of views: stored files, edited lines, restarts, new clones.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::follower::Follower;
use super::settings::{FollowerSettings, GitIndexSettings, Network};
use super::stored_files::{Stopping, StoredFiles};
use crate::index::source::remote_url::RemoteUrl;
use crate::index::testing::{TestIndex, checksum, line, read_crate};
use crate::index::{GitProgram, IndexHandle};
use crate::policy::{Rule, Rules};

type Meanwhile = Box<dyn Fn() + Send>;

/// The stored files, as a test sets them. With `None` the look-up fails.
#[derive(Clone, Default)]
struct Shelf {
    /// Runs during the next look-up.
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
    numbers: Arc<Mutex<Option<Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
}

impl Shelf {
    fn put(&self, numbers: Option<&[u8]>) {
        *self.numbers.lock().unwrap_or_else(PoisonError::into_inner) = numbers.map(<[u8]>::to_vec);
    }

    fn stored_files(&self) -> StoredFiles {
        let shelf = self.clone();
        StoredFiles::new(move || {
            shelf.asked.fetch_add(1, Ordering::Relaxed);
            if let Some(meanwhile) = shelf.meanwhile.lock().unwrap().take() {
                meanwhile();
            }
            let numbers = shelf.numbers.lock().unwrap();
            let numbers = numbers.as_ref().ok_or("the shelf is locked")?;
            Ok(numbers.iter().map(|number| checksum(*number)).collect())
        })
    }
}

struct Scene {
    index: TestIndex,
    shelf: Shelf,
    handle: IndexHandle,
    mirror: Follower,
}

impl Scene {
    /// An offline mirror with an imported index.
    fn offline(stored: &[u8]) -> Self {
        let mut index = TestIndex::new(&[
            ("config.json", "{}"),
            ("1/a", &format!("{}\n{}\n", line("a", 1), line("a", 2))),
            ("2/io", &format!("{}\n", line("io", 3))),
        ]);
        index.refresh();
        index.stop();
        let shelf = Shelf::default();
        shelf.put(Some(stored));
        let handle = IndexHandle::new();
        let mirror = Follower::new(Self::settings(&index, &shelf), handle.clone());
        Self {
            index,
            shelf,
            handle,
            mirror,
        }
    }

    fn settings(index: &TestIndex, shelf: &Shelf) -> FollowerSettings {
        FollowerSettings {
            url: RemoteUrl::parse("https://127.0.0.1:1/index").unwrap(),
            network: Network::Forbidden,
            rules: Rules::new(vec![Rule::StoredOnly]),
            stored_files: Some(shelf.stored_files()),
            git_index: Some(GitIndexSettings {
                config: "{}".to_owned(),
                program: GitProgram::new("/nonexistent".into()),
            }),
            ..index.settings()
        }
    }

    fn restart(&mut self) {
        self.handle = IndexHandle::new();
        let settings = Self::settings(&self.index, &self.shelf);
        self.mirror = Follower::new(settings, self.handle.clone());
    }

    fn step(&mut self) {
        self.mirror.step();
        assert_eq!(self.handle.status().last_error, None);
    }

    fn a(&self) -> Option<String> {
        read_crate(&self.handle, "a")
    }

    /// The index file of `a` in the git index.
    fn a_over_git(&self) -> Option<String> {
        let view = self.handle.view().unwrap();
        let served = view.git_index().unwrap();
        let git = git2::Repository::open_bare(&served.path).unwrap();
        let tip = git.find_reference("refs/heads/master").unwrap();
        let tree = tip.peel_to_tree().unwrap();
        let entry = tree.get_path(Path::new("1/a")).ok()?;
        let blob = git.find_blob(entry.id()).unwrap();
        Some(String::from_utf8(blob.content().to_vec()).unwrap())
    }
}

#[test]
fn every_surface_shows_the_stored_files_and_follows_changes() {
    let mut scene = Scene::offline(&[2]);
    scene.step();
    let (one, two) = (format!("{}\n", line("a", 1)), format!("{}\n", line("a", 2)));
    assert_eq!(scene.a().as_ref(), Some(&two));
    assert_eq!(scene.a_over_git(), scene.a());
    assert_eq!(read_crate(&scene.handle, "io"), None);
    let before = scene.handle.view().unwrap();
    assert_eq!(before.crate_count(), 1);
    let upstream = scene.index.handle.view().unwrap().commit();
    assert_eq!(before.commit(), upstream);

    scene.shelf.put(Some(&[1, 2, 3]));
    scene.step();
    assert_eq!(scene.a(), Some(format!("{one}{two}")));
    assert_eq!(scene.a_over_git(), scene.a());
    assert_eq!(scene.handle.view().unwrap().crate_count(), 2);
    assert_eq!(scene.handle.view().unwrap().commit(), upstream);

    scene.shelf.put(Some(&[]));
    scene.step();
    assert_eq!((scene.a(), scene.a_over_git()), (None, None));
    assert_eq!(before.crate_count(), 1, "a view never changes");
}

#[test]
fn without_changes_the_view_and_the_packs_stay_even_after_a_restart() {
    let mut scene = Scene::offline(&[2]);
    scene.step();
    let before = scene.handle.view().unwrap();
    scene.step();
    let after = scene.handle.view().unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    let packs = |scene: &Scene| {
        let clone = scene
            .handle
            .view()
            .unwrap()
            .source()
            .repository()
            .path()
            .to_owned();
        let names = std::fs::read_dir(clone.join("objects/pack")).unwrap();
        names.count()
    };
    let packs_before = packs(&scene);
    scene.restart();
    scene.step();
    assert_eq!(packs(&scene), packs_before);
    assert_eq!(scene.a(), Some(format!("{}\n", line("a", 2))));
    assert_eq!(scene.shelf.asked.load(Ordering::Relaxed), 3);
}

#[test]
fn a_clone_whose_packs_were_rolled_up_shows_the_same() {
    let mut scene = Scene::offline(&[2]);
    scene.mirror.clones.settings.upkeep.packs_max = 2;
    scene.step();
    let rolled_up = scene.handle.view().unwrap();
    assert_ne!(
        rolled_up.source().repository().path(),
        scene
            .index
            .handle
            .view()
            .unwrap()
            .source()
            .repository()
            .path()
    );
    assert_eq!(scene.a(), Some(format!("{}\n", line("a", 2))));
    assert_eq!(scene.a_over_git(), scene.a());
    scene.shelf.put(Some(&[1, 3]));
    scene.step();
    assert_eq!(scene.a(), Some(format!("{}\n", line("a", 1))));
    assert_eq!(scene.a_over_git(), scene.a());
    assert_eq!(scene.handle.view().unwrap().crate_count(), 2);
}

#[test]
fn while_the_stored_files_are_unknown_the_last_view_stays() {
    let mut scene = Scene::offline(&[2]);
    scene.shelf.put(None);
    scene.mirror.step();
    let why = scene.handle.status().last_error.unwrap();
    assert!(why.contains("the shelf is locked"), "{why}");
    assert!(scene.handle.view().is_none(), "no look-up has succeeded");
    scene.shelf.put(Some(&[2]));
    scene.step();
    scene.shelf.put(None);
    scene.step();
    assert_eq!(scene.a(), Some(format!("{}\n", line("a", 2))));
    scene.restart();
    scene.step();
    assert_eq!(scene.a(), Some(format!("{}\n", line("a", 2))));
}

#[test]
fn rules_apply_to_new_commits_and_new_clones() {
    let mut index = TestIndex::new(&[("1/a", &line("a", 1)), ("2/io", &line("io", 3))]);
    let shelf = Shelf::default();
    shelf.put(Some(&[3]));
    index.settings_mut(|settings| {
        settings.rules = Rules::new(vec![Rule::StoredOnly]);
        settings.stored_files = Some(shelf.stored_files());
    });
    index.refresh();
    assert_eq!(index.handle.view().unwrap().crate_count(), 1);
    index.replace_clone();
    assert_eq!(index.handle.view().unwrap().crate_count(), 1);
    shelf.put(None);
    let second = index.commit(&[("2/io", &line("io", 3)), ("1/b", &line("b", 4))]);
    index.refresh();
    let shown = index.handle.view().unwrap().commit().to_string();
    assert_ne!(shown, second, "its stored files are unknown");
    shelf.put(Some(&[4]));
    index.refresh();
    let shown = index.handle.view().unwrap();
    assert_eq!(shown.commit().to_string(), second);
    assert_eq!(read_crate(&index.handle, "b"), Some(line("b", 4)));
    assert_eq!(read_crate(&index.handle, "io"), None);
}

#[test]
fn an_import_can_run_during_the_look_up_of_stored_files() {
    let mut scene = Scene::offline(&[2]);
    scene.step();
    scene
        .index
        .commit(&[("1/a", &line("a", 1)), ("1/b", &line("b", 2))]);
    let settings = scene.index.settings();
    *scene.shelf.meanwhile.lock().unwrap() = Some(Box::new(move || {
        crate::index::refresh_once(settings.clone(), &IndexHandle::new()).unwrap();
    }));
    scene.step();
    assert_eq!(scene.a(), None);
    assert_eq!(read_crate(&scene.handle, "b"), Some(line("b", 2)));
}

#[test]
fn a_stop_during_the_look_up_is_no_failure() {
    let mut scene = Scene::offline(&[2]);
    scene.step();
    scene.mirror.publisher.maker.stored_files = Some(StoredFiles::new(|| Err(Stopping.into())));
    scene.step();
    assert!(
        !scene.mirror.publisher.maker.facts_told.note_success(),
        "a stop is not logged as a failure"
    );
}

/// The index files of these crates.
fn texts(handle: &IndexHandle, names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| read_crate(handle, name)).collect()
}

#[test]
fn a_view_made_from_the_previous_one_equals_a_view_made_from_scratch() {
    let mut scene = Scene::offline(&[1, 3, 5, 7]);
    let rules = || Rules::new(vec![Rule::StoredOnly, Rule::EveryThirdYanked]);
    let names = ["a", "b", "io", "abcd", "abce", "serde"];
    let state = |lines: &[(&str, &[u8])], top: &str| {
        let mut files = vec![("config.json".to_owned(), "{}".to_owned())];
        files.push((top.to_owned(), "text".to_owned()));
        files.push((".github/workflows/x".to_owned(), top.to_owned()));
        for (name, numbers) in lines {
            let name_of = crate::package::CrateName::try_from((*name).to_owned()).unwrap();
            let path = crate::package::IndexPath::from(&name_of);
            let text = numbers.iter().map(|number| line(name, *number) + "\n");
            files.push((path.as_str().to_owned(), text.collect()));
        }
        files
    };
    let states = [
        state(
            &[("a", &[1, 2]), ("abcd", &[3, 4]), ("abce", &[5])],
            "README.md",
        ),
        state(
            &[("a", &[1, 2]), ("abcd", &[3, 4]), ("abce", &[5])],
            "LICENSE",
        ),
        state(
            &[("a", &[2]), ("abcd", &[3, 4, 5]), ("io", &[7])],
            "LICENSE",
        ),
        state(
            &[("b", &[6, 3]), ("abcd", &[4]), ("serde", &[1, 3])],
            "LICENSE",
        ),
        state(&[("serde", &[1, 3])], "README.md"),
        state(&[("a", &[1, 2]), ("abcd", &[3, 4]), ("abce", &[5])], "ab"),
    ];
    let shelf = scene.shelf.clone();
    scene.index.settings_mut(|settings| {
        settings.rules = rules();
        settings.stored_files = Some(shelf.stored_files());
        settings.git_index = Some(GitIndexSettings {
            config: "{}".to_owned(),
            program: GitProgram::new("/nonexistent".into()),
        });
    });
    for files in states {
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        scene.index.commit(&files);
        scene.index.refresh();
        let followed = scene.index.handle.view().unwrap();
        let mut fresh = TestIndex::new(&files);
        fresh.settings_mut(|settings| {
            settings.rules = rules();
            settings.stored_files = Some(shelf.stored_files());
        });
        fresh.refresh();
        let made_fresh = fresh.handle.view().unwrap();
        assert_eq!(followed.root().tree, made_fresh.root().tree, "{files:?}");
        assert_eq!(
            texts(&scene.index.handle, &names),
            texts(&fresh.handle, &names)
        );
        // The git index has the same tree with another config.json.
        let served = followed.git_index().unwrap();
        let git = git2::Repository::open_bare(&served.path).unwrap();
        let tip = git.find_reference("refs/heads/master").unwrap();
        let mut git_tree = git.treebuilder(Some(&tip.peel_to_tree().unwrap())).unwrap();
        git_tree.remove("config.json").unwrap();
        let shown = git
            .find_tree(followed.root().tree.to_oid().unwrap())
            .unwrap();
        let mut shown = git.treebuilder(Some(&shown)).unwrap();
        shown.remove("config.json").unwrap();
        assert_eq!(git_tree.write().unwrap(), shown.write().unwrap());
    }
}
