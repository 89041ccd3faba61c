//! What the background task needs to know.

use std::path::PathBuf;
use std::time::Duration;

use super::stored_files::StoredFiles;
use crate::clock::Clock;
use crate::index::git::upload_pack::GitProgram;
use crate::index::source::redirects::Redirects;
use crate::index::source::remote_url::RemoteUrl;
use crate::index::source::upkeep::UpkeepLimits;
use crate::outgoing::Proxies;
use crate::policy::Rules;

/// What the background task needs to know.
#[derive(Clone, Debug)]
pub(crate) struct FollowerSettings {
    /// The index to follow.
    pub(crate) url: RemoteUrl,
    /// Finds it where it has moved to another host.
    pub(crate) redirects: Redirects,
    /// Where the clone lies.
    pub(crate) data_dir: PathBuf,
    /// The pause between fetches; `None` never fetches after the first clone.
    pub(crate) interval: Option<Duration>,
    /// Tells the time of a success.
    pub(crate) clock: Clock,
    /// How to serve the index over git; `None` does not.
    pub(crate) git_index: Option<GitIndexSettings>,
    /// Whether the upstream may be asked when it is not on this machine.
    pub(crate) network: Network,
    /// What is shown of the index.
    pub(crate) rules: Rules,
    /// Which crate files are stored; asked if a rule needs it.
    pub(crate) stored_files: Option<StoredFiles>,
    /// How long to wait for another process to free the data directory.
    pub(crate) lock_wait_max: Duration,
    /// How other machines are reached.
    pub(crate) proxies: Proxies,
    /// Where temporary files go.
    pub(crate) temp_dir: PathBuf,
    /// When the clone is made smaller.
    pub(crate) upkeep: UpkeepLimits,
}

/// What the git index needs beside the clone.
#[derive(Clone, Debug)]
pub(crate) struct GitIndexSettings {
    /// The content of its `config.json`.
    pub(crate) config: String,
    /// What serves it.
    pub(crate) program: GitProgram,
}

/// Whether anything may leave this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The upstream is cloned and fetched from, wherever it is.
    Allowed,
    /// Only an upstream that is a path on this machine is. Otherwise what lies in the data directory is served, and
    /// whatever an import puts in its place.
    Forbidden,
}

impl FollowerSettings {
    /// Whether the upstream may be cloned and fetched from.
    pub(crate) fn may_fetch(&self) -> bool {
        self.network == Network::Allowed || self.url.is_local()
    }

    /// Whether a clone that works may be replaced by a new one. Not where nothing is fetched after the first one.
    pub(crate) fn may_renew(&self) -> bool {
        self.may_fetch() && self.interval.is_some()
    }
}
