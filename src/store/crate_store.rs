//! The store: crate files by checksum, on a disk or in a cloud.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::cloud::Cloud;
use super::counters::Counters;
use super::damage::{DamagedFiles, FileHealth};
use super::disk::directory::Disk;
use super::disk::uploads::UPLOADS;
use super::error::StoreError;
use super::location::StorageLocation;
use super::objects::{ListedFile, Objects, UnverifiedFile, key_of};
use super::spool::Spool;
use super::stored_file::StoredFile;
use crate::clock::Clock;
use crate::package::Checksum;

/// The settings of the store.
#[derive(Clone, Debug)]
pub(crate) struct StoreSettings {
    /// Where it is.
    pub(crate) location: StorageLocation,
    /// How many bytes may be on a local disk; `None` for no limit.
    pub(crate) bytes_max: Option<u64>,
    /// What happens to damaged files.
    pub(crate) damaged_files: DamagedFiles,
    /// Tells when a file was used.
    pub(crate) clock: Clock,
}

/// Crate files by checksum.
#[derive(Debug)]
pub(crate) struct CrateStore {
    pub(super) objects: Arc<Objects>,
    pub(super) backend: Backend,
    /// Where it is, without secrets.
    pub(crate) location: StorageLocation,
    /// How many bytes may be stored; `None` for no limit.
    pub(crate) bytes_max: Option<u64>,
    /// What happened to its files.
    pub(crate) counters: Arc<Counters>,
}

/// What keeps the files.
#[derive(Debug)]
pub(super) enum Backend {
    /// A directory, whose files can be opened.
    Disk(Box<Disk>),
    /// A bucket, or the memory of this process: each access is a request.
    Cloud(Arc<Cloud>),
}

