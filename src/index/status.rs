//! The status of the index: how far a clone is, when a fetch last succeeded, why one failed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;

use super::stop::StopFlag;

/// What the background task is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Opening the clone on disk.
    #[default]
    Opening,
    /// Cloning the index, because there is no clone that can be used.
    Cloning,
    /// Fetching new commits.
    Fetching,
    /// Applying the rules to the index. `/readyz` has this name for it since `INDEX_PRUNED`, the first rule.
    Pruning,
    /// Making the clone smaller.
    Maintaining,
    /// Waiting for the next fetch, after a success.
    Idle,
    /// Waiting for the next attempt, after a failure.
    Retrying,
    /// The mirror is stopping.
    Stopped,
}

/// The status at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexStatus {
    /// What the background task is doing.
    pub(crate) phase: Phase,
    /// When a fetch last succeeded, in an earlier run of the mirror too.
    pub(crate) last_success: Option<SystemTime>,
    /// Why the last attempt failed, without secrets; `None` after a success.
    pub(crate) last_error: Option<String>,
    /// Whether somebody must act, because that failure cannot go away by itself.
    pub(crate) needs_help: bool,
    /// Failures since the last success.
    pub(crate) failures: u32,
    /// How far the current clone or fetch is.
    pub(crate) progress: FetchProgress,
    /// The status of the push; `None` if the index is not pushed.
    pub(crate) push: Option<PushStatus>,
    /// Problems that do not make the mirror unready.
    pub(crate) warnings: Vec<String>,
    /// Why the policy file on the disk is not the one in force.
    pub(crate) policy_file_error: Option<String>,
    /// What the index takes on the disk.
    pub(crate) size: ClonesSize,
}

/// What the clones take on the disk, after the last fetch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClonesSize {
    /// The bytes of all files.
    pub(crate) bytes: u64,
    /// The packs of the clone in use.
    pub(crate) packs: usize,
}

/// The status of the push to `INDEX_PUSH_URL`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PushStatus {
    /// The URL of the remote, without credentials.
    pub(crate) remote: String,
    /// The upstream commit of the last push.
    pub(crate) commit: Option<String>,
    /// Pushes that succeeded since the start.
    pub(crate) pushes: u64,
    /// Pushes that failed since the start.
    pub(crate) failures: u64,
    /// Why the last one failed, without secrets; `None` after a success.
    pub(crate) last_error: Option<String>,
}

/// How far a clone or fetch is, in git objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FetchProgress {
    /// Objects received over the network.
    pub(crate) received_objects: usize,
    /// All objects of this fetch; 0 until the upstream tells the number.
    pub(crate) total_objects: usize,
    /// Objects unpacked, hashed and indexed.
    pub(crate) indexed_objects: usize,
    /// Bytes received over the network.
    pub(super) received_bytes: usize,
}

impl FetchProgress {
    /// How far it is, from 0 to 1. Receiving and indexing are half of it each.
    pub(crate) fn ratio(self) -> f64 {
        if self.total_objects == 0 {
            return 0.0;
        }
        let done = (self.received_objects + self.indexed_objects) as f64;
        (done / (2 * self.total_objects) as f64).clamp(0.0, 1.0)
    }
}

/// The progress of one piece of work, and its stop flag. The working thread writes it while other threads read it.
#[derive(Debug, Default)]
pub(crate) struct ProgressCell {
    progress: Mutex<FetchProgress>,
    /// How often the upstream has reported that it is still preparing.
    signs: AtomicUsize,
    stop: StopFlag,
}

impl ProgressCell {
    pub(crate) fn set(&self, progress: FetchProgress) {
        *self.progress.lock() = progress;
    }

    pub(crate) fn get(&self) -> FetchProgress {
        *self.progress.lock()
    }

    /// Counts one report of the upstream that it is still preparing.
    pub(super) fn note_sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn signs(&self) -> usize {
        self.signs.load(Ordering::Relaxed)
    }

    /// The flag that ends this work.
    pub(super) fn stop_flag(&self) -> &StopFlag {
        &self.stop
    }

    /// Asks the work to end at its next check.
    pub(crate) fn stop(&self) {
        self.stop.set();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }
}
