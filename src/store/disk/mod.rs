//! Files on a local disk: opened once, hashed when first opened, and kept open for a while if they are asked for often.

pub(super) mod eviction;
pub(super) mod open_file;
pub(super) mod sweep;
pub(super) mod walk;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use quick_cache::sync::Cache;

use super::counters::Counters;
use super::crate_store::{DamagedFiles, FileHealth, ListedFile, StoreError};
use super::location::DiskUse;
use crate::clock::Clock;
use crate::package::Checksum;
use eviction::Bound;
use open_file::{Content, Finding, Identity, NotOpened, OpenFile};
use walk::walk;

/// How many files are kept open.
const OPEN_FILES_MAX: usize = 256;

/// How many files are remembered as hashed.
const CHECKED_FILES_MAX: usize = 65_536;

/// How many files that are too large to be stored are on the disk at a time, until the last of their bytes is sent.
const UNSTORED_MAX: usize = 8;

/// A directory of crate files.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) root: PathBuf,
    pub(crate) use_of: DiskUse,
    pub(crate) bound: Option<Bound>,
    damaged_files: DamagedFiles,
    clock: Clock,
    /// Whatever was written before is not ours.
    pub(crate) opened_at: SystemTime,
    open_files: Cache<Checksum, Arc<OpenFile>>,
    /// What was found when files were hashed. A damaged one is in it only where it was left.
    checked: Cache<Checksum, Finding>,
    /// Files without a name that are being sent.
    unstored: Mutex<HashMap<Checksum, Weak<OpenFile>>>,
}

