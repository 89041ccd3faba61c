//! The fetches in flight: each file is fetched once for all requests that wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::GetError;
use super::stored_file::StoredFile;
use crate::package::Checksum;

/// How many fetches run or wait for a permit.
const IN_FLIGHT_MAX: usize = 4_096;

/// How long a client must wait if there are too many fetches.
pub(super) const PAUSE_WHEN_FULL: Duration = Duration::from_secs(5);

/// How far a fetch is.
#[derive(Clone, Debug)]
pub(super) enum FetchState {
    /// Nothing is known yet.
    Begun,
    /// The bytes are there and verified, and the store is slow.
    Arrived(Bytes),
    /// The fetch has ended.
    Ended(Result<Fetched, GetError>),
}

/// A verified file from an upstream.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    /// Its size.
    pub(super) bytes: u64,
    /// The bytes of a small file: its requests get them even if the store failed.
    pub(super) content: Option<Bytes>,
    /// The file, if it is too large for the store and for memory.
    pub(super) unstored: Option<StoredFile>,
    /// Whether the store has it, and why not.
    pub(super) stored: Result<(), Arc<str>>,
}

/// The fetches in flight, by checksum.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<Checksum, watch::Receiver<FetchState>>>);

/// Waits for a fetch. It can be dropped at any time, and the fetch continues.
pub(super) struct Waiter(watch::Receiver<FetchState>);

/// Tells the waiters of a fetch its progress.
pub(super) struct Reporter(watch::Sender<FetchState>);

/// Removes a fetch from the table when it is dropped, even after a panic.
pub(super) struct Entry<'t> {
    table: &'t InFlight,
    checksum: Checksum,
}

impl InFlight {
    /// Waits for the fetch of a file. Calls `begin` if there is none.
    pub(super) fn join(
        &self,
        checksum: Checksum,
        begin: impl FnOnce(Reporter),
    ) -> Result<Waiter, GetError> {
        let mut table = self.0.lock();
        if let Some(running) = table.get(&checksum) {
            return Ok(Waiter(running.clone()));
        }
        if table.len() >= IN_FLIGHT_MAX {
            return Err(GetError::Busy(PAUSE_WHEN_FULL));
        }
        let (sender, receiver) = watch::channel(FetchState::Begun);
        table.insert(checksum, receiver.clone());
        begin(Reporter(sender));
        Ok(Waiter(receiver))
    }

    /// The entry of a fetch that has begun.
    pub(super) fn entry(&self, checksum: Checksum) -> Entry<'_> {
        Entry {
            table: self,
            checksum,
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.table.0.lock().remove(&self.checksum);
    }
}

impl Reporter {
    pub(super) fn report(&self, state: FetchState) {
        self.0.send_replace(state);
    }

    /// Whether no request waits any more.
    pub(super) fn is_abandoned(&self) -> bool {
        // One receiver is that of the table.
        self.0.receiver_count() <= 1
    }
}

impl Waiter {
    /// The bytes of the file, if they are there before the fetch has ended.
    pub(super) async fn arrived(&mut self) -> Result<Option<Bytes>, GetError> {
        let is_begun = |state: &FetchState| matches!(state, FetchState::Begun);
        match self.wait_for(|state| !is_begun(state)).await? {
            FetchState::Arrived(content) => Ok(Some(content)),
            FetchState::Begun | FetchState::Ended(_) => Ok(None),
        }
    }

    /// The result of the fetch.
    pub(super) async fn ended(&mut self) -> Result<Fetched, GetError> {
        let is_ended = |state: &FetchState| matches!(state, FetchState::Ended(_));
        match self.wait_for(is_ended).await? {
            FetchState::Ended(result) => result,
            FetchState::Begun | FetchState::Arrived(_) => Err(GetError::Pending),
        }
    }

    async fn wait_for(
        &mut self,
        condition: impl FnMut(&FetchState) -> bool,
    ) -> Result<FetchState, GetError> {
        let reached = self.0.wait_for(condition).await;
        Ok(reached.map_err(|_ended_early| GetError::Stopping)?.clone())
    }
}
