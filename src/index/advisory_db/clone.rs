//! Owns the clone of the advisory database: makes it, fetches into it, keeps it small, replaces it, and publishes its
//! content.
//!
//! Unlike the clone of the index it has the whole history, and git clients get it as it is. RustSec's database is small.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::read_everything;
use super::error::DatabaseError;
use super::handle::{AdvisoryCopy, AdvisoryHandle};
use super::read::{Content, read};
use super::settings::AdvisorySettings;
use crate::index::git::upload_pack::{CLONE_BRANCH, GitIndex};
use crate::index::handle::IndexHandle;
use crate::index::retry::{ClientsChecks, Repairs};
use crate::index::source::borrowed_clone::BorrowedClone;
use crate::index::source::clone_dir::{self, Access, CloneDir, DataDirError, refuses_for_good};
use crate::index::source::fetch::{FetchError, Transfer};
use crate::index::source::local_upstream;
use crate::index::source::repository::Repository;
use crate::index::source::transfers::Transfers;
use crate::index::source::upkeep::{self, Due, FAILURE_PAUSE, RENEWAL_PAUSE};
use crate::index::status::Phase;
use crate::memory::return_freed_blocks;
use crate::observability::LastFailure;

/// The number of local failures in a row after which a new clone replaces the current one.
const LOCAL_FAILURES_MAX: u32 = 3;

/// What is about to be published.
type Prepared = (Content, Arc<GitIndex>);

/// The owner of the clone. Everything here blocks.
#[derive(Debug)]
pub(super) struct DatabaseClone {
    pub(super) settings: AdvisorySettings,
    pub(super) handle: AdvisoryHandle,
    /// Knows whether the mirror has the lock on the data directory.
    pub(super) index: IndexHandle,
    /// The locked directory of the clones.
    directory: Option<CloneDir>,
    current: Option<Arc<Repository>>,
    /// Replaced clones that requests may still read.
    retired: Vec<Arc<Repository>>,
    /// Failures in a row that the clone may have caused.
    failures: u32,
    /// Whether the next refresh makes a new clone.
    must_replace: bool,
    pub(super) repairs: Repairs,
    /// The damage checks that clients cause.
    checks: ClientsChecks,
    /// The earliest time to make the clone smaller again.
    next_upkeep: Option<Instant>,
    transfers: Transfers,
    /// The last failure in the log. So the log reports each change once.
    told: LastFailure,
    /// The same of the record that could not be written.
    unwritten: LastFailure,
}

impl DatabaseClone {
    /// Makes the owner. It opens nothing yet.
    pub(super) fn new(
        settings: AdvisorySettings,
        handle: AdvisoryHandle,
        index: IndexHandle,
    ) -> Self {
        Self {
            settings,
            handle,
            index,
            directory: None,
            current: None,
            retired: Vec::new(),
            failures: 0,
            must_replace: false,
            repairs: Repairs::default(),
            checks: ClientsChecks::default(),
            next_upkeep: None,
            transfers: Transfers::default(),
            told: LastFailure::default(),
            unwritten: LastFailure::default(),
        }
    }

    /// Publishes the copy on disk, if there is one. Fetches nothing.
    pub(super) fn open_copy_on_disk(&mut self) {
        // Without a copy nothing is written to the data directory: another mirror may be using it.
        if !self.has_copy_on_disk() {
            return;
        }
        if let Err(error) = self.open() {
            tracing::debug!(error = %error, "the copy of the advisory database on disk is not used yet");
        }
    }

    /// Brings the copy up to date and publishes it. Returns the number of failures in a row, with the pause that the
    /// upstream asks for. `None` after a success.
    pub(super) fn refresh(&mut self) -> Option<(u32, Duration)> {
        let error = match self.try_refresh() {
            Ok(()) => {
                if self.told.note_success() {
                    tracing::info!(advisories.upstream = %self.settings.url, "the advisory database is up to date again");
                }
                self.maintain();
                self.drop_retired();
                self.handle.work().enter(Phase::Idle);
                return None;
            }
            Err(DatabaseError::Fetch(FetchError::Stopped)) => return None,
            Err(error) => error,
        };
        self.drop_retired();
        let failures = self.handle.work().failed(&error, false);
        let why = error.to_string();
        if self.told.note_failure(&why) {
            let meanwhile = match self.handle.copy() {
                Some(_) => "the last copy stays in use",
                None => "there are no advisories until a copy exists",
            };
            tracing::warn!(
                advisories.upstream = %self.settings.url,
                error = why,
                "the advisory database could not be fetched; {meanwhile}"
            );
        }
        let asked = match &error {
            DatabaseError::Fetch(error) => error.asked_pause(self.settings.clock.now()),
            _ => Duration::ZERO,
        };
        Some((failures, asked))
    }

