//! The change journal: what has changed in the shown index, step by step, for the change feed.
//!
//! A background task ([`JournalTask`]) follows every view. It writes the difference to the last one that it has seen, as
//! one step, into a database of its own in `DATA_DIR`. [`Journal`] answers questions: where the journal ends, and what
//! came after a place in it. Only shown files are compared, by the ids of their contents. So a squash of the upstream, a
//! new clone and a new catalog are no special cases, and a change of the rules is a step like any other.
//!
//! - `cursor`: places between two steps.
//! - `difference`: what has changed in one index file.
//! - `line`: the lines of the feed.
//! - `database`: the tables, and all statements.
//! - `handle`: questions, with a limit for their time and one for those that wait.
//! - `worker`: following the index, and forgetting old steps.

mod cursor;
mod database;
mod difference;
mod handle;
mod line;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use cursor::StepCursor;
pub(crate) use database::{ChunkPlace, Piece};
pub(crate) use handle::{Head, Journal, JournalError, JournalSettings, OffReason};
pub(crate) use line::{ChangeKind, ChangeLine, VERSION_BYTES_MAX, VersionState};
pub(crate) use worker::JournalTask;
