//! A file that may be served, and reading it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use super::crate_store::{CrateStore, StoreError};
use super::disk::open_file::OpenFile;
use crate::package::Checksum;

/// How much of a file is read at a time. Every download in progress holds about so much. Below the size from which the
/// allocator asks the system for each block (`memory`), which doubled the time that a file takes.
const READ_BYTES_MAX: u64 = 120 * 1024;

/// The bytes of a file, part by part.
pub(crate) type Reading = BoxStream<'static, io::Result<Bytes>>;

/// A file whose bytes are what its checksum says.
#[derive(Clone, Debug)]
pub(crate) struct StoredFile {
    size: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Disk(Arc<OpenFile>),
    Memory(Bytes),
    Cloud(Checksum),
}

/// Bytes that take up room which is bounded.
struct InMemory {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for InMemory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl StoredFile {
    pub(super) fn on_disk(file: Arc<OpenFile>) -> Self {
        Self {
            size: file.size(),
            content: Content::Disk(file),
        }
    }

    /// `room` is given back when the last of the bytes has been sent.
    pub(super) fn in_memory(bytes: Bytes, room: OwnedSemaphorePermit) -> Self {
        Self {
            size: bytes.len() as u64,
            content: Content::Memory(Bytes::from_owner(InMemory { bytes, _room: room })),
        }
    }

    pub(super) fn in_cloud(checksum: Checksum, size: u64) -> Self {
        Self {
            size,
            content: Content::Cloud(checksum),
        }
    }

    /// How many bytes it has.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes in a range, which must lie inside the file.
    ///
    /// # Errors
    /// [`StoreError`], if the store fails before the first byte.
    pub(crate) async fn read(
        &self,
        range: Range<u64>,
        store: &Arc<CrateStore>,
    ) -> Result<Reading, StoreError> {
        match &self.content {
            Content::Memory(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let part = bytes.slice(place(range.start)..place(range.end));
                Ok(stream::once(async { Ok(part) }).boxed())
            }
            Content::Disk(file) => Ok(read_file(Arc::clone(file), range)),
            Content::Cloud(checksum) => store.read_object(checksum, range, self.size).await,
        }
    }

    /// Whether reading this range costs a reading of the whole file.
    pub(crate) fn must_read_whole(&self, range: &Range<u64>, store: &CrateStore) -> bool {
        match &self.content {
            Content::Cloud(checksum) => *range != (0..self.size) && store.must_read_whole(checksum),
            Content::Memory(_) | Content::Disk(_) => false,
        }
    }

    /// Whether all of it is in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.content, Content::Memory(_))
    }

    /// Whether it can be read without asking for it first.
    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(self.content, Content::Disk(_))
    }

    /// The bytes in a range, where reading them needs no request to anybody.
    pub(crate) fn read_now(&self, range: Range<u64>) -> Option<Reading> {
        match &self.content {
            Content::Disk(file) => Some(read_file(Arc::clone(file), range)),
            Content::Memory(_) | Content::Cloud(_) => None,
        }
    }
}

#[cfg(target_os = "linux")]
impl StoredFile {
    /// A range of the file, for whoever can have the system send it.
    pub(crate) fn part(&self, range: Range<u64>) -> Option<super::FilePart> {
        match &self.content {
            Content::Disk(file) => Some(super::FilePart::new(Arc::clone(file), range)),
            Content::Memory(_) | Content::Cloud(_) => None,
        }
    }
}

/// Reads when the part before has been sent, so that a slow client costs no more memory than a fast one.
fn read_file(file: Arc<OpenFile>, range: Range<u64>) -> Reading {
    let parts = stream::try_unfold((file, range), |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + READ_BYTES_MAX);
        let part = OpenFile::read(&file, range.start..end).await?;
        let next = range.start + part.len() as u64..range.end;
        Ok(Some((part, (file, next))))
    });
    parts.boxed()
}
