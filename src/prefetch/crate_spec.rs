//! Crates as people write them on the command line and in crate lists: `serde`, `serde@1.0.200`, `serde@^1.0`.

use std::fmt;
use std::str::FromStr;

use semver::VersionReq;

use crate::package::{CrateName, CrateVersion, NotAName};

/// A crate, and which of its versions is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrateSpec {
    /// Its name.
    pub(crate) name: CrateName,
    /// Which version.
    pub(crate) version: VersionWanted,
}

/// Which version of a crate is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionWanted {
    /// This one, even if it was yanked: an exact version comes from a lock file.
    Exactly(CrateVersion),
    /// The highest that cargo would pick for this requirement: none that was yanked, and a pre-release only if the
    /// requirement names one.
    Highest(VersionReq),
}

/// Why a text is no [`CrateSpec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("`{name}` is not a crate: {why}", name = .0.text, why = .0.why)]
    Name(#[source] NotAName),
    #[error("`{text}` is neither a version nor a requirement: {why}")]
    Version { text: String, why: String },
}

impl FromStr for CrateSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name.trim(), Some(version.trim())),
            None => (text.trim(), None),
        };
        let name = CrateName::try_from(name.to_owned()).map_err(SpecError::Name)?;
        let version = match version {
            Some(version) => version.parse()?,
            None => VersionWanted::Highest(VersionReq::STAR),
        };
        Ok(Self { name, version })
    }
}

impl FromStr for VersionWanted {
    type Err = SpecError;

    /// A full version means itself, with or without a `=`; everything else is a requirement as in Cargo.toml.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let version = text.strip_prefix('=').unwrap_or(text).trim_start();
        if let Ok(version) = CrateVersion::try_from(version.to_owned()) {
            return Ok(Self::Exactly(version));
        }
        let requirement = VersionReq::parse(text).map_err(|error| SpecError::Version {
            text: text.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self::Highest(requirement))
    }
}

impl fmt::Display for VersionWanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(version) => version.fmt(formatter),
            Self::Highest(requirement) => requirement.fmt(formatter),
        }
    }
}

impl fmt::Display for CrateSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            VersionWanted::Highest(any) if *any == VersionReq::STAR => self.name.fmt(formatter),
            version => write!(formatter, "{}@{version}", self.name),
        }
    }
}

/// Begins a comment that goes to the end of the line.
const COMMENT: char = '#';

/// A bad line of a crate list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub(crate) struct CrateListError {
    line: usize,
    #[source]
    why: SpecError,
}

/// Reads a crate list: a text file with one [`CrateSpec`] a line. Empty lines and comments are ignored.
pub(crate) fn parse_crate_list(text: &str) -> Result<Vec<CrateSpec>, CrateListError> {
    // Editors on Windows begin files with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut specs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line
            .split_once(COMMENT)
            .map_or(line, |(content, _)| content);
        if content.trim().is_empty() {
            continue;
        }
        let spec = content.parse().map_err(|why| CrateListError {
            line: number + 1,
            why,
        })?;
        specs.push(spec);
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_version_is_exact_and_everything_else_is_a_requirement() {
        for (text, shown) in [
            ("serde", "serde"),
            (" serde ", "serde"),
            ("serde@*", "serde"),
            ("serde@1.0.200", "serde@1.0.200"),
            ("serde@=1.0.200", "serde@1.0.200"),
            ("serde@1.0.0-alpha.1+b", "serde@1.0.0-alpha.1+b"),
            ("serde@1.0", "serde@^1.0"),
            ("serde@^1.0.5", "serde@^1.0.5"),
            ("serde@=1.0", "serde@=1.0"),
            ("serde@>=1, <1.0.100", "serde@>=1, <1.0.100"),
            ("serde @ ~1.2", "serde@~1.2"),
        ] {
            let spec: CrateSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), shown);
            let exact = matches!(spec.version, VersionWanted::Exactly(_));
            assert_eq!(exact, text.contains("0.200") || text.contains("alpha"));
            assert_eq!(shown.parse::<CrateSpec>().unwrap(), spec);
        }
    }

    #[test]
    fn other_texts_are_refused_with_their_text() {
        for text in ["", "se/rde", "@1", "a@", "a@one", "a@1.0.0 2", "serde 1.0"] {
            let error = text.parse::<CrateSpec>().unwrap_err().to_string();
            assert!(error.contains('`') && error.contains(": "), "{error}");
        }
    }

    #[test]
    fn a_list_has_one_crate_a_line_and_comments_are_ignored() {
        let list = "\u{feff}# the team's crates\r\nserde\r\n\n  tokio@1.40 # long\n\t\naxum@=0.8.1";
        let specs: Vec<String> = parse_crate_list(list)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(specs, ["serde", "tokio@^1.40", "axum@0.8.1"]);
        assert_eq!(parse_crate_list("").unwrap(), []);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let error = parse_crate_list("serde\n# x\ntokio 1.0\n").unwrap_err();
        assert!(
            error.to_string().starts_with("line 3: `tokio 1.0`"),
            "{error}"
        );
    }
}
