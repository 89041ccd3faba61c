//! `prefetch`: fetching crate files into the store, ahead of need.

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use indicatif::{DecimalBytes, HumanCount};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cli::args::{DependencyArguments, NamedArgument, PrefetchArguments};
use crate::cli::context::{Context, Failed, Outcome};
use crate::cli::progress::Progress;
use crate::cli::terminal::Terminal;
use crate::config::DownloadMode;
use crate::index::{ReadError, ServedIndex};
use crate::package::{Checksum, CrateFile};
use crate::prefetch::{
    Dependencies, Ended, FetchEvent, InputError, OwnSources, Plan, Severity, Tally, Wanted,
    ensure_patiently, every_file, fetch_all,
};
use crate::store::{CrateFiles, GetError};

/// How many files are looked up ahead of their fetches.
const FILES_AHEAD: usize = 1_000;

/// Which files are wanted.
#[derive(Clone, Debug)]
enum Selection {
    /// Every version of every crate.
    Everything,
    /// These.
    Named(Wanted),
}

/// What is done with the files.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// They are fetched, this many at a time.
    Fetch { jobs: NonZeroUsize },
    /// They are listed.
    List,
}

/// Fetches or lists the wanted files.
pub(crate) async fn prefetch(
    arguments: PrefetchArguments,
    context: &Context,
) -> Result<Outcome, Failed> {
    let config = &context.config;
    let action = if arguments.dry_run {
        Action::List
    } else {
        let jobs = NonZeroUsize::new(arguments.jobs.into()).unwrap_or(NonZeroUsize::MIN);
        Action::Fetch { jobs }
    };
    let public_url = config.public_url.as_ref().map(ToString::to_string);
    let own = OwnSources::new(public_url.as_deref(), &config.git_repo_url.to_string());
    let reading = move || read_selection(arguments, &own);
    let selection = context.blocking(reading).await?;
    let selection = selection.map_err(Failed::unusable)?;
    if matches!(action, Action::Fetch { .. }) {
        if config.download_mode == DownloadMode::Offline {
            return Err(Failed::unusable(
                "DOWNLOAD_MODE: `offline` forbids to fetch anything; prefetch where there is a network",
            ));
        }
        context.warn_of_a_store_that_forgets();
    }
    // The store opens at once, so its problems are known before the index is fetched.
    let crate_files = context.open_crate_files()?;
    let index = context.open_index().await?;
    let (outcome, stored) = run(selection, action, index, &crate_files, context).await;
    crate_files.stop().await;
    let store = crate_files.store();
    Ok(context.check_evicted(outcome, store, &stored).await)
}

/// Reads the files of the arguments. Blocking, and for ever if one is a pipe that nobody closes.
fn read_selection(arguments: PrefetchArguments, own: &OwnSources) -> Result<Selection, InputError> {
    let selection = arguments.selection;
    if selection.all {
        return Ok(Selection::Everything);
    }
    let mut wanted = Wanted {
        locked: Vec::new(),
        crates: Vec::new(),
        dependencies: match arguments.dependencies {
            DependencyArguments { no_deps: true, .. } => Dependencies::Ignored,
            DependencyArguments { dev_deps: true, .. } => Dependencies::ToBuildAndTest,
            DependencyArguments { .. } => Dependencies::ToBuild,
        },
    };
    for named in selection.named {
        match named {
            NamedArgument::Crate(spec) => wanted.crates.push(spec),
            NamedArgument::Lockfile(path) => wanted.add_lockfile(path, own)?,
        }
    }
    for path in selection.lockfile {
        wanted.add_lockfile(path, own)?;
    }
    for path in selection.crates {
        wanted.add_list(path)?;
    }
    Ok(Selection::Named(wanted))
}

/// Looks up the files and fetches or lists them at the same time. Returns the files that are stored afterwards, too.
async fn run(
    selection: Selection,
    action: Action,
    index: ServedIndex,
    crate_files: &CrateFiles,
    context: &Context,
) -> (Outcome, Vec<Checksum>) {
    let (sender, files) = mpsc::channel(FILES_AHEAD);
    let (total, total_known) = oneshot::channel();
    let (terminal, stop) = (context.terminal.clone(), context.stop.clone());
    let planning = tokio::task::spawn_blocking(move || {
        hand_over(&selection, &index, &sender, total, &terminal, &stop)
    });
    let (outcome, stored) = match (total_known.await, action) {
        (Err(_no_plan), _) => (Outcome::Incomplete, Vec::new()),
        (Ok(_), Action::List) => (list(files, context).await, Vec::new()),
        (Ok(total), Action::Fetch { jobs }) => {
            fetch(files, total, crate_files, jobs, context).await
        }
    };
    if context.stop.is_cancelled() {
        context
            .terminal
            .note("stopped; run the same again to go on from here");
        return (Outcome::Incomplete, stored);
    }
    let planned = match planning.await {
        Ok(Ok(planned)) => planned,
        Ok(Err(unreadable)) => {
            let why = format!("the index cannot be read: {unreadable}");
            context.terminal.note(&why);
            Outcome::Incomplete
        }
        Err(panic) => context.end(Err(panic.into())),
    };
    match outcome {
        Outcome::Done => (planned, stored),
        other => (other, stored),
    }
}

