//! From the command line to an exit code: which subcommand, with which settings, on which runtime, until when.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Arguments, Subcommand};
use super::commands::check_config::check_config;
use super::commands::export::export;
use super::commands::import::import;
use super::commands::prefetch::prefetch;
use super::commands::serve::serve;
use super::commands::verify::verify;
use super::context::{Context, Outcome};
use super::terminal::Terminal;
use crate::app::{USER_AGENT, runtime};
use crate::config::{Config, Origin, Setting};
use crate::index::configure_libgit2;
use crate::memory::return_large_blocks;
use crate::observability::start_logging_of_subcommand;

/// Which log events of subcommands are written if `RUST_LOG` is not set.
const FILTER_DEFAULT: &str = "warn";

/// How long a subcommand may take to stop. The disk is consistent at any time, so this is only for its last lines.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Does what the command line says. The arguments include the name of the program.
pub fn run_command_line(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => match arguments.subcommand {
            None | Some(Subcommand::Serve) => serve(),
            Some(subcommand) => run(subcommand),
        },
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

/// Runs a subcommand other than `serve` with the settings of the environment.
fn run(subcommand: Subcommand) -> ExitCode {
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
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.note(&error.to_string());
            return Outcome::Incomplete.into();
        }
    };
    let context = Context {
        config,
        terminal,
        stop: CancellationToken::new(),
    };
    let outcome = runtime.block_on(until_stopped(dispatch(subcommand, &context), &context));
    // A read that hangs must not keep the process alive.
    runtime.shutdown_background();
    outcome.into()
}

/// A subcommand reports on the terminal. The log is for the unexpected, unless `RUST_LOG` is set.
fn start_logging(config: &Config, terminal: &Terminal) {
    let is_set = Config::describe_environment().is_ok_and(|settings| {
        let is_filter = |setting: &Setting| setting.name == "RUST_LOG";
        let mut filters = settings.iter().filter(|setting| is_filter(setting));
        filters.any(|setting| setting.origin == Origin::Environment)
    });
    let filter = if is_set {
        &config.log_filter
    } else {
        FILTER_DEFAULT
    };
    let terminal = terminal.clone();
    start_logging_of_subcommand(config.log_format, filter, move |event| terminal.log(event));
}

/// Stops the work at the first signal, and abandons it if it does not stop in time.
async fn until_stopped(work: impl Future<Output = Outcome>, context: &Context) -> Outcome {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        context
            .terminal
            .note("the system does not let signals be waited for");
        return Outcome::Incomplete;
    };
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => return outcome,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    context.stop.cancel();
    let stopped = tokio::time::timeout(STOP_TIME_MAX, work).await;
    stopped.unwrap_or(Outcome::Incomplete)
}

async fn dispatch(subcommand: Subcommand, context: &Context) -> Outcome {
    match subcommand {
        // It has its own runtime and signals.
        Subcommand::Serve => Outcome::Unusable,
        Subcommand::CheckConfig => match Config::describe_environment() {
            Ok(settings) => check_config(&settings, context).await,
            Err(bad_setting) => context.unusable(&bad_setting),
        },
        Subcommand::Prefetch(arguments) => prefetch(*arguments, context).await,
        Subcommand::Verify(arguments) => verify(&arguments, context).await,
        Subcommand::Export(arguments) => export(arguments, context).await,
        Subcommand::Import(arguments) => import(arguments, context).await,
    }
}
