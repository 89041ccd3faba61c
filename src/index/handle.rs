//! What readers and the background task share: readers take views from it, the background task publishes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::fetch_on_demand::{FetchesOnDemand, RefreshOutcome};
use super::status::{FetchProgress, IndexStatus, Phase, ProgressCell, PushStatus};
use super::stop::StopFlag;
use super::view::View;

/// What readers and the background task share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct IndexHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: ArcSwapOption<View>,
    status: Mutex<IndexStatus>,
    /// Of the try that is under way; each has a new one, since one that was left behind may still write to its own.
    progress: ArcSwap<ProgressCell>,
    wake: Notify,
    view_changed: Notify,
    damage_check: Notify,
    on_demand: FetchesOnDemand,
    stopping: StopFlag,
}

impl IndexHandle {
    /// A handle without a view.
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                view: ArcSwapOption::empty(),
                status: Mutex::new(IndexStatus {
                    phase: Phase::Opening,
                    last_success: None,
                    last_error: None,
                    needs_help: false,
                    failures: 0,
                    progress: FetchProgress::default(),
                    push: None,
                    warnings: Vec::new(),
                }),
                progress: ArcSwap::from_pointee(ProgressCell::default()),
                wake: Notify::new(),
                view_changed: Notify::new(),
                damage_check: Notify::new(),
                on_demand: FetchesOnDemand::new(),
                stopping: StopFlag::new(),
            }),
        }
    }

    /// The view to answer a request from; keep it to the end of the request. `None` before the first one.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// What there is to say about clone and fetches right now.
    pub(crate) fn status(&self) -> IndexStatus {
        let mut status = self.lock().clone();
        status.progress = self.shared.progress.load().get();
        status
    }

    /// Asks for a fetch now, and waits until one that began after this call has ended; at most 20 s, and not at all if none
    /// will come: after many such calls, after a failure, where nothing is ever fetched, and without a background task.
    pub(crate) async fn refresh_now(&self) -> RefreshOutcome {
        self.shared.on_demand.ask().await
    }

    pub(crate) fn on_demand(&self) -> &FetchesOnDemand {
        &self.shared.on_demand
    }

    /// Says that a read of the current view failed, so that the background task looks at the clone at once.
    pub(crate) fn report_damage(&self) {
        self.shared.wake.notify_one();
    }

    /// Asks the background task to look at the git index: git could not answer a client. Most often the client is to blame,
    /// and it can ask as often as it likes, so this leads to a look and to nothing else.
    pub(crate) fn request_damage_check(&self) {
        self.shared.damage_check.notify_one();
    }

    pub(crate) async fn damage_check_requested(&self) {
        self.shared.damage_check.notified().await;
    }

    pub(crate) async fn damage_reported(&self) {
        self.shared.wake.notified().await;
    }

    /// Begins a clone or a fetch, and returns where its progress is written.
    pub(crate) fn begin(&self, phase: Phase) -> Arc<ProgressCell> {
        let progress = Arc::new(ProgressCell::default());
        self.shared.progress.store(Arc::clone(&progress));
        // After the store, so that one of the two sees the other: this look, or the look of `stop` at the new cell.
        if self.shared.stopping.is_set() {
            progress.stop();
        }
        self.enter(phase);
        progress
    }

    /// Whether the mirror ends: work in the background looks at this.
    pub(crate) fn stopping(&self) -> &StopFlag {
        &self.shared.stopping
    }

    /// Asks the clone or fetch that is under way to end, and all that would begin after it.
    pub(crate) fn stop(&self) {
        self.shared.stopping.set();
        self.shared.progress.load().stop();
    }

    pub(crate) fn publish(&self, view: Arc<View>) {
        self.shared.view.store(Some(view));
        self.shared.view_changed.notify_one();
    }

    /// Waits until there may be another view than before. For one waiter.
    pub(crate) async fn view_changed(&self) {
        self.shared.view_changed.notified().await;
    }

    pub(crate) fn note_push(&self, note: impl FnOnce(&mut PushStatus)) {
        note(self.lock().push.get_or_insert_default());
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    pub(crate) fn succeeded(&self, at: SystemTime) {
        let mut status = self.lock();
        status.phase = Phase::Idle;
        status.last_success = Some(at);
        status.last_error = None;
        status.needs_help = false;
        status.failures = 0;
    }

    /// Notes that the last failure no longer holds, without a fetch.
    pub(crate) fn recovered(&self) {
        let mut status = self.lock();
        status.last_error = None;
        status.needs_help = false;
        status.failures = 0;
    }

    pub(crate) fn warn(&self, warnings: Vec<String>) {
        self.lock().warnings = warnings;
    }

    pub(crate) fn remember_success(&self, at: Option<SystemTime>) {
        self.lock().last_success = at;
    }

    /// Notes a failure, and returns how many there were in a row.
    pub(crate) fn failed(&self, error: &impl ToString, is_lasting: bool) -> u32 {
        let mut status = self.lock();
        status.phase = Phase::Retrying;
        status.last_error = Some(error.to_string());
        status.needs_help = is_lasting;
        status.failures = status.failures.saturating_add(1);
        status.failures
    }

    fn lock(&self) -> MutexGuard<'_, IndexStatus> {
        // The status is plain data, whole after every statement.
        self.shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_after_a_stop_is_stopped_too() {
        let handle = IndexHandle::new();
        let before = handle.begin(Phase::Cloning);
        assert!(!before.is_stopped());
        handle.stop();
        assert!(before.is_stopped());
        assert!(handle.begin(Phase::Fetching).is_stopped());
    }
}
