//! Trying whether the store can be used, before anybody relies on it. Nothing is left behind.

use std::path::{Path as DiskPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{Error as ObjectError, ObjectStoreExt};

use super::counters::Counters;
use super::crate_store::{CrateStore, DamagedFiles, StoreError, StoreSettings};
use super::location::{Place, StorageLocation};
use crate::clock::Clock;

/// What is written, read and removed again. No crate file is called so.
const PROBE: &str = ".crates-io-mirror-check";

/// What is in it.
const CONTENT: &[u8] = b"written by `crates-io-mirror check-config`, and of no use to anybody\n";

/// What a mirror does with its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It serves what is there.
    Read,
    /// It adds to it as well.
    Write,
}

/// What the store does not let the mirror do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// There is none, and none can be made.
    #[error("it cannot be opened: {0}")]
    Open(#[source] StoreError),
    /// It does not say what is in it.
    #[error("it cannot be listed: {0}")]
    List(#[source] StoreError),
    /// It takes nothing.
    #[error("it cannot be written to: {0}")]
    Put(#[source] StoreError),
    /// It does not give back what it took.
    #[error("what was written to it cannot be read: {0}")]
    Get(#[source] StoreError),
    /// It gives back something else.
    #[error("what was written to it is read as something else")]
    OtherContent,
    /// It keeps everything for ever.
    #[error("nothing can be removed from it: {0}")]
    Delete(#[source] StoreError),
}

/// Does once, with a file of a few bytes, what a mirror does with its store.
///
/// # Errors
/// [`ProbeError`] for the first thing that does not work.
pub(crate) async fn probe(location: &StorageLocation, access: Access) -> Result<(), ProbeError> {
    let _made = match location.place() {
        Place::Disk { path, .. } => NewDirectories::up_to(path),
        Place::Cloud(_) | Place::Memory => NewDirectories(Vec::new()),
    };
    let settings = StoreSettings {
        location: location.clone(),
        bytes_max: None,
        damaged_files: DamagedFiles::Leave,
        clock: Clock::system(),
    };
    let store =
        CrateStore::open(settings, Arc::new(Counters::default())).map_err(ProbeError::Open)?;
    // The first of what lies there, whatever it is: a bucket may be full of other things.
    let prefix = (!store.prefix.as_ref().is_empty()).then_some(&store.prefix);
    if let Some(Err(error)) = store.objects.list(prefix).next().await {
        return Err(ProbeError::List(error.into()));
    }
    match access {
        Access::Read => Ok(()),
        Access::Write => store.write_read_and_remove().await,
    }
}

impl CrateStore {
    async fn write_read_and_remove(&self) -> Result<(), ProbeError> {
        let name = format!("{PROBE}-{:016x}", fastrand::u64(..));
        let key = self.prefix.clone().join(name);
        let content = Bytes::from_static(CONTENT);
        let put = self.objects.put(&key, content.clone().into()).await;
        put.map_err(|error| ProbeError::Put(error.into()))?;
        let read = async { self.objects.get(&key).await?.bytes().await };
        let read = read.await;
        let deleted = self.objects.delete(&key).await;
        let read = read.map_err(|error: ObjectError| ProbeError::Get(error.into()))?;
        if read != content {
            return Err(ProbeError::OtherContent);
        }
        deleted.map_err(|error| ProbeError::Delete(self.not_deleted(error)))
    }
}

/// Directories that were not there before, the lowest first. Removed when this is dropped, unless there is something in
/// them.
struct NewDirectories(Vec<PathBuf>);

impl NewDirectories {
    fn up_to(path: &DiskPath) -> Self {
        let missing = path.ancestors().take_while(|path| {
            let is_here = path.as_os_str().is_empty() || path.exists();
            !is_here
        });
        Self(missing.map(DiskPath::to_owned).collect())
    }
}

impl Drop for NewDirectories {
    fn drop(&mut self) {
        for directory in &self.0 {
            drop(std::fs::remove_dir(directory));
        }
    }
}
