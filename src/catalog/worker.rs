//! The work of the background task: builds the database, and brings it up to date with a view. Everything here blocks.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::database::{CatalogTables, Crates, State};
use super::files::CatalogDir;
use super::handle::{Catalog, Published};
use super::names::{NameTable, TableBuilder};
use super::record::{CrateRecord, ShownCrate, key_of};
use crate::index::{IndexHandle, ListedCrate, Listing, ReadError, StopFlag, View};
use crate::memory::return_freed_blocks;
use crate::sqlite::{
    DirectoryLock, FollowsViews, Readers, follow_views, is_damage, lock_directory, remove_database,
};

/// The largest number of threads that read index files. The mirror serves requests at the same time.
const THREADS_MAX: usize = 4;

/// Crates that wait for the thread that writes. Few, because the largest have thousands of versions.
const WAITING_MAX: usize = 64;

/// A part of the crates, as a divisor. If more of them have changed, the database is built anew beside the old one: that
/// is faster, and its log would be as large as the database.
const REBUILT_PART: usize = 8;

/// Changes that never lead to a new database. Fewer in tests, which need not make so many.
const FOLLOWED_MIN: usize = if cfg!(test) { 50 } else { 1_000 };

/// How often the directory may be in use before a temporary one is made. With the pauses of the task this is a quarter of
/// a minute: a mirror that this one replaces has ended by then.
const REFUSALS_MAX: u32 = 3;

/// Where the catalog lies.
#[derive(Clone, Debug)]
pub(crate) struct CatalogSettings {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The directory for a temporary catalog, if `DATA_DIR` cannot be written.
    pub(crate) temp_dir: PathBuf,
}

/// Why the catalog could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("the database: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the directory of the catalog: {0}")]
    System(#[from] io::Error),
    #[error("the database is damaged")]
    Damaged,
    #[error("another mirror uses the catalog in DATA_DIR")]
    InUse,
    /// The other thread has failed, and says why.
    #[error("the writer has ended")]
    Ended,
}

/// The background task, which owns the database.
#[derive(Debug)]
pub(crate) struct CatalogTask {
    settings: CatalogSettings,
    catalog: Catalog,
    index: IndexHandle,
    stop: Arc<StopFlag>,
    directory: Option<CatalogDir>,
    /// How often the directory was in use.
    refusals: u32,
    open: Option<Open>,
}

/// The open database.
#[derive(Debug)]
struct Open {
    database: Crates,
    path: PathBuf,
    readers: Arc<Readers<CatalogTables>>,
    state: State,
    /// What the database was last brought up to; `None` for a database from the disk.
    listing: Option<Listing>,
    /// Whether the whole file was checked.
    is_checked: bool,
}

/// What must be done to bring the database up to a view.
#[derive(Debug, Default)]
struct Difference<'a> {
    /// Crates to read.
    read: Vec<ListedCrate<'a>>,
    /// Rows of crates that are gone.
    gone: Vec<i64>,
}

impl FollowsViews for CatalogTask {
    type Error = WorkError;

    /// Brings the catalog up to the current view, and checks a database from the disk once.
    fn step(&mut self) -> Result<(), WorkError> {
        self.catalog.note(|status| status.working = true);
        let result = self.follow();
        if let Err(error) = &result
            && !self.stop.is_set()
        {
            self.recover(error);
        }
        self.catalog.note(|status| {
            status.working = false;
            status.last_error = result.as_ref().err().map(ToString::to_string);
        });
        result
    }

    fn suspect(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_checked = false;
        }
    }

    fn stop_flag(&self) -> Arc<StopFlag> {
        Arc::clone(&self.stop)
    }
}

impl CatalogTask {
    /// A task that follows `index`, and answers through `catalog`. It does nothing until it runs.
    pub(crate) fn new(settings: CatalogSettings, catalog: Catalog, index: IndexHandle) -> Self {
        Self {
            settings,
            catalog,
            index,
            stop: Arc::new(StopFlag::new()),
            directory: None,
            refusals: 0,
            open: None,
        }
    }

