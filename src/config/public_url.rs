//! The mirror's own base URL.

use std::fmt;

use url::Url;

use super::ConfigError;

/// The base URL that clients reach this mirror at.
///
/// Invariants: `http` or `https`; no credentials, query or fragment; no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicUrl(String);

impl PublicUrl {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let fail = |remedy| ConfigError::new("PUBLIC_URL", text, remedy);
        let url =
            Url::parse(text).map_err(|_not_a_url| fail("a URL like https://mirror.example"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(fail("an http or https URL"));
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(fail("a URL without user, password, query and fragment"));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
