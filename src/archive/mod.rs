//! Archives: an index and crate files in one tar file, for machines without a network.
//!
//! ```text
//! manifest.json           what this is: format, index commit, what it builds on, how much of everything
//! held.txt                the checksum of every file that the target holds afterwards, earlier archives included
//! index/…                 what the index side handed over
//! crates/{sha256}.crate   the files that are new, by rising checksum
//! end.json                how much there was: without it the archive is cut off
//! ```
//!
//! The order is fixed, so that an archive can be written to a pipe and read from one, and so that the next export needs
//! only the first two entries of the last archive. The same content gives the same bytes. What does not live here: what
//! the files of the index are, and where crate files are kept; both come through the traits in `ports`.

pub(crate) mod checked;
pub(crate) mod earlier;
pub(crate) mod entry;
pub(crate) mod export;
pub(crate) mod held;
pub(crate) mod import;
pub(crate) mod input;
pub(crate) mod manifest;
pub(crate) mod output;
pub(crate) mod ports;
pub(crate) mod read;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod write;

pub(crate) use export::{Export, export};
pub(crate) use import::{Import, ImportAction, import};
pub(crate) use manifest::Manifest;
pub(crate) use ports::{
    CrateSink, CrateSource, CurrentIndex, IndexExport, IndexSink, IndexSource, OpenFile, PortError,
};
