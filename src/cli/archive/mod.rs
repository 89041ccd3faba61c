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

mod checked;
mod earlier;
mod entry;
mod export;
mod held;
mod import;
mod input;
mod manifest;
mod output;
mod ports;
mod read;
#[cfg(test)]
mod testing;
mod write;

pub(super) use export::{Export, export};
pub(super) use import::{Import, ImportAction, import};
pub(super) use manifest::Manifest;
pub(super) use ports::{
    CrateSink, CrateSource, CurrentIndex, IndexExport, IndexSink, IndexSource, OpenFile, PortError,
};
