//! The work of the background task: writes a step for every view that differs from the last one. Everything here blocks.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::cursor::StepCursor;
use super::database::{ChunkPlace, JournalFile, Step};
use super::difference::{FileState, for_each_difference};
use super::handle::{Journal, OffReason};
use super::line::{ChangeKind, ChangeLine, VersionState};
use crate::index::{BlobId, FileChange, IndexHandle, ReadError, ShownIndex, StopFlag, View};
use crate::memory::return_freed_blocks;
use crate::package::{CrateName, IndexPath};
use crate::sqlite::{
    DirectoryLock, FollowsViews, Readers, follow_views, is_damage, lock_directory, remove_database,
};

/// The directory of the journal in `DATA_DIR`.
const DIRECTORY: &str = "changes";

/// The file of the journal.
const FILE: &str = "journal.sqlite";

/// All lines together, in bytes: half a million changes. A setting of rules can change more in one step; the journal then
/// begins anew, because a full copy is cheaper for its followers. The file is a little larger. Smaller in tests.
const BYTES_MAX: i64 = if cfg!(test) {
    16 * 1024
} else {
    128 * 1024 * 1024
};

/// The size from which a chunk is written, in bytes. Smaller in tests.
const CHUNK_BYTES_MIN: usize = if cfg!(test) { 512 } else { 16 * 1024 };

/// Changes in one step, after which memory and disk space go back to the system.
const LARGE_STEP: i64 = 1_000;

/// How often in a row the last state may be unreadable before the journal begins anew.
const UNREADABLE_MAX: u32 = 3;

