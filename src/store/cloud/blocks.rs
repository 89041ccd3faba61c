//! The checksums of the blocks of a file, so that a part of it can be checked without reading the rest again.
//!
//! They are computed while a whole file is read, and kept if it matches its checksum. They belong to the bytes with
//! that checksum and not to the object, so they never go out of date.

use std::ops::Range;
use std::sync::Arc;
use std::{io, mem};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use sha2::{Digest, Sha256};

use super::whole_file::damaged;
use crate::package::Checksum;
use crate::store::objects::{Reading, slice_of};

/// The length of a block. Each reader of a part keeps one in memory.
pub(super) const BLOCK_BYTES: u64 = 64 * 1024;

/// How many files the cache expects, which sets its first size.
const FILES_TYPICAL: usize = 4_096;

/// Memory for the blocks of all files: enough for about 8 GB of crate files.
const REMEMBERED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The memory of one entry without its blocks.
const ENTRY_BYTES: u64 = 128;

/// The checksums of a file's blocks, in their order. The last block may be shorter.
pub(super) type Blocks = Arc<[Checksum]>;

/// The blocks of files that were read.
///
/// One cache behind a lock instead of a sharded one, because a shard takes no entry larger than itself. The 256 shards
/// of a machine with 64 processors would exclude files from 32 MB on.
#[derive(Debug)]
pub(super) struct BlocksOfFiles(Mutex<Cache<Checksum, Blocks, ByBytes>>);

impl BlocksOfFiles {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Cache::with_weighter(
            FILES_TYPICAL,
            REMEMBERED_BYTES_MAX,
            ByBytes,
        )))
    }

    pub(super) fn get(&self, checksum: &Checksum) -> Option<Blocks> {
        self.0.lock().get(checksum).cloned()
    }

    pub(super) fn insert(&self, checksum: Checksum, blocks: Blocks) {
        self.0.lock().insert(checksum, blocks);
    }

    pub(super) fn remove(&self, checksum: &Checksum) {
        self.0.lock().remove(checksum);
    }
}

/// Weighs an entry by its memory.
#[derive(Clone, Debug)]
pub(super) struct ByBytes;

impl Weighter<Checksum, Blocks> for ByBytes {
    fn weight(&self, _checksum: &Checksum, blocks: &Blocks) -> u64 {
        ENTRY_BYTES + size_of_val(&**blocks) as u64
    }
}

/// Hashes the blocks of a file during a reading.
#[derive(Default)]
pub(super) struct BlockHasher {
    digest: Sha256,
    /// Bytes of the current block.
    bytes: u64,
    blocks: Vec<Checksum>,
}

impl BlockHasher {
    pub(super) fn update(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let left = usize::try_from(BLOCK_BYTES - self.bytes).unwrap_or(usize::MAX);
            let (now, later) = part.split_at(left.min(part.len()));
            self.digest.update(now);
            self.bytes += now.len() as u64;
            if self.bytes == BLOCK_BYTES {
                self.end_block();
            }
            part = later;
        }
    }

    pub(super) fn finish(mut self) -> Blocks {
        if self.bytes > 0 {
            self.end_block();
        }
        self.blocks.into()
    }

    fn end_block(&mut self) {
        self.bytes = 0;
        self.blocks.push(Checksum::of(mem::take(&mut self.digest)));
    }
}

/// The bytes of `range`. Each block is checked before it is passed on. A damaged block is an error, after `report`.
/// `parts` begins with the first block of the range, and ends with the last one.
pub(super) fn check_blocks(
    parts: Reading,
    blocks: Blocks,
    range: Range<u64>,
    report: impl Future<Output = ()> + Send + 'static,
) -> Reading {
    let begin = (parts, BytesMut::new(), blocks, range, Box::pin(report));
    let checked = stream::try_unfold(begin, |state| async move {
        // `range` has the bytes still to come.
        let (mut parts, mut read, blocks, range, report) = state;
        if range.is_empty() {
            return Ok(None);
        }
        let number = range.start / BLOCK_BYTES;
        let Some(block) = next_block(&mut parts, &mut read).await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let expected = usize::try_from(number).ok();
        let expected = expected.and_then(|number| blocks.get(number));
        if expected != Some(&Checksum::of(Sha256::new_with_prefix(&block))) {
            report.await;
            return Err(damaged());
        }
        let begins = number * BLOCK_BYTES;
        let end = range.end.min(begins + BLOCK_BYTES);
        let part = slice_of(&block, range.start - begins..end - begins);
        Ok(Some((part, (parts, read, blocks, end..range.end, report))))
    });
    checked.boxed()
}

