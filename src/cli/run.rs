//! From the command line to an exit code: which verb, with which settings, on which runtime, until when.

use std::ffi::OsString;
use std::future::Future;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{
    Arguments, DependencyArguments, ExportArguments, ImportArguments, NamedArgument,
    PrefetchArguments, SelectionArguments, VerbArguments, VerifyArguments,
};
use super::carry::{run_export, run_import};
use super::commands::check_config::check_config;
use super::commands::verify::{check_all, outcome_of, repair};
use super::keeping::{Remembering, SeenTo};
use super::opening::{OpenError, open_index, open_store, warn_of_a_store_that_forgets};
use super::outcome::Outcome;
use super::terminal::Terminal;
use crate::app::{USER_AGENT, runtime};
use crate::archive::{Export, Import, ImportAction};
use crate::config::{Config, DownloadMode, Origin, Setting};
use crate::index::{Snapshot, configure_libgit2};
use crate::observability::start_logging_of_verb;
use crate::prefetch::{
    Action, Dependencies, InputError, Inputs, OwnSources, Prefetch, Selection, prefetch,
};
use crate::store::CrateFiles;

/// Which log events of verbs are written, where `RUST_LOG` does not say.
const FILTER_DEFAULT: &str = "warn";

/// How long a verb may take to stop. What is on disk is good at any time, so this is for its last words only.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// What the program was started for.
#[derive(Debug)]
pub enum Invocation {
    /// To run the server.
    Serve,
    /// To do one thing and end.
    Verb(Verb),
    /// To say something about itself, or that it does not understand. That was said; this is the exit code.
    Said(ExitCode),
}

/// One thing to do, beside serving.
#[derive(Debug)]
pub struct Verb(VerbArguments);

/// Reads the command line, the name of the program included.
pub fn read_command_line(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => match arguments.verb {
            None | Some(VerbArguments::Serve) => Invocation::Serve,
            Some(verb) => Invocation::Verb(Verb(verb)),
        },
        Err(not_a_verb) => {
            // Help goes to standard output, complaints to standard error.
            if not_a_verb.use_stderr() {
                // One that nobody reads still has its exit code.
                drop(not_a_verb.print());
            } else if Terminal::of_process()
                .print_help(|| not_a_verb.print())
                .is_err()
            {
                return Invocation::Said(Outcome::Incomplete.into());
            }
            let code = u8::try_from(not_a_verb.exit_code()).unwrap_or(2);
            Invocation::Said(ExitCode::from(code))
        }
    }
}

impl Verb {
    /// Does it, with the settings of the environment.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let terminal = Terminal::of_process();
        if terminal.check_results().is_err() {
            return Outcome::Incomplete.into();
        }
        let config = match Config::from_environment() {
            Ok(config) => config,
            Err(bad_setting) => {
                terminal.note(&bad_setting.to_string());
                return Outcome::Unusable.into();
            }
        };
        crate::return_large_blocks();
        // Before anything can use libgit2: an import writes a clone without ever asking an upstream.
        configure_libgit2(
            config.connect_timeout,
            config.silence_timeout,
            USER_AGENT,
            config.contact.as_deref(),
        );
        start_logging(&config, &terminal);
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                terminal.note(&error.to_string());
                return Outcome::Incomplete.into();
            }
        };
        let stop = CancellationToken::new();
        let work = carry_out(self.0, config, terminal.clone(), stop.clone());
        let outcome = runtime.block_on(until_stopped(work, &stop, &terminal));
        // A read that hangs must not keep the process alive.
        runtime.shutdown_background();
        outcome.into()
    }
}

/// A verb says itself what it does; the log is for what nobody expected, unless it was asked for.
fn start_logging(config: &Config, terminal: &Terminal) {
    let was_asked_for = Config::describe_environment().is_ok_and(|settings| {
        let is_filter = |setting: &Setting| setting.name == "RUST_LOG";
        let mut filters = settings.iter().filter(|setting| is_filter(setting));
        filters.any(|setting| setting.origin == Origin::Environment)
    });
    let filter = if was_asked_for {
        &config.log_filter
    } else {
        FILTER_DEFAULT
    };
    let terminal = terminal.clone();
    start_logging_of_verb(config, filter, move |event| terminal.log(event));
}

/// Tells the work to stop when a signal comes, and leaves it behind if it does not.
async fn until_stopped(
    work: impl Future<Output = Outcome>,
    stop: &CancellationToken,
    terminal: &Terminal,
) -> Outcome {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        terminal.note("the system does not let signals be waited for");
        return Outcome::Incomplete;
    };
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => return outcome,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    let stopped = tokio::time::timeout(STOP_TIME_MAX, work).await;
    stopped.unwrap_or(Outcome::Incomplete)
}

