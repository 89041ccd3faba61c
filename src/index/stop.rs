//! The stop flag of all background work. Work checks it between any two steps that can take long, so a stop takes
//! effect within 2 s.

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
        // `IndexHandle::begin` relies on sequential consistency: it stores a cell and then reads the flag, and `stop`
        // sets the flag and then reads the cell. One of the two always sees the other.
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

/// For tests: counts how often work checks the flag, and stops work at a chosen check instead of after a time.
#[cfg(test)]
mod checks {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::StopFlag;
    use crate::index::limits::ReadError;

    #[derive(Debug, Default)]
    pub(crate) struct CheckCounter {
        so_far: AtomicUsize,
        /// The number of the check that sets the flag; 0 never sets it.
        last: AtomicUsize,
    }

    impl CheckCounter {
        pub(crate) const fn new() -> Self {
            Self {
                so_far: AtomicUsize::new(0),
                last: AtomicUsize::new(0),
            }
        }

        /// Counts one check, and returns whether it sets the flag.
        pub(crate) fn count(&self) -> bool {
            self.so_far.fetch_add(1, Ordering::SeqCst) + 1 == self.last.load(Ordering::SeqCst)
        }
    }

    impl StopFlag {
        /// A flag that is set by the check with this number, beginning with 1.
        pub(crate) fn at_check(number: usize) -> Self {
            let flag = Self::new();
            flag.checks.last.store(number, Ordering::SeqCst);
            flag
        }

        /// How often it was checked.
        pub(crate) fn checks(&self) -> usize {
            self.checks.so_far.load(Ordering::SeqCst)
        }
    }

    /// Runs work to its end once, then several times with a stop at a different check each time. The work must end at
    /// that check, and the full run must make at least `checks_min` checks.
    pub(crate) fn assert_ends_at_every_check(
        checks_min: usize,
        work: impl Fn(&StopFlag) -> Result<(), ReadError>,
    ) {
        let whole = StopFlag::new();
        work(&whole).unwrap();
        let checks = whole.checks();
        assert!(checks >= checks_min, "{checks} checks");
        for number in (1..=checks).step_by(checks.div_ceil(25)) {
            let stop = StopFlag::at_check(number);
            let ended = work(&stop);
            assert!(
                matches!(ended, Err(ReadError::Stopped)),
                "{number} of {checks}: {ended:?}"
            );
            // Some work checks once more to tell a stop from a failure, and some has several threads.
            let more = stop.checks() - number;
            assert!(
                more <= 8,
                "{more} checks after the stop at {number} of {checks}"
            );
        }
    }
}
