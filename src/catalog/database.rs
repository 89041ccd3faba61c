//! The database file: its tables, and every statement that reads or writes them.
//!
//! The tables of 250,000 crates are made for size: numbers instead of names where one crate refers to another, checksums as
//! bytes, times as integers, and an index over the first eight bytes of a checksum only.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{OpenFlags, OptionalExtension, Row, params};

use super::names::{NameTable, TableBuilder};
use super::questions::{CrateSummary, Dependent, Publish, PublishPlace};
use super::record::{CrateRecord, ListedVersion};
use crate::index::{BlobId, StopFlag};
use crate::package::{Checksum, Timestamp};
use crate::sqlite::{Database, of_another_version};

/// Changes with every change of the tables. A file with another number is built again.
const SCHEMA: i32 = 3;

/// The cache of the connection that writes, in kB. It is also the memory for sorting an index.
const WRITER_CACHE_KB: i32 = 8 * 1024;

/// The log of changes is cut to this size when nobody reads in it any more.
const LOG_BYTES_MAX: i64 = 16 * 1024 * 1024;

const TABLES: &str = "
    -- One row: the state of the index that everything else belongs to.
    CREATE TABLE state (
        generation INTEGER NOT NULL,
        upstream_commit TEXT NOT NULL,
        source_tree BLOB NOT NULL,
        shown_tree BLOB NOT NULL
    );
    -- Every index file of the upstream. The columns from `name` on are null if nothing of the crate is shown.
    CREATE TABLE crates (
        id INTEGER PRIMARY KEY,
        key INTEGER NOT NULL,
        file TEXT NOT NULL,
        source BLOB NOT NULL,
        shown BLOB,
        is_skipped INTEGER NOT NULL,
        has_other_lines INTEGER NOT NULL,
        name TEXT,
        number INTEGER,
        created INTEGER,
        updated INTEGER,
        num_versions INTEGER,
        is_yanked INTEGER,
        default_version TEXT,
        default_id INTEGER,
        max_version TEXT,
        newest_version TEXT,
        max_stable_version TEXT
    );
    -- What the upstream lists, in the order of the index file. `shown_yanked` is null for a hidden version.
    CREATE TABLE versions (
        crate INTEGER NOT NULL,
        position INTEGER NOT NULL,
        num TEXT NOT NULL,
        published INTEGER,
        checksum BLOB,
        is_yanked INTEGER NOT NULL,
        shown_yanked INTEGER,
        PRIMARY KEY (crate, position)
    ) WITHOUT ROWID;
    -- `target` is the key of a crate that the default version of `crate` depends on, `number` that of the dependent.
    CREATE TABLE dependencies (
        crate INTEGER NOT NULL,
        target INTEGER NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (crate, target)
    ) WITHOUT ROWID;
";

/// Made after the tables are filled: sorting is several times faster than filling an index in random order.
const INDEXES: &str = "
    CREATE INDEX crate_keys ON crates (key);
    CREATE INDEX dependents ON dependencies (target, number, crate);
    CREATE INDEX checksums ON versions (substr(checksum, 1, 8)) WHERE checksum IS NOT NULL;
    CREATE INDEX publishes ON versions (published)
        WHERE shown_yanked IS NOT NULL AND published IS NOT NULL;
    CREATE INDEX incomplete ON crates (file) WHERE is_skipped OR has_other_lines;
";

/// The tables of the catalog.
#[derive(Debug)]
pub(crate) enum CatalogTables {}

/// A connection to the database.
pub(super) type Crates = Database<CatalogTables>;

/// The state of the index that the database belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Rises with every change.
    pub(super) generation: i64,
    /// The upstream commit.
    pub(super) commit: String,
    /// The git trees of the upstream's index and of the shown one, as git stores their ids.
    pub(super) trees: (Vec<u8>, Vec<u8>),
}

