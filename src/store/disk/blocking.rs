//! Work that waits for a disk, away from the async workers.

use std::io;

/// Runs something that waits for the disk.
pub(super) async fn on_a_blocking_thread<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
