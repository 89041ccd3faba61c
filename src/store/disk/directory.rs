//! The directory of crate files: a file is hashed when it is first opened, and stays open for a while.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::eviction::SizeLimit;
use super::open_file::{Finding, Identity, NotOpened, OpenFile};
use super::uploads::remove_leftovers;
use super::walk::walk;
use crate::clock::Clock;
use crate::disk_file::{DiskFile, on_a_blocking_thread};
use crate::package::Checksum;
use crate::store::counters::Counters;
use crate::store::damage::{DamagedFiles, FileHealth};
use crate::store::error::StoreError;
use crate::store::location::DiskUse;
use crate::store::objects::{ListedFile, path_of};

/// How many files are kept open.
const OPEN_FILES_MAX: usize = 256;

/// For how many files the result of hashing is remembered.
const HASHED_FILES_MAX: usize = 65_536;

/// How many files that are too large to be stored can be on the disk at a time. Each is deleted when its last byte was
/// sent.
const UNSTORED_MAX: usize = 8;

/// A directory of crate files.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    use_of: DiskUse,
    limit: Option<SizeLimit>,
    damaged_files: DamagedFiles,
    clock: Clock,
    /// Unfinished files from before this moment are leftovers.
    opened_at: SystemTime,
    open_files: Cache<Checksum, Arc<OpenFile>>,
    /// The results of hashing. A damaged file is listed only if it stays on the disk.
    hashed: Cache<Checksum, Finding>,
    /// Files without a name that are being sent.
    unstored: Mutex<HashMap<Checksum, (Weak<DiskFile>, Identity)>>,
    counters: Arc<Counters>,
}

