//! Waiting for a condition, with a deadline that only a broken mirror reaches.

use std::thread;
use std::time::{Duration, Instant};

/// Much longer than anything here takes on an idle machine, so that a busy one passes, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Waits until there is a value.
#[track_caller]
pub(crate) fn eventually_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        thread::park_timeout(LOOK_EVERY);
    }
}