impl Crates {
    /// Makes a new file, which gets its indexes from [`Crates::finish`]. A crash before that leaves a useless file, so
    /// nothing is logged or flushed until then.
    pub(super) fn create(path: &Path, stop: &Arc<StopFlag>) -> rusqlite::Result<Self> {
        let database = Self::open_writer(
            path,
            OpenFlags::SQLITE_OPEN_CREATE,
            WRITER_CACHE_KB,
            stop,
            |connection| {
                // Sorted runs of an index go beside the database: other directories may be small, or not writable.
                let directory = path.parent().and_then(Path::to_str).unwrap_or_default();
                connection.pragma_update(None, "temp_store_directory", directory)?;
                connection.pragma_update(None, "journal_mode", "OFF")?;
                connection.pragma_update(None, "synchronous", "OFF")?;
                connection.pragma_update(None, "locking_mode", "EXCLUSIVE")
            },
        )?;
        database.connection.execute_batch("BEGIN")?;
        database.connection.execute_batch(TABLES)?;
        Ok(database)
    }

    /// Ends the making of a new file.
    pub(super) fn finish(self, state: &State) -> rusqlite::Result<()> {
        let connection = self.connection;
        connection.execute_batch(INDEXES)?;
        connection.execute(
            "INSERT INTO state VALUES (?1, ?2, ?3, ?4)",
            params![state.generation, state.commit, state.trees.0, state.trees.1],
        )?;
        connection.pragma_update(None, "user_version", SCHEMA)?;
        connection.execute_batch("COMMIT")?;
        connection.close().map_err(|(_connection, error)| error)
    }

