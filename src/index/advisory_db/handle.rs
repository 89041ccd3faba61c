//! The state that readers and the background task share.

use std::sync::Arc;

use crate::index::git::upload_pack::GitIndex;
use crate::index::handle::IndexHandle;
use crate::index::status::IndexStatus;
use crate::policy::Advisories;
use arc_swap::ArcSwapOption;

/// The state that readers and the background task share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AdvisoryHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    upstream: String,
    copy: ArcSwapOption<AdvisoryCopy>,
    /// The status of fetches, and the stop. It never has a view.
    work: IndexHandle,
}

/// The database at one commit.
#[derive(Debug)]
pub(crate) struct AdvisoryCopy {
    pub(super) advisories: Arc<Advisories>,
    pub(super) git: Arc<GitIndex>,
}

/// Whether there are advisories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AdvisoryState {
    /// Not yet: the first attempt to get them is under way.
    Waiting,
    /// There are advisories, perhaps old ones.
    Ready,
    /// There are none, and the first attempt has failed. Later attempts follow.
    Failed,
}

impl AdvisoryHandle {
    /// A handle without advisories. `upstream` is the URL without secrets.
    pub(crate) fn new(upstream: String) -> Self {
        Self {
            shared: Arc::new(Shared {
                upstream,
                ..Shared::default()
            }),
        }
    }

    /// The current advisories; `None` until there is a first copy of the database.
    pub(crate) fn advisories(&self) -> Option<Arc<Advisories>> {
        self.copy().map(|copy| Arc::clone(&copy.advisories))
    }

    /// Whether there are advisories. Never [`AdvisoryState::Waiting`] after the first failure.
    pub(crate) fn state(&self) -> AdvisoryState {
        // In this order: the task publishes a copy before it forgets its failures.
        let has_failed = self.status().failures > 0;
        match self.shared.copy.load().is_some() {
            true => AdvisoryState::Ready,
            false if has_failed => AdvisoryState::Failed,
            false => AdvisoryState::Waiting,
        }
    }

    /// The database for git clients; `None` until there is a first copy.
    pub(crate) fn git(&self) -> Option<Arc<GitIndex>> {
        self.copy().map(|copy| Arc::clone(&copy.git))
    }

    /// The URL of the upstream, without secrets.
    pub(crate) fn upstream(&self) -> &str {
        &self.shared.upstream
    }

    /// The status of the fetches.
    pub(crate) fn status(&self) -> IndexStatus {
        self.work().status()
    }

    /// The status of the fetches, the stop, and reports of damage. It has no view.
    pub(crate) fn work(&self) -> &IndexHandle {
        &self.shared.work
    }

    pub(super) fn copy(&self) -> Option<Arc<AdvisoryCopy>> {
        self.shared.copy.load_full()
    }

    /// Publishes a copy. Returns whether it has another commit than the one before: otherwise the advisories stay.
    pub(super) fn publish(&self, mut copy: AdvisoryCopy) -> bool {
        let same = self.advisories();
        let same = same.filter(|before| before.commit == copy.advisories.commit);
        let is_new = same.is_none();
        copy.advisories = same.unwrap_or(copy.advisories);
        self.shared.copy.store(Some(Arc::new(copy)));
        is_new
    }
}
