//! One file on a local disk, open for reading, and what can be done with it.

use std::fs::{File, FileTimes};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::blocking::on_a_blocking_thread;
use crate::package::Checksum;
use crate::store::objects::checksum_of;

/// How long a file is kept open. A file that was removed or replaced is noticed after that.
pub(crate) const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

/// The resolution of the time of last use.
const USE_RESOLUTION: Duration = Duration::from_millis(100);

/// How much is read at a time for hashing. Blocks from 128 kB on come from the system one by one (`memory`).
const HASH_BUFFER_BYTES: usize = 120 * 1024;

/// The system's number for a file system that is only memory.
#[cfg(target_os = "linux")]
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A hashed file, open for reading.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    identity: Identity,
    opened: Instant,
    /// When its use was last noted, in milliseconds after it was opened.
    noted: AtomicU64,
    /// Whether reading it failed, as it does when another process truncates it.
    failed: AtomicBool,
    #[cfg(target_os = "linux")]
    lies_in: LiesIn,
}

/// Where the bytes of a file are.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LiesIn {
    /// Always in memory. Such a file system may not answer `RWF_NOWAIT`, and never makes a reader wait.
    Memory,
    /// On a disk, and perhaps also in the page cache.
    Disk,
}

/// What hashing a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    identity: Identity,
    integrity: Integrity,
}

impl Finding {
    pub(super) fn intact(identity: Identity) -> Self {
        let integrity = Integrity::Intact;
        Self {
            identity,
            integrity,
        }
    }

    pub(super) fn damaged(identity: Identity) -> Self {
        let integrity = Integrity::Damaged;
        Self {
            identity,
            integrity,
        }
    }
}

/// Whether the bytes of a file match its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Integrity {
    Intact,
    Damaged,
}

/// Tells a file from its successors: it changes when the file is replaced or written to, and not by reading or by noting
/// the use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    pub(crate) fn size(self) -> u64 {
        self.size
    }
}

/// Why a file is not served.
pub(crate) enum NotOpened {
    Missing,
    Damaged(Identity),
    Failed(io::Error),
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Failed(error),
        }
    }
}

impl OpenFile {
    /// Opens a file, and hashes it unless that was done before. Blocking.
    pub(crate) fn open(
        path: &Path,
        expected: &Checksum,
        known: Option<Finding>,
        used_at: Option<SystemTime>,
    ) -> Result<Self, NotOpened> {
        let mut file = File::open(path)?;
        let identity = Identity::of(&file)?;
        let integrity = match known.filter(|known| known.identity == identity) {
            Some(known) => known.integrity,
            None if hash(&mut file)? == *expected => Integrity::Intact,
            None => Integrity::Damaged,
        };
        if integrity == Integrity::Damaged {
            return Err(NotOpened::Damaged(identity));
        }
        if let Some(now) = used_at {
            note_use(&file, now);
        }
        Ok(Self {
            identity,
            opened: Instant::now(),
            noted: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            #[cfg(target_os = "linux")]
            lies_in: lies_in(&file),
            file,
        })
    }

    /// What hashing it found.
    pub(crate) fn finding(&self) -> Finding {
        Finding::intact(self.identity)
    }

    /// Whether it must be opened again: it has been open for too long, or cannot be read.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) > OPEN_TIME_MAX
            || self.failed.load(Ordering::Relaxed)
    }

    fn noting_failure<T>(&self, read: io::Result<T>) -> io::Result<T> {
        if read.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        read
    }

    /// Sets the time of last use. Blocking.
    pub(crate) fn note_use(&self, now: SystemTime) {
        note_use(&self.file, now);
    }

    /// How many bytes it has.
    pub(crate) fn size(&self) -> u64 {
        self.identity.size
    }

    /// Reads the bytes in a range that lies inside the file, or some of them, but at least one.
    pub(crate) async fn read(file: &Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if let Some(bytes) = file.noting_failure(file.read_now(&range))? {
            return Ok(bytes);
        }
        let file = Arc::clone(file);
        on_a_blocking_thread(move || {
            let mut buffer = buffer_for(&range);
            file.noting_failure(file.file.read_exact_at(&mut buffer, range.start))?;
            Ok(Bytes::from(buffer))
        })
        .await
    }

    /// Reads from the page cache, which never waits. `None` if the bytes must come from the disk.
    #[cfg(target_os = "linux")]
    fn read_now(&self, range: &Range<u64>) -> io::Result<Option<Bytes>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};

        let mut buffer = buffer_for(range);
        let parts = &mut [io::IoSliceMut::new(&mut buffer)];
        match preadv2(&self.file, parts, range.start, ReadWriteFlags::NOWAIT) {
            // The file was truncated meanwhile: the answer must not pass for complete.
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

    /// Whether the byte at this place can be read without waiting for the disk.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_in_memory(&self, at: u64) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};

        if self.lies_in == LiesIn::Memory {
            return true;
        }
        let mut byte = [0];
        let parts = &mut [io::IoSliceMut::new(&mut byte)];
        preadv2(&self.file, parts, at, ReadWriteFlags::NOWAIT) == Ok(1)
    }

    /// Loads a part into the page cache. Blocking.
    #[cfg(target_os = "linux")]
    pub(crate) fn load(&self, range: &Range<u64>) -> io::Result<()> {
        let mut buffer = buffer_for(range);
        self.noting_failure(self.file.read_exact_at(&mut buffer, range.start))
    }

    /// Lets the system send a part to a socket. Returns how much of it was sent: at least one byte.
    #[cfg(target_os = "linux")]
    pub(crate) fn send(
        &self,
        mut at: u64,
        bytes: usize,
        socket: std::os::fd::BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let sent = rustix::fs::sendfile(socket, &self.file, Some(&mut at), bytes)?;
        if sent == 0 && bytes > 0 {
            // The file was truncated meanwhile.
            return self.noting_failure(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(sent)
    }

    #[cfg(not(target_os = "linux"))]
    fn read_now(&self, _range: &Range<u64>) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    /// Whether the current use is to be noted. The next callers get `false` for a while.
    pub(crate) fn is_due_to_be_noted(&self) -> bool {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let resolution = u64::try_from(USE_RESOLUTION.as_millis()).unwrap_or(u64::MAX);
        let noted = self.noted.load(Ordering::Relaxed);
        now.saturating_sub(noted) >= resolution
            && self
                .noted
                .compare_exchange(noted, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

fn buffer_for(range: &Range<u64>) -> Vec<u8> {
    // Callers ask for a hundred kilobytes or so.
    vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or_default()]
}

#[cfg(target_os = "linux")]
fn lies_in(file: &File) -> LiesIn {
    match rustix::fs::fstatfs(file) {
        Ok(system) if u64::try_from(system.f_type) == Ok(TMPFS_MAGIC) => LiesIn::Memory,
        _ => LiesIn::Disk,
    }
}

fn hash(file: &mut File) -> io::Result<Checksum> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; HASH_BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum_of(digest)),
            bytes => digest.update(buffer.get(..bytes).unwrap_or_default()),
        }
    }
}

fn note_use(file: &File, now: SystemTime) {
    // On a read-only disk nothing can be evicted either, so the order does not matter.
    let _not_noted = file.set_times(FileTimes::new().set_accessed(now));
}
