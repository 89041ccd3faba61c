//! The catalog: an embedded database of all crates, for what the index alone cannot answer fast. Search, lists of the
//! newest crates, reverse dependencies, and the crate of a checksum.
//!
//! A background task ([`CatalogTask`]) builds it from the source (what the upstream lists), with the state of each version
//! in the view (what is shown), and follows every view. [`Catalog`] asks it questions. Every answer belongs to one view,
//! which comes with it, so that a handler can read more from the same state of the index.
//!
//! Only this module uses SQLite. No text in SQL and no type of `rusqlite` leaves it.

mod handle;
mod questions;

pub(crate) use handle::Catalog;
pub(crate) use questions::{
    CatalogError, CatalogStatus, CrateFilter, CrateList, CrateOrder, CrateSummary, Dependent,
    Dependents, Page, Place, Search, Start, Summary,
};
