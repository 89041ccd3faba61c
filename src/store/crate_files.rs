//! The keeper: gives out files that are held, and fetches those that are not, each once for all who wait.
//!
//! A fetch is a task of its own. Whoever waits for it may leave; the others get the file, and so does the store.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counters::Counters;
use super::crate_store::{CrateStore, StoreError};
use super::disk::open_file::OPEN_TIME_MAX;
use super::spool::Spool;
use super::stored_file::{Reading, StoredFile};
use crate::package::{Checksum, CrateFile};
use crate::upstream::{CrateSources, FetchError};

/// Fetches at a time. Each holds 5 MB at most, and most hold a tenth of one.
const FETCHES_MAX: usize = 32;

/// Files that are being put into the store at a time. Where it hangs, others are served without being kept.
const KEEPINGS_MAX: usize = 32;

/// Fetches that are under way or wait for their turn.
const FLIGHTS_MAX: usize = 4_096;

/// How soon to come again when there are more.
const PAUSE_WHEN_FULL: Duration = Duration::from_secs(5);

/// Files that go to clients from memory, together, in KiB: those that the store could not take. A client may be slow.
const MEMORY_KIB_MAX: usize = 64 * 1024;

/// How long the store may take to keep a file before those who wait get it all the same.
const KEEPING_WAITED_MAX: Duration = Duration::from_millis(500);

/// Why a file is not stored that never will be.
const TOO_LARGE: &str = "the file is larger than STORAGE_MAX_BYTES";

/// Missing files that are remembered.
const MISSING_MAX: usize = 10_000;

/// What the keeper needs to know.
#[derive(Debug)]
pub(crate) struct CrateFilesSettings {
    /// Where files are kept.
    pub(crate) store: Arc<CrateStore>,
    /// Where they come from; `None` fetches nothing.
    pub(crate) sources: Option<CrateSources>,
    /// How long a file that no upstream has is known to be missing.
    pub(crate) missing_remembered: Duration,
    /// How long somebody waits for a file.
    pub(crate) wait_max: Duration,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CrateFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: CrateFilesSettings,
    /// Fetches that are under way, and their results for those who wait.
    flights: Mutex<HashMap<Checksum, watch::Receiver<Flight>>>,
    missing: Cache<Checksum, Instant>,
    fetches: Semaphore,
    keepings: Semaphore,
    memory: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Fetches run here: threads that serve requests may end before others have their file.
    runtime: Handle,
}

/// How far a fetch is.
#[derive(Clone, Debug)]
enum Flight {
    /// Nothing can be said yet.
    Begun,
    /// The bytes are there and right, and the store is slow.
    Arrived(Bytes),
    /// All is done.
    Ended(Result<Fetched, GetError>),
}

/// A file that came from an upstream and was right.
#[derive(Clone, Debug)]
struct Fetched {
    bytes: u64,
    /// The bytes, if there are few of them: whoever waits gets them even if the store failed.
    content: Option<Bytes>,
    /// The file, if it is too large for the store and for memory.
    unstored: Option<StoredFile>,
    kept: Result<(), Arc<str>>,
}

/// What was done to have a file in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ensured {
    /// Nothing: it was there.
    AlreadyStored,
    /// It was fetched.
    Fetched {
        /// Its size.
        bytes: u64,
    },
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GetError {
    /// It is not held, and nothing may be fetched.
    #[error("it is not held")]
    NotStored,
    /// No upstream has it.
    #[error("no upstream has it")]
    Missing,
    /// What came is not what the index says.
    #[error("{0}")]
    Corrupt(Arc<str>),
    /// An upstream did not answer in time.
    #[error("an upstream was silent for too long")]
    TimedOut,
    /// An upstream, or this mirror itself, wants to be left alone for so long.
    #[error("an upstream or this mirror has too much to do")]
    Busy(Duration),
    /// No upstream can be reached, or all answer with errors.
    #[error("{0}")]
    Failed(Arc<str>),
    /// It is still being fetched.
    #[error("it is still being fetched")]
    Pending,
    /// The store cannot be read or written to.
    #[error("the store failed: {0}")]
    Store(Arc<str>),
    /// The mirror is about to end.
    #[error("the mirror is stopping")]
    Stopping,
}

impl From<StoreError> for GetError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string().into())
    }
}

