//! The background task: opens the copy on disk, fetches at the start and at every interval, and checks the copy when git
//! clients run into trouble.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::clone::DatabaseClone;
use super::handle::AdvisoryHandle;
use super::settings::AdvisorySettings;
use crate::index::blocking_work::on_blocking_thread;
use crate::index::handle::IndexHandle;
use crate::index::retry::{backoff, jittered};
use crate::index::status::Phase;

/// How often the task looks whether the index is open.
const INDEX_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The background task.
#[derive(Debug)]
pub(crate) struct AdvisoryTask(DatabaseClone);

impl AdvisoryTask {
    /// Makes a task that publishes through `handle`. It does nothing until it runs. `index` tells whether the mirror may
    /// write to the data directory.
    pub(crate) fn new(
        settings: AdvisorySettings,
        handle: AdvisoryHandle,
        index: IndexHandle,
    ) -> Self {
        Self(DatabaseClone::new(settings, handle, index))
    }

    /// The state that this task shares with readers.
    pub(crate) fn handle(&self) -> AdvisoryHandle {
        self.0.handle.clone()
    }

    /// Publishes the copy on disk, if there is one, and drops `opened`. Then fetches regularly until the mirror stops.
    ///
    /// # Errors
    /// If the work has panicked. The process must end then.
    pub(crate) async fn run(
        self,
        opened: oneshot::Sender<()>,
        stop: CancellationToken,
    ) -> Result<(), JoinError> {
        let Self(mut clone) = self;
        let (handle, index) = (clone.handle.clone(), clone.index.clone());
        let interval = clone.settings.interval;
        let end = || handle.work().stop();
        let open = DatabaseClone::open_copy_on_disk;
        let Some((back, ())) = on_blocking_thread(clone, open, &stop, end).await? else {
            return Ok(());
        };
        clone = back;
        drop(opened);
        tokio::select! {
            () = until_open(&index) => {}
            () = stop.cancelled() => return Ok(()),
        }
        loop {
            let refresh = DatabaseClone::refresh;
            let Some((back, failed)) = on_blocking_thread(clone, refresh, &stop, end).await? else {
                return Ok(());
            };
            clone = back;
            let pause = match failed {
                Some((failures, asked)) => backoff(failures, interval).max(asked),
                None => jittered(interval),
            };
            // Pinned outside of the loop, so a damage check does not restart the pause.
            let mut pause = pin!(tokio::time::sleep(pause));
            loop {
                let check = async {
                    tokio::time::sleep(clone.wait_for_check()).await;
                    handle.work().damage_check_requested().await;
                };
                tokio::select! {
                    () = &mut pause => break,
                    // After a failure reports of damage do not shorten the pause: they must not cause fetches all the time.
                    () = check, if failed.is_none() => {}
                    () = stop.cancelled() => return Ok(()),
                }
                let check = DatabaseClone::check;
                let Some((back, is_damaged)) = on_blocking_thread(clone, check, &stop, end).await?
                else {
                    return Ok(());
                };
                clone = back;
                if is_damaged {
                    break;
                }
            }
        }
    }
}

/// Waits until the index is open, or cannot be opened: then it is known whether another mirror has locked the data
/// directory. A poll, because phases have no notification.
async fn until_open(index: &IndexHandle) {
    while index.view().is_none() && index.status().phase == Phase::Opening {
        tokio::time::sleep(INDEX_POLL_INTERVAL).await;
    }
}
