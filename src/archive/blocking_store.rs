//! The store, for code that blocks.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::checksum_list::ChecksumList;
use crate::package::Checksum;
use crate::store::{CrateStore, Reading, StoreError};

/// How much of a file goes to the store at a time.
const PIECE_BYTES: u64 = 128 * 1024;

/// The store. Must be made inside a runtime, and used outside of its async workers.
pub(super) struct BlockingStore {
    store: Arc<CrateStore>,
    waiter: Waiter,
}

/// Waits for async work until stopped.
#[derive(Clone)]
pub(super) struct Waiter {
    pub(super) runtime: Handle,
    pub(super) stop: CancellationToken,
}

/// A file of the store.
pub(super) struct StoreReader {
    /// Its size.
    pub(super) bytes: u64,
    parts: Reading,
    part: Bytes,
    waiter: Waiter,
}

impl Waiter {
    pub(super) fn new(stop: &CancellationToken) -> Self {
        Self {
            runtime: Handle::current(),
            stop: stop.clone(),
        }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        let done = self.runtime.block_on(self.stop.run_until_cancelled(work));
        done.ok_or_else(|| io::Error::other("stopped"))
    }
}

impl BlockingStore {
    pub(super) fn new(store: &Arc<CrateStore>, stop: &CancellationToken) -> Self {
        Self {
            store: Arc::clone(store),
            waiter: Waiter::new(stop),
        }
    }

    /// The checksums of all files.
    pub(super) fn checksums(&self) -> Result<ChecksumList, StoreError> {
        let checksums = self.waiter.wait(self.store.checksums())??;
        Ok(checksums.into_iter().collect::<Vec<_>>().into())
    }

    /// Opens a file, whose bytes the caller has to verify. `None` if it is missing.
    pub(super) fn open(&self, checksum: &Checksum) -> Result<Option<StoreReader>, StoreError> {
        // Not through the checked read, which removes a damaged file: `verify --repair` needs it to know what to fetch.
        let opened = self.waiter.wait(self.store.open_unverified(checksum))??;
        Ok(opened.map(|file| StoreReader {
            bytes: file.size,
            parts: file.content,
            part: Bytes::new(),
            waiter: self.waiter.clone(),
        }))
    }

    /// Stores a file. `content` fails at its end if it does not match the checksum: then nothing is stored.
    pub(super) fn put(
        &self,
        checksum: &Checksum,
        bytes: u64,
        mut content: impl Read,
    ) -> Result<(), StoreError> {
        if self.store.is_too_large(bytes) {
            return Err(StoreError::TooLarge);
        }
        let mut spool = self.store.spool(checksum);
        let mut copy = || loop {
            let mut piece = Vec::new();
            if content.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)? == 0 {
                return Ok::<_, StoreError>(());
            }
            self.waiter.wait(spool.add(piece.into()))??;
        };
        if let Err(error) = copy() {
            self.waiter.runtime.block_on(spool.discard());
            return Err(error);
        }
        self.waiter.wait(self.store.put(checksum, bytes, spool))??;
        let evict = self.store.evict(Some((checksum, bytes)));
        Ok(self.waiter.wait(evict)?)
    }
}

impl Read for StoreReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.waiter.wait(self.parts.next())? {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let read = buffer.len().min(self.part.len());
        self.part
            .copy_to_slice(buffer.get_mut(..read).unwrap_or_default());
        Ok(read)
    }
}
