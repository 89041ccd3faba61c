//! Why the settings are no good, in one line for the person who made them.

use std::fmt;

/// The longest part of a bad value that is shown.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// A setting with a bad value.
///
/// Invariant: shown as one line that names the variable, the value without secrets, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    variable: &'static str,
    value: String,
    remedy: &'static str,
}

impl ConfigError {
    pub(super) fn new(variable: &'static str, value: &str, remedy: &'static str) -> Self {
        Self {
            variable,
            value: without_secrets(value),
            remedy,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: `{}` is not usable; expected {}",
            self.variable, self.value, self.remedy
        )
    }
}

impl std::error::Error for ConfigError {}

/// A text on one line, without the user and password of whatever in it may be a URL.
///
/// The value is bad, so no URL parser can be trusted with it: everything between `//` and the last `@` before the next
/// slash is taken out, and without `//` everything before the first `@`.
fn without_secrets(text: &str) -> String {
    let (before, after) = match text.split_once("//") {
        Some((scheme, rest)) => (format!("{scheme}//"), rest),
        None => (String::new(), text),
    };
    let (authority, rest) = match after.find(['/', ' ']) {
        Some(end) => after.split_at(end),
        None => (after, ""),
    };
    let shown = match authority.rsplit_once('@') {
        Some((_secrets, host)) => format!("{before}***@{host}{rest}"),
        None => format!("{before}{authority}{rest}"),
    };
    shown
        .chars()
        .take(SHOWN_CHARACTERS_MAX)
        .flat_map(|character| {
            if character.is_control() {
                character.escape_default().collect()
            } else {
                vec![character]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_value_on_one_line_without_secrets() {
        for (value, shown) in [
            ("plain", "plain"),
            ("a\nb", "a\\nb"),
            ("https://user:pass@host/path", "https://***@host/path"),
            ("https://user:p@ss@host/path", "https://***@host/path"),
            ("https://host/with@sign", "https://host/with@sign"),
            ("user:pass@host", "***@host"),
        ] {
            let error = ConfigError::new("X", value, "y");
            assert_eq!(
                error.to_string(),
                format!("X: `{shown}` is not usable; expected y")
            );
        }
    }
}
