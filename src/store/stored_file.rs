//! A file that may be served, and reading it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use super::cloud::Cloud;
#[cfg(target_os = "linux")]
use super::disk::open_file::OpenFile;
use super::error::StoreError;
use super::objects::{Reading, slice_of};
use crate::disk_file::DiskFile;
#[cfg(target_os = "linux")]
use crate::disk_file::FilePart;
use crate::package::Checksum;

/// How much of a file is read at a time: the memory of each download in progress. Blocks from 128 kB on come directly
/// from the system (`memory`), which doubled the time of a file.
const READ_BYTES_MAX: u64 = 120 * 1024;

/// A file whose bytes match its checksum.
#[derive(Clone, Debug)]
pub(crate) struct StoredFile {
    /// How many bytes it has.
    pub(crate) size: u64,
    source: Source,
}

/// Where the bytes come from.
#[derive(Clone, Debug)]
enum Source {
    Disk(Arc<OpenFile>),
    Memory(Bytes),
    Cloud(Arc<Cloud>, Checksum),
}

/// Bytes with their part of the memory budget.
struct Budgeted {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl StoredFile {
    pub(super) fn on_disk(file: Arc<OpenFile>) -> Self {
        Self {
            size: file.size(),
            source: Source::Disk(file),
        }
    }

    /// `permit` is released when the last of the bytes was sent.
    pub(super) fn in_memory(bytes: Bytes, permit: OwnedSemaphorePermit) -> Self {
        let budgeted = Budgeted {
            bytes,
            _permit: permit,
        };
        Self {
            size: budgeted.bytes.len() as u64,
            source: Source::Memory(Bytes::from_owner(budgeted)),
        }
    }

    pub(super) fn in_cloud(cloud: Arc<Cloud>, checksum: Checksum, size: u64) -> Self {
        Self {
            size,
            source: Source::Cloud(cloud, checksum),
        }
    }

    /// The bytes in a range, which must lie inside the file.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Reading, StoreError> {
        match &self.source {
            Source::Memory(bytes) => {
                let part = slice_of(bytes, range);
                Ok(stream::once(async { Ok(part) }).boxed())
            }
            Source::Disk(file) => Ok(read_file(Arc::clone(file), range)),
            Source::Cloud(cloud, checksum) => cloud.read(checksum, range, self.size).await,
        }
    }

    /// Whether reading this range costs a reading of the whole file.
    pub(crate) fn must_read_whole(&self, range: &Range<u64>) -> bool {
        match &self.source {
            Source::Cloud(cloud, checksum) => {
                *range != (0..self.size) && cloud.must_read_whole(checksum)
            }
            Source::Memory(_) | Source::Disk(_) => false,
        }
    }

    /// Whether all of it is in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    /// Whether it can be read without a request to a cloud.
    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(self.source, Source::Disk(_))
    }

    /// The bytes in a range of a file on the disk.
    pub(crate) fn read_now(&self, range: Range<u64>) -> Option<Reading> {
        match &self.source {
            Source::Disk(file) => Some(read_file(Arc::clone(file), range)),
            Source::Memory(_) | Source::Cloud(..) => None,
        }
    }

    /// A range of a file on the disk, which the kernel can send.
    #[cfg(target_os = "linux")]
    pub(crate) fn part(&self, range: Range<u64>) -> Option<FilePart> {
        match &self.source {
            Source::Disk(file) => Some(FilePart::new(Arc::clone(&file.file), range)),
            Source::Memory(_) | Source::Cloud(..) => None,
        }
    }
}

/// Reads the next part after the one before was sent, so a slow client costs no more memory than a fast one.
fn read_file(file: Arc<OpenFile>, range: Range<u64>) -> Reading {
    let parts = stream::try_unfold((file, range), |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + READ_BYTES_MAX);
        let part = DiskFile::read(&file.file, range.start..end).await?;
        let next = range.start + part.len() as u64..range.end;
        Ok(Some((part, (file, next))))
    });
    parts.boxed()
}
