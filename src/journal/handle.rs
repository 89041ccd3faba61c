//! The handle for questions, and the state that it shares with the background task.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cursor::StepCursor;
use super::database::{ChunkPlace, JournalFile, JournalTables, Piece, Step};
use crate::clock::Clock;
use crate::package::Timestamp;
use crate::sqlite::{AskError, Questions, Readers};

/// Questions that wait. More are refused.
const WAITING_MAX: usize = 512;

/// How many bytes of lines one answer has, roughly: a chunk more at most.
const BATCH_BYTES: usize = 32 * 1024;

/// What the journal needs to know.
#[derive(Clone, Debug)]
pub(crate) struct JournalSettings {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// How long steps are kept. Zero keeps the last one only.
    pub(crate) retention: Duration,
    /// Tells how old a step is.
    pub(crate) clock: Clock,
}

/// Asks the journal. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: JournalSettings,
    /// What questions are answered from.
    readers: ArcSwap<Result<Arc<Readers<JournalTables>>, OffReason>>,
    /// Why the last attempt to follow the index failed.
    last_error: Mutex<Option<String>>,
    /// Tells everybody who waits that there is a new step, or that the journal has begun anew or was turned off.
    changed: watch::Sender<()>,
    questions: Arc<Questions>,
    stop: CancellationToken,
}

/// Why there is no journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffReason {
    /// It was not opened yet.
    NotReady,
    /// The mirror cannot write to `DATA_DIR`, or another mirror has the lock of the index there.
    NotWritable,
    /// Another mirror uses the journal. It may be about to end.
    InUse,
    /// The system refused. The task tries again.
    Failed,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// There is no journal.
    #[error("there is no change journal")]
    Off(OffReason),
    /// The place is unknown: too old, or of another journal.
    #[error("the change journal does not know this place")]
    Gone,
    /// It cannot answer now.
    #[error(transparent)]
    Failed(#[from] AskError),
}

/// A place between two steps, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The place.
    pub(crate) cursor: StepCursor,
    /// The upstream commit whose index this is.
    pub(crate) commit: String,
    /// When the mirror saw the step before it.
    pub(crate) time: Timestamp,
}

impl Head {
    fn after(step: Step) -> Self {
        Self {
            cursor: step.cursor,
            commit: step.commit,
            time: Timestamp::from_unix_seconds(step.time).unwrap_or_else(Timestamp::epoch),
        }
    }
}

/// Some steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Where their lines begin; `None` if there are none.
    pub(crate) from: Option<ChunkPlace>,
    /// The place after them.
    pub(crate) head: Head,
}

impl Journal {
    /// A journal that its task has not opened yet. `stop` ends everything.
    pub(crate) fn new(settings: JournalSettings, stop: CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                readers: ArcSwap::from_pointee(Err(OffReason::NotReady)),
                last_error: Mutex::default(),
                changed: watch::Sender::new(()),
                questions: Arc::new(Questions::new("the change journal", WAITING_MAX)),
                stop,
            }),
        }
    }

    /// Where the journal ends.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(crate) async fn head(&self) -> Result<Head, JournalError> {
        self.ask(|database, _journal| Ok(database.newest()?.map(Head::after)))
            .await
    }

    /// The last place at which the index was shown with this git tree; `None` if the journal has none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(crate) async fn place_of(&self, tree: Vec<u8>) -> Result<Option<Head>, JournalError> {
        self.ask(move |database, journal| {
            let step = database.newest_with_tree(&tree)?;
            let oldest = journal.last_expired(database)?.unwrap_or(i64::MIN);
            let is_valid = |step: &Step| step.cursor.number >= oldest;
            Ok(Some(step.filter(is_valid).map(Head::after)))
        })
        .await
    }

    /// The steps after a place: whole ones with so many changes together, or one that has more by itself.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(crate) async fn steps_after(
        &self,
        cursor: StepCursor,
        changes_max: usize,
    ) -> Result<Steps, JournalError> {
        let changes_max = i64::try_from(changes_max).unwrap_or(i64::MAX);
        self.ask(move |database, journal| {
            let known = database.step(cursor.number)?;
            let oldest = journal.last_expired(database)?.unwrap_or(i64::MIN);
            let is_valid = |step: &Step| step.cursor == cursor && cursor.number >= oldest;
            let Some(known) = known.filter(is_valid) else {
                return Ok(None);
            };
            let last = database.last_within(cursor.number, changes_max)?;
            let from = last.as_ref();
            Ok(Some(Steps {
                from: from.map(|_| ChunkPlace::first_of(cursor.number + 1)),
                head: Head::after(last.unwrap_or(known)),
            }))
        })
        .await
    }

    /// Some of the lines from a place on, through a step, and the place after them; `None` after the last.
    ///
    /// # Errors
    /// [`JournalError`]. Among them [`JournalError::Gone`], if they were forgotten meanwhile.
    pub(crate) async fn read(
        &self,
        from: ChunkPlace,
        through: StepCursor,
    ) -> Result<(Vec<Piece>, Option<ChunkPlace>), JournalError> {
        self.ask(move |database, _journal| {
            let (pieces, next) = database.chunks(from, through.number, BATCH_BYTES)?;
            let end = pieces.last().map(|last| last.end);
            Ok(end.map(|end| (pieces, (end != Some(through)).then_some(next))))
        })
        .await
    }

    /// A receiver that is told of every later change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Waits until the mirror stops.
    pub(crate) async fn stopped(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Why the last attempt to follow the index failed; `None` after a success.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().clone()
    }

    /// Asks the file. `None` means that a place is gone.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&JournalFile, &Self) -> rusqlite::Result<Option<T>> + Send + 'static,
    ) -> Result<T, JournalError> {
        let readers = Result::clone(&self.shared.readers.load()).map_err(JournalError::Off)?;
        let journal = self.clone();
        // Short transactions only: an old one would keep the log from being cut.
        let work = move || {
            let work = |file: &JournalFile| work(file, &journal);
            Ok(readers.ask(Questions::deadline(), work)?)
        };
        let answer = self.shared.questions.ask(work).await?;
        answer.ok_or(JournalError::Gone)
    }

    /// The questions that it answers.
    pub(super) fn questions(&self) -> &Arc<Questions> {
        &self.shared.questions
    }

    pub(super) fn settings(&self) -> &JournalSettings {
        &self.shared.settings
    }

    /// The time of day, in seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        let since = self.shared.settings.clock.now();
        let since = since.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
    }

    /// The last step that is too old now, although the file may still have it.
    pub(super) fn last_expired(&self, database: &JournalFile) -> rusqlite::Result<Option<i64>> {
        let retention = self.shared.settings.retention;
        if retention.is_zero() {
            let newest = database.newest()?;
            return Ok(newest.map(|newest| newest.cursor.number.saturating_sub(1)));
        }
        let retention = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
        database.last_before(self.now().saturating_sub(retention))
    }

    /// Answers questions from this file from now on, or refuses them.
    pub(super) fn answer_from(&self, readers: Result<Arc<Readers<JournalTables>>, OffReason>) {
        self.shared.readers.store(Arc::new(readers));
        self.tell();
    }

    /// Whether questions are answered.
    pub(super) fn is_open(&self) -> bool {
        self.shared.readers.load().is_ok()
    }

    /// Tells everybody who waits.
    pub(super) fn tell(&self) {
        self.shared.changed.send_replace(());
    }

    pub(super) fn note_error(&self, error: Option<String>) {
        *self.shared.last_error.lock() = error;
    }
}
