//! Notes when yanks were seen, for the yank guard, and checksums that have changed.
//!
//! The notes are in a file of their own in the data directory: neither a new clone nor a new catalog loses them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::index::limits::ReadError;
use crate::index::source::clone_dir::write_atomically;
use crate::index::source::directory::Directory;
use crate::index::source::repository::Repository;
use crate::index::source::snapshot::Source;
use crate::index::stop::StopFlag;
use crate::index::view::changes::for_each_change;
use crate::package::Checksum;
use crate::policy::{Line, SeenYanks};

/// The file in the data directory.
const FILE: &str = "yank-guard.json";

/// The largest file that is read. A yank takes some 60 bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// From this many yanks of a crate in one commit on they are logged.
const MASS: usize = 3;

/// The memory of the yank guard.
#[derive(Debug)]
pub(super) struct YankWatch {
    data_dir: PathBuf,
    /// How long a crate stays frozen, in seconds.
    guard: i64,
    seen: Arc<SeenYanks>,
    is_loaded: bool,
    could_write: bool,
    /// What the file contains.
    written: Option<Arc<SeenYanks>>,
}

/// An earlier state of the upstream's index.
pub(super) struct Before<'a> {
    pub(super) root: &'a Directory,
    pub(super) repository: &'a Repository,
}

impl Before<'_> {
    /// Whether a failed read of this state fails for ever. The clone in use is repaired, and then the read is tried again.
    fn is_lost(&self, error: &ReadError, in_use: &Repository) -> bool {
        let is_replaced = !std::ptr::eq(self.repository, in_use);
        let may_pass = error.is_the_systems() && self.repository.path().exists();
        is_replaced && !may_pass && !matches!(error, ReadError::Stopped)
    }
}

/// What one version was.
struct Version {
    yanked: bool,
    checksum: Option<Checksum>,
}

impl YankWatch {
    pub(super) fn new(data_dir: PathBuf, guard_seconds: u64) -> Self {
        Self {
            data_dir,
            guard: i64::try_from(guard_seconds).unwrap_or(i64::MAX),
            seen: Arc::default(),
            is_loaded: false,
            could_write: true,
            written: None,
        }
    }

    /// The yanks that were seen so far.
    pub(super) fn seen(&self) -> &Arc<SeenYanks> {
        &self.seen
    }

    /// Reads what an earlier run of the mirror has seen. Says once that there is nothing.
    pub(super) fn load(&mut self) {
        if std::mem::replace(&mut self.is_loaded, true) || self.guard == 0 {
            return;
        }
        match read(&self.data_dir) {
            Ok(seen) => {
                self.seen = Arc::new(seen);
                self.written = Some(Arc::clone(&self.seen));
            }
            Err(error) => tracing::info!(
                reason = %error,
                "the yank guard begins without a memory: it knows no yanks from before this moment"
            ),
        }
    }

    /// Compares two states of the upstream's index. Returns how many checksums of listed versions have changed.
    pub(super) fn follow(
        &mut self,
        before: &Before<'_>,
        after: &Source,
        at: i64,
        (may_write, stop): (bool, &StopFlag),
    ) -> Result<u64, ReadError> {
        let mut checksum_changes = 0;
        for_each_change(Some(before.root), Some(&**after.root()), &mut |change| {
            stop.check()?;
            let read = |repository: &Repository, blob| match blob {
                None => Ok(HashMap::new()),
                Some(blob) => match repository.read_blob(blob, versions) {
                    // Such a file is not shown under a policy.
                    Err(ReadError::TooLarge(_)) => Ok(HashMap::new()),
                    read => read,
                },
            };
            let earlier = match read(before.repository, change.before) {
                // A replaced clone is often damaged or gone. The index must be followed all the same.
                Err(error) if before.is_lost(&error, after.repository()) => {
                    tracing::warn!(
                        crate.name = change.name,
                        error = %error,
                        "the earlier index file of a crate is lost; the yank guard does not see what has changed in it"
                    );
                    return Ok(());
                }
                earlier => earlier?,
            };
            let later = read(after.repository(), change.after)?;
            checksum_changes += self.compare(change.name, &earlier, &later, at);
            Ok::<(), ReadError>(())
        })?;
        if self.seen.has_old_ones(self.guard, at) {
            Arc::make_mut(&mut self.seen).prune(self.guard, at);
        }
        if may_write {
            self.write();
        }
        Ok(checksum_changes)
    }

    /// Notes the differences between two states of one index file. Returns how many checksums have changed.
    fn compare(
        &mut self,
        crate_name: &str,
        earlier: &HashMap<String, Version>,
        later: &HashMap<String, Version>,
        at: i64,
    ) -> u64 {
        let (mut yanks, mut checksum_changes) = (0, 0);
        for (version, before) in earlier {
            let after = later.get(version);
            if after.is_some_and(|after| after.checksum != before.checksum) {
                checksum_changes += 1;
                tracing::warn!(
                    crate.name = crate_name,
                    crate.version = version,
                    "the checksum of a listed version has changed"
                );
            }
            if self.guard == 0 {
                continue;
            }
            match (before.yanked, after.is_some_and(|after| after.yanked)) {
                (false, true) => {
                    yanks += 1;
                    Arc::make_mut(&mut self.seen).note(crate_name, version, at);
                }
                (true, false) => {
                    Arc::make_mut(&mut self.seen).forget(crate_name, version);
                }
                (false, false) | (true, true) => {}
            }
        }
        if yanks >= MASS {
            tracing::info!(
                crate.name = crate_name,
                crate.versions = yanks,
                "many versions of a crate were yanked at once"
            );
        }
        checksum_changes
    }

    /// Writes what was seen. A failure only means that a restart forgets it.
    fn write(&mut self) {
        let is_written = |written: &Arc<_>| Arc::ptr_eq(written, &self.seen);
        if self.guard == 0 || self.written.as_ref().is_some_and(is_written) {
            return;
        }
        let written = serde_json::to_vec(&*self.seen)
            .map_err(Into::into)
            .and_then(|text| write_atomically(&self.data_dir, FILE, &text));
        let could_write = std::mem::replace(&mut self.could_write, written.is_ok());
        match written {
            Ok(()) => self.written = Some(Arc::clone(&self.seen)),
            Err(error) if could_write => tracing::warn!(
                error = %error,
                "the yanks that were seen could not be written to DATA_DIR; a restart forgets them"
            ),
            Err(_) => {}
        }
    }
}

/// Reads what a mirror has seen. Blocking.
pub(super) fn read(data_dir: &Path) -> Result<SeenYanks, Box<dyn std::error::Error>> {
    let path = data_dir.join(FILE);
    if std::fs::metadata(&path)?.len() > FILE_BYTES_MAX {
        return Err("it is too large".into());
    }
    Ok(serde_json::from_slice(&std::fs::read(&path)?)?)
}

/// The versions of an index file. The first line of a version counts, as it does for cargo.
fn versions(file: &[u8]) -> HashMap<String, Version> {
    let mut versions = HashMap::new();
    for line in file.split(|byte| *byte == b'\n').filter_map(Line::parse) {
        let version = Version {
            yanked: line.yanked,
            checksum: line.checksum,
        };
        versions.entry(line.text.into_owned()).or_insert(version);
    }
    versions
}
