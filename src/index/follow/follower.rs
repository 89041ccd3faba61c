//! The follower of the upstream: the background task that decides when to refresh, and what to do after a refresh.
//!
//! Each refresh runs on a blocking thread, and the async side only waits. So a fetch that hangs never blocks requests.
//! The clones and the views have owners of their own ([`Clones`], [`Publisher`]).

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::clones::{Clones, Refreshed};
use super::error::RefreshError;
use super::publisher::Publisher;
use super::settings::FollowerSettings;
use crate::index::blocking_work::on_blocking_thread;
use crate::index::fetch_on_demand::RefreshOutcome;
use crate::index::handle::IndexHandle;
use crate::index::retry::{backoff, jittered};
use crate::index::source::fetch::FetchError;
use crate::index::status::Phase;
use crate::memory::return_freed_blocks;
use crate::observability::LastFailure;
use crate::observability::metrics::{FAILED, OK};

/// The pause between two steps where the settings forbid fetches. A step removes replaced clones and finds imports.
const IDLE_PAUSE: Duration = Duration::from_secs(60);

/// The pause between two steps of an offline mirror without a readable index.
pub(super) const NO_INDEX_PAUSE: Duration = Duration::from_secs(5);

/// How often idle handles of the clone are closed and freed memory goes back to the system. An open pack keeps up to 16 MB
/// of what was read from it. Both take some milliseconds: too much for every refresh.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// The background task.
#[derive(Debug)]
pub(crate) struct Follower {
    handle: IndexHandle,
    pub(in crate::index) clones: Clones,
    pub(in crate::index) publisher: Publisher,
    /// The time since which another process has locked the data directory.
    locked_since: Option<Instant>,
    /// Why another attempt would be useless.
    hopeless: Option<String>,
    /// What the log has told of.
    told: LastFailure,
}

/// Why the background task ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowerEnd {
    /// One of its threads panicked.
    #[error(transparent)]
    Broken(#[from] JoinError),
    /// There is no index, and another attempt would not give one.
    #[error("{0}")]
    Hopeless(String),
}

impl Follower {
    /// Makes a task that publishes through `handle`. It does nothing until it runs.
    pub(crate) fn new(settings: FollowerSettings, handle: IndexHandle) -> Self {
        Self {
            publisher: Publisher::new(&settings, handle.clone()),
            clones: Clones::new(settings, handle.clone()),
            handle,
            locked_since: None,
            hopeless: None,
            told: LastFailure::default(),
        }
    }

