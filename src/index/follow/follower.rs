//! The background task that keeps the clone fresh and publishes snapshots.
//!
//! It owns everything that changes the clone. Each try runs on a blocking thread; the async side only waits, so a fetch
//! that hangs never holds up serving.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::clones::warn_if_left;
use super::error::RefreshError;
use super::holdings::HoldingsState;
use super::on_demand::RefreshOutcome;
use super::retry::{Repairs, backoff, jittered};
use super::settings::RefresherSettings;
use crate::index::git::damage::Looks;
use crate::index::git::overlay;
use crate::index::handle::IndexHandle;
use crate::index::source::answer_head::pause_of;
use crate::index::source::clone_dir::{self, Access, CloneDir, CloneRecord};
use crate::index::source::fetch::{self, FetchError, Outgoing};
use crate::index::source::local_upstream;
use crate::index::source::repository::Repository;
use crate::index::source::transfers::Transfers;
use crate::index::status::{Phase, ProgressCell};
use crate::index::view::large_files::LargeFiles;
use crate::package::Checksum;

/// Failures that may be our clone's fault, in a row, after which the clone is replaced.
const LOCAL_FAILURES_MAX: u32 = 3;

/// How soon to look again where there are no fetches: for requests that still read from a replaced clone, and for what an
/// import has brought.
const LOOK_PAUSE: Duration = Duration::from_secs(60);

/// The owner of the clone.
#[derive(Debug)]
pub(crate) struct Refresher {
    pub(crate) settings: RefresherSettings,
    pub(crate) handle: IndexHandle,
    pub(crate) clones: Option<CloneDir>,
    pub(crate) current: Option<Arc<Repository>>,
    /// Replaced clones that a request may still be reading from.
    pub(crate) retired: Vec<Arc<Repository>>,
    /// Failures in a row that may be the clone's fault.
    local_failures: u32,
    /// Of the clone.
    pub(crate) repairs: Repairs,
    /// Of the git index, which is a matter of its own: clients can ask for looks at it.
    pub(crate) git_repairs: Repairs,
    pub(crate) looks: Looks,
    pub(crate) large_files: LargeFiles,
    pub(crate) holdings: HoldingsState,
    /// What is held, where that was asked before the data directory was.
    pub(crate) held_now: Option<Result<HashSet<Checksum>, RefreshError>>,
    /// Not before then is the clone made smaller again.
    pub(crate) next_upkeep: Option<Instant>,
    pub(crate) transfers: Transfers,
    /// Since when another process has the data directory.
    held_since: Option<Instant>,
    /// Why there is no point in trying again.
    hopeless: Option<String>,
}

/// How the background task ended, if it was not told to stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefresherEnd {
    /// One of its threads panicked.
    #[error(transparent)]
    Broken(#[from] JoinError),
    /// There is no index, and nothing that the mirror does could change that.
    #[error("{0}")]
    Hopeless(String),
}