impl Disk {
    pub(crate) fn new(
        root: PathBuf,
        use_of: DiskUse,
        bytes_max: Option<u64>,
        damaged_files: DamagedFiles,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            root,
            use_of,
            limit: bytes_max.map(SizeLimit::new),
            damaged_files,
            opened_at: clock.now(),
            clock,
            open_files: Cache::new(OPEN_FILES_MAX),
            hashed: Cache::new(HASHED_FILES_MAX),
            unstored: Mutex::default(),
            counters,
        }
    }

    /// A file that is open already.
    pub(crate) fn open_now(&self, checksum: &Checksum) -> Option<Arc<OpenFile>> {
        let file = self.open_files.get(checksum)?;
        if file.is_expired(Instant::now()) {
            self.open_files.remove(checksum);
            return None;
        }
        self.note_use_of(&file);
        Some(file)
    }

    /// Opens a file. A damaged one counts as missing.
    pub(crate) async fn open(&self, checksum: &Checksum) -> io::Result<Option<Arc<OpenFile>>> {
        if let Some(file) = self.open_now(checksum) {
            return Ok(Some(file));
        }
        let path = self.path(checksum);
        // Requests for the same file at the same time share one check of it.
        let open = async {
            let (path, known) = (path.clone(), self.hashed.get(checksum));
            let (expected, now) = (*checksum, self.limit.is_some().then(|| self.clock.now()));
            let open = move || OpenFile::open(&path, &expected, known, now).map(Arc::new);
            on_a_blocking_thread(open).await
        };
        match self.open_files.get_or_insert_async(checksum, open).await {
            Ok(file) => {
                let finding = Finding::Intact(file.identity);
                self.hashed.insert(*checksum, finding);
                Ok(Some(file))
            }
            Err(NotOpened::Missing) => Ok(self.find_unstored(checksum)),
            Err(NotOpened::Failed(error)) => Err(error),
            Err(NotOpened::Damaged(identity)) => {
                self.deal_with_damaged(checksum, path, identity).await;
                Ok(None)
            }
        }
    }

    /// Opens a verified file and removes it from the directory, so that only its readers have it. It is found like a
    /// stored file as long as it is read. `None` if there are too many such files already.
    pub(crate) async fn open_once(
        &self,
        checksum: &Checksum,
        place: &str,
    ) -> io::Result<Option<Arc<OpenFile>>> {
        let (path, expected) = (self.root.join(place), *checksum);
        let written = self.identity_of(place).await;
        let opened = on_a_blocking_thread(move || {
            // The file was hashed on its way here.
            let known = written.map(Finding::Intact);
            let opened = OpenFile::open(&path, &expected, known, None);
            std::fs::remove_file(&path)?;
            match opened {
                Ok(file) => Ok(Arc::new(file)),
                Err(NotOpened::Failed(error)) => Err(error),
                Err(NotOpened::Missing | NotOpened::Damaged(_)) => {
                    Err(io::Error::other("it changed while it was written"))
                }
            }
        });
        let file = opened.await?;
        let mut unstored = self.unstored.lock();
        unstored.retain(|_checksum, (file, _identity)| file.strong_count() > 0);
        if unstored.len() >= UNSTORED_MAX {
            return Ok(None);
        }
        unstored.insert(*checksum, (Arc::downgrade(&file.file), file.identity));
        Ok(Some(file))
    }

    /// A file without a name, if it is still being sent.
    fn find_unstored(&self, checksum: &Checksum) -> Option<Arc<OpenFile>> {
        let (file, identity) = self.unstored.lock().get(checksum)?.clone();
        Some(Arc::new(OpenFile::intact(file.upgrade()?, identity)))
    }

    async fn deal_with_damaged(&self, checksum: &Checksum, path: PathBuf, identity: Identity) {
        let finding = Finding::Damaged(identity);
        if self.hashed.get(checksum) == Some(finding) {
            return;
        }
        self.counters.damaged.add(1);
        let removed = match self.damaged_files {
            DamagedFiles::Leave => {
                self.hashed.insert(*checksum, finding);
                false
            }
            DamagedFiles::Remove => {
                self.hashed.remove(checksum);
                let removed = on_a_blocking_thread(move || {
                    // Another process may have replaced it with a good one.
                    if Identity::of(&File::open(&path)?)? == identity {
                        std::fs::remove_file(path)?;
                    }
                    Ok::<_, io::Error>(())
                });
                removed.await.is_ok()
            }
        };
        tracing::error!(
            crate.checksum = %checksum,
            removed,
            "a crate file on the disk is damaged, and is not served"
        );
    }

    /// The identity of the file at this place, which changes when the file is replaced or written to.
    pub(crate) async fn identity_of(&self, place: &str) -> Option<Identity> {
        let path = self.root.join(place);
        let look = move || Identity::of(&File::open(path)?);
        on_a_blocking_thread::<_, io::Error>(look).await.ok()
    }

    /// Remembers that a file was hashed on its way here, so that the first reader need not hash it again.
    pub(crate) fn note_intact(&self, checksum: &Checksum, identity: Identity, bytes: u64) {
        // If fewer bytes reached the disk, the first read finds that.
        if identity.size == bytes {
            self.hashed.insert(*checksum, Finding::Intact(identity));
        }
    }

    /// All files.
    pub(crate) fn list(&self) -> BoxStream<'static, Result<ListedFile, StoreError>> {
        let root = self.root.clone();
        let listed = on_a_blocking_thread(move || {
            let mut files = Vec::new();
            walk(&root, &mut |file, _used_at| files.push(file))?;
            Ok::<_, io::Error>(files)
        });
        let files = listed.map_ok(|files| stream::iter(files.into_iter().map(Ok)));
        files.try_flatten_stream().map_err(StoreError::from).boxed()
    }

    /// Hashes a file, whether or not it was hashed before.
    pub(crate) async fn verify(&self, checksum: &Checksum) -> io::Result<FileHealth> {
        let (path, expected) = (self.path(checksum), *checksum);
        let verified = on_a_blocking_thread(move || OpenFile::open(&path, &expected, None, None));
        match verified.await {
            Ok(file) => Ok(FileHealth::Intact { size: file.size() }),
            Err(NotOpened::Damaged(..)) => Ok(FileHealth::Damaged),
            Err(NotOpened::Missing) => Ok(FileHealth::Missing),
            Err(NotOpened::Failed(error)) => Err(error),
        }
    }

    /// Closes a file that is about to be removed.
    pub(crate) fn forget(&self, checksum: &Checksum) {
        self.open_files.remove(checksum);
        self.hashed.remove(checksum);
    }

    /// Closes all files, because a removed file takes disk space as long as it is open.
    pub(crate) fn close_all(&self) {
        self.open_files.clear();
    }

    /// Closes files that were opened too long before this moment. Otherwise a removed file that is not requested again
    /// would take disk space until the mirror ends.
    pub(crate) fn close_expired(&self, now: Instant) {
        self.open_files
            .retain(|_checksum, file| !file.is_expired(now));
    }

    /// Whether a file of this size is larger than the whole directory may be.
    pub(crate) fn is_too_large(&self, bytes: u64) -> bool {
        let limit = self.limit.as_ref();
        limit.is_some_and(|limit| bytes > limit.bytes_max)
    }

    /// Removes files until the directory is within its limit, after a file of this size was added. That file stays.
    /// Returns how many files were removed.
    pub(crate) async fn evict(&self, newest: Option<(&Checksum, u64)>) -> io::Result<u64> {
        let Some(limit) = &self.limit else {
            return Ok(0);
        };
        let evicted = limit.enforce(&self.root, newest).await?;
        for checksum in &evicted.files {
            self.forget(checksum);
        }
        evicted.failure?;
        Ok(evicted.files.len() as u64)
    }

    /// Removes unfinished files of a crash, and returns their number. Blocking.
    pub(crate) fn remove_leftovers(&self) -> io::Result<u64> {
        remove_leftovers(&self.root, self.use_of, self.opened_at, self.clock.now())
    }

    /// Notes the time of last use, which decides about eviction. It is stored with the file, so it survives this
    /// process.
    fn note_use_of(&self, file: &Arc<OpenFile>) {
        if self.limit.is_none() || !file.is_due_to_be_noted() {
            return;
        }
        let (file, now) = (Arc::clone(file), self.clock.now());
        // Not awaited. It happens at most ten times a second for a file.
        tokio::task::spawn_blocking(move || file.note_use(now));
    }

    /// The size of a file, in bytes, without a look at its bytes. Blocking.
    pub(crate) fn size_of(&self, checksum: &Checksum) -> Option<u64> {
        let metadata = std::fs::metadata(self.path(checksum)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    fn path(&self, checksum: &Checksum) -> PathBuf {
        self.root.join(path_of(checksum))
    }
}
