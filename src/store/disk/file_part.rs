//! A part of a file on the disk, which the system can send to a socket by itself.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::open_file::OpenFile;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    file: Arc<OpenFile>,
    range: Range<u64>,
}

impl FilePart {
    pub(crate) fn new(file: Arc<OpenFile>, range: Range<u64>) -> Self {
        Self { file, range }
    }

    /// How many bytes are left.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Takes this many bytes off its beginning, or all that are left.
    pub(crate) fn split_to(&mut self, bytes: u64) -> Self {
        let middle = self.range.end.min(self.range.start.saturating_add(bytes));
        let first = Self::new(Arc::clone(&self.file), self.range.start..middle);
        self.range.start = middle;
        first
    }

    /// Whether it is probably in the page cache, so that sending it does not wait for the disk. Looks at both ends only.
    pub(crate) fn is_in_memory(&self) -> bool {
        let last = self.range.end.saturating_sub(1);
        [self.range.start, last]
            .into_iter()
            .all(|at| self.file.is_in_memory(at))
    }

    /// Loads it into the page cache. Blocking.
    pub(crate) fn load(&self) -> io::Result<()> {
        self.file.load(&self.range)
    }

    /// Lets the system send at most this many bytes from its beginning to a socket, without waiting, and takes the sent
    /// bytes off.
    pub(crate) fn send_to(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes_max: usize,
    ) -> io::Result<usize> {
        let bytes = usize::try_from(self.bytes_left()).unwrap_or(usize::MAX);
        let bytes = bytes.min(bytes_max);
        let sent = self.file.send(self.range.start, bytes, socket)?;
        self.range.start += sent as u64;
        Ok(sent)
    }
}
