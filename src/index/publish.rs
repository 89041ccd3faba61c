//! Showing what a clone holds: a snapshot for readers, and the git index beside it.

use std::sync::Arc;
use std::time::Instant;

use super::overlay::{self, Shown};
use super::refresh::Refresher;
use super::repository::Repository;
use super::served::ServedIndex;
use super::snapshot::Snapshot;

impl Refresher {
    pub(super) fn publish(
        &mut self,
        repository: Arc<Repository>,
        snapshot: Snapshot,
        message: &str,
    ) {
        tracing::info!(index.commit = %snapshot.commit(), index.crates = snapshot.crate_count(), "{message}");
        let served = self.serve_by_git(&repository, &snapshot);
        self.current = Some(repository);
        self.handle.publish(Arc::new(snapshot), served);
    }

    /// Makes the git index anew if it is not what it was, for example because it was damaged or could not be made before.
    pub(super) fn repair_git_index(&mut self, repository: &Arc<Repository>, snapshot: &Snapshot) {
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
        let now = Instant::now();
        let is_damaged = self
            .handle
            .served()
            .is_some_and(|served| served.is_damaged());
        if is_damaged && self.repairs.allowed(now) {
            self.repairs.note(now);
            tracing::warn!("git cannot read the git index, which is made anew");
            // What cannot be removed cannot be read either, and is seen below.
            let _removed = overlay::remove(repository.path());
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
