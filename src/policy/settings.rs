//! The settings of the policy, as `config` has read them.

use serde::Serialize;

use super::age::Age;
use super::decision::PolicyState;

/// When versions are held, and what that means for downloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// A version that is younger is held (`MIN_PUBLISH_AGE`). 0 holds none.
    pub(crate) min_age: Age,
    /// Versions without a publish time (`MIN_PUBLISH_AGE_UNKNOWN`).
    pub(crate) unknown_age: UnknownAge,
    /// Files of held versions (`HELD_DOWNLOADS`).
    pub(crate) held_downloads: HeldDownloads,
    /// Whether the policy changes answers (`POLICY_MODE`).
    pub(crate) mode: Mode,
    /// How long a suspicious mass yank is kept back (`YANK_GUARD`). With 0 it is not kept back.
    pub(crate) yank_guard: Age,
}

/// What happens to a version without a publish time where there is a minimum publish age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnknownAge {
    /// It counts as old enough.
    Allow,
    /// It is held.
    Hold,
}

/// What happens to a download of a held version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HeldDownloads {
    /// The file is sent, so that no lock file breaks.
    Allow,
    /// The file is refused.
    Deny,
}

/// Whether the policy changes answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It does.
    Enforce,
    /// It does not. The mirror logs and counts what it would refuse.
    Audit,
}

impl Settings {
    /// Whether files of versions in this state are refused.
    pub(crate) fn refuses(&self, state: PolicyState) -> bool {
        match state {
            PolicyState::Denied => true,
            PolicyState::Held => self.held_downloads == HeldDownloads::Deny,
            PolicyState::Allowed | PolicyState::Frozen => false,
        }
    }
}

impl Mode {
    /// The value of the setting.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}