impl CrateFiles {
    /// To be called inside the runtime that fetches are to run in.
    pub(crate) fn new(settings: CrateFilesSettings) -> Self {
        Self(Arc::new(Inner {
            settings,
            flights: Mutex::default(),
            missing: Cache::new(MISSING_MAX),
            fetches: Semaphore::new(FETCHES_MAX),
            keepings: Semaphore::new(KEEPINGS_MAX),
            memory: Arc::new(Semaphore::new(MEMORY_KIB_MAX)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            runtime: Handle::current(),
        }))
    }

    /// Where files are kept.
    pub(crate) fn store(&self) -> &Arc<CrateStore> {
        &self.0.settings.store
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.store().counters
    }

    /// How many answers of upstreams were not what the index says.
    pub(crate) fn mismatches(&self) -> u64 {
        let sources = self.0.settings.sources.as_ref();
        sources.map_or(0, CrateSources::mismatches)
    }

    /// How long somebody waits for a file.
    pub(crate) fn wait_max(&self) -> Duration {
        self.0.settings.wait_max
    }

    /// Whether files that are not held can be fetched.
    pub(crate) fn fetches(&self) -> bool {
        self.0.settings.sources.is_some()
    }

    /// A file that is held, if that can be said without waiting.
    pub(crate) fn get_now(&self, checksum: &Checksum) -> Option<StoredFile> {
        let held = self.store().find_now(checksum)?;
        self.counters().hits.add(1);
        Some(held)
    }

    /// A file, fetched if it is not held. Whoever gives up waiting loses nothing: the fetch goes on.
    ///
    /// # Errors
    /// [`GetError`].
    pub(crate) async fn get(&self, file: &CrateFile) -> Result<StoredFile, GetError> {
        let found = self.store().find(&file.checksum).await;
        if let Ok(Some(held)) = found {
            self.counters().hits.add(1);
            return Ok(held);
        }
        if let Err(error) = found {
            self.note_store_failure(file, &error);
            // What the store cannot give an upstream perhaps can.
            if !self.fetches() {
                return Err(error.into());
            }
        }
        let mut flight = self.join_flight(file)?;
        let here = wait_for(&mut flight, |flight| !matches!(flight, Flight::Begun)).await?;
        if let Flight::Arrived(content) = here
            && let Ok(held) = self.in_memory(content)
        {
            return Ok(held);
        }
        // Where others are sent as much from memory as may be, the store is worth waiting for.
        let ended = wait_for(&mut flight, |flight| matches!(flight, Flight::Ended(_))).await?;
        match ended {
            Flight::Ended(fetched) => self.held_now(file, fetched?).await,
            Flight::Begun | Flight::Arrived(_) => Err(GetError::Pending),
        }
    }

    /// What was just fetched, to be read: from the store if that has it, since a slow client would keep it in memory.
    async fn held_now(&self, file: &CrateFile, fetched: Fetched) -> Result<StoredFile, GetError> {
        let why = match fetched.kept {
            Ok(()) => match self.store().find(&file.checksum).await {
                Ok(Some(held)) => return Ok(held),
                Ok(None) => "it is gone again".into(),
                Err(error) => error.to_string().into(),
            },
            Err(why) => why,
        };
        if let Some(held) = fetched.unstored {
            return Ok(held);
        }
        let content = fetched.content.ok_or(GetError::Store(why))?;
        self.in_memory(content)
    }

    /// Reads a range that lies inside a file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn read(
        &self,
        file: &CrateFile,
        held: &StoredFile,
        range: Range<u64>,
    ) -> Result<Reading, StoreError> {
        let reading = held.read(range, self.store()).await;
        if let Err(error) = &reading
            && !matches!(error, StoreError::Changed)
        {
            self.note_store_failure(file, error);
        }
        reading
    }

    fn in_memory(&self, content: Bytes) -> Result<StoredFile, GetError> {
        let kib = u32::try_from(content.len() / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0.memory).try_acquire_many_owned(kib);
        let room = room.map_err(|_full| GetError::Busy(PAUSE_WHEN_FULL))?;
        Ok(StoredFile::in_memory(content, room))
    }

