//! The time of a publish, as the index writes it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment in UTC with whole seconds, in the one form that the index's `pubtime` has: `2019-12-16T23:48:18Z`.
///
/// Invariants: exactly 20 bytes of that shape, with month, day, hour, minute and second in their ranges. So the order of
/// the texts is the order of the moments. Cargo rejects a line with any other form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct Timestamp(String);

/// A text that is not of the form `YYYY-MM-DDTHH:MM:SSZ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a publish time has the form YYYY-MM-DDTHH:MM:SSZ")]
pub(crate) struct TimestampError;

impl Timestamp {
    /// 1970-01-01T00:00:00Z: means "unknown" where crates.io's API requires a time.
    pub(crate) fn epoch() -> Self {
        Self("1970-01-01T00:00:00Z".to_owned())
    }

    /// The moment this many seconds after 1970. `None` if its year does not have four digits.
    pub(crate) fn from_unix_seconds(seconds: i64) -> Option<Self> {
        let moment = chrono::DateTime::from_timestamp(seconds, 0)?;
        Self::try_from(moment.format("%Y-%m-%dT%H:%M:%SZ").to_string()).ok()
    }

    /// Seconds since 1970, by the Gregorian calendar.
    pub(crate) fn unix_seconds(&self) -> i64 {
        let number = |range: std::ops::Range<usize>| -> i64 {
            self.0
                .get(range)
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(0)
        };
        let (month, day) = (number(5..7), number(8..10));
        // Years begin in March here, so that the leap day is the last one; 719,468 days lie before 1970-01-01.
        let year = number(0..4) - i64::from(month <= 2);
        let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
        let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
            + year.div_euclid(400)
            + day_of_year;
        (days - 719_468) * 86_400 + number(11..13) * 3_600 + number(14..16) * 60 + number(17..19)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        let shape = b"dddd-dd-ddTdd:dd:ddZ";
        let same_shape = text.len() == shape.len()
            && text
                .bytes()
                .zip(shape)
                .all(|(byte, expected)| match expected {
                    b'd' => byte.is_ascii_digit(),
                    other => byte == *other,
                });
        let in_range = |start: usize, low: u8, high: u8| {
            text.get(start..start + 2)
                .and_then(|digits| digits.parse().ok())
                .is_some_and(|number: u8| (low..=high).contains(&number))
        };
        let valid = same_shape
            && in_range(5, 1, 12)
            && in_range(8, 1, 31)
            && in_range(11, 0, 23)
            && in_range(14, 0, 59)
            && in_range(17, 0, 60);
        if valid {
            Ok(Self(text))
        } else {
            Err(TimestampError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Timestamp, TimestampError> {
        Timestamp::try_from(text.to_owned())
    }

    #[test]
    fn a_timestamp_has_the_form_that_the_index_writes() {
        assert!(parse("2019-12-16T23:48:18Z").is_ok());
        for bad in [
            "",
            "2019-12-16",
            "2019-12-16T23:48:18.804Z",
            "2019-12-16T23:48:18+00:00",
            "2019-12-16 23:48:18Z",
            "2019-13-16T23:48:18Z",
            "2019-12-16T24:48:18Z",
            "２019-12-16T23:48Z",
        ] {
            assert_eq!(parse(bad), Err(TimestampError), "{bad}");
        }
    }

    #[test]
    fn a_timestamp_counts_seconds_as_the_calendar_does() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2019-12-16T23:48:18Z", 1_576_540_098),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(parse(text).unwrap().unix_seconds(), seconds, "{text}");
            assert_eq!(Timestamp::from_unix_seconds(seconds), parse(text).ok());
        }
    }
}
