//! Index files in memory, plain and compressed, by blob id, bounded by their bytes.
//!
//! A blob id names its content, so no entry ever goes stale. Entries that nobody asks for are dropped. The state of a file at
//! an earlier time is content with an id of its own. The cache remembers these ids, so that it finds such a state as fast.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use axum::body::Bytes;
use axum::http::HeaderValue;
use flate2::{Compress, Compression, FlushCompress, Status};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::http::bounded_cache::{BoundedCache, Weighed, bounded};
use crate::http::semantics::conditional::entity_tag;
use crate::http::semantics::encoding::Encoding;
use crate::index::BlobId;
use crate::package::{Timestamp, as_of};
use crate::server::{Exchange, Share, Shares};

/// All files together, in bytes.
const CACHE_BYTES_MAX: u64 = 40 * 1024 * 1024;

/// How many parts the cache has, each with its own lock. The largest real file, with its compressed form, fits several times
/// into one part.
const CACHE_PARTS: usize = 4;

/// The number of files for which the cache's own tables are made, of 8 kB each.
const FILES_TYPICAL: usize = 5 * 1024;

/// Smaller files are not worth compressing: they fit into one packet.
const COMPRESSED_BYTES_MIN: usize = 512;

/// Larger files are sent as they are. No real file is so large, and compressing takes as much memory again.
const COMPRESSED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What one entry costs besides its bytes: a dozen words, five small blocks of the allocator, and two entries in the cache's
/// tables, because the cache remembers keys that it has dropped.
const ENTRY_BYTES: usize = 400;

/// How many ids of earlier states of files the cache remembers. Each takes about 150 bytes.
const STATES_MAX: usize = 16_384;

/// An index file of the view: all of it, or its state at an earlier time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileAt {
    /// The file in the view.
    pub(super) blob: BlobId,
    /// The earlier time.
    pub(super) time: Option<Timestamp>,
}

/// The crate did not exist at that time.
#[derive(Clone, Copy, Debug)]
pub(super) struct NothingThen;

/// A file in memory, with the id of its bytes.
pub(super) type Loaded = (BlobId, Arc<CachedFile>);

/// The entity tag of an index file in this encoding. Different bytes have different tags.
pub(super) fn tag_of(blob: BlobId, encoding: Encoding) -> HeaderValue {
    entity_tag(&blob.0.hex(), tag_end(encoding))
}

fn tag_end(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Plain => "\"",
        Encoding::Gzip => "-gzip\"",
    }
}

/// The encoding of this blob that an entity tag, in its quotes, names.
pub(super) fn encoding_in(blob: BlobId, tag: &str) -> Option<Encoding> {
    let id = blob.0.hex();
    let end = tag.as_bytes().strip_prefix(b"\"")?.strip_prefix(&id)?;
    [Encoding::Plain, Encoding::Gzip]
        .into_iter()
        .find(|encoding| tag_end(*encoding).as_bytes() == end)
}

/// An index file in both encodings.
#[derive(Debug)]
pub(crate) struct CachedFile {
    plain: CachedBody,
    /// Absent where it would not be shorter.
    gzip: Option<CachedBody>,
}

/// An index file in one encoding. The cache may drop it while it is on its way to clients. So its bytes are accounted for
/// once for as long as any client reads them.
#[derive(Debug)]
pub(crate) struct CachedBody {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// The share of the clients that read it now.
    share: Mutex<Weak<Share>>,
}

impl From<Bytes> for CachedBody {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            share: Mutex::default(),
        }
    }
}

impl CachedBody {
    /// Accounts for it until the exchange ends, if that needs no waiting.
    pub(crate) fn keep_now(&self, account: &Shares, exchange: &Exchange) -> bool {
        let bytes = self.bytes.len() as u64;
        account.try_keep_free(exchange, bytes)
            || self.joined(exchange)
            || account
                .try_take(exchange, bytes)
                .map(|share| self.keep_share(share, exchange))
                .is_some()
    }

