//! Connections to a database.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, OpenFlags};

use crate::index::StopFlag;

/// How many steps of SQLite's machine lie between two looks at the stop flag or the clock: well below a millisecond.
const STEPS_BETWEEN_CHECKS: i32 = 2_000;

/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 32;

/// The cache of a connection that reads, in kB.
const READER_CACHE_KB: i32 = 1024;

/// Idle connections that are kept.
const IDLE_MAX: usize = 4;

/// A connection to a database. `T` names its tables, so that only the statements for those are at hand.
#[derive(Debug)]
pub(crate) struct Database<T> {
    pub(crate) connection: Connection,
    tables: PhantomData<T>,
}

impl<T> Database<T> {
    /// Opens a file for writing, which must be there unless these flags say otherwise. Work ends when `stop` is set.
    ///
    /// `set_up` chooses how it is written, before anything else is done.
    pub(crate) fn open_writer(
        path: &Path,
        flags: OpenFlags,
        cache_kb: i32,
        stop: &Arc<StopFlag>,
        set_up: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Self> {
        let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        set_up(&connection)?;
        let stop = Arc::clone(stop);
        connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || stop.is_set()))?;
        Self::with(connection, cache_kb)
    }

    /// Opens a file for questions.
    pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "query_only", true)?;
        Self::with(connection, READER_CACHE_KB)
    }

    /// Interrupts every statement that runs after this time.
    pub(crate) fn end_at(&mut self, deadline: Instant) -> rusqlite::Result<()> {
        let is_late = move || Instant::now() > deadline;
        self.connection
            .progress_handler(STEPS_BETWEEN_CHECKS, Some(is_late))
    }

    /// Calls `work` in one transaction. Its statements see one state of the database. After an error nothing has changed.
    pub(crate) fn transaction<A, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Self) -> Result<A, E>,
    ) -> Result<A, E> {
        // `unchecked` because it borrows the connection like everything else does. There is no transaction inside of one.
        let transaction = self.connection.unchecked_transaction()?;
        let result = work(self)?;
        transaction.commit()?;
        Ok(result)
    }

    /// A statement, which stays prepared for the next time.
    pub(crate) fn prepare(&self, statement: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(statement)
    }

    /// Checks the structure of the whole file. Returns whether it is intact.
    pub(crate) fn is_intact(&self) -> rusqlite::Result<bool> {
        let connection = &self.connection;
        let found: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        Ok(found == "ok")
    }

    fn with(connection: Connection, cache_kb: i32) -> rusqlite::Result<Self> {
        // A negative number counts kB, a positive one pages.
        connection.pragma_update(None, "cache_size", -cache_kb)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(Self {
            connection,
            tables: PhantomData,
        })
    }
}

/// Connections for questions to one database file. They are opened when they are needed.
#[derive(Debug)]
pub(crate) struct Readers<T> {
    path: PathBuf,
    idle: Mutex<Vec<Database<T>>>,
}

impl<T> Readers<T> {
    /// Connections to this file.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
        }
    }

    /// Answers a question in one transaction. Its statements are interrupted after the deadline.
    pub(crate) fn ask<A>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Database<T>) -> rusqlite::Result<A>,
    ) -> rusqlite::Result<A> {
        // The lock is not held while the file is opened.
        let idle = self.idle.lock().pop();
        let mut reader = idle.map_or_else(|| Database::open_reader(&self.path), Ok)?;
        reader.end_at(deadline)?;
        // After a failure the connection is closed: what it has read may be damaged.
        let answer = reader.transaction(work)?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(reader);
        }
        Ok(answer)
    }
}
