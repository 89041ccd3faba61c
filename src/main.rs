//! The program: command line, settings, logging, run, exit code.

use std::io::Write;
use std::process::ExitCode;

use crates_io_mirror::{
    App, Config, Invocation, read_command_line, reap_as_process_one, return_large_blocks, runtime,
    start_logging,
};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code for settings that are no good.
const BAD_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    match read_command_line(std::env::args_os()) {
        Invocation::Serve => reap_as_process_one().unwrap_or_else(serve),
        Invocation::Verb(verb) => verb.run(),
        Invocation::Said(code) => code,
    }
}

fn serve() -> ExitCode {
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(error) => return fail(&error, BAD_SETTINGS),
    };
    return_large_blocks();
    let logging = start_logging(&config);
    // This thread accepts connections and waits for signals.
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let result = runtime.block_on(run(config));
    // A fetch that waits for a silent upstream must not keep the process alive.
    runtime.shutdown_background();
    drop(logging);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref(), 1),
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A terminal that was closed, or somebody who is used to it, ends nothing. The files of TLS are read again by themselves.
    let _ignored = signal(SignalKind::hangup())?;
    let app = App::bind(config).await?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(app.run(stop).await?)
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    // The one line that says why the program did not run. The exit code stands, whether or not it can be read.
    let _unread = writeln!(std::io::stderr(), "{error}");
    ExitCode::from(code)
}
