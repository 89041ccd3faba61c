//! Crate files for requests: stored ones from the store, others from an upstream by way of the store.
//!
//! A fetch is a task of its own. A request that gives up waiting does not end it: the other requests and the store still
//! get the file.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counters::Counters;
use super::crate_store::CrateStore;
use super::disk::open_file::OPEN_TIME_MAX;
use super::error::{GetError, StoreError};
use super::in_flight::{FetchState, Fetched, InFlight, PAUSE_WHEN_FULL, Reporter, Waiter};
use super::objects::Reading;
use super::spool::Spool;
use super::stored_file::StoredFile;
use crate::observability::LastFailure;
use crate::package::{Checksum, CrateFile};
use crate::upstream::{CrateSources, FetchError};

/// How many files are fetched at a time. Each holds 8 MB at most, in a buffer for a part of 5 MB that grows by doubling. Most
/// need a tenth of a megabyte.
const FETCHES_MAX: usize = 32;

/// How many files are put into the store at a time. If the store hangs, further files are served without being stored.
const PUTS_MAX: usize = 32;

/// The memory budget of files that the store could not take, in KiB. Their clients may be slow.
const MEMORY_KIB_MAX: usize = 64 * 1024;

/// How long the store may take for a file before the waiting requests get it from memory.
const PUT_WAIT_MAX: Duration = Duration::from_millis(500);

/// How often all stored files are counted, in case others change the store. A cloud lists a thousand files per request.
const COUNT_EVERY: Duration = Duration::from_secs(3_600);

/// Why a file is never stored.
const TOO_LARGE: &str = "the file is larger than STORAGE_MAX_BYTES";

/// How many missing files are remembered.
const MISSING_MAX: usize = 10_000;

/// The settings of [`CrateFiles`].
#[derive(Debug)]
pub(crate) struct CrateFilesSettings {
    /// Where files are stored.
    pub(crate) store: Arc<CrateStore>,
    /// Where they come from; `None` fetches nothing.
    pub(crate) sources: Option<CrateSources>,
    /// How long a missing file is remembered.
    pub(crate) missing_remembered: Duration,
    /// How long a request waits for a file.
    pub(crate) wait_max: Duration,
}

/// What was done to have a file in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ensured {
    /// Nothing: it was stored already.
    AlreadyStored,
    /// It was fetched.
    Fetched {
        /// Its size.
        bytes: u64,
    },
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CrateFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: CrateFilesSettings,
    in_flight: InFlight,
    missing: Cache<Checksum, Instant>,
    fetch_permits: Semaphore,
    put_permits: Semaphore,
    memory: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// What the log has told of the store.
    told: LastFailure,
    /// Fetches run here: a thread that serves requests may end before the other requests have their file.
    runtime: Handle,
}

impl CrateFiles {
    /// Must be called inside the runtime that fetches are to run in.
    pub(crate) fn new(settings: CrateFilesSettings) -> Self {
        Self(Arc::new(Inner {
            settings,
            in_flight: InFlight::default(),
            missing: Cache::new(MISSING_MAX),
            fetch_permits: Semaphore::new(FETCHES_MAX),
            put_permits: Semaphore::new(PUTS_MAX),
            memory: Arc::new(Semaphore::new(MEMORY_KIB_MAX)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            told: LastFailure::default(),
            runtime: Handle::current(),
        }))
    }

    /// Where files are stored.
    pub(crate) fn store(&self) -> &Arc<CrateStore> {
        &self.0.settings.store
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.store().counters
    }

    /// Where missing files come from; `None` if nothing is fetched.
    pub(crate) fn sources(&self) -> Option<&CrateSources> {
        self.0.settings.sources.as_ref()
    }

    /// How long a request waits for a file.
    pub(crate) fn wait_max(&self) -> Duration {
        self.0.settings.wait_max
    }

    /// Whether missing files can be fetched.
    pub(crate) fn fetches(&self) -> bool {
        self.sources().is_some()
    }

    /// A stored file, if no look-up is needed to find it.
    pub(crate) fn get_now(&self, checksum: &Checksum) -> Option<StoredFile> {
        let found = self.store().find_now(checksum)?;
        self.counters().hits.add(1);
        Some(found)
    }

    /// A file, which is fetched if it is not stored. A caller may give up waiting: the fetch goes on.
    pub(crate) async fn get(&self, file: &CrateFile) -> Result<StoredFile, GetError> {
        let found = self.store().find(&file.checksum).await;
        if let Ok(Some(found)) = found {
            self.counters().hits.add(1);
            return Ok(found);
        }
        if let Err(error) = found {
            self.note_store_failure(file, &error);
            // An upstream may have what the store cannot give.
            if !self.fetches() {
                return Err(error.into());
            }
        }
        let mut fetch = self.join_fetch(file)?;
        if let Some(content) = fetch.arrived().await?
            && let Ok(in_memory) = self.in_memory(content)
        {
            return Ok(in_memory);
        }
        // If the memory budget is used up, it is better to wait for the store.
        let fetched = fetch.ended().await?;
        self.open_fetched(file, fetched).await
    }

    /// A file that was just fetched: from the store if possible, since a slow client would keep it in memory.
    async fn open_fetched(
        &self,
        file: &CrateFile,
        fetched: Fetched,
    ) -> Result<StoredFile, GetError> {
        let why = match fetched.stored {
            Ok(()) => match self.store().find(&file.checksum).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => "it is gone again".into(),
                Err(error) => error.to_string().into(),
            },
            Err(why) => why,
        };
        if let Some(unstored) = fetched.unstored {
            return Ok(unstored);
        }
        let content = fetched.content.ok_or(GetError::Store(why))?;
        self.in_memory(content)
    }

