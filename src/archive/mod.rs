//! Archives: an index and crate files in one tar file, for machines without a network.
//!
//! ```text
//! manifest.json           format, index commit, the earlier archive it builds on, numbers of files
//! held.txt                the checksum of every file that the target has afterwards, earlier archives included
//! index/…                 packs of the index
//! crates/{sha256}.crate   the files that are new, by rising checksum
//! end.json                the numbers of files once more: without it the archive is truncated
//! ```
//!
//! The order is fixed, so that an archive can be written to a pipe and read from one, and so that the next export needs only
//! the first two entries of the last archive. The same content gives the same bytes.
//!
//! [`export()`] and [`import()`] block, and must run on a thread of a runtime that may block. They report [`ArchiveEvent`]s and
//! print nothing.

mod blocking_store;
mod checked_reader;
mod checksum_list;
mod earlier;
mod entry;
mod error;
mod event;
mod export;
mod import;
mod index_part;
mod index_target;
mod input;
mod manifest;
mod output;
mod read;
mod scratch;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use event::ArchiveEvent;
pub(crate) use export::{ExportError, ExportJob, Exported, export};
pub(crate) use import::{ImportAction, ImportError, ImportJob, Imported, import};
pub(crate) use index_part::IndexPart;
pub(crate) use index_target::wait_until_free;
pub(crate) use scratch::Scratch;
