//! Logging set-up.
//!
//! Events are written to standard output by a thread of their own: a reader that stalls must not hold up requests. When
//! too many wait, new ones are dropped.

use std::io::{self, BufWriter, IsTerminal};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

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
    // The filter was checked when the settings were read.
    let filter = EnvFilter::new(&config.log_filter);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
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
    Logging { _guard: guard }
}
