//! What an export or an import reports while it runs.

use crate::package::Checksum;

/// A step of an export or an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveEvent {
    /// This many crate files follow.
    Begun {
        /// How many.
        crate_files: u64,
    },
    /// A crate file was written or read.
    Passed {
        /// Its size.
        bytes: u64,
    },
    /// A crate file was put into the store.
    Stored(Checksum),
    /// A crate file in the archive does not match its checksum.
    Damaged(Checksum),
    /// The archive says that its index was fetched at a time in the future.
    FetchedInTheFuture,
}
