//! What all handlers share: settings, the index, permits and caches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::HttpBody;
use axum::extract::FromRequestParts;
use axum::extract::rejection::ExtensionRejection;
use axum::http::request::Parts;
use axum::response::Response;
use quick_cache::sync::Cache;

use super::answer_cache::AnswerCache;
use super::changes::followers::Followers;
use super::index::decision_table::{DecisionTables, no_decisions};
use super::index::file_cache::FileCache;
use super::index::version_table::{VersionTables, no_tables};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::index::{AdvisoryHandle, BlobId, IndexHandle};
use crate::journal::Journal;
use crate::observability::metrics::Metrics;
#[cfg(feature = "otlp")]
use crate::observability::traces::Traces;
#[cfg(feature = "otlp")]
use crate::server::TrustedProxies;
use crate::server::{Exchange, Exhausted, Shares, SharesSettings, TakingBack};
use crate::store::CrateFiles;
use crate::upstream::DownloadTemplate;

/// All memory that is kept for clients together, in bytes, besides the cache of index files and the needs of every
/// connection.
const ACCOUNT_BYTES: u64 = 48 * 1024 * 1024;

/// The part of it that one connection may have.
const ACCOUNT_BYTES_OF_ONE_CONNECTION: u64 = 24 * 1024 * 1024;

/// What every connection may have besides.
const ACCOUNT_BYTES_FREE: u64 = 16 * 1024;

/// How fast a client must read an answer while others wait for the memory or the git process that the answer occupies, in
/// bytes per second.
const PACE_MIN: u64 = 8 * 1024;

/// How long a peer above its fair share of the memory keeps each of its answers at least.
const MEMORY_AGE_MIN: Duration = Duration::from_millis(250);

/// The same for git processes. A full clone takes some seconds, and would have to begin anew.
const GIT_AGE_MIN: Duration = Duration::from_secs(60);

/// How many clients may follow the change feed at a time. Each has a connection, and a look at the journal for each step.
const FOLLOWERS_MAX: usize = 256;

/// The same for followers. Only those that do not read what is there for them are ever cut.
const FOLLOWER_AGE_MIN: Duration = Duration::from_secs(10);

/// How many whole files may be read from a cloud at a time because of a part of each.
const WHOLE_FILES_MAX: usize = 8;

/// How long a request may wait for others.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// What the composition root gives to the HTTP side.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where crate files come from.
    pub(crate) download: DownloadTemplate,
    /// What the policy does about downloads.
    pub(crate) download_policy: DownloadPolicy,
    /// The mirror's own base URL, if it was set; without a trailing slash.
    pub(crate) public_url: Option<String>,
    /// Whether the port speaks TLS. A proxy in front may do so without this.
    pub(crate) tls: bool,
    /// The age in `Strict-Transport-Security`; `None` for no such header.
    pub(crate) hsts_max_age_secs: Option<u32>,
    /// The upstream index, without secrets.
    pub(crate) upstream: String,
    /// The age of the last successful fetch at which the mirror is no longer ready; `None` if it never fetches again.
    pub(crate) max_staleness: Option<Duration>,
    /// Where spans of requests go; `None` makes none.
    #[cfg(feature = "otlp")]
    pub(crate) traces: Option<Traces>,
    /// The proxies whose requests name the parents of spans.
    #[cfg(feature = "otlp")]
    pub(crate) trusted_proxies: TrustedProxies,
    /// Tells the age of the last successful fetch.
    pub(crate) clock: Clock,
    /// How many answers may be made from the index at a time. Each needs a thread, and several times the memory of the
    /// index file.
    pub(crate) index_reads_max: usize,
    /// How many git processes may answer clients at a time. Each needs a processor for a while, and 50 MB for a full clone
    /// of the largest index.
    pub(crate) git_children_max: usize,
}

/// What the policy does about downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DownloadPolicy {
    /// No rule can refuse one.
    None,
    /// It only notes what it would refuse.
    Watch,
    /// It refuses what is denied, and perhaps what is held.
    Enforce,
}

