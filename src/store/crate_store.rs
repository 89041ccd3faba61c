//! The store: crate files by checksum, in whatever place was named.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error as ObjectError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt,
};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::blocks::{BLOCK_BYTES, BlockHasher, Blocks, BlocksOfFiles, checked_blocks};
use super::checked::{checked, is_damage};
use super::counters::Counters;
use super::disk::Disk;
use super::disk::sweep::UPLOADS;
use super::disk::walk::{EXTENSION, path_of};
use super::location::{Place, StorageLocation};
use super::spool::{Assembly, Spool};
use super::stored_file::{Reading, StoredFile};
use crate::clock::Clock;
use crate::package::Checksum;

/// How many files in a cloud are remembered with their size, so that reading one takes one request.
const SIZES_REMEMBERED_MAX: usize = 65_536;

/// How long a cloud may take to say whether it has a file, or to begin sending it.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// How long a cloud that was silent is taken to be silent still, so that not everybody has to wait for it.
const SILENCE_REMEMBERED: Duration = Duration::from_secs(10);

/// What the store needs to know.
#[derive(Clone, Debug)]
pub(crate) struct StoreSettings {
    /// Where it is.
    pub(crate) location: StorageLocation,
    /// How many bytes may lie on a local disk; `None` for any number.
    pub(crate) bytes_max: Option<u64>,
    /// What becomes of damaged files.
    pub(crate) damaged_files: DamagedFiles,
    /// Tells when a file was used.
    pub(crate) clock: Clock,
}

/// What becomes of a file that is damaged. It is not served in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DamagedFiles {
    /// It is removed, since it can be fetched again.
    Remove,
    /// It stays where it is: nothing can bring it back but somebody who repairs it.
    Leave,
}

/// Crate files by checksum.
#[derive(Debug)]
pub(crate) struct CrateStore {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
    /// Where the files are local ones.
    pub(super) disk: Option<Disk>,
    location: StorageLocation,
    damaged_files: DamagedFiles,
    silent_until: Mutex<Option<Instant>>,
    sizes: Cache<Checksum, u64>,
    /// Of files in a cloud that were read to their end and were right.
    blocks: BlocksOfFiles,
    pub(super) counters: Arc<Counters>,
}

/// A file that lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListedFile {
    /// What its bytes are, unless it is damaged.
    pub(crate) checksum: Checksum,
    /// Their number.
    pub(crate) size: u64,
}

/// A file that lies in the store, whose bytes nobody has looked at.
pub(crate) struct UnverifiedFile {
    /// How many bytes it has.
    pub(crate) size: u64,
    /// Its bytes.
    pub(crate) content: Reading,
}

