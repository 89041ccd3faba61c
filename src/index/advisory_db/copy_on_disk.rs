//! The copy of the advisory database on disk, for subcommands: brought up to date once, and read.

use std::path::Path;

use super::clone::DatabaseClone;
use super::error::DatabaseError;
use super::handle::AdvisoryHandle;
use super::read::read;
use super::settings::{AdvisorySettings, directory};
use crate::index::follow::settings::Network;
use crate::index::handle::IndexHandle;
use crate::index::source::clone_dir;
use crate::index::source::clone_in_use::read_clone_in_use;
use crate::index::source::remote_url::RemoteUrl;
use crate::index::stop::StopFlag;
use crate::policy::Advisories;

/// Reads the advisories of the copy in this data directory. Returns `None` if there is no copy that a mirror with these
/// settings would use. An error is one line. Blocking.
pub(crate) fn read_copy_on_disk(
    data_dir: &Path,
    url: &RemoteUrl,
    network: Network,
) -> Result<Option<Advisories>, String> {
    let may_fetch = network == Network::Allowed || url.is_local();
    let read = read_clone_in_use(&directory(data_dir), |path, repository| {
        let is_ours = || clone_dir::read_record(path).is_ok_and(|record| record.is_of(url));
        // Without the network any copy is better than none.
        if may_fetch && !is_ours() {
            return Ok(None);
        }
        // Never stopped: a subcommand ends with its process.
        Ok(Some(read(&repository, &StopFlag::new())?.advisories))
    });
    let read = read.map_err(|error| DatabaseError::from(error).to_string());
    Ok(read?.flatten())
}

/// Fetches once, as a mirror does at its start. Does nothing if a mirror has locked the copy, because it fetches itself, and
/// without the network. An error is one line. Blocking.
pub(crate) fn refresh_copy_on_disk(settings: AdvisorySettings) -> Result<(), String> {
    if !settings.may_fetch() {
        return Ok(());
    }
    let handle = AdvisoryHandle::new(settings.url.to_string());
    let mut clone = DatabaseClone::new(settings, handle, IndexHandle::new());
    match clone.try_refresh() {
        Ok(()) | Err(DatabaseError::Locked) => Ok(()),
        Err(error) => Err(format!(
            "the advisory database could not be brought up to date: {error}"
        )),
    }
}
