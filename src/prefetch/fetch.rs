//! Fetching many files, several at a time, until all are done, the run is stopped or the upstream is down.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use crate::package::CrateFile;
use crate::store::{CrateFiles, Ensured, GetError};

/// How many files are fetched at a time by default. A single cargo uses far more connections.
pub(crate) const JOBS_DEFAULT: u8 = 4;

/// The most files at a time. More would be impolite to any upstream.
pub(crate) const JOBS_MAX: u8 = 32;

/// How many failures in a row mean that the upstream is down.
const FAILURES_IN_A_ROW_MAX: u64 = 100;

/// How many missing files in a row mean that the URL of crate files is wrong. Some files are missing for good, but never so
/// many in a row.
const MISSING_IN_A_ROW_MAX: u64 = 500;

/// How often [`FetchEvent::Tick`] comes.
const TICK: Duration = Duration::from_secs(10);

/// How often a file is tried while an upstream is busy or slow.
const TRIES_MAX: u32 = 5;

/// The longest pause before the next try.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Makes sure that a file is stored. Waits for busy and slow upstreams, because no client waits for an answer.
pub(crate) async fn ensure_patiently(
    crate_files: &CrateFiles,
    file: &CrateFile,
) -> Result<Ensured, GetError> {
    for _ in 1..TRIES_MAX {
        match crate_files.ensure(file).await {
            Err(GetError::Busy(pause)) => tokio::time::sleep(pause.min(PAUSE_MAX)).await,
            Err(GetError::Pending) => {}
            result => return result,
        }
    }
    crate_files.ensure(file).await
}

/// What happened to the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Files that were stored before.
    pub(crate) stored: u64,
    /// Files that were fetched.
    pub(crate) fetched: u64,
    /// Their bytes.
    pub(crate) fetched_bytes: u64,
    /// Files that no upstream has.
    pub(crate) missing: u64,
    /// Files that could not be fetched.
    pub(crate) failed: u64,
}

impl Tally {
    /// How many files are done.
    pub(crate) fn files(&self) -> u64 {
        self.stored + self.fetched + self.missing + self.failed
    }

    fn count(&mut self, result: &Result<Ensured, GetError>) {
        match result {
            Ok(Ensured::AlreadyStored) => self.stored += 1,
            Ok(Ensured::Fetched { bytes }) => {
                self.fetched += 1;
                self.fetched_bytes += bytes;
            }
            Err(GetError::Missing) => self.missing += 1,
            Err(_) => self.failed += 1,
        }
    }
}

/// What a run reports.
#[derive(Debug)]
pub(crate) enum FetchEvent<'e> {
    /// The fetch of a file begins.
    Begun(&'e CrateFile),
    /// A file is done. The file is unknown after an internal error.
    Done(Option<&'e CrateFile>, &'e Result<Ensured, GetError>),
    /// Some time has passed.
    Tick,
}

/// Why a run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All files are done.
    AllDone,
    /// It was stopped.
    Stopped,
    /// Too many files in a row failed. This is the error of the last one.
    GaveUp(GetError),
}

/// The failures in a row.
#[derive(Default)]
struct InARow {
    failures: u64,
    missing: u64,
}

impl InARow {
    /// Counts a file, and returns its error if there were too many.
    fn too_many(&mut self, result: &Result<Ensured, GetError>) -> Option<GetError> {
        let Err(error) = result else {
            *self = Self::default();
            return None;
        };
        let is_too_many = if *error == GetError::Missing {
            self.missing += 1;
            self.missing >= MISSING_IN_A_ROW_MAX
        } else {
            self.failures += 1;
            self.failures >= FAILURES_IN_A_ROW_MAX
        };
        is_too_many.then(|| error.clone())
    }
}