async fn list(mut files: mpsc::Receiver<CrateFile>, context: &Context) -> Outcome {
    loop {
        let file = tokio::select! {
            () = context.stop.cancelled() => return Outcome::Done,
            file = files.recv() => file,
        };
        let Some(file) = file else {
            return Outcome::Done;
        };
        let line = format!("{}@{}", file.name, file.version);
        if context.terminal.result(&line).is_err() {
            return Outcome::Incomplete;
        }
    }
}

async fn fetch(
    files: mpsc::Receiver<CrateFile>,
    total: Option<u64>,
    crate_files: &CrateFiles,
    jobs: NonZeroUsize,
    context: &Context,
) -> (Outcome, Vec<Checksum>) {
    let terminal = &context.terminal;
    let mut progress = Progress::new(terminal, "files", total);
    let (mut current, mut stored) = (String::new(), Vec::new());
    let report = |tally: &Tally, event: FetchEvent<'_>| {
        match event {
            FetchEvent::Begun(file) => {
                current = file.to_string();
                return;
            }
            FetchEvent::Done(file, Ok(_)) => stored.extend(file.map(|file| file.checksum)),
            FetchEvent::Done(file, Err(error)) => {
                let file = file.map_or_else(|| "a file".to_owned(), ToString::to_string);
                terminal.note(&format!("problem: {file}: {error}"));
            }
            FetchEvent::Tick => {}
        }
        let bytes = tally.fetched_bytes;
        let per_second = bytes / progress.elapsed().as_secs().max(1);
        let message = format!(
            "{} fetched, {}/s, at {current}",
            DecimalBytes(bytes),
            DecimalBytes(per_second)
        );
        progress.update(tally.files(), &message);
    };
    let ensure = |file: CrateFile| {
        let crate_files = crate_files.clone();
        async move {
            let result = ensure_patiently(&crate_files, &file).await;
            (file, result)
        }
    };
    let (tally, ended) = fetch_all(files, jobs, &context.stop, ensure, report).await;
    drop(progress);
    if let Ended::GaveUp(error) = &ended {
        terminal.note(&format!("gave up: {}", why_so_many(error)));
    }
    let said = terminal.result(&summary(&tally));
    let is_complete = tally.missing == 0 && tally.failed == 0 && ended == Ended::AllDone;
    let outcome = match said {
        Ok(()) if is_complete => Outcome::Done,
        _ => Outcome::Incomplete,
    };
    (outcome, stored)
}

/// The likely cause of the same error for many files in a row.
fn why_so_many(error: &GetError) -> String {
    match error {
        GetError::Missing => {
            "no upstream has any of too many files in a row; does DOWNLOAD_URL lead to crate files?"
                .to_owned()
        }
        GetError::Store(_) => {
            format!("too many files in a row could not be stored; the last one: {error}")
        }
        _ => format!(
            "too many files in a row could not be fetched; is the upstream of DOWNLOAD_URL down? The last one: {error}"
        ),
    }
}

fn summary(tally: &Tally) -> String {
    format!(
        "{} files: {} fetched ({}), {} stored already, {} missing upstream, {} failed",
        HumanCount(tally.files()),
        HumanCount(tally.fetched),
        DecimalBytes(tally.fetched_bytes),
        HumanCount(tally.stored),
        HumanCount(tally.missing),
        HumanCount(tally.failed),
    )
}

/// Sends every wanted file. `total` gets their number, if it is known beforehand. Blocking.
fn hand_over(
    selection: &Selection,
    index: &ServedIndex,
    files: &mpsc::Sender<CrateFile>,
    total: oneshot::Sender<Option<u64>>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Result<Outcome, ReadError> {
    let mut outcome = Outcome::Done;
    let send = |file| match files.blocking_send(file) {
        Ok(()) => ControlFlow::Continue(()),
        // The receiver is gone: the run has ended.
        Err(_ended) => ControlFlow::Break(()),
    };
    match selection {
        Selection::Everything => {
            let _ended = total.send(None);
            let denied = every_file(index, |file| match file {
                Ok(file) => send(file),
                Err(finding) => {
                    terminal.note(&finding.to_string());
                    if finding.severity == Severity::Problem {
                        outcome = Outcome::Incomplete;
                    }
                    ControlFlow::Continue(())
                }
            })?;
            if denied > 0 {
                let denied = HumanCount(denied);
                terminal.note(&format!(
                    "passed over {denied} files that the policy denies"
                ));
            }
        }
        Selection::Named(wanted) => {
            let plan = Plan::make(wanted, index, stop)?;
            report(&plan, terminal);
            if plan.has_problems() {
                outcome = Outcome::Incomplete;
            }
            let plan = plan.into_files();
            let _ended = total.send(u64::try_from(plan.len()).ok());
            let _ended = plan.into_iter().try_for_each(send);
        }
    }
    Ok(outcome)
}

fn report(plan: &Plan, terminal: &Terminal) {
    for finding in &plan.findings {
        terminal.note(&finding.to_string());
    }
    if plan.locked_elsewhere > 0 {
        terminal.note(&format!(
            "warning: passed over {} packages of lock files that are of other registries",
            plan.locked_elsewhere
        ));
    }
    if plan.elsewhere > 0 {
        terminal.note(&format!(
            "passed over {} dependencies on crates of other registries",
            plan.elsewhere
        ));
    }
}