    /// Uses the share of another exchange that sends the same bytes.
    fn joined(&self, exchange: &Exchange) -> bool {
        let share = self.share.lock().upgrade();
        share.is_some_and(|share| {
            share.use_for(exchange) && {
                exchange.keep(share);
                true
            }
        })
    }

    /// Keeps a share for it until the exchange ends.
    pub(crate) fn keep_share(&self, share: Share, exchange: &Exchange) {
        let share = Arc::new(share);
        *self.share.lock() = Arc::downgrade(&share);
        exchange.keep(share);
    }
}

impl CachedFile {
    /// Compresses a file. Blocking: the largest takes a tenth of a second.
    pub(crate) fn new(plain: Bytes) -> Self {
        let gzip = (COMPRESSED_BYTES_MIN..COMPRESSED_BYTES_MAX)
            .contains(&plain.len())
            .then(|| compress(&plain))
            .flatten()
            .map(CachedBody::from);
        Self {
            plain: plain.into(),
            gzip,
        }
    }

    /// The file in this encoding, or plain if it does not have this one.
    pub(crate) fn body(&self, encoding: Encoding) -> (&CachedBody, Encoding) {
        match (&self.gzip, encoding) {
            (Some(gzip), Encoding::Gzip) => (gzip, Encoding::Gzip),
            _ => (&self.plain, Encoding::Plain),
        }
    }
}

thread_local! {
    /// A compressor needs a quarter of a megabyte. Allocating and clearing that took longer than compressing most files.
    static COMPRESSOR: RefCell<Compress> =
        RefCell::new(Compress::new_gzip(Compression::default(), WINDOW_BITS));
}

/// The largest window of gzip.
const WINDOW_BITS: u8 = 15;

fn compress(plain: &[u8]) -> Option<Bytes> {
    // A compressed form that does not fit here is not shorter.
    let mut packed = Vec::with_capacity(plain.len());
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        match compressor.compress_vec(plain, &mut packed, FlushCompress::Finish) {
            // A copy of exact size, so that the cache keeps as many bytes as it counts.
            Ok(Status::StreamEnd) => Some(Bytes::copy_from_slice(&packed)),
            _ => None,
        }
    })
}

/// The cache; one for the whole process.
#[derive(Debug)]
pub(crate) struct FileCache {
    pub(crate) files: BoundedCache<BlobId, CachedFile>,
    /// The ids of earlier states.
    states: Cache<FileAt, Result<BlobId, NothingThen>>,
}

impl Weighed for CachedFile {
    fn bytes(&self) -> usize {
        let gzip = self.gzip.as_ref().map_or(0, |gzip| gzip.bytes.len());
        ENTRY_BYTES + self.plain.bytes.len() + gzip
    }
}

