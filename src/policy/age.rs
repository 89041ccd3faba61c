//! Spans of time as cargo writes them in its configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time in whole seconds, in the grammar of cargo's `min-publish-age`: `0`, or a number and, after at most one
/// space, a unit (`second`, `minute`, `hour`, `day`, `week` or `month`, with or without an `s`). A month has 2,629,746
/// seconds, a twelfth of a Gregorian year.
///
/// It is shown as it was written, so that people find it again in their settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Age {
    /// The length in seconds.
    pub(crate) seconds: u64,
    text: String,
}

/// A text that is not a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must be 0, or a number with a unit: second(s), minute(s), hour(s), day(s), week(s) or month(s), such as `7 days`"
)]
pub(crate) struct AgeError;

/// The units in seconds.
const UNITS: [(&str, u64); 6] = [
    ("second", 1),
    ("minute", 60),
    ("hour", 3_600),
    ("day", 86_400),
    ("week", 604_800),
    ("month", 2_629_746),
];

impl Age {
    /// The length.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether it is 0, which switches off what it is for.
    pub(crate) fn is_zero(&self) -> bool {
        self.seconds == 0
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(AgeError)?;
        let number: u64 = number.parse().map_err(|_no_number| AgeError)?;
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let factor = match unit {
            "" if number == 0 => 0,
            _ => {
                let is_it = |name: &str| unit == name || unit.strip_suffix('s') == Some(name);
                let found = UNITS.iter().find(|(name, _)| is_it(name));
                found.ok_or(AgeError)?.1
            }
        };
        Ok(Self {
            seconds: number.checked_mul(factor).ok_or(AgeError)?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Age {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_that_of_cargo() {
        for (text, seconds) in [
            ("0", 0),
            ("0 days", 0),
            ("1 second", 1),
            ("90seconds", 90),
            ("3 minutes", 180),
            ("1 hour", 3_600),
            ("7 days", 604_800),
            ("7days", 604_800),
            ("2 weeks", 1_209_600),
            ("1 month", 2_629_746),
            ("14 day", 1_209_600),
        ] {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.seconds, age.to_string()), (seconds, text.to_owned()));
        }
        for bad in [
            "",
            " ",
            "7",
            "7d",
            "7  days",
            " 7 days",
            "7 days ",
            "days",
            "-1 day",
            "1.5 days",
            "7 Days",
            "7 dayss",
            "+7 days",
            "7 years",
            "99999999999999999999 days",
            "9999999999999999 months",
            "7\tdays",
        ] {
            assert_eq!(bad.parse::<Age>(), Err(AgeError), "{bad:?}");
        }
    }
}
