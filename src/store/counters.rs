//! What happened to crate files since the start, for metrics and the status page.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Files that were asked for and held.
    pub(crate) hits: Counter,
    /// Files that were fetched from an upstream and found right.
    pub(crate) fetched: Counter,
    /// Bytes of those.
    pub(crate) fetched_bytes: Counter,
    /// Files that no upstream had.
    pub(crate) missing: Counter,
    /// Files that an upstream sent with other bytes than the index says.
    pub(crate) corrupt: Counter,
    /// Files that could not be fetched for another reason.
    pub(crate) failed: Counter,
    /// Files that could not be kept, or whose store could not be read.
    pub(crate) store_failures: Counter,
    /// Files that were damaged on the disk.
    pub(crate) damaged: Counter,
    /// Files that were removed to make room.
    pub(crate) evicted: Counter,
}

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// How much it is.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
