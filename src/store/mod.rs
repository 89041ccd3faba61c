//! Crate files, kept by their checksum on a disk or in an object store, and fetched once for all who wait.
//!
//! A file gets its key only when its bytes are known to be what the index says, so that whatever has a key may be served.
//! A file on a disk is hashed once more when this process first opens it: disks rot, and a crash may cut a file short.
//! Only this room touches `object_store`. What does not live here: HTTP, and which file a request means.

mod blocks;
mod checked;
mod counters;
mod crate_files;
mod crate_store;
mod disk;
#[cfg(target_os = "linux")]
mod file_part;
mod location;
mod probe;
mod spool;
mod stored_file;
#[cfg(test)]
mod tests;

#[cfg(target_os = "linux")]
pub(crate) use self::file_part::FilePart;
pub(crate) use counters::Counters;
pub(crate) use crate_files::{CrateFiles, CrateFilesSettings, Ensured, GetError};
pub(crate) use crate_store::{CrateStore, DamagedFiles, FileHealth, StoreError, StoreSettings};
pub(crate) use location::{LocationError, StorageLocation};
pub(crate) use probe::{Access, probe};
pub(crate) use stored_file::{Reading, StoredFile};
