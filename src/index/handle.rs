//! The state that readers and the background task share. The background task publishes views, and readers take them.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};

use super::fetch_on_demand::{FetchesOnDemand, RefreshOutcome};
use super::status::{ClonesSize, IndexStatus, Phase, ProgressCell, PushStatus};
use super::stop::StopFlag;
use super::view::View;
use crate::observability::metrics::TimedResults;

/// The state that readers and the background task share. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    view: ArcSwapOption<View>,
    status: Mutex<IndexStatus>,
    /// The progress of the current work. All work has a cell of its own, because an abandoned transfer may still write
    /// to its cell.
    progress: ArcSwap<ProgressCell>,
    /// Wakes the background task because the clone may be damaged.
    wake: Notify,
    /// Tells every waiting task that the view has changed.
    view_changed: watch::Sender<()>,
    /// Asks for a check of the git index.
    damage_check: Notify,
    /// Asks for a view from new facts.
    facts_changed: Notify,
    on_demand: FetchesOnDemand,
    fetches: TimedResults,
    checksum_changes: Counter,
    stopping: StopFlag,
}

impl IndexHandle {
    /// A handle without a view.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Returns the current view. A request takes one and keeps it to its end. `None` until there is a first view.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// The status of clone and fetches now.
    pub(crate) fn status(&self) -> IndexStatus {
        let mut status = self.shared.status.lock().clone();
        status.progress = self.shared.progress.load().get();
        status
    }

    /// Asks for a fetch now, and waits for the end of a fetch that began after this call, for 20 s at most. Returns at
    /// once if no fetch will begin: after many such calls, after a failure, where the settings forbid fetches, and
    /// without a background task.
    pub(crate) async fn refresh_now(&self) -> RefreshOutcome {
        self.shared.on_demand.ask().await
    }

    /// Counts the fetches.
    pub(crate) fn fetches(&self) -> &TimedResults {
        &self.shared.fetches
    }

    /// Counts listed versions whose checksum has changed.
    pub(crate) fn checksum_changes(&self) -> &Counter {
        &self.shared.checksum_changes
    }

    pub(super) fn on_demand(&self) -> &FetchesOnDemand {
        &self.shared.on_demand
    }

    /// Reports that a read of the current view failed. The background task checks the clone at once.
    pub(crate) fn report_damage(&self) {
        self.shared.wake.notify_one();
    }

    /// Tells the background task that what the policy is decided from has changed. It looks at once.
    pub(crate) fn note_facts_changed(&self) {
        self.shared.facts_changed.notify_one();
    }

    pub(super) async fn facts_changed(&self) {
        self.shared.facts_changed.notified().await;
    }

    /// Asks the background task to check the git index, because git could not answer a client. Most often the client
    /// caused that, and a client can do so at any rate. So this leads to a check and to nothing else.
    pub(crate) fn request_damage_check(&self) {
        self.shared.damage_check.notify_one();
    }

    pub(super) async fn damage_check_requested(&self) {
        self.shared.damage_check.notified().await;
    }

    pub(super) async fn damage_reported(&self) {
        self.shared.wake.notified().await;
    }

    /// Begins a phase of work, and returns the cell for its progress.
    pub(crate) fn begin(&self, phase: Phase) -> Arc<ProgressCell> {
        let progress = Arc::new(ProgressCell::default());
        self.shared.progress.store(Arc::clone(&progress));
        // After the store. Either this check sees the flag of `stop`, or `stop` sees the new cell.
        if self.shared.stopping.is_set() {
            progress.stop();
        }
        self.enter(phase);
        progress
    }

    /// The stop flag of the mirror. All background work checks it.
    pub(crate) fn stopping(&self) -> &StopFlag {
        &self.shared.stopping
    }

    /// Asks the current work to end, and all work that begins after it.
    pub(crate) fn stop(&self) {
        self.shared.stopping.set();
        self.shared.progress.load().stop();
    }

    pub(crate) fn publish(&self, view: Arc<View>) {
        // The store first: a task that waits for the notification must see the new view.
        self.shared.view.store(Some(view));
        self.shared.view_changed.send_replace(());
    }

    /// A receiver that is told of every later view.
    pub(crate) fn view_changes(&self) -> watch::Receiver<()> {
        self.shared.view_changed.subscribe()
    }

    pub(super) fn note_push(&self, note: impl FnOnce(&mut PushStatus)) {
        note(self.shared.status.lock().push.get_or_insert_default());
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.shared.status.lock().phase = phase;
    }

    pub(crate) fn succeeded(&self, at: SystemTime) {
        let mut status = self.shared.status.lock();
        status.phase = Phase::Idle;
        status.last_success = Some(at);
        status.last_error = None;
        status.needs_help = false;
        status.failures = 0;
    }

    /// Notes that the last failure is over, without a fetch.
    pub(super) fn recovered(&self) {
        let mut status = self.shared.status.lock();
        status.last_error = None;
        status.needs_help = false;
        status.failures = 0;
    }

    pub(super) fn note_size(&self, size: ClonesSize) {
        self.shared.status.lock().size = size;
    }

    pub(crate) fn warn(&self, warnings: Vec<String>) {
        self.shared.status.lock().warnings = warnings;
    }

    pub(super) fn note_policy_file(&self, error: Option<String>) {
        self.shared.status.lock().policy_file_error = error;
    }

    pub(super) fn remember_success(&self, at: Option<SystemTime>) {
        self.shared.status.lock().last_success = at;
    }

    /// Notes a failure, and returns how many there were in a row.
    pub(crate) fn failed(&self, error: &impl ToString, is_lasting: bool) -> u32 {
        let mut status = self.shared.status.lock();
        status.phase = Phase::Retrying;
        status.last_error = Some(error.to_string());
        status.needs_help = is_lasting;
        status.failures = status.failures.saturating_add(1);
        status.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_begins_after_a_stop_is_stopped_too() {
        let handle = IndexHandle::new();
        let before = handle.begin(Phase::Cloning);
        assert!(!before.is_stopped());
        handle.stop();
        assert!(before.is_stopped());
        assert!(handle.begin(Phase::Fetching).is_stopped());
    }
}
