//! The background task: follows every view, forgets old steps, retries after failures, and ends when the mirror stops.

use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::handle::Journal;
use super::worker::Worker;
use crate::index::IndexHandle;
use crate::observability::LastFailure;

/// The pause after the first failure. It doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// How often it doubles at most: up to 64 s.
const DOUBLED_MAX: u32 = 6;

/// How often old steps are forgotten while the index does not change.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// The background task.
#[derive(Debug)]
pub(crate) struct JournalTask {
    worker: Worker,
    journal: Journal,
    index: IndexHandle,
}

impl JournalTask {
    /// A task that follows `index`, and answers through `journal`. It does nothing until it runs.
    pub(crate) fn new(journal: Journal, index: IndexHandle) -> Self {
        Self {
            worker: Worker::new(journal.clone(), index.clone()),
            journal,
            index,
        }
    }

    /// Runs until the mirror stops.
    ///
    /// # Errors
    /// If the work has panicked. The process must end then.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), JoinError> {
        let Self {
            mut worker,
            journal,
            index,
        } = self;
        let stop_flag = worker.stop_flag();
        let mut changes = index.view_changes();
        let (mut failures, told) = (0_u32, LastFailure::default());
        while !stop.is_cancelled() {
            // Before the look at the view: a change after it must not be missed.
            changes.mark_unchanged();
            // The blocking thread takes the worker and gives it back, so no lock is needed.
            let mut work = tokio::task::spawn_blocking(move || {
                let result = worker.step();
                (worker, result)
            });
            let result;
            tokio::select! {
                done = &mut work => (worker, result) = done?,
                () = stop.cancelled() => {
                    stop_flag.set();
                    let _stopped = work.await?;
                    return Ok(());
                }
            }
            failures = match result {
                Ok(()) => {
                    if told.is_over() {
                        tracing::info!("the change journal is up to date again");
                    }
                    0
                }
                Err(error) => {
                    let why = error.to_string();
                    if told.is_news(&why) {
                        tracing::warn!(
                            error = why,
                            "the change journal could not be brought up to date; this is tried again"
                        );
                    }
                    failures.saturating_add(1)
                }
            };
            let pause = match failures {
                0 => FORGET_EVERY,
                _ => RETRY_FIRST * (1 << failures.min(DOUBLED_MAX)),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // After a failure new views do not shorten the pause. The sender cannot be gone: `index` is here.
                _changed = changes.changed(), if failures == 0 => {}
                () = journal.damage_reported(), if failures == 0 => worker.suspect(),
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }
}
