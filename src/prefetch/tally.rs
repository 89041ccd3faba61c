//! What becomes of each file, and the sums of that.

/// How a file came to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ensured {
    /// It was there.
    AlreadyHeld,
    /// It was fetched and verified.
    Fetched {
        /// How large it is.
        bytes: u64,
    },
}

/// Why a file is not held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnsureError {
    /// No upstream has it.
    #[error("no upstream has it")]
    Missing,
    /// It could not be fetched or verified.
    #[error("{0}")]
    Failed(String),
    /// The store did not take it, or could not be read.
    #[error("{0}")]
    Store(String),
}

/// What became of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Files that were held already.
    pub(crate) held: u64,
    /// Files that were fetched.
    pub(crate) fetched: u64,
    /// Their bytes.
    pub(crate) fetched_bytes: u64,
    /// Files that no upstream has.
    pub(crate) missing: u64,
    /// Files that could not be fetched.
    pub(crate) failed: u64,
}

impl Tally {
    /// How many files were dealt with.
    pub(crate) fn files(&self) -> u64 {
        self.held + self.fetched + self.missing + self.failed
    }

    /// Counts one more file.
    pub(crate) fn count(&mut self, result: &Result<Ensured, EnsureError>) {
        match result {
            Ok(Ensured::AlreadyHeld) => self.held += 1,
            Ok(Ensured::Fetched { bytes }) => {
                self.fetched += 1;
                self.fetched_bytes += bytes;
            }
            Err(EnsureError::Missing) => self.missing += 1,
            Err(EnsureError::Failed(_) | EnsureError::Store(_)) => self.failed += 1,
        }
    }
}
