//! Computes the pauses between attempts: after failures, between repairs, and between damage checks.

use std::time::{Duration, Instant};

/// The pause after the first failure. It doubles with each further failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest pause after failures, unless the ordinary interval is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The pause after the first repair. It doubles with each further repair: if the upstream itself lacks a blob, a new
/// clone does not help, and must not follow at once.
const REPAIR_PAUSE_FIRST: Duration = Duration::from_secs(60);

/// The longest pause after a repair. After this time without a repair the next one counts as the first.
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// The pause between two damage checks of a clone. Each check reads every directory.
const CHECK_PAUSE: Duration = Duration::from_secs(10);

/// The shortest pause after a damage check that clients cause.
const CLIENTS_CHECK_PAUSE_MIN: Duration = Duration::from_secs(5);

/// The pause after such a check, as a multiple of its duration. So clients cannot keep a processor busy.
const CLIENTS_CHECK_PAUSE_FACTOR: u32 = 50;

/// Limits the rate of damage checks that clients cause.
#[derive(Debug, Default)]
pub(crate) struct ClientsChecks {
    /// The earliest time of the next one.
    next: Option<Instant>,
}

impl ClientsChecks {
    /// The time until the next check is allowed.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next
            .map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Notes a check that began at this time, and has ended.
    pub(super) fn note(&mut self, began: Instant) {
        let pause = began.elapsed().saturating_mul(CLIENTS_CHECK_PAUSE_FACTOR);
        self.next = Instant::now().checked_add(pause.max(CLIENTS_CHECK_PAUSE_MIN));
    }
}

/// The pause after this many failures in a row.
pub(crate) fn backoff(failures: u32, interval: Duration) -> Duration {
    jittered(doubled(BACKOFF_FIRST, failures).min(BACKOFF_MAX.max(interval)))
}

/// Doubles the first pause for each time after the first.
fn doubled(first: Duration, times: u32) -> Duration {
    // `checked_shl` gives `None` from 32 on, and then the product saturates: no overflow after many failures.
    first.saturating_mul(
        1_u32
            .checked_shl(times.saturating_sub(1))
            .unwrap_or(u32::MAX),
    )
}

/// Changes a pause by up to a tenth, at random. So mirrors that start together do not ask the upstream together.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Limits the rate of repairs: new clones, and new git indexes.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    last: Option<Instant>,
    in_a_row: u32,
    last_check: Option<Instant>,
}

impl Repairs {
    /// Whether a repair is allowed now.
    pub(crate) fn allowed(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    /// The time until the next repair is allowed.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let rest = |last: Option<Instant>, pause: Duration| {
            last.map_or(Duration::ZERO, |last| {
                pause.saturating_sub(now.duration_since(last))
            })
        };
        let pause = doubled(REPAIR_PAUSE_FIRST, self.in_a_row).min(REPAIR_PAUSE_MAX);
        rest(self.last, pause).max(rest(self.last_check, CHECK_PAUSE))
    }

    /// Notes a damage check, whatever its result.
    pub(super) fn note_check(&mut self, now: Instant) {
        self.last_check = Some(now);
    }

    /// Notes a repair.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repair_is_immediate_and_the_pauses_after_it_double() {
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
            "after a long time without a repair the pause is short again"
        );
        let mut checks = Repairs::default();
        checks.note_check(start);
        assert!(
            !checks.allowed(after(9)) && checks.allowed(after(10)),
            "checks have pauses, too"
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