/// What reading a whole file for its checksum found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileHealth {
    /// It is what its key says.
    Intact {
        /// Its bytes.
        size: u64,
    },
    /// It is something else.
    Damaged,
    /// It is not there any more.
    Missing,
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The directory cannot be made.
    #[error("cannot use `{}`: {source}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, or the cloud, failed.
    #[error("{}", without_body(.0))]
    Object(#[from] ObjectError),
    /// An S3 store did not remove a file, perhaps because it cannot remove several at once, as it was asked to.
    #[error(
        "{}; if it has no bulk delete (`POST ?delete`), set AWS_DISABLE_BULK_DELETE=true",
        without_body(.0)
    )]
    BulkDelete(#[source] ObjectError),
    /// A file is not there any more, or another one is in its place. Whoever wants it has to look once more.
    #[error("it holds something else than a moment ago")]
    Changed,
    /// The cloud does not answer.
    #[error("it is silent")]
    Silent,
    /// The disk failed.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// What a cloud answers may repeat keys and tokens that it was shown.
fn without_body(error: &ObjectError) -> String {
    let text = error.to_string();
    text.split('<')
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

impl CrateStore {
    /// Opens the store, and makes its directory if it is on a disk. Blocking. To be called inside the runtime that does
    /// the store's work in the background.
    ///
    /// # Errors
    /// [`StoreError`], if there is no such directory and none can be made.
    pub(crate) fn open(
        settings: StoreSettings,
        counters: Arc<Counters>,
    ) -> Result<Self, StoreError> {
        let mut disk = None;
        let (objects, prefix): (Arc<dyn ObjectStore>, Path) = match settings.location.place() {
            Place::Disk { path, use_of } => {
                std::fs::create_dir_all(path).map_err(|source| StoreError::Open {
                    path: path.clone(),
                    source,
                })?;
                let path = path.canonicalize()?;
                let objects = LocalFileSystem::new_with_prefix(&path)?;
                disk = Some(Disk::new(
                    path,
                    *use_of,
                    settings.bytes_max,
                    settings.damaged_files,
                    settings.clock,
                ));
                (Arc::new(objects), Path::default())
            }
            Place::Cloud(cloud) => (cloud.open(Some(&Handle::current()))?, cloud.prefix()),
            Place::Memory => (Arc::new(InMemory::new()), Path::default()),
        };
        Ok(Self {
            objects,
            prefix,
            disk,
            location: settings.location,
            damaged_files: settings.damaged_files,
            silent_until: Mutex::new(None),
            sizes: Cache::new(SIZES_REMEMBERED_MAX),
            blocks: BlocksOfFiles::new(),
            counters,
        })
    }

    /// Where it is, without secrets.
    pub(crate) fn place(&self) -> &StorageLocation {
        &self.location
    }

    /// A held file, if that can be said without waiting.
    pub(crate) fn find_now(&self, checksum: &Checksum) -> Option<StoredFile> {
        Some(StoredFile::on_disk(self.disk.as_ref()?.open_now(checksum)?))
    }

    /// A held file.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot say whether it has the file.
    pub(crate) async fn find(&self, checksum: &Checksum) -> Result<Option<StoredFile>, StoreError> {
        if let Some(disk) = &self.disk {
            let key = self.key(checksum);
            let opened = disk.open(checksum, key.as_ref(), &self.counters).await?;
            return Ok(opened.map(StoredFile::on_disk));
        }
        let size = match self.sizes.get(checksum) {
            Some(size) => Some(size),
            None => self.size_in_cloud(checksum).await?,
        };
        Ok(size.map(|size| {
            self.sizes.insert(*checksum, size);
            StoredFile::in_cloud(*checksum, size)
        }))
    }

    async fn size_in_cloud(&self, checksum: &Checksum) -> Result<Option<u64>, StoreError> {
        match self.ask(self.objects.head(&self.key(checksum))).await {
            Ok(found) => Ok(right_size(checksum, found.size)),
            Err(StoreError::Object(ObjectError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the cloud answers, unless it is silent: an upstream may be faster than a store that is as good as gone.
    async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, StoreError> {
        let is_silent = |until: Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        if is_silent(*self.silent_until()) {
            return Err(StoreError::Silent);
        }
        match tokio::time::timeout(LOOK_MAX, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => {
                *self.silent_until() = Instant::now().checked_add(SILENCE_REMEMBERED);
                Err(StoreError::Silent)
            }
        }
    }

    fn silent_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a file with this key, without a look at its bytes.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot say.
    pub(crate) async fn contains(&self, checksum: &Checksum) -> Result<bool, StoreError> {
        match self.objects.head(&self.key(checksum)).await {
            Ok(found) => Ok(right_size(checksum, found.size).is_some()),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a file from the cloud, or a part of it. Either is hashed on its way.
    pub(super) async fn read_object(
        self: &Arc<Self>,
        checksum: &Checksum,
        range: Range<u64>,
        size: u64,
    ) -> Result<Reading, StoreError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        if range == (0..size) {
            return self.read_whole(checksum, size).await;
        }
        // The index says nothing of a part. The checksums of its blocks come from a first reading of the whole file. To
        // remember an entity tag would not do instead: it stays the same when an object rots.
        let blocks = self.blocks_of(checksum, size).await?;
        let first = range.start / BLOCK_BYTES;
        let end = range.end.next_multiple_of(BLOCK_BYTES).min(size);
        let parts = self
            .get(checksum, Some(first * BLOCK_BYTES..end), size)
            .await?;
        let (store, checksum) = (Arc::clone(self), *checksum);
        Ok(checked_blocks(parts, blocks, range, async move {
            store.sizes.remove(&checksum);
            // The next request for a part reads the whole file again, and deals with the damage.
            store.blocks.remove(&checksum);
            tracing::error!(
                crate.checksum = %checksum,
                "a crate file in the store changed while it was read, and is not served to its end"
            );
        }))
    }

    /// Whether a part of a file in the cloud costs a reading of the whole file, because none was read before.
    pub(crate) fn must_read_whole(&self, checksum: &Checksum) -> bool {
        self.blocks.get(checksum).is_none()
    }

    /// The checksums of the blocks of a file that is right as a whole.
    async fn blocks_of(
        self: &Arc<Self>,
        checksum: &Checksum,
        size: u64,
    ) -> Result<Blocks, StoreError> {
        if let Some(blocks) = self.blocks.get(checksum) {
            return Ok(blocks);
        }
        let mut whole = self.read_whole(checksum, size).await?;
        let mut hasher = BlockHasher::default();
        loop {
            match whole.try_next().await {
                Ok(Some(part)) => hasher.update(&part),
                Ok(None) => break,
                Err(error) if is_damage(&error) => return Err(StoreError::Changed),
                Err(error) => return Err(error.into()),
            }
        }
        let blocks = hasher.finish();
        self.blocks.insert(*checksum, Arc::clone(&blocks));
        Ok(blocks)
    }

    async fn read_whole(
        self: &Arc<Self>,
        checksum: &Checksum,
        size: u64,
    ) -> Result<Reading, StoreError> {
        let parts = self.get(checksum, None, size).await?;
        let (store, checksum) = (Arc::clone(self), *checksum);
        Ok(checked(parts, checksum, async move {
            store.counters.damaged.add(1);
            let removed = match store.damaged_files {
                DamagedFiles::Remove => Some(store.remove(&checksum).await),
                DamagedFiles::Leave => None,
            };
            let not_removed = removed.as_ref().and_then(|removed| removed.as_ref().err());
            tracing::error!(
                crate.checksum = %checksum,
                removed = removed.as_ref().is_some_and(Result::is_ok),
                error = not_removed.map(tracing::field::display),
                "a crate file in the store is damaged, and is not served to its end"
            );
        }))
    }

    /// Bytes from the cloud, as they come.
    async fn get(
        &self,
        checksum: &Checksum,
        range: Option<Range<u64>>,
        size: u64,
    ) -> Result<Reading, StoreError> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let key = self.key(checksum);
        let got = match self.ask(self.objects.get_opts(&key, options)).await {
            // What was found a moment ago is no longer true.
            Ok(got) if got.meta.size != size => Err(StoreError::Changed),
            Err(StoreError::Object(ObjectError::NotFound { .. })) => Err(StoreError::Changed),
            got => got,
        };
        if got.is_err() {
            // It may be gone; the next one who asks must be told.
            self.sizes.remove(checksum);
        }
        let counters = Arc::clone(&self.counters);
        let parts = got?.into_stream().map_err(move |error| {
            counters.store_failures.add(1);
            io::Error::other(error)
        });
        Ok(parts.boxed())
    }

    /// Opens a file for one who reads and hashes all of it; a damaged one stays where it is. This does not count as a use.
    ///
    /// # Errors
    /// [`StoreError`], if it is there and cannot be opened.
    pub(crate) async fn open_unverified(
        &self,
        checksum: &Checksum,
    ) -> Result<Option<UnverifiedFile>, StoreError> {
        match self.objects.get(&self.key(checksum)).await {
            Ok(got) => Ok(Some(UnverifiedFile {
                size: got.meta.size,
                content: got
                    .into_stream()
                    .map(|part| part.map_err(io::Error::other))
                    .boxed(),
            })),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All files, in no order.
    pub(crate) fn list(&self) -> BoxStream<'_, Result<ListedFile, StoreError>> {
        if let Some(disk) = &self.disk {
            return disk.list();
        }
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let listed = self.objects.list(prefix);
        let files = listed.filter_map(async |object| match object {
            Ok(object) => self.stored(&object).map(Ok),
            // Removed while it was listed.
            Err(ObjectError::NotFound { .. }) => None,
            Err(error) => Some(Err(error.into())),
        });
        files.boxed()
    }

    /// What an object is, unless it is not ours: a bucket may hold other things, and copies of such files elsewhere.
    fn stored(&self, object: &ObjectMeta) -> Option<ListedFile> {
        let name = object.location.filename()?.strip_suffix(EXTENSION)?;
        let checksum = name.parse().ok()?;
        let is_in_place = self.key(&checksum) == object.location;
        is_in_place.then_some(ListedFile {
            checksum,
            size: object.size,
        })
    }

    /// The checksums of all files.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot be listed to the end.
    pub(crate) async fn checksums(&self) -> Result<HashSet<Checksum>, StoreError> {
        self.list().map_ok(|file| file.checksum).try_collect().await
    }

    /// Reads a file and hashes it.
    ///
    /// # Errors
    /// [`StoreError`], if it is there and cannot be read.
    pub(crate) async fn verify(&self, checksum: &Checksum) -> Result<FileHealth, StoreError> {
        if let Some(disk) = &self.disk {
            let key = self.key(checksum);
            return Ok(disk.verify(checksum, key.as_ref()).await?);
        }
        let mut parts = match self.objects.get(&self.key(checksum)).await {
            Ok(got) => got.into_stream(),
            Err(ObjectError::NotFound { .. }) => return Ok(FileHealth::Missing),
            Err(error) => return Err(error.into()),
        };
        let (mut digest, mut size) = (Sha256::new(), 0);
        while let Some(part) = parts.next().await {
            let part: Bytes = part?;
            size += part.len() as u64;
            digest.update(&part);
        }
        let actual = Checksum::from(<[u8; 32]>::from(digest.finalize()));
        Ok(if actual == *checksum {
            FileHealth::Intact { size }
        } else {
            FileHealth::Damaged
        })
    }

    /// Removes a file. One that is not there is no error.
    ///
    /// # Errors
    /// [`StoreError`], if it may still be there.
    pub(crate) async fn remove(&self, checksum: &Checksum) -> Result<(), StoreError> {
        self.sizes.remove(checksum);
        if let Some(disk) = &self.disk {
            disk.forget(checksum);
        }
        match self.objects.delete(&self.key(checksum)).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.not_deleted(error)),
        }
    }

    /// Why a file was not removed, with what may help.
    pub(super) fn not_deleted(&self, error: ObjectError) -> StoreError {
        if self.location.deletes_in_bulk() {
            StoreError::BulkDelete(error)
        } else {
            error.into()
        }
    }

    /// Lets go of whatever may take up room, now that the store has failed.
    pub(super) fn let_go(&self) {
        if let Some(disk) = &self.disk {
            disk.close_all();
        }
    }

    /// Lets go of files that were not looked at for long.
    pub(super) fn close_expired(&self) {
        if let Some(disk) = &self.disk {
            disk.close_expired(std::time::Instant::now());
        }
    }

    /// Takes the bytes of a file that is to be kept.
    pub(crate) fn spool(&self, checksum: &Checksum) -> Spool {
        let assembly = match &self.disk {
            Some(_) => {
                let name = format!("{checksum}-{:016x}", fastrand::u64(..));
                Assembly::At(Path::from(UPLOADS).join(name))
            }
            None => Assembly::AtKey,
        };
        Spool::new(Arc::clone(&self.objects), self.key(checksum), assembly)
    }

    /// Whether a file of so many bytes is larger than everything together may be.
    pub(crate) fn is_too_large(&self, bytes: u64) -> bool {
        let bound = self.disk.as_ref().and_then(|disk| disk.bound.as_ref());
        bound.is_some_and(|bound| bytes > bound.bytes_max())
    }

    /// A file that is too large to be stored, for those who wait for it. On the disk it has no name any more, and its
    /// bytes go when the last of them has been sent. `None` if there are too many of that kind.
    pub(super) async fn open_without_storing(
        &self,
        checksum: &Checksum,
        spool: Spool,
    ) -> Result<Option<StoredFile>, StoreError> {
        let Some(disk) = &self.disk else {
            return Err(StoreError::Changed);
        };
        let place = spool.keep_nameless().await?;
        let opened = disk.open_once(checksum, place.as_ref()).await?;
        Ok(opened.map(StoredFile::on_disk))
    }

    /// Gives a file its key. So many bytes of it were hashed on their way into the spool, and are right.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot take it.
    pub(crate) async fn keep(
        &self,
        checksum: &Checksum,
        bytes: u64,
        mut spool: Spool,
    ) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else {
            return Ok(spool.keep().await?);
        };
        let assembled = spool.assemble().await;
        // Of the file that was just written, which has no key yet: at its key another process may put another one.
        let identity = match &assembled {
            Ok(()) => disk.identity_of(spool.place().as_ref()).await,
            Err(_not_written) => None,
        };
        spool.publish(assembled).await?;
        if let Some(identity) = identity {
            disk.note_right(checksum, identity, bytes);
        }
        Ok(())
    }

    /// Keeps a local store within its bound, now that a file of so many bytes has come, or at any other time.
    pub(crate) async fn make_room(&self, newest: Option<(&Checksum, u64)>) {
        let Some(disk) = &self.disk else {
            return;
        };
        match disk.make_room(newest).await {
            Ok(evicted) => self.counters.evicted.add(evicted),
            Err(error) => {
                tracing::warn!(error = %error, "no room could be made in the store of crate files");
            }
        }
    }

    /// Removes what a crash left of files that were being written. Blocking.
    pub(super) fn sweep(&self) {
        let Some(disk) = &self.disk else {
            return;
        };
        match disk.sweep() {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "unfinished crate files were removed"),
            Err(error) => {
                tracing::warn!(error = %error, "unfinished crate files could not be removed");
            }
        }
    }

    /// The prefix, and what every store has below it.
    pub(super) fn key(&self, checksum: &Checksum) -> Path {
        let path = path_of(checksum);
        path.split('/').fold(self.prefix.clone(), Path::join)
    }
}

/// The size that the store says a file has. An empty one is what a crash may leave of another.
fn right_size(checksum: &Checksum, size: u64) -> Option<u64> {
    let is_empty_file = || Checksum::from(<[u8; 32]>::from(Sha256::digest([]))) == *checksum;
    (size > 0 || is_empty_file()).then_some(size)
}
