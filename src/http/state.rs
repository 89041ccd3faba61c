//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;

use super::api::version_table::{VersionTables, no_tables};
use super::error::ApiError;
use super::index::file_cache::FileCache;
use crate::clock::Clock;
use crate::index::{BlobId, IndexHandle};
use crate::server::{Shares, SharesSettings, TakingBack};
use crate::store::CrateFiles;
use crate::upstream::DownloadTemplate;

/// All memory that is kept for clients together, in bytes, beside the cache of index files and what every connection needs.
const ACCOUNT_BYTES: u64 = 48 * 1024 * 1024;

/// What one connection may have of it.
const ACCOUNT_BYTES_OF_ONE_CONNECTION: u64 = 24 * 1024 * 1024;

/// What every connection may have beside it.
const ACCOUNT_BYTES_FREE: u64 = 16 * 1024;

/// How fast a client must take an answer while others wait for the memory or the child that it takes up, in bytes per
/// second.
const PACE_MIN: u64 = 8 * 1024;

/// How long a peer above its fair share of the memory has what is taken back from it at least.
const MEMORY_AGE_MIN: Duration = Duration::from_millis(250);

/// The same for git processes: a full clone takes some seconds, and would have to begin anew.
const GIT_AGE_MIN: Duration = Duration::from_secs(60);

/// Files in a cloud that are read at a time so that parts of them can be sent.
const WHOLE_READINGS_MAX: usize = 8;

/// How long a request may wait for others.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// What the composition root gives to the HTTP side.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where crate files come from.
    pub(crate) download: DownloadTemplate,
    /// The mirror's own base URL, if it was set; without a trailing slash.
    pub(crate) public_url: Option<String>,
    /// Whether the port speaks TLS. A proxy in front may do so without this.
    pub(crate) tls: bool,
    /// What `Strict-Transport-Security` says; `None` for no such header.
    pub(crate) hsts_max_age_secs: Option<u32>,
    /// Whether the index was pruned to the versions whose files are held.
    pub(crate) pruned: bool,
    /// The upstream index, without secrets.
    pub(crate) upstream: String,
    /// The age of the last successful fetch at which the mirror is no longer ready; `None` if it never fetches again.
    pub(crate) max_staleness: Option<Duration>,
    /// Tells the age of the last successful fetch.
    pub(crate) clock: Clock,
    /// How many answers may be made from the index at a time. Each takes a thread, and memory for the largest index
    /// file several times over.
    pub(crate) index_reads_max: usize,
    /// How many children may answer git clients at a time. Each takes a processor for a while, and 50 MB for a full clone
    /// of the largest index.
    pub(crate) git_children_max: usize,
}

/// How many published names are remembered, about a hundred bytes each.
const PUBLISHED_NAMES_MAX: usize = 16_384;

/// Shared by all requests; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AppState(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) settings: Settings,
    pub(super) index: IndexHandle,
    /// The memory that is kept for clients, in bytes.
    pub(super) account: Shares,
    /// Turns to look something up.
    pub(super) index_reads: Shares,
    /// Turns to read index files, apart from look-ups, so that neither can starve the other.
    pub(super) file_reads: Shares,
    /// Turns to read a whole file in a cloud because of a part of it.
    pub(super) whole_readings: Shares,
    pub(super) files: FileCache,
    pub(super) git_children: Shares,
    /// Gives out crate files; a redirecting mirror has none.
    pub(super) keeper: Option<CrateFiles>,
    /// What is known of the crate files of crates that were asked for.
    pub(super) version_tables: VersionTables,
    /// The published names of crates that others depend on, by index file.
    pub(super) published_names: Cache<BlobId, Box<str>>,
}

impl AppState {
    /// The state of a mirror that answers from `index`, and sends the files of `keeper`, or else redirects.
    pub(crate) fn new(settings: Settings, index: IndexHandle, keeper: Option<CrateFiles>) -> Self {
        let account = Shares::new(SharesSettings {
            capacity: ACCOUNT_BYTES,
            connection_max: ACCOUNT_BYTES_OF_ONE_CONNECTION,
            connection_free: ACCOUNT_BYTES_FREE,
            wait_max: WAIT_MAX,
            taking_back: TakingBack::From {
                pace_min: PACE_MIN,
                age_min: MEMORY_AGE_MIN,
            },
        });
        let turns = |count: usize, taking_back| {
            let capacity = count as u64;
            Shares::new(SharesSettings {
                capacity,
                connection_max: capacity,
                connection_free: 0,
                wait_max: WAIT_MAX,
                taking_back,
            })
        };
        let index_reads = turns(settings.index_reads_max, TakingBack::Never);
        let file_reads = turns(settings.index_reads_max, TakingBack::Never);
        let git_children = turns(
            settings.git_children_max,
            TakingBack::From {
                pace_min: PACE_MIN,
                age_min: GIT_AGE_MIN,
            },
        );
        Self(Arc::new(Inner {
            settings,
            index,
            account,
            index_reads,
            file_reads,
            whole_readings: turns(WHOLE_READINGS_MAX, TakingBack::Never),
            files: FileCache::new(),
            git_children,
            keeper,
            version_tables: no_tables(),
            published_names: Cache::new(PUBLISHED_NAMES_MAX),
        }))
    }
}

impl AppState {
    /// The account of the memory that is kept for clients.
    pub(crate) fn account(&self) -> &Shares {
        &self.account
    }

    /// Why there is no snapshot to answer from.
    pub(super) fn not_ready(&self) -> ApiError {
        let status = self.index.status();
        match status.last_error.filter(|_| status.needs_help) {
            Some(why) => ApiError::NeedsHelp(why),
            None => ApiError::NotReady,
        }
    }

    /// The upstream index, without secrets.
    pub(crate) fn upstream(&self) -> &str {
        &self.settings.upstream
    }
}

impl std::ops::Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
