//! Values that are a number, an address or something else that the type itself can read.

use std::str::FromStr;
use std::time::Duration;

use super::ConfigError;
use crate::policy::Age;

pub(super) fn parse<T: FromStr>(
    variable: &'static str,
    text: &str,
    remedy: &'static str,
) -> Result<T, ConfigError> {
    text.parse()
        .map_err(|_unparsable| ConfigError::new(variable, text, remedy))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    variable: &'static str,
    text: &str,
    remedy: &'static str,
    choices: &[(&str, T)],
) -> Result<T, ConfigError> {
    let chosen = choices.iter().find(|(word, _value)| *word == text);
    let chosen = chosen.map(|(_word, value)| *value);
    chosen.ok_or_else(|| ConfigError::new(variable, text, remedy))
}

/// A number of seconds. A year is far beyond any sensible value, and keeps all sums of times in range.
pub(super) fn seconds(variable: &'static str, text: &str) -> Result<Duration, ConfigError> {
    let remedy = "a whole number of seconds, at most 31536000";
    match parse(variable, text, remedy)? {
        seconds @ 0..=31_536_000 => Ok(Duration::from_secs(seconds)),
        _ => Err(ConfigError::new(variable, text, remedy)),
    }
}

/// A span of time in cargo's grammar.
pub(super) fn age(variable: &'static str, text: &str) -> Result<Age, ConfigError> {
    let remedy = "0, or a number with a unit: second(s), minute(s), hour(s), day(s), week(s) or month(s), such as `7 days`";
    parse(variable, text, remedy)
}
