//! The settings of the background task.

use std::path::PathBuf;
use std::time::Duration;

use super::policy_facts::PolicyLookup;
use super::stored_files::{IndexFilesOf, StoredFiles};
use crate::clock::Clock;
use crate::index::git::program::GitProgram;
use crate::index::source::fetch::Outgoing;
use crate::index::source::remote_url::RemoteUrl;
use crate::index::source::upkeep::UpkeepLimits;
use crate::policy::Rules;

/// The settings of the background task.
#[derive(Clone, Debug)]
pub(crate) struct FollowerSettings {
    /// The upstream index.
    pub(crate) url: RemoteUrl,
    /// How the mirror reaches the upstream.
    pub(crate) outgoing: Outgoing,
    /// The directory for the clones.
    pub(crate) data_dir: PathBuf,
    /// The pause between fetches. With `None` there is no fetch after the first clone.
    pub(crate) interval: Option<Duration>,
    /// The clock for the times of fetches, and for rules.
    pub(crate) clock: Clock,
    /// The settings of the git index; `None` turns it off.
    pub(crate) git_index: Option<GitIndexSettings>,
    /// Whether the mirror may use the network.
    pub(crate) network: Network,
    /// The rules for what is shown.
    pub(crate) rules: Rules,
    /// The look-up of stored crate files, for rules that need it.
    pub(crate) stored_files: Option<StoredFiles>,
    /// The look-up of the index files to read again when the stored crate files change. Without it, all are read.
    pub(crate) index_files_of: Option<IndexFilesOf>,
    /// The look-up of what the policy is decided from, for rules that have a policy.
    pub(crate) policy_lookup: Option<PolicyLookup>,
    /// The longest wait for the lock on the data directory, if there is no index to serve.
    pub(crate) lock_wait_max: Duration,
    /// The directory for temporary repositories.
    pub(crate) temp_dir: PathBuf,
    /// The limits at which the clone is made smaller.
    pub(crate) upkeep: UpkeepLimits,
}

/// The settings of the git index.
#[derive(Clone, Debug)]
pub(crate) struct GitIndexSettings {
    /// The content of its `config.json`.
    pub(crate) config: String,
    /// The program that serves it.
    pub(crate) program: GitProgram,
}

/// Whether the mirror may use the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The mirror fetches from any upstream.
    Allowed,
    /// The mirror fetches only from a path on this machine. Otherwise it serves the index in the data directory, and
    /// each later import.
    Forbidden,
}

impl FollowerSettings {
    /// Whether the mirror may clone the upstream and fetch from it.
    pub(super) fn may_fetch(&self) -> bool {
        self.network == Network::Allowed || self.url.is_local()
    }

    /// Whether a new clone may replace a clone that works. Not if the settings forbid fetches after the first clone.
    pub(super) fn may_renew(&self) -> bool {
        self.may_fetch() && self.interval.is_some()
    }
}
