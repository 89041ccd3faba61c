//! Owns the clones on disk: makes a clone, fetches into it, keeps it small, replaces it, and removes replaced clones.
//!
//! Only this module changes clones. It passes the content of a clone to the publisher.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::error::RefreshError;
use super::publisher::Publisher;
use super::settings::FollowerSettings;
use crate::index::git::overlay;
use crate::index::handle::IndexHandle;
use crate::index::retry::Repairs;
use crate::index::source::clone_dir::{self, Access, CloneDir};
use crate::index::source::fetch::{FetchError, Transfer};
use crate::index::source::local_upstream;
use crate::index::source::repository::Repository;
use crate::index::source::snapshot::Source;
use crate::index::source::transfers::Transfers;
use crate::index::source::upkeep::{self, Due, FAILURE_PAUSE, RENEWAL_PAUSE};
use crate::index::status::{ClonesSize, Phase};
use crate::memory::return_freed_blocks;
use crate::observability::LastFailure;

/// The number of local failures in a row after which a new clone replaces the current one.
const LOCAL_FAILURES_MAX: u32 = 3;

/// The owner of the clones.
#[derive(Debug)]
pub(crate) struct Clones {
    pub(super) settings: FollowerSettings,
    handle: IndexHandle,
    /// The locked data directory; `None` while it is unlocked.
    pub(super) directory: Option<CloneDir>,
    /// The clone in use.
    pub(super) current: Option<Arc<Repository>>,
    /// Replaced clones that requests may still read, and that could not be removed yet.
    pub(super) retired: Vec<Arc<Repository>>,
    /// Failures in a row that the clone may have caused.
    failures: u32,
    repairs: Repairs,
    /// The earliest time to make the clone smaller again.
    next_upkeep: Option<Instant>,
    transfers: Transfers,
    /// What the log has told of the record that could not be written.
    unwritten: LastFailure,
}

/// What a successful refresh did.
pub(crate) enum Refreshed {
    /// It fetched from the upstream, and began at this time.
    Fetched(SystemTime),
    /// It served the clone on disk, because the settings forbid a fetch.
    NotAsked,
}

impl Clones {
    /// Makes the owner. It opens nothing yet.
    pub(crate) fn new(settings: FollowerSettings, handle: IndexHandle) -> Self {
        Self {
            settings,
            handle,
            directory: None,
            current: None,
            retired: Vec::new(),
            failures: 0,
            repairs: Repairs::default(),
            next_upkeep: None,
            transfers: Transfers::default(),
            unwritten: LastFailure::default(),
        }
    }

    /// The time until the next repair or damage check is allowed.
    pub(super) fn wait_for_repair(&self) -> Duration {
        self.repairs.wait(Instant::now())
    }

    /// Does the maintenance after a successful refresh.
    pub(super) fn after_success(&mut self, publisher: &mut Publisher) {
        self.failures = 0;
        self.maintain(publisher);
        self.drop_retired();
        self.measure();
    }

    /// Notes what the clones take on the disk. A clone has some hundred files at most.
    fn measure(&self) {
        let Some(repository) = &self.current else {
            return;
        };
        // All clones are in one directory: a replaced one may still be read.
        let own = repository.path();
        let all = own.parent().unwrap_or(own);
        let packs = upkeep::packs_in(repository.path()).map_or(0, |packs| packs.len());
        let bytes = upkeep::bytes_in(all);
        self.handle.note_size(ClonesSize { bytes, packs });
    }

    /// Publishes the current clone again if there are rules: facts may have changed.
    pub(super) fn show_again(&self, publisher: &mut Publisher) -> Result<(), RefreshError> {
        match &self.current {
            Some(repository) if publisher.maker.has_rules() => publisher.show(repository, None),
            _ => Ok(()),
        }
    }

    /// Fetches, or makes a clone, as the settings say, and publishes the result.
    pub(crate) fn refresh(&mut self, publisher: &mut Publisher) -> Result<Refreshed, RefreshError> {
        if !self.settings.may_fetch() {
            self.follow_disk(publisher)?;
            return Ok(Refreshed::NotAsked);
        }
        self.open_data_dir(publisher)?;
        // Computed before the damage check, because the check starts a pause in which `allowed` is false.
        let now = Instant::now();
        let replace = self.failures >= LOCAL_FAILURES_MAX && self.repairs.allowed(now);
        self.check_current();
        match self.current.clone() {
            Some(_) if self.settings.interval.is_none() => {
                self.show_again(publisher)?;
                return Ok(Refreshed::NotAsked);
            }
            Some(repository) if !replace => self.fetch(&repository, publisher),
            current => {
                if current.is_some() {
                    self.repairs.note(now);
                    self.failures = 0;
                }
                self.clone_anew(publisher)
            }
        }
        .map(Refreshed::Fetched)
    }

