//! A file on a local disk, open for reading, and parts of it that the kernel can send to a socket.
//!
//! The store opens such files, and connections send them. So this is a module of its own, which knows neither.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

/// The number of a file system in memory (`statfs`).
#[cfg(target_os = "linux")]
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// See the module.
#[derive(Debug)]
pub(crate) struct DiskFile {
    /// The file itself.
    pub(crate) file: File,
    /// Whether reading it failed, as it does when another process truncates it.
    failed: AtomicBool,
    /// Whether its file system is in memory. Such a file system may not answer `RWF_NOWAIT`, and never makes a reader wait.
    #[cfg(target_os = "linux")]
    lies_in_memory: bool,
}

impl DiskFile {
    /// Wraps an open file. Blocking.
    pub(crate) fn new(file: File) -> Self {
        Self {
            failed: AtomicBool::new(false),
            #[cfg(target_os = "linux")]
            lies_in_memory: rustix::fs::fstatfs(&file)
                .is_ok_and(|system| u64::try_from(system.f_type) == Ok(TMPFS_MAGIC)),
            file,
        }
    }

    /// Whether reading it has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn noting_failure<T>(&self, read: io::Result<T>) -> io::Result<T> {
        if read.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        read
    }

    /// Reads the bytes in a range that lies inside the file, or some of them, but at least one.
    pub(crate) async fn read(file: &Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if let Some(bytes) = file.noting_failure(file.read_now(&range))? {
            return Ok(bytes);
        }
        let file = Arc::clone(file);
        let read = move || {
            let mut buffer = buffer_for(&range);
            file.noting_failure(file.file.read_exact_at(&mut buffer, range.start))?;
            Ok(Bytes::from(buffer))
        };
        on_a_blocking_thread(read).await
    }

    /// Reads from the page cache, which never waits. `None` if the bytes must come from the disk.
    #[cfg(target_os = "linux")]
    fn read_now(&self, range: &Range<u64>) -> io::Result<Option<Bytes>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};

        let mut buffer = buffer_for(range);
        let parts = &mut [io::IoSliceMut::new(&mut buffer)];
        match preadv2(&self.file, parts, range.start, ReadWriteFlags::NOWAIT) {
            // The file was truncated in the meantime. The answer must not look complete.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                buffer.truncate(bytes);
                Ok(Some(Bytes::from(buffer)))
            }
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::INTR) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read_now(&self, _range: &Range<u64>) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    /// Whether the byte at this place can be read without waiting for the disk.
    #[cfg(target_os = "linux")]
    fn is_in_memory(&self, at: u64) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};

        if self.lies_in_memory {
            return true;
        }
        let mut byte = [0];
        let parts = &mut [io::IoSliceMut::new(&mut byte)];
        preadv2(&self.file, parts, at, ReadWriteFlags::NOWAIT) == Ok(1)
    }
}

/// A part of a file, for the kernel to send. Cheap to clone.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    file: Arc<DiskFile>,
    range: Range<u64>,
}

#[cfg(target_os = "linux")]
impl FilePart {
    /// A range that lies inside the file.
    pub(crate) fn new(file: Arc<DiskFile>, range: Range<u64>) -> Self {
        Self { file, range }
    }

    /// How many bytes are left.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Removes this many bytes from its beginning, or all that are left.
    pub(crate) fn split_to(&mut self, bytes: u64) -> Self {
        let middle = self.range.end.min(self.range.start.saturating_add(bytes));
        let first = Self::new(Arc::clone(&self.file), self.range.start..middle);
        self.range.start = middle;
        first
    }

    /// Whether it is probably in the page cache, so that sending does not wait for the disk. Checks only both ends.
    pub(crate) fn is_in_memory(&self) -> bool {
        let last = self.range.end.saturating_sub(1);
        [self.range.start, last]
            .into_iter()
            .all(|at| self.file.is_in_memory(at))
    }

    /// Loads it into the page cache. Blocking.
    pub(crate) fn load(&self) -> io::Result<()> {
        let mut buffer = buffer_for(&self.range);
        let read = self.file.file.read_exact_at(&mut buffer, self.range.start);
        self.file.noting_failure(read)
    }

    /// Lets the kernel send at most this many bytes from its beginning to a socket, without waiting. Removes the sent
    /// bytes, at least one.
    pub(crate) fn send_to(
        &mut self,
        socket: std::os::fd::BorrowedFd<'_>,
        bytes_max: usize,
    ) -> io::Result<usize> {
        let bytes = usize::try_from(self.bytes_left()).unwrap_or(usize::MAX);
        let bytes = bytes.min(bytes_max);
        let file = &self.file.file;
        // `sendfile` advances the start of the range.
        let sent = rustix::fs::sendfile(socket, file, Some(&mut self.range.start), bytes)?;
        if sent == 0 && bytes > 0 {
            // The file was truncated in the meantime.
            let truncated = Err(io::ErrorKind::UnexpectedEof.into());
            return self.file.noting_failure(truncated);
        }
        Ok(sent)
    }
}

/// Runs something that waits for the disk away from the async workers.
pub(crate) async fn on_a_blocking_thread<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn buffer_for(range: &Range<u64>) -> Vec<u8> {
    // Callers ask for about a hundred kilobytes.
    vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or_default()]
}
