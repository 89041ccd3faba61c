//! The stop flag that all background work looks at. It checks between any two steps that can take long, so that a stop
//! takes effect within 2 s.

use std::sync::atomic::{AtomicBool, Ordering};

use super::limits::ReadError;

#[cfg(test)]
pub(crate) use checks::assert_ends_at_every_check;

/// Set once, when the work must end.
#[derive(Debug, Default)]
pub(crate) struct StopFlag {
    is_set: AtomicBool,
    #[cfg(test)]
    checks: checks::CheckCounter,
}

impl StopFlag {
    /// A flag that is not set.
    pub(crate) const fn new() -> Self {
        Self {
            is_set: AtomicBool::new(false),
            #[cfg(test)]
            checks: checks::CheckCounter::new(),
        }
    }

    /// Asks the work to end.
    pub(crate) fn set(&self) {
        // `IndexHandle::begin` relies on this order: it stores a cell and then reads the flag, `stop` does the reverse.
        self.is_set.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_set(&self) -> bool {
        #[cfg(test)]
        if self.checks.count() {
            self.set();
        }
        self.is_set.load(Ordering::SeqCst)
    }

    /// Ends the work that calls this.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] once the flag is set.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        if self.is_set() {
            return Err(ReadError::Stopped);
        }
        Ok(())
    }
}

/// What tests need: how often work looks at the flag, and a stop in its middle that does not depend on time.
#[cfg(test)]
mod checks {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::StopFlag;
    use crate::index::limits::ReadError;

    #[derive(Debug, Default)]
    pub(crate) struct CheckCounter {
        so_far: AtomicUsize,
        /// The flag is set at this look; never for 0.
        last: AtomicUsize,
    }

    impl CheckCounter {
        pub(crate) const fn new() -> Self {
            Self {
                so_far: AtomicUsize::new(0),
                last: AtomicUsize::new(0),
            }
        }

        /// Counts one look, and says whether the flag is to be set at it.
        pub(crate) fn count(&self) -> bool {
            self.so_far.fetch_add(1, Ordering::SeqCst) + 1 == self.last.load(Ordering::SeqCst)
        }
    }

    impl StopFlag {
        /// A flag that is set when it is looked at for this time, beginning with 1.
        pub(crate) fn at_check(number: usize) -> Self {
            let flag = Self::new();
            flag.checks.last.store(number, Ordering::SeqCst);
            flag
        }

        /// How often it was looked at.
        pub(crate) fn checks(&self) -> usize {
            self.checks.so_far.load(Ordering::SeqCst)
        }
    }

    /// Runs work to its end once, then again and again with a stop at another look each time. It must end at that look, and
    /// must have looked at least so often in the full run.
    pub(crate) fn assert_ends_at_every_check(
        checks_min: usize,
        work: impl Fn(&StopFlag) -> Result<(), ReadError>,
    ) {
        let whole = StopFlag::new();
        work(&whole).unwrap();
        let checks = whole.checks();
        assert!(checks >= checks_min, "{checks} looks");
        for number in (1..=checks).step_by(checks.div_ceil(25)) {
            let stop = StopFlag::at_check(number);
            let ended = work(&stop);
            assert!(
                matches!(ended, Err(ReadError::Stopped)),
                "{number} of {checks}: {ended:?}"
            );
            // Some work looks once more to tell a stop from a failure, or has several threads.
            let more = stop.checks() - number;
            assert!(
                more <= 8,
                "{more} looks after the stop at {number} of {checks}"
            );
        }
    }
}
