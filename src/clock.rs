//! The time of day. Tests replace it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How far a time may be ahead of the clock and still count as now. Clocks are often set back a little.
const AHEAD_MAX: Duration = Duration::from_secs(5);

/// A source of the time of day.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that reads the machine's clock"
        )]
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that shows what `now` returns.
    pub fn custom(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// How long ago something happened. `None` if its time is ahead of this clock, so that one of the two is wrong.
    pub(crate) fn age(&self, then: SystemTime) -> Option<Duration> {
        match self.now().duration_since(then) {
            Ok(age) => Some(age),
            Err(ahead) => (ahead.duration() <= AHEAD_MAX).then_some(Duration::ZERO),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_the_future_has_an_unknown_age() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let clock = Clock::custom(move || now);
        let hour = Duration::from_secs(3_600);
        assert_eq!(clock.age(now - hour), Some(hour));
        assert_eq!(clock.age(now), Some(Duration::ZERO));
        assert_eq!(clock.age(now + AHEAD_MAX), Some(Duration::ZERO));
        assert_eq!(clock.age(now + AHEAD_MAX + Duration::from_secs(1)), None);
        assert_eq!(clock.age(now + hour), None);
    }
}
