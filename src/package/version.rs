//! A crate version: semantic versioning 2.0, compared for identity as the exact text.

use std::fmt;

use serde::Deserialize;

/// A version in the path of a request or on an index line.
///
/// Invariant: the text is valid semver 2.0 by the `semver` crate, the one that crates.io and cargo use.
///
/// Identity is the **exact text**: `1.0.0+a` and `1.0.0+b` are two versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct CrateVersion {
    text: String,
    semver: semver::Version,
}

impl CrateVersion {
    /// The version as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The version as numbers and identifiers, for ordering.
    pub(crate) fn semver(&self) -> &semver::Version {
        &self.semver
    }

    /// Whether this is a pre-release, like `1.0.0-beta.1`.
    pub(crate) fn is_prerelease(&self) -> bool {
        !self.semver.pre.is_empty()
    }
}

impl TryFrom<String> for CrateVersion {
    type Error = semver::Error;

    fn try_from(text: String) -> Result<Self, semver::Error> {
        let semver = semver::Version::parse(&text)?;
        Ok(Self { text, semver })
    }
}

impl fmt::Display for CrateVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bad_version_is_refused_with_the_message_of_the_semver_crate() {
        for (text, words) in [
            (
                "not-semver",
                "unexpected character 'n' while parsing major version number",
            ),
            (
                "1.0",
                "unexpected end of input while parsing minor version number",
            ),
            ("01.0.0", "invalid leading zero in major version number"),
            (
                "v1.0.0",
                "unexpected character 'v' while parsing major version number",
            ),
            ("", "empty string, expected a semver version"),
        ] {
            assert_eq!(
                CrateVersion::try_from(text.to_owned())
                    .unwrap_err()
                    .to_string(),
                words
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "[0-9v.+a-zA-Z-]{0,40}") {
            if let Ok(version) = CrateVersion::try_from(text.clone()) {
                prop_assert_eq!(version.as_str(), text.as_str());
                prop_assert_eq!(version.semver().to_string(), text);
            }
        }

        #[test]
        fn every_text_of_the_grammar_is_a_version(text in "(0|[1-9][0-9]{0,8})\\.(0|[1-9][0-9]{0,8})\\.(0|[1-9][0-9]{0,8})(-[a-z][a-z0-9]{0,5}(\\.[1-9][0-9]{0,3})?)?(\\+[a-z0-9]{1,6})?") {
            prop_assert!(CrateVersion::try_from(text).is_ok());
        }
    }
}