    /// Locks the data directory and serves the clone in it. Does nothing if that is done already, unless the directory
    /// was removed meanwhile.
    fn open_data_dir(&mut self, publisher: &mut Publisher) -> Result<(), RefreshError> {
        if let Some(clones) = &self.directory {
            if clones.still_exists() {
                return Ok(());
            }
            tracing::warn!("the index directory in DATA_DIR has vanished; it is made again");
            self.directory = None;
            self.retired.extend(self.current.take());
        }
        let clones = CloneDir::open(clone_dir::root(&self.settings.data_dir))?;
        if let Some(path) = clones.current() {
            match self.open_clone(&path, publisher) {
                Ok(true) => {}
                Ok(false) => tracing::info!(
                    index.upstream = %self.settings.url,
                    "the clone on disk is of another index; it is not served, and is removed once this index is cloned"
                ),
                Err(error @ (RefreshError::Damaged(_) | RefreshError::Refused(_))) => {
                    tracing::warn!(error = %error, "the clone on disk is set aside and will be replaced");
                    if let Err(error) = clones.set_aside(&path) {
                        tracing::warn!(error = %error, "the damaged clone could not be set aside");
                    }
                }
                // Not a fault of the clone, for example a full disk.
                Err(error) => return Err(error),
            }
        }
        let current = self.current.iter().map(|current| current.path().to_owned());
        let keep = current.chain(self.irreplaceable(&clones)).collect();
        warn_if_left(clones.sweep_leftovers(keep));
        self.directory = Some(clones);
        Ok(())
    }

    /// Publishes the clone at `path`. Returns `false` if it is a clone of another index.
    fn open_clone(&mut self, path: &Path, publisher: &mut Publisher) -> Result<bool, RefreshError> {
        let record = clone_dir::read_record(path).map_err(|error| {
            RefreshError::Damaged(format!("mirror.json cannot be read: {error}"))
        })?;
        if !record.is_of(&self.settings.url) {
            return Ok(false);
        }
        self.serve_clone(path, record.last_success(), publisher)?;
        Ok(true)
    }

    /// Publishes the clone at `path`. `last_success` is the time of its last fetch.
    pub(super) fn serve_clone(
        &mut self,
        path: &Path,
        last_success: Option<SystemTime>,
        publisher: &mut Publisher,
    ) -> Result<(), RefreshError> {
        clone_dir::tidy(path)
            .and_then(|()| clone_dir::disarm(path))
            .and_then(|()| overlay::disarm(path))
            .map_err(|error| RefreshError::Damaged(error.to_string()))?;
        self.serve(
            Repository::open(path, Access::Full)?,
            last_success,
            publisher,
        )
    }

    /// Publishes a repository. `last_success` is the time of its last fetch.
    pub(crate) fn serve(
        &mut self,
        repository: Repository,
        last_success: Option<SystemTime>,
        publisher: &mut Publisher,
    ) -> Result<(), RefreshError> {
        let repository = Arc::new(repository);
        let view = publisher.maker.view_of_fetch(&repository, last_success)?;
        self.handle.remember_success(last_success);
        publisher.publish(view, "serving the index found on disk");
        self.retired.extend(self.current.replace(repository));
        Ok(())
    }

    /// Retires the current clone if it is damaged. Its view stays in use until there is a new one, because everything
    /// that can still be read from it is correct.
    fn check_current(&mut self) {
        if let Some(repository) = self.damaged_clone() {
            tracing::warn!("the clone on disk is damaged and will be replaced");
            self.current = None;
            self.retired.push(repository);
        }
    }

    /// Returns the current clone if it is damaged: a read has failed, and fails again now.
    pub(super) fn damaged_clone(&mut self) -> Option<Arc<Repository>> {
        let repository = self.current.clone()?;
        let now = Instant::now();
        if !repository.is_suspect() || !self.repairs.allowed(now) {
            return None;
        }
        self.repairs.note_check(now);
        let damaged = Source::confirm_damage(&repository, self.handle.stopping());
        if damaged {
            self.repairs.note(now);
        }
        damaged.then_some(repository)
    }