    /// Runs until the mirror stops.
    ///
    /// # Errors
    /// If the work has panicked. The process must end then.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), JoinError> {
        let followed = (Arc::clone(self.catalog.questions()), self.index.clone());
        follow_views(self, followed, stop).await
    }

    /// Closes the database, as the end of the process does.
    #[cfg(test)]
    pub(super) fn close(&mut self) {
        self.open = None;
        self.catalog.publish(None);
    }

    fn follow(&mut self) -> Result<(), WorkError> {
        while let Some(view) = self.index.view() {
            let published = self.catalog.published();
            let is_shown = published.is_some_and(|published| Arc::ptr_eq(&published.view, &view));
            if is_shown && self.open.is_some() {
                break;
            }
            self.bring_up_to(view)?;
        }
        self.check()
    }

    /// Keeps nothing that may be the reason of a failure.
    fn recover(&mut self, error: &WorkError) {
        let is_damaged = match error {
            WorkError::Damaged => true,
            WorkError::Database(error) => is_damage(error),
            _ => false,
        };
        let open = self.open.take();
        if let Some(directory) = &self.directory {
            let removed = directory.building().map(drop);
            let database = open
                .map(|open| open.path)
                .or_else(|| directory.newest().ok().flatten());
            let removed = match database.filter(|_| is_damaged) {
                Some(database) => {
                    self.catalog.publish(None);
                    removed.and_then(|()| remove_database(&database))
                }
                None => removed,
            };
            if let Err(error) = removed {
                tracing::debug!(error = %error, "a useless catalog could not be removed");
            }
        }
    }

    /// Checks the whole file once, after it was published: that reads all of it, and damage is rare.
    fn check(&mut self) -> Result<(), WorkError> {
        if let Some(open) = self.open.as_mut().filter(|open| !open.is_checked) {
            tracing::debug!("the catalog is being checked");
            if !open.database.is_intact()? {
                return Err(WorkError::Damaged);
            }
            tracing::debug!("the catalog is intact");
            open.is_checked = true;
        }
        Ok(())
    }

    fn bring_up_to(&mut self, view: Arc<View>) -> Result<(), WorkError> {
        let began = Instant::now();
        let listing = view.listing();
        if self.open.is_none() {
            self.open = self.open_from_disk(&view)?;
        }
        let is_followed = match &mut self.open {
            Some(open) => open.follow(&view, &listing, &self.catalog, &self.stop)?,
            None => false,
        };
        if !is_followed {
            self.build(&view, &listing)?;
        }
        let what = if is_followed { "followed" } else { "built" };
        let published = self.catalog.published();
        tracing::info!(
            index.commit = %view.commit(),
            catalog.crates = published.map_or(0, |published| published.names.count()),
            catalog.milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "the catalog is up to date: {what}"
        );
        Ok(())
    }

    fn directory(&mut self, view: &View) -> Result<&CatalogDir, WorkError> {
        let path = self.settings.data_dir.join("catalog");
        let lock = || match view.may_write_beside() {
            true => lock_directory(&path),
            // Another mirror may have the lock of the index.
            false => Ok(DirectoryLock::NotWritable),
        };
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => match lock()? {
                DirectoryLock::Ours(lock) => {
                    let lock = Some(lock);
                    CatalogDir { path, lock }
                }
                DirectoryLock::InUse if self.refusals < REFUSALS_MAX => {
                    self.refusals += 1;
                    return Err(WorkError::InUse);
                }
                DirectoryLock::InUse | DirectoryLock::NotWritable => {
                    tracing::warn!(
                        "the catalog lies in a temporary directory, because DATA_DIR cannot be written or another mirror uses it"
                    );
                    CatalogDir::temporary(&self.settings.temp_dir)?
                }
            },
        };
        let is_temporary = directory.is_temporary();
        self.catalog
            .note(|status| status.is_temporary = is_temporary);
        Ok(self.directory.insert(directory))
    }

    fn open_from_disk(&mut self, view: &View) -> Result<Option<Open>, WorkError> {
        let stop = Arc::clone(&self.stop);
        let directory = self.directory(view)?;
        let Some(path) = directory.newest()? else {
            return Ok(None);
        };
        directory.sweep(&path)?;
        Ok(Some(Open::at(path, &stop)?))
    }

    /// Builds a database beside the current one, and takes its place.
    fn build(&mut self, view: &Arc<View>, listing: &Listing) -> Result<(), WorkError> {
        let stop = Arc::clone(&self.stop);
        let path = self.directory(view)?.building()?;
        tracing::debug!("the catalog is being built");
        let database = Crates::create(&path, &stop)?;
        let mut names = TableBuilder::default();
        for_each_record(view, listing.crates(), &stop, |record| {
            let row = database.add(key_of(&record.file), None, &record)?;
            if let Some(shown) = &record.summary {
                names.push_shown(row, shown);
            }
            Ok(())
        })?;
        let state = State {
            generation: 1,
            commit: view.commit().to_string(),
            trees: trees_of(listing),
        };
        tracing::debug!("the catalog gets its indexes");
        database.finish(&state)?;
        tracing::debug!("the catalog is put in its place");
        let path = self.directory(view)?.activate()?;
        let open = Open {
            listing: Some(listing.clone()),
            is_checked: true,
            ..Open::at(path, &stop)?
        };
        open.publish(view, names.build(), &self.catalog)?;
        // The old one is closed first. Questions that are still being answered from it keep its files open.
        let path = self.open.insert(open).path.clone();
        self.directory(view)?.sweep(&path)?;
        return_freed_blocks();
        Ok(())
    }
}