    /// Sees to it that a file is in the store.
    ///
    /// # Errors
    /// [`GetError`].
    pub(crate) async fn ensure(&self, file: &CrateFile) -> Result<Ensured, GetError> {
        if self.store().contains(&file.checksum).await? {
            return Ok(Ensured::AlreadyStored);
        }
        let mut flight = self.join_flight(file)?;
        let ended = wait_for(&mut flight, |flight| matches!(flight, Flight::Ended(_))).await?;
        let Flight::Ended(fetched) = ended else {
            return Err(GetError::Pending);
        };
        let Fetched { bytes, kept, .. } = fetched?;
        kept.map_err(GetError::Store)?;
        Ok(Ensured::Fetched { bytes })
    }

    /// Ends all fetches and waits for them. Nothing is half-written then.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Removes what a crash left in the store, and what is too much, in the background; and gives back the room of files
    /// that were removed while they were open, for as long as the mirror runs.
    pub(crate) fn tidy(&self) {
        let keeper = self.clone();
        let tidying = async move {
            let sweeper = keeper.clone();
            // A sweep that panicked would have logged it; making room needs none of it.
            let _swept = tokio::task::spawn_blocking(move || sweeper.store().sweep()).await;
            // What goes could never come back to a mirror that fetches nothing.
            if keeper.fetches() {
                keeper.store().make_room(None).await;
            }
            loop {
                tokio::time::sleep(OPEN_TIME_MAX).await;
                keeper.store().close_expired();
            }
        };
        let stop = self.0.stop.clone();
        let tidying = async move {
            tokio::select! {
                () = tidying => {}
                () = stop.cancelled() => {}
            }
        };
        self.0.tasks.spawn_on(tidying, &self.0.runtime);
    }

