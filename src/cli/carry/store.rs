//! The store, as archives read it and add to it.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::archive::{CrateSink, CrateSource, OpenFile, PortError};
use crate::cli::keeping::SeenTo;
use crate::package::Checksum;
use crate::store::{CrateFiles, Reading, StoreError};

/// How much of a file is handed to the store at a time.
const PIECE_BYTES: u64 = 128 * 1024;

/// The store for threads that block. To be made inside a runtime, and used outside of its workers.
#[derive(Clone)]
pub(super) struct CarriedStore {
    keeper: CrateFiles,
    waiter: Waiter,
    seen_to: SeenTo,
}

/// Waits for the store, until told to stop.
#[derive(Clone)]
struct Waiter {
    runtime: Handle,
    stop: CancellationToken,
}

impl CarriedStore {
    pub(super) fn new(keeper: CrateFiles, stop: &CancellationToken) -> Self {
        let waiter = Waiter {
            runtime: Handle::current(),
            stop: stop.clone(),
        };
        Self {
            keeper,
            waiter,
            seen_to: SeenTo::default(),
        }
    }

    /// What is put into it, then and later.
    pub(super) fn seen_to(&self) -> SeenTo {
        self.seen_to.clone()
    }

    fn all_held(&self) -> Result<Vec<Checksum>, PortError> {
        let held = self.waiter.wait(self.keeper.store().checksums())?;
        Ok(held.map_err(refused)?.into_iter().collect())
    }
}

impl Waiter {
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, PortError> {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => Ok(done),
                () = self.stop.cancelled() => Err(PortError("stopped".into())),
            }
        })
    }
}

impl CrateSource for CarriedStore {
    fn held(&self) -> Result<Vec<Checksum>, PortError> {
        self.all_held()
    }

    fn open(&self, checksum: &Checksum) -> Result<OpenFile, PortError> {
        // Whoever writes an archive hashes all of it, and says how a damaged file is mended: it must still be there.
        let opened = self.keeper.store().open_unverified(checksum);
        let opened = self.waiter.wait(opened)?.map_err(refused)?;
        let file = opened.ok_or_else(|| PortError("it was removed meanwhile".into()))?;
        Ok(OpenFile {
            bytes: file.size,
            content: Box::new(Content {
                parts: file.content,
                part: Bytes::new(),
                waiter: self.waiter.clone(),
            }),
        })
    }
}

impl CrateSink for CarriedStore {
    fn held(&self) -> Result<Vec<Checksum>, PortError> {
        self.all_held()
    }

    fn put(
        &self,
        checksum: &Checksum,
        bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        let store = self.keeper.store();
        if store.is_too_large(bytes) {
            return Err(PortError("it is larger than STORAGE_MAX_BYTES".into()));
        }
        let mut spool = store.spool(checksum);
        let mut copy = || loop {
            let mut piece = Vec::new();
            let mut next = (&mut *content).take(PIECE_BYTES);
            let read = next.read_to_end(&mut piece);
            if read.map_err(|error| PortError(error.into()))? == 0 {
                return Ok(());
            }
            let written = self.waiter.wait(spool.add(piece.into()))?;
            written.map_err(|error| refused(error.into()))?;
        };
        if let Err(error) = copy() {
            // If it cannot be removed, either, that is the store's to clear away later.
            self.waiter.runtime.block_on(spool.discard());
            return Err(error);
        }
        let kept = self.waiter.wait(spool.finish())?;
        kept.map_err(|error| refused(error.into()))?;
        self.seen_to.add(*checksum);
        self.waiter.wait(store.evict(Some((checksum, bytes))))
    }
}

fn refused(error: StoreError) -> PortError {
    PortError(error.into())
}

/// A file of the store, read as it comes.
struct Content {
    parts: Reading,
    part: Bytes,
    waiter: Waiter,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let next = self.waiter.wait(self.parts.next());
            match next.map_err(io::Error::other)? {
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