impl Open {
    /// Opens a database that was not checked yet.
    fn at(path: PathBuf, stop: &Arc<StopFlag>) -> rusqlite::Result<Self> {
        let database = Crates::open(&path, stop)?;
        Ok(Self {
            state: database.state()?,
            readers: Arc::new(Readers::new(path.clone())),
            database,
            path,
            listing: None,
            is_checked: false,
        })
    }

    /// Follows a view. Returns `false`, and has done nothing, if a new database is faster.
    fn follow(
        &mut self,
        view: &Arc<View>,
        listing: &Listing,
        catalog: &Catalog,
        stop: &Arc<StopFlag>,
    ) -> Result<bool, WorkError> {
        let earlier = self.listing.clone();
        let difference = match &earlier {
            Some(earlier) => self.difference_since(earlier, listing)?,
            None if self.state.trees == trees_of(listing) => Difference::default(),
            None => self.difference(listing)?,
        };
        let changes = difference.read.len() + difference.gone.len();
        let published = catalog.published();
        let known = published.filter(|published| Arc::ptr_eq(&published.readers, &self.readers));
        if changes > FOLLOWED_MIN && changes > listing.count() / REBUILT_PART {
            return Ok(false);
        }
        let state = State {
            generation: self.state.generation.saturating_add(1),
            commit: view.commit().to_string(),
            trees: trees_of(listing),
        };
        // The removed rows of shown crates, with their published names.
        let mut without: BTreeMap<i64, String> = BTreeMap::new();
        let mut with: Vec<(i64, ShownCrate)> = Vec::new();
        tracing::debug!(
            catalog.changes = changes,
            "the catalog is being brought up to date"
        );
        // The names are made before the end of the transaction, so that they can be published at once after it.
        let names = self.database.transaction(|database| {
            for row in difference.gone {
                without.extend(database.remove(row)?);
            }
            for_each_record(view, difference.read, stop, |record| {
                let key = key_of(&record.file);
                let row = database.row_of(key, &record.file)?;
                if let Some(row) = row {
                    without.extend(database.remove(row)?);
                }
                let row = database.add(key, row, &record)?;
                with.extend(record.summary.map(|shown| (row, shown)));
                Ok(())
            })?;
            database.set_state(&state)?;
            Ok::<NameTable, WorkError>(match &known {
                Some(known) => known
                    .names
                    .updated(&without, with.iter().map(|(row, shown)| (*row, shown))),
                None => database.names()?,
            })
        })?;
        self.state = state;
        self.publish(view, names, catalog)?;
        let is_first = self.listing.replace(listing.clone()).is_none();
        // A small step leaves little memory. The follower of the index returns it every 30 s.
        if is_first || changes > FOLLOWED_MIN {
            return_freed_blocks();
        }
        Ok(true)
    }

