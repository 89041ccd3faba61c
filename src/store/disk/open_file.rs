//! A hashed file of the store, open for reading.

use std::fs::{File, FileTimes};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use crate::disk_file::DiskFile;
use crate::package::Checksum;
use crate::store::objects::checksum_of;

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
    identity: Identity,
    opened: Instant,
    /// When its use was last noted, in milliseconds after it was opened.
    noted: AtomicU64,
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

/// Identifies a file among its successors. It changes when the file is replaced or written to, and not when it is read
/// or its use is noted.
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
        Ok(Self::intact(Arc::new(DiskFile::new(file)), identity))
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

    /// Tells it from its successors.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// What hashing it found.
    pub(crate) fn finding(&self) -> Finding {
        Finding::intact(self.identity)
    }

    /// Whether it must be opened again: it has been open for too long, or cannot be read.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) > OPEN_TIME_MAX || self.file.has_failed()
    }

    /// Sets the time of last use. Blocking.
    pub(crate) fn note_use(&self, now: SystemTime) {
        note_use(&self.file.file, now);
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