    /// Fetches, and publishes the result. Returns when the fetch began.
    fn fetch(
        &mut self,
        repository: &Arc<Repository>,
        publisher: &mut Publisher,
    ) -> Result<SystemTime, RefreshError> {
        let began = self.settings.clock.now();
        let fetched = local_upstream::check(&self.settings.url)
            .map_err(RefreshError::Upstream)
            .and_then(|()| Ok(self.transfer(Transfer::Fetch, repository.path())?));
        match &fetched {
            Err(RefreshError::Fetch(FetchError::Local(_))) => {
                // The clone may be damaged. The next refresh checks it.
                self.failures += 1;
                repository.suspect();
            }
            _ => self.failures = 0,
        }
        if let Err(error) = fetched {
            // Facts may have changed all the same.
            if let Err(error) = self.show_again(publisher) {
                tracing::debug!(error = %error, "the clone could not be shown again");
            }
            return Err(error);
        }
        if let Err(error) = publisher.show(repository, Some(began)) {
            if let RefreshError::Refused(_) = error {
                self.forget_refused(repository, publisher);
            }
            return Err(error);
        }
        // Not fatal. A failure only means that the time of this fetch is lost after a restart.
        let written = self.write_record(repository.path(), began);
        if let Some(error) = self.unwritten.news_of(&written) {
            tracing::warn!(
                error,
                "the time of this fetch could not be written to DATA_DIR"
            );
        }
        Ok(began)
    }

    /// Points the clone's branch back to the served commit, so a restart serves that one.
    fn forget_refused(&mut self, repository: &Arc<Repository>, publisher: &mut Publisher) {
        let served = self.handle.view();
        if let Some(view) =
            served.filter(|view| Arc::ptr_eq(view.source().repository(), repository))
            && let Err(error) = repository.reset_to(view.commit())
        {
            tracing::warn!(error = %error, "the clone could not be reset to the commit that is served");
        }
        // Each refused commit leaves a pack, so many of them need a roll-up, too.
        self.maintain(publisher);
    }

    fn transfer(&mut self, transfer: Transfer, clone: &Path) -> Result<(), FetchError> {
        let upstream = (&self.settings.url, &self.settings.outgoing);
        self.transfers.run(transfer, clone, upstream, &self.handle)
    }

    fn write_record(&self, clone: &Path, began: SystemTime) -> io::Result<()> {
        clone_dir::write_record(clone, &self.settings.url, Some(began))
    }