    /// Opens a file for writing.
    ///
    /// Changes go to a log beside it (WAL), so that readers never wait for the writer. The log is flushed to the disk only
    /// when it is copied into the file: a power failure can undo the last changes, which are then followed once more, and
    /// never damages the file.
    pub(super) fn open(path: &Path, stop: &Arc<StopFlag>) -> rusqlite::Result<Self> {
        let flags = OpenFlags::empty();
        let database = Self::open_writer(path, flags, WRITER_CACHE_KB, stop, |connection| {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)
        })?;
        let schema = database
            .connection
            .pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))?;
        if schema != SCHEMA {
            return Err(of_another_version());
        }
        Ok(database)
    }

    /// The state of the index that the database belongs to. In a transaction: the one that all statements see.
    pub(super) fn state(&self) -> rusqlite::Result<State> {
        let mut statement = self.prepare("SELECT * FROM state")?;
        statement.query_row([], |row| {
            Ok(State {
                generation: row.get("generation")?,
                commit: row.get("upstream_commit")?,
                trees: (row.get("source_tree")?, row.get("shown_tree")?),
            })
        })
    }

    /// Only the generation of the state.
    pub(super) fn generation(&self) -> rusqlite::Result<i64> {
        let mut statement = self.prepare("SELECT generation FROM state")?;
        statement.query_row([], |row| row.get(0))
    }

    /// Writes the state.
    pub(super) fn set_state(&self, state: &State) -> rusqlite::Result<()> {
        let mut statement = self.prepare(
            "UPDATE state SET generation = ?1, upstream_commit = ?2, source_tree = ?3, shown_tree = ?4",
        )?;
        let trees = (&state.trees.0, &state.trees.1);
        statement.execute(params![state.generation, state.commit, trees.0, trees.1])?;
        Ok(())
    }

    /// The row of the crate with this index file.
    pub(super) fn row_of(&self, key: i64, file: &str) -> rusqlite::Result<Option<i64>> {
        let mut statement = self.prepare("SELECT id FROM crates WHERE key = ?1 AND file = ?2")?;
        statement
            .query_row(params![key, file], |row| row.get(0))
            .optional()
    }

    /// Removes a crate. Returns its row with its published name, if it was shown.
    pub(super) fn remove(&self, row: i64) -> rusqlite::Result<Option<(i64, String)>> {
        for statement in [
            "DELETE FROM versions WHERE crate = ?1",
            "DELETE FROM dependencies WHERE crate = ?1",
        ] {
            self.prepare(statement)?.execute([row])?;
        }
        let mut statement = self.prepare("DELETE FROM crates WHERE id = ?1 RETURNING name")?;
        let removed = statement.query_row([row], |removed| removed.get(0));
        let name: Option<String> = removed.optional()?.flatten();
        Ok(name.map(|name| (row, name)))
    }

    /// Adds a crate that is not there, and returns its row. `None` for `row` gives it a new one.
    pub(super) fn add(
        &self,
        key: i64,
        row: Option<i64>,
        record: &CrateRecord,
    ) -> rusqlite::Result<i64> {
        let shown = record.summary.as_ref();
        let summary = shown.map(|shown| &shown.summary);
        self.prepare(
            "INSERT INTO crates VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        )?
        .execute(params![
            row,
            key,
            record.file,
            blob_bytes(&record.source),
            record.shown.as_ref().map(blob_bytes),
            record.is_skipped,
            record.has_other_lines,
            summary.map(|shown| &shown.name),
            shown.map(|shown| shown.number),
            summary.map(|shown| shown.created_at.unix_seconds()),
            summary.map(|shown| shown.updated_at.unix_seconds()),
            summary.map(|shown| shown.num_versions),
            summary.map(|shown| shown.is_yanked),
            summary.map(|shown| &shown.default_version),
            shown.map(|shown| shown.default_id),
            summary.and_then(|shown| shown.max_version.as_ref()),
            summary.and_then(|shown| shown.newest_version.as_ref()),
            summary.and_then(|shown| shown.max_stable_version.as_ref()),
        ])?;
        let row = self.connection.last_insert_rowid();
        let mut statement =
            self.prepare("INSERT INTO versions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        for (position, version) in (0_i64..).zip(&record.versions) {
            let ListedVersion {
                num,
                published,
                checksum,
                is_yanked,
                shown_yanked,
            } = version;
            let checksum = checksum.as_ref().map(<[u8; 32]>::as_slice);
            statement.execute(params![
                row,
                position,
                num,
                published,
                checksum,
                is_yanked,
                shown_yanked
            ])?;
        }
        if let Some(shown) = shown {
            let mut statement = self.prepare("INSERT INTO dependencies VALUES (?1, ?2, ?3)")?;
            for target in &record.dependencies {
                statement.execute(params![row, target, shown.number])?;
            }
        }
        Ok(row)
    }

    /// Calls `visit` with every index file of the upstream that the database knows: the row of the crate, the name of the
    /// file, and the blobs that the crate was made from, the upstream's and the shown one.
    pub(super) fn for_each_crate(
        &self,
        mut visit: impl FnMut(i64, &str, &[u8], Option<&[u8]>),
    ) -> rusqlite::Result<()> {
        let mut statement = self.prepare("SELECT id, file, source, shown FROM crates")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, file) = (row.get(0)?, row.get_ref(1)?.as_str()?);
            let source = row.get_ref(2)?.as_blob()?;
            visit(id, file, source, row.get_ref(3)?.as_blob_or_null()?);
        }
        Ok(())
    }

    /// The number of index files that were too large to be read.
    pub(super) fn count_skipped(&self) -> rusqlite::Result<usize> {
        let mut statement = self.prepare("SELECT count(*) FROM crates WHERE is_skipped")?;
        statement.query_row([], count)
    }

    /// Reads the names of all shown crates.
    pub(super) fn names(&self) -> rusqlite::Result<NameTable> {
        let mut statement = self.prepare(
            "SELECT id, name, number, created, updated, is_yanked FROM crates WHERE name IS NOT NULL",
        )?;
        let mut rows = statement.query([])?;
        let mut builder = TableBuilder::default();
        while let Some(row) = rows.next()? {
            let (id, name) = (row.get(0)?, row.get_ref(1)?.as_str()?);
            let times = (row.get(3)?, row.get(4)?);
            builder.push(id, name, row.get(2)?, times, row.get(5)?);
        }
        Ok(builder.build())
    }

    /// Reads these crates, in this order. Skips a row that is not there.
    pub(super) fn summaries(&self, rows: &[i64]) -> rusqlite::Result<Vec<CrateSummary>> {
        let mut statement =
            self.prepare("SELECT * FROM crates WHERE id = ?1 AND name IS NOT NULL")?;
        let found = rows
            .iter()
            .map(|row| statement.query_row([row], summary).optional());
        found.filter_map(Result::transpose).collect()
    }

    /// The published name of a shown crate. If an index has several spellings of one name, the given one wins.
    pub(super) fn published_name(&self, key: i64, file: &str) -> rusqlite::Result<Option<String>> {
        let mut statement = self.prepare(
            "SELECT name FROM crates WHERE key = ?1 AND name IS NOT NULL ORDER BY file <> ?2, file LIMIT 1",
        )?;
        statement
            .query_row(params![key, file], |row| row.get(0))
            .optional()
    }

    /// The number of crates that depend on the one with this key.
    pub(super) fn count_dependents(&self, key: i64) -> rusqlite::Result<usize> {
        let mut statement = self.prepare("SELECT count(*) FROM dependencies WHERE target = ?1")?;
        statement.query_row([key], count)
    }

    /// Some of these crates: those with the highest numbers first.
    pub(super) fn dependents(
        &self,
        key: i64,
        skip: usize,
        limit: usize,
    ) -> rusqlite::Result<Vec<Dependent>> {
        // The inner query reads only the index, so skipping is cheap.
        let mut statement = self.prepare(
            "SELECT name, default_version, default_id FROM (
                SELECT crate, number FROM dependencies WHERE target = ?1 ORDER BY number DESC LIMIT ?2 OFFSET ?3
            ) AS page JOIN crates ON crates.id = page.crate ORDER BY page.number DESC",
        )?;
        let integer = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![key, integer(limit), integer(skip)], |row| {
            Ok(Dependent {
                name: row.get(0)?,
                version: row.get(1)?,
                version_id: row.get(2)?,
            })
        })?;
        rows.collect()
    }

    /// Shown versions by publish time, those after a place.
    pub(super) fn publishes_after(
        &self,
        place: &PublishPlace,
        limit: usize,
        version_bytes_max: usize,
    ) -> rusqlite::Result<Vec<Publish>> {
        // The index gives the order by time. Only those of one second are sorted.
        let mut statement = self.prepare(
            "SELECT name, checksum, shown_yanked, published, file, num
             FROM versions INDEXED BY publishes CROSS JOIN crates ON crates.id = versions.crate
             WHERE shown_yanked IS NOT NULL AND published >= ?1 AND name IS NOT NULL
                 AND (published, file, num) > (?1, ?2, ?3) AND length(num) <= ?5
             ORDER BY published, file, num LIMIT ?4",
        )?;
        let integer = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (limit, longest) = (integer(limit), integer(version_bytes_max));
        let (file, version) = (&place.file, &place.version);
        let rows =
            statement.query_map(params![place.time, file, version, limit, longest], |row| {
                let checksum: Option<[u8; 32]> = row.get("checksum")?;
                Ok(Publish {
                    crate_name: row.get("name")?,
                    checksum: checksum.map(Checksum::from),
                    yanked: row.get("shown_yanked")?,
                    place: PublishPlace {
                        time: row.get("published")?,
                        file: row.get("file")?,
                        version: row.get("num")?,
                    },
                })
            })?;
        rows.collect()
    }

    /// The index files that list a crate file with this checksum.
    pub(super) fn files_with(&self, checksum: &Checksum) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.prepare(
            "SELECT DISTINCT crates.file FROM versions JOIN crates ON crates.id = versions.crate
             WHERE substr(checksum, 1, 8) = substr(?1, 1, 8) AND checksum = ?1",
        )?;
        let rows = statement.query_map([checksum.as_bytes().as_slice()], |row| row.get(0))?;
        rows.collect()
    }

    /// The index files of which not all checksums are known.
    pub(super) fn incomplete_files(&self) -> rusqlite::Result<Vec<String>> {
        let mut statement =
            self.prepare("SELECT file FROM crates WHERE is_skipped OR has_other_lines")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    }

    /// Counts up to a number, which takes as long as the number is large.
    #[cfg(test)]
    pub(super) fn count_to(&self, number: i64) -> rusqlite::Result<i64> {
        self.connection.query_row(
            "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?1)
             SELECT max(n) FROM counted",
            [number],
            |row| row.get(0),
        )
    }
}

fn blob_bytes(blob: &BlobId) -> &[u8] {
    blob.0.as_bytes()
}

/// The only column of a row, a number that is not negative.
fn count(row: &Row<'_>) -> rusqlite::Result<usize> {
    let count: u32 = row.get(0)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn summary(row: &Row<'_>) -> rusqlite::Result<CrateSummary> {
    let time = |column: &str| -> rusqlite::Result<Timestamp> {
        let time = Timestamp::from_unix_seconds(row.get(column)?);
        Ok(time.unwrap_or_else(Timestamp::epoch))
    };
    Ok(CrateSummary {
        name: row.get("name")?,
        created_at: time("created")?,
        updated_at: time("updated")?,
        num_versions: row.get("num_versions")?,
        is_yanked: row.get("is_yanked")?,
        default_version: row.get("default_version")?,
        max_version: row.get("max_version")?,
        newest_version: row.get("newest_version")?,
        max_stable_version: row.get("max_stable_version")?,
    })
}
