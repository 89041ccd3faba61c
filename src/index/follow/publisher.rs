//! Showing what a clone holds: a snapshot for readers, and the git index beside it.

use std::sync::Arc;

use super::follower::Refresher;
use crate::index::git::overlay::{self, Shown};
use crate::index::git::served::ServedIndex;
use crate::index::source::repository::Repository;
use crate::index::view::snapshot::Snapshot;

impl Refresher {
    pub(crate) fn publish(
        &mut self,
        repository: Arc<Repository>,
        snapshot: Snapshot,
        message: &str,
    ) {
        tracing::info!(index.commit = %snapshot.commit(), index.crates = snapshot.crate_count(), "{message}");
        let served = self.serve_by_git(&repository, &snapshot);
        self.current = Some(repository);
        let (snapshot, previous) = (Arc::new(snapshot), self.handle.snapshot());
        self.handle.publish(Arc::clone(&snapshot), served);
        self.name_large_files(&snapshot, previous.as_deref());
    }

    fn name_large_files(&mut self, snapshot: &Snapshot, previous: Option<&Snapshot>) {
        let followed = self
            .large_files
            .follow(snapshot, previous, self.handle.stopping());
        if let Err(error) = followed {
            tracing::debug!(error = %error, "the sizes of index files could not be looked at");
        }
        self.handle.warn(self.large_files.warnings());
    }

    /// Makes the git index anew if it is not what it was, for example because it was damaged or could not be made before.
    pub(crate) fn repair_git_index(&mut self, repository: &Arc<Repository>, snapshot: &Snapshot) {
        let tip = |served: &Option<Arc<ServedIndex>>| served.as_ref().map(|served| served.tip());
        let served = self.serve_by_git(repository, snapshot);
        if tip(&served) != tip(&self.handle.served()) {
            self.handle.serve(served);
        }
    }

    /// Makes the git index show what the snapshot shows. If that fails the one before stays: it is whole, and late.
    fn serve_by_git(
        &mut self,
        repository: &Arc<Repository>,
        snapshot: &Snapshot,
    ) -> Option<Arc<ServedIndex>> {
        let settings = self.settings.git_index.clone()?;
        if !repository.is_writable() {
            // That was said when it was opened.
            return None;
        }
        let shown = Shown {
            commit: snapshot.commit(),
            tree: snapshot.root().tree(),
        };
        match overlay::bring_up_to_date(repository.path(), shown, &settings.config) {
            Ok(tip) => Some(Arc::new(ServedIndex::new(
                snapshot.commit(),
                tip,
                Arc::clone(repository),
                settings.program,
            ))),
            Err(error) => {
                tracing::warn!(error = %error, "the git index could not be brought up to date");
                self.handle.served()
            }
        }
    }
}