    /// Serves the clone on disk, then fetches regularly until the mirror stops.
    ///
    /// # Errors
    /// [`FollowerEnd`]. The process must end then.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), FollowerEnd> {
        let handle = self.handle.clone();
        let mut follower = self;
        let _until_the_end = ForbidOnDrop(&handle);
        let first = tokio::time::Instant::now() + TIDY_EVERY;
        let mut tidy = tokio::time::interval_at(first, TIDY_EVERY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        'running: loop {
            let end = || {
                handle.on_demand().forbid();
                handle.stop();
            };
            let Some((back, pause)) = on_blocking_thread(follower, Self::step, &stop, end).await?
            else {
                break;
            };
            follower = back;
            if let Some(why) = follower.hopeless.take() {
                return Err(FollowerEnd::Hopeless(why));
            }
            // Pinned outside of the loop, so a damage check does not restart the pause.
            let mut pause = pin!(tokio::time::sleep(pause.unwrap_or(Duration::MAX)));
            loop {
                // After a failure reports of damage do not shorten the pause: they must not cause fetches all the time.
                let may_repair = handle.status().failures == 0;
                let repair = async {
                    tokio::time::sleep(follower.clones.wait_for_repair()).await;
                    handle.damage_reported().await;
                };
                let damage_check = async {
                    tokio::time::sleep(follower.publisher.wait_for_damage_check()).await;
                    handle.damage_check_requested().await;
                };
                let work: fn(&mut Self) = tokio::select! {
                    () = &mut pause => break,
                    () = repair, if may_repair => break,
                    () = handle.on_demand().requested() => break,
                    () = handle.facts_changed() => break,
                    // These send no requests, so the pause continues after them.
                    () = damage_check => |follower| follower.publisher.check_git_index(),
                    _ = tidy.tick() => Self::tidy,
                    () = stop.cancelled() => break 'running,
                };
                let end = || handle.stop();
                follower = match on_blocking_thread(follower, work, &stop, end).await? {
                    Some((follower, ())) => follower,
                    None => break 'running,
                };
            }
        }
        handle.enter(Phase::Stopped);
        Ok(())
    }

    /// Makes one refresh, for a subcommand.
    pub(crate) fn refresh_once(&mut self) -> Result<(), RefreshError> {
        self.clones.refresh(&mut self.publisher)?;
        self.clones.after_success(&mut self.publisher);
        Ok(())
    }

    /// Makes one refresh. Returns the pause before the next one. `None` means: wait for an event.
    pub(crate) fn step(&mut self) -> Option<Duration> {
        // Before the fetch: it serves every request from before this moment, and none from after it.
        let requested = self.handle.on_demand().begin();
        let began = Instant::now();
        let tried = self.clones.refresh(&mut self.publisher);
        let (outcome, counted) = match &tried {
            Ok(Refreshed::Fetched(_)) => (RefreshOutcome::Fetched, Some(OK)),
            Ok(Refreshed::NotAsked) => (RefreshOutcome::NotNow, None),
            Err(RefreshError::Fetch(FetchError::Stopped)) => (RefreshOutcome::Failed, None),
            Err(_) => {
                let counted = self.clones.settings.may_fetch().then_some(FAILED);
                (RefreshOutcome::Failed, counted)
            }
        };
        if let Some(result) = counted {
            self.handle.fetches().note(result, None, began.elapsed());
        }
        if let Some(requested) = requested {
            requested.end(outcome);
        }
        if outcome == RefreshOutcome::Fetched && self.clones.settings.interval.is_some() {
            self.handle.on_demand().allow();
        } else {
            // After a failure requests of readers must not cause fetches all the time.
            self.handle.on_demand().forbid();
        }
        let pause = self.follow_up(tried);
        if !self.clones.settings.may_fetch() {
            // Unlocked between two steps, so an import can run.
            self.clones.directory = None;
        }
        pause
    }

    fn tidy(&mut self) {
        if let Some(view) = self.handle.view() {
            view.close_idle_handles();
        }
        return_freed_blocks();
    }

    /// Handles the result of a refresh: sets the status, logs a failure, and returns the pause.
    fn follow_up(&mut self, tried: Result<Refreshed, RefreshError>) -> Option<Duration> {
        match tried {
            Ok(refreshed) => {
                self.locked_since = None;
                match refreshed {
                    Refreshed::Fetched(began) => self.handle.succeeded(began),
                    Refreshed::NotAsked => self.handle.recovered(),
                }
                if self.told.note_success() {
                    tracing::info!(index.upstream = %self.clones.settings.url, "the index is up to date again");
                }
                self.clones.after_success(&mut self.publisher);
                self.handle.enter(Phase::Idle);
                let wake_anyway = !self.clones.retired.is_empty()
                    || !self.clones.settings.may_fetch()
                    || self.publisher.maker.has_rules();
                let wake_anyway = wake_anyway.then_some(IDLE_PAUSE);
                self.clones.settings.interval.or(wake_anyway).map(jittered)
            }
            Err(RefreshError::Fetch(FetchError::Stopped)) => None,
            Err(error) if !self.clones.settings.may_fetch() => {
                Some(self.note_offline_failure(&error))
            }
            Err(error) => {
                let failures = self.handle.failed(&error, error.is_lasting());
                if self.is_hopeless(&error) {
                    self.hopeless = Some(error.to_string());
                    return None;
                }
                let pause = match &error {
                    // A short pause: the other process may be about to stop.
                    RefreshError::Locked => backoff(1, Duration::ZERO),
                    _ => backoff(failures, self.clones.settings.interval.unwrap_or_default()),
                };
                let asked = match &error {
                    RefreshError::Fetch(error) => {
                        error.asked_pause(self.clones.settings.clock.now())
                    }
                    _ => Duration::ZERO,
                };
                let pause = pause.max(asked);
                let meanwhile = match self.handle.view() {
                    Some(_) => "the last copy of the index stays in use",
                    None => {
                        "redirects to crate files work, look-ups answer 503 until a clone succeeds"
                    }
                };
                let why = error.to_string();
                if self.told.note_failure(&why) {
                    tracing::warn!(
                        index.upstream = %self.clones.settings.url,
                        retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                        error = why,
                        "the index could not be fetched; {meanwhile}"
                    );
                }
                Some(pause)
            }
        }
    }

    /// Whether there is no index to serve, and another attempt would not give one.
    fn is_hopeless(&mut self, error: &RefreshError) -> bool {
        let waited_for_lock = match error {
            RefreshError::Locked => {
                let since = *self.locked_since.get_or_insert_with(Instant::now);
                since.elapsed() >= self.clones.settings.lock_wait_max
            }
            _ => {
                self.locked_since = None;
                true
            }
        };
        let may_end = matches!(
            error,
            RefreshError::Locked | RefreshError::Upstream(_) | RefreshError::Disk(_)
        );
        may_end && error.is_lasting() && waited_for_lock && self.handle.view().is_none()
    }

    /// Notes a failure of an offline mirror, logs it if it is new, and returns the pause.
    fn note_offline_failure(&self, error: &RefreshError) -> Duration {
        let why = error.to_string();
        self.handle.failed(error, error.is_lasting());
        if self.told.note_failure(&why) {
            tracing::warn!(
                error = why,
                "the index on disk cannot be served; this is tried again every few seconds"
            );
        }
        NO_INDEX_PAUSE
    }
}

/// Ends the wait of readers when the background task ends, for any reason.
struct ForbidOnDrop<'a>(&'a IndexHandle);