impl CrateStore {
    /// Opens the store. Makes its directory if it is on a disk. Blocking. Must be called inside the runtime that does the
    /// store's work in the background.
    pub(crate) fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        let counters = Arc::new(Counters::default());
        let mut disk = None;
        let store: Arc<dyn ObjectStore> = match &settings.location {
            StorageLocation::Disk { path, use_of } => {
                std::fs::create_dir_all(path).map_err(|source| StoreError::Open {
                    path: path.clone(),
                    source,
                })?;
                let path = path.canonicalize()?;
                let files = LocalFileSystem::new_with_prefix(&path)?;
                disk = Some(Disk::new(
                    path,
                    *use_of,
                    settings.bytes_max,
                    settings.damaged_files,
                    settings.clock,
                    Arc::clone(&counters),
                ));
                Arc::new(files)
            }
            StorageLocation::Cloud(cloud) => cloud.open(Some(&Handle::current()))?,
            StorageLocation::Memory => Arc::new(InMemory::new()),
        };
        let objects = Arc::new(Objects {
            store,
            deletes_in_bulk: settings.location.deletes_in_bulk(),
        });
        let backend = match disk {
            Some(disk) => Backend::Disk(Box::new(disk)),
            None => Backend::Cloud(Arc::new(Cloud::new(
                Arc::clone(&objects),
                settings.damaged_files,
                Arc::clone(&counters),
            ))),
        };
        Ok(Self {
            objects,
            backend,
            location: settings.location,
            bytes_max: settings.bytes_max,
            counters,
        })
    }

    /// The files, if they are on a disk of this machine and not in a cloud.
    pub(super) fn disk(&self) -> Option<&Disk> {
        match &self.backend {
            Backend::Disk(disk) => Some(disk),
            Backend::Cloud(_) => None,
        }
    }

    /// Counts all files. This reads all directories, or asks a cloud for a list.
    pub(super) async fn count(&self) -> Result<(), StoreError> {
        let counted = self
            .list()
            .try_fold((0, 0), |(files, bytes), file| async move {
                Ok((files + 1, bytes + file.size))
            });
        let (files, bytes) = counted.await?;
        self.counters.stored_files.set(files);
        self.counters.stored_bytes.set(bytes);
        Ok(())
    }

    /// A stored file, if no look-up is needed to find it.
    pub(crate) fn find_now(&self, checksum: &Checksum) -> Option<StoredFile> {
        Some(StoredFile::on_disk(self.disk()?.open_now(checksum)?))
    }

    /// A stored file.
    pub(crate) async fn find(&self, checksum: &Checksum) -> Result<Option<StoredFile>, StoreError> {
        match &self.backend {
            Backend::Disk(disk) => Ok(disk.open(checksum).await?.map(StoredFile::on_disk)),
            Backend::Cloud(cloud) => {
                let size = cloud.find(checksum).await?;
                Ok(size.map(|size| StoredFile::in_cloud(Arc::clone(cloud), *checksum, size)))
            }
        }
    }

    /// Whether there is a file with this key, without a look at its bytes.
    pub(crate) async fn contains(&self, checksum: &Checksum) -> Result<bool, StoreError> {
        self.objects.contains(checksum).await
    }

    /// Whether the files are on a disk of this machine, and not in a cloud.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.disk().is_some()
    }

    /// The size of a file on a disk, in bytes, without a look at its bytes. `None` for a cloud, where this would be a request.
    /// Blocking.
    pub(crate) fn size_on_disk(&self, checksum: &Checksum) -> Option<u64> {
        self.disk()?.size_of(checksum)
    }

    /// Opens a file for a caller that reads and hashes all of it. A damaged one stays where it is. This does not count as a
    /// use.
    pub(crate) async fn open_unverified(
        &self,
        checksum: &Checksum,
    ) -> Result<Option<UnverifiedFile>, StoreError> {
        self.objects.open(checksum).await
    }

    /// All files, in no order.
    pub(crate) fn list(&self) -> BoxStream<'_, Result<ListedFile, StoreError>> {
        match &self.backend {
            Backend::Disk(disk) => disk.list(),
            Backend::Cloud(cloud) => cloud.list(),
        }
    }

    /// The checksums of all files.
    pub(crate) async fn checksums(&self) -> Result<HashSet<Checksum>, StoreError> {
        self.list().map_ok(|file| file.checksum).try_collect().await
    }

    /// Reads a file and hashes it.
    pub(crate) async fn verify(&self, checksum: &Checksum) -> Result<FileHealth, StoreError> {
        match &self.backend {
            Backend::Disk(disk) => Ok(disk.verify(checksum).await?),
            Backend::Cloud(cloud) => cloud.verify(checksum).await,
        }
    }

    /// Removes a file. A missing one is no error.
    pub(crate) async fn remove(&self, checksum: &Checksum) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Disk(disk) => {
                disk.forget(checksum);
                self.objects.delete(&key_of(checksum)).await
            }
            Backend::Cloud(cloud) => cloud.remove(checksum).await,
        }
    }

    /// Takes the bytes of a file that is to be stored.
    pub(crate) fn spool(&self, checksum: &Checksum) -> Spool {
        let staged = self.is_on_disk().then(|| {
            let name = format!("{checksum}-{:016x}", fastrand::u64(..));
            Path::from(UPLOADS).join(name)
        });
        let objects = Arc::clone(&self.objects.store);
        Spool::new(objects, key_of(checksum), staged)
    }

    /// Whether a file of this size is larger than the whole store may be.
    pub(crate) fn is_too_large(&self, bytes: u64) -> bool {
        self.disk().is_some_and(|disk| disk.is_too_large(bytes))
    }

    /// A file that is too large to be stored, for the requests that wait for it. On the disk it has no name any more, and
    /// its bytes go when the last of them was sent. `None` if there are too many of that kind.
    pub(super) async fn open_without_storing(
        &self,
        checksum: &Checksum,
        spool: Spool,
    ) -> Result<Option<StoredFile>, StoreError> {
        let Some(disk) = self.disk() else {
            return Err(StoreError::Changed);
        };
        let place = spool.finish_unnamed().await?;
        let opened = disk.open_once(checksum, place.as_ref()).await?;
        Ok(opened.map(StoredFile::on_disk))
    }

    /// Gives a file its key. This many bytes were hashed on their way into the spool, and match the checksum.
    pub(crate) async fn put(
        &self,
        checksum: &Checksum,
        bytes: u64,
        mut spool: Spool,
    ) -> Result<(), StoreError> {
        let Some(disk) = self.disk() else {
            return Ok(spool.finish().await?);
        };
        let assembled = spool.assemble().await;
        // The identity is that of the file without a key: another process may put another file at the key.
        let identity = match &assembled {
            Ok(()) => disk.identity_of(spool.place().as_ref()).await,
            Err(_not_written) => None,
        };
        spool.publish(assembled).await?;
        if let Some(identity) = identity {
            disk.note_intact(checksum, identity, bytes);
        }
        Ok(())
    }

    /// Keeps a local store within its limit, after a file of this size has come, or at any other time.
    pub(crate) async fn evict(&self, newest: Option<(&Checksum, u64)>) {
        let Some(disk) = self.disk() else {
            return;
        };
        match disk.evict(newest).await {
            Ok(0) => {}
            Ok(evicted) => {
                self.counters.evicted.add(evicted);
                if let Err(error) = self.count().await {
                    tracing::debug!(error = %error, "the store could not be counted");
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "no room could be made in the store of crate files");
            }
        }
    }

    /// Removes unfinished files of a crash. Blocking.
    pub(super) fn remove_leftovers(&self) {
        let Some(disk) = self.disk() else {
            return;
        };
        match disk.remove_leftovers() {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "unfinished crate files were removed"),
            Err(error) => {
                tracing::warn!(error = %error, "unfinished crate files could not be removed");
            }
        }
    }
}
