//! The journal's file: its tables, and every statement that reads or writes them.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{OpenFlags, OptionalExtension, Row, params};

use super::cursor::StepCursor;
use crate::index::StopFlag;
use crate::sqlite::{Database, of_another_version};

/// Changes with every change of the tables. A file with another number is replaced, and followers start again.
const SCHEMA: i32 = 1;

/// The cache of the connection that writes, in kB.
const CACHE_KB: i32 = 1024;

/// The log of changes is cut to this size when nobody reads in it any more.
const LOG_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// How many chunks a step can have. Its number and the place of a chunk in it make one number, by which chunks are sorted.
const CHUNKS_OF_A_STEP: i64 = 1 << 20;

const TABLES: &str = "
    -- One row for each step that is kept, and one for the step before them. So the table is never empty.
    CREATE TABLE steps (
        number INTEGER PRIMARY KEY,
        mark INTEGER NOT NULL,
        time INTEGER NOT NULL,
        upstream_commit TEXT NOT NULL,
        shown_tree BLOB NOT NULL,
        changes INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    );
    -- The lines of each step, some kilobytes in each chunk. `number` is explained at CHUNKS_OF_A_STEP.
    CREATE TABLE chunks (
        number INTEGER PRIMARY KEY,
        is_last INTEGER NOT NULL,
        lines BLOB NOT NULL
    );
";

/// The tables of the journal.
#[derive(Debug)]
pub(crate) enum JournalTables {}

/// A connection to the journal.
pub(super) type JournalFile = Database<JournalTables>;

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) cursor: StepCursor,
    /// When the mirror saw it, in seconds since 1970.
    pub(super) time: i64,
    /// The newest upstream commit that shows the state after it.
    pub(super) commit: String,
    /// The shown git tree after it.
    pub(super) tree: Vec<u8>,
    /// How many lines it has. 0 for the step before all that are kept.
    pub(super) changes: i64,
    /// How many bytes its lines have.
    pub(super) bytes: i64,
}

/// The place of a chunk. Chunks of one step, and of one step and the next, follow each other without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace(i64);

impl ChunkPlace {
    /// The first chunk of a step.
    pub(super) fn first_of(step: i64) -> Self {
        Self(step.saturating_mul(CHUNKS_OF_A_STEP))
    }

    /// The place after a chunk.
    pub(super) fn after(self, is_last: bool) -> Self {
        if is_last {
            Self::first_of(self.step() + 1)
        } else {
            Self(self.0 + 1)
        }
    }

    /// The step that it belongs to.
    pub(super) fn step(self) -> i64 {
        self.0 / CHUNKS_OF_A_STEP
    }
}

/// Some lines of one step: a chunk.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Each with a line break.
    pub(crate) lines: Vec<u8>,
    /// The place after the step, if these are its last lines.
    pub(crate) end: Option<StepCursor>,
}