/// Calls `ensure` for every file, `jobs` at a time, and reports each step. A dropped `ensure` must leave nothing half done.
pub(crate) async fn fetch_all<F>(
    mut files: mpsc::Receiver<CrateFile>,
    jobs: NonZeroUsize,
    stop: &CancellationToken,
    ensure: impl Fn(CrateFile) -> F,
    mut report: impl FnMut(&Tally, FetchEvent<'_>),
) -> (Tally, Ended)
where
    F: Future<Output = (CrateFile, Result<Ensured, GetError>)> + Send + 'static,
{
    let mut running = JoinSet::new();
    let (mut tally, mut in_a_row) = (Tally::default(), InARow::default());
    let mut more_to_come = true;
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    while more_to_come || !running.is_empty() {
        tokio::select! {
            biased;
            () = stop.cancelled() => return (tally, Ended::Stopped),
            Some(joined) = running.join_next(), if !running.is_empty() => {
                let (file, result) = match joined {
                    Ok((file, result)) => (Some(file), result),
                    // A panic costs this file only.
                    Err(panic) => (None, Err(GetError::Failed(format!("internal error: {panic}").into()))),
                };
                tally.count(&result);
                report(&tally, FetchEvent::Done(file.as_ref(), &result));
                if let Some(error) = in_a_row.too_many(&result) {
                    return (tally, Ended::GaveUp(error));
                }
            }
            next = files.recv(), if more_to_come && running.len() < jobs.get() => match next {
                Some(file) => {
                    report(&tally, FetchEvent::Begun(&file));
                    running.spawn(ensure(file));
                }
                None => more_to_come = false,
            },
            _ = ticks.tick() => report(&tally, FetchEvent::Tick),
        }
    }
    (tally, Ended::AllDone)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::package::{CrateName, CrateVersion};

    type Answer = fn(u32) -> Result<Ensured, GetError>;

    fn file(number: u32) -> CrateFile {
        CrateFile {
            name: CrateName::try_from("a".to_owned()).unwrap(),
            version: CrateVersion::try_from(format!("0.0.{number}")).unwrap(),
            checksum: [0; 32].into(),
        }
    }

    /// What a run did.
    #[derive(Debug, Default)]
    struct Run {
        tally: Tally,
        ended: Option<Ended>,
        begun: usize,
        problems: Vec<String>,
        ticks: usize,
        most_running: usize,
    }

    /// Answers by the number of the file, each after a second.
    async fn fetched(answer: Answer, files: u32, stop_at: Option<u64>) -> Run {
        let stop = CancellationToken::new();
        let (sender, receiver) = mpsc::channel(10);
        let feed = async {
            for number in 0..files {
                if sender.send(file(number)).await.is_err() {
                    break;
                }
            }
            drop(sender);
        };
        let running = Arc::new(AtomicUsize::new(0));
        let most_running = Arc::new(AtomicUsize::new(0));
        let ensure = |file: CrateFile| {
            let (running, most_running) = (Arc::clone(&running), Arc::clone(&most_running));
            let number = file.version.semver().patch;
            if stop_at == Some(number) {
                stop.cancel();
            }
            async move {
                most_running
                    .fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // The clock of these tests jumps ahead when no task can run.
                tokio::time::sleep(Duration::from_secs(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                (file, answer(u32::try_from(number).unwrap()))
            }
        };
        let mut run = Run::default();
        let report = |_tally: &Tally, event: FetchEvent<'_>| match event {
            FetchEvent::Begun(_) => run.begun += 1,
            FetchEvent::Done(file, Err(error)) => {
                let file = file.map(ToString::to_string).unwrap_or_default();
                run.problems.push(format!("{file}: {error}"));
            }
            FetchEvent::Done(_, Ok(_)) => {}
            FetchEvent::Tick => run.ticks += 1,
        };
        let jobs = NonZeroUsize::new(4).unwrap();
        let fetch = fetch_all(receiver, jobs, &stop, ensure, report);
        let ((), (tally, ended)) = tokio::join!(feed, fetch);
        Run {
            tally,
            ended: Some(ended),
            most_running: most_running.load(Ordering::SeqCst),
            ..run
        }
    }

    fn failed(why: &str) -> GetError {
        GetError::Failed(why.into())
    }

    #[tokio::test(start_paused = true)]
    async fn every_file_is_done_several_at_a_time_and_counted() {
        let answer: Answer = |number| match number % 4 {
            0 => Ok(Ensured::AlreadyStored),
            1 => Ok(Ensured::Fetched { bytes: 10 }),
            2 => Err(GetError::Missing),
            _ => Err(GetError::TimedOut),
        };
        let run = fetched(answer, 100, None).await;
        assert_eq!(run.ended, Some(Ended::AllDone));
        let expected = Tally {
            stored: 25,
            fetched: 25,
            fetched_bytes: 250,
            missing: 25,
            failed: 25,
        };
        assert_eq!((run.tally, run.tally.files()), (expected, 100));
        assert_eq!((run.begun, run.most_running), (100, 4));
        assert_eq!(run.problems.len(), 50);
        let missing = "a 0.0.2: no upstream has it".to_owned();
        assert!(run.problems.contains(&missing), "{:?}", run.problems);
        // 25 seconds of work.
        assert_eq!(run.ticks, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_failures_in_a_row_end_a_run_and_a_success_resets_the_count() {
        let run = fetched(|_| Err(failed("refused")), 1_000, None).await;
        assert_eq!(
            (run.ended, run.tally.failed),
            (
                Some(Ended::GaveUp(failed("refused"))),
                FAILURES_IN_A_ROW_MAX
            )
        );
        let mostly: Answer = |number| match number % 90 {
            7 => Ok(Ensured::AlreadyStored),
            _ => Err(GetError::Store("the disk is full".into())),
        };
        let run = fetched(mostly, 450, None).await;
        assert_eq!((run.ended, run.tally.files()), (Some(Ended::AllDone), 450));
    }

    #[tokio::test(start_paused = true)]
    async fn many_missing_files_in_a_row_end_a_run_and_a_few_do_not_hide_failures() {
        let run = fetched(|_| Err(GetError::Missing), 1_000, None).await;
        assert_eq!(
            (run.ended, run.tally.missing),
            (Some(Ended::GaveUp(GetError::Missing)), MISSING_IN_A_ROW_MAX)
        );
        let half: Answer = |number| match number % 2 {
            0 => Err(GetError::Missing),
            _ => Err(failed("refused")),
        };
        let run = fetched(half, 1_000, None).await;
        assert_eq!(
            (run.ended, run.tally.failed),
            (
                Some(Ended::GaveUp(failed("refused"))),
                FAILURES_IN_A_ROW_MAX
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_running_fetches() {
        let run = fetched(|_| Ok(Ensured::AlreadyStored), 100, Some(9)).await;
        assert_eq!((run.ended, run.tally.stored), (Some(Ended::Stopped), 8));
        assert!(run.begun <= 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_one_file_only() {
        let panics: Answer = |number| {
            assert!(number != 1, "on purpose");
            Ok(Ensured::AlreadyStored)
        };
        let run = fetched(panics, 5, None).await;
        assert_eq!(
            (run.ended, run.tally.stored, run.tally.failed),
            (Some(Ended::AllDone), 4, 1)
        );
    }
}
