//! Opening what the verbs share with the server: the index and the store, by the same settings.

use std::error::Error;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::terminal::Terminal;
use crate::app::{crate_sources, open_keeper, redirects};
use crate::clock::Clock;
use crate::config::{Config, DownloadMode};
use crate::index::{
    HeldIndex, IndexHandle, Network, ReadError, RefreshOnceError, RefresherSettings, Snapshot,
    open_current, refresh_once,
};
use crate::package::CrateName;
use crate::prefetch::{IndexReader, IndexUnreadable};
use crate::store::CrateFiles;

/// How often it is said how far a clone is.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Why a verb cannot begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// There is no index, and none could be had.
    #[error("there is no index in DATA_DIR: {0}")]
    NoIndex(String),
    /// There is one that cannot be read.
    #[error("the index in DATA_DIR cannot be read: {0}")]
    Index(#[from] ReadError),
    /// The store or its upstreams cannot be used.
    #[error("{0}")]
    Store(#[source] Box<dyn Error + Send + Sync>),
    /// Somebody stopped it.
    #[error("stopped")]
    Stopped,
}

/// Opens the index, up to date where that is possible: a running mirror sees to that itself.
///
/// The data directory is free again by then. A verb may run for hours, and a mirror that starts meanwhile needs it; what
/// the snapshot reads stays where it is for as long as it is read.
pub(super) async fn open_index(
    config: &Config,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Result<Arc<Snapshot>, OpenError> {
    let (settings, handle) = (refresher_settings(config), IndexHandle::new());
    let fetching = handle.clone();
    let refreshing = tokio::task::spawn_blocking(move || refresh_once(settings, &fetching));
    tokio::pin!(refreshing);
    let refreshed = loop {
        tokio::select! {
            () = stop.cancelled() => return Err(OpenError::Stopped),
            refreshed = &mut refreshing => break refreshed,
            () = tokio::time::sleep(LINE_EVERY) => terminal.note(&how_far(&handle)),
        }
    };
    let why = match refreshed {
        Ok(Ok(held)) => return Ok(let_go(held)),
        Ok(Err(why)) => why,
        Err(mistake) => RefreshOnceError::Failed(mistake.to_string()),
    };
    let current = open_current(&config.data_dir)?;
    match (current, why) {
        (Some(snapshot), RefreshOnceError::Held) => Ok(snapshot),
        (Some(snapshot), why) => {
            terminal.note(&format!("warning: {why}; going on with what is here"));
            Ok(snapshot)
        }
        (None, why) => Err(OpenError::NoIndex(why.to_string())),
    }
}

/// What an index shows, no longer kept from others.
fn let_go(held: HeldIndex) -> Arc<Snapshot> {
    Arc::clone(held.snapshot())
}

/// Opens the store, with upstreams to fill it from unless the settings forbid that.
pub(super) fn open_store(config: &Config) -> Result<CrateFiles, OpenError> {
    let clock = Clock::system();
    let sources = match config.download_mode {
        DownloadMode::Offline => None,
        DownloadMode::Redirect | DownloadMode::Cache => {
            Some(crate_sources(config, &clock).map_err(|error| OpenError::Store(error.into()))?)
        }
    };
    open_keeper(config, &clock, sources).map_err(|error| OpenError::Store(error.into()))
}

/// Opens the store for a verb that fetches nothing.
pub(super) fn open_store_without_upstreams(config: &Config) -> Result<CrateFiles, OpenError> {
    open_keeper(config, &Clock::system(), None).map_err(|error| OpenError::Store(error.into()))
}

/// Says so if what is about to be stored may not be there when it is wanted.
pub(super) fn warn_of_a_store_that_forgets(config: &Config, terminal: &Terminal) {
    if config.storage.is_memory() {
        terminal.note(
            "warning: STORAGE_URL is memory://, so what is stored now is gone when this command ends",
        );
    }
    if config.storage.is_disk() && config.storage_bytes_max.is_some() {
        terminal.note(
            "warning: STORAGE_MAX_BYTES is set, so what is stored now may push out what was stored before",
        );
    }
}

fn refresher_settings(config: &Config) -> RefresherSettings {
    RefresherSettings {
        url: config.git_repo_url.clone(),
        redirects: redirects(config),
        data_dir: config.data_dir.clone(),
        interval: config.refresh_interval,
        clock: Clock::system(),
        git_index: None,
        network: match config.download_mode {
            DownloadMode::Offline => Network::Forbidden,
            DownloadMode::Redirect | DownloadMode::Cache => Network::Allowed,
        },
        held: None,
        lock_wait_max: config.lock_wait_max,
        proxies: config.proxies.clone(),
        temp_dir: config.temp_dir.clone(),
        upkeep: config.upkeep,
    }
}

fn how_far(handle: &IndexHandle) -> String {
    let progress = handle.status().progress;
    format!(
        "bringing the index up to date: {} of {} objects",
        progress.received_objects, progress.total_objects
    )
}

/// Why a visit of all index files ended before its time.
enum VisitEnded {
    BrokenOff,
    Unreadable(ReadError),
}

impl From<ReadError> for VisitEnded {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

impl IndexReader for Snapshot {
    fn index_file(&self, name: &CrateName) -> Result<Option<Vec<u8>>, IndexUnreadable> {
        // The methods of the snapshot itself, not these.
        let content = Self::index_file(self, name, <[u8]>::to_vec);
        content.map_err(|error| IndexUnreadable(error.into()))
    }

    fn visit_index_files(
        &self,
        visit: &mut (dyn FnMut(&CrateName, &[u8]) -> ControlFlow<()> + Send),
    ) -> Result<(), IndexUnreadable> {
        // One thread is enough for what follows, which is slower; the lock is for its type only.
        let visit = Mutex::new(visit);
        let visited = self.for_each_index_file(NonZeroUsize::MIN, |name, content| {
            let mut visit = visit.lock().unwrap_or_else(PoisonError::into_inner);
            match visit(name, content) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(VisitEnded::BrokenOff),
            }
        });
        match visited {
            Ok(()) | Err(VisitEnded::BrokenOff) => Ok(()),
            Err(VisitEnded::Unreadable(error)) => Err(IndexUnreadable(error.into())),
        }
    }
}
