//! From the command line to an exit code: which subcommand, with which settings, on which runtime, until when.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Arguments, CheckConfigArguments, Subcommand};
use super::commands::check_config::{check_config, report_bad_setting};
use super::commands::completions::completions;
use super::commands::explain::explain;
use super::commands::export::export;
use super::commands::healthcheck::healthcheck;
use super::commands::import::import;
use super::commands::man::manual_page;
use super::commands::prefetch::prefetch;
use super::commands::serve::serve;
use super::commands::verify::verify;
use super::commands::wait::wait;
use super::context::{Context, Failed, Outcome};
use super::terminal::Terminal;
use crate::app::{USER_AGENT, runtime};
use crate::config::{Config, Origin, Setting};
use crate::index::configure_libgit2;
use crate::memory::return_large_blocks;
use crate::observability::log_to;

/// Which log events of subcommands are written if `RUST_LOG` is not set.
const FILTER_DEFAULT: &str = "warn";

/// How long a subcommand may take to stop. The disk is consistent at any time, so this is only for its last lines.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Does what the command line says. The arguments include the name of the program.
pub fn run_command_line(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => dispatch(arguments.subcommand.unwrap_or(Subcommand::Serve)),
        // A request for help, or bad usage.
        Err(message) => {
            if message.use_stderr() {
                // The exit code stands, whether or not the message can be read.
                drop(message.print());
            } else if Terminal::of_process()
                .print_help(|| message.print())
                .is_err()
            {
                return Outcome::Incomplete.into();
            }
            ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2))
        }
    }
}

fn dispatch(subcommand: Subcommand) -> ExitCode {
    match subcommand {
        Subcommand::Serve => serve(),
        Subcommand::Prefetch(arguments) => run(async |context| prefetch(*arguments, context).await),
        Subcommand::Verify(arguments) => run(async |context| verify(&arguments, context).await),
        Subcommand::Export(arguments) => run(async |context| export(arguments, context).await),
        Subcommand::Import(arguments) => run(async |context| import(arguments, context).await),
        Subcommand::Explain(arguments) => run(async |context| explain(arguments, context).await),
        Subcommand::CheckConfig(arguments) => run_check_config(arguments),
        Subcommand::Healthcheck => ask_server(async |terminal, _stop| healthcheck(terminal).await),
        Subcommand::Wait(arguments) => {
            ask_server(async |terminal, stop| wait(&arguments, terminal, stop).await)
        }
        Subcommand::Completions { shell } => print(Ok(completions(shell))),
        Subcommand::Man => print(manual_page()),
    }
}

/// Writes a text that needs no settings.
fn print(text: io::Result<Vec<u8>>) -> ExitCode {
    let terminal = Terminal::of_process();
    match text.and_then(|text| terminal.print_text(&text)) {
        Ok(()) => Outcome::Done.into(),
        Err(_reported) => Outcome::Incomplete.into(),
    }
}

/// Runs `check-config`. With `--json` it reports a bad setting, too.
fn run_check_config(arguments: CheckConfigArguments) -> ExitCode {
    if arguments.json
        && let Err(bad_setting) = Config::from_environment()
    {
        // Without a description, because a text in it is not UTF-8, there is still the error.
        let settings = Config::describe_environment().unwrap_or_default();
        let why = bad_setting.to_string();
        return report_bad_setting(&settings, why, &Terminal::of_process()).into();
    }
    run(async |context| match Config::describe_environment() {
        Ok(settings) => Ok(check_config(arguments, &settings, context).await),
        Err(bad_setting) => Err(Failed::unusable(bad_setting)),
    })
}

/// Runs a subcommand that asks the server on this machine, and needs nothing else.
fn ask_server(subcommand: impl AsyncFnOnce(&Terminal, &CancellationToken) -> Outcome) -> ExitCode {
    let (terminal, stop) = (Terminal::of_process(), CancellationToken::new());
    on_runtime(subcommand(&terminal, &stop), &terminal, &stop)
}

/// Runs a subcommand with the settings of the environment.
fn run(subcommand: impl AsyncFnOnce(&Context) -> Result<Outcome, Failed>) -> ExitCode {
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
    return_large_blocks();
    // Before any use of libgit2: an import writes a clone without asking an upstream.
    configure_libgit2(
        config.connect_timeout,
        config.silence_timeout,
        USER_AGENT,
        config.contact.as_deref(),
    );
    start_logging(&config, &terminal);
    let context = Context {
        config,
        terminal,
        stop: CancellationToken::new(),
    };
    let work = async { context.end(subcommand(&context).await) };
    on_runtime(work, &context.terminal, &context.stop)
}

/// Runs a subcommand until it ends or is stopped.
fn on_runtime(
    work: impl Future<Output = Outcome>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.note(&error.to_string());
            return Outcome::Incomplete.into();
        }
    };
    let outcome = runtime.block_on(until_stopped(work, terminal, stop));
    // A read that hangs must not keep the process alive.
    runtime.shutdown_background();
    outcome.into()
}

/// A subcommand reports on the terminal. The log is for the unexpected, unless `RUST_LOG` is set.
fn start_logging(config: &Config, terminal: &Terminal) {
    let is_set_filter = |set: &Setting| set.name == "RUST_LOG" && set.origin == Origin::Environment;
    let is_set = Config::describe_environment().is_ok_and(|all| all.iter().any(is_set_filter));
    let filter = if is_set {
        &config.log_filter
    } else {
        FILTER_DEFAULT
    };
    let terminal = terminal.clone();
    // Results go to standard output.
    log_to(config.log_format, filter, false, move |event| {
        terminal.log(event);
    });
}

/// Stops the work at the first signal, and abandons it if it does not stop in time.
async fn until_stopped(
    work: impl Future<Output = Outcome>,
    terminal: &Terminal,
    stop: &CancellationToken,
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
