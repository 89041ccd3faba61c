//! Blocking work of background tasks.

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

/// Lets `work` use a value on a blocking thread. The thread takes the value and gives it back, so no lock is needed.
///
/// After a stop it calls `end`, which tells the work to end, and waits for that: until then the work may write to the data
/// directory. It returns `None` then.
///
/// # Errors
/// If the work has panicked.
pub(crate) async fn on_blocking_thread<W: Send + 'static, T: Send + 'static>(
    mut worker: W,
    work: impl FnOnce(&mut W) -> T + Send + 'static,
    stop: &CancellationToken,
    end: impl FnOnce(),
) -> Result<Option<(W, T)>, JoinError> {
    let mut working = tokio::task::spawn_blocking(move || {
        let result = work(&mut worker);
        (worker, result)
    });
    tokio::select! {
        done = &mut working => Ok(Some(done?)),
        () = stop.cancelled() => {
            end();
            let _stopped = working.await?;
            Ok(None)
        }
    }
}
