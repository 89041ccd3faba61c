//! The domain: crate names, versions, checksums, index paths and index lines.
//!
//! Everything here is a pure value that is valid by construction. There is no I/O here, no clock, no git, no HTTP.

mod as_of;
mod checksum;
mod crate_file;
mod hex;
mod history;
mod line;
mod name;
mod path;
mod registry;
mod timestamp;
mod version;
mod yanked;

pub(crate) use as_of::as_of;
pub(crate) use checksum::Checksum;
pub(crate) use crate_file::CrateFile;
pub(crate) use hex::write_hex;
pub(crate) use history::{CrateHistory, Release};
pub(crate) use line::{Features, IndexDependency, IndexLine};
pub(crate) use name::{CrateName, NotAName, canonical, canonical_order};
pub(crate) use path::IndexPath;
pub(crate) use registry::registry_config;
pub(crate) use timestamp::Timestamp;
pub(crate) use version::CrateVersion;
pub(crate) use yanked::with_yanked;