impl Disk {
    pub(crate) fn new(
        root: PathBuf,
        use_of: DiskUse,
        bytes_max: Option<u64>,
        damaged_files: DamagedFiles,
        clock: Clock,
    ) -> Self {
        Self {
            root,
            use_of,
            bound: bytes_max.map(Bound::new),
            damaged_files,
            opened_at: clock.now(),
            clock,
            open_files: Cache::new(OPEN_FILES_MAX),
            checked: Cache::new(CHECKED_FILES_MAX),
            unstored: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
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

    /// Opens a file. One that is damaged is as good as absent.
    pub(crate) async fn open(
        &self,
        checksum: &Checksum,
        key: &str,
        counters: &Counters,
    ) -> io::Result<Option<Arc<OpenFile>>> {
        if let Some(file) = self.open_now(checksum) {
            return Ok(Some(file));
        }
        let path = self.root.join(key);
        // Those who ask for the same file at the same time wait for one look at it.
        let open = async {
            let (path, known) = (path.clone(), self.checked.get(checksum));
            let (expected, now) = (*checksum, self.bound.is_some().then(|| self.clock.now()));
            let open = move || OpenFile::open(&path, &expected, known, now).map(Arc::new);
            on_a_blocking_thread(open).await
        };
        match self.open_files.get_or_insert_async(checksum, open).await {
            Ok(file) => {
                self.checked.insert(*checksum, file.finding());
                Ok(Some(file))
            }
            Err(NotOpened::Absent) => Ok(self.unstored().get(checksum).and_then(Weak::upgrade)),
            Err(NotOpened::Failed(error)) => Err(error),
            Err(NotOpened::Damaged(identity)) => {
                self.deal_with_damaged(checksum, path, identity, counters)
                    .await;
                Ok(None)
            }
        }
    }

    /// Opens a file whose bytes are right and removes it, so that only who has it open can read it. It is found like a
    /// stored one for as long as somebody reads it.
    /// `None` if there are too many such files already.
    pub(crate) async fn open_once(
        &self,
        checksum: &Checksum,
        place: &str,
    ) -> io::Result<Option<Arc<OpenFile>>> {
        let (path, expected) = (self.root.join(place), *checksum);
        let written = self.identity_of(place).await;
        let opened = on_a_blocking_thread(move || {
            // Hashed on its way here.
            let known = written.map(|identity| Finding {
                identity,
                content: Content::Right,
            });
            let opened = OpenFile::open(&path, &expected, known, None);
            std::fs::remove_file(&path)?;
            match opened {
                Ok(file) => Ok(Arc::new(file)),
                Err(NotOpened::Failed(error)) => Err(error),
                Err(NotOpened::Absent | NotOpened::Damaged(_)) => {
                    Err(io::Error::other("it changed while it was written"))
                }
            }
        });
        let file = opened.await?;
        let mut unstored = self.unstored();
        unstored.retain(|_checksum, file| file.strong_count() > 0);
        if unstored.len() >= UNSTORED_MAX {
            return Ok(None);
        }
        unstored.insert(*checksum, Arc::downgrade(&file));
        Ok(Some(file))
    }

    fn unstored(&self) -> MutexGuard<'_, HashMap<Checksum, Weak<OpenFile>>> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deal_with_damaged(
        &self,
        checksum: &Checksum,
        path: PathBuf,
        identity: Identity,
        counters: &Counters,
    ) {
        let finding = Finding {
            identity,
            content: Content::Damaged,
        };
        if self.checked.get(checksum) == Some(finding) {
            return;
        }
        counters.damaged.add(1);
        let removed = match self.damaged_files {
            DamagedFiles::Leave => {
                self.checked.insert(*checksum, finding);
                false
            }
            DamagedFiles::Remove => {
                self.checked.remove(checksum);
                let removed = on_a_blocking_thread(move || {
                    // Somebody else may have replaced it by a good one meanwhile.
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

    /// What tells whether the file at this key is replaced or written to.
    pub(crate) async fn identity_of(&self, key: &str) -> Option<Identity> {
        let path = self.root.join(key);
        let look = move || Identity::of(&File::open(path)?);
        on_a_blocking_thread::<_, io::Error>(look).await.ok()
    }

    /// Remembers a file that was hashed on its way here, so that it is not hashed again when it is first sent.
    pub(crate) fn note_right(&self, checksum: &Checksum, identity: Identity, bytes: u64) {
        // Bytes that did not reach the disk are for the first reading to find.
        if identity.size() == bytes {
            let content = Content::Right;
            self.checked
                .insert(*checksum, Finding { identity, content });
        }
    }

    /// All files.
    pub(crate) fn list(&self) -> BoxStream<'static, Result<ListedFile, StoreError>> {
        let root = self.root.clone();
        let listed = on_a_blocking_thread(move || {
            let mut files = Vec::new();
            walk(&root, &mut |file| {
                files.push(ListedFile {
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
    pub(crate) async fn verify(&self, checksum: &Checksum, key: &str) -> io::Result<FileHealth> {
        let (path, expected) = (self.root.join(key), *checksum);
        let verified = on_a_blocking_thread(move || OpenFile::open(&path, &expected, None, None));
        match verified.await {
            Ok(file) => Ok(FileHealth::Intact { size: file.size() }),
            Err(NotOpened::Damaged(..)) => Ok(FileHealth::Damaged),
            Err(NotOpened::Absent) => Ok(FileHealth::Missing),
            Err(NotOpened::Failed(error)) => Err(error),
        }
    }

    /// Keeps a file no longer open, for it is about to be removed.
    pub(crate) fn forget(&self, checksum: &Checksum) {
        self.open_files.remove(checksum);
        self.checked.remove(checksum);
    }

    /// Keeps no file open: one that somebody removed takes up room for as long as it is open.
    pub(crate) fn close_all(&self) {
        self.open_files.clear();
    }

    /// Closes files that were opened too long before this moment. Otherwise one that was removed and is never asked for
    /// again would take up room until the mirror ends.
    pub(crate) fn close_expired(&self, now: Instant) {
        self.open_files
            .retain(|_checksum, file| !file.is_expired(now));
    }

    /// The time of last use decides who makes room. It is kept with the file, so that it outlives this process.
    fn note_use_of(&self, file: &Arc<OpenFile>) {
        if self.bound.is_none() || !file.is_due_to_be_noted() {
            return;
        }
        let (file, now) = (Arc::clone(file), self.clock.now());
        // Nobody waits for it: it is one call, at most ten times a second for a file.
        tokio::task::spawn_blocking(move || file.note_use(now));
    }
}

/// Runs something that waits for the disk.
pub(crate) async fn on_a_blocking_thread<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
