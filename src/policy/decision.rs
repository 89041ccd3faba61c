//! What the rules say about one version, and why.

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

/// The decision about one version. Without a reason no rule matches, and the version is shown unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// How the version is shown.
    pub(crate) shown: Shown,
    /// Why.
    pub(crate) reason: Option<Reason>,
}

impl Reason {
    /// The state of a version with this reason.
    pub(crate) fn state(&self) -> PolicyState {
        match self {
            Self::NotStored | Self::ExemptByFile { .. } | Self::SecurityFix { .. } => {
                PolicyState::Allowed
            }
            #[cfg(any(test, feature = "bench-rules"))]
            Self::Test => PolicyState::Allowed,
            Self::DeniedByFile { .. } | Self::Malware { .. } | Self::NotOnAllowList => {
                PolicyState::Denied
            }
            Self::FreshBesideYank { .. } | Self::TooNew { .. } | Self::UnknownAge => {
                PolicyState::Held
            }
            Self::SuspiciousYank { .. } => PolicyState::Frozen,
        }
    }

    /// The name of the rule, for programs.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::NotStored => "not-stored",
            Self::DeniedByFile { .. } => "denied-by-file",
            Self::Malware { .. } => "malware",
            Self::NotOnAllowList => "allow-list",
            Self::ExemptByFile { .. } => "exempt",
            Self::SecurityFix { .. } => "security-fix",
            Self::SuspiciousYank { .. } | Self::FreshBesideYank { .. } => "yank-guard",
            Self::TooNew { .. } => "min-publish-age",
            Self::UnknownAge => "unknown-publish-time",
            #[cfg(any(test, feature = "bench-rules"))]
            Self::Test => "test",
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

    pub(super) fn decision(self) -> Decision {
        let shown = match (self.state(), &self) {
            (_, Self::NotStored) => Shown::Hidden,
            (PolicyState::Allowed, _) => Shown::AsIs,
            (PolicyState::Held | PolicyState::Denied, _) => Shown::Yanked(true),
            (PolicyState::Frozen, _) => Shown::Yanked(false),
        };
        Decision {
            shown,
            reason: Some(self),
        }
    }

    /// Why, in words, without the version and without a full stop.
    pub(crate) fn words(&self, published: Option<&Timestamp>) -> String {
        match self {
            Self::NotStored => "its crate file is not stored".to_owned(),
            Self::DeniedByFile { reason, .. } => match reason {
                Some(reason) => reason.clone(),
                None => "denied by the policy file".to_owned(),
            },
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

impl Decision {
    /// No rule matches.
    pub(super) const NONE: Self = Self {
        shown: Shown::AsIs,
        reason: None,
    };

    /// The state of the version.
    pub(crate) fn state(&self) -> PolicyState {
        let state = self.reason.as_ref().map(Reason::state);
        state.unwrap_or(PolicyState::Allowed)
    }
}
