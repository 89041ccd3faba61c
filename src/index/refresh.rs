//! The background task that keeps the clone fresh and publishes snapshots.
//!
//! It owns everything that changes the clone. Each try runs on a blocking thread; the async side only waits, so a fetch
//! that hangs never holds up serving.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::clone_dir::{self, CloneDir, CloneRecord};
use super::fetch::{self, FetchError, LeftBehind};
use super::handle::IndexHandle;
use super::remote_url::RemoteUrl;
use super::repository::{ReadError, Repository};
use super::snapshot::Snapshot;
use super::status::{Phase, ProgressCell};
use crate::clock::Clock;

/// The pause after a first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest pause after failures, unless the ordinary one is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Failures that may be our clone's fault, in a row, after which the clone is replaced.
const LOCAL_FAILURES_MAX: u32 = 3;

/// The pause between two replacements of damaged clones; it doubles with each further one. A blob that the upstream
/// itself does not have must not lead to one clone after the other.
const REPAIR_PAUSE_FIRST: Duration = Duration::from_secs(60);

/// The longest such pause. After a quiet time of this length the next one is the first again.
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// Transfers that were left behind and still wait for the other side. With so many there are no new ones.
const LEFT_BEHIND_MAX: usize = 2;

/// How soon to look again for requests that still read from a replaced clone, where nothing else would.
const RETIRED_PAUSE: Duration = Duration::from_secs(60);

/// What the background task needs to know.
#[derive(Clone, Debug)]
pub(crate) struct RefresherSettings {
    /// The index to follow.
    pub(crate) url: RemoteUrl,
    /// Where the clone lies.
    pub(crate) data_dir: PathBuf,
    /// The pause between fetches; `None` never fetches after the first clone.
    pub(crate) interval: Option<Duration>,
    /// Tells the time of a success.
    pub(crate) clock: Clock,
}

/// The owner of the clone.
#[derive(Debug)]
pub(crate) struct Refresher {
    settings: RefresherSettings,
    handle: IndexHandle,
    clones: Option<CloneDir>,
    current: Option<Arc<Repository>>,
    /// Replaced clones that a request may still be reading from.
    retired: Vec<Arc<Repository>>,
    /// Failures in a row that may be the clone's fault.
    local_failures: u32,
    repairs: Repairs,
    left_behind: Vec<LeftBehind>,
}

/// What a try without a failure did.
enum Refreshed {
    /// The clone is as new as the upstream.
    Fetched,
    /// There is a clone, and the settings say that it shall stay as it is.
    NotWanted,
}

/// Why a try brought no snapshot.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot use DATA_DIR: {0}")]
    Disk(#[from] io::Error),
    #[error("the clone on disk is damaged: {0}")]
    Damaged(String),
}

impl From<ReadError> for RefreshError {
    fn from(error: ReadError) -> Self {
        Self::Damaged(
            std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string),
        )
    }
}

impl Refresher {
    /// A refresher that publishes through `handle`. Touches nothing until it runs.
    pub(crate) fn new(settings: RefresherSettings, handle: IndexHandle) -> Self {
        Self {
            settings,
            handle,
            clones: None,
            current: None,
            retired: Vec::new(),
            local_failures: 0,
            repairs: Repairs::default(),
            left_behind: Vec::new(),
        }
    }

