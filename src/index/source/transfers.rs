//! A transfer on a thread of its own, watched from outside.
//!
//! libgit2 can only be interrupted where it calls back, which it does not while it waits for the other side.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::fetch::{FETCH_TIME_MAX, FetchError};
use crate::index::status::ProgressCell;

/// The longest that the other side may take before the first object comes, counted from its last message that it is
/// preparing. libgit2's own time-out begins anew with every byte.
const PREPARATION_MAX: Duration = Duration::from_secs(300);

/// How often a transfer is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Transfers that were left behind and still wait for the other side. With so many there are no new ones.
const LEFT_BEHIND_MAX: usize = 2;

/// The same, with those of longer ago than any transfer should take.
const LEFT_BEHIND_EVER_MAX: usize = 16;

/// A transfer that was given up on, but whose thread still waits for the other side.
type LeftBehind = JoinHandle<()>;

/// Transfers, one at a time, and those that were left behind.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    left_behind: Vec<(LeftBehind, Instant)>,
}

impl Transfers {
    /// Whether there may be one more.
    ///
    /// # Errors
    /// [`FetchError::Upstream`] if too many were left behind.
    pub(crate) fn check_capacity(&mut self) -> Result<(), FetchError> {
        self.left_behind
            .retain(|(thread, _since)| !thread.is_finished());
        let recent = self.recent().count();
        if recent >= LEFT_BEHIND_MAX || self.left_behind.len() >= LEFT_BEHIND_EVER_MAX {
            let why = "earlier tries still wait for the other side, which sends next to nothing";
            return Err(FetchError::Upstream(why.to_owned()));
        }
        Ok(())
    }

    /// Runs a clone or a fetch. One that hangs is left behind.
    pub(crate) fn run(
        &mut self,
        progress: &Arc<ProgressCell>,
        is_local: bool,
        transfer: impl FnOnce(&ProgressCell) -> Result<(), FetchError> + Send + 'static,
    ) -> Result<(), FetchError> {
        if progress.is_stopped() {
            return Err(FetchError::Stopped);
        }
        // A path is packed by this very process, which says nothing until it is done, minutes later for a large index.
        let preparation_max = if is_local {
            FETCH_TIME_MAX
        } else {
            PREPARATION_MAX
        };
        let (result, left_behind) = supervise(progress, preparation_max, transfer);
        self.left_behind
            .extend(left_behind.map(|thread| (thread, Instant::now())));
        result
    }

    /// Whether one that was left behind may still write to a clone. It hardly does after as long as any may take.
    pub(crate) fn may_still_write(&self) -> bool {
        self.recent().any(|(thread, _since)| !thread.is_finished())
    }

    fn recent(&self) -> impl Iterator<Item = &(LeftBehind, Instant)> {
        self.left_behind
            .iter()
            .filter(|(_thread, since)| since.elapsed() < FETCH_TIME_MAX)
    }
}

/// Runs a transfer on a thread of its own, so that one that hangs can be left behind: when it shall stop, and when
/// nothing has come for too long.
fn supervise(
    progress: &Arc<ProgressCell>,
    preparation_max: Duration,
    transfer: impl FnOnce(&ProgressCell) -> Result<(), FetchError> + Send + 'static,
) -> (Result<(), FetchError>, Option<LeftBehind>) {
    let (send, receive) = mpsc::channel();
    let cell = Arc::clone(progress);
    let thread = std::thread::Builder::new()
        .name("transfer".to_owned())
        .spawn(move || {
            // Nobody listens to one that was left behind.
            let _left_behind = send.send(transfer(&cell));
        });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            return (
                Err(FetchError::System(format!(
                    "no thread for a transfer: {error}"
                ))),
                None,
            );
        }
    };
    let mut last_sign = (progress.signs(), Instant::now());
    loop {
        match receive.recv_timeout(POLL_INTERVAL) {
            Ok(result) => return (result, None),
            Err(RecvTimeoutError::Timeout) if progress.is_stopped() => {
                return (Err(FetchError::Stopped), Some(thread));
            }
            Err(RecvTimeoutError::Timeout) => {
                if progress.signs() != last_sign.0 {
                    last_sign = (progress.signs(), Instant::now());
                }
                if last_sign.1.elapsed() > preparation_max && progress.get().total_objects == 0 {
                    progress.stop();
                    let why =
                        "the other side has sent no object for too long: gave up on it".to_owned();
                    return (Err(FetchError::Upstream(why)), Some(thread));
                }
            }
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                // A panic goes on where it is seen.
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return (Err(FetchError::Stopped), None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::status::FetchProgress;

    /// A transfer that waits for the other side until the sender is dropped.
    fn hanging() -> (
        mpsc::Sender<()>,
        impl FnOnce(&ProgressCell) -> Result<(), FetchError>,
    ) {
        let (keep, wait) = mpsc::channel();
        (keep, move |_progress: &ProgressCell| {
            let _sender_dropped = wait.recv();
            Ok(())
        })
    }

    #[test]
    fn a_transfer_that_brings_no_object_in_time_is_left_behind() {
        let progress = Arc::new(ProgressCell::default());
        let (keep, transfer) = hanging();
        let (result, left_behind) = supervise(&progress, Duration::from_millis(1), transfer);
        assert!(matches!(result, Err(FetchError::Upstream(_))));
        assert!(
            progress.is_stopped(),
            "it must not move the reference when it ends after all"
        );
        drop(keep);
        left_behind.unwrap().join().unwrap();
    }

    #[test]
    fn one_that_does_get_on_is_waited_for_and_a_stop_ends_the_waiting() {
        let progress = Arc::new(ProgressCell::default());
        progress.set(FetchProgress {
            total_objects: 1,
            ..FetchProgress::default()
        });
        let (keep, transfer) = hanging();
        let stopper = Arc::clone(&progress);
        let stopping = std::thread::spawn(move || stopper.stop());
        let (result, left_behind) = supervise(&progress, Duration::ZERO, transfer);
        assert!(matches!(result, Err(FetchError::Stopped)));
        stopping.join().unwrap();
        drop(keep);
        left_behind.unwrap().join().unwrap();
        let (result, left_behind) = supervise(&Arc::default(), Duration::ZERO, |_progress| Ok(()));
        assert!(result.is_ok() && left_behind.is_none());
    }
}