    /// The time until a check that a client causes is allowed.
    pub(super) fn wait_for_check(&self) -> Duration {
        let now = Instant::now();
        self.checks.wait(now).max(self.repairs.wait(now))
    }

    /// Checks the clone, because git could not answer a client. Returns whether it is damaged, so the next refresh
    /// replaces it.
    pub(super) fn check(&mut self) -> bool {
        let began = Instant::now();
        let is_damaged = self.find_damage();
        self.checks.note(began);
        is_damaged
    }

    /// Brings the copy up to date and publishes it, once.
    pub(super) fn try_refresh(&mut self) -> Result<(), DatabaseError> {
        if !self.settings.may_fetch() {
            return self.follow_disk();
        }
        self.open()?;
        let now = Instant::now();
        if self.repairs.allowed(now) {
            if self.failures >= LOCAL_FAILURES_MAX {
                self.repairs.note(now);
                self.must_replace = true;
            } else if self.current.as_deref().is_some_and(Repository::is_suspect) {
                self.find_damage();
            }
        }
        match self.current.clone() {
            Some(repository) if !self.must_replace => self.fetch(&repository)?,
            _ => self.clone_anew()?,
        }
        self.handle.work().succeeded(self.settings.clock.now());
        Ok(())
    }

    /// Publishes the copy on disk again: somebody may have replaced it.
    fn follow_disk(&mut self) -> Result<(), DatabaseError> {
        if self.has_copy_on_disk() {
            let opened = self.open();
            // Unlocked between two refreshes, so that it can be replaced.
            self.directory = None;
            opened?;
        }
        if self.current.is_none() {
            return Err(DatabaseError::NoCopy);
        }
        self.handle.work().recovered();
        Ok(())
    }

    fn has_copy_on_disk(&self) -> bool {
        clone_dir::current(&self.settings.directory()).is_some()
    }

    /// Whether the mirror serves an index that it may not write to: another mirror has the lock on the data directory.
    fn index_is_only_read(&self) -> bool {
        let view = self.index.view();
        view.is_some_and(|view| !view.source().repository().has_data_dir())
    }

