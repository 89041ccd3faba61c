//! Fetching many files: so many at a time, with progress, until all are done, somebody stops it, or upstream is down.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::tally::{EnsureError, Ensured, Tally};
use crate::cli::progress::Progress;
use crate::package::CrateFile;

/// How many files are fetched at a time if nobody says otherwise: what one cargo would do is far more.
pub(crate) const JOBS_DEFAULT: u8 = 4;

/// More than this at a time is no longer polite to anybody.
pub(crate) const JOBS_MAX: u8 = 32;

/// How many failures in a row mean that upstream is down.
const FAILURES_IN_A_ROW_MAX: u64 = 100;

/// How many files in a row that no upstream has mean that what is asked for files is not where files are: some are
/// missing for good, but so many of them do not follow upon each other.
const MISSING_IN_A_ROW_MAX: u64 = 500;

/// How often a line is written where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Sees to it that files are held.
pub(crate) trait CrateKeeper: Send + Sync + 'static {
    /// Makes sure that a file is held, and fetches it if need be. Dropping the future must leave nothing half done.
    fn ensure(&self, file: &CrateFile)
    -> impl Future<Output = Result<Ensured, EnsureError>> + Send;
}

/// Why fetching came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There were no more files.
    AllDealtWith,
    /// Somebody stopped it.
    Stopped,
    /// So many files in a row could not be had that the next ones would not be, either. This was wrong with the last.
    GaveUp(EnsureError),
}

/// Files in a row that are not held.
#[derive(Default)]
struct InARow {
    failures: u64,
    missing: u64,
}

impl InARow {
    /// Counts one more file, and says what is wrong if these are too many.
    fn too_many(&mut self, result: &Result<Ensured, EnsureError>) -> Option<EnsureError> {
        let error = match result {
            Ok(_held) => {
                *self = Self::default();
                return None;
            }
            Err(error) => error,
        };
        let is_too_many = match error {
            EnsureError::Missing => {
                self.missing += 1;
                self.missing >= MISSING_IN_A_ROW_MAX
            }
            EnsureError::Failed(_) | EnsureError::Store(_) => {
                self.failures += 1;
                self.failures >= FAILURES_IN_A_ROW_MAX
            }
        };
        is_too_many.then(|| error.clone())
    }
}

