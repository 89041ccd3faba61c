//! Runs each transfer on a thread of its own, and abandons a transfer that hangs.
//!
//! Only libgit2's callbacks can interrupt a transfer, and libgit2 calls none while it waits for the upstream.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::fetch::{FETCH_TIME_MAX, FetchError, Outgoing, Transfer};
use super::remote_url::RemoteUrl;
use crate::index::handle::IndexHandle;
use crate::index::status::{Phase, ProgressCell};

/// The longest wait for the first object, counted from the upstream's last message that it is preparing. libgit2's own
/// time-out is too weak for this: every byte restarts it.
const PREPARATION_MAX: Duration = Duration::from_secs(300);

/// The interval between two checks of a transfer.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The number of recently abandoned transfers that may still wait for the upstream. At this number no transfer begins.
const ABANDONED_RECENTLY_MAX: usize = 2;

/// The same for all abandoned transfers, of any age.
const ABANDONED_MAX: usize = 16;

/// The signals with a handler. The thread of a transfer blocks them. A signal interrupts any thread that does not block it,
/// and libgit2 then gives up its wait for the upstream. SIGCHLD comes whenever a git child ends.
const HANDLED_SIGNALS: [Signal; 4] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGTERM,
];

/// An abandoned transfer. Its thread still waits for the upstream.
type Abandoned = JoinHandle<()>;

/// Runs one transfer at a time, and remembers the abandoned ones.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    abandoned: Vec<(Abandoned, Instant)>,
}

impl Transfers {
    /// Clones the upstream, or fetches from it, as the current work of `work`. Abandons a transfer that hangs.
    ///
    /// # Errors
    /// [`FetchError::Upstream`] too if too many abandoned transfers still run.
    pub(crate) fn run(
        &mut self,
        transfer: Transfer,
        clone: &Path,
        (url, outgoing): (&RemoteUrl, &Outgoing),
        work: &IndexHandle,
    ) -> Result<(), FetchError> {
        self.abandoned
            .retain(|(thread, _since)| !thread.is_finished());
        let recent = self.recent().count();
        if recent >= ABANDONED_RECENTLY_MAX || self.abandoned.len() >= ABANDONED_MAX {
            let why = "earlier tries still wait for the upstream, which sends next to nothing";
            return Err(FetchError::Upstream(why.to_owned()));
        }
        let progress = work.begin(match transfer {
            Transfer::CloneLatest | Transfer::CloneAll => Phase::Cloning,
            Transfer::Fetch => Phase::Fetching,
        });
        if progress.is_stopped() {
            return Err(FetchError::Stopped);
        }
        // For a local upstream this process makes the pack itself. That takes minutes for a large index, and libgit2
        // reports no progress meanwhile.
        let preparation_max = if url.is_local() {
            FETCH_TIME_MAX
        } else {
            PREPARATION_MAX
        };
        let (clone, url, outgoing) = (clone.to_owned(), url.clone(), outgoing.clone());
        let transfer =
            move |progress: &ProgressCell| transfer.run(&clone, (&url, &outgoing), progress);
        let (result, abandoned) = supervise(&progress, preparation_max, transfer);
        self.abandoned
            .extend(abandoned.map(|thread| (thread, Instant::now())));
        result
    }

    /// Whether an abandoned transfer may still write to a clone. After the longest time of a transfer that is unlikely.
    pub(crate) fn may_still_write(&self) -> bool {
        self.recent().any(|(thread, _since)| !thread.is_finished())
    }

    fn recent(&self) -> impl Iterator<Item = &(Abandoned, Instant)> {
        self.abandoned
            .iter()
            .filter(|(_thread, since)| since.elapsed() < FETCH_TIME_MAX)
    }
}

/// Runs a transfer on a thread of its own. Abandons it after a stop, and after `preparation_max` without an object.
fn supervise(
    progress: &Arc<ProgressCell>,
    preparation_max: Duration,
    transfer: impl FnOnce(&ProgressCell) -> Result<(), FetchError> + Send + 'static,
) -> (Result<(), FetchError>, Option<Abandoned>) {
    let (send, receive) = mpsc::channel();
    let cell = Arc::clone(progress);
    let thread = std::thread::Builder::new()
        .name("transfer".to_owned())
        .spawn(move || {
            // Fails only for an invalid set. Then the transfer runs without it.
            let _blocked = SigSet::from_iter(HANDLED_SIGNALS).thread_block();
            // Fails if the transfer was abandoned: then nothing receives the result.
            let _abandoned = send.send(transfer(&cell));
        });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            let why = format!("no thread for a transfer: {error}");
            return (Err(FetchError::System(why)), None);
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
                // Once objects arrive, `fetch` itself checks the speed.
                if last_sign.1.elapsed() > preparation_max && progress.get().total_objects == 0 {
                    progress.stop();
                    let why =
                        "the upstream has sent no object for too long: gave up on it".to_owned();
                    return (Err(FetchError::Upstream(why)), Some(thread));
                }
            }
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                // Passes the panic on to this thread.
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

    /// A transfer that hangs until the sender is dropped.
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
    fn a_transfer_without_an_object_in_time_is_abandoned() {
        let progress = Arc::new(ProgressCell::default());
        let (keep, transfer) = hanging();
        let (result, abandoned) = supervise(&progress, Duration::from_millis(1), transfer);
        assert!(matches!(result, Err(FetchError::Upstream(_))));
        assert!(
            progress.is_stopped(),
            "if it ends later, it must not move the reference"
        );
        drop(keep);
        abandoned.unwrap().join().unwrap();
    }

    #[test]
    fn a_transfer_that_makes_progress_runs_on_until_a_stop() {
        let progress = Arc::new(ProgressCell::default());
        progress.set(FetchProgress {
            total_objects: 1,
            ..FetchProgress::default()
        });
        let (keep, transfer) = hanging();
        let stopper = Arc::clone(&progress);
        let stopping = std::thread::spawn(move || stopper.stop());
        let (result, abandoned) = supervise(&progress, Duration::ZERO, transfer);
        assert!(matches!(result, Err(FetchError::Stopped)));
        stopping.join().unwrap();
        drop(keep);
        abandoned.unwrap().join().unwrap();
        let (result, abandoned) = supervise(&Arc::default(), Duration::ZERO, |_progress| Ok(()));
        assert!(result.is_ok() && abandoned.is_none());
    }

    #[test]
    fn no_signal_with_a_handler_interrupts_a_transfer() {
        let (send, blocked) = mpsc::channel();
        let transfer = move |_progress: &ProgressCell| {
            send.send(SigSet::thread_get_mask().unwrap()).unwrap();
            Ok(())
        };
        let (result, _) = supervise(&Arc::default(), Duration::from_secs(60), transfer);
        assert!(result.is_ok());
        let blocked = blocked.recv().unwrap();
        assert!(
            HANDLED_SIGNALS
                .into_iter()
                .all(|signal| blocked.contains(signal))
        );
    }
}
