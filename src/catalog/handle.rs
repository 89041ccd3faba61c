//! The handle for questions. Cheap to clone.

use super::questions::{CatalogError, CatalogStatus, CrateList, Dependents, Search, Summary};
use crate::package::CrateName;

/// Asks the catalog. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {}

impl Catalog {
    /// The status now.
    pub(crate) fn status(&self) -> CatalogStatus {
        CatalogStatus::default()
    }

    /// Searches for crates.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) async fn search(&self, _search: Search) -> Result<CrateList, CatalogError> {
        Err(CatalogError::NotReady)
    }

    /// Lists the crates that depend on a crate: `limit` at most, after `skip` of them.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) async fn dependents(
        &self,
        _name: CrateName,
        _skip: usize,
        _limit: usize,
    ) -> Result<Dependents, CatalogError> {
        Err(CatalogError::NotReady)
    }

    /// The crates of the front page: `limit` in each list.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) async fn summary(&self, _limit: usize) -> Result<Summary, CatalogError> {
        Err(CatalogError::NotReady)
    }
}