impl FileCache {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        Self {
            files: bounded(CACHE_BYTES_MAX, FILES_TYPICAL, CACHE_PARTS),
            states: Cache::new(STATES_MAX),
        }
    }

    /// The file with this id, if it is in memory.
    pub(crate) fn get(&self, id: BlobId) -> Option<Arc<CachedFile>> {
        self.files.get(&id)
    }

    /// The id of the bytes to send, if that needs no look at the file.
    pub(super) fn id_of(&self, wanted: &FileAt) -> Option<Result<BlobId, NothingThen>> {
        match wanted.time {
            None => Some(Ok(wanted.blob)),
            Some(_) => self.states.get(wanted),
        }
    }

    /// What to send, if it is in memory.
    pub(super) fn find(&self, wanted: &FileAt) -> Option<Result<Loaded, NothingThen>> {
        match self.id_of(wanted)? {
            Ok(id) => self.get(id).map(|file| Ok((id, file))),
            Err(nothing) => Some(Err(nothing)),
        }
    }

    /// Makes what to send from the content of the file in the view, and keeps it. Blocking.
    pub(super) fn make(&self, wanted: &FileAt, content: &[u8]) -> Result<Loaded, NothingThen> {
        let Some(time) = &wanted.time else {
            return Ok(self.keep(wanted.blob, Bytes::copy_from_slice(content)));
        };
        let made = match as_of(content, time).map(Bytes::from) {
            Some(bytes) => Ok(self.keep(BlobId::of(&bytes), bytes)),
            None => Err(NothingThen),
        };
        let id = made.as_ref().map(|(id, _)| *id).map_err(|nothing| *nothing);
        self.states.insert(wanted.clone(), id);
        made
    }

    fn keep(&self, id: BlobId, bytes: Bytes) -> Loaded {
        // Many times have the same state, and compressing it takes longer than everything else.
        let file = self.get(id).unwrap_or_else(|| {
            let file = Arc::new(CachedFile::new(bytes));
            self.files.insert(id, Arc::clone(&file));
            file
        });
        (id, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_are_the_same_file() {
        let plain = Bytes::from("{\"name\":\"a\"}\n".repeat(1_000));
        let file = CachedFile::new(plain.clone());
        let (body, encoding) = file.body(Encoding::Plain);
        assert_eq!((&body.bytes, encoding), (&plain, Encoding::Plain));
        let (packed, encoding) = file.body(Encoding::Gzip);
        let packed = &packed.bytes;
        assert!(encoding == Encoding::Gzip && packed.len() < plain.len());
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(&packed[..]),
            &mut unpacked,
        )
        .unwrap();
        assert_eq!(unpacked, plain);
        assert_eq!(
            CachedFile::new(Bytes::from("short")).body(Encoding::Gzip).1,
            Encoding::Plain
        );
    }

    #[test]
    fn states_of_a_file_are_remembered_by_time_and_kept_once() {
        let cache = FileCache::new();
        let line = |version: u8| {
            format!(
                "{{\"name\":\"a\",\"vers\":\"{version}.0.0\",\"deps\":[],\"cksum\":\"\",\"pubtime\":\"202{version}-01-01T00:00:00Z\"}}\n"
            )
        };
        let content = [line(1), line(2)].concat();
        let blob = BlobId::of(content.as_bytes());
        let at = |time: &str| FileAt {
            blob,
            time: Some(Timestamp::try_from(time.to_owned()).unwrap()),
        };
        let (none, first) = (at("2020-12-31T23:59:59Z"), at("2021-01-01T00:00:00Z"));
        let (later, last) = (at("2021-12-31T23:59:59Z"), at("2022-01-01T00:00:00Z"));
        let now = FileAt { blob, time: None };
        let made = |wanted: &FileAt| {
            assert!(wanted.time.is_none() || cache.find(wanted).is_none());
            cache
                .make(wanted, content.as_bytes())
                .ok()
                .inspect(|(id, file)| {
                    let (known, same) = cache.find(wanted).unwrap().ok().unwrap();
                    assert!(known == *id && Arc::ptr_eq(&same, file));
                })
        };
        assert!(made(&none).is_none() && matches!(cache.find(&none), Some(Err(NothingThen))));
        let (id, file) = made(&first).unwrap();
        assert_eq!(id, BlobId::of(line(1).as_bytes()));
        let (same_id, same_file) = made(&later).unwrap();
        assert!(same_id == id && Arc::ptr_eq(&same_file, &file));
        let (whole, whole_file) = made(&last).unwrap();
        let (_, current) = made(&now).unwrap();
        assert!(whole == blob && Arc::ptr_eq(&whole_file, &current));
    }

    #[test]
    fn the_cache_is_bounded_by_bytes_and_holds_the_largest_real_file() {
        let cache = FileCache::new();
        let file = |bytes: usize| {
            Arc::new(CachedFile {
                plain: Bytes::from(vec![0; bytes]).into(),
                gzip: None,
            })
        };
        let largest = BlobId::of(b"largest");
        cache.files.insert(largest, file(5_500_000));
        assert!(cache.get(largest).is_some());
        for number in 0..200_u32 {
            let id = BlobId::of(&number.to_le_bytes());
            cache.files.insert(id, file(1_000_000));
        }
        let weight = cache.files.weight();
        assert!(weight <= CACHE_BYTES_MAX, "{weight}");
    }
}
