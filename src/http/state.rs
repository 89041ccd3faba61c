//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::budget::AnswerBudget;
use super::crate_file::KnownFiles;
use super::file_cache::FileCache;
use crate::clock::Clock;
use crate::index::IndexHandle;
use crate::store::Keeper;
use crate::upstream::DownloadTemplate;

/// All large answers to look-ups together, in KiB. The largest real one has 4.6 MB.
const LOOK_UP_ANSWERS_KIB_MAX: u32 = 64 * 1024;

/// All large index files on their way to clients together, in KiB: the cache may have dropped them already.
const FILE_ANSWERS_KIB_MAX: u32 = 32 * 1024;

/// How many versions are remembered with the checksum of their file, two hundred bytes each.
const KNOWN_FILES_MAX: usize = 32_768;

/// What the composition root gives to the HTTP side.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where crate files come from.
    pub(crate) download: DownloadTemplate,
    /// The mirror's own base URL, if it was set; without a trailing slash.
    pub(crate) public_url: Option<String>,
    /// Whether the port speaks TLS. A proxy in front may do so without this.
    pub(crate) tls: bool,
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

/// Shared by all requests; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AppState(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) settings: Settings,
    pub(super) index: IndexHandle,
    pub(super) index_reads: Arc<Semaphore>,
    pub(super) budget: AnswerBudget,
    /// Reads of index files, apart from look-ups, so that neither can starve the other.
    pub(super) file_reads: Arc<Semaphore>,
    pub(super) file_budget: AnswerBudget,
    pub(super) files: FileCache,
    pub(super) git_children: Arc<Semaphore>,
    /// Gives out crate files; a redirecting mirror has none.
    pub(super) keeper: Option<Keeper>,
    pub(super) crate_files: KnownFiles,
}

impl AppState {
    /// The state of a mirror that answers from `index`, and sends the files of `keeper`, or else redirects.
    pub(crate) fn new(settings: Settings, index: IndexHandle, keeper: Option<Keeper>) -> Self {
        let index_reads = Arc::new(Semaphore::new(settings.index_reads_max));
        let file_reads = Arc::new(Semaphore::new(settings.index_reads_max));
        let git_children = Arc::new(Semaphore::new(settings.git_children_max));
        Self(Arc::new(Inner {
            settings,
            index,
            index_reads,
            budget: AnswerBudget::new(LOOK_UP_ANSWERS_KIB_MAX),
            file_budget: AnswerBudget::new(FILE_ANSWERS_KIB_MAX),
            file_reads,
            files: FileCache::new(),
            git_children,
            keeper,
            crate_files: KnownFiles::new(KNOWN_FILES_MAX),
        }))
    }
}

impl AppState {
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