/// What a try without a failure did.
pub(crate) enum Refreshed {
    /// The clone is as new as the upstream.
    Fetched,
    /// There is a clone, and the settings say that the upstream is not asked.
    NotAsked,
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
            git_repairs: Repairs::default(),
            looks: Looks::default(),
            large_files: LargeFiles::default(),
            holdings: HoldingsState::default(),
            held_now: None,
            next_upkeep: None,
            transfers: Transfers::default(),
            held_since: None,
            hopeless: None,
        }
    }

    /// Serves what is on disk, then fetches again and again until told to stop.
    ///
    /// # Errors
    /// [`RefresherEnd`], which must end the process.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), RefresherEnd> {
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
            if let Some(why) = refresher.hopeless.take() {
                return Err(RefresherEnd::Hopeless(why));
            }
            let mut pause = pin!(wait(pause));
            loop {
                // After a failure the pause stands whatever is reported: the other side must not be asked all the time.
                let may_repair = handle.status().failures == 0;
                let repair = async {
                    tokio::time::sleep(refresher.repairs.wait(Instant::now())).await;
                    handle.damage_reported().await;
                };
                let look = async {
                    tokio::time::sleep(refresher.looks.wait(Instant::now())).await;
                    handle.look_asked_for().await;
                };
                tokio::select! {
                    () = &mut pause => break,
                    () = repair, if may_repair => break,
                    () = handle.forced().wanted() => break,
                    // A look asks nobody else, and the pause goes on.
                    () = look => {}
                    () = stop.cancelled() => {
                        handle.enter(Phase::Stopped);
                        return Ok(());
                    }
                }
                let mut look = tokio::task::spawn_blocking(move || {
                    refresher.look_at_git_index();
                    refresher
                });
                tokio::select! {
                    done = &mut look => refresher = done?,
                    () = stop.cancelled() => {
                        handle.stop();
                        look.await?;
                        handle.enter(Phase::Stopped);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One try, for whoever does not go on.
    pub(crate) fn refresh_once(&mut self) -> Result<(), RefreshError> {
        self.refresh()?;
        self.after_success();
        Ok(())
    }

    fn after_success(&mut self) {
        self.keep_up();
        self.drop_retired();
    }

    /// One try. Returns the pause before the next one; `None` waits until there is a reason.
    pub(crate) fn step(&mut self) -> Option<Duration> {
        // Whatever is fetched in this step is fetched from now on.
        let wanted = self.handle.forced().begin();
        let tried = self.refresh();
        let outcome = match &tried {
            Ok(Refreshed::Fetched) => RefreshOutcome::Fetched,
            Ok(Refreshed::NotAsked) => RefreshOutcome::NotNow,
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
        let pause = self.follow_up(tried);
        if !self.settings.may_fetch() {
            // Between two looks somebody may import.
            self.clones = None;
        }
        pause
    }

    /// Draws the consequences of a try: what to say of it, and when to try again.
    fn follow_up(&mut self, tried: Result<Refreshed, RefreshError>) -> Option<Duration> {
        match tried {
            Ok(refreshed) => {
                self.local_failures = 0;
                self.held_since = None;
                match refreshed {
                    Refreshed::Fetched => self.handle.succeeded(self.settings.clock.now()),
                    Refreshed::NotAsked => self.handle.recovered(),
                }
                self.after_success();
                self.handle.enter(Phase::Idle);
                let others = !self.retired.is_empty()
                    || !self.settings.may_fetch()
                    || self.settings.held.is_some();
                let look_again = others.then_some(LOOK_PAUSE);
                self.settings.interval.or(look_again).map(jittered)
            }
            Err(RefreshError::Fetch(FetchError::Stopped)) => None,
            Err(error) if !self.settings.may_fetch() => Some(self.note_offline_failure(&error)),
            Err(error) => {
                let failures = self.handle.failed(&error);
                if self.is_hopeless(&error) {
                    self.hopeless = Some(error.to_string());
                    return None;
                }
                let pause = match &error {
                    // The other one may be about to stop.
                    RefreshError::Held => backoff(1, Duration::ZERO),
                    _ => backoff(failures, self.settings.interval.unwrap_or_default()),
                };
                let pause = pause.max(self.asked_pause(&error));
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

    /// How long the other side wants to be left alone.
    fn asked_pause(&self, error: &RefreshError) -> Duration {
        match error {
            RefreshError::Fetch(FetchError::Busy { retry_after, .. }) => {
                pause_of(retry_after, self.settings.clock.now()).unwrap_or_default()
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether there is no index to serve, and trying again would not bring one.
    fn is_hopeless(&mut self, error: &RefreshError) -> bool {
        let waited_for_lock = match error {
            RefreshError::Held => {
                let since = *self.held_since.get_or_insert_with(Instant::now);
                since.elapsed() >= self.settings.lock_wait_max
            }
            _ => {
                self.held_since = None;
                true
            }
        };
        let may_end = matches!(
            error,
            RefreshError::Held | RefreshError::Upstream(_) | RefreshError::Disk(_)
        );
        may_end && error.is_lasting() && waited_for_lock && self.handle.snapshot().is_none()
    }

    fn refresh(&mut self) -> Result<Refreshed, RefreshError> {
        if !self.settings.may_fetch() {
            self.follow_disk()?;
            return Ok(Refreshed::NotAsked);
        }
        self.open_data_dir()?;
        // Before the check, which for a while allows no other step.
        let now = Instant::now();
        let replace = self.local_failures >= LOCAL_FAILURES_MAX && self.repairs.allowed(now);
        self.check_current();
        match self.current.clone() {
            Some(_) if self.settings.interval.is_none() => {
                self.follow_holdings()?;
                return Ok(Refreshed::NotAsked);
            }
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
                    "the clone on disk is of another index; it is not served, and goes when this one has been cloned"
                ),
                Err(error @ (RefreshError::Damaged(_) | RefreshError::Refused(_))) => {
                    tracing::warn!(error = %error, "the clone on disk is set aside and will be replaced");
                    if let Err(error) = clones.set_aside(&path) {
                        tracing::warn!(error = %error, "the damaged clone could not be set aside");
                    }
                }
                // That is not the clone's fault.
                Err(error) => return Err(error),
            }
        }
        let current = self.current.iter().map(|current| current.path().to_owned());
        let keep: Vec<PathBuf> = current.chain(self.irreplaceable(&clones)).collect();
        warn_if_left(
            clones.sweep_leftovers(&keep.iter().map(PathBuf::as_path).collect::<Vec<_>>()),
        );
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
        self.serve_clone(path, record.last_success())?;
        Ok(true)
    }

    /// Publishes the clone at `path`, which was brought up to date then.
    pub(crate) fn serve_clone(
        &mut self,
        path: &Path,
        last_success: Option<SystemTime>,
    ) -> Result<(), RefreshError> {
        clone_dir::tidy(path)
            .and_then(|()| clone_dir::disarm(path))
            .and_then(|()| overlay::disarm(path))
            .map_err(|error| RefreshError::Damaged(error.to_string()))?;
        self.serve(Repository::open(path, Access::Full)?, last_success)
    }

    /// Publishes a repository, which was brought up to date then.
    pub(crate) fn serve(
        &mut self,
        repository: Repository,
        last_success: Option<SystemTime>,
    ) -> Result<(), RefreshError> {
        let repository = Arc::new(repository);
        let snapshot = self.view(&repository)?;
        self.handle.remember_success(last_success);
        self.retired.extend(self.current.take());
        self.publish(repository, snapshot, "serving the index found on disk");
        Ok(())
    }

    /// Drops the current clone if a read from it failed and fails again. Its snapshot stays in use until a new one is
    /// there: what can be read from it is right.
    fn check_current(&mut self) {
        if let Some(repository) = self.damaged_clone() {
            tracing::warn!("the clone on disk is damaged and will be replaced");
            self.current = None;
            self.retired.push(repository);
        }
    }

    /// The current clone, if a read from it failed and fails again.
    pub(crate) fn damaged_clone(&mut self) -> Option<Arc<Repository>> {
        let repository = self.current.clone()?;
        let now = Instant::now();
        if !repository.is_suspect() || !self.repairs.allowed(now) {
            return None;
        }
        self.repairs.note_check(now);
        let damaged = repository.confirm_damage(self.handle.stopping());
        if damaged {
            self.repairs.note(now);
        }
        damaged.then_some(repository)
    }

    fn fetch(&mut self, repository: &Arc<Repository>) -> Result<(), RefreshError> {
        local_upstream::check(&self.settings.url).map_err(RefreshError::Upstream)?;
        let (path, url) = (repository.path().to_owned(), self.settings.url.clone());
        let outgoing = Outgoing::of(&self.settings);
        let fetched = self.transfer(Phase::Fetching, move |progress| {
            fetch::fetch(&path, &url, &outgoing, progress)
        });
        match &fetched {
            Err(FetchError::Local(_)) => {
                self.local_failures += 1;
                repository.suspect();
            }
            _ => self.local_failures = 0,
        }
        fetched?;
        if let Err(error) = self.show(repository) {
            if let RefreshError::Refused(_) = error {
                self.forget_refused(repository);
            }
            return Err(error);
        }
        // The time of this success would be lost in a restart; nothing else is.
        if let Err(error) = clone_dir::write_record(repository.path(), &self.record()) {
            tracing::warn!(error = %error, "the time of this fetch could not be written to DATA_DIR");
        }
        Ok(())
    }

    /// Leads the clone back to the commit that is served, so that a restart finds that one.
    fn forget_refused(&mut self, repository: &Arc<Repository>) {
        let served = self.handle.snapshot();
        if let Some(snapshot) =
            served.filter(|snapshot| Arc::ptr_eq(snapshot.repository(), repository))
            && let Err(error) = repository.lead_back_to(snapshot.commit())
        {
            tracing::warn!(error = %error, "the clone could not be led back to the commit that is served");
        }
        // Each refused commit leaves a pack.
        self.keep_up();
    }

    /// Runs a clone or a fetch. One that hangs is left behind.
    pub(crate) fn transfer(
        &mut self,
        phase: Phase,
        transfer: impl FnOnce(&ProgressCell) -> Result<(), FetchError> + Send + 'static,
    ) -> Result<(), FetchError> {
        self.transfers.make_room()?;
        let progress = self.handle.begin(phase);
        self.transfers
            .run(&progress, self.settings.url.is_local(), transfer)
    }

    pub(crate) fn record(&self) -> CloneRecord {
        CloneRecord::new(&self.settings.url, Some(self.settings.clock.now()))
    }
}

/// Tells whoever waits for a fetch that none will come any more, however the background task ends.
struct ForbidOnDrop<'a>(&'a IndexHandle);

impl Drop for ForbidOnDrop<'_> {
    fn drop(&mut self) {
        self.0.forced().forbid();
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
    use super::*;
    use crate::index::follow::settings::Network;
    use crate::index::source::remote_url::RemoteUrl;
    use crate::index::testing::{TestIndex, read_crate};

    /// A background task, as a mirror has it.
    struct Running {
        handle: IndexHandle,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<Result<(), RefresherEnd>>,
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

    #[test]
    fn the_clone_of_another_upstream_stays_until_there_is_one_to_replace_it() {
        let (mut first, second) = (
            TestIndex::new(&[("1/a", "first")]),
            TestIndex::new(&[("1/a", "second")]),
        );
        first.refresh();
        first.stop();
        let settings = first.settings();
        let clone = clone_dir::current_in(&first.data_dir()).unwrap();
        let absent = RemoteUrl::parse("/nonexistent/index").unwrap();
        let of = |url: &RemoteUrl| RefresherSettings {
            url: url.clone(),
            interval: None,
            ..settings.clone()
        };
        let handle = IndexHandle::new();
        let mut unreachable = Refresher::new(of(&absent), handle.clone());
        for _ in 0..2 {
            unreachable.step();
            assert!(handle.status().last_error.is_some());
            assert!(
                handle.snapshot().is_none(),
                "that of the other is not served"
            );
            assert_eq!(
                clone_dir::current_in(&first.data_dir()),
                Some(clone.clone())
            );
        }
        drop(unreachable);
        let mut again = Refresher::new(of(&settings.url), handle.clone());
        again.step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("first"));
        drop((again, handle));
        first.handle = IndexHandle::new();
        let handle = IndexHandle::new();
        Refresher::new(of(&second.settings().url), handle.clone()).step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("second"));
        assert!(!clone.exists());
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
        let mut index = TestIndex::new(&[("1/a", "old")]);
        index.refresh();
        index.stop();
        let never = RefresherSettings {
            interval: None,
            ..index.settings()
        };
        let offline = RefresherSettings {
            url: RemoteUrl::parse("https://127.0.0.1:1/index").unwrap(),
            network: Network::Forbidden,
            ..settings_of(&index)
        };
        for settings in [never, offline] {
            let running = Running::start(settings);
            running.phase(Phase::Idle).await;
            assert!(running.handle.snapshot().is_some());
            assert_eq!(running.handle.refresh_now().await, RefreshOutcome::NotNow);
            running.end().await;
        }
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
