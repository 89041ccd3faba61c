//! Putting a new clone in the place of the current one, because the current one is damaged, outgrown or not there, and
//! removing those that were replaced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::RefreshError;
use super::follower::Refresher;
use crate::index::source::clone_dir::{self, Access, CloneDir};
use crate::index::source::fetch::{self, FetchError, Outgoing};
use crate::index::source::local_upstream;
use crate::index::source::repository::Repository;
use crate::index::source::upkeep::{self, Due};
use crate::index::status::Phase;
use crate::index::view::snapshot::Snapshot;
use crate::memory::return_freed_blocks;

/// How long to leave the clone as it is when it could not be made smaller.
const UPKEEP_PAUSE: Duration = Duration::from_secs(6 * 3_600);

impl Refresher {
    /// Makes the clone smaller if it has become too large. Without success it stays as it is, and works as before.
    pub(crate) fn keep_up(&mut self) {
        let Some(repository) = self.current.clone() else {
            return;
        };
        if self.clones.as_ref().is_some_and(CloneDir::is_read_only) {
            return;
        }
        let now = Instant::now();
        if self.next_upkeep.is_some_and(|next| now < next) || self.transfers.may_still_write() {
            return;
        }
        let done = match upkeep::due(repository.path(), &self.settings.upkeep) {
            Ok(Due::Nothing) => return,
            Ok(Due::RollUp) => match self.roll_up(&repository) {
                // Something in it cannot be read, perhaps something that only git clients would miss. Packs must not grow
                // for ever because of it.
                Err(RefreshError::Damaged(why) | RefreshError::Refused(why))
                    if self.repairs.allowed(now) && self.settings.may_renew() =>
                {
                    self.repairs.note(now);
                    tracing::warn!(
                        error = why,
                        "small packs could not be rolled up; the clone will be replaced"
                    );
                    self.clone_anew()
                }
                other => other,
            },
            Ok(Due::Renewal) if self.settings.may_renew() => self.clone_anew(),
            // What belongs to the index is not told from the rest without the upstream.
            Ok(Due::Renewal) => return,
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
        let rolled_up = upkeep::roll_up(repository.path(), &path, progress.stop_flag());
        // Being stopped may have been the reason for an error, and is no reason for a warning.
        let rolled_up = if progress.is_stopped() {
            Err(FetchError::Stopped.into())
        } else {
            rolled_up.map_err(RefreshError::from)
        };
        self.replace_by(&path, rolled_up, "small packs were rolled up")
    }

    pub(crate) fn clone_anew(&mut self) -> Result<(), RefreshError> {
        local_upstream::check(&self.settings.url).map_err(RefreshError::Upstream)?;
        let Some(path) = self.clones.as_mut().map(CloneDir::next).transpose()? else {
            return Ok(());
        };
        tracing::info!(index.upstream = %self.settings.url, "cloning the index");
        let (target, url) = (path.clone(), self.settings.url.clone());
        let outgoing = Outgoing::of(&self.settings);
        let cloned = self
            .transfer(Phase::Cloning, move |progress| {
                fetch::clone(&target, &url, &outgoing, progress)
            })
            .map_err(RefreshError::from)
            .and_then(|()| Ok(clone_dir::write_record(&path, &self.record())?));
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

    /// Makes a complete clone the one in use. Its record is there already: one that was rolled up has that of the clone it
    /// was made of, which tells the upstream that was asked, and when.
    fn take_over(&mut self, path: &Path) -> Result<(Arc<Repository>, Snapshot), RefreshError> {
        let repository = Arc::new(Repository::open(path, Access::Full)?);
        let snapshot = self.view(&repository)?;
        if let Some(clones) = &self.clones {
            clones.activate(path)?;
        }
        Ok((repository, snapshot))
    }

    /// Removes replaced clones that no request reads from any more, and whatever a crash left.
    pub(crate) fn drop_retired(&mut self) {
        self.retired
            .retain(|repository| Arc::strong_count(repository) > 1);
        self.sweep();
    }

    /// Removes every clone that is not in use.
    fn sweep(&self) {
        let Some(clones) = &self.clones else {
            return;
        };
        let in_use = self.in_use().map(|repository| repository.path().to_owned());
        let keep: Vec<PathBuf> = in_use.chain(self.irreplaceable(clones)).collect();
        warn_if_left(clones.sweep(&keep.iter().map(PathBuf::as_path).collect::<Vec<_>>()));
    }

    /// The clone on disk, if no clone of ours could give back what is in it: however damaged where nothing is fetched, and
    /// that of another upstream until ours has taken its place.
    pub(crate) fn irreplaceable(&self, clones: &CloneDir) -> Option<PathBuf> {
        let is_foreign = |path: &Path| {
            clone_dir::read_record(path).is_ok_and(|record| !record.is_of(&self.settings.url))
        };
        let current = clones.current()?;
        (!self.settings.may_fetch() || is_foreign(&current)).then_some(current)
    }

    fn in_use(&self) -> impl Iterator<Item = &Arc<Repository>> {
        self.current.iter().chain(&self.retired)
    }
}

/// What cannot be removed costs room, and nothing else.
pub(crate) fn warn_if_left(swept: io::Result<()>) {
    if let Err(error) = swept {
        tracing::warn!(error = %error, "an old clone could not be removed");
    }
}