/// Fetches files until `files` has no more.
pub(crate) async fn fetch_all(
    mut files: mpsc::Receiver<CrateFile>,
    keeper: &Arc<impl CrateKeeper>,
    jobs: NonZeroUsize,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> (Tally, Ended) {
    let mut running = JoinSet::new();
    let (mut tally, mut in_a_row) = (Tally::default(), InARow::default());
    let mut more_to_come = true;
    let mut line_due =
        tokio::time::interval_at(tokio::time::Instant::now() + LINE_EVERY, LINE_EVERY);
    while more_to_come || !running.is_empty() {
        tokio::select! {
            biased;
            () = stop.cancelled() => return (tally, Ended::Stopped),
            Some(joined) = running.join_next(), if !running.is_empty() => {
                let (file, result) = joined.unwrap_or_else(mistake);
                tally.count(&result);
                progress.done(&tally, file.as_ref(), &result);
                if let Some(error) = in_a_row.too_many(&result) {
                    return (tally, Ended::GaveUp(error));
                }
            }
            next = files.recv(), if more_to_come && running.len() < jobs.get() => match next {
                Some(file) => {
                    progress.begun(&file);
                    let keeper = Arc::clone(keeper);
                    running.spawn(async move {
                        let result = keeper.ensure(&file).await;
                        (Some(file), result)
                    });
                }
                None => more_to_come = false,
            },
            _ = line_due.tick() => progress.line(&tally),
        }
    }
    (tally, Ended::AllDealtWith)
}

/// A task that ended by a panic takes nothing else along.
fn mistake(error: JoinError) -> (Option<CrateFile>, Result<Ensured, EnsureError>) {
    let said = format!("a mistake in the mirror: {error}");
    (None, Err(EnsureError::Failed(said)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cli::terminal::testing::{Written, remembering};
    use crate::package::{CrateName, CrateVersion};

    type Answer = fn(u32) -> Result<Ensured, EnsureError>;

    /// Answers by the number of the file, each after a second.
    struct Fake {
        answer: Answer,
        running: AtomicUsize,
        most_running: AtomicUsize,
        asked: Mutex<Vec<String>>,
        stop_at: Option<(u64, CancellationToken)>,
    }

    impl Fake {
        fn new(answer: Answer) -> Self {
            Self {
                answer,
                running: AtomicUsize::new(0),
                most_running: AtomicUsize::new(0),
                asked: Mutex::default(),
                stop_at: None,
            }
        }
    }

    impl CrateKeeper for Fake {
        async fn ensure(&self, file: &CrateFile) -> Result<Ensured, EnsureError> {
            let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_running.fetch_max(now, Ordering::SeqCst);
            self.asked.lock().unwrap().push(file.to_string());
            let number = file.version.semver().patch;
            if let Some((at, stop)) = &self.stop_at
                && *at == number
            {
                stop.cancel();
            }
            // The clock of these tests jumps ahead when nothing else is left to do.
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            (self.answer)(u32::try_from(number).unwrap())
        }
    }

    fn file(number: u32) -> CrateFile {
        CrateFile {
            name: CrateName::try_from("a".to_owned()).unwrap(),
            version: CrateVersion::try_from(format!("0.0.{number}")).unwrap(),
            checksum: [0; 32].into(),
        }
    }

    async fn fetched(
        fake: Fake,
        files: u32,
        stop: &CancellationToken,
    ) -> (Arc<Fake>, Tally, Ended, Written) {
        let (terminal, written) = remembering();
        let (sender, receiver) = mpsc::channel(10);
        let fake = Arc::new(fake);
        let mut progress = Progress::new(terminal, Some(files.into()));
        let feed = async {
            for number in 0..files {
                if sender.send(file(number)).await.is_err() {
                    break;
                }
            }
            drop(sender);
        };
        let jobs = NonZeroUsize::new(4).unwrap();
        let fetch = fetch_all(receiver, &fake, jobs, &mut progress, stop);
        let ((), (tally, ended)) = tokio::join!(feed, fetch);
        (fake, tally, ended, written)
    }

    #[tokio::test(start_paused = true)]
    async fn every_file_is_dealt_with_so_many_at_a_time_and_counted() {
        let answer: Answer = |number| match number % 4 {
            0 => Ok(Ensured::AlreadyHeld),
            1 => Ok(Ensured::Fetched { bytes: 10 }),
            2 => Err(EnsureError::Missing),
            _ => Err(EnsureError::Failed("timed out".to_owned())),
        };
        let stop = CancellationToken::new();
        let (fake, tally, ended, written) = fetched(Fake::new(answer), 100, &stop).await;
        assert_eq!(ended, Ended::AllDealtWith);
        let expected = Tally {
            held: 25,
            fetched: 25,
            fetched_bytes: 250,
            missing: 25,
            failed: 25,
        };
        assert_eq!((tally, tally.files()), (expected, 100));
        assert_eq!(fake.most_running.load(Ordering::SeqCst), 4);
        let notes = written.notes();
        let problems = notes.lines().filter(|line| line.starts_with("problem: "));
        assert_eq!(problems.count(), 50);
        assert!(notes.contains("problem: a 0.0.2: no upstream has it"));
        assert!(notes.contains("problem: a 0.0.3: timed out"));
        // 25 seconds of work.
        let lines = notes.lines().filter(|line| line.contains(" of 100 files"));
        assert_eq!(lines.count(), 2, "{notes}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_failures_in_a_row_are_enough_and_one_success_starts_anew() {
        let stop = CancellationToken::new();
        let failing: Answer = |_| Err(EnsureError::Failed("refused".to_owned()));
        let (_, tally, ended, _) = fetched(Fake::new(failing), 1_000, &stop).await;
        let refused = EnsureError::Failed("refused".to_owned());
        assert_eq!(
            (ended, tally.failed),
            (Ended::GaveUp(refused), FAILURES_IN_A_ROW_MAX)
        );
        let mostly: Answer = |number| match number % 90 {
            7 => Ok(Ensured::AlreadyHeld),
            _ => Err(EnsureError::Store("the disk is full".to_owned())),
        };
        let (_, tally, ended, _) = fetched(Fake::new(mostly), 450, &stop).await;
        assert_eq!((ended, tally.files()), (Ended::AllDealtWith, 450));
    }

    #[tokio::test(start_paused = true)]
    async fn so_do_many_missing_ones_and_some_of_them_do_not_hide_failures() {
        let stop = CancellationToken::new();
        let missing: Answer = |_| Err(EnsureError::Missing);
        let (_, tally, ended, _) = fetched(Fake::new(missing), 1_000, &stop).await;
        assert_eq!(
            (ended, tally.missing),
            (Ended::GaveUp(EnsureError::Missing), MISSING_IN_A_ROW_MAX)
        );
        let half: Answer = |number| match number % 2 {
            0 => Err(EnsureError::Missing),
            _ => Err(EnsureError::Store("the disk is full".to_owned())),
        };
        let (_, tally, ended, _) = fetched(Fake::new(half), 1_000, &stop).await;
        let full = EnsureError::Store("the disk is full".to_owned());
        assert_eq!(
            (ended, tally.failed),
            (Ended::GaveUp(full), FAILURES_IN_A_ROW_MAX)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_when_told_to_without_waiting_for_what_is_under_way() {
        let stop = CancellationToken::new();
        let mut fake = Fake::new(|_| Ok(Ensured::AlreadyHeld));
        fake.stop_at = Some((9, stop.clone()));
        let (fake, tally, ended, _) = fetched(fake, 100, &stop).await;
        assert_eq!(ended, Ended::Stopped);
        assert_eq!(tally.held, 8);
        assert!(fake.asked.lock().unwrap().len() <= 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mistake_in_one_file_is_a_failure_of_that_file_only() {
        let stop = CancellationToken::new();
        let panics: Answer = |number| {
            assert!(number != 1, "a mistake");
            Ok(Ensured::AlreadyHeld)
        };
        let (_, tally, ended, _) = fetched(Fake::new(panics), 5, &stop).await;
        assert_eq!(
            (ended, tally.held, tally.failed),
            (Ended::AllDealtWith, 4, 1)
        );
    }
}
