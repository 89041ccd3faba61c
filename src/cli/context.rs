//! What all subcommands beside `serve` have in common: settings, terminal, index, store and exit code.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use indicatif::HumanCount;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::terminal::Terminal;
use crate::app::{
    advisory_refresh, crate_sources, follower_settings, open_keeper, served_index_settings,
};
use crate::clock::Clock;
use crate::config::{Config, DownloadMode};
use crate::index::{
    IndexHandle, ReadError, RefreshOnceError, ServedIndex, Source, open_current,
    refresh_copy_on_disk, refresh_once,
};
use crate::package::Checksum;
use crate::store::{CrateFiles, CrateStore};

/// How often the progress of a clone is printed.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How a subcommand ended. The exit codes are in `--help`; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything was done, and no problem was found.
    Done,
    /// Something is missing, damaged or failed, or was not done at all: standard error says what.
    Incomplete,
    /// The arguments, an input file or the settings are bad. Nothing was done.
    Unusable,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Incomplete => Self::from(1),
            Outcome::Unusable => Self::from(2),
        }
    }
}

/// Why a subcommand has ended early.
#[derive(Debug)]
pub(super) struct Failed {
    outcome: Outcome,
    /// `None` if it was said already.
    pub(super) why: Option<String>,
}

impl Failed {
    /// The arguments or the settings are bad.
    pub(super) fn unusable(why: impl ToString) -> Self {
        Self {
            outcome: Outcome::Unusable,
            why: Some(why.to_string()),
        }
    }

    /// Something could not be done.
    pub(super) fn incomplete(why: impl ToString) -> Self {
        Self {
            outcome: Outcome::Incomplete,
            why: Some(why.to_string()),
        }
    }

    /// There is nothing to work with.
    pub(super) fn no_index(why: impl Display) -> Self {
        Self::incomplete(format!("there is no index in DATA_DIR: {why}"))
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self::incomplete(format!("the index in DATA_DIR cannot be read: {error}"))
    }
}

impl From<JoinError> for Failed {
    fn from(panic: JoinError) -> Self {
        Self::incomplete(format!("internal error: {panic}"))
    }
}

impl From<Outcome> for Failed {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, why: None }
    }
}

/// A running subcommand.
pub(super) struct Context {
    pub(super) config: Config,
    pub(super) terminal: Terminal,
    /// Cancelled by the first signal.
    pub(super) stop: CancellationToken,
}

impl Context {
    /// How the subcommand has ended. Prints why it has ended early.
    pub(super) fn end(&self, ended: Result<Outcome, Failed>) -> Outcome {
        ended.unwrap_or_else(|Failed { outcome, why }| {
            if let Some(why) = why {
                self.terminal.note(&why);
            }
            outcome
        })
    }

    /// Opens the index as it is served, up to date if possible. A running mirror keeps it up to date itself.
    ///
    /// The data directory is free again afterwards: a subcommand may run for hours, and a mirror that starts meanwhile needs
    /// it. The clone stays on the disk for as long as the returned index lives.
    pub(super) async fn open_index(&self) -> Result<ServedIndex, Failed> {
        let source = self.refresh_index().await?;
        self.refresh_advisories().await?;
        let settings = served_index_settings(&self.config, Clock::system());
        let opening = move || ServedIndex::of(source, &settings);
        let index = self.blocking(opening).await?;
        self.warn_of(&index);
        Ok(index)
    }

    /// Opens the index that lies in `DATA_DIR`, as it is served. Fetches nothing and writes nothing, also beside a running
    /// mirror. `None` if there is none.
    pub(super) async fn open_index_on_disk(&self) -> Result<Option<ServedIndex>, Failed> {
        let settings = served_index_settings(&self.config, Clock::system());
        self.blocking(move || {
            let source = open_current(&settings.data_dir)?;
            Ok(source.map(|source| ServedIndex::of(source, &settings)))
        })
        .await?
    }

