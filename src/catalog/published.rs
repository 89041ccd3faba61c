//! What questions are answered from: the names in memory, the database, and the view that both belong to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::database::Database;
use super::names::NameTable;
use super::questions::CatalogError;
use crate::index::View;

/// Idle connections that are kept.
const IDLE_MAX: usize = 4;

/// A state of the catalog. Immutable, except that connections come and go.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) view: Arc<View>,
    pub(super) names: NameTable,
    /// The generation of the database that the names belong to.
    pub(super) generation: i64,
    pub(super) readers: Arc<Readers>,
}

/// Connections for questions to one database file.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Database>>,
}

impl Readers {
    /// Connections to this file. They are opened when they are needed.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
        }
    }

    fn take(&self, deadline: Instant) -> rusqlite::Result<Database> {
        let idle = self.idle().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => Database::open_reader(&self.path)?,
        };
        reader.end_at(deadline)?;
        Ok(reader)
    }

    fn give_back(&self, reader: Database) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(reader);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Database>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let reader = published.readers.take(deadline)?;
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
