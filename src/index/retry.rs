//! When to try again: after failures, after successes, and after replacing a damaged clone. Pure arithmetic.

use std::time::{Duration, Instant};

/// The pause after a first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest pause after failures, unless the ordinary one is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The pause between two replacements of damaged clones; it doubles with each further one. A blob that the upstream
/// itself does not have must not lead to one clone after the other.
const REPAIR_PAUSE_FIRST: Duration = Duration::from_secs(60);

/// The longest such pause. After a quiet time of this length the next one is the first again.
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// The pause between two looks at a clone that may be damaged: each reads every directory.
const CHECK_PAUSE: Duration = Duration::from_secs(10);

/// The pause after so many failures in a row.
pub(crate) fn backoff(failures: u32, interval: Duration) -> Duration {
    jittered(doubled(BACKOFF_FIRST, failures).min(BACKOFF_MAX.max(interval)))
}

/// The first pause once, then twice that, and so on.
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(
        1_u32
            .checked_shl(times.saturating_sub(1))
            .unwrap_or(u32::MAX),
    )
}

/// A tenth more or less, so that mirrors started together do not stay together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// When damaged clones were replaced, so that it does not happen all the time.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    last: Option<Instant>,
    in_a_row: u32,
    last_check: Option<Instant>,
}

impl Repairs {
    /// Whether one may be replaced now.
    pub(crate) fn allowed(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    /// How long until the next one is allowed.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let rest = |last: Option<Instant>, pause: Duration| {
            last.map_or(Duration::ZERO, |last| {
                pause.saturating_sub(now.duration_since(last))
            })
        };
        rest(self.last, self.pause()).max(rest(self.last_check, CHECK_PAUSE))
    }

    /// Notes that a clone is looked at now, with whatever result.
    pub(crate) fn note_check(&mut self, now: Instant) {
        self.last_check = Some(now);
    }

    /// Notes that one is replaced now.
    pub(crate) fn note(&mut self, now: Instant) {
        let quiet = self
            .last
            .is_none_or(|last| now.duration_since(last) > REPAIR_PAUSE_MAX);
        self.in_a_row = if quiet {
            1
        } else {
            self.in_a_row.saturating_add(1)
        };
        self.last = Some(now);
    }

    fn pause(&self) -> Duration {
        doubled(REPAIR_PAUSE_FIRST, self.in_a_row).min(REPAIR_PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_clones_are_replaced_at_once_but_not_all_the_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut repairs = Repairs::default();
        assert!(repairs.allowed(start));
        repairs.note(start);
        assert!(!repairs.allowed(after(59)) && repairs.allowed(after(60)));
        repairs.note(after(60));
        assert!(!repairs.allowed(after(60 + 119)) && repairs.allowed(after(60 + 120)));
        repairs.note(after(10_000));
        assert!(
            repairs.allowed(after(10_060)),
            "after a quiet time the pause is short again"
        );
        let mut checks = Repairs::default();
        checks.note_check(start);
        assert!(
            !checks.allowed(after(9)) && checks.allowed(after(10)),
            "looks are spaced out, too"
        );
    }

    #[test]
    fn pauses_double_up_to_a_minute_or_the_interval() {
        let about = |pause: Duration, seconds: u64| {
            let exact = Duration::from_secs(seconds).as_secs_f64();
            (0.89 * exact..=1.11 * exact).contains(&pause.as_secs_f64())
        };
        for (failures, interval, seconds) in [
            (1, 60, 1),
            (2, 60, 2),
            (5, 60, 16),
            (7, 60, 60),
            (40, 60, 60),
            (u32::MAX, 1, 60),
            (u32::MAX, 600, 600),
        ] {
            let pause = backoff(failures, Duration::from_secs(interval));
            assert!(about(pause, seconds), "{failures} failures: {pause:?}");
        }
    }
}
