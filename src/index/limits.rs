//! Limits for what an upstream or an archive contains. The mirror checks sizes before it reads, because a few bytes can
//! describe objects of any size.

use std::io;

use git2::ErrorClass;

/// The largest index file that is read. The largest real one has 5 MB.
pub(crate) const INDEX_FILE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The largest tree that is read: about 200,000 entries.
pub(super) const TREE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The largest commit that is read.
pub(super) const COMMIT_BYTES_MAX: usize = 1024 * 1024;

/// Tree entries that are read for one source. An index of a million crates has about 1.5 million.
pub(super) const ENTRIES_READ_MAX: usize = 4_000_000;

/// Bytes of trees that are read for one source. An index of a million crates has about 60 MB.
pub(super) const TREES_READ_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Index files in one source. Each takes about 50 bytes of memory.
pub(super) const FILES_MAX: usize = 2_000_000;

/// Directories in one source. Each takes about 150 bytes of memory.
pub(super) const DIRECTORIES_MAX: usize = 500_000;

/// Different trees that are read for one source. Each takes about 40 bytes of memory until the source is complete.
pub(super) const TREES_MAX: usize = 600_000;

/// Objects in one pack. An index of a million crates has about 1.5 million.
pub(super) const PACK_OBJECTS_MAX: usize = 4_000_000;

/// Bytes of one transfer. A full index has 230 MB.
pub(super) const TRANSFER_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;

/// Why a read from a clone failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// An object is missing or damaged, or the operating system refused.
    #[error("the clone of the index cannot be read")]
    Git(#[source] git2::Error),
    /// An object is too large. The clone is not damaged.
    #[error("{0}")]
    TooLarge(String),
    /// The index as a whole is too large, or not an index. The clone is not damaged.
    #[error("the upstream index is refused: {0}")]
    Refused(String),
    /// The mirror is stopping.
    #[error("stopped")]
    Stopped,
}

/// Why something could not be written into a clone or beside it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{0}")]
    Git(#[from] git2::Error),
    #[error("{0}")]
    Disk(#[from] io::Error),
}

impl ReadError {
    /// Refuses an index with more of something than the limit.
    pub(super) fn if_more(count: usize, max: usize, has: &str, what: &str) -> Result<(), Self> {
        if count > max {
            return Err(Self::Refused(format!("{has} more than {max} {what}")));
        }
        Ok(())
    }

    /// Whether the clone may be damaged. A large object or a stop is no sign of damage.
    pub(crate) fn may_be_damage(&self) -> bool {
        matches!(self, Self::Git(_))
    }

    /// Whether the operating system refused, most often because file descriptors ran out. The clone may be intact.
    pub(super) fn is_the_systems(&self) -> bool {
        matches!(self, Self::Git(error) if error.class() == ErrorClass::Os)
    }
}

impl From<git2::Error> for ReadError {
    fn from(error: git2::Error) -> Self {
        match error.class() {
            // Our allocator refused (`source::libgit2`): the object, or one that it is a delta of, is too large.
            ErrorClass::NoMemory => {
                Self::TooLarge("an object needs more memory than the mirror allows".to_owned())
            }
            _ => Self::Git(error),
        }
    }
}
