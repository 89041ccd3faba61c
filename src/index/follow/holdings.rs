//! Showing only what is held: asking what that is, and making the pruned index anew when it or the upstream has changed.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::RefreshError;
use super::follower::Refresher;
use crate::index::source::clone_dir::write_atomically;
use crate::index::source::fetch::FetchError;
use crate::index::source::repository::Repository;
use crate::index::status::Phase;
use crate::index::view::prune::prune;
use crate::index::view::snapshot::Snapshot;
use crate::memory::return_freed_blocks;
use crate::package::Checksum;

/// What the last pruned tree of a clone was made of, in a file of the clone.
const RECORD: &str = "pruned.json";

/// Why what is held is not known.
pub(crate) type HoldingsError = Box<dyn Error + Send + Sync>;

/// Nobody was told what is held, because the mirror ends.
#[derive(Debug, thiserror::Error)]
#[error("the mirror is stopping")]
pub(crate) struct Stopping;

type Ask = dyn Fn() -> Result<HashSet<Checksum>, HoldingsError> + Send + Sync;

/// Tells which crate files are held. Cheap to clone; asking may block.
#[derive(Clone)]
pub(crate) struct Holdings(Arc<Ask>);

impl Holdings {
    /// Asked through this.
    pub(crate) fn new(
        ask: impl Fn() -> Result<HashSet<Checksum>, HoldingsError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Holdings")
    }
}

/// Whether the last question for what is held was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HoldingsState {
    #[default]
    Known,
    Unknown,
}

/// What a pruned tree was made of, and its id.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct PruneRecord {
    source: String,
    held: String,
    pruned: String,
}

impl Refresher {
    /// The state of a clone as it shall be shown.
    pub(crate) fn view(&mut self, repository: &Arc<Repository>) -> Result<Snapshot, RefreshError> {
        let previous = self.handle.snapshot();
        match self.settings.held {
            None => Ok(Snapshot::read(
                repository,
                previous.as_deref(),
                self.handle.stopping(),
            )?),
            Some(_) => self.pruned_view(repository, previous.as_deref()),
        }
    }

    /// Shows what is held now, if that has changed since the current snapshot was made.
    pub(crate) fn follow_holdings(&mut self) -> Result<(), RefreshError> {
        match (self.current.clone(), &self.settings.held) {
            (Some(repository), Some(_)) => self.show(&repository),
            _ => Ok(()),
        }
    }

