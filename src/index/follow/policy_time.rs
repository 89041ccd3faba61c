//! Policy time: when the last successful fetch began, in whole minutes. What the upstream publishes or deletes during a fetch
//! may be missing in it.

use std::time::SystemTime;

use crate::clock::Clock;
use crate::index::source::snapshot::Source;

/// How far the clock may go back without policy time going back with it, in seconds: time servers set clocks. A clock that
/// was wrong by more must not let holds end for ever.
const CLOCK_CORRECTION_MAX: i64 = 600;

/// Policy time, in seconds since 1970; `None` if the time of the last fetch is unknown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PolicyTime(Option<i64>);

impl PolicyTime {
    /// Notes when the last successful fetch began.
    pub(super) fn note_fetch(&mut self, began: Option<SystemTime>) {
        let Some(time) = began.and_then(seconds) else {
            return;
        };
        let time = whole_minutes(time);
        let is_correction = |before: &i64| time < *before && before - time <= CLOCK_CORRECTION_MAX;
        if self.0.as_ref().is_none_or(|before| !is_correction(before)) {
            self.0 = Some(time);
        }
    }

    /// Notes the policy time of the last view. The process may have ended between a fetch and the record of it, and the clock
    /// may have gone back.
    pub(super) fn note_last_view(&mut self, recorded: i64) {
        let ahead = recorded.saturating_sub(self.0.unwrap_or(0));
        if (1..=CLOCK_CORRECTION_MAX).contains(&ahead) {
            self.0 = Some(whole_minutes(recorded));
        }
    }

    /// Policy time for this source. If no fetch is known, the time of the commit stands for it.
    pub(super) fn of(&self, source: &Source, clock: &Clock) -> i64 {
        let seconds = |time| seconds(time).unwrap_or(0);
        let of_commit = || whole_minutes(seconds(source.commit_time).min(seconds(clock.now())));
        self.0.unwrap_or_else(of_commit)
    }
}

/// Seconds since 1970; `None` before that.
fn seconds(time: SystemTime) -> Option<i64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn whole_minutes(seconds: i64) -> i64 {
    seconds - seconds.rem_euclid(60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn policy_time_is_in_whole_minutes_and_does_not_go_back_when_the_clock_is_corrected() {
        let mut time = PolicyTime::default();
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (fetched, expected) in [
            (at(100_019), Some(99_960)),
            (None, Some(99_960)),
            (at(99_900), Some(99_960)),
            (at(99_360), Some(99_960)),
            (at(99_359), Some(99_300)),
        ] {
            time.note_fetch(fetched);
            assert_eq!(time.0, expected, "{fetched:?}");
        }
        for (recorded, expected) in [
            (99_240, 99_300),
            (99_901, 99_300),
            (i64::MIN, 99_300),
            (i64::MAX, 99_300),
            (99_361, 99_360),
        ] {
            time.note_last_view(recorded);
            assert_eq!(time.0, Some(expected), "{recorded}");
        }
    }
}
