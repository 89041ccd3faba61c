//! Names and versions of crates in the paths of requests.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::package::{CrateName, CrateVersion};

/// The name of a crate as a path has it. It is checked later, because crates.io checks the query before it.
#[derive(Debug)]
pub(super) struct NameInPath(String);

impl NameInPath {
    /// The name. A text that cannot be a crate's name is the name of no crate.
    pub(super) fn parse(self) -> Result<CrateName, ApiError> {
        parse_name(self.0)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NameInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::from_request_parts(parts, state).await?;
        Ok(Self(name))
    }
}

/// The version of a crate that a path names. Neither need exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VersionInPath {
    /// As typed.
    pub(super) name: CrateName,
    /// As typed.
    pub(super) version: CrateVersion,
}

impl VersionInPath {
    /// Checks the version first, as crates.io does: a bad version is 400 whatever the name is.
    pub(super) fn parse(name: String, version: String) -> Result<Self, ApiError> {
        let version = CrateVersion::try_from(version)
            .map_err(|not_semver| ApiError::BadRequest(format!("Invalid URL: {not_semver}")))?;
        let name = parse_name(name)?;
        Ok(Self { name, version })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VersionInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((name, version)) = Path::from_request_parts(parts, state).await?;
        Self::parse(name, version)
    }
}

fn parse_name(name: String) -> Result<CrateName, ApiError> {
    CrateName::try_from(name).map_err(|not_a_name| ApiError::CrateNotFound(not_a_name.text))
}
