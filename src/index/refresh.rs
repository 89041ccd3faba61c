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

use super::clone_dir::{self, CloneDir, CloneRecord, DataDirError};
use super::fetch::{self, FetchError};
use super::force::RefreshOutcome;
use super::handle::IndexHandle;
use super::overlay;
use super::remote_url::RemoteUrl;
use super::repository::{ReadError, Repository};
use super::retry::{Repairs, backoff, jittered};
use super::served::{GitProgram, ServedIndex};
use super::snapshot::{CommitId, Snapshot};
use super::status::{Phase, ProgressCell};
use super::supervise::Transfers;
use super::upkeep::{self, Due, UpkeepError, UpkeepLimits};
use crate::clock::Clock;
use crate::memory::return_freed_blocks;

/// Failures that may be our clone's fault, in a row, after which the clone is replaced.
const LOCAL_FAILURES_MAX: u32 = 3;

/// How long to leave the clone as it is when it could not be made smaller.
const UPKEEP_PAUSE: Duration = Duration::from_secs(6 * 3_600);

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
    /// How to serve the index over git; `None` does not.
    pub(crate) git_index: Option<GitIndexSettings>,
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
    /// Not before then is the clone made smaller again.
    next_upkeep: Option<Instant>,
    transfers: Transfers,
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
pub(super) enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot use DATA_DIR: {0}")]
    Disk(#[from] io::Error),
    #[error("cannot use DATA_DIR: another mirror is using this DATA_DIR")]
    Held,
    #[error("the clone on disk is damaged: {0}")]
    Damaged(String),
}

impl From<DataDirError> for RefreshError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Held => Self::Held,
            DataDirError::Disk(error) => Self::Disk(error),
        }
    }
}

