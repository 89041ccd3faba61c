//! The publisher of views: swaps the pointer that requests read, and keeps the git index of the view with it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::error::RefreshError;
use super::settings::{FollowerSettings, GitIndexSettings};
use super::view_maker::ViewMaker;
use crate::index::git::damage_check::{Damage, DamageChecks};
use crate::index::git::overlay::{self, ShownTree};
use crate::index::git::upload_pack::GitIndex;
use crate::index::handle::IndexHandle;
use crate::index::retry::Repairs;
use crate::index::source::repository::Repository;
use crate::index::view::View;
use crate::index::view::large_files::LargeFiles;
use crate::observability::LastFailure;

/// The owner of the pointer that requests read.
#[derive(Debug)]
pub(crate) struct Publisher {
    handle: IndexHandle,
    /// Makes the views.
    pub(crate) maker: ViewMaker,
    git_index: Option<GitIndexSettings>,
    /// The states of the git index that requests may still read.
    git_indexes: Vec<Weak<GitIndex>>,
    /// What the log has told of a git index that could not be made.
    git_index_told: LastFailure,
    large_files: LargeFiles,
    /// The damage checks of the git index. Clients can trigger them.
    damage_checks: DamageChecks,
    /// The repairs of the git index. The clone has separate pauses.
    repairs: Repairs,
}

impl Publisher {
    /// Makes a publisher. It looks up and publishes nothing yet.
    pub(crate) fn new(settings: &FollowerSettings, handle: IndexHandle) -> Self {
        Self {
            maker: ViewMaker::new(settings, handle.clone()),
            handle,
            git_index: settings.git_index.clone(),
            git_indexes: Vec::new(),
            large_files: LargeFiles::default(),
            git_index_told: LastFailure::default(),
            damage_checks: DamageChecks::default(),
            repairs: Repairs::default(),
        }
    }

    /// Publishes the view of a clone, if it differs from the current one. If there was a fetch, it began at this time.
    pub(crate) fn show(
        &mut self,
        repository: &Arc<Repository>,
        began: Option<SystemTime>,
    ) -> Result<(), RefreshError> {
        let view = self.maker.view_of_fetch(repository, began);
        let previous = self.handle.view();
        if previous.is_none() {
            // The handles have read the whole index. Closing them frees that memory. After a refresh they have read
            // little, and the follower closes them from time to time.
            repository.close_idle_handles();
        }
        match (view, previous) {
            (Ok(view), Some(previous)) if previous.shows_the_same_as(&view) => {
                previous.confirm(&view);
                self.bring_git_index_up_to_date(&previous);
            }
            (Ok(view), _) => self.publish(view, "the index has changed"),
            // The current view stays: most files that were stored a moment ago still are. `look_up_facts` has logged
            // this.
            (Err(RefreshError::StoredFiles(_)), Some(_previous)) => {}
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    /// Publishes a view with its git index.
    pub(crate) fn publish(&mut self, view: View, message: &str) {
        tracing::info!(index.commit = %view.commit(), index.crates = view.crate_count(), "{message}");
        // First the git index, then the pointer: a request never sees a view whose git index shows an older state.
        let git_index = self.git_index_of(&view);
        let view = Arc::new(view.with_git_index(git_index));
        let previous = self.handle.view();
        self.handle.publish(Arc::clone(&view));
        // After the publication: reading the sizes of a whole new index can take seconds.
        let followed = self.large_files.follow(
            (view.source().repository(), view.source().root()),
            previous
                .as_deref()
                .map(|previous| &**previous.source().root()),
            self.handle.stopping(),
        );
        if let Err(error) = followed {
            tracing::debug!(error = %error, "the sizes of index files could not be read");
        }
        self.handle.warn(self.large_files.warnings());
    }

    /// The time until the next damage check of the git index is allowed.
    pub(super) fn wait_for_damage_check(&self) -> Duration {
        self.damage_checks.wait(Instant::now())
    }

    /// Checks the git index, and makes it again if it is damaged. Reports a damaged clone to the owner of the clones,
    /// which checks it again.
    pub(super) fn check_git_index(&mut self) {
        let Some(view) = self.handle.view() else {
            return;
        };
        let repository = view.source().repository();
        if self.git_index.is_none() || !repository.is_writable() {
            return;
        }
        let tip = view.git_index().map(|git_index| git_index.tip);
        let found = self
            .damage_checks
            .check(repository, tip, self.handle.stopping());
        match found {
            Ok(Some(Damage::GitIndex(why))) => self.repair_git_index(&view, &why),
            Ok(Some(Damage::Clone(object))) => {
                repository.note_unreadable(object);
                repository.suspect();
                self.handle.report_damage();
            }
            // There is no git index, perhaps because making it failed. Now nothing is damaged, so try again.
            Ok(None) if tip.is_none() => self.bring_git_index_up_to_date(&view),
            Ok(None) => {}
            // No result: the operating system refused, or the mirror is stopping.
            Err(error) => {
                tracing::debug!(error = %error, "the git index could not be checked");
                self.ask_again_without_git_index();
            }
        }
    }

    fn repair_git_index(&mut self, view: &View, why: &str) {
        let now = Instant::now();
        if !self.repairs.allowed(now) {
            self.ask_again_without_git_index();
            return;
        }
        self.repairs.note(now);
        tracing::warn!(error = why, "the git index is damaged; it is made again");
        if let Err(error) = overlay::remove(view.source().repository().path()) {
            tracing::warn!(error = %error, "the damaged git index could not be removed");
        }
        self.bring_git_index_up_to_date(view);
    }

    /// Requests another check while there is no git index: no client can run into the damage, and report it.
    fn ask_again_without_git_index(&self) {
        let view = self.handle.view();
        if view.is_some_and(|view| view.git_index().is_none()) {
            self.handle.request_damage_check();
        }
    }

    /// Brings the git index of the published view up to date, and publishes the view again if the git index has
    /// changed.
    fn bring_git_index_up_to_date(&mut self, view: &View) {
        let tip = |index: Option<&Arc<GitIndex>>| index.map(|index| index.tip);
        let git_index = self.git_index_of(view);
        if tip(git_index.as_ref()) != tip(view.git_index()) {
            let view = view.with_git_index(git_index);
            self.handle.publish(Arc::new(view));
        }
    }

    /// Makes the git index of a view. After a failure the view has none: git clients must not see another index than
    /// other clients, so they get 503.
    fn git_index_of(&mut self, view: &View) -> Option<Arc<GitIndex>> {
        let settings = self.git_index.as_ref()?;
        let repository = view.source().repository();
        if !repository.is_writable() {
            // `open_read_only` has logged this.
            return None;
        }
        let shown = ShownTree {
            commit: view.commit(),
            tree: view.root().tree,
        };
        self.git_indexes.retain(|index| index.strong_count() > 0);
        let in_use = self.git_indexes.iter().filter_map(Weak::upgrade);
        let in_use = in_use.map(|index| index.tip).collect();
        let made = overlay::bring_up_to_date(repository.path(), shown, &settings.config, &in_use);
        if let Some(error) = self.git_index_told.news_of(&made) {
            tracing::warn!(
                error,
                "the git index could not be brought up to date; git clients get 503 until it can"
            );
        }
        let Ok(tip) = made else {
            // The git index may be damaged.
            self.handle.request_damage_check();
            return None;
        };
        let (repository, program) = (Arc::clone(repository), settings.program.clone());
        let index = Arc::new(GitIndex::new(view.commit(), tip, repository, program));
        self.git_indexes.push(Arc::downgrade(&index));
        Some(index)
    }
}
