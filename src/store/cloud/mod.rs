//! Crate files in a cloud, or in memory: each look-up and each reading is a request.
//!
//! The bytes of a cloud are hashed on their way to a client, which never gets the end of a damaged file. A part is
//! checked block by block, with checksums from an earlier read of the whole file.

mod blocks;
mod whole_file;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::{Error as ObjectError, GetOptions, GetRange, ObjectMeta, ObjectStoreExt};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::counters::Counters;
use super::damage::{DamagedFiles, FileHealth};
use super::error::StoreError;
use super::objects::{
    EXTENSION, ListedFile, Objects, Reading, failed_read, is_plausible_size, key_of,
};
use crate::package::Checksum;
use blocks::{BLOCK_BYTES, BlockHasher, Blocks, BlocksOfFiles, check_blocks};
use whole_file::{check_whole, is_damage};

/// How many sizes of files are remembered, so that reading a file takes one request.
const SIZES_REMEMBERED_MAX: usize = 65_536;

/// The longest wait for a cloud to say whether it has a file, or to begin sending it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// How long an unresponsive cloud gets no requests, so that only a few clients wait for it.
const UNRESPONSIVE_REMEMBERED: Duration = Duration::from_secs(10);

/// The files of a bucket.
#[derive(Debug)]
pub(super) struct Cloud {
    objects: Arc<Objects>,
    damaged_files: DamagedFiles,
    unresponsive_until: Mutex<Option<Instant>>,
    sizes: Cache<Checksum, u64>,
    /// The blocks of files that were read to their end and matched their checksum.
    blocks: BlocksOfFiles,
    counters: Arc<Counters>,
}

impl Cloud {
    pub(super) fn new(
        objects: Arc<Objects>,
        damaged_files: DamagedFiles,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            objects,
            damaged_files,
            unresponsive_until: Mutex::new(None),
            sizes: Cache::new(SIZES_REMEMBERED_MAX),
            blocks: BlocksOfFiles::new(),
            counters,
        }
    }

    /// The size of a file; `None` if it is missing.
    pub(super) async fn find(&self, checksum: &Checksum) -> Result<Option<u64>, StoreError> {
        if let Some(size) = self.sizes.get(checksum) {
            return Ok(Some(size));
        }
        let key = key_of(checksum);
        match self.ask(self.objects.store.head(&key)).await {
            Ok(found) if is_plausible_size(checksum, found.size) => {
                self.sizes.insert(*checksum, found.size);
                Ok(Some(found.size))
            }
            Ok(_) | Err(StoreError::Object(ObjectError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The cloud's answer, or an error at once while the cloud is unresponsive: an upstream may be faster.
    async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, StoreError> {
        if self
            .unresponsive_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(StoreError::TimedOut);
        }
        match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => {
                *self.unresponsive_until.lock() =
                    Instant::now().checked_add(UNRESPONSIVE_REMEMBERED);
                Err(StoreError::TimedOut)
            }
        }
    }

    /// Reads a file or a part of it.
    pub(super) async fn read(
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
        // The index has no checksum of a part. So the checksums of its blocks come from a first read of the whole file.
        // An entity tag is not enough, because it stays the same when an object is damaged.
        let blocks = self.blocks_of(checksum, size).await?;
        let first = range.start / BLOCK_BYTES;
        let end = range.end.next_multiple_of(BLOCK_BYTES).min(size);
        let parts = self
            .get(checksum, Some(first * BLOCK_BYTES..end), size)
            .await?;
        let (cloud, checksum) = (Arc::clone(self), *checksum);
        Ok(check_blocks(parts, blocks, range, async move {
            cloud.sizes.remove(&checksum);
            // The next request for a part reads the whole file again, and handles the damage.
            cloud.blocks.remove(&checksum);
            tracing::error!(
                crate.checksum = %checksum,
                "a crate file in the store changed while it was read, and is not served to its end"
            );
        }))
    }

    /// Whether a part of a file costs a read of the whole file, because its blocks are unknown.
    pub(super) fn must_read_whole(&self, checksum: &Checksum) -> bool {
        self.blocks.get(checksum).is_none()
    }

    /// The checksums of the blocks of a file that matches its checksum as a whole.
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
        let failed = |error: io::Error| match is_damage(&error) {
            true => StoreError::Changed,
            false => error.into(),
        };
        while let Some(part) = whole.try_next().await.map_err(failed)? {
            hasher.update(&part);
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
        let (cloud, checksum) = (Arc::clone(self), *checksum);
        Ok(check_whole(parts, checksum, async move {
            cloud.counters.damaged.add(1);
            let removed = match cloud.damaged_files {
                DamagedFiles::Remove => Some(cloud.remove(&checksum).await),
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

    /// The bytes, unchecked.
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
        let key = key_of(checksum);
        let got = match self.ask(self.objects.store.get_opts(&key, options)).await {
            Ok(got) if got.meta.size != size => Err(StoreError::Changed),
            Err(StoreError::Object(ObjectError::NotFound { .. })) => Err(StoreError::Changed),
            got => got,
        };
        if got.is_err() {
            // The file may be gone: the next look-up must ask the cloud.
            self.sizes.remove(checksum);
        }
        let counters = Arc::clone(&self.counters);
        let parts = got?.into_stream().map_err(move |error| {
            counters.store_failures.add(1);
            failed_read(error)
        });
        Ok(parts.boxed())
    }

    /// All files, in no order.
    pub(super) fn list(&self) -> BoxStream<'_, Result<ListedFile, StoreError>> {
        let objects = self.objects.store.list(None);
        let files = objects.filter_map(async |object| match object {
            Ok(object) => listed(&object).map(Ok),
            // It was removed during the listing.
            Err(ObjectError::NotFound { .. }) => None,
            Err(error) => Some(Err(error.into())),
        });
        files.boxed()
    }

    /// Reads a file and hashes it.
    pub(super) async fn verify(&self, checksum: &Checksum) -> Result<FileHealth, StoreError> {
        let Some(mut file) = self.objects.open(checksum).await? else {
            return Ok(FileHealth::Missing);
        };
        let (mut digest, mut size) = (Sha256::new(), 0);
        while let Some(part) = file.content.try_next().await? {
            size += part.len() as u64;
            digest.update(&part);
        }
        Ok(if Checksum::of(digest) == *checksum {
            FileHealth::Intact { size }
        } else {
            FileHealth::Damaged
        })
    }

    /// Removes a file.
    pub(super) async fn remove(&self, checksum: &Checksum) -> Result<(), StoreError> {
        self.sizes.remove(checksum);
        self.objects.delete(&key_of(checksum)).await
    }
}

/// The file of an object. `None` if the object is not ours: a bucket can contain other objects, and copies of our
/// files.
fn listed(object: &ObjectMeta) -> Option<ListedFile> {
    let name = object.location.filename()?.strip_suffix(EXTENSION)?;
    let checksum = name.parse().ok()?;
    let is_in_place = key_of(&checksum) == object.location;
    is_in_place.then_some(ListedFile {
        checksum,
        size: object.size,
    })
}
