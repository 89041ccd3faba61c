//! Files on a local disk: opened once, hashed when first opened, and kept open for a while if they are asked for often.

use std::fs::{File, FileTimes};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::counters::Counters;
use super::crate_store::{StoreError, StoredFile, Verdict};
use super::eviction::Bound;
use super::location::DiskUse;
use super::walk::walk;
use crate::clock::Clock;
use crate::package::Checksum;

/// How many files are kept open.
const OPEN_FILES_MAX: usize = 256;

/// How long a file is kept open, so that one that was removed or replaced is noticed.
pub(super) const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

/// How many files are remembered as hashed.
const CHECKED_FILES_MAX: usize = 65_536;

/// How exactly the time of last use is noted.
const USE_RESOLUTION: Duration = Duration::from_millis(100);

/// How much is read at a time to be hashed. Below the size from which the allocator asks the system for each block.
const HASH_BUFFER_BYTES: usize = 120 * 1024;

/// A directory of crate files.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) root: PathBuf,
    pub(super) use_of: DiskUse,
    pub(super) bound: Option<Bound>,
    clock: Clock,
    /// Whatever was written before is not ours.
    pub(super) opened_at: SystemTime,
    open_files: Cache<Checksum, Arc<OpenFile>>,
    checked: Cache<Checksum, Identity>,
}

/// A file that was hashed, open for reading.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    identity: Identity,
    opened: Instant,
    /// When its use was last noted, in milliseconds after it was opened.
    noted: AtomicU64,
}

/// What changes when a file is replaced or written to. Reading, and noting the use, change none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Why there is no open file to serve.
enum NotOpened {
    Absent,
    Damaged(PathBuf, Identity),
    Failed(io::Error),
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
            _ => Self::Failed(error),
        }
    }
}

impl Disk {
    pub(super) fn new(
        root: PathBuf,
        use_of: DiskUse,
        bytes_max: Option<u64>,
        clock: Clock,
    ) -> Self {
        Self {
            root,
            use_of,
            bound: bytes_max.map(Bound::new),
            opened_at: clock.now(),
            clock,
            open_files: Cache::new(OPEN_FILES_MAX),
            checked: Cache::new(CHECKED_FILES_MAX),
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// A file that is open already.
    pub(super) fn open_now(&self, checksum: &Checksum) -> Option<Arc<OpenFile>> {
        let file = self.open_files.get(checksum)?;
        if file.opened.elapsed() > OPEN_TIME_MAX {
            self.open_files.remove(checksum);
            return None;
        }
        self.note_use_of(&file);
        Some(file)
    }

    /// Opens a file. One that is damaged is removed, and as good as absent.
    pub(super) async fn open(
        &self,
        checksum: &Checksum,
        key: &str,
        counters: &Counters,
    ) -> io::Result<Option<Arc<OpenFile>>> {
        if let Some(file) = self.open_now(checksum) {
            return Ok(Some(file));
        }
        // Those who ask for the same file at the same time wait for one look at it.
        let open = async {
            let (path, known) = (self.root.join(key), self.checked.get(checksum));
            let (expected, now) = (*checksum, self.bound.is_some().then(|| self.clock.now()));
            on_a_blocking_thread(move || open_checked(&path, &expected, known, now)).await
        };
        match self.open_files.get_or_insert_async(checksum, open).await {
            Ok(file) => {
                self.checked.insert(*checksum, file.identity);
                Ok(Some(file))
            }
            Err(NotOpened::Absent) => Ok(None),
            Err(NotOpened::Failed(error)) => Err(error),
            Err(NotOpened::Damaged(path, identity)) => {
                self.remove_damaged(checksum, path, identity, counters)
                    .await;
                Ok(None)
            }
        }
    }

    async fn remove_damaged(
        &self,
        checksum: &Checksum,
        path: PathBuf,
        identity: Identity,
        counters: &Counters,
    ) {
        counters.damaged.add(1);
        self.checked.remove(checksum);
        let removed = on_a_blocking_thread(move || {
            // Somebody else may have replaced it by a good one meanwhile.
            if Identity::of(&File::open(&path)?)? == identity {
                std::fs::remove_file(path)?;
            }
            Ok::<_, io::Error>(())
        });
        let removed = removed.await;
        tracing::error!(
            crate.checksum = %checksum,
            removed = removed.is_ok(),
            "a crate file on the disk is damaged, and is not served"
        );
    }

    /// All files.
    pub(super) fn list(&self) -> BoxStream<'static, Result<StoredFile, StoreError>> {
        let root = self.root.clone();
        let listed = on_a_blocking_thread(move || {
            let mut files = Vec::new();
            walk(&root, &mut |file| {
                files.push(StoredFile {
                    checksum: file.checksum,
                    size: file.size,
                });
            })?;
            Ok::<_, io::Error>(files)
        });
        let files = listed.map_ok(|files| stream::iter(files.into_iter().map(Ok)));
        files.try_flatten_stream().map_err(StoreError::from).boxed()
    }

    /// Hashes a file, whether or not it was hashed before.
    pub(super) async fn verify(&self, checksum: &Checksum, key: &str) -> io::Result<Verdict> {
        let (path, expected) = (self.root.join(key), *checksum);
        let verified = on_a_blocking_thread(move || open_checked(&path, &expected, None, None));
        match verified.await {
            Ok(file) => Ok(Verdict::Right { size: file.size() }),
            Err(NotOpened::Damaged(..)) => Ok(Verdict::Damaged),
            Err(NotOpened::Absent) => Ok(Verdict::Absent),
            Err(NotOpened::Failed(error)) => Err(error),
        }
    }

    /// Keeps a file no longer open, for it is about to be removed.
    pub(super) fn forget(&self, checksum: &Checksum) {
        self.open_files.remove(checksum);
        self.checked.remove(checksum);
    }

    /// Keeps no file open: one that somebody removed takes up room for as long as it is open.
    pub(super) fn close_all(&self) {
        self.open_files.clear();
    }

    /// Closes files that were opened too long before this moment. Otherwise one that was removed and is never asked for
    /// again would take up room until the mirror ends.
    pub(super) fn close_expired(&self, now: Instant) {
        self.open_files
            .retain(|_checksum, file| now.saturating_duration_since(file.opened) <= OPEN_TIME_MAX);
    }

    /// The time of last use decides who makes room. It is kept with the file, so that it outlives this process.
    fn note_use_of(&self, file: &Arc<OpenFile>) {
        if self.bound.is_none() || !file.is_due_to_be_noted() {
            return;
        }
        let (file, now) = (Arc::clone(file), self.clock.now());
        // Nobody waits for it: it is one call, at most ten times a second for a file.
        tokio::task::spawn_blocking(move || note_use(&file.file, now));
    }
}

/// Opens a file and hashes it, unless it is the `known` one that was hashed before. Blocking.
fn open_checked(
    path: &Path,
    expected: &Checksum,
    known: Option<Identity>,
    used_at: Option<SystemTime>,
) -> Result<Arc<OpenFile>, NotOpened> {
    let mut file = File::open(path)?;
    let identity = Identity::of(&file)?;
    if known != Some(identity) && hash(&mut file)? != *expected {
        return Err(NotOpened::Damaged(path.to_owned(), identity));
    }
    if let Some(now) = used_at {
        note_use(&file, now);
    }
    Ok(Arc::new(OpenFile {
        file,
        identity,
        opened: Instant::now(),
        noted: AtomicU64::new(0),
    }))
}

fn hash(file: &mut File) -> io::Result<Checksum> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; HASH_BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Checksum::from(<[u8; 32]>::from(digest.finalize()))),
            bytes => digest.update(buffer.get(..bytes).unwrap_or_default()),
        }
    }
}