async fn carry_out(
    verb: VerbArguments,
    config: Config,
    terminal: Terminal,
    stop: CancellationToken,
) -> Outcome {
    match verb {
        // The command line is read into something else for it.
        VerbArguments::Serve => Outcome::Unusable,
        VerbArguments::CheckConfig => match Config::describe_environment() {
            Ok(settings) => check_config(&settings, &config, &terminal).await,
            Err(bad_setting) => unusable(&terminal, &bad_setting),
        },
        VerbArguments::Prefetch(arguments) => {
            let public_url = config.public_url.as_ref().map(ToString::to_string);
            let own = OwnSources::new(public_url.as_deref(), &config.git_repo_url.to_string());
            let reading = tokio::task::spawn_blocking(|| read_prefetch(*arguments, own));
            // What is read may be a pipe that nobody writes to any more.
            let read = tokio::select! {
                () = stop.cancelled() => return cannot_begin(&terminal, &OpenError::Stopped),
                read = reading => read,
            };
            match read {
                Ok(Ok(prefetch)) => run_prefetch(prefetch, &config, &terminal, &stop).await,
                Ok(Err(bad_input)) => unusable(&terminal, &bad_input),
                Err(mistake) => {
                    terminal.note(&format!("a mistake in the mirror: {mistake}"));
                    Outcome::Incomplete
                }
            }
        }
        VerbArguments::Verify(arguments) => run_verify(&arguments, &config, &terminal, &stop).await,
        VerbArguments::Export(ExportArguments { archive, since }) => {
            run_export(Export { archive, since }, &config, &terminal, &stop).await
        }
        VerbArguments::Import(arguments) => {
            run_import(read_import(arguments), &config, &terminal, &stop).await
        }
    }
}

async fn run_prefetch(
    arguments: Prefetch,
    config: &Config,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let fetches = matches!(arguments.action, Action::Fetch { .. });
    if fetches && config.download_mode == DownloadMode::Offline {
        terminal.note(
            "DOWNLOAD_MODE: `offline` forbids to fetch anything; prefetch where there is a network",
        );
        return Outcome::Unusable;
    }
    if fetches {
        warn_of_a_store_that_forgets(config, terminal);
    }
    let (index, keeper) = match open_both(config, terminal, stop).await {
        Ok(opened) => opened,
        Err(error) => return cannot_begin(terminal, &error),
    };
    let seen_to = SeenTo::default();
    let remembering = Remembering {
        keeper: keeper.clone(),
        seen_to: seen_to.clone(),
    };
    let outcome = prefetch(arguments, index, Arc::new(remembering), terminal, stop).await;
    keeper.stop().await;
    seen_to.outcome(outcome, &keeper, terminal).await
}

async fn run_verify(
    arguments: &VerifyArguments,
    config: &Config,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let keeper = match open_store(config) {
        Ok(keeper) => Arc::new(keeper),
        Err(error) => return cannot_begin(terminal, &error),
    };
    let checked = match check_all(&keeper, terminal, stop).await {
        Ok(checked) => checked,
        Err(outcome) => return outcome,
    };
    if !arguments.repair || checked.damaged().is_empty() {
        return outcome_of(&checked);
    }
    let outcome = match open_index(config, terminal, stop).await {
        Ok(index) => repair(checked, &keeper, &keeper, index, terminal, stop).await,
        Err(error) => cannot_begin(terminal, &error),
    };
    keeper.stop().await;
    outcome
}

fn cannot_begin(terminal: &Terminal, why: &OpenError) -> Outcome {
    terminal.note(&why.to_string());
    Outcome::Incomplete
}

/// The store is quick to open, so what is wrong with it is known before the index is fetched.
async fn open_both(
    config: &Config,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Result<(Arc<Snapshot>, CrateFiles), OpenError> {
    let keeper = open_store(config)?;
    let index = open_index(config, terminal, stop).await?;
    Ok((index, keeper))
}

/// Reads what the arguments name. Blocking, and for ever if it is a pipe that nobody closes.
fn read_prefetch(arguments: PrefetchArguments, own: OwnSources) -> Result<Prefetch, InputError> {
    let selection = if arguments.selection.all {
        Selection::Everything
    } else {
        Selection::Named(inputs(arguments.selection, &arguments.dependencies, own).read()?)
    };
    let jobs = NonZeroUsize::new(arguments.jobs.into()).unwrap_or(NonZeroUsize::MIN);
    let action = if arguments.dry_run {
        Action::List
    } else {
        Action::Fetch { jobs }
    };
    Ok(Prefetch { selection, action })
}

fn read_import(arguments: ImportArguments) -> Import {
    let action = if arguments.dry_run {
        ImportAction::CheckOnly
    } else {
        ImportAction::Keep
    };
    Import {
        archive: arguments.archive,
        action,
    }
}

fn inputs(
    selection: SelectionArguments,
    dependencies: &DependencyArguments,
    own: OwnSources,
) -> Inputs {
    let (mut lockfiles, mut crates) = (selection.lockfile, Vec::new());
    for named in selection.named {
        match named {
            NamedArgument::Crate(spec) => crates.push(spec),
            NamedArgument::Lockfile(path) => lockfiles.push(path),
        }
    }
    Inputs {
        lockfiles,
        lists: selection.crates,
        crates,
        dependencies: match dependencies {
            DependencyArguments { no_deps: true, .. } => Dependencies::Ignored,
            DependencyArguments { dev_deps: true, .. } => Dependencies::ToBuildAndTest,
            DependencyArguments { .. } => Dependencies::ToBuild,
        },
        own,
    }
}

fn unusable(terminal: &Terminal, why: &dyn std::error::Error) -> Outcome {
    terminal.note(&why.to_string());
    Outcome::Unusable
}