    /// Locks the directory, and publishes the copy in it. Does nothing if that is done already.
    fn open(&mut self) -> Result<(), DatabaseError> {
        if let Some(directory) = &self.directory {
            if directory.still_exists() {
                return Ok(());
            }
            tracing::warn!("the advisory database in DATA_DIR has vanished; it is made again");
            self.directory = None;
            self.retired.extend(self.current.take());
        }
        let root = self.settings.directory();
        let opened = if self.index_is_only_read() {
            Err(DataDirError::Locked)
        } else {
            CloneDir::open(root.clone())
        };
        let (directory, why) = match opened {
            Ok(directory) => (directory, None),
            Err(DataDirError::Disk(error)) if !refuses_for_good(&error) => return Err(error.into()),
            Err(error) => (CloneDir::read_only(root), Some(error)),
        };
        let path = directory.current();
        self.directory = Some(directory);
        if let Some(path) = path
            && let Err(error) = self.open_clone(&path, why.is_some())
        {
            self.directory = None;
            return Err(error);
        }
        match why {
            // Without the network a copy that can be read is all that there can be.
            Some(error) if self.settings.may_fetch() => {
                self.directory = None;
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// Publishes the clone at `path`. A damaged one is set aside.
    fn open_clone(&mut self, path: &Path, only_reads: bool) -> Result<(), DatabaseError> {
        let record = clone_dir::read_record(path).ok();
        let is_ours = record
            .as_ref()
            .is_some_and(|record| record.is_of(&self.settings.url));
        if !is_ours && self.settings.may_fetch() {
            tracing::info!(
                advisories.upstream = %self.settings.url,
                "the advisory database on disk is of another upstream; it is not used, and is removed once this one is cloned"
            );
            return Ok(());
        }
        let opened = if only_reads {
            // Such a clone must not be written to.
            BorrowedClone::make(path, &self.settings.temp_dir)
                .map_err(DatabaseError::from)
                .and_then(|borrowed| Ok(Repository::open_borrowed(borrowed)?))
        } else {
            open_owned(path)
        };
        let shown = opened.and_then(|repository| {
            let repository = Arc::new(repository);
            self.publish(self.prepare(&repository)?);
            Ok(repository)
        });
        match shown {
            Ok(repository) => {
                let last_success = record.and_then(|record| record.last_success());
                self.handle.work().remember_success(last_success);
                self.retired.extend(self.current.replace(repository));
                Ok(())
            }
            Err(error @ (DatabaseError::Damaged(_) | DatabaseError::Refused(_)))
                if !only_reads && self.settings.may_fetch() =>
            {
                tracing::warn!(error = %error, "the copy of the advisory database on disk is set aside and will be replaced");
                if let Some(directory) = &self.directory
                    && let Err(error) = directory.set_aside(path)
                {
                    tracing::warn!(error = %error, "the damaged copy could not be set aside");
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn fetch(&mut self, repository: &Arc<Repository>) -> Result<(), DatabaseError> {
        self.check_local_upstream()?;
        let fetched = self.transfer(Transfer::Fetch, repository.path());
        self.failures = match fetched {
            Err(FetchError::Local(_)) => {
                // The clone may be damaged. The next refresh checks it.
                repository.suspect();
                self.failures + 1
            }
            _ => 0,
        };
        fetched?;
        let shown = self.show(repository);
        match &shown {
            Err(DatabaseError::Damaged(_))
                if self.repairs.allowed(Instant::now()) && self.find_damage() =>
            {
                return self.clone_anew();
            }
            Err(DatabaseError::Refused(_)) => {
                // A restart must serve what is served now.
                if let Some(copy) = self.handle.copy()
                    && let Err(error) = repository.reset_to(copy.git.commit)
                {
                    tracing::warn!(error = %error, "the advisory database could not be reset to the commit that is served");
                }
            }
            Err(_) => {}
            Ok(()) => self.write_record(repository.path()),
        }
        shown
    }

    /// Publishes the content of the current clone, if it has another commit than the published one.
    fn show(&self, repository: &Arc<Repository>) -> Result<(), DatabaseError> {
        // Also without a new commit: damage must be found before a client or a new commit finds it.
        let prepared = self.prepare(repository)?;
        let published = self.handle.copy();
        if published.is_none_or(|copy| copy.git.commit != prepared.0.commit) {
            self.publish(prepared);
        }
        Ok(())
    }

    /// Makes a new clone, and replaces the current one with it.
    fn clone_anew(&mut self) -> Result<(), DatabaseError> {
        self.check_local_upstream()?;
        let Some(path) = self.directory.as_mut().map(CloneDir::next).transpose()? else {
            return Err(DatabaseError::Locked);
        };
        let cloned = self.transfer(Transfer::CloneAll, &path);
        self.replace_by(&path, cloned.map_err(DatabaseError::from))
    }

    /// Replaces the current clone with the new one at `path`, if it was made successfully.
    fn replace_by(
        &mut self,
        path: &Path,
        made: Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let replaced = made.and_then(|()| {
            self.write_record(path);
            let repository = Arc::new(open_owned(path)?);
            // Before `activate`: a clone that cannot be shown must not become the clone in use.
            let prepared = self.prepare(&repository)?;
            if let Some(directory) = &self.directory {
                directory.activate(path)?;
            }
            Ok((repository, prepared))
        });
        match replaced {
            Ok((repository, prepared)) => {
                self.publish(prepared);
                self.must_replace = false;
                self.failures = 0;
                self.retired.extend(self.current.replace(repository));
                return_freed_blocks();
                Ok(())
            }
            Err(error) => {
                // Removes the incomplete clone: the disk may be full.
                self.sweep();
                Err(error)
            }
        }
    }

    /// Reads a clone, and makes the references that clients get. Publishes nothing yet.
    fn prepare(&self, repository: &Arc<Repository>) -> Result<Prepared, DatabaseError> {
        let content = read(repository, self.handle.work().stopping())?;
        let commit = content.commit;
        repository.with(|git| {
            let is_shown = git
                .refname_to_id("HEAD")
                .is_ok_and(|id| commit.0 == id.into());
            // Most fetches bring nothing new, and then nothing is written.
            if !is_shown || git.find_reference("HEAD")?.symbolic_target()? != Some(CLONE_BRANCH) {
                let id = commit.0.to_oid()?;
                git.reference(CLONE_BRANCH, id, true, "read without a failure")?;
                git.set_head(CLONE_BRANCH)?;
            }
            Ok(())
        })?;
        let program = self.settings.program.clone();
        let git = Arc::new(GitIndex::of_clone(commit, Arc::clone(repository), program));
        Ok((content, git))
    }

    fn publish(&self, (content, git): Prepared) {
        let advisories = Arc::new(content.advisories);
        let is_new = self.handle.publish(AdvisoryCopy {
            advisories: Arc::clone(&advisories),
            git,
        });
        if !is_new {
            return;
        }
        tracing::info!(
            advisories.commit = %content.commit,
            advisories.count = advisories.count(),
            advisories.skipped = advisories.skipped,
            "the advisories have changed"
        );
        for file in content.skipped {
            tracing::warn!(file, "an advisory is skipped");
        }
        // The first view is made with what is on the disk.
        if self.index.view().is_some() {
            self.index.note_facts_changed();
        }
    }

    /// Whether the current clone is damaged. Then the next refresh replaces it.
    fn find_damage(&mut self) -> bool {
        let Some(repository) = self.current.clone() else {
            return false;
        };
        self.repairs.note_check(Instant::now());
        let read = read_everything(&repository, self.handle.work().stopping());
        let is_damaged = repository.confirm_damage(read);
        if is_damaged {
            let what_follows = if self.settings.may_fetch() {
                "it will be replaced"
            } else {
                "nothing can replace it, and what can be read stays in use"
            };
            tracing::warn!("the copy of the advisory database on disk is damaged; {what_follows}");
            self.repairs.note(Instant::now());
            self.must_replace = true;
        }
        is_damaged
    }

    fn transfer(&mut self, transfer: Transfer, clone: &Path) -> Result<(), FetchError> {
        let upstream = (&self.settings.url, &self.settings.outgoing);
        self.transfers
            .run(transfer, clone, upstream, self.handle.work())?;
        let copied = local_upstream::copy_shallow(&self.settings.url, clone);
        copied.map_err(|error| FetchError::System(error.to_string()))
    }

    fn check_local_upstream(&self) -> Result<(), DatabaseError> {
        local_upstream::check(&self.settings.url).map_err(DatabaseError::Upstream)
    }

    /// Notes the time of a fetch. A failure only means that it is lost after a restart.
    fn write_record(&self, clone: &Path) {
        let now = self.settings.clock.now();
        let written = clone_dir::write_record(clone, &self.settings.url, Some(now));
        if let Some(error) = self.unwritten.news_of(&written) {
            tracing::warn!(
                error,
                "the time of this fetch of the advisory database could not be written to DATA_DIR"
            );
        }
    }

    /// Makes the clone smaller if it is too large. After a failure it stays as it is, and works as before.
    fn maintain(&mut self) {
        let Some(repository) = self.current.clone().filter(|_| self.directory.is_some()) else {
            return;
        };
        let now = Instant::now();
        // An abandoned transfer may still write to the clone. A copy of it would be incomplete.
        if self.next_upkeep.is_some_and(|next| now < next) || self.transfers.may_still_write() {
            return;
        }
        let done = match upkeep::due(repository.path(), &self.settings.upkeep) {
            Ok(Due::Nothing) => return,
            Ok(Due::RollUp) => self.roll_up(&repository),
            Ok(Due::Renewal) => {
                // The new clone may be as large.
                self.next_upkeep = now.checked_add(RENEWAL_PAUSE);
                self.clone_anew()
            }
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) | Err(DatabaseError::Fetch(FetchError::Stopped)) => {}
            Err(error) => {
                self.next_upkeep = self.next_upkeep.max(now.checked_add(FAILURE_PAUSE));
                tracing::warn!(error = %error, "the advisory database could not be made smaller; this is tried again later");
            }
        }
    }

    fn roll_up(&mut self, repository: &Repository) -> Result<(), DatabaseError> {
        let Some(path) = self.directory.as_mut().map(CloneDir::next).transpose()? else {
            return Ok(());
        };
        let progress = self.handle.work().begin(Phase::Maintaining);
        let rolled_up = upkeep::roll_up(repository.path(), &path, progress.stop_flag());
        // A stop can cause any error, and needs no warning.
        let rolled_up = if progress.is_stopped() {
            Err(FetchError::Stopped.into())
        } else {
            rolled_up.map_err(DatabaseError::from)
        };
        self.replace_by(&path, rolled_up)
    }

    /// Forgets replaced clones that no request reads any more, and removes them.
    fn drop_retired(&mut self) {
        // A count of 1 is our own reference.
        self.retired
            .retain(|repository| Arc::strong_count(repository) > 1);
        for repository in &self.retired {
            repository.close_idle_handles();
        }
        self.sweep();
    }

    /// Removes every clone that is not in use. A clone that cannot be removed takes disk space and does no other harm.
    fn sweep(&self) {
        let Some(directory) = &self.directory else {
            return;
        };
        let in_use = self.current.iter().chain(&self.retired);
        let in_use = in_use.map(|clone| clone.path().to_owned());
        // It may be a clone of another upstream, until our own has replaced it.
        let keep: Vec<PathBuf> = in_use.chain(directory.current()).collect();
        if let Err(error) = directory.sweep(&keep) {
            tracing::warn!(error = %error, "an old copy of the advisory database could not be removed");
        }
    }
}

/// Opens a clone of our own, and removes what a crash may have left in it.
fn open_owned(path: &Path) -> Result<Repository, DatabaseError> {
    clone_dir::tidy(path)?;
    clone_dir::disarm(path)?;
    Ok(Repository::open(path, Access::Full)?)
}