impl JournalFile {
    /// Opens the file for writing. Makes it if it is not there.
    ///
    /// Changes go to a log beside it (WAL), so that readers never wait for the writer. The log is flushed to the disk with
    /// every step: clients must never have seen a step that a power failure can undo.
    pub(super) fn open(path: &Path, stop: &Arc<StopFlag>) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_CREATE;
        let database = Self::open_writer(path, flags, CACHE_KB, stop, |connection| {
            // Before the first table, or it has no effect. It gives the space of removed steps back to the disk.
            connection.pragma_update(None, "auto_vacuum", "FULL")?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)
        })?;
        database.transaction(|Self { connection, .. }| {
            let schema: i32 =
                connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let tables: i64 =
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            match (schema, tables) {
                (SCHEMA, _) => Ok(()),
                (0, 0) => {
                    connection.execute_batch(TABLES)?;
                    connection.pragma_update(None, "user_version", SCHEMA)
                }
                _ => Err(of_another_version()),
            }
        })?;
        Ok(database)
    }

    /// Copies the log into the file and empties it. A large step leaves a log as large as itself.
    pub(super) fn cut_log(&self) -> rusqlite::Result<()> {
        // The answer says how much could be copied. The next step copies the rest.
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(()))
    }

    /// The last step. `None` only for a new file.
    pub(super) fn newest(&self) -> rusqlite::Result<Option<Step>> {
        let mut statement = self.prepare("SELECT * FROM steps ORDER BY number DESC LIMIT 1")?;
        statement.query_row([], step).optional()
    }

    /// A step that is kept, or the one before those.
    pub(super) fn step(&self, number: i64) -> rusqlite::Result<Option<Step>> {
        let mut statement = self.prepare("SELECT * FROM steps WHERE number = ?1")?;
        statement.query_row([number], step).optional()
    }

    /// The last step after which the index was shown with this git tree.
    pub(super) fn newest_with_tree(&self, tree: &[u8]) -> rusqlite::Result<Option<Step>> {
        let mut statement =
            self.prepare("SELECT * FROM steps WHERE shown_tree = ?1 ORDER BY number DESC LIMIT 1")?;
        statement.query_row([tree], step).optional()
    }

    /// The last of the steps after a number that have so many changes together, or the next one if it has more by itself.
    pub(super) fn last_within(
        &self,
        after: i64,
        changes_max: i64,
    ) -> rusqlite::Result<Option<Step>> {
        let mut statement =
            self.prepare("SELECT * FROM steps WHERE number > ?1 ORDER BY number")?;
        let mut rows = statement.query([after])?;
        let (mut last, mut changes) = (None, 0_i64);
        while let Some(row) = rows.next()? {
            let found = step(row)?;
            changes = changes.saturating_add(found.changes);
            if changes > changes_max && last.is_some() {
                break;
            }
            last = Some(found);
        }
        Ok(last)
    }

    /// The chunks from a place on, through a step, until they have so many bytes, and the place after them. One at least,
    /// unless the place is after the step or the chunk is not there any more.
    pub(super) fn chunks(
        &self,
        from: ChunkPlace,
        through: i64,
        bytes_max: usize,
    ) -> rusqlite::Result<(Vec<Piece>, ChunkPlace)> {
        let mut statement = self.prepare(
            "SELECT chunks.number, is_last, mark, lines
             FROM chunks JOIN steps ON steps.number = chunks.number / ?3
             WHERE chunks.number >= ?1 AND chunks.number < ?2 ORDER BY chunks.number",
        )?;
        let end = ChunkPlace::first_of(through + 1);
        let mut rows = statement.query(params![from.0, end.0, CHUNKS_OF_A_STEP])?;
        let (mut chunks, mut bytes, mut next) = (Vec::new(), 0, from);
        while bytes < bytes_max
            && let Some(row) = rows.next()?
        {
            let place = ChunkPlace(row.get(0)?);
            // The journal may have begun anew.
            if place != next {
                break;
            }
            let is_last: bool = row.get(1)?;
            let end = StepCursor {
                number: place.step(),
                mark: row.get(2)?,
            };
            let lines: Vec<u8> = row.get(3)?;
            bytes += lines.len();
            next = place.after(is_last);
            chunks.push(Piece {
                lines,
                end: is_last.then_some(end),
            });
        }
        Ok((chunks, next))
    }

    /// Adds a step. Its chunks are there already.
    pub(super) fn add_step(&self, step: &Step) -> rusqlite::Result<()> {
        let mut statement =
            self.prepare("INSERT INTO steps VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        statement.execute(params![
            step.cursor.number,
            step.cursor.mark,
            step.time,
            step.commit,
            step.tree,
            step.changes,
            step.bytes
        ])?;
        Ok(())
    }

    /// Adds a chunk.
    pub(super) fn add_chunk(
        &self,
        place: ChunkPlace,
        is_last: bool,
        lines: &[u8],
    ) -> rusqlite::Result<()> {
        let mut statement = self.prepare("INSERT INTO chunks VALUES (?1, ?2, ?3)")?;
        statement.execute(params![place.0, is_last, lines])?;
        Ok(())
    }

    /// Notes that a later commit has the same index files as the state after a step. Its tree may have others.
    pub(super) fn set_state(&self, number: i64, commit: &str, tree: &[u8]) -> rusqlite::Result<()> {
        let mut statement = self
            .prepare("UPDATE steps SET upstream_commit = ?2, shown_tree = ?3 WHERE number = ?1")?;
        statement.execute(params![number, commit, tree])?;
        Ok(())
    }

    /// Removes everything.
    pub(super) fn clear(&self) -> rusqlite::Result<()> {
        self.prepare("DELETE FROM chunks")?.execute([])?;
        self.prepare("DELETE FROM steps")?.execute([])?;
        Ok(())
    }

    /// The last step from before this time; `None` if none of those that are kept is so old.
    pub(super) fn last_before(&self, time: i64) -> rusqlite::Result<Option<i64>> {
        let mut statement =
            self.prepare("SELECT max(number) FROM steps WHERE time < ?1 AND changes > 0")?;
        statement.query_row([time], |row| row.get(0))
    }

    /// The last step that makes the lines of the steps from there on more than so many bytes.
    pub(super) fn last_beyond(&self, bytes_max: i64) -> rusqlite::Result<Option<i64>> {
        let mut statement = self.prepare("SELECT coalesce(sum(bytes), 0) FROM steps")?;
        let bytes: i64 = statement.query_row([], |row| row.get(0))?;
        // Only then: this looks at every step twice.
        if bytes <= bytes_max {
            return Ok(None);
        }
        let mut statement = self.prepare(
            "SELECT max(number) FROM (
                SELECT number, sum(bytes) OVER (ORDER BY number DESC) AS bytes FROM steps
            ) WHERE bytes > ?1",
        )?;
        statement.query_row([bytes_max], |row| row.get(0))
    }

    /// Forgets the steps up to this one. The row of the step itself stays, because the steps after it begin there.
    pub(super) fn forget_through(&self, number: i64) -> rusqlite::Result<()> {
        self.prepare("DELETE FROM chunks WHERE number < ?1")?
            .execute([ChunkPlace::first_of(number + 1).0])?;
        self.prepare("DELETE FROM steps WHERE number < ?1")?
            .execute([number])?;
        self.prepare("UPDATE steps SET changes = 0, bytes = 0 WHERE number = ?1")?
            .execute([number])?;
        Ok(())
    }
}

fn step(row: &Row<'_>) -> rusqlite::Result<Step> {
    Ok(Step {
        cursor: StepCursor {
            number: row.get("number")?,
            mark: row.get("mark")?,
        },
        time: row.get("time")?,
        commit: row.get("upstream_commit")?,
        tree: row.get("shown_tree")?,
        changes: row.get("changes")?,
        bytes: row.get("bytes")?,
    })
}