    /// Serves what is on disk, then fetches again and again until told to stop.
    ///
    /// # Errors
    /// Only if a thread of it panicked, which must end the process.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), JoinError> {
        let handle = self.handle.clone();
        let mut refresher = self;
        loop {
            let mut work = tokio::task::spawn_blocking(move || {
                let pause = refresher.step();
                (refresher, pause)
            });
            let pause;
            tokio::select! {
                done = &mut work => (refresher, pause) = done?,
                () = stop.cancelled() => {
                    handle.stop();
                    work.await?;
                    handle.enter(Phase::Stopped);
                    return Ok(());
                }
            }
            // After a failure the pause stands whatever is reported: the other side must not be asked all the time.
            let may_repair = handle.status().failures == 0;
            let repair = async {
                tokio::time::sleep(refresher.repairs.wait(Instant::now())).await;
                handle.damage_reported().await;
            };
            tokio::select! {
                () = wait(pause) => {}
                () = repair, if may_repair => {}
                () = stop.cancelled() => {
                    handle.enter(Phase::Stopped);
                    return Ok(());
                }
            }
        }
    }

    /// One try. Returns the pause before the next one; `None` waits until there is a reason.
    pub(super) fn step(&mut self) -> Option<Duration> {
        match self.refresh() {
            Ok(refreshed) => {
                self.local_failures = 0;
                match refreshed {
                    Refreshed::Fetched => self.handle.succeeded(self.settings.clock.now()),
                    Refreshed::NotWanted => self.handle.enter(Phase::Idle),
                }
                self.drop_retired();
                let look_again = (!self.retired.is_empty()).then_some(RETIRED_PAUSE);
                self.settings.interval.map(jittered).or(look_again)
            }
            Err(RefreshError::Fetch(FetchError::Stopped)) => None,
            Err(error) => {
                let failures = self.handle.failed(error.to_string());
                let pause = backoff(failures, self.settings.interval.unwrap_or_default());
                let meanwhile = match self.handle.snapshot() {
                    Some(_) => "the last copy of the index stays in use",
                    None => {
                        "redirects to crate files work, look-ups answer 503 until a clone succeeds"
                    }
                };
                tracing::warn!(
                    index.upstream = %self.settings.url,
                    index.failures = failures,
                    retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    error = %error,
                    "the index could not be fetched; {meanwhile}"
                );
                Some(pause)
            }
        }
    }

    fn refresh(&mut self) -> Result<Refreshed, RefreshError> {
        self.open_data_dir()?;
        self.check_current();
        let now = Instant::now();
        let replace = self.local_failures >= LOCAL_FAILURES_MAX && self.repairs.allowed(now);
        match self.current.clone() {
            Some(_) if self.settings.interval.is_none() => return Ok(Refreshed::NotWanted),
            Some(repository) if !replace => self.fetch(&repository)?,
            current => {
                if current.is_some() {
                    self.repairs.note(now);
                    self.local_failures = 0;
                }
                self.clone_anew()?;
            }
        }
        Ok(Refreshed::Fetched)
    }

    /// Takes possession of the data directory and serves the clone that lies there. Does nothing the second time, unless
    /// somebody has removed the directory.
    fn open_data_dir(&mut self) -> Result<(), RefreshError> {
        if let Some(clones) = &self.clones {
            if clones.still_exists() {
                return Ok(());
            }
            tracing::warn!("the index directory in DATA_DIR has vanished and is made anew");
            self.clones = None;
            self.retired.extend(self.current.take());
        }
        let clones = CloneDir::open(&self.settings.data_dir)?;
        if let Some(path) = clones.current() {
            match self.open_clone(&path) {
                Ok(true) => {}
                Ok(false) => tracing::info!(
                    index.upstream = %self.settings.url,
                    "the clone on disk is of another index and will be replaced"
                ),
                Err(error) => {
                    tracing::warn!(error = %error, "the clone on disk is set aside and will be replaced");
                    if let Err(error) = clones.set_aside(&path) {
                        tracing::warn!(error = %error, "the damaged clone could not be set aside");
                    }
                }
            }
        }
        let keep: Vec<&Path> = self
            .current
            .iter()
            .map(|repository| repository.path())
            .collect();
        warn_if_left(clones.sweep_leftovers(&keep));
        self.clones = Some(clones);
        Ok(())
    }

    /// Publishes the clone at `path`; says `false` for one of another index.
    fn open_clone(&mut self, path: &Path) -> Result<bool, RefreshError> {
        let record = clone_dir::read_record(path).map_err(|error| {
            RefreshError::Damaged(format!("its record cannot be read: {error}"))
        })?;
        if !record.is_of(&self.settings.url) {
            return Ok(false);
        }
        clone_dir::tidy(path).map_err(|error| RefreshError::Damaged(error.to_string()))?;
        let repository = Arc::new(Repository::open(path)?);
        let snapshot = Snapshot::read(&repository, None)?;
        self.handle.remember_success(record.last_success());
        self.publish(repository, snapshot, "serving the index found on disk");
        Ok(true)
    }

    /// Drops the current clone if a read from it failed and fails again. Its snapshot stays in use until a new one is
    /// there: what can be read from it is right.
    fn check_current(&mut self) {
        let Some(repository) = self.current.clone() else {
            return;
        };
        let now = Instant::now();
        if repository.is_suspect() && self.repairs.allowed(now) && repository.confirm_damage() {
            self.repairs.note(now);
            tracing::warn!("the clone on disk is damaged and will be replaced");
            self.current = None;
            self.retired.push(repository);
        }
    }

    fn fetch(&mut self, repository: &Arc<Repository>) -> Result<(), RefreshError> {
        let (path, url) = (repository.path().to_owned(), self.settings.url.clone());
        let fetched = self.transfer(Phase::Fetching, move |progress| {
            fetch::fetch(&path, &url, progress)
        });
        match &fetched {
            Err(FetchError::Local(_)) => {
                self.local_failures += 1;
                repository.suspect();
            }
            _ => self.local_failures = 0,
        }
        fetched?;
        let previous = self.handle.snapshot();
        let snapshot = Snapshot::read(repository, previous.as_deref())?;
        repository.close_idle_handles();
        if previous.is_none_or(|previous| previous.commit() != snapshot.commit()) {
            self.publish(Arc::clone(repository), snapshot, "the index has changed");
        }
        // The time of this success would be lost in a restart; nothing else is.
        if let Err(error) = clone_dir::write_record(repository.path(), &self.record()) {
            tracing::warn!(error = %error, "the time of this fetch could not be written to DATA_DIR");
        }
        Ok(())
    }

    /// Runs a clone or a fetch. One that hangs is left behind.
    fn transfer(
        &mut self,
        phase: Phase,
        transfer: impl FnOnce(&ProgressCell) -> Result<(), FetchError> + Send + 'static,
    ) -> Result<(), FetchError> {
        self.left_behind.retain(|thread| !thread.is_finished());
        if self.left_behind.len() >= LEFT_BEHIND_MAX {
            let why = "earlier tries still wait for the other side, which sends next to nothing";
            return Err(FetchError::Upstream(why.to_owned()));
        }
        let progress = self.handle.begin(phase);
        let (result, left_behind) = fetch::supervise(&progress, fetch::PREPARATION_MAX, transfer);
        self.left_behind.extend(left_behind);
        result
    }

    fn clone_anew(&mut self) -> Result<(), RefreshError> {
        let Some(path) = self.clones.as_ref().map(CloneDir::next).transpose()? else {
            return Ok(());
        };
        tracing::info!(index.upstream = %self.settings.url, "cloning the index");
        let (target, url) = (path.clone(), self.settings.url.clone());
        let cloned = self
            .transfer(Phase::Cloning, move |progress| {
                fetch::clone(&target, &url, progress)
            })
            .map_err(RefreshError::from)
            .and_then(|()| self.take_over(&path));
        let (repository, snapshot) = match cloned {
            Ok(cloned) => cloned,
            Err(error) => {
                // A half-written clone is of no use, and a full disk needs the room, also that of a damaged one.
                self.sweep();
                return Err(error);
            }
        };
        self.retired.extend(self.current.take());
        self.publish(repository, snapshot, "serving the index");
        Ok(())
    }

    /// Makes a complete clone the one in use.
    fn take_over(&self, path: &Path) -> Result<(Arc<Repository>, Snapshot), RefreshError> {
        let repository = Arc::new(Repository::open(path)?);
        let snapshot = Snapshot::read(&repository, self.handle.snapshot().as_deref())?;
        clone_dir::write_record(path, &self.record())?;
        if let Some(clones) = &self.clones {
            clones.activate(path)?;
        }
        Ok((repository, snapshot))
    }

    fn publish(&mut self, repository: Arc<Repository>, snapshot: Snapshot, message: &str) {
        tracing::info!(index.commit = %snapshot.commit(), index.crates = snapshot.crate_count(), "{message}");
        self.current = Some(repository);
        self.handle.publish(Arc::new(snapshot));
    }

    /// Removes replaced clones that no request reads from any more, and whatever a crash left.
    fn drop_retired(&mut self) {
        self.retired
            .retain(|repository| Arc::strong_count(repository) > 1);
        self.sweep();
    }

    /// Removes every clone that is not in use.
    fn sweep(&self) {
        let keep: Vec<&Path> = self.in_use().map(|repository| repository.path()).collect();
        if let Some(clones) = &self.clones {
            warn_if_left(clones.sweep(&keep));
        }
    }

    fn in_use(&self) -> impl Iterator<Item = &Arc<Repository>> {
        self.current.iter().chain(&self.retired)
    }

    fn record(&self) -> CloneRecord {
        CloneRecord::new(&self.settings.url, self.settings.clock.now())
    }
}