impl From<UpkeepError> for RefreshError {
    fn from(error: UpkeepError) -> Self {
        match error {
            UpkeepError::Disk(error) => Self::Disk(error),
            UpkeepError::Git(error) => Self::Damaged(error.message().to_owned()),
        }
    }
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
            next_upkeep: None,
            transfers: Transfers::default(),
        }
    }

    /// Serves what is on disk, then fetches again and again until told to stop.
    ///
    /// # Errors
    /// Only if a thread of it panicked, which must end the process.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), JoinError> {
        let handle = self.handle.clone();
        let mut refresher = self;
        let _until_the_end = ForbidOnDrop(&handle);
        loop {
            let mut work = tokio::task::spawn_blocking(move || {
                let pause = refresher.step();
                (refresher, pause)
            });
            let pause;
            tokio::select! {
                done = &mut work => (refresher, pause) = done?,
                () = stop.cancelled() => {
                    handle.forced().forbid();
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
                () = handle.forced().wanted() => {}
                () = stop.cancelled() => {
                    handle.enter(Phase::Stopped);
                    return Ok(());
                }
            }
        }
    }

    /// One try, for whoever does not go on.
    pub(super) fn refresh_once(&mut self) -> Result<(), RefreshError> {
        if let Refreshed::Fetched = self.refresh()? {
            self.handle.succeeded(self.settings.clock.now());
            self.keep_up();
        }
        self.drop_retired();
        Ok(())
    }

    /// One try. Returns the pause before the next one; `None` waits until there is a reason.
    pub(super) fn step(&mut self) -> Option<Duration> {
        // Whatever is fetched in this step is fetched from now on.
        let wanted = self.handle.forced().begin();
        let tried = self.refresh();
        let outcome = match &tried {
            Ok(Refreshed::Fetched) => RefreshOutcome::Fetched,
            Ok(Refreshed::NotWanted) => RefreshOutcome::NotNow,
            Err(_) => RefreshOutcome::Failed,
        };
        if let Some(wanted) = wanted {
            wanted.end(outcome);
        }
        if outcome == RefreshOutcome::Fetched && self.settings.interval.is_some() {
            self.handle.forced().allow();
        } else {
            // After a failure the other side must not be asked all the time.
            self.handle.forced().forbid();
        }
        self.follow_up(tried)
    }

    /// Draws the consequences of a try: what to say of it, and when to try again.
    fn follow_up(&mut self, tried: Result<Refreshed, RefreshError>) -> Option<Duration> {
        match tried {
            Ok(refreshed) => {
                self.local_failures = 0;
                if let Refreshed::Fetched = refreshed {
                    self.handle.succeeded(self.settings.clock.now());
                    self.keep_up();
                }
                self.handle.enter(Phase::Idle);
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
        // Before the check, which for a while allows no other step.
        let now = Instant::now();
        let replace = self.local_failures >= LOCAL_FAILURES_MAX && self.repairs.allowed(now);
        self.check_current();
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
        if !repository.is_suspect() || !self.repairs.allowed(now) {
            return;
        }
        self.repairs.note_check(now);
        if repository.confirm_damage() {
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
        } else {
            self.repair_git_index(repository, snapshot.commit());
        }
        // The time of this success would be lost in a restart; nothing else is.
        if let Err(error) = clone_dir::write_record(repository.path(), &self.record()) {
            tracing::warn!(error = %error, "the time of this fetch could not be written to DATA_DIR");
        }
        Ok(())
    }

    /// Makes the clone smaller if it has become too large. Without success it stays as it is, and works as before.
    fn keep_up(&mut self) {
        let Some(repository) = self.current.clone() else {
            return;
        };
        let now = Instant::now();
        if self.next_upkeep.is_some_and(|next| now < next) || self.transfers.may_still_write() {
            return;
        }
        let done = match upkeep::due(repository.path(), &self.settings.upkeep) {
            Ok(Due::Nothing) => return,
            Ok(Due::RollUp) => match self.roll_up(&repository) {
                // Something in it cannot be read, perhaps something that only git clients would miss. Packs must not grow
                // for ever because of it.
                Err(RefreshError::Damaged(why)) if self.repairs.allowed(now) => {
                    self.repairs.note(now);
                    tracing::warn!(
                        error = why,
                        "small packs could not be rolled up; the clone will be replaced"
                    );
                    self.clone_anew()
                }
                other => other,
            },
            Ok(Due::Renewal) => self.clone_anew(),
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) | Err(RefreshError::Fetch(FetchError::Stopped)) => {}
            Err(error) => {
                self.next_upkeep = now.checked_add(UPKEEP_PAUSE);
                tracing::warn!(error = %error, "the clone could not be made smaller; this is tried again later");
            }
        }
    }

    fn roll_up(&mut self, repository: &Arc<Repository>) -> Result<(), RefreshError> {
        let Some(path) = self.clones.as_mut().map(CloneDir::next).transpose()? else {
            return Ok(());
        };
        let progress = self.handle.begin(Phase::Maintaining);
        let rolled_up = upkeep::roll_up(repository.path(), &path, &progress);
        // Being stopped may have been the reason for an error, and is no reason for a warning.
        let rolled_up = if progress.is_stopped() {
            Err(FetchError::Stopped.into())
        } else {
            rolled_up.map_err(RefreshError::from)
        };
        self.replace_by(&path, rolled_up, "small packs were rolled up")
    }

    /// Runs a clone or a fetch. One that hangs is left behind.
    fn transfer(
        &mut self,
        phase: Phase,
        transfer: impl FnOnce(&ProgressCell) -> Result<(), FetchError> + Send + 'static,
    ) -> Result<(), FetchError> {
        self.transfers.make_room()?;
        let progress = self.handle.begin(phase);
        self.transfers
            .run(&progress, self.settings.url.is_local(), transfer)
    }

    pub(super) fn clone_anew(&mut self) -> Result<(), RefreshError> {
        let Some(path) = self.clones.as_mut().map(CloneDir::next).transpose()? else {
            return Ok(());
        };
        tracing::info!(index.upstream = %self.settings.url, "cloning the index");
        let (target, url) = (path.clone(), self.settings.url.clone());
        let cloned = self
            .transfer(Phase::Cloning, move |progress| {
                fetch::clone(&target, &url, progress)
            })
            .map_err(RefreshError::from);
        self.replace_by(&path, cloned, "serving the index")
    }

    /// Puts a new clone in the place of the current one, if it came out well.
    fn replace_by(
        &mut self,
        path: &Path,
        made: Result<(), RefreshError>,
        message: &str,
    ) -> Result<(), RefreshError> {
        match made.and_then(|()| self.take_over(path)) {
            Ok((repository, snapshot)) => {
                self.retired.extend(self.current.take());
                self.publish(repository, snapshot, message);
                return_freed_blocks();
                Ok(())
            }
            Err(error) => {
                // A half-written clone is of no use, and a full disk needs the room, also that of a damaged one.
                self.sweep();
                Err(error)
            }
        }
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
        let served = self.serve_by_git(&repository, snapshot.commit());
        self.current = Some(repository);
        self.handle.publish(Arc::new(snapshot), served);
    }

    /// Makes the git index anew if it is not what it was, for example because it was damaged or could not be made before.
    fn repair_git_index(&mut self, repository: &Arc<Repository>, commit: CommitId) {
        let tip = |served: &Option<Arc<ServedIndex>>| served.as_ref().map(|served| served.tip());
        let served = self.serve_by_git(repository, commit);
        if tip(&served) != tip(&self.handle.served()) {
            self.handle.serve(served);
        }
    }

    /// Makes the git index show what the snapshot shows. If that fails the one before stays: it is whole, and late.
    fn serve_by_git(
        &mut self,
        repository: &Arc<Repository>,
        commit: CommitId,
    ) -> Option<Arc<ServedIndex>> {
        let settings = self.settings.git_index.clone()?;
        let now = Instant::now();
        let is_damaged = self
            .handle
            .served()
            .is_some_and(|served| served.is_damaged());
        if is_damaged && self.repairs.allowed(now) {
            self.repairs.note(now);
            tracing::warn!("git cannot read the git index, which is made anew");
            // What cannot be removed cannot be read either, and is seen below.
            let _removed = overlay::remove(repository.path());
        }
        match overlay::bring_up_to_date(repository.path(), commit, &settings.config) {
            Ok(tip) => Some(Arc::new(ServedIndex::new(
                commit,
                tip,
                Arc::clone(repository),
                settings.program,
            ))),
            Err(error) => {
                tracing::warn!(error = %error, "the git index could not be brought up to date");
                self.handle.served()
            }
        }
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

/// Tells whoever waits for a fetch that none will come any more, however the background task ends.
struct ForbidOnDrop<'a>(&'a IndexHandle);

impl Drop for ForbidOnDrop<'_> {
    fn drop(&mut self) {
        self.0.forced().forbid();
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

#[cfg(test)]
mod tests {
    use super::super::testing::TestIndex;
    use super::*;

    /// A background task, as a mirror has it.
    struct Running {
        handle: IndexHandle,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<Result<(), JoinError>>,
    }

    impl Running {
        fn start(settings: RefresherSettings) -> Self {
            let handle = IndexHandle::new();
            let stop = CancellationToken::new();
            let task = tokio::spawn(Refresher::new(settings, handle.clone()).run(stop.clone()));
            Self { handle, stop, task }
        }

        /// The first answer other than that nothing will come, which is what there is to say before the first snapshot.
        async fn refresh(&self) -> RefreshOutcome {
            loop {
                match self.handle.refresh_now().await {
                    RefreshOutcome::NotNow => tokio::task::yield_now().await,
                    outcome => return outcome,
                }
            }
        }

        async fn phase(&self, phase: Phase) {
            while self.handle.status().phase != phase {
                tokio::task::yield_now().await;
            }
        }

        async fn end(self) -> IndexHandle {
            self.stop.cancel();
            self.task.await.unwrap().unwrap();
            self.handle
        }
    }

    fn settings_of(index: &TestIndex) -> RefresherSettings {
        RefresherSettings {
            // Nothing but what is asked for.
            interval: Some(Duration::from_secs(86_400)),
            ..index.settings()
        }
    }

    #[tokio::test]
    async fn who_asks_for_a_fetch_finds_what_was_published_before() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let running = Running::start(settings_of(&index));
        assert_eq!(running.refresh().await, RefreshOutcome::Fetched);
        let commit = index.commit(&[("1/a", "new")]);
        let asked = tokio::join!(running.handle.refresh_now(), running.handle.refresh_now());
        assert_eq!(asked, (RefreshOutcome::Fetched, RefreshOutcome::Fetched));
        let snapshot = running.handle.snapshot().unwrap();
        assert_eq!(snapshot.commit().to_string(), commit);
        let handle = running.end().await;
        assert_eq!(handle.refresh_now().await, RefreshOutcome::NotNow);
    }

    #[tokio::test]
    async fn after_a_failure_no_fetch_is_forced() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let running = Running::start(settings_of(&index));
        assert_eq!(running.refresh().await, RefreshOutcome::Fetched);
        index.remove_upstream();
        assert_eq!(running.handle.refresh_now().await, RefreshOutcome::Failed);
        running.phase(Phase::Retrying).await;
        assert_eq!(running.handle.refresh_now().await, RefreshOutcome::NotNow);
        running.end().await;
    }

    #[tokio::test]
    async fn where_nothing_is_ever_fetched_no_fetch_is_forced() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let running = Running::start(RefresherSettings {
            interval: None,
            ..index.settings()
        });
        running.phase(Phase::Idle).await;
        assert_eq!(running.handle.refresh_now().await, RefreshOutcome::NotNow);
        running.end().await;
    }

    #[tokio::test]
    async fn who_waits_when_the_task_is_dropped_is_told_so() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let running = Running::start(settings_of(&index));
        assert_eq!(running.refresh().await, RefreshOutcome::Fetched);
        running.phase(Phase::Idle).await;
        running.task.abort();
        // Asked before the task has noticed, on a runtime with one thread.
        assert_eq!(running.handle.refresh_now().await, RefreshOutcome::NotNow);
    }
}
