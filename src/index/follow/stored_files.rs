//! The look-up of the stored crate files, for rules. `app` connects it to the store.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

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
