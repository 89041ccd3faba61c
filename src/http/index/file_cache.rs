//! Index files in memory, plain and compressed, by blob id, bounded by their bytes.
//!
//! A blob id names its content, so nothing here ever goes stale; what is not asked for makes room.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use flate2::{Compress, Compression, FlushCompress, Status};
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use crate::index::BlobId;
use crate::server::{Exchange, Share, Shares};

/// All files together, in bytes.
const CACHE_BYTES_MAX: u64 = 40 * 1024 * 1024;

/// The cache is made of so many parts, each with its own lock. The largest real file, with its compressed form, fits
/// into one of them several times.
const CACHE_PARTS: usize = 4;

/// What the cache's own tables are made for.
const TYPICAL_FILE_BYTES: u64 = 8 * 1024;

/// Smaller files are not worth compressing: they fit into one packet.
const COMPRESSED_BYTES_MIN: usize = 512;

/// Larger files are sent as they are: there are none among the real ones, and compressing takes as much memory again.
const COMPRESSED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What one entry costs besides its bytes: a dozen words here, five small blocks of the allocator, and two entries of the
/// cache's tables, since it remembers keys that it has dropped.
const ENTRY_BYTES: u64 = 400;

/// The forms that a file is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    Plain,
    /// Compressed with gzip.
    Gzip,
}

impl Encoding {
    /// All of them.
    const ALL: [Self; 2] = [Self::Plain, Self::Gzip];

    /// The shortest form that a client takes (RFC 9110, section 12.5.3).
    pub(crate) fn accepted_by(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
        let mut choices = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        if choices.any(takes_gzip) {
            Self::Gzip
        } else {
            Self::Plain
        }
    }

    /// The name in `Content-Encoding`.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("gzip"),
        }
    }

    /// What stands behind the blob id in the entity tag of this form. Different bytes have different tags.
    fn tag_suffix(self) -> &'static str {
        match self {
            Self::Plain => "\"",
            Self::Gzip => "-gzip\"",
        }
    }

    /// The entity tag of a blob in this form.
    pub(crate) fn tag(self, blob: BlobId) -> HeaderValue {
        // Of exactly its length, so that it becomes a header's value without another block of memory.
        let tag = [b"\"".as_slice(), &blob.hex(), self.tag_suffix().as_bytes()].concat();
        // Hexadecimal digits and the suffix always are one.
        HeaderValue::from_maybe_shared(Bytes::from(tag)).unwrap_or(HeaderValue::from_static("\"\""))
    }
}

/// Whether one choice of `Accept-Encoding` is gzip, and is not refused by a quality of zero or of nonsense.
fn takes_gzip(choice: &str) -> bool {
    let mut parts = choice.split(';').map(str::trim);
    let is_gzip = parts
        .next()
        .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
    is_gzip
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, quality)) if name.trim().eq_ignore_ascii_case("q") => quality
                .trim()
                .parse()
                .is_ok_and(|quality: f32| quality > 0.0),
            _ => true,
        })
}

/// The form that an entity tag, in its quotes, names of this blob.
pub(crate) fn form_of(blob: BlobId, tag: &str) -> Option<Encoding> {
    let id = blob.hex();
    let suffix = tag.as_bytes().strip_prefix(b"\"")?.strip_prefix(&id)?;
    Encoding::ALL
        .into_iter()
        .find(|form| form.tag_suffix().as_bytes() == suffix)
}

/// An index file in both forms.
#[derive(Debug)]
pub(crate) struct CachedFile {
    plain: Body,
    /// Absent where it would not be shorter.
    gzip: Option<Body>,
}

/// One form of an index file. The cache may drop it while it is on its way to clients, so that its bytes are accounted
/// for once while any client takes them.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    /// The share of those who take it now.
    share: Mutex<Weak<Share>>,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            share: Mutex::default(),
        }
    }
}

impl Body {
    /// The bytes of it.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

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

    /// Uses the share of another exchange that takes the same bytes.
    fn joined(&self, exchange: &Exchange) -> bool {
        let share = self.share().upgrade();
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
        *self.share() = Arc::downgrade(&share);
        exchange.keep(share);
    }

    fn share(&self) -> std::sync::MutexGuard<'_, Weak<Share>> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedFile {
    /// Compresses a file. Blocking: the largest takes a tenth of a second.
    pub(crate) fn new(plain: Bytes) -> Self {
        let gzip = (COMPRESSED_BYTES_MIN..COMPRESSED_BYTES_MAX)
            .contains(&plain.len())
            .then(|| compress(&plain))
            .flatten()
            .map(Body::from);
        Self {
            plain: plain.into(),
            gzip,
        }
    }