impl Drop for ForbidOnDrop<'_> {
    fn drop(&mut self) {
        self.0.on_demand().forbid();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::follow::settings::Network;
    use crate::index::source::clone_dir;
    use crate::index::source::remote_url::RemoteUrl;
    use crate::index::testing::{TestIndex, read_crate};

    /// A running background task.
    struct Running {
        handle: IndexHandle,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<Result<(), FollowerEnd>>,
    }

    impl Running {
        fn start(settings: FollowerSettings) -> Self {
            let handle = IndexHandle::new();
            let stop = CancellationToken::new();
            let task = tokio::spawn(Follower::new(settings, handle.clone()).run(stop.clone()));
            Self { handle, stop, task }
        }

        /// Asks for a fetch until one is allowed: none is before the first view.
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

    fn settings_of(index: &TestIndex) -> FollowerSettings {
        FollowerSettings {
            // Only fetches on demand.
            interval: Some(Duration::from_secs(86_400)),
            ..index.settings()
        }
    }

    #[test]
    fn the_clone_of_another_upstream_stays_until_a_new_clone_replaces_it() {
        let (mut first, second) = (
            TestIndex::new(&[("1/a", "first")]),
            TestIndex::new(&[("1/a", "second")]),
        );
        first.refresh();
        first.stop();
        let settings = first.settings();
        let clone = clone_dir::current_in(&first.data_dir()).unwrap();
        let absent = RemoteUrl::parse("/nonexistent/index").unwrap();
        let of = |url: &RemoteUrl| FollowerSettings {
            url: url.clone(),
            interval: None,
            ..settings.clone()
        };
        let handle = IndexHandle::new();
        let mut unreachable = Follower::new(of(&absent), handle.clone());
        for _ in 0..2 {
            unreachable.step();
            assert!(handle.status().last_error.is_some());
            assert!(
                handle.view().is_none(),
                "the other clone must not be served"
            );
            assert_eq!(
                clone_dir::current_in(&first.data_dir()),
                Some(clone.clone())
            );
        }
        drop(unreachable);
        let mut again = Follower::new(of(&settings.url), handle.clone());
        again.step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("first"));
        drop((again, handle));
        first.handle = IndexHandle::new();
        let handle = IndexHandle::new();
        Follower::new(of(&second.settings().url), handle.clone()).step();
        assert_eq!(read_crate(&handle, "a").as_deref(), Some("second"));
        assert!(!clone.exists());
    }

    #[tokio::test]
    async fn a_fetch_on_demand_brings_what_was_published_before_it() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let running = Running::start(settings_of(&index));
        assert_eq!(running.refresh().await, RefreshOutcome::Fetched);
        let commit = index.commit(&[("1/a", "new")]);
        let asked = tokio::join!(running.handle.refresh_now(), running.handle.refresh_now());
        assert_eq!(asked, (RefreshOutcome::Fetched, RefreshOutcome::Fetched));
        let view = running.handle.view().unwrap();
        assert_eq!(view.commit().to_string(), commit);
        let handle = running.end().await;
        assert_eq!(handle.refresh_now().await, RefreshOutcome::NotNow);
    }

    #[tokio::test]
    async fn after_a_failure_there_is_no_fetch_on_demand() {
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
    async fn if_the_settings_forbid_fetches_there_is_no_fetch_on_demand() {
        let mut index = TestIndex::new(&[("1/a", "old")]);
        index.refresh();
        index.stop();
        let never = FollowerSettings {
            interval: None,
            ..index.settings()
        };
        let offline = FollowerSettings {
            url: RemoteUrl::parse("https://127.0.0.1:1/index").unwrap(),
            network: Network::Forbidden,
            ..settings_of(&index)
        };
        for settings in [never, offline] {
            let running = Running::start(settings);
            running.phase(Phase::Idle).await;
            assert!(running.handle.view().is_some());
            assert_eq!(running.handle.refresh_now().await, RefreshOutcome::NotNow);
            running.end().await;
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn a_clone_that_nobody_reads_has_no_open_packs_after_a_while() {
        let index = TestIndex::new(&[("1/a", "content")]);
        let running = Running::start(settings_of(&index));
        running.phase(Phase::Idle).await;
        let open_files = || {
            let opened = std::fs::read_dir("/proc/self/fd").unwrap();
            let files = opened.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            let pack = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "pack");
            let data_dir = index.data_dir().canonicalize().unwrap();
            files
                .filter(|path| path.starts_with(&data_dir) && pack(path))
                .count()
        };
        assert_eq!(read_crate(&running.handle, "a").as_deref(), Some("content"));
        assert!(open_files() > 0);
        tokio::time::sleep(TIDY_EVERY * 2).await;
        assert_eq!(open_files(), 0);
        running.end().await;
    }

    #[tokio::test]
    async fn a_reader_does_not_wait_after_the_background_task_has_ended() {
        let index = TestIndex::new(&[("1/a", "old")]);
        let running = Running::start(settings_of(&index));
        assert_eq!(running.refresh().await, RefreshOutcome::Fetched);
        running.phase(Phase::Idle).await;
        running.task.abort();
        // On a runtime with one thread the task has not been dropped yet.
        assert_eq!(running.handle.refresh_now().await, RefreshOutcome::NotNow);
    }
}
