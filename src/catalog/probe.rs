//! Questions for benchmarks, which can only use public items.

use std::fmt::Display;

use super::handle::Catalog;
use super::questions::{CrateFilter, CrateOrder, Page, Search};
use crate::package::{Checksum, CrateName};

/// Asks the catalog of a running mirror.
#[derive(Clone, Debug)]
pub struct CatalogProbe(Catalog);

impl CatalogProbe {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self(catalog)
    }

    /// The commit that it answers from.
    #[must_use]
    pub fn commit(&self) -> Option<String> {
        self.0.status().commit
    }

    /// Searches for a text, and returns the number of matches. `by_time` sorts by the last publish instead of the name.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn search(&self, text: &str, by_time: bool) -> Result<usize, String> {
        let search = Search {
            text: text.to_owned(),
            filter: CrateFilter::None,
            include_yanked: true,
            order: if by_time {
                CrateOrder::Updated
            } else {
                CrateOrder::Name
            },
            page: Page::first(10),
        };
        Ok(self.0.search(search).await.map_err(message)?.total)
    }

    /// Lists the crates that depend on a crate, from the page with this number, and returns how many there are.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn dependents(&self, name: &str, page: usize) -> Result<usize, String> {
        let name = CrateName::try_from(name.to_owned()).map_err(message)?;
        let found = self.0.dependents(name, page * 10, 10).await;
        Ok(found.map_err(message)?.total)
    }

    /// The crates of the front page. Returns the number of all crates.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn summary(&self) -> Result<usize, String> {
        Ok(self.0.summary(10).await.map_err(message)?.num_crates)
    }

    /// The index files that list a crate file with this checksum. Blocking.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn index_files_of(&self, checksum: &str) -> Result<usize, String> {
        let checksum = checksum.parse::<Checksum>().map_err(message)?;
        let found = self.0.index_files_of(&[checksum]);
        Ok(found.map_err(message)?.names.len())
    }
}

fn message(error: impl Display) -> String {
    error.to_string()
}
