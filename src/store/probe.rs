//! Checks whether the store can be used. Leaves nothing behind.

use std::path::{Path as DiskPath, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStoreExt};

use super::crate_store::{CrateStore, StoreSettings};
use super::damage::DamagedFiles;
use super::error::StoreError;
use super::location::StorageLocation;
use super::objects::Objects;
use crate::clock::Clock;

/// The name of the file that is written, read and removed. No crate file has it.
const PROBE: &str = ".crates-io-mirror-check";

/// The content of that file.
const CONTENT: &[u8] = b"written by `crates-io-mirror check-config`, and of no use to anybody\n";

/// What a mirror does with its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It serves files.
    Read,
    /// It also adds files.
    Write,
}

/// Why the mirror cannot use its store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("it cannot be opened: {0}")]
    Open(#[source] StoreError),
    #[error("it cannot be listed: {0}")]
    List(#[source] StoreError),
    #[error("it cannot be written to: {0}")]
    Put(#[source] StoreError),
    #[error("what was written to it cannot be read: {0}")]
    Get(#[source] StoreError),
    #[error("what was written to it is read as something else")]
    OtherContent,
    #[error("nothing can be removed from it: {0}")]
    Delete(#[source] StoreError),
}

/// Does everything that a mirror does with its store, once, with a file of a few bytes.
pub(crate) async fn probe(location: &StorageLocation, access: Access) -> Result<(), ProbeError> {
    let _made = match location {
        StorageLocation::Disk { path, .. } => NewDirectories::up_to(path),
        StorageLocation::Cloud(_) | StorageLocation::Memory => NewDirectories(Vec::new()),
    };
    let settings = StoreSettings {
        location: location.clone(),
        bytes_max: None,
        damaged_files: DamagedFiles::Leave,
        clock: Clock::system(),
    };
    let store = CrateStore::open(settings).map_err(ProbeError::Open)?;
    let objects = &store.objects;
    // One object is enough: a bucket can have many other objects.
    if let Some(Err(error)) = objects.store.list(None).next().await {
        return Err(ProbeError::List(error.into()));
    }
    match access {
        Access::Read => Ok(()),
        Access::Write => write_read_and_remove(objects).await,
    }
}

async fn write_read_and_remove(objects: &Objects) -> Result<(), ProbeError> {
    let key = Path::from(format!("{PROBE}-{:016x}", fastrand::u64(..)));
    let content = Bytes::from_static(CONTENT);
    let put = objects.store.put(&key, content.clone().into()).await;
    put.map_err(|error| ProbeError::Put(error.into()))?;
    let read = async { objects.store.get(&key).await?.bytes().await };
    let read = read.await;
    let deleted = objects.delete(&key).await;
    let read = read.map_err(|error: ObjectError| ProbeError::Get(error.into()))?;
    if read != content {
        return Err(ProbeError::OtherContent);
    }
    deleted.map_err(ProbeError::Delete)
}

/// New directories, the lowest first. Dropping this removes the empty ones.
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
