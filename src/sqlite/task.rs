//! The background task of a database: follows every view, retries after failures, and ends when the mirror stops.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::questions::Questions;
use crate::index::{IndexHandle, StopFlag, backoff, on_blocking_thread};
use crate::observability::LastFailure;

/// How often there is a step while the index does not change.
const STEP_EVERY: Duration = Duration::from_secs(60);

/// The owner of a database that follows the views of the index.
pub(crate) trait FollowsViews: Send + 'static {
    type Error: Display + Send + 'static;

    /// Brings the database up to the current view. Blocking.
    fn step(&mut self) -> Result<(), Self::Error>;

    /// A question could not read the database: the next step checks it.
    fn suspect(&mut self);

    /// The flag that ends a step.
    fn stop_flag(&self) -> Arc<StopFlag>;
}

/// Follows `index` until the mirror stops.
///
/// # Errors
/// If the work has panicked. The process must end then.
pub(crate) async fn follow_views<W: FollowsViews>(
    mut worker: W,
    (questions, index): (Arc<Questions>, IndexHandle),
    stop: CancellationToken,
) -> Result<(), JoinError> {
    let stop_flag = worker.stop_flag();
    let mut changes = index.view_changes();
    let (mut failures, told) = (0_u32, LastFailure::default());
    while !stop.is_cancelled() {
        // Before the look at the view: a change after it must not be missed.
        changes.mark_unchanged();
        let end = || stop_flag.set();
        let Some((back, result)) = on_blocking_thread(worker, W::step, &stop, end).await? else {
            return Ok(());
        };
        worker = back;
        failures = match result {
            Ok(()) => {
                if told.note_success() {
                    tracing::info!("{} is up to date again", questions.name);
                }
                0
            }
            Err(error) => {
                let why = error.to_string();
                if told.note_failure(&why) {
                    tracing::warn!(
                        error = why,
                        "{} could not be brought up to date; this is tried again",
                        questions.name
                    );
                }
                failures.saturating_add(1)
            }
        };
        let pause = match failures {
            0 => STEP_EVERY,
            // 2 s after the first one.
            _ => backoff(failures.saturating_add(1), Duration::ZERO),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // After a failure new views do not shorten the pause. The sender cannot be gone: `index` is here.
            _changed = changes.changed(), if failures == 0 => {}
            () = questions.damage_reported(), if failures == 0 => worker.suspect(),
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}