    /// The file in the form asked for, or plain where there is no other.
    pub(crate) fn body(&self, encoding: Encoding) -> (&Body, Encoding) {
        match (&self.gzip, encoding) {
            (Some(gzip), Encoding::Gzip) => (gzip, Encoding::Gzip),
            _ => (&self.plain, Encoding::Plain),
        }
    }
}

thread_local! {
    /// A compressor needs a quarter of a megabyte, which took longer to get and to clear than most files to compress.
    static COMPRESSOR: RefCell<Compress> =
        RefCell::new(Compress::new_gzip(Compression::default(), WINDOW_BITS));
}

/// The largest window of gzip.
const WINDOW_BITS: u8 = 15;

fn compress(plain: &[u8]) -> Option<Bytes> {
    // What does not fit here is not shorter.
    let mut packed = Vec::with_capacity(plain.len());
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        match compressor.compress_vec(plain, &mut packed, FlushCompress::Finish) {
            // What is kept is what is counted.
            Ok(Status::StreamEnd) => Some(Bytes::copy_from_slice(&packed)),
            _ => None,
        }
    })
}

/// The cache; one for the whole process.
#[derive(Debug)]
pub(crate) struct FileCache(Cache<BlobId, Arc<CachedFile>, ByBytes>);

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<BlobId, Arc<CachedFile>> for ByBytes {
    fn weight(&self, _id: &BlobId, file: &Arc<CachedFile>) -> u64 {
        let gzip = file.gzip.as_ref().map_or(0, |gzip| gzip.bytes.len());
        let bytes = file.plain.bytes.len() + gzip;
        ENTRY_BYTES + u64::try_from(bytes).unwrap_or(u64::MAX / 2)
    }
}

impl FileCache {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        let mut options = OptionsBuilder::new();
        options
            .estimated_items_capacity(
                usize::try_from(CACHE_BYTES_MAX / TYPICAL_FILE_BYTES).unwrap_or(1024),
            )
            .weight_capacity(CACHE_BYTES_MAX)
            .shards(CACHE_PARTS);
        // All that is needed was given.
        let cache = options.build().map_or_else(
            |_incomplete| Cache::with_weighter(1024, CACHE_BYTES_MAX, ByBytes),
            |options| Cache::with_options(options, ByBytes, Default::default(), Default::default()),
        );
        Self(cache)
    }

    /// The file with this id, if it is in memory.
    pub(crate) fn get(&self, id: BlobId) -> Option<Arc<CachedFile>> {
        self.0.get(&id)
    }

    /// Keeps a file.
    pub(crate) fn insert(&self, id: BlobId, file: Arc<CachedFile>) {
        self.0.insert(id, file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_form_that_they_take() {
        for (line, expected) in [
            ("gzip", Encoding::Gzip),
            ("deflate, gzip", Encoding::Gzip),
            ("br;q=1, GZIP;q=0.5", Encoding::Gzip),
            ("gzip;q=0", Encoding::Plain),
            ("gzip; q=0.0", Encoding::Plain),
            ("gzip;Q=0", Encoding::Plain),
            ("gzip;q=0;x=y", Encoding::Plain),
            ("gzip;q=x", Encoding::Plain),
            ("gzip;q=0, gzip", Encoding::Gzip),
            ("identity", Encoding::Plain),
            ("", Encoding::Plain),
            ("x-gzip2", Encoding::Plain),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_str(line).unwrap(),
            );
            assert_eq!(Encoding::accepted_by(&headers), expected, "{line}");
        }
    }

    #[test]
    fn both_forms_are_the_same_file() {
        let plain = Bytes::from("{\"name\":\"a\"}\n".repeat(1_000));
        let file = CachedFile::new(plain.clone());
        let (body, encoding) = file.body(Encoding::Plain);
        assert_eq!((body.bytes(), encoding), (&plain, Encoding::Plain));
        let (packed, encoding) = file.body(Encoding::Gzip);
        let packed = packed.bytes();
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
    fn the_cache_is_bounded_by_bytes_and_holds_the_largest_real_file() {
        let cache = FileCache::new();
        let file = |bytes: usize| {
            Arc::new(CachedFile {
                plain: Bytes::from(vec![0; bytes]).into(),
                gzip: None,
            })
        };
        let largest = BlobId::of(b"largest");
        cache.insert(largest, file(5_500_000));
        assert!(cache.get(largest).is_some());
        for number in 0..200_u32 {
            cache.insert(BlobId::of(&number.to_le_bytes()), file(1_000_000));
        }
        assert!(cache.0.weight() <= CACHE_BYTES_MAX, "{}", cache.0.weight());
    }
}
