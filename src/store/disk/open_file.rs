//! A hashed file of the store, open for reading.

use std::fs::{File, FileTimes};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use crate::disk_file::DiskFile;
use crate::package::Checksum;

/// How long a file is kept open. Then a removed or replaced file is noticed.
pub(crate) const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

/// The resolution of the time of last use.
const USE_RESOLUTION: Duration = Duration::from_millis(100);

/// How much is read at a time for hashing. Blocks from 128 kB on come from the system one by one (`memory`).
const HASH_BUFFER_BYTES: usize = 120 * 1024;

/// A hashed file, open for reading.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The open file, to read it or to have it sent.
    pub(crate) file: Arc<DiskFile>,
    /// Tells it from its successors.
    pub(super) identity: Identity,
    opened: Instant,
    /// When its use was last noted, in milliseconds after it was opened.
    noted: AtomicU64,
}

/// What hashing a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The bytes match the checksum.
    Intact(Identity),
    /// They do not.
    Damaged(Identity),
}

/// Identifies a file among its successors. It changes when the file is replaced or written to, and not when it is read
/// or its use is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
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
        let file = File::open(path)?;
        let identity = Identity::of(&file)?;
        let is_intact = match known {
            Some(Finding::Intact(known)) if known == identity => true,
            Some(Finding::Damaged(known)) if known == identity => false,
            _ => hash(&file)? == *expected,
        };
        if !is_intact {
            return Err(NotOpened::Damaged(identity));
        }
        let opened = Self::intact(Arc::new(DiskFile::new(file)), identity);
        if let Some(now) = used_at {
            opened.note_use(now);
        }
        Ok(opened)
    }

    /// A file whose bytes match the checksum.
    pub(super) fn intact(file: Arc<DiskFile>, identity: Identity) -> Self {
        Self {
            file,
            identity,
            opened: Instant::now(),
            noted: AtomicU64::new(0),
        }
    }

    /// Whether it must be opened again: it has been open for too long, or cannot be read.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) > OPEN_TIME_MAX || self.file.has_failed()
    }

    /// Sets the time of last use. Blocking.
    pub(crate) fn note_use(&self, now: SystemTime) {
        let times = FileTimes::new().set_accessed(now);
        // On a read-only disk nothing can be evicted either, so the order does not matter.
        let _not_noted = self.file.file.set_times(times);
    }

    /// How many bytes it has.
    pub(crate) fn size(&self) -> u64 {
        self.identity.size
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

fn hash(file: &File) -> io::Result<Checksum> {
    let mut digest = Sha256::new();
    let mut buffered = BufReader::with_capacity(HASH_BUFFER_BYTES, file);
    io::copy(&mut buffered, &mut digest)?;
    Ok(Checksum::of(digest))
}