/// Why the journal could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error("{0}")]
    Read(#[from] ReadError),
    /// The state of the last step cannot be read.
    #[error("an earlier state of the index: {0}")]
    Earlier(#[source] ReadError),
    /// The state of the last step is gone, or a part of it.
    #[error("the last state of the index is gone")]
    Gone,
    /// The lines of a step are longer than those of all steps may be.
    #[error("too much has changed at once")]
    TooMuch,
    #[error("the file: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the directory of the change journal: {0}")]
    System(#[from] io::Error),
    #[error("the file is damaged")]
    Damaged,
    #[error("another mirror uses the change journal in DATA_DIR")]
    InUse,
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// The background task, which owns the journal.
#[derive(Debug)]
pub(crate) struct JournalTask {
    journal: Journal,
    index: IndexHandle,
    stop: Arc<StopFlag>,
    /// The lock of the directory. Kept to the end once the mirror has it.
    lock: Option<File>,
    /// Closed after a failure, because a step takes it and gives it back at its end.
    database: Option<JournalFile>,
    /// The state after the last step. Its clone stays on the disk until the next step is written.
    last: Option<ShownIndex>,
    /// How often in a row the last state was unreadable.
    unreadable: u32,
}

impl FollowsViews for JournalTask {
    type Error = WorkError;

    /// Brings the journal up to the current view, and forgets old steps.
    fn step(&mut self) -> Result<(), WorkError> {
        let result = self.follow();
        if let Err(error) = &result
            && !self.stop.is_set()
        {
            self.recover(error);
        }
        let error = result.as_ref().err().map(ToString::to_string);
        self.journal.note_error(error);
        result
    }

    /// The file is checked when it is opened again.
    fn suspect(&mut self) {
        self.database = None;
    }

    fn stop_flag(&self) -> Arc<StopFlag> {
        Arc::clone(&self.stop)
    }
}

impl JournalTask {
    /// A task that follows `index`, and answers through `journal`. It does nothing until it runs.
    pub(crate) fn new(journal: Journal, index: IndexHandle) -> Self {
        Self {
            journal,
            index,
            stop: Arc::new(StopFlag::new()),
            lock: None,
            database: None,
            last: None,
            unreadable: 0,
        }
    }

    /// Runs until the mirror stops.
    ///
    /// # Errors
    /// If the work has panicked. The process must end then.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), JoinError> {
        let followed = (Arc::clone(self.journal.questions()), self.index.clone());
        follow_views(self, followed, stop).await
    }

    fn follow(&mut self) -> Result<(), WorkError> {
        let Some(view) = self.index.view() else {
            return Ok(());
        };
        let database = match view.may_write_beside() {
            true => self.open()?,
            false => None,
        };
        let Some(database) = database else {
            (self.database, self.lock, self.last) = (None, None, None);
            self.journal.answer_from(Err(OffReason::NotWritable));
            return Ok(());
        };
        self.record(&database, &view)?;
        self.unreadable = 0;
        self.forget(&database)?;
        self.database = Some(database);
        if !self.journal.is_open() {
            let readers = Readers::new(self.file());
            self.journal.answer_from(Ok(Arc::new(readers)));
        }
        Ok(())
    }

    fn file(&self) -> PathBuf {
        let directory = self.journal.settings().data_dir.join(DIRECTORY);
        directory.join(FILE)
    }

    /// Keeps nothing that may be the reason of a failure.
    fn recover(&mut self, error: &WorkError) {
        let is_damaged = match error {
            WorkError::Damaged => true,
            WorkError::Database(error) => is_damage(error),
            _ => false,
        };
        match error {
            WorkError::Earlier(_) => self.unreadable = self.unreadable.saturating_add(1),
            // The disk may be full. It must not have to keep a clone that was replaced.
            WorkError::Database(_) | WorkError::System(_) => self.last = None,
            _ => {}
        }
        if is_damaged {
            self.journal.answer_from(Err(OffReason::Failed));
            if let Err(error) = remove_database(&self.file()) {
                tracing::debug!(error = %error, "the damaged change journal could not be removed");
            }
        } else if !self.journal.is_open() {
            self.journal.answer_from(Err(match error {
                WorkError::InUse => OffReason::InUse,
                _ => OffReason::Failed,
            }));
        }
    }

    /// The file, which is checked when it is opened. `None` if the directory cannot be written.
    fn open(&mut self) -> Result<Option<JournalFile>, WorkError> {
        if self.lock.is_none() {
            let directory = self.journal.settings().data_dir.join(DIRECTORY);
            match lock_directory(&directory)? {
                DirectoryLock::Ours(lock) => self.lock = Some(lock),
                DirectoryLock::InUse => return Err(WorkError::InUse),
                DirectoryLock::NotWritable => return Ok(None),
            }
        }
        let open = self.database.take();
        if open.is_some() {
            return Ok(open);
        }
        let database = JournalFile::open(&self.file(), &self.stop)?;
        if !database.is_intact()? {
            return Err(WorkError::Damaged);
        }
        Ok(Some(database))
    }

    /// Writes the step that leads to a view.
    fn record(&mut self, database: &JournalFile, view: &View) -> Result<(), WorkError> {
        let shown = view.shown();
        let newest = database.newest()?;
        let mut next = Step {
            cursor: StepCursor {
                number: newest.as_ref().map_or(1, |step| step.cursor.number + 1),
                mark: fastrand::i64(..),
            },
            time: self.journal.now(),
            commit: view.commit().to_string(),
            tree: shown.tree().0.as_bytes().to_vec(),
            changes: 0,
            bytes: 0,
        };
        let is_known = newest
            .as_ref()
            .is_some_and(|newest| (&newest.tree, &newest.commit) == (&next.tree, &next.commit));
        if !is_known {
            let written = match &newest {
                Some(newest) => self.write(database, (newest, &mut next), (view, &shown)),
                None => begin(database, &next),
            };
            let begins_anew = match written {
                Err(why @ (WorkError::Gone | WorkError::TooMuch)) => {
                    tracing::warn!(
                        "the change journal begins anew, so its followers must start again: {why}"
                    );
                    begin(database, &next)?;
                    true
                }
                written => {
                    written?;
                    false
                }
            };
            self.journal.tell();
            if begins_anew || next.changes > LARGE_STEP {
                database.cut_log()?;
                // They have seen many files. Closing them frees that memory.
                view.close_idle_handles();
                return_freed_blocks();
            }
        }
        self.last = Some(shown);
        Ok(())
    }

    /// Writes the step from the newest one to a view.
    fn write(
        &self,
        database: &JournalFile,
        (newest, next): (&Step, &mut Step),
        (view, shown): (&View, &ShownIndex),
    ) -> Result<(), WorkError> {
        let earlier = self.earlier(newest, view)?;
        database.transaction(|database| {
            let mut lines = Lines {
                database,
                place: ChunkPlace::first_of(next.cursor.number),
                waiting: Vec::new(),
                count: 0,
                bytes: 0,
            };
            for change in shown.changes_since(&earlier) {
                self.stop.check()?;
                write_change((&earlier, view), change, &next.commit, &mut lines)?;
            }
            (next.changes, next.bytes) = lines.finish()?;
            if next.changes > 0 {
                database.add_step(next)?;
            } else {
                // Another commit with the same index files: a squash, or a change of something else.
                database.set_state(newest.cursor.number, &next.commit, &next.tree)?;
            }
            tracing::debug!(
                changes.step = next.cursor.number,
                changes.lines = next.changes,
                "the change journal is up to date"
            );
            Ok(())
        })
    }

    /// The state after a step.
    fn earlier(&self, step: &Step, view: &View) -> Result<ShownIndex, WorkError> {
        if self.unreadable >= UNREADABLE_MAX {
            return Err(WorkError::Gone);
        }
        let is_it = |last: &&ShownIndex| last.tree().0.as_bytes() == step.tree;
        if let Some(last) = self.last.as_ref().filter(is_it) {
            return Ok(last.clone());
        }
        let found = view.find_shown(&step.tree, &self.stop)?;
        found.ok_or(WorkError::Gone)
    }

    /// Forgets the steps that are too old, and those that are too many.
    fn forget(&self, database: &JournalFile) -> Result<(), WorkError> {
        let expired = self.journal.last_expired(database)?;
        let last = expired.max(database.last_beyond(BYTES_MAX)?);
        let forgotten = match last {
            Some(last) => database.step(last)?,
            None => None,
        };
        // The one before those that are kept has no changes any more.
        if let Some(forgotten) = forgotten.filter(|step| step.changes > 0) {
            let number = forgotten.cursor.number;
            database.transaction(|database| database.forget_through(number))?;
        }
        Ok(())
    }
}

/// Begins anew at a state, which has no lines. All cursors so far become unknown.
fn begin(database: &JournalFile, state: &Step) -> Result<(), WorkError> {
    Ok(database.transaction(|database| {
        database.clear()?;
        database.add_step(state)
    })?)
}

/// Writes the lines about one index file.
fn write_change(
    (earlier, view): (&ShownIndex, &View),
    change: FileChange<'_>,
    commit: &str,
    lines: &mut Lines<'_>,
) -> Result<(), WorkError> {
    // Never fails: a directory lists only files with a crate's name.
    let Ok(name) = CrateName::try_from(change.name.to_owned()) else {
        return Ok(());
    };
    let path = IndexPath::from(&name);
    let content;
    let before = match change
        .before
        .map(|blob| earlier.read(BlobId(blob), <[u8]>::to_vec))
    {
        None => FileState::Absent,
        Some(Ok(Some(read))) => {
            content = read;
            FileState::Content(&content)
        }
        Some(Ok(None)) => return Err(WorkError::Gone),
        Some(Err(ReadError::TooLarge(_))) => FileState::TooLarge,
        Some(Err(ReadError::Stopped)) => return Err(ReadError::Stopped.into()),
        Some(Err(error)) => return Err(WorkError::Earlier(error)),
    };
    // A file that cannot be read is not shown either.
    let flags = match view.flags_of(change.name) {
        Err(ReadError::Stopped) => return Err(ReadError::Stopped.into()),
        flags => flags.unwrap_or_default(),
    };
    let mut write = |after: FileState<'_>| {
        for_each_difference(&name, (before, after), |kind, crate_name, version| {
            let is_there = kind != ChangeKind::VersionDeleted;
            lines.add(&ChangeLine {
                kind,
                crate_name,
                version: version.map(|version| VersionState {
                    version: &version.version,
                    cksum: version.cksum.as_deref(),
                    pubtime: version.pubtime.as_ref(),
                    yanked: version.yanked,
                    flag: (is_there && version.yanked)
                        .then(|| flags.get(&version.version).cloned())
                        .flatten(),
                }),
                path: path.as_str(),
                commit,
            })
        })
    };
    match change.after {
        None => write(FileState::Absent),
        Some(blob) => {
            match view.read_blob(BlobId(blob), |content| write(FileState::Content(content))) {
                Err(ReadError::TooLarge(_)) => write(FileState::TooLarge),
                written => written?,
            }
        }
    }
}

/// The lines of a step on their way into the file.
struct Lines<'a> {
    database: &'a JournalFile,
    /// Where the next chunk goes.
    place: ChunkPlace,
    waiting: Vec<u8>,
    count: i64,
    bytes: i64,
}

impl Lines<'_> {
    fn add(&mut self, line: &ChangeLine<'_>) -> Result<(), WorkError> {
        if self.waiting.len() >= CHUNK_BYTES_MIN {
            self.write(false)?;
        }
        let before = self.waiting.len();
        serde_json::to_writer(&mut self.waiting, line)?;
        self.waiting.push(b'\n');
        self.count += 1;
        let added = self.waiting.len().saturating_sub(before);
        self.bytes += i64::try_from(added).unwrap_or(i64::MAX);
        if self.bytes > BYTES_MAX {
            return Err(WorkError::TooMuch);
        }
        Ok(())
    }

    /// Writes the last lines. Returns how many lines there were, and their bytes.
    fn finish(mut self) -> Result<(i64, i64), WorkError> {
        if self.count > 0 {
            self.write(true)?;
        }
        Ok((self.count, self.bytes))
    }

    fn write(&mut self, is_last: bool) -> Result<(), WorkError> {
        self.database
            .add_chunk(self.place, is_last, &self.waiting)?;
        self.place = self.place.after(is_last);
        self.waiting.clear();
        Ok(())
    }
}
