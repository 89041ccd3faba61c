//! What questions are answered from: the names in memory, the database, and the view that both belong to.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::database::Database;
use super::names::NameTable;
use super::questions::CatalogError;
use crate::index::View;
use crate::sqlite::Readers;

/// A state of the catalog. Immutable, except that connections come and go.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) view: Arc<View>,
    pub(super) names: NameTable,
    /// The generation of the database that the names belong to.
    pub(super) generation: i64,
    pub(super) readers: Arc<Readers<Database>>,
}

/// Answers one question from the current state, until a deadline. Blocking.
pub(super) fn answer<T>(
    current: &ArcSwapOption<Published>,
    deadline: Instant,
    work: impl FnOnce(&Published, &Database) -> rusqlite::Result<T>,
) -> Result<T, CatalogError> {
    let mut work = Some(work);
    loop {
        let published = current.load_full().ok_or(CatalogError::NotReady)?;
        let mut reader = published.readers.take()?;
        reader.end_at(deadline)?;
        let answer = reader.transaction(|reader| {
            // This begins the transaction. From here on, the database does not change for this reader.
            let same = reader.generation()? == published.generation;
            work.take_if(|_| same)
                .map(|work| work(&published, reader))
                .transpose()
        });
        match answer {
            Ok(answer) => {
                published.readers.give_back(reader);
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            }
            // The connection is closed: what it has read may be damaged.
            Err(error) => return Err(error.into()),
        }
        // The writer has committed, and publishes the names that belong to it in a moment.
        if Instant::now() > deadline {
            return Err(CatalogError::TimedOut);
        }
        std::thread::yield_now();
    }
}

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::TimedOut,
            _ => Self::Unreadable(error.into()),
        }
    }
}
