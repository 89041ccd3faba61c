//! Crate files as the objects of a directory, a bucket or the memory: what all backends have in common.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use super::error::StoreError;
use crate::package::Checksum;

/// The end of a crate file's name.
pub(super) const EXTENSION: &str = ".crate";

/// The bytes of a file, part by part.
pub(crate) type Reading = BoxStream<'static, io::Result<Bytes>>;

/// A file in a listing of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListedFile {
    /// The checksum that it is stored under.
    pub(crate) checksum: Checksum,
    /// The number of its bytes.
    pub(crate) size: u64,
}

/// A stored file whose bytes were not compared with its checksum.
pub(crate) struct UnverifiedFile {
    /// How many bytes it has.
    pub(crate) size: u64,
    /// Its bytes.
    pub(crate) content: Reading,
}

/// The objects of one place.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    /// Whether a removal is a bulk request.
    pub(super) deletes_in_bulk: bool,
}

impl Objects {
    /// Whether there is a file with this key, without a look at its bytes.
    pub(super) async fn contains(&self, checksum: &Checksum) -> Result<bool, StoreError> {
        match self.store.head(&key_of(checksum)).await {
            Ok(found) => Ok(is_plausible_size(checksum, found.size)),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file without a look at its bytes.
    pub(super) async fn open(
        &self,
        checksum: &Checksum,
    ) -> Result<Option<UnverifiedFile>, StoreError> {
        match self.store.get(&key_of(checksum)).await {
            Ok(got) => Ok(Some(UnverifiedFile {
                size: got.meta.size,
                content: got.into_stream().map_err(failed_read).boxed(),
            })),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an object. A missing one is no error.
    pub(super) async fn delete(&self, key: &Path) -> Result<(), StoreError> {
        match self.store.delete(key).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(error) if self.deletes_in_bulk => Err(StoreError::BulkDelete(error)),
            Err(error) => Err(error.into()),
        }
    }
}

/// The key of a file.
pub(super) fn key_of(checksum: &Checksum) -> Path {
    Path::from(path_of(checksum))
}

/// A failure during a reading. Its text is that of a [`StoreError`].
pub(super) fn failed_read(error: ObjectError) -> io::Error {
    io::Error::other(StoreError::from(error))
}

/// The place of a file below the root of a store: `ab/cd/abcd….crate`. The directories stay small enough for tools to
/// list.
pub(super) fn path_of(checksum: &Checksum) -> String {
    let name = checksum.to_string();
    let part = |from, to| name.get(from..to).unwrap_or_default();
    format!("{}/{}/{name}{EXTENSION}", part(0, 2), part(2, 4))
}

/// The bytes in a range that lies inside them.
pub(super) fn slice_of(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let place = |at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(place(range.start)..place(range.end))
}

/// Whether a file can have this size. A crash may leave an empty file in the place of another one.
pub(super) fn is_plausible_size(checksum: &Checksum, size: u64) -> bool {
    size > 0 || Checksum::of(Sha256::new()) == *checksum
}
