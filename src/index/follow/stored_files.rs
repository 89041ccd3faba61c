//! The look-ups for the rule about stored crate files. `app` connects them to the store and to the catalog.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::index::view::build::ListedFiles;
use crate::package::Checksum;

/// Why the stored files are unknown.
pub(crate) type LookupError = Box<dyn Error + Send + Sync>;

/// The look-up ended without a result, because the mirror is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the mirror is stopping")]
pub(crate) struct Stopping;

type Ask = dyn Fn() -> Result<HashSet<Checksum>, LookupError> + Send + Sync;

/// Looks up which crate files are stored. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StoredFiles(Arc<Ask>);

impl StoredFiles {
    /// A look-up through this function, which may block.
    pub(crate) fn new(
        ask: impl Fn() -> Result<HashSet<Checksum>, LookupError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// Looks up the stored files. Blocking.
    pub(super) fn ask(&self) -> Result<HashSet<Checksum>, LookupError> {
        (self.0)()
    }
}

impl fmt::Debug for StoredFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoredFiles")
    }
}

type Find = dyn Fn(&[Checksum]) -> Result<ListedFiles, LookupError> + Send + Sync;

/// Finds the index files that list crate files. Cheap to clone.
#[derive(Clone)]
pub(crate) struct IndexFilesOf(Arc<Find>);

impl IndexFilesOf {
    /// A look-up through this function. It may block for a few seconds, and must not wait for a view: the publisher of
    /// views waits for it.
    ///
    /// It returns every index file, of some state of the upstream's index, in which a line may have one of these
    /// checksums.
    pub(crate) fn new(
        find: impl Fn(&[Checksum]) -> Result<ListedFiles, LookupError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }

    /// Finds the index files. Blocking.
    pub(super) fn ask(&self, checksums: &[Checksum]) -> Result<ListedFiles, LookupError> {
        (self.0)(checksums)
    }
}

impl fmt::Debug for IndexFilesOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IndexFilesOf")
    }
}
