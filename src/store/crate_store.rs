//! The store: crate files by checksum, in whatever place was named.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error as ObjectError, GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::counters::Counters;
use super::disk::Disk;
use super::held::{Held, Reading};
use super::location::{Place, StorageLocation, Uploads};
use super::spool::Spool;
use crate::clock::Clock;
use crate::package::Checksum;

/// How many files in a cloud are remembered with their size, so that reading one takes one request.
const SIZES_REMEMBERED_MAX: usize = 65_536;

/// Where large files are put together, in clouds that would mix up uploads of the same file.
const UPLOADS: &str = "uploads";

/// How long a cloud may take to say whether it has a file.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// What ends the name of a file.
const EXTENSION: &str = ".crate";

/// What the store needs to know.
#[derive(Clone, Debug)]
pub(crate) struct StoreSettings {
    /// Where it is.
    pub(crate) location: StorageLocation,
    /// How many bytes may lie on a local disk; `None` for any number.
    pub(crate) bytes_max: Option<u64>,
    /// Tells when a file was used.
    pub(crate) clock: Clock,
}

/// Crate files by checksum.
#[derive(Debug)]
pub(crate) struct CrateStore {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
    /// Where the files are local ones.
    pub(super) disk: Option<Disk>,
    location: StorageLocation,
    uploads: Uploads,
    sizes: Cache<Checksum, u64>,
    pub(super) counters: Arc<Counters>,
}

/// A file that lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredFile {
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
pub(crate) enum Verdict {
    /// It is what its key says.
    Right {
        /// Its bytes.
        size: u64,
    },
    /// It is something else.
    Damaged,
    /// It is not there any more.
    Absent,
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
    #[error("{0}")]
    Object(#[from] ObjectError),
    /// The cloud does not say whether it has a file.
    #[error("it is silent")]
    Silent,
    /// The disk failed.
    #[error("{0}")]
    Disk(#[from] io::Error),
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
        let mut uploads = Uploads::Apart;
        let (objects, prefix): (Arc<dyn ObjectStore>, Path) = match settings.location.place() {
            Place::Disk { path, use_of } => {
                std::fs::create_dir_all(path).map_err(|source| StoreError::Open {
                    path: path.clone(),
                    source,
                })?;
                let path = path.canonicalize()?;
                let objects = LocalFileSystem::new_with_prefix(&path)?;
                disk = Some(Disk::new(path, *use_of, settings.bytes_max, settings.clock));
                (Arc::new(objects), Path::default())
            }
            Place::Cloud(cloud) => {
                uploads = cloud.uploads();
                (cloud.open(Some(&Handle::current()))?, cloud.prefix())
            }
            Place::Memory => (Arc::new(InMemory::new()), Path::default()),
        };
        Ok(Self {
            objects,
            prefix,
            disk,
            location: settings.location,
            uploads,
            sizes: Cache::new(SIZES_REMEMBERED_MAX),
            counters,
        })
    }

    /// Where it is, without secrets.
    pub(crate) fn place(&self) -> &StorageLocation {
        &self.location
    }

    /// A held file, if that can be said without waiting.
    pub(crate) fn find_now(&self, checksum: &Checksum) -> Option<Held> {
        Some(Held::on_disk(self.disk.as_ref()?.open_now(checksum)?))
    }

    /// A held file.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot say whether it has the file.
    pub(crate) async fn find(&self, checksum: &Checksum) -> Result<Option<Held>, StoreError> {
        if let Some(disk) = &self.disk {
            let key = self.key(checksum);
            let opened = disk.open(checksum, key.as_ref(), &self.counters).await?;
            return Ok(opened.map(Held::on_disk));
        }
        let size = match self.sizes.get(checksum) {
            Some(size) => size,
            None => {
                let key = self.key(checksum);
                // An upstream may be faster than a store that is as good as gone.
                let head = tokio::time::timeout(LOOK_MAX, self.objects.head(&key));
                match head.await.map_err(|_elapsed| StoreError::Silent)? {
                    Ok(found) => found.size,
                    Err(ObjectError::NotFound { .. }) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        self.sizes.insert(*checksum, size);
        Ok(Some(Held::in_cloud(*checksum, size)))
    }

    /// Whether there is a file with this key, without a look at its bytes.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot say.
    pub(crate) async fn holds(&self, checksum: &Checksum) -> Result<bool, StoreError> {
        match self.objects.head(&self.key(checksum)).await {
            Ok(_found) => Ok(true),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a part of a file from the cloud.
    pub(super) async fn read_object(
        &self,
        checksum: &Checksum,
        range: std::ops::Range<u64>,
    ) -> Result<Reading, StoreError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let got = self.objects.get_opts(&self.key(checksum), options).await;
        if got.is_err() {
            // It may be gone; the next one who asks must be told.
            self.sizes.remove(checksum);
        }
        let parts = got?.into_stream();
        Ok(parts.map(|part| part.map_err(io::Error::other)).boxed())
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
    pub(crate) fn list(&self) -> BoxStream<'_, Result<StoredFile, StoreError>> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let listed = self.objects.list(prefix);
        let files = listed.filter_map(async |object| match object {
            Ok(object) => checksum_of(&object.location).map(|checksum| {
                Ok(StoredFile {
                    checksum,
                    size: object.size,
                })
            }),
            // Removed while it was listed.
            Err(ObjectError::NotFound { .. }) => None,
            Err(error) => Some(Err(error.into())),
        });
        files.boxed()
    }

    /// The checksums of all files.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot be listed to the end.
    pub(crate) async fn held(&self) -> Result<HashSet<Checksum>, StoreError> {
        self.list().map_ok(|file| file.checksum).try_collect().await
    }

    /// Reads a file and hashes it.
    ///
    /// # Errors
    /// [`StoreError`], if it is there and cannot be read.
    pub(crate) async fn verify(&self, checksum: &Checksum) -> Result<Verdict, StoreError> {
        if let Some(disk) = &self.disk {
            let key = self.key(checksum);
            return Ok(disk.verify(checksum, key.as_ref()).await?);
        }
        let mut parts = match self.objects.get(&self.key(checksum)).await {
            Ok(got) => got.into_stream(),
            Err(ObjectError::NotFound { .. }) => return Ok(Verdict::Absent),
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
            Verdict::Right { size }
        } else {
            Verdict::Damaged
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
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of whatever may take up room, now that the store has failed.
    pub(super) fn let_go(&self) {
        if let Some(disk) = &self.disk {
            disk.close_all();
        }
    }

    /// Takes the bytes of a file that is to be kept.
    pub(crate) fn spool(&self, checksum: &Checksum) -> Spool {
        let key = self.key(checksum);
        let upload_to = match self.uploads {
            Uploads::Apart => key.clone(),
            Uploads::Mixed => {
                let name = format!("{checksum}-{:016x}", fastrand::u64(..));
                self.prefix.clone().join(UPLOADS).join(name)
            }
        };
        Spool::new(Arc::clone(&self.objects), key, upload_to)
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

    /// `{prefix}/ab/cd/abcd….crate`: directories of a size that tools can list.
    pub(super) fn key(&self, checksum: &Checksum) -> Path {
        let name = checksum.to_string();
        let directories = [name.get(..2), name.get(2..4)].into_iter().flatten();
        let key = directories.fold(self.prefix.clone(), |path, part| path.join(part));
        key.join(name.clone() + EXTENSION)
    }
}

/// What a key says of its file; `None` for what is not ours.
fn checksum_of(key: &Path) -> Option<Checksum> {
    key.filename()?.strip_suffix(EXTENSION)?.parse().ok()
}
