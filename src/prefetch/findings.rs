//! What is wrong with a plan, in one line each.

use std::fmt;

use super::choose::NoChoice;
use crate::package::{Checksum, CrateName, CrateVersion};

/// Something that was wanted and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad that is.
    pub(crate) severity: Severity,
    what: What,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// A build may work without it.
    Warning,
    /// A build that needs what was asked for will fail.
    Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Spec {
        spec: String,
        why: NoChoice,
    },
    Dependency {
        of: String,
        requirement: String,
        why: String,
    },
    NotInIndex {
        package: String,
    },
    OtherChecksum {
        package: String,
        locked: Checksum,
        in_index: Checksum,
    },
    NoChecksum {
        package: String,
    },
}

impl Finding {
    /// A crate that was named, and that nothing matches.
    pub(crate) fn of_spec(spec: String, why: NoChoice) -> Self {
        Self::problem(What::Spec { spec, why })
    }

    /// A dependency that nothing matches.
    pub(crate) fn of_dependency(
        severity: Severity,
        of: &str,
        requirement: String,
        why: impl fmt::Display,
    ) -> Self {
        let what = What::Dependency {
            of: of.to_owned(),
            requirement,
            why: why.to_string(),
        };
        Self { severity, what }
    }

    /// A package of a lock file that the index does not have.
    pub(crate) fn not_in_index(name: &CrateName, version: &CrateVersion) -> Self {
        Self::problem(What::NotInIndex {
            package: package(name, version),
        })
    }

    /// A package whose file cargo would refuse.
    pub(crate) fn other_checksum(
        name: &CrateName,
        version: &CrateVersion,
        locked: Checksum,
        in_index: Checksum,
    ) -> Self {
        Self::problem(What::OtherChecksum {
            package: package(name, version),
            locked,
            in_index,
        })
    }

    /// A version that nothing could be verified with.
    pub(crate) fn no_checksum(name: &CrateName, version: &CrateVersion) -> Self {
        Self::problem(What::NoChecksum {
            package: package(name, version),
        })
    }

    fn problem(what: What) -> Self {
        Self {
            severity: Severity::Problem,
            what,
        }
    }
}

fn package(name: &CrateName, version: &CrateVersion) -> String {
    format!("{name}@{version}")
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.severity {
            Severity::Warning => "warning: ",
            Severity::Problem => "problem: ",
        })?;
        match &self.what {
            What::Spec { spec, why } => write!(formatter, "{spec}: {why}"),
            What::Dependency {
                of,
                requirement,
                why,
            } => write!(formatter, "{requirement}, a dependency of {of}: {why}"),
            What::NotInIndex { package } => {
                write!(formatter, "{package}: it is not in the index")
            }
            What::OtherChecksum {
                package,
                locked,
                in_index,
            } => write!(
                formatter,
                "{package}: the lock file has the checksum {locked}, the index {in_index}; cargo will refuse the file"
            ),
            What::NoChecksum { package } => {
                write!(formatter, "{package}: {}", NoChoice::NoChecksum)
            }
        }
    }
}
