//! Why a rule matches a version, and how the version is then shown. If no rule matches there is no reason, and the version
//! is shown unchanged.

use crate::package::Timestamp;

/// How one version is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Unchanged.
    AsIs,
    /// With this yanked flag instead of the upstream's.
    Yanked(bool),
    /// Not at all.
    Hidden,
}

/// The state of a version under the policy.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PolicyState {
    /// No rule is against it.
    Allowed,
    /// It is too new: shown as yanked until some time.
    Held,
    /// It is forbidden: shown as yanked, and its file is refused.
    Denied,
    /// The upstream has yanked it, and the yank guard keeps it unyanked for some time.
    Frozen,
}

impl PolicyState {
    /// The state as one word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Held => "held",
            Self::Denied => "denied",
            Self::Frozen => "frozen",
        }
    }
}

/// Why a version is hidden, changed, or exempt from being held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// Its crate file is not stored, and the mirror cannot fetch it.
    NotStored,
    /// The policy file denies it.
    DeniedByFile {
        /// The reason in the file.
        reason: Option<String>,
        /// The crate to use instead, from the file.
        use_instead: Option<String>,
    },
    /// An advisory says that it is malware.
    Malware {
        /// The id of the advisory.
        advisory: String,
    },
    /// There is an allow list without it.
    NotOnAllowList,
    /// The policy file exempts it from being held and from the yank guard.
    ExemptByFile {
        /// The reason in the file.
        reason: Option<String>,
    },
    /// It is the lowest version that fixes a vulnerability, so it is not held.
    SecurityFix {
        /// The id of the advisory.
        advisory: String,
    },
    /// It was yanked together with the release of a fresh version. It stays unyanked until this time.
    SuspiciousYank {
        /// Seconds since 1970.
        until: i64,
    },
    /// It appeared together with a suspicious mass yank. It is held until this time.
    FreshBesideYank {
        /// Seconds since 1970.
        until: i64,
    },
    /// It is younger than the minimum publish age.
    TooNew {
        /// When it is old enough, in seconds since 1970.
        until: i64,
        /// The minimum publish age, as it was written.
        min_age: String,
    },
    /// Its line has no publish time, and such versions are held.
    UnknownAge,
    /// A rule for tests and benchmarks matches.
    #[cfg(any(test, feature = "bench-rules"))]
    Test,
}

impl Reason {
    /// The name of the rule, for programs, and the state of a version with this reason.
    fn rule_and_state(&self) -> (&'static str, PolicyState) {
        use PolicyState::{Allowed, Denied, Frozen, Held};
        match self {
            Self::NotStored => ("not-stored", Allowed),
            Self::DeniedByFile { .. } => ("denied-by-file", Denied),
            Self::Malware { .. } => ("malware", Denied),
            Self::NotOnAllowList => ("allow-list", Denied),
            Self::ExemptByFile { .. } => ("exempt", Allowed),
            Self::SecurityFix { .. } => ("security-fix", Allowed),
            Self::SuspiciousYank { .. } => ("yank-guard", Frozen),
            Self::FreshBesideYank { .. } => ("yank-guard", Held),
            Self::TooNew { .. } => ("min-publish-age", Held),
            Self::UnknownAge => ("unknown-publish-time", Held),
            #[cfg(any(test, feature = "bench-rules"))]
            Self::Test => ("test", Allowed),
        }
    }

    /// The name of the rule, for programs.
    pub(crate) fn rule(&self) -> &'static str {
        self.rule_and_state().0
    }

    /// The state of a version with this reason.
    pub(crate) fn state(&self) -> PolicyState {
        self.rule_and_state().1
    }

    /// How a version with this reason is shown.
    pub(super) fn shown(&self) -> Shown {
        match (self, self.state()) {
            (Self::NotStored, _) => Shown::Hidden,
            #[cfg(any(test, feature = "bench-rules"))]
            (Self::Test, _) => Shown::Yanked(true),
            (_, PolicyState::Allowed) => Shown::AsIs,
            (_, PolicyState::Held | PolicyState::Denied) => Shown::Yanked(true),
            (_, PolicyState::Frozen) => Shown::Yanked(false),
        }
    }

    /// When the decision ends by itself, in seconds since 1970.
    pub(crate) fn until(&self) -> Option<i64> {
        match self {
            Self::SuspiciousYank { until }
            | Self::FreshBesideYank { until }
            | Self::TooNew { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// Why, in words, without the version and without a full stop.
    pub(crate) fn words(&self, published: Option<&Timestamp>) -> String {
        match self {
            Self::NotStored => "its crate file is not stored".to_owned(),
            Self::DeniedByFile { reason, .. } => reason
                .as_deref()
                .unwrap_or("denied by the policy file")
                .to_owned(),
            Self::Malware { advisory } => format!("{advisory}, malicious code"),
            Self::NotOnAllowList => "not on the allow list".to_owned(),
            Self::ExemptByFile { reason } => match reason {
                Some(reason) => format!("exempt by the policy file: {reason}"),
                None => "exempt by the policy file".to_owned(),
            },
            Self::SecurityFix { advisory } => {
                format!("it is the lowest version that fixes {advisory}")
            }
            Self::SuspiciousYank { .. } => {
                "it was yanked together with the release of a fresh version".to_owned()
            }
            Self::FreshBesideYank { .. } => {
                "it appeared together with a suspicious mass yank".to_owned()
            }
            Self::TooNew { min_age, .. } => {
                let published = published
                    .map_or_else(String::new, |time| format!("it was published {time} and "));
                format!("{published}the minimum publish age is {min_age}")
            }
            Self::UnknownAge => "it has no publish time".to_owned(),
            #[cfg(any(test, feature = "bench-rules"))]
            Self::Test => "a rule for tests".to_owned(),
        }
    }
}
