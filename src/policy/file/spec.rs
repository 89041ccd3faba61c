//! A crate in a policy file, and which of its versions, in every way that cargo-deny takes.

use std::fmt;

use semver::{Op, Version, VersionReq};

use super::names::Names;
use crate::package::{CrateName, NotAName, canonical};

/// Which crates an entry is about, and which of their versions.
///
/// The versions are those that cargo-deny takes. Without a requirement all match. With one, a pre-release matches only if
/// the requirement has a pre-release of the same three numbers, as in Cargo.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    /// As it is written in the file.
    text: String,
    pub(super) names: Names,
    requirement: Option<VersionReq>,
}

/// Whether a name may end with `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stars {
    Allowed,
    Forbidden,
}

/// Why a text is no [`Spec`].
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    #[error("`{name}` is not the name of a crate: {why}", name = .0.text, why = .0.why)]
    Name(#[source] NotAName),
    #[error("`{0}`: a `*` in a name has a meaning only in [mirror]")]
    Star(String),
    #[error("`{text}` is not a version requirement: {why}")]
    Requirement {
        text: String,
        #[source]
        why: semver::Error,
    },
}

impl Spec {
    /// Reads `a`, `a@1.2.3` or `a:<=1`. After an `@` the first comparator is exact, whatever it is in the text.
    pub(super) fn parse(text: &str, stars: Stars) -> Result<Self, SpecError> {
        let (name, requirement) = if let Some((name, exact)) = text.split_once('@') {
            let mut requirement = parse_requirement(exact)?;
            if let Some(first) = requirement.comparators.first_mut() {
                first.op = Op::Exact;
            }
            (name, Some(requirement))
        } else if let Some((name, requirement)) = text.split_once(':') {
            (name, Some(parse_requirement(requirement)?))
        } else {
            (text, None)
        };
        Ok(Self {
            text: text.to_owned(),
            names: parse_names(name, stars)?,
            requirement,
        })
    }

    /// Reads the older way: a name, and perhaps a requirement.
    pub(super) fn of_parts(
        name: &str,
        version: Option<&str>,
        stars: Stars,
    ) -> Result<Self, SpecError> {
        Ok(Self {
            text: match version {
                Some(version) => format!("{name}:{version}"),
                None => name.to_owned(),
            },
            names: parse_names(name, stars)?,
            requirement: version.map(parse_requirement).transpose()?,
        })
    }

    /// Whether this version is among those that are meant.
    pub(super) fn has(&self, version: &Version) -> bool {
        let requirement = self.requirement.as_ref();
        requirement.is_none_or(|requirement| requirement.matches(version))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn parse_requirement(text: &str) -> Result<VersionReq, SpecError> {
    VersionReq::parse(text).map_err(|why| SpecError::Requirement {
        text: text.to_owned(),
        why,
    })
}

fn parse_names(text: &str, stars: Stars) -> Result<Names, SpecError> {
    let beginning = text.strip_suffix('*');
    if beginning.is_some() && stars == Stars::Forbidden {
        return Err(SpecError::Star(text.to_owned()));
    }
    if beginning == Some("") {
        return Ok(Names::Beginning(String::new()));
    }
    // A beginning of a name is a name, too.
    let name = beginning.unwrap_or(text).to_owned();
    let name = CrateName::try_from(name).map_err(SpecError::Name)?;
    let name = canonical(name.as_str());
    Ok(match beginning {
        Some(_) => Names::Beginning(name),
        None => Names::One(name),
    })
}
