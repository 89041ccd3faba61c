//! Logging set-up.
//!
//! Events are written to standard output by a thread of their own: a reader that stalls must not hold up requests. When
//! too many wait, new ones are dropped.

use std::io::{self, BufWriter, IsTerminal, Write};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Config, LogFormat};

/// Events that may wait to be written, a few hundred bytes each.
const WAITING_EVENTS_MAX: usize = 16_384;

/// Bytes that are written at a time when events come faster than they can be written one by one.
const BATCH_BYTES: usize = 64 * 1024;

/// Keeps logging alive; dropping it writes what still waits.
#[derive(Debug)]
#[must_use = "logging ends when this is dropped"]
pub struct Logging {
    _guard: WorkerGuard,
}

/// Starts logging as the settings say. Does nothing if a test has already started it.
pub fn start_logging(config: &Config) -> Logging {
    let stdout = io::stdout();
    let colours = stdout.is_terminal();
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_EVENTS_MAX)
        .finish(BufWriter::with_capacity(BATCH_BYTES, stdout));
    install(config, &config.log_filter, writer, colours);
    Logging { _guard: guard }
}

/// Starts the logging of a verb, whose results are on standard output: events go to `writer` as they happen.
pub(crate) fn start_logging_of_verb<W: Write + 'static>(
    config: &Config,
    filter: &str,
    writer: impl Fn() -> W + Send + Sync + 'static,
) {
    install(config, filter, writer, false);
}

fn install<W>(config: &Config, filter: &str, writer: W, colours: bool)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The filter was checked when the settings were read.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(writer);
    let _already_started = match config.log_format {
        LogFormat::Text => subscriber.with_ansi(colours).try_init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
}