    /// What has changed since a listing in memory: in proportion to that.
    fn difference_since<'a>(
        &self,
        earlier: &'a Listing,
        listing: &'a Listing,
    ) -> Result<Difference<'a>, WorkError> {
        let mut difference = Difference::default();
        for name in listing.changes_since(earlier) {
            match listing.find(name) {
                Some(listed) => difference.read.push(listed),
                None => difference
                    .gone
                    .extend(self.database.row_of(key_of(name), name)?),
            }
        }
        Ok(difference)
    }

    /// What has changed since the database was written, by the ids of all index files. So it does not matter whether the
    /// clone still has the old state: the upstream may have squashed its history, or be another one.
    fn difference<'a>(&self, listing: &'a Listing) -> Result<Difference<'a>, WorkError> {
        let mut crates = listing.crates();
        let mut is_known = vec![false; crates.len()];
        let mut gone = Vec::new();
        self.database.for_each_crate(|row, file, source, shown| {
            let place = crates.binary_search_by(|listed| listed.name.cmp(file));
            let listed = place.ok().and_then(|place| crates.get(place).copied());
            let (Some(listed), Ok(place)) = (listed, place) else {
                gone.push(row);
                return;
            };
            let shown_now = listing.shown(listed);
            let is_same = listed.source.0.as_bytes() == source
                && shown_now.as_ref().map(|shown| shown.0.as_bytes()) == shown;
            if let Some(is_known) = is_known.get_mut(place).filter(|_| is_same) {
                *is_known = true;
            }
        })?;
        let mut is_known = is_known.into_iter();
        crates.retain(|_| !is_known.next().unwrap_or(false));
        Ok(Difference { read: crates, gone })
    }

    fn publish(
        &self,
        view: &Arc<View>,
        names: NameTable,
        catalog: &Catalog,
    ) -> Result<(), WorkError> {
        let skipped = self.database.count_skipped()?;
        catalog.note(|status| status.skipped_files = skipped);
        catalog.publish(Some(Published {
            view: Arc::clone(view),
            names,
            generation: self.state.generation,
            readers: Arc::clone(&self.readers),
        }));
        Ok(())
    }
}

fn trees_of(listing: &Listing) -> (Vec<u8>, Vec<u8>) {
    let (source, shown) = listing.trees();
    let bytes = |tree: crate::index::BlobId| tree.0.as_bytes().to_vec();
    (bytes(source), bytes(shown))
}

/// Reads crates with several threads, and calls `write` with each of them on this one.
fn for_each_record(
    view: &View,
    crates: Vec<ListedCrate<'_>>,
    stop: &StopFlag,
    mut write: impl FnMut(CrateRecord) -> Result<(), WorkError>,
) -> Result<(), WorkError> {
    let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = processors.min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN));
    let (send, receive): (SyncSender<CrateRecord>, Receiver<CrateRecord>) =
        sync_channel(WAITING_MAX);
    std::thread::scope(|scope| {
        let read = std::thread::Builder::new().spawn_scoped(scope, move || {
            let read = view.visit_crates(crates, threads, stop, |content| {
                let record = CrateRecord::read(&content);
                send.send(record).map_err(|_closed| WorkError::Ended)
            });
            // Its handles have seen every object. Closing them frees that memory.
            view.close_idle_handles();
            read
        })?;
        // On the first error the receiver is dropped, which ends the reading threads.
        let written = receive.into_iter().try_for_each(&mut write);
        let read = read
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.and(read)
    })
}
