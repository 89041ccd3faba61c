//! The settings of the background task.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::index::follow::settings::Network;
use crate::index::git::program::GitProgram;
use crate::index::source::fetch::Outgoing;
use crate::index::source::remote_url::RemoteUrl;
use crate::index::source::upkeep::UpkeepLimits;

/// The settings of the background task.
#[derive(Clone, Debug)]
pub(crate) struct AdvisorySettings {
    /// The upstream database.
    pub(crate) url: RemoteUrl,
    /// How the mirror reaches other machines.
    pub(crate) outgoing: Outgoing,
    /// The data directory of the mirror.
    pub(crate) data_dir: PathBuf,
    /// The directory for temporary repositories.
    pub(crate) temp_dir: PathBuf,
    /// The pause between fetches.
    pub(crate) interval: Duration,
    /// The clock for the times of fetches.
    pub(crate) clock: Clock,
    /// Whether the mirror may use the network.
    pub(crate) network: Network,
    /// The program that serves the database.
    pub(crate) program: GitProgram,
    /// The limits at which the clone is made smaller.
    pub(crate) upkeep: UpkeepLimits,
}

impl AdvisorySettings {
    /// Whether the mirror may fetch. Without the network only from a path on this machine.
    pub(super) fn may_fetch(&self) -> bool {
        self.network == Network::Allowed || self.url.is_local()
    }

    /// The directory of the clones.
    pub(super) fn directory(&self) -> PathBuf {
        directory(&self.data_dir)
    }
}

/// The directory of the clones in this data directory.
pub(super) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("advisory-db")
}