    /// Publishes the state of the current clone, if it is another one than before.
    pub(crate) fn show(&mut self, repository: &Arc<Repository>) -> Result<(), RefreshError> {
        let view = self.view(repository);
        repository.close_idle_handles();
        let previous = self.handle.snapshot();
        match (view, previous) {
            (Ok(view), Some(previous)) if previous.shows_the_same_as(&view) => {
                self.repair_git_index(repository, &view);
            }
            (Ok(view), _) => self.publish(Arc::clone(repository), view, "the index has changed"),
            // That was said already, and what was held a moment ago mostly still is.
            (Err(RefreshError::Holdings(_)), Some(_previous)) => {}
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    fn pruned_view(
        &mut self,
        repository: &Arc<Repository>,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot, RefreshError> {
        let (commit, source) = repository.upstream()?;
        let handle = self.handle.clone();
        let show =
            |tree| Snapshot::read_tree(repository, (commit, tree), previous, handle.stopping());
        let last = PruneRecord::read(repository.path())
            .filter(|last| last.source == source.to_string())
            .and_then(|last| Some((repository.find_tree(&last.pruned)?, last)));
        let held = self.held_now.take().unwrap_or_else(|| self.ask());
        let held = match (held, &last) {
            (Ok(held), _) => held,
            // Better what was held when the tree was made than nothing.
            (Err(_), Some((tree, _))) => {
                return Ok(show(*tree)?);
            }
            (Err(error), None) => return Err(error),
        };
        let fingerprint = fingerprint(&held);
        if let Some((tree, _)) = last.filter(|(_, last)| last.held == fingerprint) {
            drop(held);
            return_freed_blocks();
            return Ok(show(tree)?);
        }
        if !repository.is_writable() {
            return Err(RefreshError::NowhereToPrune);
        }
        let progress = self.handle.begin(Phase::Pruning);
        let whole = Snapshot::read(repository, None, self.handle.stopping())?;
        let pruned = prune(&whole, &held, &progress)?;
        drop(whole);
        repository.close_idle_handles();
        drop(held);
        return_freed_blocks();
        PruneRecord {
            source: source.to_string(),
            held: fingerprint,
            pruned: pruned.to_string(),
        }
        .write(repository.path());
        Ok(show(pruned)?)
    }

    /// Asks what is held. Says in the log when that begins to fail, and when it works again.
    pub(crate) fn ask(&mut self) -> Result<HashSet<Checksum>, RefreshError> {
        let asked = match &self.settings.held {
            Some(holdings) => holdings.0(),
            None => Ok(HashSet::new()),
        };
        if asked.as_ref().is_err_and(|error| error.is::<Stopping>()) {
            return Err(FetchError::Stopped.into());
        }
        let before = self.holdings;
        self.holdings = match &asked {
            Ok(_) => HoldingsState::Known,
            Err(_) => HoldingsState::Unknown,
        };
        match (&asked, before) {
            (Err(error), HoldingsState::Known) => tracing::warn!(
                error = %error,
                "which crate files are held cannot be told; the index goes on showing those held before"
            ),
            (Ok(_), HoldingsState::Unknown) => {
                tracing::info!("which crate files are held can be told again");
            }
            _ => {}
        }
        asked.map_err(|error| RefreshError::Holdings(error.to_string()))
    }
}

impl PruneRecord {
    fn read(clone: &Path) -> Option<Self> {
        let text = std::fs::read(clone.join(RECORD)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Without it the tree is made once more, after a restart too.
    fn write(&self, clone: &Path) {
        let written = serde_json::to_vec(self)
            .map_err(Into::into)
            .and_then(|text| write_atomically(clone, RECORD, &text));
        if let Err(error) = written {
            tracing::warn!(error = %error, "what the pruned index was made of could not be written to DATA_DIR");
        }
    }
}

/// Tells sets apart. Their order, which differs each time, does not count.
fn fingerprint(held: &HashSet<Checksum>) -> String {
    let sum = |seed: u8| {
        held.iter().fold(0_u64, |sum, checksum| {
            let mut hasher = DefaultHasher::new();
            (seed, checksum).hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        })
    };
    format!("{}-{:016x}{:016x}", held.len(), sum(0), sum(1))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::index::follow::settings::{GitIndexSettings, Network, RefresherSettings};
    use crate::index::source::remote_url::RemoteUrl;
    use crate::index::testing::{TestIndex, checksum, line, read_crate};
    use crate::index::{GitProgram, IndexHandle};

    type Meanwhile = Box<dyn Fn() + Send>;

    /// What is held, as a test says; `None` cannot be told.
    #[derive(Clone, Default)]
    struct Shelf {
        /// Done while somebody asks.
        meanwhile: Arc<Mutex<Option<Meanwhile>>>,
        numbers: Arc<Mutex<Option<Vec<u8>>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Shelf {
        fn put(&self, numbers: Option<&[u8]>) {
            *self.numbers.lock().unwrap_or_else(PoisonError::into_inner) =
                numbers.map(<[u8]>::to_vec);
        }

        fn holdings(&self) -> Holdings {
            let shelf = self.clone();
            Holdings::new(move || {
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
        mirror: Refresher,
    }

    impl Scene {
        /// An index that was imported, of a mirror that may ask nobody.
        fn offline(held: &[u8]) -> Self {
            let mut index = TestIndex::new(&[
                ("config.json", "{}"),
                ("1/a", &format!("{}\n{}\n", line("a", 1), line("a", 2))),
                ("2/io", &format!("{}\n", line("io", 3))),
            ]);
            index.refresh();
            index.stop();
            let shelf = Shelf::default();
            shelf.put(Some(held));
            let handle = IndexHandle::new();
            let mirror = Refresher::new(Self::settings(&index, &shelf), handle.clone());
            Self {
                index,
                shelf,
                handle,
                mirror,
            }
        }

        fn settings(index: &TestIndex, shelf: &Shelf) -> RefresherSettings {
            RefresherSettings {
                url: RemoteUrl::parse("https://127.0.0.1:1/index").unwrap(),
                network: Network::Forbidden,
                held: Some(shelf.holdings()),
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
            self.mirror = Refresher::new(settings, self.handle.clone());
        }

        fn step(&mut self) {
            self.mirror.step();
            assert_eq!(self.handle.status().last_error, None);
        }

        fn a(&self) -> Option<String> {
            read_crate(&self.handle, "a")
        }

        /// The same as git clients get it.
        fn a_over_git(&self) -> Option<String> {
            let served = self.handle.served().unwrap();
            let git = git2::Repository::open_bare(served.path()).unwrap();
            let tip = git.find_reference("refs/heads/master").unwrap();
            let tree = tip.peel_to_tree().unwrap();
            let entry = tree.get_path(Path::new("1/a")).ok()?;
            let blob = git.find_blob(entry.id()).unwrap();
            Some(String::from_utf8(blob.content().to_vec()).unwrap())
        }
    }

    #[test]
    fn every_surface_shows_what_is_held_and_follows_it() {
        let mut scene = Scene::offline(&[2]);
        scene.step();
        let (one, two) = (format!("{}\n", line("a", 1)), format!("{}\n", line("a", 2)));
        assert_eq!(scene.a().as_ref(), Some(&two));
        assert_eq!(scene.a_over_git(), scene.a());
        assert_eq!(read_crate(&scene.handle, "io"), None);
        let before = scene.handle.snapshot().unwrap();
        assert_eq!(before.crate_count(), 1);
        let upstream = scene.index.handle.snapshot().unwrap().commit();
        assert_eq!(before.commit(), upstream);

        scene.shelf.put(Some(&[1, 2, 3]));
        scene.step();
        assert_eq!(scene.a(), Some(format!("{one}{two}")));
        assert_eq!(scene.a_over_git(), scene.a());
        assert_eq!(scene.handle.snapshot().unwrap().crate_count(), 2);
        assert_eq!(scene.handle.snapshot().unwrap().commit(), upstream);

        scene.shelf.put(Some(&[]));
        scene.step();
        assert_eq!((scene.a(), scene.a_over_git()), (None, None));
        assert_eq!(before.crate_count(), 1, "who has a snapshot keeps it");
    }

    #[test]
    fn nothing_is_done_while_nothing_changes_also_after_a_restart() {
        let mut scene = Scene::offline(&[2]);
        scene.step();
        let before = scene.handle.snapshot().unwrap();
        scene.step();
        let after = scene.handle.snapshot().unwrap();
        assert!(Arc::ptr_eq(&before, &after));
        let packs = |scene: &Scene| {
            let clone = scene
                .handle
                .snapshot()
                .unwrap()
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
        scene.mirror.settings.upkeep.packs_max = 2;
        scene.step();
        let rolled_up = scene.handle.snapshot().unwrap();
        assert_ne!(
            rolled_up.repository().path(),
            scene.index.handle.snapshot().unwrap().repository().path()
        );
        assert_eq!(scene.a(), Some(format!("{}\n", line("a", 2))));
        assert_eq!(scene.a_over_git(), scene.a());
        scene.shelf.put(Some(&[1, 3]));
        scene.step();
        assert_eq!(scene.a(), Some(format!("{}\n", line("a", 1))));
        assert_eq!(scene.a_over_git(), scene.a());
        assert_eq!(scene.handle.snapshot().unwrap().crate_count(), 2);
    }

    #[test]
    fn while_it_cannot_be_told_what_is_held_the_last_state_stays() {
        let mut scene = Scene::offline(&[2]);
        scene.shelf.put(None);
        scene.mirror.step();
        let why = scene.handle.status().last_error.unwrap();
        assert!(why.contains("the shelf is locked"), "{why}");
        assert!(scene.handle.snapshot().is_none(), "nothing was ever told");
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
    fn a_new_commit_and_a_new_clone_are_pruned_too() {
        let mut index = TestIndex::new(&[("1/a", &line("a", 1)), ("2/io", &line("io", 3))]);
        let shelf = Shelf::default();
        shelf.put(Some(&[3]));
        index.settings_mut(|settings| settings.held = Some(shelf.holdings()));
        index.refresh();
        assert_eq!(index.handle.snapshot().unwrap().crate_count(), 1);
        index.replace_clone();
        assert_eq!(index.handle.snapshot().unwrap().crate_count(), 1);
        shelf.put(None);
        let second = index.commit(&[("2/io", &line("io", 3)), ("1/b", &line("b", 4))]);
        index.refresh();
        let shown = index.handle.snapshot().unwrap().commit().to_string();
        assert_ne!(shown, second, "what it would show cannot be told");
        shelf.put(Some(&[4]));
        index.refresh();
        let shown = index.handle.snapshot().unwrap();
        assert_eq!(shown.commit().to_string(), second);
        assert_eq!(read_crate(&index.handle, "b"), Some(line("b", 4)));
        assert_eq!(read_crate(&index.handle, "io"), None);
    }

    #[test]
    fn while_somebody_tells_what_is_held_an_index_can_be_imported() {
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
    fn a_stop_while_somebody_tells_what_is_held_is_no_failure() {
        let mut scene = Scene::offline(&[2]);
        scene.step();
        scene.mirror.settings.held = Some(Holdings::new(|| Err(Stopping.into())));
        scene.step();
        let state = scene.mirror.holdings;
        assert_eq!(state, HoldingsState::Known, "and nothing is logged");
    }

    #[test]
    fn sets_have_fingerprints_that_tell_them_apart() {
        let set = |numbers: &[u8]| fingerprint(&numbers.iter().map(|n| checksum(*n)).collect());
        assert_eq!(set(&[1, 2, 3]), set(&[3, 1, 2]));
        for other in [[].as_slice(), &[1, 2], &[1, 2, 4], &[1, 2, 3, 4]] {
            assert_ne!(set(other), set(&[1, 2, 3]));
        }
    }
}
