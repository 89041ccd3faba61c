//! The look-ups for the rule about stored crate files. `app` connects them to the store and to the catalog.

use std::collections::HashSet;
use std::error::Error;

use crate::index::look_up::LookUp;
use crate::index::view::build::ListedFiles;
use crate::package::Checksum;

/// Why the stored files are unknown.
pub(crate) type LookupError = Box<dyn Error + Send + Sync>;

/// The look-up ended without a result, because the mirror is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the mirror is stopping")]
pub(crate) struct Stopping;

/// Looks up which crate files are stored.
pub(crate) type StoredFiles =
    LookUp<dyn Fn() -> Result<HashSet<Checksum>, LookupError> + Send + Sync>;

/// Finds the index files that list crate files: every index file, of some state of the upstream's index, in which a line may
/// have one of these checksums.
///
/// It may block for a few seconds, and must not wait for a view: the maker of views waits for it.
pub(crate) type IndexFilesOf =
    LookUp<dyn Fn(&[Checksum]) -> Result<ListedFiles, LookupError> + Send + Sync>;