/// When damaged clones were replaced, so that it does not happen all the time.
#[derive(Debug, Default)]
struct Repairs {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Repairs {
    fn allowed(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    /// How long until the next one is allowed.
    fn wait(&self, now: Instant) -> Duration {
        let since = |last| self.pause().saturating_sub(now.duration_since(last));
        self.last.map_or(Duration::ZERO, since)
    }

    fn note(&mut self, now: Instant) {
        let quiet = self
            .last
            .is_none_or(|last| now.duration_since(last) > REPAIR_PAUSE_MAX);
        self.in_a_row = if quiet {
            1
        } else {
            self.in_a_row.saturating_add(1)
        };
        self.last = Some(now);
    }

    fn pause(&self) -> Duration {
        doubled(REPAIR_PAUSE_FIRST, self.in_a_row).min(REPAIR_PAUSE_MAX)
    }
}

/// What cannot be removed costs room, and nothing else.
fn warn_if_left(swept: io::Result<()>) {
    if let Err(error) = swept {
        tracing::warn!(error = %error, "an old clone could not be removed");
    }
}

/// Waits for so long, or for ever.
async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// The pause after so many failures in a row.
fn backoff(failures: u32, interval: Duration) -> Duration {
    jittered(doubled(BACKOFF_FIRST, failures).min(BACKOFF_MAX.max(interval)))
}

/// The first pause once, then twice that, and so on.
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(
        1_u32
            .checked_shl(times.saturating_sub(1))
            .unwrap_or(u32::MAX),
    )
}

/// A tenth more or less, so that mirrors started together do not stay together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_clones_are_replaced_at_once_but_not_all_the_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut repairs = Repairs::default();
        assert!(repairs.allowed(start));
        repairs.note(start);
        assert!(!repairs.allowed(after(59)) && repairs.allowed(after(60)));
        repairs.note(after(60));
        assert!(!repairs.allowed(after(60 + 119)) && repairs.allowed(after(60 + 120)));
        repairs.note(after(10_000));
        assert!(
            repairs.allowed(after(10_060)),
            "after a quiet time the pause is short again"
        );
    }

    #[test]
    fn pauses_double_up_to_a_minute_or_the_interval() {
        let about = |pause: Duration, seconds: u64| {
            let exact = Duration::from_secs(seconds).as_secs_f64();
            (0.89 * exact..=1.11 * exact).contains(&pause.as_secs_f64())
        };
        for (failures, interval, seconds) in [
            (1, 60, 1),
            (2, 60, 2),
            (5, 60, 16),
            (7, 60, 60),
            (40, 60, 60),
            (u32::MAX, 1, 60),
            (u32::MAX, 600, 600),
        ] {
            let pause = backoff(failures, Duration::from_secs(interval));
            assert!(about(pause, seconds), "{failures} failures: {pause:?}");
        }
    }
}
