//! The background task: follows every view, retries after failures, and ends when the mirror stops.

use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::handle::Catalog;
use super::worker::{CatalogSettings, Worker};
use crate::index::IndexHandle;
use crate::observability::LastFailure;

/// The pause after the first failure. It doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// How often it doubles at most: up to 64 s.
const DOUBLED_MAX: u32 = 6;

/// The background task.
#[derive(Debug)]
pub(crate) struct CatalogTask {
    worker: Worker,
    catalog: Catalog,
    index: IndexHandle,
}

impl CatalogTask {
    /// A task that follows `index`, and answers through `catalog`. It does nothing until it runs.
    pub(crate) fn new(settings: CatalogSettings, catalog: Catalog, index: IndexHandle) -> Self {
        Self {
            worker: Worker::new(settings, catalog.clone(), index.clone()),
            catalog,
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
            catalog,
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
                    // The worker has an event of each success.
                    told.is_over();
                    0
                }
                Err(error) => {
                    let why = error.to_string();
                    if told.is_news(&why) {
                        tracing::warn!(
                            error = why,
                            "the catalog could not be brought up to date; this is tried again"
                        );
                    }
                    failures.saturating_add(1)
                }
            };
            let retry = async {
                match failures {
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep(RETRY_FIRST * (1 << failures.min(DOUBLED_MAX))).await,
                }
            };
            tokio::select! {
                () = retry => {}
                // After a failure new views do not shorten the pause. The sender cannot be gone: `index` is here.
                _changed = changes.changed(), if failures == 0 => {}
                () = catalog.damage_reported() => worker.suspect(),
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }
}
