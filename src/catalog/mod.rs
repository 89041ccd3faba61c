//! The catalog: an embedded database of all crates, for what the index alone cannot answer fast. Search, lists of the
//! newest crates, reverse dependencies, and the crate of a checksum.
//!
//! A background task ([`CatalogTask`]) builds it from the source (what the upstream lists), with the state of each version
//! in the view (what is shown), and follows every view. [`Catalog`] asks it questions. Every answer belongs to one view,
//! which comes with it, so that a handler can read more from the same state of the index.
//!
//! No text in SQL and no type of `rusqlite` leaves this module. `sqlite` has what it shares with the database of
//! `journal`.
//!
//! - `questions`: questions and answers, as plain values.
//! - `handle`: questions, with a limit for their time and one for those that wait. A question sees one state of names and database, which
//!   belong to one view.
//! - `names`: search in memory.
//! - `database`: the tables, and all statements.
//! - `record`: a crate, made from its index files.
//! - `files`: where the database lies.
//! - `worker`: building and following.

mod database;
mod files;
mod handle;
mod names;
#[cfg(feature = "bench-rules")]
mod probe;
mod questions;
mod record;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use handle::Catalog;
#[cfg(feature = "bench-rules")]
pub use probe::CatalogProbe;
pub(crate) use questions::{
    CatalogError, CatalogState, CatalogStatus, CrateFilter, CrateOrder, CrateSummary, Dependent,
    Page, Place, Publish, PublishPlace, Publishes, Search, Start,
};
pub(crate) use worker::{CatalogSettings, CatalogTask};