fn note_use(file: &File, now: SystemTime) {
    // A disk that cannot be written to cannot be cleared either: then the order does not matter.
    let _not_noted = file.set_times(FileTimes::new().set_accessed(now));
}

/// Runs something that waits for the disk.
async fn on_a_blocking_thread<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

impl OpenFile {
    /// How many bytes it has.
    pub(super) fn size(&self) -> u64 {
        self.identity.size
    }

    /// Reads the bytes in a range that lies inside the file, or some of them, but at least one.
    pub(super) async fn read(file: &Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if let Some(bytes) = file.read_now(&range)? {
            return Ok(bytes);
        }
        let file = Arc::clone(file);
        on_a_blocking_thread(move || {
            let mut buffer = buffer_for(&range);
            file.file.read_exact_at(&mut buffer, range.start)?;
            Ok(Bytes::from(buffer))
        })
        .await
    }

    /// What the system has in memory can be read on any thread. `None` if it must come from the disk.
    #[cfg(target_os = "linux")]
    fn read_now(&self, range: &Range<u64>) -> io::Result<Option<Bytes>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};

        let mut buffer = buffer_for(range);
        let parts = &mut [io::IoSliceMut::new(&mut buffer)];
        match preadv2(&self.file, parts, range.start, ReadWriteFlags::NOWAIT) {
            // Cut short under our hands: the answer must not be taken for whole.
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
    pub(super) fn is_in_memory(&self, at: u64) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};

        let mut byte = [0];
        let parts = &mut [io::IoSliceMut::new(&mut byte)];
        preadv2(&self.file, parts, at, ReadWriteFlags::NOWAIT) == Ok(1)
    }

    /// Has the system read a part from the disk. Blocking.
    #[cfg(target_os = "linux")]
    pub(super) fn load(&self, range: &Range<u64>) -> io::Result<()> {
        self.file.read_exact_at(&mut buffer_for(range), range.start)
    }

    /// Has the system send a part to a socket; how much of it, is returned.
    #[cfg(target_os = "linux")]
    pub(super) fn send(
        &self,
        mut at: u64,
        bytes: usize,
        socket: std::os::fd::BorrowedFd<'_>,
    ) -> io::Result<usize> {
        Ok(rustix::fs::sendfile(
            socket,
            &self.file,
            Some(&mut at),
            bytes,
        )?)
    }

    #[cfg(not(target_os = "linux"))]
    fn read_now(&self, _range: &Range<u64>) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    fn is_due_to_be_noted(&self) -> bool {
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
