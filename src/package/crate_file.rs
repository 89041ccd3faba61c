//! One `.crate` file, as the index describes it.

use std::fmt;

use super::{Checksum, CrateName, CrateVersion};

/// Identifies one crate file.
///
/// Only the checksum identifies its bytes, because crates.io allows that a version is deleted and published again. Name and
/// version say where an upstream has the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrateFile {
    /// The crate's name as published.
    pub(crate) name: CrateName,
    /// The version.
    pub(crate) version: CrateVersion,
    /// The SHA-256 of the bytes.
    pub(crate) checksum: Checksum,
}

impl fmt::Display for CrateFile {
    /// As cargo shows it: `serde 1.0.0`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}