    /// The fetch of a file, which begins now if none is under way.
    fn join_flight(&self, file: &CrateFile) -> Result<watch::Receiver<Flight>, GetError> {
        if !self.fetches() {
            return Err(GetError::NotStored);
        }
        if self.is_known_missing(&file.checksum) {
            return Err(GetError::Missing);
        }
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&file.checksum) {
            return Ok(flight.clone());
        }
        if flights.len() >= FLIGHTS_MAX {
            return Err(GetError::Busy(PAUSE_WHEN_FULL));
        }
        let (teller, flight) = watch::channel(Flight::Begun);
        flights.insert(file.checksum, flight.clone());
        let task = self.clone().fly(file.clone(), teller);
        self.0.tasks.spawn_on(task, &self.0.runtime);
        Ok(flight)
    }

    async fn fly(self, file: CrateFile, teller: watch::Sender<Flight>) {
        let landing = Landing {
            keeper: &self,
            checksum: file.checksum,
        };
        let fetched = tokio::select! {
            fetched = self.fetch(&file, &teller) => fetched,
            () = self.0.stop.cancelled() => Err(GetError::Stopping),
        };
        self.note(&file, &fetched);
        let kept = fetched
            .as_ref()
            .ok()
            .and_then(|fetched| fetched.kept.is_ok().then_some(fetched.bytes));
        // Whoever comes after the result finds the file in the store, and no flight.
        drop(landing);
        teller.send_replace(Flight::Ended(fetched));
        if let Some(bytes) = kept {
            self.store().make_room(Some((&file.checksum, bytes))).await;
        }
    }

    async fn fetch(
        &self,
        file: &CrateFile,
        teller: &watch::Sender<Flight>,
    ) -> Result<Fetched, GetError> {
        let permit = self.0.fetches.acquire().await;
        // One receiver is that of the table. Where many gave up waiting for their turn, nobody shall wait for them.
        if teller.receiver_count() <= 1 {
            return Err(GetError::Pending);
        }
        // The flight before this one may have ended between a look at the store and the beginning of this one.
        if let Ok(Some(held)) = self.store().find(&file.checksum).await {
            return Ok(Fetched {
                bytes: held.size(),
                content: None,
                unstored: None,
                kept: Ok(()),
            });
        }
        let Some(sources) = &self.0.settings.sources else {
            return Err(GetError::NotStored);
        };
        let mut spool = self.store().spool(&file.checksum);
        match sources.fetch(file, &mut spool).await {
            Ok(bytes) => {
                // The upstream has done its part; others may have theirs.
                drop(permit);
                Ok(self.keep(file, bytes, spool, teller).await)
            }
            Err(error) => {
                spool.discard().await;
                Err(self.reason(file, error))
            }
        }
    }

    /// Puts a file that is right into the store. Those who wait do not wait for a slow store.
    async fn keep(
        &self,
        file: &CrateFile,
        bytes: u64,
        mut spool: Spool,
        teller: &watch::Sender<Flight>,
    ) -> Fetched {
        self.counters().fetched.add(1);
        self.counters().fetched_bytes.add(bytes);
        let content = spool.content();
        let Ok(_permit) = self.0.keepings.try_acquire() else {
            spool.discard().await;
            let kept = Err("it takes nothing any more".into());
            return Fetched {
                bytes,
                content,
                unstored: None,
                kept,
            };
        };
        if self.store().is_too_large(bytes) {
            return self.pass_on(file, bytes, content, spool).await;
        }
        let mut keeping = std::pin::pin!(self.store().keep(&file.checksum, bytes, spool));
        let kept = match tokio::time::timeout(KEEPING_WAITED_MAX, &mut keeping).await {
            Ok(kept) => kept,
            Err(_slow) => {
                if let Some(content) = &content {
                    teller.send_replace(Flight::Arrived(content.clone()));
                }
                keeping.await
            }
        };
        let kept = kept.map_err(|error| {
            self.note_store_failure(file, &error);
            error.to_string().into()
        });
        Fetched {
            bytes,
            content,
            unstored: None,
            kept,
        }
    }

    /// A file that is larger than all of the store may be: to make room for it would remove everything else, and it would
    /// be the next to go. Those who wait get it all the same.
    async fn pass_on(
        &self,
        file: &CrateFile,
        bytes: u64,
        content: Option<Bytes>,
        spool: Spool,
    ) -> Fetched {
        let mut unstored = None;
        if content.is_some() {
            spool.discard().await;
        } else {
            match self
                .store()
                .open_without_storing(&file.checksum, spool)
                .await
            {
                Ok(held) => unstored = held,
                Err(error) => self.note_store_failure(file, &error),
            }
        }
        tracing::warn!("crate.file" = %file, bytes, "{TOO_LARGE}: it is served and not stored");
        Fetched {
            bytes,
            content,
            unstored,
            kept: Err(TOO_LARGE.into()),
        }
    }

    fn reason(&self, file: &CrateFile, error: FetchError<object_store::Error>) -> GetError {
        match error {
            FetchError::Missing => GetError::Missing,
            FetchError::Corrupt { .. } => GetError::Corrupt(error.to_string().into()),
            FetchError::TimedOut => GetError::TimedOut,
            FetchError::Busy(pause) => GetError::Busy(pause),
            FetchError::Failed(why) => GetError::Failed(why.into()),
            FetchError::Receiver(error) => {
                let error = StoreError::from(error);
                self.note_store_failure(file, &error);
                error.into()
            }
        }
    }

    fn note(&self, file: &CrateFile, outcome: &Result<Fetched, GetError>) {
        let counters = self.counters();
        match outcome {
            Ok(_) | Err(GetError::Stopping | GetError::Store(_) | GetError::Pending) => {}
            Err(GetError::Missing) => {
                counters.missing.add(1);
                self.0.missing.insert(file.checksum, Instant::now());
            }
            Err(GetError::Corrupt(_)) => counters.corrupt.add(1),
            Err(_) => counters.failed.add(1),
        }
    }

    fn is_known_missing(&self, checksum: &Checksum) -> bool {
        let noted = self.0.missing.get(checksum);
        noted.is_some_and(|noted| noted.elapsed() < self.0.settings.missing_remembered)
    }

    fn note_store_failure(&self, file: &CrateFile, error: &StoreError) {
        self.counters().store_failures.add(1);
        self.store().let_go();
        tracing::error!("crate.file" = %file, error = %error, "the store of crate files failed");
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Checksum, watch::Receiver<Flight>>> {
        self.0
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a flight is when it is what was waited for.
async fn wait_for(
    flight: &mut watch::Receiver<Flight>,
    condition: impl FnMut(&Flight) -> bool,
) -> Result<Flight, GetError> {
    let reached = flight.wait_for(condition).await;
    Ok(reached.map_err(|_ended_early| GetError::Stopping)?.clone())
}

/// Makes room for another flight, however the one before ends.
struct Landing<'a> {
    keeper: &'a CrateFiles,
    checksum: Checksum,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.keeper.flights().remove(&self.checksum);
    }
}