    /// Reads a range that lies inside a file.
    pub(crate) async fn read(
        &self,
        file: &CrateFile,
        stored: &StoredFile,
        range: std::ops::Range<u64>,
    ) -> Result<Reading, StoreError> {
        let reading = stored.read(range).await;
        if let Err(error) = &reading
            && !matches!(error, StoreError::Changed)
        {
            self.note_store_failure(file, error);
        }
        reading
    }

    fn in_memory(&self, content: Bytes) -> Result<StoredFile, GetError> {
        let kib = u32::try_from(content.len() / 1024 + 1).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0.memory).try_acquire_many_owned(kib);
        let permit = permit.map_err(|_used_up| GetError::Busy(PAUSE_WHEN_FULL))?;
        Ok(StoredFile::in_memory(content, permit))
    }

    /// Makes sure that a file is in the store.
    pub(crate) async fn ensure(&self, file: &CrateFile) -> Result<Ensured, GetError> {
        if self.store().contains(&file.checksum).await? {
            return Ok(Ensured::AlreadyStored);
        }
        let Fetched { bytes, stored, .. } = self.join_fetch(file)?.ended().await?;
        stored.map_err(GetError::Store)?;
        Ok(Ensured::Fetched { bytes })
    }

    /// Ends all fetches and waits for them. No file is half written then.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Starts the upkeep of the store, which runs until the mirror ends: first the removal of a crash's leftovers and of
    /// files beyond the limit, then the closing of files that have been open for too long.
    pub(crate) fn tidy(&self) {
        let (files, stop) = (self.clone(), self.0.stop.clone());
        let tidying = async move {
            let store = Arc::clone(files.store());
            // A panic in there is logged, and eviction does not depend on it.
            let _removed = tokio::task::spawn_blocking(move || store.remove_leftovers()).await;
            // A mirror that fetches nothing could never get evicted files back.
            if files.fetches() {
                files.store().evict(None).await;
            }
            let mut counted: Option<Instant> = None;
            loop {
                if counted.is_none_or(|counted| counted.elapsed() >= COUNT_EVERY) {
                    counted = Some(Instant::now());
                    if let Err(error) = files.store().count().await {
                        let error = files.store().location.redact(&error.to_string());
                        tracing::debug!(error, "the store could not be counted");
                    }
                }
                tokio::time::sleep(OPEN_TIME_MAX).await;
                if let Some(disk) = files.store().disk() {
                    disk.close_expired(std::time::Instant::now());
                }
            }
        };
        let until_stopped = stop.run_until_cancelled_owned(tidying);
        self.0.tasks.spawn_on(until_stopped, &self.0.runtime);
    }

    /// The fetch of a file, which begins now if none is in flight.
    fn join_fetch(&self, file: &CrateFile) -> Result<Waiter, GetError> {
        if !self.fetches() {
            return Err(GetError::NotStored);
        }
        if self.is_known_missing(&file.checksum) {
            return Err(GetError::Missing);
        }
        self.0.in_flight.join(file.checksum, |reporter| {
            let task = self.clone().run_fetch(file.clone(), reporter);
            self.0.tasks.spawn_on(task, &self.0.runtime);
        })
    }

    async fn run_fetch(self, file: CrateFile, reporter: Reporter) {
        let entry = self.0.in_flight.entry(file.checksum);
        let fetch = self.fetch(&file, &reporter);
        let fetched = self.0.stop.run_until_cancelled(fetch).await;
        let fetched = fetched.unwrap_or(Err(GetError::Stopping));
        self.note(&file, &fetched);
        let stored = fetched.as_ref().ok();
        let stored = stored.and_then(|fetched| fetched.stored.is_ok().then_some(fetched.bytes));
        // The entry goes before the result is known: a request that comes after the result finds the file in the store.
        drop(entry);
        reporter.report(FetchState::Ended(fetched));
        if let Some(bytes) = stored {
            self.store().evict(Some((&file.checksum, bytes))).await;
        }
    }

    async fn fetch(&self, file: &CrateFile, reporter: &Reporter) -> Result<Fetched, GetError> {
        let permit = self.0.fetch_permits.acquire().await;
        // If all requests gave up while the fetch waited for its permit, others get the permit.
        if reporter.is_abandoned() {
            return Err(GetError::Pending);
        }
        // The previous fetch may have ended between the request's look at the store and the beginning of this one.
        if let Ok(Some(found)) = self.store().find(&file.checksum).await {
            return Ok(Fetched {
                bytes: found.size,
                content: None,
                unstored: None,
                stored: Ok(()),
            });
        }
        let Some(sources) = self.sources() else {
            return Err(GetError::NotStored);
        };
        let mut spool = self.store().spool(&file.checksum);
        match sources.fetch(file, &mut spool).await {
            Ok(bytes) => {
                // The rest needs no upstream.
                drop(permit);
                Ok(self.put(file, bytes, spool, reporter).await)
            }
            Err(error) => {
                spool.discard().await;
                Err(self.reason(file, error))
            }
        }
    }

    /// Puts a verified file into the store. If that takes long, the waiting requests get the file from memory.
    async fn put(
        &self,
        file: &CrateFile,
        bytes: u64,
        mut spool: Spool,
        reporter: &Reporter,
    ) -> Fetched {
        self.counters().fetched.add(1);
        self.counters().fetched_bytes.add(bytes);
        let mut fetched = Fetched {
            bytes,
            content: spool.content(),
            unstored: None,
            stored: Ok(()),
        };
        let Ok(_permit) = self.0.put_permits.try_acquire() else {
            spool.discard().await;
            fetched.stored = Err("it takes nothing any more".into());
            return fetched;
        };
        if self.store().is_too_large(bytes) {
            self.pass_on(file, &mut fetched, spool).await;
            return fetched;
        }
        let mut put = std::pin::pin!(self.store().put(&file.checksum, bytes, spool));
        let done = match tokio::time::timeout(PUT_WAIT_MAX, &mut put).await {
            Ok(done) => done,
            Err(_slow) => {
                if let Some(content) = &fetched.content {
                    reporter.report(FetchState::Arrived(content.clone()));
                }
                put.await
            }
        };
        if done.is_ok() {
            self.counters().stored_files.add(1);
            self.counters().stored_bytes.add(bytes);
            if self.0.told.note_success() {
                tracing::info!("the store of crate files works again");
            }
        }
        fetched.stored = done.map_err(|error| {
            self.note_store_failure(file, &error);
            error.to_string().into()
        });
        fetched
    }

    /// Serves a file that is larger than the store's limit without storing it. To store it would evict everything else, and
    /// it would be the next to go.
    async fn pass_on(&self, file: &CrateFile, fetched: &mut Fetched, spool: Spool) {
        if fetched.content.is_some() {
            spool.discard().await;
        } else {
            let opened = self
                .store()
                .open_without_storing(&file.checksum, spool)
                .await;
            match opened {
                Ok(unstored) => fetched.unstored = unstored,
                Err(error) => self.note_store_failure(file, &error),
            }
        }
        let bytes = fetched.bytes;
        tracing::warn!("crate.file" = %file, bytes, "{TOO_LARGE}: it is served and not stored");
        fetched.stored = Err(TOO_LARGE.into());
    }

    fn reason(&self, file: &CrateFile, error: FetchError<object_store::Error>) -> GetError {
        match error {
            FetchError::Missing => GetError::Missing,
            FetchError::Corrupt { .. } => GetError::Corrupt(error.to_string().into()),
            FetchError::TimedOut => GetError::TimedOut,
            FetchError::Busy(pause) => GetError::Busy(pause),
            FetchError::Transient(why) | FetchError::Useless(why) => GetError::Failed(why.into()),
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
        if let Some(disk) = self.store().disk() {
            // They may take up disk space.
            disk.close_all();
        }
        let is_news = match error {
            // The text of these errors names the file, so only their kinds are compared.
            StoreError::Object(error) => self.0.told.note_failure(kind_of(error)),
            other => self.0.told.note_failure(&other.to_string()),
        };
        if is_news {
            tracing::error!(
                "crate.file" = %file,
                error = %error,
                "the store of crate files failed; files are served without being stored if that is possible"
            );
        }
    }
}

fn kind_of(error: &object_store::Error) -> &'static str {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    match error {
        NotFound { .. } => "not found",
        PermissionDenied { .. } | Unauthenticated { .. } => "refused",
        _ => "failed",
    }
}