/// The next block. Only the last block of a file is shorter, and `None` comes after it.
async fn next_block(parts: &mut Reading, read: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let length = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
    while read.len() < length {
        match parts.try_next().await? {
            Some(part) => read.extend_from_slice(&part),
            None => break,
        }
    }
    let block = read.split_to(read.len().min(length)).freeze();
    Ok((!block.is_empty()).then_some(block))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const SIZE: u64 = 3 * BLOCK_BYTES + 100;

    fn content() -> Vec<u8> {
        let mut content = vec![0; usize::try_from(SIZE).unwrap()];
        fastrand::Rng::with_seed(5).fill(&mut content);
        content
    }

    fn blocks() -> Blocks {
        let mut hasher = BlockHasher::default();
        for part in content().chunks(1_000) {
            hasher.update(part);
        }
        hasher.finish()
    }

    /// The result of reading a range of an object with this content, and whether damage was reported.
    async fn read(object: &[u8], range: Range<u64>) -> (Result<Vec<u8>, io::Error>, bool) {
        let first = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = range.end.next_multiple_of(BLOCK_BYTES).min(SIZE);
        let place = |at: u64| usize::try_from(at).unwrap();
        let parts: Vec<_> = object[place(first)..place(end)]
            .chunks(7_777)
            .map(|part| Ok(Bytes::copy_from_slice(part)))
            .collect();
        let reported = Arc::new(AtomicBool::new(false));
        let report = Arc::clone(&reported);
        let mut reading = check_blocks(stream::iter(parts).boxed(), blocks(), range, async move {
            report.store(true, Ordering::Relaxed);
        });
        let mut sent = Vec::new();
        let result = loop {
            match reading.try_next().await {
                Ok(Some(part)) => sent.extend_from_slice(&part),
                Ok(None) => break Ok(sent),
                Err(error) => break Err(error),
            }
        };
        (result, reported.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn every_range_comes_whole_and_a_damaged_block_only_spoils_ranges_that_touch_it() {
        let (right, mut wrong) = (content(), content());
        wrong[usize::try_from(BLOCK_BYTES).unwrap() + 9] ^= 1;
        let places = [
            0,
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            2 * BLOCK_BYTES,
            3 * BLOCK_BYTES + 1,
            SIZE,
        ];
        for start in places {
            for end in places.into_iter().filter(|end| *end > start) {
                let place = |at: u64| usize::try_from(at).unwrap();
                let (sent, reported) = read(&right, start..end).await;
                assert!(sent.unwrap() == right[place(start)..place(end)]);
                assert!(!reported);
                let touches = start < 2 * BLOCK_BYTES && end > BLOCK_BYTES;
                let (sent, reported) = read(&wrong, start..end).await;
                assert_eq!(
                    (sent.is_err(), reported),
                    (touches, touches),
                    "{start}..{end}"
                );
            }
        }
    }

    #[test]
    fn the_blocks_of_the_largest_file_are_remembered_however_many_processors_there_are() {
        let remembered = BlocksOfFiles::new();
        let largest: Blocks = vec![Checksum::from([7; 32]); 512 * 1024 * 1024 / 65_536].into();
        remembered.insert(Checksum::from([1; 32]), Arc::clone(&largest));
        assert_eq!(remembered.get(&Checksum::from([1; 32])), Some(largest));
    }

    #[tokio::test]
    async fn an_object_that_ends_early_is_an_error() {
        let cut = &content()[..usize::try_from(BLOCK_BYTES).unwrap()];
        let mut reading = check_blocks(
            stream::iter([Ok(Bytes::copy_from_slice(cut))]).boxed(),
            blocks(),
            0..SIZE,
            async {},
        );
        assert!(reading.try_next().await.unwrap().is_some());
        assert!(reading.try_next().await.is_err());
    }
}
