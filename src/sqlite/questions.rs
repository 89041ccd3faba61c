//! Questions to a database: a few are answered at the same time, some wait, and more are refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// Questions that are answered at the same time. Each has a thread and a connection.
pub(crate) const ANSWERED_MAX: usize = 4;

/// How long a question may wait for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Why a question has no answer. All of them may pass: the next attempt can succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Too many questions wait already, or this one has waited too long.
    #[error("too many questions wait already")]
    Busy,
    /// The answer took too long.
    #[error("the answer took too long")]
    TimedOut,
    /// The database cannot be read. The background task checks it, and makes it again if it is damaged.
    #[error("the database cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<rusqlite::Error> for AskError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::TimedOut,
            _ => Self::Unreadable(error.into()),
        }
    }
}

/// The questions to one database.
#[derive(Debug)]
pub(crate) struct Questions {
    /// The name of the database, for the log.
    pub(super) name: &'static str,
    /// Questions that wait or are answered.
    accepted: Arc<Semaphore>,
    /// Questions that are answered.
    answered: Arc<Semaphore>,
    /// Asks the background task to check the file.
    damage_check: Notify,
}

impl Questions {
    /// No questions yet. `waiting_max` of them may wait.
    pub(crate) fn new(name: &'static str, waiting_max: usize) -> Self {
        Self {
            name,
            accepted: Arc::new(Semaphore::new(ANSWERED_MAX + waiting_max)),
            answered: Arc::new(Semaphore::new(ANSWERED_MAX)),
            damage_check: Notify::new(),
        }
    }

    /// The time at which an answer that begins now must be there.
    pub(crate) fn deadline() -> Instant {
        Instant::now() + ANSWER_MAX
    }

    /// Calls `work` on a blocking thread when it is its turn.
    ///
    /// # Errors
    /// Those of `work`, and [`AskError::Busy`].
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> Result<T, AskError> + Send + 'static,
    ) -> Result<T, AskError> {
        let accepted = Arc::clone(&self.accepted).try_acquire_owned();
        let accepted = accepted.map_err(|_full| AskError::Busy)?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.answered).acquire_owned());
        let turn = turn.await.map_err(|_elapsed| AskError::Busy)?;
        let questions = Arc::clone(self);
        let answered = tokio::task::spawn_blocking(move || {
            // Kept to the end, even if the client has gone: the thread and the connection are in use until then.
            let _permits = (accepted, turn);
            let answer = work();
            if let Err(AskError::Unreadable(error)) = &answer {
                tracing::warn!(error = %error, "{} cannot be read", questions.name);
                questions.damage_check.notify_one();
            }
            answer
        });
        answered
            .await
            .unwrap_or_else(|panic| Err(AskError::Unreadable(panic.into())))
    }

    /// Waits until a question has found the database unreadable.
    pub(crate) async fn damage_reported(&self) {
        self.damage_check.notified().await;
    }

    /// Keeps all questions waiting while the permits exist.
    #[cfg(test)]
    pub(crate) async fn hold_answers(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(ANSWERED_MAX).unwrap();
        let answered = Arc::clone(&self.answered).acquire_many_owned(all);
        answered.await.unwrap()
    }
}
