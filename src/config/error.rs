//! What is wrong with a setting, in one line for the operator.

use std::borrow::Cow;
use std::fmt;

use super::table::{Secrets, TABLE};
use crate::printable::printable;

/// The longest part of a bad value that is shown.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// The beginning of a key (RFC 7468). Some users set the key itself instead of its file.
const PEM_BEGIN: &str = "-----BEGIN ";

/// A setting with a bad value.
///
/// Invariant: its text is one line with the variable, the value without secrets, and what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    variable: &'static str,
    value: String,
    remedy: Cow<'static, str>,
}

impl ConfigError {
    pub(super) fn new(
        variable: &'static str,
        value: &str,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        let mut rows = TABLE.iter().filter(|row| row.name == variable);
        let is_public = rows.any(|row| row.secrets == Secrets::Public);
        Self {
            variable,
            value: if is_public {
                without_secrets(value)
            } else {
                without_any_secrets(value)
            },
            remedy: remedy.into(),
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

/// A text on one line, without the user and password of each word that may be a URL.
///
/// A bad value may confuse a URL parser. So everything in a word up to its last `@` is removed, except for the scheme.
fn without_secrets(text: &str) -> String {
    if let Some((before, _)) = text.split_once(PEM_BEGIN) {
        return without_secrets(before) + PEM_BEGIN + "***";
    }
    let hide = |word: &str| match word.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before
                .split_once("://")
                .map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}***@{after}")
        }
        None => word.to_owned(),
    };
    let shown = text.split(' ').map(hide).collect::<Vec<_>>().join(" ");
    let shown: String = shown.chars().take(SHOWN_CHARACTERS_MAX).collect();
    printable(&shown).into_owned()
}

/// Like [`without_secrets`], without queries and fragments, too: they may contain a token or a signature.
pub(super) fn without_any_secrets(text: &str) -> String {
    let hide = |word: &str| match word.find(['?', '#']) {
        Some(place) if word.contains("://") => {
            let (before, rest) = word.split_at(place);
            let kind = if rest.starts_with('?') { '?' } else { '#' };
            format!("{before}{kind}***")
        }
        _ => word.to_owned(),
    };
    let words: Vec<String> = without_secrets(text).split(' ').map(hide).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_value_on_one_line_without_secrets() {
        for (value, shown) in [
            ("plain", "plain"),
            ("a\nb\u{202e}", "a\\u000ab\\u202e"),
            ("https://user:pass@host/path", "https://***@host/path"),
            ("https://user:p@ss@host/path", "https://***@host/path"),
            ("https://user:p/ss@host/path", "https://***@host/path"),
            (
                "http://a/b https://user:pass@host",
                "http://a/b https://***@host",
            ),
            ("user:pass@host", "***@host"),
            ("https://host/path?sig=s3cret", "https://host/path?***"),
            ("https://host/path#s3cret", "https://host/path#***"),
            ("https://host/path#s3?cret", "https://host/path#***"),
            (
                "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----",
                "-----BEGIN ***",
            ),
        ] {
            let error = ConfigError::new("X", value, "y");
            assert_eq!(
                error.to_string(),
                format!("X: `{shown}` is not usable; expected y")
            );
        }
    }
}