    /// Does work that may block. A stop does not wait for its end.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failed> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Failed::incomplete("stopped")),
            done = tokio::task::spawn_blocking(work) => Ok(done?),
        }
    }

    /// Whether the settings make a policy.
    pub(super) fn has_policy(&self) -> bool {
        let settings = served_index_settings(&self.config, Clock::system());
        settings.rules.policy().is_some()
    }

    /// Whether the policy may deny crate files.
    pub(super) fn may_deny(&self) -> bool {
        served_index_settings(&self.config, Clock::system()).may_deny()
    }

    /// Warns of what makes the policy weaker than it is meant.
    pub(super) fn warn_of(&self, index: &ServedIndex) {
        for warning in index.warnings() {
            self.terminal.note(&format!("warning: {warning}"));
        }
    }

    /// Brings the advisory database up to date, if it counts. After a failure the last copy counts.
    async fn refresh_advisories(&self) -> Result<(), Failed> {
        let Some(settings) = advisory_refresh(&self.config, Clock::system()) else {
            return Ok(());
        };
        let refreshing = || refresh_copy_on_disk(settings);
        if let Err(why) = self.blocking(refreshing).await? {
            self.terminal.note(&format!("warning: {why}"));
        }
        Ok(())
    }

    async fn refresh_index(&self) -> Result<Arc<Source>, Failed> {
        let settings = follower_settings(&self.config, Clock::system());
        let handle = IndexHandle::new();
        let fetching = handle.clone();
        let refreshing = tokio::task::spawn_blocking(move || refresh_once(settings, &fetching));
        tokio::pin!(refreshing);
        let refreshed = loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(Failed::incomplete("stopped")),
                refreshed = &mut refreshing => break refreshed,
                () = tokio::time::sleep(LINE_EVERY) => self.terminal.note(&how_far(&handle)),
            }
        };
        let why = match refreshed {
            // This frees the data directory for others.
            Ok(Ok(index)) => return Ok(Arc::clone(&index.source)),
            Ok(Err(why)) => why,
            Err(panic) => RefreshOnceError::Failed(panic.to_string()),
        };
        let source = open_current(&self.config.data_dir)?;
        if source.is_some() && !matches!(why, RefreshOnceError::Locked) {
            let warning = format!("warning: {why}; going on with what is here");
            self.terminal.note(&warning);
        }
        source.ok_or_else(|| Failed::no_index(why))
    }

    /// Opens the store. Missing files are fetched from the upstreams, unless the settings forbid that.
    pub(super) fn open_crate_files(&self) -> Result<CrateFiles, Failed> {
        let clock = Clock::system();
        let sources = match self.config.download_mode {
            DownloadMode::Offline => None,
            DownloadMode::Redirect | DownloadMode::Cache => {
                Some(crate_sources(&self.config, &clock).map_err(Failed::incomplete)?)
            }
        };
        open_keeper(&self.config, &clock, sources).map_err(Failed::incomplete)
    }

    /// Opens the store for a subcommand that fetches nothing.
    pub(super) fn open_store(&self) -> Result<Arc<CrateStore>, Failed> {
        let opened = open_keeper(&self.config, &Clock::system(), None);
        let store = opened.map(|crate_files| Arc::clone(crate_files.store()));
        store.map_err(Failed::incomplete)
    }

    /// Warns if stored files may be gone when they are needed.
    pub(super) fn warn_of_a_store_that_forgets(&self) {
        let storage = &self.config.storage;
        if storage.is_memory() {
            self.terminal.note(
                "warning: STORAGE_URL is memory://, so what is stored now is gone when this command ends",
            );
        }
        if storage.is_disk() && self.config.storage_bytes_max.is_some() {
            self.terminal.note(
                "warning: STORAGE_MAX_BYTES is set, so what is stored now may push out what was stored before",
            );
        }
    }

    /// The outcome, or [`Outcome::Incomplete`] if files of this run were evicted before its end.
    pub(super) async fn check_evicted(
        &self,
        outcome: Outcome,
        store: &CrateStore,
        files: &[Checksum],
    ) -> Outcome {
        if store.counters.evicted.get() == 0 {
            return outcome;
        }
        let stored = match store.checksums().await {
            Ok(stored) => stored,
            Err(error) => {
                let why = format!("the store cannot be listed: {error}");
                self.terminal.note(&why);
                return Outcome::Incomplete;
            }
        };
        let gone = files.iter().filter(|checksum| !stored.contains(checksum));
        match u64::try_from(gone.count()).unwrap_or(u64::MAX) {
            0 => outcome,
            gone => {
                self.terminal.note(&format!(
                    "problem: {} files of this run were pushed out again: STORAGE_MAX_BYTES is too little for all of them",
                    HumanCount(gone)
                ));
                Outcome::Incomplete
            }
        }
    }
}

fn how_far(handle: &IndexHandle) -> String {
    let progress = handle.status().progress;
    format!(
        "bringing the index up to date: {} of {} objects",
        progress.received_objects, progress.total_objects
    )
}
