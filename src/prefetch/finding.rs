//! One line about something that is wanted and not available.

use std::fmt;

use crate::package::{CrateName, CrateVersion};

/// Something that is wanted and not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad that is.
    pub(crate) severity: Severity,
    text: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// A build may work without it.
    Warning,
    /// A build that needs it will fail.
    Problem,
}

impl Finding {
    /// A crate that was named.
    pub(super) fn of_spec(spec: &str, why: impl fmt::Display) -> Self {
        Self {
            severity: Severity::Problem,
            text: format!("{spec}: {why}"),
        }
    }

    /// A version that a lock file or the index names.
    pub(super) fn of_version(
        name: &CrateName,
        version: &CrateVersion,
        why: impl fmt::Display,
    ) -> Self {
        Self::of_spec(&format!("{name}@{version}"), why)
    }

    /// A requirement of a crate.
    pub(super) fn of_dependency(
        severity: Severity,
        dependent: &str,
        requirement: &str,
        why: impl fmt::Display,
    ) -> Self {
        let text = format!("{requirement}, a dependency of {dependent}: {why}");
        Self { severity, text }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        };
        write!(formatter, "{severity}: {}", self.text)
    }
}
