//! What the index room says of itself: how far a clone is, when a fetch last succeeded, why one failed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use serde::Serialize;

use super::stop::StopFlag;

/// What the background task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Looking at what is on disk.
    Opening,
    /// Cloning the index, because there is no usable clone.
    Cloning,
    /// Fetching what is new.
    Fetching,
    /// Leaving out of the index what is not held.
    Pruning,
    /// Making the clone smaller.
    Maintaining,
    /// Waiting for the next fetch, after a success.
    Idle,
    /// Waiting for the next try, after a failure.
    Retrying,
    /// Told to stop.
    Stopped,
}

/// A copy of everything there is to say at one moment.
#[derive(Clone, Debug)]
pub(crate) struct IndexStatus {
    /// What the background task is doing.
    pub(crate) phase: Phase,
    /// When a fetch last succeeded, in an earlier run of the mirror too.
    pub(crate) last_success: Option<SystemTime>,
    /// Why the last try failed, without secrets; `None` after a success.
    pub(crate) last_error: Option<String>,
    /// Whether that failure cannot go away by itself.
    pub(crate) needs_help: bool,
    /// Failures since the last success.
    pub(crate) failures: u32,
    /// How far the running clone or fetch is.
    pub(crate) progress: FetchProgress,
    /// How pushing the rewritten index goes; `None` if it is not pushed anywhere.
    pub(crate) push: Option<PushStatus>,
    /// What whoever runs the mirror should know, and what does not make it unready.
    pub(crate) warnings: Vec<String>,
}

/// How pushing the rewritten index goes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PushStatus {
    /// Where it is pushed to, without credentials.
    pub(crate) remote: String,
    /// The upstream commit that the last push was made from.
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
    /// Objects that came over the network.
    pub(crate) received_objects: usize,
    /// Objects that this fetch consists of; 0 as long as the other side has not said.
    pub(crate) total_objects: usize,
    /// Objects that were unpacked, hashed and indexed.
    pub(crate) indexed_objects: usize,
    /// Bytes that came over the network.
    pub(crate) received_bytes: usize,
}

/// The progress of a fetch, written by the thread that fetches while others read; also the way to stop it.
#[derive(Debug, Default)]
pub(crate) struct ProgressCell {
    received_objects: AtomicUsize,
    total_objects: AtomicUsize,
    indexed_objects: AtomicUsize,
    received_bytes: AtomicUsize,
    /// How often the other side has said that it is still preparing.
    signs: AtomicUsize,
    stop: StopFlag,
}

impl ProgressCell {
    pub(crate) fn set(&self, progress: FetchProgress) {
        self.received_objects
            .store(progress.received_objects, Ordering::Relaxed);
        self.total_objects
            .store(progress.total_objects, Ordering::Relaxed);
        self.indexed_objects
            .store(progress.indexed_objects, Ordering::Relaxed);
        self.received_bytes
            .store(progress.received_bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> FetchProgress {
        FetchProgress {
            received_objects: self.received_objects.load(Ordering::Relaxed),
            total_objects: self.total_objects.load(Ordering::Relaxed),
            indexed_objects: self.indexed_objects.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }

    /// Notes that the other side says that it is still preparing.
    pub(crate) fn note_sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn signs(&self) -> usize {
        self.signs.load(Ordering::Relaxed)
    }

    /// The flag that ends this try.
    pub(crate) fn stop_flag(&self) -> &StopFlag {
        &self.stop
    }

    /// Asks the fetch to end at its next sign of life.
    pub(crate) fn stop(&self) {
        self.stop.set();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }
}
