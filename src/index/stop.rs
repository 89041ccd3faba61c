//! The stop flag that all background work looks at. It checks between any two steps that can take long, so that a stop
//! takes effect within 2 s.

use std::sync::atomic::{AtomicBool, Ordering};

use super::limits::ReadError;

/// Set once, when the work must end.
#[derive(Debug, Default)]
pub(super) struct StopFlag(AtomicBool);

impl StopFlag {
    /// A flag that is not set.
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Asks the work to end.
    pub(super) fn set(&self) {
        // `IndexHandle::begin` relies on this order: it stores a cell and then reads the flag, `stop` does the reverse.
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Ends the work that calls this.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] once the flag is set.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        if self.is_set() {
            return Err(ReadError::Stopped);
        }
        Ok(())
    }
}
