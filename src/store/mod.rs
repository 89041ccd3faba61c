//! Crate files by checksum, on a disk or in a cloud, each fetched once for all requests that wait for it.
//!
//! A file gets its key only when its bytes match the checksum of the index, so every file with a key may be served. A file
//! on a disk is hashed once more when this process first opens it: disks rot, and a crash may truncate a file.
//!
//! [`CrateFiles`] is what requests ask. It fetches missing files into the [`CrateStore`], which has two backends: `disk`
//! and `cloud`. Only this module uses `object_store`. It knows nothing of HTTP towards clients, nor of which file a request
//! means.

mod cloud;
mod counters;
mod crate_files;
mod crate_store;
mod damage;
mod disk;
mod error;
mod in_flight;
mod location;
mod objects;
mod probe;
mod spool;
mod stored_file;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use counters::Counters;
pub(crate) use crate_files::{CrateFiles, CrateFilesSettings, Ensured};
pub(crate) use crate_store::{CrateStore, StoreSettings};
pub(crate) use damage::{DamagedFiles, FileHealth};
pub(crate) use error::{GetError, StoreError};
pub(crate) use location::StorageLocation;
pub(crate) use objects::Reading;
pub(crate) use probe::{Access, probe};
pub(crate) use stored_file::StoredFile;
