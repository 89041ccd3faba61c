//! The verb itself: plan, fetch, sum up.

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use indicatif::{DecimalBytes, HumanCount};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::outcome::Outcome;
use crate::cli::progress::Progress;
use crate::cli::terminal::Terminal;
use crate::package::CrateFile;
use crate::prefetch::everything::{EveryFile, hand_over_everything};
use crate::prefetch::fetch::{CrateKeeper, Ended, fetch_all};
use crate::prefetch::findings::{Finding, Severity};
use crate::prefetch::index_reader::{IndexReader, IndexUnreadable};
use crate::prefetch::plan::{Plan, Wanted};
use crate::prefetch::tally::{EnsureError, Tally};

/// How many files are looked up ahead of being fetched.
const FILES_AHEAD: usize = 1_000;

/// What `prefetch` shall do.
#[derive(Clone, Debug)]
pub(crate) struct Prefetch {
    /// Which files.
    pub(crate) selection: Selection,
    /// Fetch them, or only say which they are.
    pub(crate) action: Action,
}

/// Which files are wanted.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// Every version of every crate.
    Everything,
    /// What was named.
    Named(Wanted),
}

/// What is done with the files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// They are fetched, so many at a time.
    Fetch {
        /// How many.
        jobs: NonZeroUsize,
    },
    /// They are listed.
    List,
}

/// Carries it out. The outcome is [`Outcome::Done`] only if all that was wanted is held (or listed).
pub(crate) async fn prefetch(
    prefetch: Prefetch,
    index: Arc<impl IndexReader + Send + Sync + 'static>,
    keeper: Arc<impl CrateKeeper>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let (sender, files) = mpsc::channel(FILES_AHEAD);
    let source = Source {
        selection: prefetch.selection,
        terminal: terminal.clone(),
        stop: stop.clone(),
    };
    // Reading the index blocks.
    let (total, total_known) = tokio::sync::oneshot::channel();
    let planning = tokio::task::spawn_blocking(move || source.hand_over(&*index, sender, total));
    let carried_out = match (total_known.await, prefetch.action) {
        (Err(_no_plan), _) => Outcome::Incomplete,
        (Ok(_), Action::List) => list(files, terminal, stop).await,
        (Ok(total), Action::Fetch { jobs }) => {
            fetch(files, total, &keeper, jobs, terminal, stop).await
        }
    };
    if stop.is_cancelled() {
        terminal.note("stopped; run the same again to go on from here");
        return Outcome::Incomplete;
    }
    let planned = match planning.await {
        Ok(Ok(planned)) => planned,
        Ok(Err(unreadable)) => {
            terminal.note(&unreadable.to_string());
            Outcome::Incomplete
        }
        Err(mistake) => {
            terminal.note(&format!("a mistake in the mirror: {mistake}"));
            Outcome::Incomplete
        }
    };
    match carried_out {
        Outcome::Done => planned,
        other => other,
    }
}

async fn list(
    mut files: mpsc::Receiver<CrateFile>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let next = async |files: &mut mpsc::Receiver<CrateFile>| {
        tokio::select! {
            () = stop.cancelled() => None,
            file = files.recv() => file,
        }
    };
    while let Some(file) = next(&mut files).await {
        let line = format!("{}@{}", file.name, file.version);
        if terminal.result(&line).is_err() {
            return Outcome::Incomplete;
        }
    }
    Outcome::Done
}

async fn fetch(
    files: mpsc::Receiver<CrateFile>,
    total: Option<u64>,
    keeper: &Arc<impl CrateKeeper>,
    jobs: NonZeroUsize,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let mut progress = Progress::new(terminal.clone(), total);
    let (tally, ended) = fetch_all(files, keeper, jobs, &mut progress, stop).await;
    progress.finish();
    if let Ended::GaveUp(error) = &ended {
        terminal.note(&format!("gave up: {}", said_of_many(error)));
    }
    let said = terminal.result(&summary(&tally));
    let is_complete = tally.missing == 0 && tally.failed == 0 && ended == Ended::AllDealtWith;
    match said {
        Ok(()) if is_complete => Outcome::Done,
        _ => Outcome::Incomplete,
    }
}

/// What is likely to be wrong when this was wrong with many files in a row.
fn said_of_many(error: &EnsureError) -> String {
    match error {
        EnsureError::Missing => {
            "no upstream has any of too many files in a row; does DOWNLOAD_URL lead to crate files?"
                .to_owned()
        }
        EnsureError::Failed(said) => format!(
            "too many files in a row could not be fetched; is the upstream of DOWNLOAD_URL down? The last one: {said}"
        ),
        EnsureError::Store(said) => {
            format!("too many files in a row could not be stored; the last one: {said}")
        }
    }
}

fn summary(tally: &Tally) -> String {
    format!(
        "{} files: {} fetched ({}), {} held already, {} missing upstream, {} failed",
        HumanCount(tally.files()),
        HumanCount(tally.fetched),
        DecimalBytes(tally.fetched_bytes),
        HumanCount(tally.held),
        HumanCount(tally.missing),
        HumanCount(tally.failed),
    )
}

/// Where the files come from, on a thread that may block.
struct Source {
    selection: Selection,
    terminal: Terminal,
    stop: CancellationToken,
}

impl Source {
    /// Sends every file that is wanted. `total` hears how many there are, if that is known beforehand.
    fn hand_over(
        self,
        index: &impl IndexReader,
        files: mpsc::Sender<CrateFile>,
        total: tokio::sync::oneshot::Sender<Option<u64>>,
    ) -> Result<Outcome, IndexUnreadable> {
        match &self.selection {
            Selection::Everything => {
                // Nobody waits for it any more if this fails.
                let _gone = total.send(None);
                let mut taker = Sending {
                    files,
                    terminal: &self.terminal,
                    outcome: Outcome::Done,
                };
                hand_over_everything(index, &mut taker)?;
                Ok(taker.outcome)
            }
            Selection::Named(wanted) => {
                let plan = Plan::make(wanted, index, &self.stop)?;
                report(&plan, &self.terminal);
                let outcome = if plan.has_problems() {
                    Outcome::Incomplete
                } else {
                    Outcome::Done
                };
                let plan = plan.into_files();
                let _gone = total.send(u64::try_from(plan.len()).ok());
                for file in plan {
                    if files.blocking_send(file).is_err() {
                        break;
                    }
                }
                Ok(outcome)
            }
        }
    }
}

fn report(plan: &Plan, terminal: &Terminal) {
    for finding in &plan.findings {
        terminal.note(&finding.to_string());
    }
    if plan.locked_elsewhere > 0 {
        let passed_over = plan.locked_elsewhere;
        terminal.note(&format!(
            "warning: passed over {passed_over} packages of lock files that are of other registries"
        ));
    }
    if plan.elsewhere > 0 {
        let passed_over = plan.elsewhere;
        terminal.note(&format!(
            "passed over {passed_over} dependencies on crates of other registries"
        ));
    }
}

/// Sends every file to where it is fetched.
struct Sending<'t> {
    files: mpsc::Sender<CrateFile>,
    terminal: &'t Terminal,
    outcome: Outcome,
}

impl EveryFile for Sending<'_> {
    fn take(&mut self, file: CrateFile) -> ControlFlow<()> {
        match self.files.blocking_send(file) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_nobody_takes_them) => ControlFlow::Break(()),
        }
    }

    fn hear(&mut self, finding: Finding) {
        self.terminal.note(&finding.to_string());
        if finding.severity == Severity::Problem {
            self.outcome = Outcome::Incomplete;
        }
    }
}
