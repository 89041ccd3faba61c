//! What happened to crate files since the start, for metrics and the status page.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start, which only grow, and the number and bytes of the stored files.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests for stored files.
    pub(crate) hits: Counter,
    /// Files that were fetched from an upstream and verified.
    pub(crate) fetched: Counter,
    /// Their bytes.
    pub(crate) fetched_bytes: Counter,
    /// Files that no upstream had.
    pub(crate) missing: Counter,
    /// Files whose bytes did not match the checksum of the index.
    pub(crate) corrupt: Counter,
    /// Files that could not be fetched for another reason.
    pub(crate) failed: Counter,
    /// Failures of the store.
    pub(crate) store_failures: Counter,
    /// Damaged files in the store.
    pub(crate) damaged: Counter,
    /// Files that were removed to keep the store within its limit.
    pub(crate) evicted: Counter,
    /// Stored files: those of the last count and those that came and went since. Other processes may have added more.
    pub(crate) stored_files: Counter,
    /// Their bytes.
    pub(crate) stored_bytes: Counter,
}

/// A number that many threads change.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// The current value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