    /// Makes the clone smaller if it is too large. After a failure the clone stays as it is, and works as before.
    fn maintain(&mut self, publisher: &mut Publisher) {
        let Some(repository) = self.current.clone() else {
            return;
        };
        if self.directory.as_ref().is_some_and(CloneDir::is_read_only) {
            return;
        }
        let now = Instant::now();
        // An abandoned transfer may still write to the clone. A copy of it would be incomplete.
        if self.next_upkeep.is_some_and(|next| now < next) || self.transfers.may_still_write() {
            return;
        }
        let done = match upkeep::due(repository.path(), &self.settings.upkeep) {
            Ok(Due::Nothing) => return,
            Ok(Due::RollUp) => match self.roll_up(&repository, publisher) {
                // An object cannot be read, perhaps one that only git clients need. Without a new clone the number of
                // packs would grow without limit.
                Err(RefreshError::Damaged(why) | RefreshError::Refused(why))
                    if self.repairs.allowed(now) && self.settings.may_renew() =>
                {
                    self.repairs.note(now);
                    tracing::warn!(
                        error = why,
                        "small packs could not be rolled up; the clone will be replaced"
                    );
                    self.clone_anew(publisher).map(drop)
                }
                other => other,
            },
            Ok(Due::Renewal) if self.settings.may_renew() => {
                // The new clone may be as large, with many files that rules have edited.
                self.next_upkeep = now.checked_add(RENEWAL_PAUSE);
                self.clone_anew(publisher).map(drop)
            }
            // Only the upstream can tell which objects belong to the index.
            Ok(Due::Renewal) => return,
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) | Err(RefreshError::Fetch(FetchError::Stopped)) => {}
            Err(error) => {
                self.next_upkeep = self.next_upkeep.max(now.checked_add(FAILURE_PAUSE));
                tracing::warn!(error = %error, "the clone could not be made smaller; this is tried again later");
            }
        }
    }

    fn roll_up(
        &mut self,
        repository: &Arc<Repository>,
        publisher: &mut Publisher,
    ) -> Result<(), RefreshError> {
        let Some(path) = self.directory.as_mut().map(CloneDir::next).transpose()? else {
            return Ok(());
        };
        let progress = self.handle.begin(Phase::Maintaining);
        let rolled_up = upkeep::roll_up(repository.path(), &path, progress.stop_flag());
        // A stop can cause any error, and needs no warning.
        let rolled_up = if progress.is_stopped() {
            Err(FetchError::Stopped.into())
        } else {
            rolled_up.map(|()| None).map_err(RefreshError::from)
        };
        self.replace_by(&path, rolled_up, "small packs were rolled up", publisher)
    }

    /// Makes a new clone, and replaces the current one with it. Returns when the transfer began.
    pub(crate) fn clone_anew(
        &mut self,
        publisher: &mut Publisher,
    ) -> Result<SystemTime, RefreshError> {
        local_upstream::check(&self.settings.url).map_err(RefreshError::Upstream)?;
        let began = self.settings.clock.now();
        let Some(path) = self.directory.as_mut().map(CloneDir::next).transpose()? else {
            return Ok(began);
        };
        // Each retry of a first clone is the same news.
        if self.handle.status().failures == 0 {
            tracing::info!(index.upstream = %self.settings.url, "cloning the index");
        }
        let cloned = self.transfer(Transfer::CloneLatest, &path);
        let cloned = cloned.map_err(RefreshError::from).and_then(|()| {
            self.write_record(&path, began)?;
            Ok(Some(began))
        });
        self.replace_by(&path, cloned, "serving the index", publisher)?;
        Ok(began)
    }

    /// Replaces the current clone with the new one at `path`, if it was made successfully: by a fetch that began at this
    /// time, or else from the current one.
    fn replace_by(
        &mut self,
        path: &Path,
        made: Result<Option<SystemTime>, RefreshError>,
        message: &str,
        publisher: &mut Publisher,
    ) -> Result<(), RefreshError> {
        // The clone has a record already: a rolled-up clone has a copy of the record of the original.
        let replaced = made.and_then(|began| {
            let repository = Arc::new(Repository::open(path, Access::Full)?);
            // Before `activate`: a clone that cannot be read must not become the clone in use.
            let view = publisher.maker.view_of_fetch(&repository, began)?;
            if let Some(directory) = &self.directory {
                directory.activate(path)?;
            }
            Ok((repository, view))
        });
        match replaced {
            Ok((repository, view)) => {
                publisher.publish(view, message);
                self.retired.extend(self.current.replace(repository));
                return_freed_blocks();
                Ok(())
            }
            Err(error) => {
                // Removes the incomplete clone and a damaged one: the disk may be full.
                self.sweep();
                Err(error)
            }
        }
    }

    /// Removes replaced clones that no request reads any more, and leftovers of a crash.
    fn drop_retired(&mut self) {
        // A count of 1 is our own reference: no view, and so no request, uses the clone.
        self.retired
            .retain(|repository| Arc::strong_count(repository) > 1);
        // A client can read one for hours, and only seldom needs the packs that its handles keep open.
        for repository in &self.retired {
            repository.close_idle_handles();
        }
        self.sweep();
    }

    /// Removes every clone that is not in use.
    fn sweep(&self) {
        let Some(clones) = &self.directory else {
            return;
        };
        let in_use = self.current.iter().chain(&self.retired);
        let in_use = in_use.map(|repository| repository.path().to_owned());
        let keep: Vec<PathBuf> = in_use.chain(self.irreplaceable(clones)).collect();
        warn_if_left(clones.sweep(&keep));
    }

    /// The clone on disk, if the mirror cannot restore its content. Offline that is any clone, even a damaged one.
    /// Otherwise it is the clone of another upstream, until our clone has replaced it.
    fn irreplaceable(&self, clones: &CloneDir) -> Option<PathBuf> {
        let is_foreign = |path: &Path| {
            clone_dir::read_record(path).is_ok_and(|record| !record.is_of(&self.settings.url))
        };
        let current = clones.current()?;
        (!self.settings.may_fetch() || is_foreign(&current)).then_some(current)
    }
}

/// Only a warning: a clone that cannot be removed takes disk space and does no other harm.
fn warn_if_left(swept: io::Result<()>) {
    if let Err(error) = swept {
        tracing::warn!(error = %error, "an old clone could not be removed");
    }
}
