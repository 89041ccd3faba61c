//! `serve`: the mirror itself.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, runtime, start_logging};
use crate::config::{Config, Origin};
use crate::memory::return_large_blocks;
use crate::observability::Logging;
use crate::printable::printable;
use crate::process_one::reap_as_process_one;

/// Exit code for bad settings.
const BAD_SETTINGS: u8 = 2;

/// Serves until a signal comes.
pub(crate) fn serve() -> ExitCode {
    // As the first process of a container this one only waits, and a child serves.
    if let Some(code) = reap_as_process_one() {
        return code;
    }
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
    log_settings();
    let result = runtime.block_on(run(config, &logging));
    // A fetch from an unresponsive upstream must not keep the process alive.
    runtime.shutdown_background();
    drop(logging);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref(), 1),
    }
}

async fn run(config: Config, logging: &Logging) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // SIGHUP ends nothing: it comes from closed terminals, and from habit. The files of TLS are read again without it.
    let _ignored = signal(SignalKind::hangup())?;
    let app = App::bind(config).await?;
    app.count_dropped_events(logging);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(app.run(stop).await?)
}

/// One line with the settings in effect, without secrets.
fn log_settings() {
    // The settings were read without an error a moment ago.
    let Ok(settings) = Config::describe_environment() else {
        return;
    };
    let of = |origin: Origin| {
        let settings = settings.iter().filter(|setting| setting.origin == origin);
        let pairs = settings
            .filter_map(|setting| Some(format!("{}={}", setting.name, setting.value.as_ref()?)));
        pairs.collect::<Vec<_>>().join(" ")
    };
    tracing::info!(
        set = of(Origin::Environment),
        default = of(Origin::Default),
        "the settings in effect"
    );
}

fn fail(error: &dyn Error, code: u8) -> ExitCode {
    // One line says why the program did not run. The exit code stands, whether or not the line can be read.
    let line = error.to_string();
    let _unread = writeln!(std::io::stderr(), "{}", printable(&line));
    ExitCode::from(code)
}
