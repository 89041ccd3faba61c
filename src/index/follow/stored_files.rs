//! The look-up that tells rules which crate files are stored. `app` connects it to the store.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::package::Checksum;

/// Why it is not known what is stored.
pub(crate) type LookupError = Box<dyn Error + Send + Sync>;

/// The look-up ended without an answer, because the mirror ends.
#[derive(Debug, thiserror::Error)]
#[error("the mirror is stopping")]
pub(crate) struct Stopping;

type Ask = dyn Fn() -> Result<HashSet<Checksum>, LookupError> + Send + Sync;

/// Tells which crate files are stored. Cheap to clone; asking may block.
#[derive(Clone)]
pub(crate) struct StoredFiles(Arc<Ask>);

impl StoredFiles {
    /// Asked through this.
    pub(crate) fn new(
        ask: impl Fn() -> Result<HashSet<Checksum>, LookupError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// Asks. Blocking.
    pub(super) fn ask(&self) -> Result<HashSet<Checksum>, LookupError> {
        (self.0)()
    }
}

impl fmt::Debug for StoredFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoredFiles")
    }
}