/// How many published names are remembered. Each takes about a hundred bytes.
const PUBLISHED_NAMES_MAX: usize = 16_384;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) settings: Settings,
    /// When the mirror started.
    pub(super) started: Instant,
    pub(super) index: IndexHandle,
    /// The advisory database; `None` if the mirror follows none.
    pub(super) advisories: Option<AdvisoryHandle>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Search and reverse dependencies.
    pub(super) catalog: Catalog,
    /// What has changed in the index.
    pub(super) journal: Journal,
    /// The clients that follow the change feed.
    pub(super) followers: Followers,
    /// The account of the memory that is kept for clients, in bytes.
    pub(crate) account: Shares,
    /// Permits for look-ups.
    pub(super) look_up_permits: Shares,
    /// Permits to read index files. They are apart from look-ups, so that neither can starve the other.
    pub(super) index_file_permits: Shares,
    /// Permits to read a whole file in a cloud because of a part of it.
    pub(super) whole_file_permits: Shares,
    /// Permits to start git.
    pub(super) git_permits: Shares,
    /// Permits to follow the change feed.
    pub(super) follower_permits: Shares,
    /// The permit to collect the metrics.
    pub(super) metrics_permits: Shares,
    pub(super) index_files: FileCache,
    /// The checksums of all versions of crates that clients asked for.
    pub(super) version_tables: VersionTables,
    /// What the policy says about crates that clients asked for.
    pub(super) decision_tables: DecisionTables,
    /// Answers of the web API.
    pub(super) answer_cache: AnswerCache,
    /// The published names of crates that others depend on, by index file.
    pub(super) published_names: Cache<BlobId, Box<str>>,
    /// The crate files that the mirror sends itself; `None` for a redirecting mirror.
    pub(super) crate_files: Option<CrateFiles>,
}

/// What a handler gets for its request: what all requests share, and the exchange.
#[derive(Clone, Debug)]
pub(crate) struct RequestState {
    pub(super) state: Arc<AppState>,
    pub(super) exchange: Exchange,
}

impl FromRequestParts<Arc<AppState>> for RequestState {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<AppState>,
    ) -> Result<Self, ExtensionRejection> {
        let Extension(exchange) = Extension::from_request_parts(parts, state).await?;
        let state = Arc::clone(state);
        Ok(Self { state, exchange })
    }
}

impl AppState {
    /// The state of a mirror that answers from `index`. It sends `crate_files`, or else redirects.
    pub(crate) fn new(
        settings: Settings,
        index: IndexHandle,
        advisories: Option<AdvisoryHandle>,
        catalog: Catalog,
        journal: Journal,
        crate_files: Option<CrateFiles>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let pace_min = PACE_MIN;
        let taken_from = |age_min| TakingBack::From { pace_min, age_min };
        let account = Shares::new(SharesSettings {
            capacity: ACCOUNT_BYTES,
            connection_max: ACCOUNT_BYTES_OF_ONE_CONNECTION,
            connection_free: ACCOUNT_BYTES_FREE,
            wait_max: WAIT_MAX,
            taking_back: taken_from(MEMORY_AGE_MIN),
        });
        let permits = |count: usize, taking_back| {
            let capacity = count as u64;
            Shares::new(SharesSettings {
                capacity,
                connection_max: capacity,
                connection_free: 0,
                wait_max: WAIT_MAX,
                taking_back,
            })
        };
        Arc::new(Self {
            look_up_permits: permits(settings.index_reads_max, TakingBack::Never),
            index_file_permits: permits(settings.index_reads_max, TakingBack::Never),
            whole_file_permits: permits(WHOLE_FILES_MAX, TakingBack::Never),
            git_permits: permits(settings.git_children_max, taken_from(GIT_AGE_MIN)),
            follower_permits: permits(FOLLOWERS_MAX, taken_from(FOLLOWER_AGE_MIN)),
            metrics_permits: permits(1, TakingBack::Never),
            settings,
            started: Instant::now(),
            index,
            advisories,
            metrics,
            catalog,
            journal,
            followers: Followers::default(),
            account,
            answer_cache: AnswerCache::default(),
            index_files: FileCache::new(),
            version_tables: no_tables(),
            decision_tables: no_decisions(),
            published_names: Cache::new(PUBLISHED_NAMES_MAX),
            crate_files,
        })
    }

    /// Accounts for an answer whose body is in memory.
    pub(super) async fn keep(
        &self,
        exchange: &Exchange,
        answer: Response,
    ) -> Result<Response, Exhausted> {
        let bytes = answer.body().size_hint().lower();
        self.account.keep(exchange, bytes).await?;
        Ok(answer)
    }
}
