//! What questions are answered from: the names in memory, the database, and the view that both belong to.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::database::{CatalogTables, Crates};
use super::names::NameTable;
use crate::index::View;
use crate::sqlite::{AskError, Readers};

/// A state of the catalog. Immutable, except that connections come and go.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) view: Arc<View>,
    pub(super) names: NameTable,
    /// The generation of the database that the names belong to.
    pub(super) generation: i64,
    pub(super) readers: Arc<Readers<CatalogTables>>,
}

/// Answers one question from the current state, until a deadline. `None` if there is no state. Blocking.
pub(super) fn answer<T>(
    current: &ArcSwapOption<Published>,
    deadline: Instant,
    work: impl FnOnce(&Published, &Crates) -> rusqlite::Result<T>,
) -> Result<Option<T>, AskError> {
    let mut work = Some(work);
    while let Some(published) = current.load_full() {
        let answer = published.readers.ask(deadline, |reader| {
            // This begins the transaction. From here on, the database does not change for this reader.
            let same = reader.generation()? == published.generation;
            work.take_if(|_| same)
                .map(|work| work(&published, reader))
                .transpose()
        })?;
        if answer.is_some() {
            return Ok(answer);
        }
        // The writer has committed, and publishes the names that belong to it in a moment.
        if Instant::now() > deadline {
            return Err(AskError::TimedOut);
        }
        std::thread::yield_now();
    }
    Ok(None)
}
